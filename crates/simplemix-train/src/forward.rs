//! Forward and backward passes of pairs: packing, scoring, token statistics. Letters: B pairs, N scored positions,
//! S responses, H width.

use simplemix_data::TokenRow;
use simplemix_loss::{
    Checks, Head, Positions, ScoreOptions, Scores, TokenStats, Wpo, ld_token_weights, score_forward, wpo_weights,
};
use simplemix_model::{CausalLm, Checkpointed, HeadWeight, Packed, Resident, Targets};
use simplemix_torch::device::read_all;
use simplemix_torch::records;
use tch::{Kind, Tensor};

use crate::error::Result;
use crate::pairs::{Feed, PairSet};
use crate::stats::TokenSums;
use crate::team::Team;

/// Settings of a forward pass.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ForwardOptions {
    /// Tokens of a forward pass, of the reference and in evaluations.
    pub micro_batch_tokens: usize,
    /// Limit on the bytes of logits in memory.
    pub logits_bytes: usize,
    /// Whether the backward pass recomputes activations: less memory, more time.
    pub activation_checkpointing: bool,
    /// Whether entropy, mean logit and accuracy of the tokens are computed.
    pub token_metrics: bool,
    /// Updates from one measurement of the tokens to the next, at least 1. Evaluations always measure.
    pub token_metrics_every: u64,
    /// WPO: weights of pairs by their probability under the policy, in evaluations. In training the loss computes them.
    pub wpo: Option<Wpo>,
    /// LD-DPO (arXiv:2409.06411): weight in [0, 1] of the tokens beyond the shorter response's length.
    pub ld_alpha: Option<f64>,
}

impl ForwardOptions {
    /// Options of update `step`, counted from zero: its tokens are measured if its number is a multiple of the interval.
    pub(crate) fn of_update(&self, step: u64) -> Self {
        let is_due = (step + 1).is_multiple_of(self.token_metrics_every);
        Self { token_metrics: self.token_metrics && is_due, ..*self }
    }
}

/// Hidden states of scored positions `[N, H]`, in a graph where gradients are kept.
pub(crate) struct Pass<'a> {
    pub(crate) rows: Tensor,
    pub(crate) positions: Positions,
    pub(crate) token_weights: Option<Tensor>,
    /// Loss of the routers, where it was asked for and the model has one.
    pub(crate) router: Option<Tensor>,
    model: &'a CausalLm,
    head: HeadWeight,
    checkpointed: Option<Checkpointed<'a>>,
    /// The head is whole for as long as the pass lives.
    _root: Option<Resident>,
}

