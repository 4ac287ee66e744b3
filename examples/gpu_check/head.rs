//! The fused loss head against a plain log-softmax with autograd in f64 on the CPU. Letters: N positions, H width, V vocabulary.

use anyhow::{Context, Result};
use simplemix::loss::{
    FusedInputs, PairLogps, PairLoss, Pairs, Positions, PreferenceLoss, ScoreOptions, TokenStats, fused_preference_loss,
};
use simplemix::tch::{Device, Kind, Tensor};
use simplemix::torch::set_gradient_kind;

use crate::Setting;
use crate::numbers::{norm_off, random, relative, wide};
use crate::report::{Found, Report, timed};
use crate::shapes::Shape;

/// Tokens of the responses: chosen and rejected in turn.
const LENGTHS: [i64; 6] = [17, 30, 8, 21, 40, 3];
const WEIGHT: f64 = 0.25;

/// How the head is run.
#[derive(Clone, Copy)]
struct Case {
    kind: Kind,
    /// Width and vocabulary.
    size: [i64; 2],
    is_trained: bool,
    /// Rows of logits in memory at a time.
    rows: i64,
}

pub(crate) fn check(report: &mut Report, setting: &Setting) -> Result<()> {
    let sizes: &[[i64; 2]] = match setting.shape {
        Shape::Small => &[[128, 1000]],
        // In-place softmax over wide rows: SmolLM2's vocabulary beside the shape's own.
        shape => &[[512, 49_152], [896, shape.vocabulary()]],
    };
    for &size in sizes {
        for kind in [Kind::Double, Kind::Float, Kind::BFloat16] {
            for (is_trained, rows) in [(true, 1 << 20), (true, 50), (false, 1 << 20), (false, 50)] {
                let case = Case { kind, size, is_trained, rows };
                let name = if is_trained { "head, trained" } else { "head, frozen" };
                let rows = if rows == 50 { ", 50 rows at a time" } else { "" };
                let shapes = format!("N {}, H {}, V {}{rows}", LENGTHS.iter().sum::<i64>(), size[0], size[1]);
                report.check(name, &shapes, kind, || fused(setting.device, case))?;
            }
        }
    }
    Ok(())
}

/// Loss, log-probabilities, statistics of tokens, and gradients of hidden states and head.
struct Results {
    loss: Tensor,
    logps: Tensor,
    entropy: Tensor,
    gradients: Vec<Tensor>,
}

fn fused(place: Device, case: Case) -> Result<Found> {
    let [width, vocabulary] = case.size;
    let rows: i64 = LENGTHS.iter().sum();
    let hidden = random(&[rows, width], case.kind, place, 1);
    let head = (random(&[vocabulary, width], Kind::Float, place, 2) * 0.05).to_kind(case.kind);
    let loss = PreferenceLoss::new("sigmoid".parse()?, 0.1, 0.0)?;
    let ours = || -> Result<Results> { with_fused(&loss, case, &hidden, &head) };
    let (found, first_ms) = timed(place, ours)?;
    let (_, second_ms) = timed(place, ours)?;
    let wanted = plain(&loss, case, &hidden, &head)?;
    // Losses and log-probabilities are sums in f32 whatever the inputs are; gradients have the inputs' kind.
    let (of_values, of_gradients) = match case.kind {
        Kind::Double => (1e-12, 1e-11),
        Kind::Float => (1e-5, 1e-5),
        _ => (1e-5, 5e-3),
    };
    let values = [
        relative(&found.loss, &wanted.loss),
        relative(&found.logps, &wanted.logps),
        relative(&found.entropy, &wanted.entropy),
    ];
    let gradients = found.gradients.iter().zip(&wanted.gradients).map(|(found, wanted)| norm_off(found, wanted));
    let errors = values.map(|error| error * of_gradients / of_values).into_iter().chain(gradients);
    Ok(Found::within(of_gradients, errors).note("first_ms", first_ms).note("second_ms", second_ms))
}

