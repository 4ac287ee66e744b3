//! Preference training of a causal language model against a frozen reference.
//!
//! A prompt goes through the network once a pair, no padding token does, and the head sees response positions only.
//! The reference is the policy before training: its log-probabilities are computed once, before the first update, or
//! anew for every batch by the same weights with the adapter off, or by a second model.

use std::path::Path;

use simplemix_loss::{Known, Need, Objective, PairLengths, PairLogps, Pairs, PreferenceLoss, fused_preference_loss};
use simplemix_model::CausalLm;
use tch::{Device, Kind, Tensor};

use crate::collective::Collective;
use crate::error::{Error, Result};
use crate::forward::{ForwardOptions, Pass, Scored, head, score_pairs, values};
use crate::hypo::{Asked, Hypo, HypoSums};
use crate::learner::{Learner, PairStats};
use crate::pairs::PairSet;
use crate::trainee::Trainee;

/// A named held-back set. The name is part of its metrics' names and may be empty.
pub type NamedSet = (String, PairSet);

/// Log-probabilities of a set's pairs under a reference: chosen, rejected; nats, summed over the response.
pub type ReferenceLogps = Vec<[f64; 2]>;

/// Where the reference's log-probabilities come from.
#[derive(Debug)]
pub enum Reference {
    /// Nowhere: the loss has none.
    Absent,
    /// They are known, of the training set and of each held-back set.
    Known(ReferenceLogps, Vec<ReferenceLogps>),
    /// This model computes them for every batch.
    Model(Box<CausalLm>, Option<SyncRule>),
}

/// TR-DPO's moving reference (arXiv:2404.09656): every so many updates, `mixup * policy + (1 - mixup) * reference`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SyncRule {
    /// Updates in between.
    pub every: u64,
    /// The policy's share; TRL's default is 0.6.
    pub mixup: f64,
}

/// Settings of a [`PreferenceLearner`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PreferenceOptions {
    /// The loss.
    pub loss: PreferenceLoss,
    /// Of the forward pass.
    pub forward: ForwardOptions,
    /// Factor of a pair's score difference in a soft label.
    pub reward_margin_scale: f64,
    /// Dropped inputs follow from it.
    pub seed: u64,
    /// Whether the policy is the reference before the first update, so that the first loss is known.
    pub starts_at_reference: bool,
}

/// A policy in training.
#[derive(Debug)]
pub struct PreferenceLearner<'a> {
    /// As it is evaluated and saved.
    policy: CausalLm,
    /// As it is trained in this update: the same weights, dropping inputs where an adapter does.
    in_training: CausalLm,
    trainee: Trainee,
    loss: PreferenceLoss,
    options: ForwardOptions,
    reward_margin_scale: f64,
    seed: u64,
    starts_at_reference: bool,
    train: &'a PairSet,
    eval: &'a [NamedSet],
    reference: Reference,
    hypo: Option<Hypo>,
}

/// Summed log-probabilities of the responses of a whole set under `model`.
///
/// `progress(done)` counts pairs.
///
/// # Errors
/// Whatever the forward pass reports.
pub fn reference_logps(
    model: &CausalLm,
    set: &PairSet,
    options: &ForwardOptions,
    progress: &mut dyn FnMut(usize),
) -> Result<ReferenceLogps> {
    let all: Vec<usize> = (0..set.len()).collect();
    let options = ForwardOptions { token_metrics: false, wpo: None, ..*options };
    Ok(score_pairs(model, set, &all, &options, progress)?.logps.as_chunks().0.to_vec())
}