impl<'a> Pass<'a> {
    /// Runs the forward pass of `pairs`. Every response is scored. With `is_routed` it has the loss of the routers, for which last tokens
    /// of responses are fed too, as in TRL. Tensors of the host in `along` move to the model's device in the pass's copy.
    pub(crate) fn new<'t>(
        model: &'a CausalLm,
        set: &PairSet,
        pairs: &[usize],
        options: &ForwardOptions,
        along: impl IntoIterator<Item = &'t mut Tensor>,
        is_routed: bool,
    ) -> Result<Self> {
        let packed = Packed::of(model.config());
        let (packed, targets) = pack(if is_routed { packed.whole() } else { packed }, set, pairs)?;
        Self::with(model, &packed, &targets, options, along, is_routed)
    }

    /// Runs the forward pass of packed sequences.
    pub(crate) fn packed(
        model: &'a CausalLm,
        packed: &Packed,
        targets: &Targets,
        options: &ForwardOptions,
    ) -> Result<Self> {
        Self::with(model, packed, targets, options, [], false)
    }

    fn with<'t>(
        model: &'a CausalLm,
        packed: &Packed,
        targets: &Targets,
        options: &ForwardOptions,
        along: impl IntoIterator<Item = &'t mut Tensor>,
        is_routed: bool,
    ) -> Result<Self> {
        let trained = model.trainable_parameters();
        let tensors: Vec<&Tensor> = trained.iter().map(|(_, tensor)| tensor).collect();
        let keep = options.activation_checkpointing && records(&tensors)?;
        let root = model.resident_root()?;
        let mut positions = Positions::on_host(&targets.tokens, &targets.owners, targets.responses)?;
        let mut token_weights = options.ld_alpha.map(|alpha| ld_token_weights(&positions, alpha)).transpose()?;
        let mut rows = Tensor::from_slice(&targets.rows);
        // All that the pass and its loss need from the host is one copy.
        let mut all: Vec<&mut Tensor> = positions.tensors_mut().into_iter().chain(&mut token_weights).collect();
        all.push(&mut rows);
        all.extend(along.into_iter().map(|tensor| &mut *tensor));
        let checkpointed = match (keep, is_routed) {
            (false, _) => None,
            (true, false) => Some(model.checkpointed_with(packed, &mut all)?),
            (true, true) => Some(model.routed_checkpointed(packed, &mut all)?),
        };
        let (hidden, router) = match &checkpointed {
            Some(pass) => (pass.hidden().shallow_clone(), pass.router_loss().map(Tensor::shallow_clone)),
            None if is_routed => model.routed_states(packed, &mut all)?,
            None => (model.hidden_states_with(packed, &mut all)?, None),
        };
        let rows = hidden.index_select(0, &rows);
        Ok(Self { rows, positions, token_weights, router, model, head: model.head()?, checkpointed, _root: root })
    }

    /// Output head with the model's factor of logits and cap on them.
    pub(crate) fn head(&self) -> Head<'_> {
        let config = self.model.config();
        let weight = self.head.weight();
        Head { soft_cap: config.logit_soft_cap, scale: config.logit_scale, ..Head::from(weight) }
    }

    /// Options for scoring the positions. NaN is looked for where results are read.
    pub(crate) fn scoring(&self, options: &ForwardOptions) -> ScoreOptions<'_> {
        let wanted = options.token_metrics;
        let stats =
            TokenStats { mean_logit: wanted, entropy: wanted, top1: wanted, log_sum_sq_probs: options.wpo.is_some() };
        let token_weights = self.token_weights.as_ref();
        ScoreOptions { budget: Some(options.logits_bytes), stats, token_weights, checks: Checks::Later }
    }

    /// Backpropagates `surrogate` into the weights.
    pub(crate) fn backward(self, surrogate: &Tensor) -> Result<()> {
        surrogate.f_backward().map_err(|source| simplemix_model::Error::Torch { doing: "a backward pass", source })?;
        self.head.backward()?;
        if let Some(pass) = self.checkpointed {
            pass.backward()?;
        }
        Ok(())
    }

    /// Ends the pass without gradients of its own, where other processes need this one in theirs.
    pub(crate) fn abandon(self) -> Result<()> {
        match self.checkpointed {
            Some(pass) => Ok(pass.idle_backward()?),
            None => Ok(()),
        }
    }

    /// Statistics of the tokens of each response, summed on the device.
    pub(crate) fn token_sums(&self, scores: &[Scores]) -> TokenTensors {
        let sum = |of: fn(&Scores) -> Option<&Tensor>| {
            let parts: Option<Vec<Tensor>> =
                scores.iter().map(|scores| of(scores).map(|part| part.to_kind(Kind::Double))).collect();
            let parts = parts.filter(|parts| !parts.is_empty())?;
            let zeros = Tensor::zeros([self.positions.responses()], (Kind::Double, self.rows.device()));
            Some(zeros.index_add(0, self.positions.owners(), &Tensor::cat(&parts, 0)))
        };
        let sums = [sum(|s| s.mean_logit.as_ref()), sum(|s| s.entropy.as_ref()), sum(|s| s.top1.as_ref())];
        TokenTensors { counts: self.positions.counts().to_vec(), sums }
    }
}

/// Statistics of the tokens of `S` responses.
pub(crate) struct TokenTensors {
    counts: Vec<i64>,
    /// Mean logits, entropies, and whether the tokens are the likeliest, each `[S]`, if they were asked for.
    sums: [Option<Tensor>; 3],
}

impl TokenTensors {
    /// Values of `vectors` and these statistics, for which the host waits once. Statistics that were not asked for are zeros.
    pub(crate) fn read_with(&self, vectors: &[&Tensor]) -> Result<(Vec<Vec<f64>>, Vec<TokenSums>)> {
        let all: Vec<&Tensor> = vectors.iter().copied().chain(self.sums.iter().flatten()).collect();
        let mut read = read_all(&all)?;
        let mut sums = read.split_off(vectors.len()).into_iter();
        let [logits, entropy, top1] = self.sums.each_ref().map(|sum| sum.as_ref().and_then(|_| sums.next()));
        let of = |values: &Option<Vec<f64>>, i: usize| values.as_ref().map_or(0.0, |values| values[i]);
        let count = |i: usize| if logits.is_some() { self.counts[i] as f64 } else { 0.0 };
        let sums =
            |i| TokenSums { count: count(i), logits: of(&logits, i), entropy: of(&entropy, i), top1: of(&top1, i) };
        Ok((read, (0..self.counts.len()).map(sums).collect()))
    }
}

/// Log-probabilities and token statistics of responses: chosen and rejected in turn, or chosen only.
#[derive(Debug, Default)]
pub(crate) struct Scored {
    pub(crate) logps: Vec<f64>,
    pub(crate) tokens: Vec<TokenSums>,
    /// WPO's weight of each pair; empty without WPO.
    pub(crate) weights: Vec<f64>,
}