fn targets(vocabulary: i64) -> (Vec<i64>, Vec<i64>) {
    let owners: Vec<i64> =
        LENGTHS.iter().enumerate().flat_map(|(owner, &count)| (0..count).map(move |_| owner as i64)).collect();
    ((0..owners.len() as i64).map(|at| (at * 7919 + 13) % vocabulary).collect(), owners)
}

fn reference(options: (Kind, Device)) -> PairLogps {
    let side = |values: [f64; 3]| Tensor::from_slice(&values).to_kind(options.0).to_device(options.1);
    PairLogps { chosen: side([-120.0, -60.0, -280.0]), rejected: side([-210.0, -150.0, -20.0]) }
}

fn with_fused(loss: &PreferenceLoss, case: Case, hidden: &Tensor, head: &Tensor) -> Result<Results> {
    let place = hidden.device();
    let hidden = hidden.detach().copy().set_requires_grad(true);
    let head = head.detach().copy().set_requires_grad(case.is_trained);
    if case.is_trained && case.kind == Kind::BFloat16 {
        set_gradient_kind(&head, Kind::Float)?;
    }
    let (tokens, owners) = targets(case.size[1]);
    let positions = Positions::new(&tokens, &owners, LENGTHS.len(), place)?;
    let accumulator = if case.kind == Kind::Double { Kind::Double } else { Kind::Float };
    let reference = reference((accumulator, place));
    let bytes = case.rows * case.size[1] * accumulator.elt_size_in_bytes() as i64;
    let stats = TokenStats { entropy: true, mean_logit: true, top1: true, log_sum_sq_probs: false };
    let inputs = FusedInputs {
        reference: Some(&reference),
        weight: WEIGHT,
        options: ScoreOptions { budget: Some(usize::try_from(bytes)?), stats, ..ScoreOptions::default() },
        ..FusedInputs::new(&head, &hidden, &positions)
    };
    let fused = fused_preference_loss(loss, &inputs)?;
    fused.surrogate.f_backward()?;
    let entropies: Option<Vec<&Tensor>> = fused.scores.iter().map(|scores| scores.entropy.as_ref()).collect();
    let mut gradients = vec![hidden.grad()];
    if case.is_trained {
        gradients.push(head.grad());
    }
    Ok(Results {
        loss: fused.output.loss,
        logps: Tensor::stack(&[fused.policy.chosen, fused.policy.rejected], 1).flatten(0, -1),
        entropy: Tensor::cat(&entropies.context("no entropies")?, 0),
        gradients,
    })
}

fn plain(loss: &PreferenceLoss, case: Case, hidden: &Tensor, head: &Tensor) -> Result<Results> {
    let options = (Kind::Double, Device::Cpu);
    let (hidden, head) = (wide(hidden).set_requires_grad(true), wide(head).set_requires_grad(case.is_trained));
    let (tokens, owners) = targets(case.size[1]);
    let log_probs = hidden.f_matmul(&head.tr())?.log_softmax(-1, Kind::Double);
    let token_logps = log_probs.gather(1, &Tensor::from_slice(&tokens).unsqueeze(1), false).squeeze_dim(1);
    let logps = Tensor::zeros([LENGTHS.len() as i64], options).index_add(0, &Tensor::from_slice(&owners), &token_logps);
    let policy = PairLogps::from_alternating(&logps)?;
    let reference = reference(options);
    let output = loss.evaluate_pairs(&Pairs { reference: Some(&reference), ..Pairs::new(&policy) })?;
    (output.loss.sum(Kind::Double) * WEIGHT).f_backward()?;
    let entropy = -(log_probs.exp() * &log_probs).sum_dim_intlist([1i64].as_slice(), false, None);
    let mut gradients = vec![hidden.grad()];
    if case.is_trained {
        gradients.push(head.grad());
    }
    Ok(Results { loss: output.loss, logps, entropy, gradients })
}
