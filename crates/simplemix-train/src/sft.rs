//! Supervised fine-tuning on the chosen responses: mean negative log-likelihood of a token, as TRL's `SFTTrainer`
//! computes it on prompt-completion data.

use std::path::Path;

use simplemix_loss::fused_logps;
use simplemix_model::CausalLm;
use tch::Kind;

use crate::collective::Collective;
use crate::error::Result;
use crate::forward::{ForwardOptions, Pass, head, score_pairs, values};
use crate::learner::{Learner, PairStats, TokenSums};
use crate::metrics::MetricSet;
use crate::pairs::PairSet;
use crate::preference::{NamedSet, not_a_number};
use crate::trainee::Trainee;

/// A model that learns to write the chosen responses. Its sets are fed as [`crate::Feed::Chosen`].
#[derive(Debug)]
pub struct SftLearner<'a> {
    policy: CausalLm,
    in_training: CausalLm,
    trainee: Trainee,
    options: ForwardOptions,
    seed: u64,
    train: &'a PairSet,
    eval: &'a [NamedSet],
}

impl<'a> SftLearner<'a> {
    /// A learner that changes what `trainee` has of `policy`.
    ///
    /// # Errors
    /// What making a second handle reports.
    pub fn new(
        policy: CausalLm,
        trainee: Trainee,
        options: ForwardOptions,
        seed: u64,
        train: &'a PairSet,
        eval: &'a [NamedSet],
    ) -> Result<Self> {
        let in_training = policy.with_adapter(policy.active_adapter())?;
        // A response has no other one to be longer than.
        let options = ForwardOptions { ld_alpha: None, ..options };
        Ok(Self { policy, in_training, trainee, options, seed, train, eval })
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
    /// [`crate::Error::State`] if it is not of this model.
    pub fn restore_weights(&self, folder: &Path) -> Result<()> {
        self.trainee.restore_weights(folder)
    }
}

/// One over the tokens that are learnt.
fn weight_of(set: &PairSet, pairs: &[usize]) -> f64 {
    1.0 / pairs.iter().map(|&pair| set.table.pairs[pair].responses[0]).sum::<usize>() as f64
}

fn stats((logp, tokens): (f64, TokenSums)) -> PairStats {
    PairStats { loss: -logp, chosen_logp: logp, chosen: tokens, ..PairStats::default() }
}

impl Learner for SftLearner<'_> {
    fn begin(&mut self, step: u64) -> Result<()> {
        if self.policy.active_adapter().is_some() {
            let seed = self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(step);
            self.in_training = self.policy.in_training(seed);
        }
        Ok(())
    }

    fn weight(&self, batch: &[usize]) -> f64 {
        weight_of(self.train, batch)
    }

    fn weight_of(&self, set: usize, pairs: &[usize]) -> f64 {
        weight_of(&self.eval[set].1, pairs)
    }

    fn accumulate(&mut self, pairs: &[usize], weight: f64) -> Result<Vec<PairStats>> {
        let model = &self.in_training;
        let pass = Pass::new(model, self.train, pairs, &self.options)?;
        let scoring = pass.scoring(&self.options);
        let loss = |logps: &tch::Tensor| Ok(logps.sum(Kind::Float) * -weight);
        let (scores, surrogate) = match fused_logps(head(model), &pass.rows, &pass.positions, scoring, loss) {
            Err(simplemix_loss::Error::NonFinite { .. }) => return Ok(not_a_number(pairs.len())),
            fused => fused?,
        };
        let logps = values(&scores.logps);
        let tokens = pass.token_sums(&[scores]);
        pass.backward(&surrogate)?;
        Ok(logps.into_iter().zip(tokens).map(stats).collect())
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
        let pairs = &self.eval[set].1;
        let all: Vec<usize> = (0..pairs.len()).collect();
        let scored = score_pairs(&self.policy, pairs, &all, &self.options, &mut |done| progress(done, all.len()))?;
        Ok(scored.logps.into_iter().zip(scored.tokens).map(stats).collect())
    }

    fn metrics(&self) -> MetricSet {
        MetricSet::Sft
    }

    fn save(&self, folder: &Path) -> Result<()> {
        self.trainee.save(folder)
    }

    fn restore(&mut self, folder: &Path) -> Result<()> {
        self.trainee.restore(folder)
    }
}