impl<'a> PreferenceLearner<'a> {
    /// A learner that changes what `trainee` has of `policy`.
    ///
    /// # Errors
    /// [`Error::Setting`] if the loss needs a reference and there is none.
    pub fn new(
        policy: CausalLm,
        trainee: Trainee,
        options: PreferenceOptions,
        train: &'a PairSet,
        eval: &'a [NamedSet],
        reference: Reference,
    ) -> Result<Self> {
        let PreferenceOptions { loss, forward: options, reward_margin_scale, seed, starts_at_reference } = options;
        if matches!(reference, Reference::Absent) && needs_reference(&loss) {
            let found = format!("{} without a reference", loss.kind().name());
            return Err(Error::Setting { key: "loss", found, expected: "a reference for this loss" });
        }
        let in_training = policy.with_adapter(policy.active_adapter())?;
        Ok(Self {
            policy,
            in_training,
            trainee,
            loss,
            options,
            reward_margin_scale,
            seed,
            starts_at_reference,
            train,
            eval,
            reference,
            hypo: None,
        })
    }

    /// The same with HyPO's divergence to the reference, whatever the loss of the pairs.
    #[must_use]
    pub fn with_hypo(self, hypo: Hypo) -> Self {
        Self { hypo: Some(hypo), ..self }
    }

    /// The policy as it is now.
    pub fn model(&self) -> &CausalLm {
        &self.policy
    }

    /// Gives up the optimiser and keeps the policy.
    pub fn into_model(self) -> CausalLm {
        self.policy.set_trainable(false);
        self.policy
    }

    /// Takes up a checkpoint's weights alone.
    ///
    /// # Errors
    /// [`Error::State`] if it is not of this model.
    pub fn restore_weights(&self, folder: &Path) -> Result<()> {
        self.trainee.restore_weights(folder)
    }

    fn of_batch(&self, pairs: &[usize]) -> Result<Option<PairLogps>> {
        let known: Vec<[f64; 2]> = match &self.reference {
            Reference::Absent => return Ok(None),
            Reference::Known(train, _) => pairs.iter().map(|&pair| train[pair]).collect(),
            Reference::Model(model, _) => {
                let options = ForwardOptions { token_metrics: false, wpo: None, ..self.options };
                let scored = score_pairs(model, self.train, pairs, &options, &mut |_| {})?;
                scored.logps.as_chunks().0.to_vec()
            }
        };
        let side = |side: usize| {
            let values: Vec<f64> = known.iter().map(|pair| pair[side]).collect();
            Tensor::from_slice(&values).to_kind(Kind::Float).to_device(self.policy.device())
        };
        Ok(Some(PairLogps { chosen: side(0), rejected: side(1) }))
    }

    /// How likely the pairs' labels are to be right, in f32 on `device`, if the loss asks for it:
    /// `sigmoid(scale * (score_chosen - score_rejected))`.
    fn label_probs(&self, set: &PairSet, pairs: &[usize], device: Device) -> Result<Option<Tensor>> {
        if !self.loss.kind().formula().needs.contains(&Need::LabelProbs) {
            return Ok(None);
        }
        let margin = |&pair: &usize| {
            let known = set.score_margins.get(pair).copied().flatten();
            known.ok_or_else(|| no_scores(set, pair, &self.loss))
        };
        let margins = pairs.iter().map(margin).collect::<Result<Vec<f64>>>()?;
        let probs = (Tensor::from_slice(&margins) * self.reward_margin_scale).sigmoid();
        Ok(Some(probs.to_kind(Kind::Float).to_device(device)))
    }

    /// Moves the reference towards the policy, if it is time.
    fn synchronise(&self, step: u64) {
        let Reference::Model(model, Some(rule)) = &self.reference else { return };
        if step == 0 || !step.is_multiple_of(rule.every) {
            return;
        }
        let _guard = tch::no_grad_guard();
        for ((_, reference), (_, policy)) in model.named_parameters().iter().zip(self.policy.named_parameters()) {
            let _ = reference.shallow_clone().lerp_(policy, rule.mixup);
        }
    }
}

/// A pair without the scores that a soft label is made of.
pub(crate) fn no_scores(set: &PairSet, pair: usize, loss: &PreferenceLoss) -> Error {
    Error::NoScores { row: set.table.pairs[pair].row, loss: loss.kind().name().to_owned() }
}

