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

/// Numbers of a pair's statistics.
pub(crate) const STATS: usize = 16;

impl PairStats {
    /// The statistics as numbers, for other processes.
    pub(crate) fn to_row(self) -> [f64; STATS] {
        let Self { loss, rewards, logps, reference_logps, tokens } = self;
        let known = f64::from(u8::from(reference_logps.is_some()));
        let reference = reference_logps.unwrap_or_default();
        let [chosen, rejected] = [tokens.chosen, tokens.rejected].map(TokenSums::to_row);
        let sides = [rewards, logps, reference].into_iter().flat_map(<[f64; 2]>::from);
        let all = [loss, known].into_iter().chain(sides).chain(chosen).chain(rejected);
        let mut row = [0.0; STATS];
        row.iter_mut().zip(all).for_each(|(to, from)| *to = from);
        row
    }

    /// The statistics of which [`PairStats::to_row`] made a row.
    pub(crate) fn of_row(row: [f64; STATS]) -> Self {
        let sides = |at: usize| Sides { chosen: row[at], rejected: row[at + 1] };
        let tokens = |at: usize| TokenSums::of_row([row[at], row[at + 1], row[at + 2], row[at + 3]]);
        Self {
            loss: row[0],
            rewards: sides(2),
            logps: sides(4),
            reference_logps: (row[1] == 1.0).then(|| sides(6)),
            tokens: Sides { chosen: tokens(8), rejected: tokens(12) },
        }
    }

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

impl TokenSums {
    /// The sums as numbers, for other processes.
    pub(crate) fn to_row(self) -> [f64; 4] {
        [self.count, self.logits, self.entropy, self.top1]
    }

    /// The sums of which [`TokenSums::to_row`] made a row.
    pub(crate) fn of_row([count, logits, entropy, top1]: [f64; 4]) -> Self {
        Self { count, logits, entropy, top1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_their_row_and_back() {
        let tokens = |at: f64| TokenSums { count: at, logits: at + 1.0, entropy: at + 2.0, top1: at + 3.0 };
        let sides = |at: f64| Sides { chosen: at, rejected: at + 0.5 };
        let stats = PairStats {
            loss: 1.0,
            rewards: sides(2.0),
            logps: sides(3.0),
            reference_logps: Some(sides(4.0)),
            tokens: Sides { chosen: tokens(10.0), rejected: tokens(20.0) },
        };
        assert_eq!(PairStats::of_row(stats.to_row()), stats);
        let without = PairStats { reference_logps: None, ..stats };
        assert_eq!(PairStats::of_row(without.to_row()), without);
    }
}
