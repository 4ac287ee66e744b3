//! Statistics of a pair's forward pass, from which the metrics of an update are computed.

use crate::sides::Sides;

/// Statistics of one pair in one forward pass.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct PairStats {
    /// Loss of the pair. The loss of an update is the sum over its pairs times [`crate::Learner::weight`].
    pub loss: f64,
    /// Reward of each response: `beta * (log pi - log pi_ref)` under a policy, the score under a reward model.
    pub rewards: Sides<f64>,
    /// Log-probability of each response under the policy in nats, summed over its tokens.
    pub logps: Sides<f64>,
    /// Log-probability of each response under the reference in nats; none without a reference.
    pub reference_logps: Option<Sides<f64>>,
    /// Token statistics of each response; zeros if they were not requested.
    pub tokens: Sides<TokenSums>,
}

impl PairStats {
    /// Chosen reward minus rejected reward.
    pub fn margin(&self) -> f64 {
        self.rewards.chosen - self.rewards.rejected
    }
}

/// Sums over the scored tokens of a response.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct TokenSums {
    /// Number of tokens.
    pub count: f64,
    /// Sum of the mean logit over the vocabulary.
    pub logits: f64,
    /// Sum of the entropy of the next-token distribution, nats.
    pub entropy: f64,
    /// Number of tokens that were the most likely one.
    pub top1: f64,
}
