//! Preference training of a causal language model against a frozen reference.
//!
//! A prompt goes through the network once a pair, no padding token does, and the head sees response positions only.
//! The reference is the policy before training, or another model. [`Reference`] says where its log-probabilities come
//! from.

use std::path::Path;
use std::sync::Arc;

use simplemix_loss::{
    FusedInputs, LossOutput, LossSum, Need, PairLengths, PairLogps, PairLoss, PairQuantiles, Pairs,
    fused_preference_loss,
};
use simplemix_model::CausalLm;
use simplemix_torch::device::read_all;
use tch::{Kind, Tensor};

use crate::error::{Error, Result};
use crate::first_loss::FirstLoss;
use crate::forward::{ForwardOptions, Pass, Scored, TokenTensors, score_pairs, score_together};
use crate::hypo::Hypo;
use crate::learner::{Learner, Trainable};
use crate::pairs::{NamedSet, PairSet, Quantiles};
use crate::policy::Policy;
use crate::sharded::{Sharded, restore_weights, save_weights};
use crate::sides::Sides;
use crate::stats::{PairStats, TokenSums};
use crate::team::Team;
use crate::trainee::Trainee;

/// Log-probabilities of a set's pairs under a reference, in nats, summed over each response.
pub type ReferenceLogps = Vec<Sides<f64>>;

/// Origin of the reference's log-probabilities.
#[derive(Debug)]
pub(crate) enum Reference {
    /// The loss needs none.
    Absent,
    /// Precomputed log-probabilities of the training set and of each held-out set.
    Known(ReferenceLogps, Vec<ReferenceLogps>),
    /// A model that computes them for every batch.
    Model(ReferenceModel),
}

/// A reference in memory.
#[derive(Debug)]
pub(crate) struct ReferenceModel {
    pub(crate) model: Box<CausalLm>,
    /// Rule by which it moves, if it does.
    pub(crate) rule: Option<SyncRule>,
    /// Weights of it, where processes divide them.
    pub(crate) sharded: Option<Arc<Sharded>>,
}

/// TR-DPO's moving reference (arXiv:2404.09656): at regular intervals the reference becomes
/// `mixup * policy + (1 - mixup) * reference`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct SyncRule {
    /// Updates between two moves.
    pub(crate) every: u64,
    /// Share of the policy; TRL's default is 0.6.
    pub(crate) mixup: f64,
}

/// Settings of a [`PreferenceLearner`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PreferenceOptions {
    /// Preference loss.
    pub(crate) loss: LossSum,
    /// Settings of the forward pass.
    pub(crate) forward: ForwardOptions,
    /// Factor of a pair's score difference in a soft label.
    pub(crate) reward_margin_scale: f64,
    /// Random seed of dropout.
    pub(crate) seed: u64,
    /// Whether the policy is the reference before the first update, so that the first loss is known.
    pub(crate) starts_at_reference: bool,
    /// Factor of the routers' loss, if the model has one that counts.
    pub(crate) router_coef: Option<f64>,
}

/// A policy that learns from preference pairs.
#[derive(Debug)]
pub(crate) struct PreferenceLearner<'a> {
    policy: Policy,
    trainee: Trainee,
    options: PreferenceOptions,
    /// Options of the update that has begun.
    in_update: ForwardOptions,
    train: &'a PairSet,
    eval: &'a [NamedSet],
    reference: Reference,
    hypo: Option<Hypo>,
    team: Team,
    /// Sum of the routers' losses of this process's passes in an update, each as many times as it has pairs.
    routers: f64,
}

/// Log-probabilities of both responses of every pair of the set under `model`, summed over each response.
/// `progress(done)` counts pairs.
///
/// # Errors
/// Failures of the forward pass.
pub fn reference_logps(
    model: &CausalLm,
    set: &PairSet,
    options: &ForwardOptions,
    progress: &mut dyn FnMut(usize),
) -> Result<ReferenceLogps> {
    reference_logps_together(&Team::default(), model, set, options, progress)
}

/// As [`reference_logps`], each process of `team` its share; all get all. The numbers are those of one process to the last bit.
///
/// # Errors
/// Failures of the forward pass, and of other processes.
pub fn reference_logps_together(
    team: &Team,
    model: &CausalLm,
    set: &PairSet,
    options: &ForwardOptions,
    progress: &mut dyn FnMut(usize),
) -> Result<ReferenceLogps> {
    let scored = score_together(team, model, set, &plain(options), progress)?;
    Ok(Sides::from_alternating(&scored.logps))
}

