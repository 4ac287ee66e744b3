//! Definition of a loss: a name, constants, required inputs, and a formula.
//!
//! One file of `losses/` holds a family of losses. Another crate can define its own [`Formula`], which works everywhere that
//! a built-in one does.

use tch::Tensor;

use crate::pair::{Need, PairLengths, PairLogps, PairQuantiles, Pairs};

/// Largest number of constants that a loss can have besides beta.
pub const MAX_CONSTANTS: usize = 4;

/// A preference loss.
#[derive(Debug)]
pub struct Formula {
    /// Name, as in TRL if TRL has the loss.
    pub name: &'static str,
    /// Other names of the same loss.
    pub aliases: &'static [&'static str],
    /// Constants besides beta, at most [`MAX_CONSTANTS`].
    pub constants: &'static [Constant],
    /// Inputs that the loss requires.
    pub needs: &'static [Need],
    /// Whether it is built on the difference of scores, so that an f-divergence other than reverse KL makes sense.
    pub divergences: bool,
    /// How a pair's loss depends on the other pairs of the batch.
    pub coupling: Coupling,
    /// Reward of a response, for logging.
    pub rewards: Rewards,
    /// Loss of each pair, `[B]`.
    pub value: fn(&Terms<'_>) -> Tensor,
    /// Loss of a pair for which policy and reference agree, from beta and the constants; `None` if it depends on more.
    pub at_reference: Option<fn(f64, &[f64; MAX_CONSTANTS]) -> f64>,
}

/// Dependence of a pair's loss on the other pairs of the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coupling {
    /// A pair's loss depends on that pair alone.
    Independent,
    /// A pair's loss depends on the whole batch.
    Batch,
    /// Losses are those of sorted log-ratios: the i-th loss is not that of the i-th pair, so pairs cannot be weighted.
    Sorted,
}

/// A constant of a loss.
#[derive(Debug)]
pub struct Constant {
    /// Name, as in TRL if TRL has the constant.
    pub name: &'static str,
    /// Default; `None` if the constant is required.
    pub default: Option<f64>,
    /// Description of the allowed values.
    pub expected: &'static str,
    /// Whether a value is allowed.
    pub accepts: fn(f64) -> bool,
}

/// Reward that is logged for a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rewards {
    /// `beta` times the summed log-ratio.
    Sum,
    /// `beta` times the mean log-ratio over tokens.
    Mean,
}

/// Inputs of a formula.
#[derive(Debug)]
pub struct Terms<'a> {
    /// Strength of the pull towards the reference.
    pub beta: f64,
    /// Values of [`Formula::constants`], in their order.
    pub constants: [f64; MAX_CONSTANTS],
    /// Log-probabilities, lengths and other inputs as they were given.
    pub pairs: Pairs<'a>,
    /// Log-ratios `log pi - log pi_ref`; `log pi` itself without a reference.
    pub logratios: PairLogps,
    /// Scores under the f-divergence; the log-ratios under reverse KL.
    pub scores: PairLogps,
}

impl Terms<'_> {
    /// Chosen minus rejected score, `[B]`.
    pub fn delta(&self) -> Tensor {
        &self.scores.chosen - &self.scores.rejected
    }

    /// Chosen minus rejected score, each divided by its response's length, `[B]`.
    pub fn mean_delta(&self) -> Tensor {
        &self.scores.chosen / &self.lengths().chosen - &self.scores.rejected / &self.lengths().rejected
    }

    /// The policy's log-probabilities divided by their responses' lengths.
    pub fn mean_logps(&self) -> PairLogps {
        PairLogps {
            chosen: &self.pairs.policy.chosen / &self.lengths().chosen,
            rejected: &self.pairs.policy.rejected / &self.lengths().rejected,
        }
    }

    /// Log-ratios divided by their responses' lengths.
    pub fn mean_logratios(&self) -> PairLogps {
        PairLogps {
            chosen: &self.logratios.chosen / &self.lengths().chosen,
            rejected: &self.logratios.rejected / &self.lengths().rejected,
        }
    }

    /// Lengths of the responses, for a formula with [`Need::Lengths`].
    pub fn lengths(&self) -> &PairLengths {
        self.pairs.lengths.expect("checked before a formula with Need::Lengths is computed")
    }

    /// Log-probabilities under the reference, for a formula with [`Need::Reference`].
    pub fn reference(&self) -> &PairLogps {
        self.pairs.reference.expect("checked before a formula with Need::Reference is computed")
    }

    /// Probability that each label is right, for a formula with [`Need::LabelProbs`].
    pub fn label_probs(&self) -> &Tensor {
        self.pairs.label_probs.expect("checked before a formula with Need::LabelProbs is computed")
    }

    /// Quantile rewards of the responses, for a formula with [`Need::Quantiles`].
    pub fn quantiles(&self) -> &PairQuantiles {
        self.pairs.quantiles.expect("checked before a formula with Need::Quantiles is computed")
    }
}

/// `ln(1 + e^x)`, finite for every x: `-ln sigmoid(x) = softplus(-x)`.
pub(crate) fn softplus(x: &Tensor) -> Tensor {
    -(-x).log_sigmoid()
}

/// `label_smoothing`: the probability that a label is wrong.
pub(crate) const LABEL_SMOOTHING: Constant = Constant {
    name: "label_smoothing",
    default: Some(0.0),
    expected: "from 0 to below 0.5",
    accepts: |x| (0.0..0.5).contains(&x),
};
