//! Forward and backward passes of pairs: packing, scoring, token statistics. Letters: B pairs, N scored positions,
//! S responses, H width.

use simplemix_data::TokenRow;
use simplemix_loss::{
    Head, Positions, ScoreOptions, Scores, TokenStats, Wpo, ld_token_weights, score_forward, wpo_weights,
};
use simplemix_model::{CausalLm, Checkpointed, Packed, Targets};
use tch::{Device, Kind, Tensor};

use crate::error::Result;
use crate::pairs::{Feed, PairSet};
use crate::stats::TokenSums;

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
    /// WPO: weights of pairs by their probability under the policy, in evaluations. In training the loss computes them.
    pub wpo: Option<Wpo>,
    /// LD-DPO (arXiv:2409.06411): weight in [0, 1] of the tokens beyond the shorter response's length.
    pub ld_alpha: Option<f64>,
}

/// Hidden states of scored positions `[N, H]`, in a graph where gradients are kept.
pub(crate) struct Pass<'a> {
    pub(crate) rows: Tensor,
    pub(crate) positions: Positions,
    pub(crate) token_weights: Option<Tensor>,
    checkpointed: Option<Checkpointed<'a>>,
}

impl<'a> Pass<'a> {
    /// Runs the forward pass of `pairs`. Every response is scored.
    pub(crate) fn new(model: &'a CausalLm, set: &PairSet, pairs: &[usize], options: &ForwardOptions) -> Result<Self> {
        let (packed, targets) = pack(set, pairs)?;
        Self::packed(model, &packed, &targets, options)
    }

    /// Runs the forward pass of packed sequences.
    pub(crate) fn packed(
        model: &'a CausalLm,
        packed: &Packed,
        targets: &Targets,
        options: &ForwardOptions,
    ) -> Result<Self> {
        let keep = options.activation_checkpointing && records_gradients(model);
        let checkpointed = if keep { Some(model.checkpointed(packed)?) } else { None };
        let hidden = match &checkpointed {
            Some(pass) => pass.hidden().shallow_clone(),
            None => model.hidden_states(packed)?,
        };
        let vector = |values: &[i64]| Tensor::from_slice(values).to_device(model.device());
        let positions = Positions {
            targets: vector(&targets.tokens),
            owners: vector(&targets.owners),
            responses: targets.responses as i64,
        };
        let rows = hidden.index_select(0, &vector(&targets.rows));
        let token_weights = options.ld_alpha.map(|alpha| ld_token_weights(&positions, alpha)).transpose()?;
        Ok(Self { rows, positions, token_weights, checkpointed })
    }

    /// Options for scoring the positions.
    pub(crate) fn scoring(&self, options: &ForwardOptions) -> ScoreOptions<'_> {
        let wanted = options.token_metrics;
        let stats =
            TokenStats { mean_logit: wanted, entropy: wanted, top1: wanted, log_sum_sq_probs: options.wpo.is_some() };
        ScoreOptions { budget: Some(options.logits_bytes), stats, token_weights: self.token_weights.as_ref() }
    }

    /// Backpropagates `surrogate` into the weights.
    pub(crate) fn backward(self, surrogate: &Tensor) -> Result<()> {
        surrogate.f_backward().map_err(|source| simplemix_model::Error::Torch { doing: "a backward pass", source })?;
        if let Some(pass) = self.checkpointed {
            pass.backward()?;
        }
        Ok(())
    }

    /// Sums over the tokens of each response, `S` of them; zeros if nothing was computed.
    pub(crate) fn token_sums(&self, scores: &[Scores]) -> Vec<TokenSums> {
        let responses = self.positions.responses;
        let sum = |of: fn(&Scores) -> Option<&Tensor>| {
            let parts: Option<Vec<Tensor>> =
                scores.iter().map(|scores| of(scores).map(|part| part.to_kind(Kind::Double))).collect();
            let parts = parts.filter(|parts| !parts.is_empty())?;
            let zeros = Tensor::zeros([responses], (Kind::Double, self.rows.device()));
            Some(values(&zeros.index_add(0, &self.positions.owners, &Tensor::cat(&parts, 0))))
        };
        let nothing = || vec![0.0; responses as usize];
        let (logits, entropy, top1) =
            (sum(|s| s.mean_logit.as_ref()), sum(|s| s.entropy.as_ref()), sum(|s| s.top1.as_ref()));
        let counts = if logits.is_some() { values(&self.positions.counts()) } else { nothing() };
        let (logits, entropy, top1) =
            (logits.unwrap_or_else(nothing), entropy.unwrap_or_else(nothing), top1.unwrap_or_else(nothing));
        let of = |i: usize| TokenSums { count: counts[i], logits: logits[i], entropy: entropy[i], top1: top1[i] };
        (0..responses as usize).map(of).collect()
    }
}

/// Whether autograd records a forward pass of `model`.
fn records_gradients(model: &CausalLm) -> bool {
    model.trainable_parameters().iter().any(|(_, tensor)| tensor.requires_grad())
        && Tensor::zeros([1], (Kind::Float, Device::Cpu)).set_requires_grad(true).neg().requires_grad()
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
    let _guard = tch::no_grad_guard();
    let (mut scored, mut done) = (Scored::default(), 0);
    for part in set.table.micro_batches(pairs, options.micro_batch_tokens)? {
        let pass = Pass::new(model, set, part, options)?;
        let scores = score_forward(head(model), &pass.rows, &pass.positions, pass.scoring(options))?;
        scored.logps.extend(values(&scores.logps));
        if let (Some(wpo), Some(squares)) = (options.wpo, &scores.log_sum_sq_probs) {
            scored.weights.extend(values(&wpo_weights(wpo, &pass.positions, &scores.token_logps, squares)?));
        }
        scored.tokens.extend(pass.token_sums(&[scores]));
        done += part.len();
        progress(done);
    }
    Ok(scored)
}

/// Packs the pairs' tokens. The scored responses are chosen and rejected in turn, or chosen only.
pub(crate) fn pack(set: &PairSet, pairs: &[usize]) -> Result<(Packed, Targets)> {
    let (mut packed, mut targets) = (Packed::new(), Targets::default());
    for &pair in pairs {
        let TokenRow { prompt, chosen, rejected, .. } = set.tokens.get(pair);
        let first = packed.push(prompt)?;
        packed.push_response(first, chosen, &mut targets)?;
        match set.feed() {
            Feed::Shared => packed.push_response(first, rejected, &mut targets)?,
            Feed::Apart => {
                let again = packed.push(prompt)?;
                packed.push_response(again, rejected, &mut targets)?
            }
            Feed::Chosen => continue,
        };
    }
    Ok((packed, targets))
}

/// Output head with the model's cap on logits.
pub(crate) fn head(model: &CausalLm) -> Head<'_> {
    Head { soft_cap: model.config().logit_soft_cap, ..Head::from(model.head()) }
}

/// Values of a vector, in f64.
pub(crate) fn values(vector: &Tensor) -> Vec<f64> {
    let host = vector.detach().to_kind(Kind::Double).to_device(Device::Cpu).contiguous();
    let mut values = vec![0.0; host.numel()];
    host.copy_data(&mut values, host.numel());
    values
}