/// Options for log-probabilities alone.
fn plain(options: &ForwardOptions) -> ForwardOptions {
    ForwardOptions { token_metrics: false, wpo: None, ..*options }
}

fn logps_of(
    model: &CausalLm,
    set: &PairSet,
    pairs: &[usize],
    options: &ForwardOptions,
    progress: &mut dyn FnMut(usize),
) -> Result<ReferenceLogps> {
    Ok(Sides::from_alternating(&score_pairs(model, set, pairs, &plain(options), progress)?.logps))
}

impl<'a> PreferenceLearner<'a> {
    /// Creates a learner that changes the tensors that `trainee` holds of `policy`.
    ///
    /// # Errors
    /// [`Error::Setting`] if the loss needs a reference and there is none.
    pub(crate) fn new(
        policy: CausalLm,
        trainee: Trainee,
        options: PreferenceOptions,
        train: &'a PairSet,
        eval: &'a [NamedSet],
        reference: Reference,
    ) -> Result<Self> {
        if matches!(reference, Reference::Absent) && options.loss.needs(Need::Reference) {
            let found = format!("{} without a reference", options.loss);
            return Err(Error::setting("loss.name", found, "a reference for this loss"));
        }
        let policy = Policy::new(policy, options.seed)?;
        let in_update = options.forward;
        let team = trainee.team().clone();
        Ok(Self { policy, trainee, options, in_update, train, eval, reference, hypo: None, team, routers: 0.0 })
    }

    /// Adds HyPO's divergence from the reference to the loss of the pairs.
    #[must_use]
    pub(crate) fn with_hypo(self, hypo: Hypo) -> Self {
        Self { hypo: Some(hypo), ..self }
    }

    /// Drops the optimiser and returns the policy.
    pub(crate) fn into_model(self) -> CausalLm {
        self.policy.into_model()
    }

    /// Reference log-probabilities of training pairs.
    fn batch_reference(&self, pairs: &[usize]) -> Result<Option<ReferenceLogps>> {
        match &self.reference {
            Reference::Absent => Ok(None),
            Reference::Known(train, _) => Ok(Some(pairs.iter().map(|&pair| train[pair]).collect())),
            Reference::Model(ReferenceModel { model, .. }) => {
                logps_of(model, self.train, pairs, &self.options.forward, &mut |_| {}).map(Some)
            }
        }
    }

    /// Probabilities that the labels of the pairs are right, `sigmoid(scale * (score_chosen - score_rejected))`, in f32
    /// on the host, if the loss uses them.
    fn label_probs(&self, set: &PairSet, pairs: &[usize]) -> Result<Option<Tensor>> {
        let loss = &self.options.loss;
        if !loss.needs(Need::LabelProbs) {
            return Ok(None);
        }
        let margin = |&pair: &usize| {
            let known = set.score_margins.get(pair).copied().flatten();
            known.ok_or_else(|| no_scores(set, pair, loss))
        };
        let margins = pairs.iter().map(margin).collect::<Result<Vec<f64>>>()?;
        let probs = (Tensor::from_slice(&margins) * self.options.reward_margin_scale).sigmoid();
        Ok(Some(probs.to_kind(Kind::Float)))
    }

    /// Quantile rewards of the pairs' responses in f32 on the host, if the loss uses them.
    fn quantiles(&self, set: &PairSet, pairs: &[usize]) -> Result<Option<PairQuantiles>> {
        let loss = &self.options.loss;
        if !loss.needs(Need::Quantiles) {
            return Ok(None);
        }
        let known = |&pair: &usize| quantiles_of(set, pair, loss);
        let PairLogps { chosen, rejected } = in_f32(vectors(&pairs.iter().map(known).collect::<Result<Vec<_>>>()?));
        Ok(Some(PairQuantiles { chosen, rejected }))
    }

    /// Moves the reference towards the policy, if update `step` is one at which it moves.
    fn move_reference(&self, step: u64) -> Result<()> {
        let Reference::Model(ReferenceModel { model, rule: Some(rule), sharded }) = &self.reference else {
            return Ok(());
        };
        if step == 0 || !step.is_multiple_of(rule.every) {
            return Ok(());
        }
        if let (Some(sharded), Some(policy)) = (sharded, self.trainee.sharded()) {
            let is_moved = sharded.move_towards(policy, rule.mixup);
            let found = "of other tensors than the policy".to_owned();
            return is_moved
                .then_some(())
                .ok_or_else(|| Error::setting("reference.model", found, "a model of the same tensors"));
        }
        let _guard = tch::no_grad_guard();
        let policy = self.policy.model.named_parameters();
        for ((_, reference), (_, policy)) in model.named_parameters().iter().zip(policy) {
            let _ = reference.shallow_clone().lerp_(policy, rule.mixup);
        }
        Ok(())
    }