/// Scores `pairs` of a set under `model`, without gradients. `progress` counts pairs.
pub(crate) fn score_pairs(
    model: &CausalLm,
    set: &PairSet,
    pairs: &[usize],
    options: &ForwardOptions,
    progress: &mut dyn FnMut(usize),
) -> Result<Scored> {
    let parts = set.table.micro_batches(pairs, options.micro_batch_tokens)?;
    score_parts(model, set, &parts, options, progress)
}

/// Scores micro-batches of a set as [`score_pairs`].
fn score_parts(
    model: &CausalLm,
    set: &PairSet,
    parts: &[&[usize]],
    options: &ForwardOptions,
    progress: &mut dyn FnMut(usize),
) -> Result<Scored> {
    let _guard = tch::no_grad_guard();
    let (mut scored, mut done) = (Scored::default(), 0);
    for part in parts {
        let pass = Pass::new(model, set, part, options, [], false)?;
        let scores = score_forward(pass.head(), &pass.rows, &pass.positions, pass.scoring(options))?;
        let weights = match (options.wpo, &scores.log_sum_sq_probs) {
            (Some(wpo), Some(squares)) => Some(wpo_weights(wpo, &pass.positions, &scores.token_logps, squares)?),
            _ => None,
        };
        let vectors: Vec<&Tensor> = [Some(&scores.logps), weights.as_ref()].into_iter().flatten().collect();
        let (read, tokens) = pass.token_sums(std::slice::from_ref(&scores)).read_with(&vectors)?;
        let mut read = read.into_iter();
        let logps = read.next().unwrap_or_default();
        if let Some(index) = logps.iter().position(|logp| !logp.is_finite()) {
            let (name, found, index) = ("log-probabilities", logps[index], index as i64);
            return Err(simplemix_loss::Error::NonFinite { name, found, index }.into());
        }
        scored.logps.extend(logps);
        scored.weights.extend(read.next().unwrap_or_default());
        scored.tokens.extend(tokens);
        done += part.len();
        progress(done);
    }
    Ok(scored)
}

/// Numbers of a scored pair: two log-probabilities, token statistics of two responses, and WPO's weight.
const SCORED: usize = 11;

/// Scores all pairs of a set under `model` as [`score_pairs`], each process its share of the micro-batches. These are those of one
/// process, so that their numbers are the same to the last bit.
pub(crate) fn score_together(
    team: &Team,
    model: &CausalLm,
    set: &PairSet,
    options: &ForwardOptions,
    progress: &mut dyn FnMut(usize),
) -> Result<Scored> {
    let all: Vec<usize> = (0..set.len()).collect();
    let passes = set.table.micro_batches(&all, options.micro_batch_tokens)?;
    let parts = team.share(&passes);
    let own = parts.iter().map(|part| part.len()).sum();
    let scored = score_parts(model, set, &parts, options, &mut |done| {
        team.does_part("scoring pairs", done, own);
        progress((done * team.size()).min(all.len()));
    })?;
    if model.is_divided() {
        // Others may have a pass more.
        (parts.len()..passes.len().div_ceil(team.size())).try_for_each(|_| model.idle_pass(false))?;
    }
    if team.size() == 1 || all.is_empty() {
        return Ok(scored);
    }
    let responses = if set.feed() == Feed::Chosen { 1 } else { 2 };
    // Each number is a sum with the zeros of the others, and so itself.
    let mut numbers = vec![0.0; all.len() * SCORED];
    for (at, pair) in parts.concat().into_iter().enumerate() {
        numbers[pair * SCORED..][..SCORED].copy_from_slice(&scored.row(at, responses));
    }
    let numbers = team.sums(&numbers, "scoring pairs")?;
    let row = |row: &[f64]| row.try_into().expect("rows have as many numbers");
    let rows: Vec<[f64; SCORED]> = numbers.chunks_exact(SCORED).map(row).collect();
    progress(all.len());
    Ok(Scored::of_rows(&rows, responses, options.wpo.is_some()))
}

impl Scored {
    fn row(&self, pair: usize, responses: usize) -> [f64; SCORED] {
        let mut row = [0.0; SCORED];
        for side in 0..responses {
            row[side] = self.logps[pair * responses + side];
            row[2 + 4 * side..][..4].copy_from_slice(&self.tokens[pair * responses + side].to_row());
        }
        row[10] = self.weights.get(pair).copied().unwrap_or(0.0);
        row
    }

