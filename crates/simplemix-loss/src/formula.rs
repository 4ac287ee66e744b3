//! What a loss is to this crate: a name, the constants it knows, what it needs, and a formula.
//!
//! One file of `losses/` holds a family of them; another crate can make its own [`Formula`] too, and everything here
//! works with it.

use tch::Tensor;

use crate::pair::{PairLengths, PairLogps, Pairs};

/// Constants a loss can have beside beta.
pub const MAX_CONSTANTS: usize = 4;

/// A preference loss.
#[derive(Debug)]
pub struct Formula {
    /// TRL's name where it has one.
    pub name: &'static str,
    /// Other names of the same loss.
    pub aliases: &'static [&'static str],
    /// Constants beside beta, at most [`MAX_CONSTANTS`].
    pub constants: &'static [Constant],
    /// What it cannot do without.
    pub needs: &'static [Need],
    /// Whether it is built on the difference of scores, so that an f-divergence other than reverse KL makes sense.
    pub divergences: bool,
    /// Whether a pair's loss depends on the other pairs of the batch.
    pub coupled: bool,
    /// What counts as a response's reward in the log.
    pub rewards: Rewards,
    /// Loss of each pair, `[B]`.
    pub value: fn(&Terms<'_>) -> Tensor,
    /// Loss of a pair on which policy and reference agree, from beta and the constants, where nothing else matters.
    pub at_reference: Option<fn(f64, &[f64; MAX_CONSTANTS]) -> f64>,
}

/// A constant of a loss.
#[derive(Debug)]
pub struct Constant {
    /// TRL's name where it has one.
    pub name: &'static str,
    /// What holds if it is not given; none if it must be.
    pub default: Option<f64>,
    /// What is allowed, in words.
    pub expected: &'static str,
    /// What is allowed.
    pub accepts: fn(f64) -> bool,
}

/// Something that not every loss needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Log-probabilities under a reference.
    Reference,
    /// Tokens of the responses.
    Lengths,
    /// Probability that the label is right, of each pair.
    LabelProbs,
}

/// What is logged as reward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rewards {
    /// `beta` times the summed log-ratio.
    Sum,
    /// `beta` times the mean over tokens.
    Mean,
}

/// What a formula computes from.
#[derive(Debug)]
pub struct Terms<'a> {
    /// Strength of the pull towards the reference.
    pub beta: f64,
    /// Values of [`Formula::constants`], in their order.
    pub constants: [f64; MAX_CONSTANTS],
    /// Log-probabilities as they came, and what else was given.
    pub pairs: Pairs<'a>,
    /// Log-ratios `log pi - log pi_ref`; `log pi` itself where the loss has no reference.
    pub logratios: PairLogps,
    /// Log-ratios under the f-divergence; equal to them under reverse KL.
    pub scores: PairLogps,
}

impl Terms<'_> {
    /// Chosen minus rejected score, `[B]`.
    pub fn delta(&self) -> Tensor {
        &self.scores.chosen - &self.scores.rejected
    }

    /// Chosen minus rejected score, each divided by its response's tokens, `[B]`.
    pub fn mean_delta(&self) -> Tensor {
        &self.scores.chosen / &self.lengths().chosen - &self.scores.rejected / &self.lengths().rejected
    }

    /// Log-ratios divided by their responses' tokens.
    pub fn mean_logratios(&self) -> PairLogps {
        PairLogps {
            chosen: &self.logratios.chosen / &self.lengths().chosen,
            rejected: &self.logratios.rejected / &self.lengths().rejected,
        }
    }

    /// Tokens of the responses, for a formula that says it needs them.
    pub fn lengths(&self) -> &PairLengths {
        self.pairs.lengths.expect("checked before a formula with Need::Lengths is computed")
    }

    /// Log-probabilities under the reference, for a formula that says it needs them.
    pub fn reference(&self) -> &PairLogps {
        self.pairs.reference.expect("checked before a formula with Need::Reference is computed")
    }

    /// Probability that each label is right, for a formula that says it needs it.
    pub fn label_probs(&self) -> &Tensor {
        self.pairs.label_probs.expect("checked before a formula with Need::LabelProbs is computed")
    }
}

/// `ln(1 + e^x)`, finite for every x: `-ln sigmoid(x) = softplus(-x)`.
pub(crate) fn softplus(x: &Tensor) -> Tensor {
    -(-x).log_sigmoid()
}

/// `label_smoothing`, the probability that a label is wrong.
pub(crate) const LABEL_SMOOTHING: Constant = Constant {
    name: "label_smoothing",
    default: Some(0.0),
    expected: "from 0 to below 0.5",
    accepts: |x| (0.0..0.5).contains(&x),
};