    /// Writes a reference that moves, or helps the process that does where its weights are divided.
    fn save_reference(&self, folder: Option<&Path>) -> Result<()> {
        let Reference::Model(ReferenceModel { model, rule: Some(_), sharded }) = &self.reference else { return Ok(()) };
        save_weights(folder.map(|folder| folder.join(REFERENCE)), model.named_parameters(), sharded.as_deref())
    }

    /// Loss and rewards of a whole held-out set.
    fn evaluate_loss(&self, set: usize, policy: &[Sides<f64>], weights: &[f64]) -> Result<LossOutput> {
        let (_, pairs) = &self.eval[set];
        let reference = match &self.reference {
            Reference::Absent => None,
            Reference::Known(_, eval) => Some(vectors(&eval[set])),
            Reference::Model(ReferenceModel { model, .. }) => {
                let (team, options) = (&self.team, &self.options.forward);
                Some(vectors(&reference_logps_together(team, model, pairs, options, &mut |_| {})?))
            }
        };
        let lengths: Vec<Sides<f64>> =
            pairs.table.pairs.iter().map(|pair| pair.responses.map(|tokens| tokens as f64)).collect();
        let PairLogps { chosen, rejected } = vectors(&lengths);
        let lengths = PairLengths { chosen, rejected };
        let weights = (!weights.is_empty()).then(|| Tensor::from_slice(weights));
        let all: Vec<usize> = (0..pairs.len()).collect();
        let (label_probs, quantiles) = (self.label_probs(pairs, &all)?, self.quantiles(pairs, &all)?);
        let policy = vectors(policy);
        Ok(self.options.loss.evaluate_pairs(&Pairs {
            reference: reference.as_ref(),
            label_probs: label_probs.as_ref(),
            quantiles: quantiles.as_ref(),
            lengths: Some(&lengths),
            weights: weights.as_ref(),
            ..Pairs::new(&policy)
        })?)
    }
}

/// A vector of each side's values, in f64 on the CPU.
fn vectors(pairs: &[Sides<f64>]) -> PairLogps {
    let side = |side: fn(&Sides<f64>) -> f64| Tensor::from_slice(&pairs.iter().map(side).collect::<Vec<_>>());
    PairLogps { chosen: side(|pair| pair.chosen), rejected: side(|pair| pair.rejected) }
}

/// Copies in f32.
fn in_f32(logps: PairLogps) -> PairLogps {
    PairLogps { chosen: logps.chosen.to_kind(Kind::Float), rejected: logps.rejected.to_kind(Kind::Float) }
}

/// Statistics of pairs, for which the host waits once.
fn stats(
    output: &LossOutput,
    policy: &PairLogps,
    reference: Option<&[Sides<f64>]>,
    sums: &TokenTensors,
) -> Result<Vec<PairStats>> {
    let LossOutput { loss, chosen_rewards, rejected_rewards } = output;
    let (read, tokens) = sums.read_with(&[loss, chosen_rewards, rejected_rewards, &policy.chosen, &policy.rejected])?;
    let logps: Vec<Sides<f64>> =
        read[3].iter().zip(&read[4]).map(|(&chosen, &rejected)| Sides { chosen, rejected }).collect();
    Ok(pair_stats(&read, &logps, reference, &tokens))
}

/// Statistics from the pairs' losses, chosen and rejected rewards. A pair whose log-probabilities are not finite has the loss NaN.
fn pair_stats(
    read: &[Vec<f64>],
    logps: &[Sides<f64>],
    reference: Option<&[Sides<f64>]>,
    tokens: &[TokenSums],
) -> Vec<PairStats> {
    let tokens = Sides::from_alternating(tokens);
    let stats = |i: usize| {
        let is_finite = logps[i].chosen.is_finite() && logps[i].rejected.is_finite();
        PairStats {
            loss: if is_finite { read[0][i] } else { f64::NAN },
            rewards: Sides { chosen: read[1][i], rejected: read[2][i] },
            logps: logps[i],
            reference_logps: reference.map(|reference| reference[i]),
            tokens: tokens[i],
        }
    };
    (0..logps.len()).map(stats).collect()
}