    fn of_rows(rows: &[[f64; SCORED]], responses: usize, is_weighted: bool) -> Self {
        let tokens = |row: &[f64; SCORED], side: usize| {
            let at = 2 + 4 * side;
            TokenSums::of_row([row[at], row[at + 1], row[at + 2], row[at + 3]])
        };
        let sides = || 0..responses;
        Self {
            logps: rows.iter().flat_map(|row| sides().map(|side| row[side])).collect(),
            tokens: rows.iter().flat_map(|row| sides().map(|side| tokens(row, side))).collect(),
            weights: if is_weighted { rows.iter().map(|row| row[10]).collect() } else { Vec::new() },
        }
    }
}

/// Adds the pairs' tokens to what is packed for a model. The scored responses are chosen and rejected in turn, or chosen only.
pub(crate) fn pack(packed: Packed, set: &PairSet, pairs: &[usize]) -> Result<(Packed, Targets)> {
    let mut targets = Targets::default();
    let packed = lay_out(packed, set, pairs, |packed, parent, response| {
        Ok(packed.push_response(parent, response, &mut targets)?)
    })?;
    Ok((packed, targets))
}

/// Packs the pairs' prompts, each once or before each response; `push` appends a response to a prompt's segment and gives its own.
pub(crate) fn lay_out(
    mut packed: Packed,
    set: &PairSet,
    pairs: &[usize],
    mut push: impl FnMut(&mut Packed, usize, &[u32]) -> Result<usize>,
) -> Result<Packed> {
    for &pair in pairs {
        let TokenRow { prompt, chosen, rejected, .. } = set.tokens.get(pair);
        // Names of the pair's parts, so that dropout does not depend on micro-batches or on how prompts are fed.
        let [of_prompt, of_chosen, of_rejected] = [0, 1, 2].map(|part| 3 * pair as u64 + part);
        let first = packed.push(prompt)?;
        packed.name(first, of_prompt);
        let segment = push(&mut packed, first, chosen)?;
        packed.name(segment, of_chosen);
        let parent = match set.feed() {
            Feed::Shared => first,
            Feed::Apart => {
                let again = packed.push(prompt)?;
                packed.name(again, of_prompt);
                again
            }
            Feed::Chosen => continue,
        };
        let segment = push(&mut packed, parent, rejected)?;
        packed.name(segment, of_rejected);
    }
    Ok(packed)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::Value;
    use simplemix_loss::fused_logps;
    use tch::Device;

    use super::*;

    /// transformers' loss of a text and its gradients, of models that multiply or cap logits: tests/golden/model_families.py.
    #[test]
    fn factors_and_caps_of_logits_reach_the_loss() {
        for (name, factor) in [("granite", 1.0 / 2.5), ("cohere", 0.25), ("cohere2", 0.3), ("gemma2", 1.0)] {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/families").join(name);
            let golden = std::fs::read_to_string(folder.join("golden.json")).unwrap();
            let golden: Value = serde_json::from_str(&golden).unwrap();
            let model = CausalLm::load(&folder, Kind::Float, Device::Cpu).unwrap();
            assert_eq!(model.config().logit_scale, factor);
            model.set_trainable(true);
            let ids: Vec<u32> =
                golden["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
            let (mut packed, mut targets) = (Packed::new(), Targets::default());
            let first = packed.push(&ids[..1]).unwrap();
            packed.push_response(first, &ids[1..], &mut targets).unwrap();
            let options = ForwardOptions {
                micro_batch_tokens: 64,
                logits_bytes: 1 << 10,
                activation_checkpointing: false,
                token_metrics: false,
                token_metrics_every: 1,
                wpo: None,
                ld_alpha: None,
            };
            let wanted = golden["loss"].as_f64().unwrap();
            let scored = tch::no_grad(|| {
                let pass = Pass::packed(&model, &packed, &targets, &options).unwrap();
                score_forward(pass.head(), &pass.rows, &pass.positions, pass.scoring(&options)).unwrap().logps
            });
            assert!((scored.double_value(&[0]) + wanted).abs() < 1e-4 * wanted, "{name}");

            let pass = Pass::packed(&model, &packed, &targets, &options).unwrap();
            let loss = |logps: &Tensor| Ok(-logps.sum(Kind::Float));
            let (_, surrogate) =
                fused_logps(pass.head(), &pass.rows, &pass.positions, pass.scoring(&options), loss).unwrap();
            pass.backward(&surrogate).unwrap();
            for (parameter, tensor) in model.named_parameters() {
                let wanted = golden["gradients"][parameter][0].as_f64().unwrap();
                let found = tensor.grad().norm().double_value(&[]);
                assert!((found - wanted).abs() <= 1e-4 * wanted.max(1e-3), "{name} {parameter}: {found} {wanted}");
            }
        }
    }
}