/// Whether a loss looks at a reference.
pub(crate) fn needs_reference(loss: &PreferenceLoss) -> bool {
    loss.kind().formula().needs.contains(&Need::Reference)
}

impl Learner for PreferenceLearner<'_> {
    fn begin(&mut self, step: u64) -> Result<()> {
        self.synchronise(step);
        if self.policy.active_adapter().is_some() {
            // A stream of its own for each update, so that a resumed run drops what an uninterrupted one does.
            let seed = self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(step);
            self.in_training = self.policy.in_training(seed);
        }
        Ok(())
    }

    fn accumulate(&mut self, pairs: &[usize], weight: f64) -> Result<Vec<PairStats>> {
        let reference = self.of_batch(pairs)?;
        let label_probs = self.label_probs(self.train, pairs, self.policy.device())?;
        let known = Known { reference: reference.as_ref(), label_probs: label_probs.as_ref() };
        let model = &self.in_training;
        let pass = Pass::new(model, self.train, pairs, &self.options)?;
        let fused = match fused_preference_loss(
            &self.loss,
            head(model),
            &pass.rows,
            &pass.positions,
            known,
            weight,
            pass.scoring(&self.options),
        ) {
            Err(simplemix_loss::Error::NonFinite { .. }) => return Ok(not_a_number(pairs.len())),
            fused => fused?,
        };
        let tokens = pass.token_sums(&fused.scores);
        let output = &fused.output;
        let (losses, chosen, rejected) =
            (values(&output.loss), values(&output.chosen_rewards), values(&output.rejected_rewards));
        let (chosen_logps, rejected_logps) = (values(&fused.policy.chosen), values(&fused.policy.rejected));
        pass.backward(&fused.surrogate)?;
        let stats = |i: usize| PairStats {
            loss: losses[i],
            chosen_reward: chosen[i],
            rejected_reward: rejected[i],
            chosen_logp: chosen_logps[i],
            rejected_logp: rejected_logps[i],
            chosen: tokens[2 * i],
            rejected: tokens[2 * i + 1],
        };
        Ok((0..pairs.len()).map(stats).collect())
    }

    fn regularise(
        &mut self,
        step: u64,
        batch: &[usize],
        collective: &dyn Collective,
    ) -> Result<Vec<(&'static str, f64)>> {
        let Some(hypo) = &self.hypo else { return Ok(Vec::new()) };
        let count = hypo.settings().prompts_of(batch.len());
        let prompts = batch[..count].iter().enumerate();
        let asked: Vec<Asked<'_>> = prompts
            .skip(collective.rank())
            .step_by(collective.size())
            .map(|(place, &pair)| Asked { place, prompt: self.train.tokens.get(pair).prompt })
            .collect();
        // The policy itself, which drops no inputs: samples and their log-probabilities have to be of one distribution.
        let answered = hypo.draw(&self.policy, &asked, step)?;
        let weight = hypo.settings().lambda / count as f64;
        let mut sums = hypo.accumulate(&self.policy, &answered, weight, &self.options)?.to_array();
        collective.sum(&mut sums)?;
        Ok(HypoSums::from_array(sums).metrics())
    }

    fn share_gradients(&mut self, collective: &dyn Collective) -> Result<()> {
        self.trainee.share_gradients(collective)
    }

    fn gradient_norm(&self) -> f64 {
        self.trainee.optimizer.gradient_norm()
    }

    fn update(&mut self, learning_rate: f64, scale: f64) {
        self.trainee.optimizer.update(learning_rate, scale);
    }

    fn discard(&mut self) {
        self.trainee.discard();
    }

    fn eval_sets(&self) -> Vec<String> {
        self.eval.iter().map(|(name, _)| name.clone()).collect()
    }

    fn evaluate(&mut self, set: usize, progress: &mut dyn FnMut(usize, usize)) -> Result<Vec<PairStats>> {
        let (_, pairs) = &self.eval[set];
        if pairs.is_empty() {
            return Ok(Vec::new());
        }
        let all: Vec<usize> = (0..pairs.len()).collect();
        let Scored { logps, tokens, weights } =
            score_pairs(&self.policy, pairs, &all, &self.options, &mut |done| progress(done, all.len()))?;
        let policy: ReferenceLogps = logps.as_chunks().0.to_vec();
        let reference = match &self.reference {
            Reference::Absent => None,
            Reference::Known(_, eval) => Some(eval[set].clone()),
            Reference::Model(model, _) => Some(reference_logps(model, pairs, &self.options, &mut |_| {})?),
        };
        let vector = |side: fn(&[f64; 2]) -> f64, of: &ReferenceLogps| {
            Tensor::from_slice(&of.iter().map(side).collect::<Vec<_>>())
        };
        let logps = |of: &ReferenceLogps| PairLogps { chosen: vector(|p| p[0], of), rejected: vector(|p| p[1], of) };
        let length = |side: usize| {
            Tensor::from_slice(&pairs.table.pairs.iter().map(|p| p.responses[side] as f64).collect::<Vec<_>>())
        };
        let lengths = PairLengths { chosen: length(0), rejected: length(1) };
        let (policies, references) = (logps(&policy), reference.as_ref().map(logps));
        let weights = (!weights.is_empty()).then(|| Tensor::from_slice(&weights));
        let label_probs = self.label_probs(pairs, &all, Device::Cpu)?;
        let all_of_them = Pairs {
            reference: references.as_ref(),
            label_probs: label_probs.as_ref(),
            lengths: Some(&lengths),
            weights: weights.as_ref(),
            ..Pairs::new(&policies)
        };
        let output = self.loss.evaluate_pairs(&all_of_them)?;
        let (losses, chosen, rejected) =
            (values(&output.loss), values(&output.chosen_rewards), values(&output.rejected_rewards));
        let stats = |i: usize| PairStats {
            loss: losses[i],
            chosen_reward: chosen[i],
            rejected_reward: rejected[i],
            chosen_logp: policy[i][0],
            rejected_logp: policy[i][1],
            chosen: tokens[2 * i],
            rejected: tokens[2 * i + 1],
        };
        Ok(all.into_iter().map(stats).collect())
    }

    fn first_loss(&self) -> Option<(f64, f64)> {
        // Dropped inputs set the policy apart from the reference.
        let drops = self.in_training.active_adapter().is_some() && self.policy.adapter_dropout() > 0.0;
        if drops || !self.starts_at_reference || matches!(self.reference, Reference::Absent) {
            return None;
        }
        // f32 sums of some hundred log-probabilities repeat to about 1e-4, whatever the packing.
        let tolerance = if self.policy.kind() == Kind::Float { 2e-3 } else { 5e-2 };
        let known = self.loss.at_reference()?;
        Some((known, tolerance * if known > 2.0 { known } else { 1.0 }))
    }

    fn save(&self, folder: &Path) -> Result<()> {
        self.trainee.save(folder)?;
        match &self.reference {
            // It is no longer what training began with.
            Reference::Model(model, Some(_)) => {
                Ok(simplemix_model::weights::save(&folder.join(REFERENCE), model.named_parameters())?)
            }
            _ => Ok(()),
        }
    }

    fn restore(&mut self, folder: &Path) -> Result<()> {
        self.trainee.restore(folder)?;
        if let Reference::Model(model, Some(_)) = &self.reference {
            let stored = simplemix_model::weights::read_all(&folder.join(REFERENCE))?;
            let _guard = tch::no_grad_guard();
            for (name, tensor) in model.named_parameters() {
                if let Some(stored) = stored.get(name).filter(|stored| stored.size() == tensor.size()) {
                    tensor.shallow_clone().copy_(stored);
                }
            }
        }
        Ok(())
    }
}

const REFERENCE: &str = "reference.safetensors";

/// Numbers of pairs whose log-probabilities are none.
pub(crate) fn not_a_number(pairs: usize) -> Vec<PairStats> {
    vec![PairStats { loss: f64::NAN, ..PairStats::default() }; pairs]
}
