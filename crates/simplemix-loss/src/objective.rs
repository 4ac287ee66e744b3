//! The interface between losses and the code that computes them from log-probabilities or hidden states.

use crate::error::Result;
use crate::pair::{LossOutput, Need, Pairs};
use crate::weights::Wpo;

/// A loss of pairs: one [`crate::PreferenceLoss`], or a weighted [`crate::LossSum`].
pub trait PairLoss {
    /// Loss and rewards of each pair.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] if vectors differ in length, [`crate::Error::NonFinite`], [`crate::Error::Missing`] if an
    /// input that the loss needs is absent.
    fn evaluate_pairs(&self, pairs: &Pairs<'_>) -> Result<LossOutput>;

    /// Whether the loss needs an input that not every loss needs.
    fn needs(&self, need: Need) -> bool;

    /// Whether a pair's loss depends on the other pairs of the batch.
    fn is_coupled(&self) -> bool;

    /// Loss of a pair for which policy and reference agree; `None` if it depends on the pair.
    fn at_reference(&self) -> Option<f64>;

    /// Weighting of pairs by how likely the policy is to write them.
    fn wpo(&self) -> Option<Wpo> {
        None
    }
}
