//! A micro-batch of DPO and its update on a random model: launches and waits of the host, milliseconds, memory.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use simplemix::loss::{
    Checks, FusedInputs, Head, PairLogps, Positions, PreferenceLoss, ScoreOptions, TokenStats, fused_preference_loss,
};
use simplemix::model::{AttentionRoute, CausalLm, LoraConfig, Packed, Targets};
use simplemix::tch::{Device, Kind, Tensor};
use simplemix::torch::device::{memory, read_all, reset_peak, to_device};
use simplemix::torch::trace;
use simplemix::train::{OptimizerSettings, Trainable, Trainee};

use crate::Setting;
use crate::report::{Found, Report, timed};
use crate::shapes::{Lengths, Shape, random_model};

/// Pairs of a micro-batch.
const PAIRS: [usize; 2] = [2, 16];
/// Waits of a micro-batch that are allowed.
const WAITS: f64 = 2.0;

pub(crate) fn check(report: &mut Report, setting: &Setting) -> Result<()> {
    let (place, shape) = (setting.device, setting.shape);
    let layers = shape.narrow_config()?.num_hidden_layers;
    report.check("launches do not grow with pairs", &format!("{layers} layers, 64 wide"), Kind::Float, || {
        launches(shape)
    })?;
    let kind = if place == Device::Cpu { Kind::Float } else { Kind::BFloat16 };
    report.check("a micro-batch and an update", &shape.text(), kind, || times(shape, kind, place))
}

/// Policy with its optimiser, and the loss.
struct Training {
    policy: CausalLm,
    trainee: Trainee,
    loss: PreferenceLoss,
}

impl Training {
    fn new(policy: CausalLm) -> Result<Self> {
        let trainee = Trainee::new(policy.trainable_parameters(), &OptimizerSettings::default())?;
        Ok(Self { policy, trainee, loss: PreferenceLoss::new("sigmoid".parse()?, 0.1, 0.0)? })
    }

    /// Hidden states of a micro-batch's scored rows, its positions and its reference, as training has them.
    fn forward(&self, pairs: usize, lengths: Lengths) -> Result<(Tensor, Positions, PairLogps)> {
        let place = self.policy.device();
        let (packed, targets) = packed(pairs, lengths, self.policy.config().vocab_size)?;
        let sides = [-300f32, -290.0].map(|logp| to_device(&Tensor::from_slice(&vec![logp; pairs]), place));
        let [chosen, rejected] = sides;
        let hidden = self.policy.hidden_states(&packed)?;
        let positions = Positions::new(&targets.tokens, &targets.owners, targets.responses, place)?;
        let rows = hidden.index_select(0, &to_device(&Tensor::from_slice(&targets.rows), place)?);
        Ok((rows, positions, PairLogps { chosen: chosen?, rejected: rejected? }))
    }

    /// Head, backward pass and the one read of results.
    fn backward(&self, (rows, positions, reference): &(Tensor, Positions, PairLogps)) -> Result<f64> {
        let config = self.policy.config();
        let (soft_cap, scale) = (config.logit_soft_cap, config.logit_scale);
        let weight = self.policy.head()?;
        let head = Head { soft_cap, scale, ..Head::from(weight.weight()) };
        let stats = TokenStats { mean_logit: true, entropy: true, top1: true, log_sum_sq_probs: false };
        // Rows of logits that training on a GPU holds at a time.
        let options = ScoreOptions { budget: Some(2 << 30), stats, token_weights: None, checks: Checks::Later };
        let inputs = FusedInputs { reference: Some(reference), options, ..FusedInputs::new(head, rows, positions) };
        let fused = fused_preference_loss(&self.loss, &inputs)?;
        fused.surrogate.f_backward()?;
        let read = read_all(&[&fused.output.loss, &fused.policy.chosen, &fused.policy.rejected])?;
        ensure!(read.iter().flatten().all(|value| value.is_finite()), "a loss or log-probability is not finite");
        Ok(read[0].iter().sum::<f64>() / read[0].len() as f64)
    }

    fn micro_batch(&self, pairs: usize, lengths: Lengths) -> Result<f64> {
        self.backward(&self.forward(pairs, lengths)?)
    }
}

