//! Scored positions, and how to score them. Letters: N scored positions, S responses.

use tch::Tensor;

/// Scored positions: the token that each one predicts, and the response that the token belongs to.
#[derive(Debug)]
pub struct Positions {
    /// Token that the position predicts, `[N]`, Int64.
    pub targets: Tensor,
    /// Response that the token belongs to, `[N]`, Int64, from 0 to S - 1.
    pub owners: Tensor,
    /// Number of responses S.
    pub responses: i64,
}

/// Statistics of each token to take from its logits while they are in memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TokenStats {
    /// Mean logit over the vocabulary.
    pub mean_logit: bool,
    /// Entropy of the next-token distribution, nats.
    pub entropy: bool,
    /// Whether the target is the most likely token (on an exact tie: one of them).
    pub top1: bool,
    /// `ln sum p^2` over the vocabulary, which WPO needs.
    pub log_sum_sq_probs: bool,
}

/// Options of scoring. A plain number of bytes converts to a budget with nothing else set.
#[derive(Debug, Clone, Copy, Default)]
pub struct ScoreOptions<'a> {
    /// Bytes of logits held at a time, though always at least one row. `None`: on a CPU a 64th of the available memory,
    /// within 64 MiB and 1 GiB; on a GPU 1 GiB.
    pub budget: Option<usize>,
    /// Statistics of each token to report.
    pub stats: TokenStats,
    /// Factors of the tokens' log-probabilities in their response's sum, `[N]`, such as [`crate::ld_token_weights`].
    pub token_weights: Option<&'a Tensor>,
}

impl Positions {
    /// Tokens of each response, `[S]`, Int64.
    pub fn counts(&self) -> Tensor {
        self.owners.bincount::<Tensor>(None, self.responses)
    }
}

impl From<usize> for ScoreOptions<'_> {
    fn from(budget: usize) -> Self {
        Self { budget: Some(budget), ..Self::default() }
    }
}
