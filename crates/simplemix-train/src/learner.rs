//! What the loop knows of a model: gradients of some pairs, an update, a score. No tensor crosses this line.

use std::path::Path;

use crate::collective::Collective;
use crate::error::Result;
use crate::metrics::MetricSet;

/// What one pair gave in one forward pass.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct PairStats {
    /// Loss of the pair. What an update reports is the sum of these times [`Learner::weight`].
    pub loss: f64,
    /// Reward of the chosen response: of a policy `beta * (log pi - log pi_ref)`, of a reward model its score.
    pub chosen_reward: f64,
    /// The same of the rejected response.
    pub rejected_reward: f64,
    /// Summed log-probability of the chosen response under the policy, nats.
    pub chosen_logp: f64,
    /// The same of the rejected response.
    pub rejected_logp: f64,
    /// Numbers of the chosen response's tokens; zeros where they are not taken.
    pub chosen: TokenSums,
    /// The same of the rejected response.
    pub rejected: TokenSums,
}

/// Sums over the scored tokens of a response.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct TokenSums {
    /// Tokens.
    pub count: f64,
    /// Of the mean logit over the vocabulary.
    pub logits: f64,
    /// Of the entropy of the next-token distribution, nats.
    pub entropy: f64,
    /// Tokens that were the likeliest.
    pub top1: f64,
}

impl PairStats {
    /// Numbers of a pair.
    pub const LEN: usize = 13;

    /// Chosen reward minus rejected reward.
    pub fn margin(&self) -> f64 {
        self.chosen_reward - self.rejected_reward
    }

    /// All numbers, for a [`Collective`].
    pub fn to_array(self) -> [f64; Self::LEN] {
        let (c, r) = (self.chosen, self.rejected);
        [
            self.loss,
            self.chosen_reward,
            self.rejected_reward,
            self.chosen_logp,
            self.rejected_logp,
            c.count,
            c.logits,
            c.entropy,
            c.top1,
            r.count,
            r.logits,
            r.entropy,
            r.top1,
        ]
    }

    /// What [`PairStats::to_array`] gave.
    pub fn from_array(all: [f64; Self::LEN]) -> Self {
        let tokens =
            |at: usize| TokenSums { count: all[at], logits: all[at + 1], entropy: all[at + 2], top1: all[at + 3] };
        Self {
            loss: all[0],
            chosen_reward: all[1],
            rejected_reward: all[2],
            chosen_logp: all[3],
            rejected_logp: all[4],
            chosen: tokens(5),
            rejected: tokens(9),
        }
    }
}

/// A model that learns from pairs, named by their number in the training set.
pub trait Learner {
    /// Update `step` (counted from zero) begins; whatever is random in it follows from this number.
    ///
    /// # Errors
    /// Whatever has to be made ready.
    fn begin(&mut self, _step: u64) -> Result<()> {
        Ok(())
    }

    /// What each pair's loss is multiplied by in an update of `batch`: one over the pairs, unless tokens count.
    fn weight(&self, batch: &[usize]) -> f64 {
        1.0 / batch.len() as f64
    }

    /// The same for the pairs of a held-back set.
    fn weight_of(&self, _set: usize, pairs: &[usize]) -> f64 {
        1.0 / pairs.len() as f64
    }

    /// Forward and backward pass of `pairs`; adds `weight` times the gradient of their summed loss.
    ///
    /// # Errors
    /// Whatever the forward pass reports.
    fn accumulate(&mut self, pairs: &[usize], weight: f64) -> Result<Vec<PairStats>>;

    /// Adds the gradient of what an update has beside the losses of its pairs, once all of them have gone through; gives
    /// what is to be logged of it, over all processes. A value that is no number has the batch left out.
    ///
    /// # Errors
    /// Whatever is computed for it reports.
    fn regularise(
        &mut self,
        _step: u64,
        _batch: &[usize],
        _collective: &dyn Collective,
    ) -> Result<Vec<(&'static str, f64)>> {
        Ok(Vec::new())
    }

    /// Adds up the gradients that processes have gathered, so that each has the sum.
    ///
    /// # Errors
    /// What the connection reports.
    fn share_gradients(&mut self, _collective: &dyn Collective) -> Result<()> {
        Ok(())
    }

    /// Global L2 norm of the gradient gathered so far.
    fn gradient_norm(&self) -> f64;

    /// One optimiser update with the gathered gradient times `scale`, which is cleared.
    fn update(&mut self, learning_rate: f64, scale: f64);

    /// Clears the gathered gradient without an update.
    fn discard(&mut self);

    /// Held-back sets, by name.
    fn eval_sets(&self) -> Vec<String>;

    /// Forward pass over a whole held-back set; `progress(done, total)` counts pairs. Empty where there is none.
    ///
    /// # Errors
    /// Whatever the forward pass reports.
    fn evaluate(&mut self, set: usize, progress: &mut dyn FnMut(usize, usize)) -> Result<Vec<PairStats>>;

    /// What its numbers are called.
    fn metrics(&self) -> MetricSet {
        MetricSet::Preference
    }

    /// Loss that every pair must have before the first update, and how far off it may be; none where no such holds.
    fn first_loss(&self) -> Option<(f64, f64)> {
        None
    }

    /// Writes weights and optimiser state into the existing `folder`.
    ///
    /// # Errors
    /// [`crate::Error::Io`] or [`crate::Error::Model`].
    fn save(&self, folder: &Path) -> Result<()>;

    /// Takes up what [`Learner::save`] wrote.
    ///
    /// # Errors
    /// [`crate::Error::State`] if it is not of this model.
    fn restore(&mut self, folder: &Path) -> Result<()>;
}