/// Pairs of random tokens, prompts shared.
fn packed(pairs: usize, [prompt, chosen, rejected]: Lengths, vocabulary: i64) -> Result<(Packed, Targets)> {
    let (mut packed, mut targets) = (Packed::new(), Targets::default());
    let ids = |pair: usize, part: usize, count: usize| -> Vec<u32> {
        (0..count).map(|at| ((pair * 7919 + part * 104_729 + at * 31) % vocabulary as usize) as u32).collect()
    };
    for pair in 0..pairs {
        let first = packed.push(&ids(pair, 0, prompt))?;
        packed.push_response(first, &ids(pair, 1, chosen), &mut targets)?;
        packed.push_response(first, &ids(pair, 2, rejected), &mut targets)?;
    }
    Ok((packed, targets))
}

/// Counted on the CPU, whose backward pass runs on the thread that is traced, in the one call a layer of GPUs.
fn launches(shape: Shape) -> Result<Found> {
    let mut policy = random_model(&shape.narrow_config()?, Kind::Float, Device::Cpu)?;
    policy.set_attention_route(AttentionRoute::Varlen);
    let training = Training::new(policy)?;
    // The first micro-batch makes gradients, later ones add to them.
    training.micro_batch(1, [6, 5, 4])?;
    let counted = PAIRS.map(|pairs| {
        let (result, calls) = trace(|| training.micro_batch(pairs, [6, 5, 4]));
        result.map(|_| (calls.launches(&["simplemix::varlen_attention"]), calls.waits()))
    });
    let [few, many] = counted;
    let (few, many) = (few?, many?);
    ensure!(few.1.max(many.1) as f64 <= WAITS, "{} and {} waits for 2 and 16 pairs", few.1, many.1);
    let found = Found::within(0.0, [few.0.abs_diff(many.0) as f64]);
    Ok(found.note("launches", many.0).note("waits", many.1))
}

fn times(shape: Shape, kind: Kind, place: Device) -> Result<Found> {
    let mut policy = random_model(&shape.config()?, kind, place)?;
    if shape.is_adapted() {
        policy.add_adapter("policy", LoraConfig::default(), 1)?;
        policy = policy.with_adapter(Some("policy"))?;
    }
    let mut training = Training::new(policy)?;
    let lengths = shape.lengths();
    let (mut waits, mut found) = (Vec::new(), Found::told());
    for pairs in PAIRS {
        // The first of a shape also warms up.
        let (result, calls) = trace(|| training.micro_batch(pairs, lengths));
        result?;
        waits.push(calls.waits() as f64);
        training.trainee.update(1e-6, 1.0)?;
        reset_peak(place)?;
        let (pass, forward_ms) = timed(place, || training.forward(pairs, lengths))?;
        let (loss, backward_ms) = timed(place, || training.backward(&pass))?;
        drop(pass);
        let (_, update_ms) = timed(place, || {
            let norm = training.trainee.gradient_norm()?;
            ensure!(norm.is_finite() && norm > 0.0, "the gradient's norm is {norm}");
            Ok(training.trainee.update(1e-6, 1.0)?)
        })?;
        let seconds = (forward_ms + backward_ms) / 1e3;
        found = found.note(
            &format!("pairs_{pairs}"),
            json!({
                "forward_ms": forward_ms, "backward_ms": backward_ms, "update_ms": update_ms, "loss": loss,
                "pairs_per_second": pairs as f64 / seconds,
                "tflops": flop(&training.policy, pairs, lengths) / seconds / 1e12,
                "peak_gb": memory(place)?.map(|memory| memory.peak_allocated as f64 / 1e9),
            }),
        );
    }
    let waits = waits.into_iter().reduce(f64::max).context("no micro-batch")?;
    // A wait fewer or more is no matter of rounding: the bound is a number.
    Ok(found.hold(WAITS, [waits]))
}

/// Useful operations: the prompt once, the head on responses alone, attention of what each token sees.
fn flop(policy: &CausalLm, pairs: usize, [prompt, chosen, rejected]: Lengths) -> f64 {
    let config = policy.config();
    let head = (config.vocab_size * config.hidden_size) as f64;
    let body = config.parameters() as f64 - if config.tie_word_embeddings { head } else { 2.0 * head };
    let (tokens, responses) = ((prompt + chosen + rejected) as f64, (chosen + rejected) as f64);
    let seen = |own: usize| (own * prompt + own * own / 2) as f64;
    let products = seen(chosen) + seen(rejected) + (prompt * prompt / 2) as f64;
    let attention = 4.0 * products * (config.num_attention_heads * config.head_dim) as f64;
    // Frozen weights have no gradient of their own.
    let passes = if policy.active_adapter().is_some() { 4.0 } else { 6.0 };
    let attention = attention * config.num_hidden_layers as f64 * 3.0;
    pairs as f64 * (passes * (body * tokens + head * responses) + attention)
}