/// Error of a pair without the scores that a soft label is made of.
pub(crate) fn no_scores(set: &PairSet, pair: usize, loss: &LossSum) -> Error {
    Error::NoScores { row: set.table.pairs[pair].row, loss: loss.to_string() }
}

/// Quantile rewards of a pair's responses.
///
/// # Errors
/// [`Error::NoScores`] or [`Error::NoReferenceRewards`] if they are not known.
pub(crate) fn quantiles_of(set: &PairSet, pair: usize, loss: &LossSum) -> Result<Sides<f64>> {
    match set.quantiles.get(pair).copied().unwrap_or(Quantiles::NoReferenceRewards) {
        Quantiles::Known(quantiles) => Ok(quantiles),
        Quantiles::NoScores => Err(no_scores(set, pair, loss)),
        Quantiles::NoReferenceRewards => {
            Err(Error::NoReferenceRewards { row: set.table.pairs[pair].row, loss: loss.to_string() })
        }
    }
}

impl Learner for PreferenceLearner<'_> {
    fn trainee(&self) -> &dyn Trainable {
        &self.trainee
    }

    fn trainee_mut(&mut self) -> &mut dyn Trainable {
        &mut self.trainee
    }

    fn begin(&mut self, step: u64) -> Result<()> {
        self.move_reference(step)?;
        self.policy.begin(step);
        self.routers = 0.0;
        self.in_update = self.options.forward.of_update(step);
        Ok(())
    }

    fn accumulate(&mut self, pairs: &[usize], weight: f64) -> Result<Vec<PairStats>> {
        let known = self.batch_reference(pairs)?;
        let model = &self.policy.in_training;
        let mut reference = known.as_deref().map(|known| in_f32(vectors(known)));
        let mut label_probs = self.label_probs(self.train, pairs)?;
        let mut quantiles = self.quantiles(self.train, pairs)?;
        let known_before = reference.iter_mut().flat_map(|known| [&mut known.chosen, &mut known.rejected]);
        let rewards = quantiles.iter_mut().flat_map(|rewards| [&mut rewards.chosen, &mut rewards.rejected]);
        let along = known_before.chain(&mut label_probs).chain(rewards);
        let is_routed = self.options.router_coef.is_some();
        let pass = Pass::new(model, self.train, pairs, &self.in_update, along, is_routed)?;
        let inputs = FusedInputs {
            reference: reference.as_ref(),
            label_probs: label_probs.as_ref(),
            quantiles: quantiles.as_ref(),
            weight,
            options: pass.scoring(&self.in_update),
            ..FusedInputs::new(pass.head(), &pass.rows, &pass.positions)
        };
        let fused = fused_preference_loss(&self.options.loss, &inputs)?;
        let sums = pass.token_sums(&fused.scores);
        // TRL adds the loss of a pass to the mean of its pairs' losses.
        let (router, count) = (pass.router.as_ref().map(Tensor::detach), pairs.len() as f64);
        let surrogate = match (&pass.router, self.options.router_coef) {
            (Some(router), Some(coef)) => &fused.surrogate + router * (coef * weight * count),
            _ => fused.surrogate,
        };
        pass.backward(&surrogate)?;
        if let Some(router) = &router {
            self.routers += router.double_value(&[]) * count;
        }
        // Read once all work is queued, so that a device does not wait for the host.
        stats(&fused.output, &fused.policy, known.as_deref(), &sums)
    }

    fn passes_together(&self) -> bool {
        self.policy.model.is_divided()
    }

    fn idle(&mut self) -> Result<()> {
        if let Reference::Model(ReferenceModel { model, .. }) = &self.reference {
            model.idle_pass(false)?;
        }
        Ok(self.policy.in_training.idle_pass(true)?)
    }

    fn regularises(&self) -> bool {
        self.hypo.is_some()
    }

    fn regularise(&mut self, step: u64, batch: &[usize]) -> Result<Vec<(&'static str, f64)>> {
        let routers = match self.options.router_coef {
            Some(_) => {
                let sum = self.team.sums(&[self.routers], "gathering the losses of routers")?;
                vec![("aux_loss", sum[0] / batch.len() as f64)]
            }
            None => Vec::new(),
        };
        let Some(hypo) = &self.hypo else { return Ok(routers) };
        let count = hypo.settings().prompts_of(batch.len());
        let prompts: Vec<(usize, &[u32])> =
            batch[..count].iter().map(|&pair| self.train.tokens.get(pair).prompt).enumerate().collect();
        // Dropout is off here: samples and their log-probabilities have to be of one distribution.
        let own = self.team.share(&prompts);
        let mut progress = |done, all| self.team.does_part("sampling responses", done, all);
        let sampled = hypo.sample(&self.policy.model, &own, step, &mut progress)?;
        let weight = hypo.settings().lambda / count as f64;
        let sums = hypo.accumulate(&self.policy.model, &sampled, weight, &self.options.forward, &self.team)?;
        let of_hypo = sums.of_all(&self.team)?.metrics();
        Ok(routers.into_iter().chain(of_hypo).collect())
    }

    fn eval_sets(&self) -> Vec<String> {
        self.eval.iter().map(|(name, _)| name.clone()).collect()
    }

    fn evaluate(&mut self, set: usize, progress: &mut dyn FnMut(usize, usize)) -> Result<Vec<PairStats>> {
        let (_, pairs) = &self.eval[set];
        if pairs.is_empty() {
            return Ok(Vec::new());
        }
        let (options, total) = (&self.options.forward, pairs.len());
        let Scored { logps, tokens, weights } =
            score_together(&self.team, &self.policy.model, pairs, options, &mut |done| progress(done, total))?;
        let logps = Sides::from_alternating(&logps);
        let output = self.evaluate_loss(set, &logps, &weights)?;
        let read = read_all(&[&output.loss, &output.chosen_rewards, &output.rejected_rewards])?;
        Ok(pair_stats(&read, &logps, None, &tokens))
    }

    fn first_loss(&self) -> Result<Option<FirstLoss>> {
        // With dropout the policy is not the reference.
        let is_reference = self.options.starts_at_reference && !self.policy.drops_inputs();
        if !is_reference || matches!(self.reference, Reference::Absent) {
            return Ok(None);
        }
        let Some(loss) = self.options.loss.at_reference() else { return Ok(None) };
        // f32 sums of some hundred log-probabilities repeat to about 1e-4 nats, whatever the packing; those of half precision
        // to some tenths of a nat, which even out over a batch.
        let is_exact = self.policy.model.kind() == Kind::Float;
        let (nats, nats_per_token) = if is_exact { (0.02, 1e-3) } else { (0.2, 0.05) };
        let tolerance = nats * change_per_nat(&self.options.loss, loss)?;
        Ok(Some(FirstLoss { loss, tolerance, nats_per_token: Some(nats_per_token) }))
    }

    fn save(&self, folder: &Path) -> Result<()> {
        self.trainee.save(folder)?;
        // A reference that moves is no longer the one that training began with.
        self.save_reference(Some(folder))
    }

    fn help_save(&self) -> Result<()> {
        self.trainee.help_save()?;
        self.save_reference(None)
    }

    fn restore(&mut self, folder: &Path) -> Result<()> {
        self.trainee.restore(folder)?;
        if let Reference::Model(ReferenceModel { model, rule: Some(_), sharded }) = &self.reference {
            restore_weights(&folder.join(REFERENCE), model.named_parameters(), sharded.as_deref())?;
        }
        Ok(())
    }
}

/// Largest change of a loss from `at_reference`, its value where policy and reference are one, if log-probabilities change
/// by a nat.
fn change_per_nat(loss: &LossSum, at_reference: f64) -> Result<f64> {
    let side = |values: [f64; 4]| Tensor::from_slice(&values);
    let policy = PairLogps { chosen: side([-9.0, -9.0, -11.0, -11.0]), rejected: side([-9.0, -11.0, -9.0, -11.0]) };
    let reference = PairLogps { chosen: side([-10.0; 4]), rejected: side([-10.0; 4]) };
    let lengths = PairLengths { chosen: side([1.0; 4]), rejected: side([1.0; 4]) };
    let sure = side([1.0; 4]);
    let output = loss.evaluate_pairs(&Pairs {
        reference: Some(&reference),
        label_probs: loss.needs(Need::LabelProbs).then_some(&sure),
        lengths: Some(&lengths),
        ..Pairs::new(&policy)
    })?;
    Ok(read_all(&[&output.loss])?[0].iter().map(|loss| (loss - at_reference).abs()).fold(0.0, f64::max))
}

const REFERENCE: &str = "reference.safetensors";

#[cfg(test)]
#[path = "preference_tests.rs"]
mod tests;
