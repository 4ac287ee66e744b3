//! Supervised fine-tuning on the chosen responses: mean negative log-likelihood of a token, as TRL's `SFTTrainer`
//! computes it on prompt-completion data.

use simplemix_loss::fused_logps;
use simplemix_model::CausalLm;
use tch::Kind;

use crate::error::Result;
use crate::forward::{ForwardOptions, Pass, score_together};
use crate::learner::{Learner, Trainable};
use crate::metrics::MetricSet;
use crate::pairs::{NamedSet, PairSet};
use crate::policy::Policy;
use crate::sides::Sides;
use crate::stats::{PairStats, TokenSums};
use crate::trainee::Trainee;

/// A model that learns to write the chosen responses. The feed of its sets must be [`crate::Feed::Chosen`].
#[derive(Debug)]
pub(crate) struct SftLearner<'a> {
    policy: Policy,
    trainee: Trainee,
    options: ForwardOptions,
    /// Options of the update that has begun.
    in_update: ForwardOptions,
    train: &'a PairSet,
    eval: &'a [NamedSet],
}

impl<'a> SftLearner<'a> {
    /// Creates a learner that changes the tensors that `trainee` holds of `policy`. `seed` is the random seed of dropout.
    ///
    /// # Errors
    /// [`crate::Error::Model`] if the policy cannot be shared.
    pub(crate) fn new(
        policy: CausalLm,
        trainee: Trainee,
        options: ForwardOptions,
        seed: u64,
        train: &'a PairSet,
        eval: &'a [NamedSet],
    ) -> Result<Self> {
        // LD-DPO compares the lengths of two responses; there is one here.
        let options = ForwardOptions { ld_alpha: None, ..options };
        Ok(Self { policy: Policy::new(policy, seed)?, trainee, options, in_update: options, train, eval })
    }

    /// Drops the optimiser and returns the policy.
    pub(crate) fn into_model(self) -> CausalLm {
        self.policy.into_model()
    }
}

/// One over the number of chosen tokens.
fn token_weight(set: &PairSet, pairs: &[usize]) -> f64 {
    1.0 / pairs.iter().map(|&pair| set.table.pairs[pair].responses.chosen).sum::<usize>() as f64
}

fn stats((logp, tokens): (f64, TokenSums)) -> PairStats {
    PairStats {
        loss: -logp,
        logps: Sides { chosen: logp, rejected: 0.0 },
        tokens: Sides { chosen: tokens, rejected: TokenSums::default() },
        ..PairStats::default()
    }
}

impl Learner for SftLearner<'_> {
    fn trainee(&self) -> &dyn Trainable {
        &self.trainee
    }

    fn trainee_mut(&mut self) -> &mut dyn Trainable {
        &mut self.trainee
    }

    fn begin(&mut self, step: u64) -> Result<()> {
        self.policy.begin(step);
        self.in_update = self.options.of_update(step);
        Ok(())
    }

    fn weight(&self, batch: &[usize]) -> f64 {
        token_weight(self.train, batch)
    }

    fn eval_weight(&self, set: usize, pairs: &[usize]) -> f64 {
        token_weight(&self.eval[set].1, pairs)
    }

    fn accumulate(&mut self, pairs: &[usize], weight: f64) -> Result<Vec<PairStats>> {
        let model = &self.policy.in_training;
        let pass = Pass::new(model, self.train, pairs, &self.in_update, [], false)?;
        let scoring = pass.scoring(&self.in_update);
        let loss = |logps: &tch::Tensor| Ok(logps.sum(Kind::Float) * -weight);
        let (scores, surrogate) = fused_logps(pass.head(), &pass.rows, &pass.positions, scoring, loss)?;
        let logps = scores.logps.shallow_clone();
        let sums = pass.token_sums(&[scores]);
        pass.backward(&surrogate)?;
        let (read, tokens) = sums.read_with(&[&logps])?;
        Ok(read[0].iter().copied().zip(tokens).map(stats).collect())
    }

    fn passes_together(&self) -> bool {
        self.policy.model.is_divided()
    }

    fn idle(&mut self) -> Result<()> {
        Ok(self.policy.in_training.idle_pass(true)?)
    }

    fn eval_sets(&self) -> Vec<String> {
        self.eval.iter().map(|(name, _)| name.clone()).collect()
    }

    fn evaluate(&mut self, set: usize, progress: &mut dyn FnMut(usize, usize)) -> Result<Vec<PairStats>> {
        let pairs = &self.eval[set].1;
        let (team, model, total) = (self.trainee.team(), &self.policy.model, pairs.len());
        let scored = score_together(team, model, pairs, &self.options, &mut |done| progress(done, total))?;
        Ok(scored.logps.into_iter().zip(scored.tokens).map(stats).collect())
    }

    fn metrics(&self) -> MetricSet {
        MetricSet::Sft
    }
}
