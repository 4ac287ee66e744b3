//! What the loop knows of a model: gradients of some pairs, an update, a score. No tensor crosses this line.

use std::path::Path;

use crate::error::Result;

/// What one pair gave in one forward pass.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct PairStats {
    /// Loss of the pair.
    pub loss: f64,
    /// `beta * (log pi - log pi_ref)` of the chosen response.
    pub chosen_reward: f64,
    /// The same of the rejected response.
    pub rejected_reward: f64,
    /// Summed log-probability of the chosen response under the policy, nats.
    pub chosen_logp: f64,
    /// The same of the rejected response.
    pub rejected_logp: f64,
}

impl PairStats {
    /// Chosen reward minus rejected reward.
    pub fn margin(&self) -> f64 {
        self.chosen_reward - self.rejected_reward
    }
}

/// A model that learns from pairs, named by their number in the training set.
pub trait Learner {
    /// Forward and backward pass of `pairs`; adds `weight` times the gradient of their summed loss.
    ///
    /// # Errors
    /// Whatever the forward pass reports.
    fn accumulate(&mut self, pairs: &[usize], weight: f64) -> Result<Vec<PairStats>>;

    /// Global L2 norm of the gradient gathered so far.
    fn gradient_norm(&self) -> f64;

    /// One optimiser update with the gathered gradient times `scale`, which is cleared.
    fn update(&mut self, learning_rate: f64, scale: f64);

    /// Forward pass over the whole held-back set; `progress(done, total)` counts pairs. Empty where there is none.
    ///
    /// # Errors
    /// Whatever the forward pass reports.
    fn evaluate(&mut self, progress: &mut dyn FnMut(usize, usize)) -> Result<Vec<PairStats>>;

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
