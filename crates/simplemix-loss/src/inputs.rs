//! What is scored, and how. Letters: N scored positions, H width, V vocabulary, S responses.

use tch::Tensor;

use crate::check::{finite, float_vector, indices, is_float};
use crate::error::{Error, Result};
use crate::gemm::accumulator;
use crate::head::Head;
use crate::workspace::default_budget;

/// What is scored: for each position a token, and the response it belongs to.
#[derive(Debug)]
pub struct Positions {
    /// Token that the position predicts, `[N]`, Int64.
    pub targets: Tensor,
    /// Response it belongs to, `[N]`, Int64, from 0 to S - 1.
    pub owners: Tensor,
    /// Number of responses S.
    pub responses: i64,
}

/// Which numbers of each token to take from the logits while they are there.
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

/// How to score. A plain number of bytes is a budget without anything else.
#[derive(Debug, Clone, Copy, Default)]
pub struct ScoreOptions<'a> {
    /// Bytes of logits held at a time, but always one row; [`default_budget`] if none is given.
    pub budget: Option<usize>,
    /// What else to report of each token.
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

impl ScoreOptions<'_> {
    /// Rows whose logits fit the budget, at least one.
    pub(crate) fn rows_within(&self, head: &Head<'_>) -> i64 {
        let kind = accumulator(head.weight.kind());
        let budget = self.budget.unwrap_or_else(|| default_budget(head.weight.device()));
        (budget / (head.weight.size()[0] as usize * kind.elt_size_in_bytes())).max(1) as i64
    }
}

impl From<usize> for ScoreOptions<'_> {
    fn from(budget: usize) -> Self {
        Self { budget: Some(budget), ..Self::default() }
    }
}

/// Number of rows, if everything fits together.
pub(crate) fn check(
    head: &Head<'_>,
    hidden: &Tensor,
    positions: &Positions,
    options: &ScoreOptions<'_>,
) -> Result<i64> {
    let refuse = |name, found: String, expected: String| Err(Error::Shape { name, found, expected });
    let (Ok((vocab, width)), Ok((rows, states))) = (head.weight.size2(), hidden.size2()) else {
        let found = format!("{:?} with a head of {:?}", hidden.size(), head.weight.size());
        return refuse("hidden", found, "[N, H] and [V, H]".into());
    };
    if states != width || !is_float(hidden.kind()) || hidden.kind() != head.weight.kind() {
        let expected = format!("{:?} [N, {width}], as the head", head.weight.kind());
        return refuse("hidden", format!("{:?} [{rows}, {states}]", hidden.kind()), expected);
    }
    if rows == 0 {
        return refuse("hidden", "[0, H]".into(), "at least one scored position".into());
    }
    if let Some(bias) = head.bias {
        float_vector("bias", bias, vocab)?;
    }
    if let Some(weights) = options.token_weights {
        float_vector("token_weights", weights, rows)?;
        finite("token_weights", weights)?;
    }
    for (key, value) in [("soft_cap", head.soft_cap.unwrap_or(1.0)), ("scale", head.scale)] {
        if !value.is_finite() || value <= 0.0 {
            let expected = "a number above 0".to_owned();
            return Err(Error::Setting { key: key.into(), found: value.to_string(), expected });
        }
    }
    indices("targets", &positions.targets, rows, vocab)?;
    indices("owners", &positions.owners, rows, positions.responses)?;
    let counts = positions.counts();
    if counts.min().int64_value(&[]) == 0 {
        let response = counts.argmin(0, false).int64_value(&[]);
        return Err(Error::EmptyResponse { response, responses: positions.responses });
    }
    Ok(rows)
}
