//! Log-probabilities of pairs, and inputs and output of a loss. Letters: B pairs.

use tch::Tensor;

use crate::check::{finite, float_vector};
use crate::error::{Error, Result};
use crate::inputs::Checks;

/// Summed log-probabilities of the two responses of each pair, nats.
#[derive(Debug)]
pub struct PairLogps {
    /// Chosen responses, `[B]`.
    pub chosen: Tensor,
    /// Rejected responses, `[B]`.
    pub rejected: Tensor,
}

/// Lengths of the two responses of each pair in tokens, end-of-text tokens included.
#[derive(Debug)]
pub struct PairLengths {
    /// Chosen responses, `[B]`, float.
    pub chosen: Tensor,
    /// Rejected responses, `[B]`, float.
    pub rejected: Tensor,
}

/// Quantile rewards of the two responses of each pair: the share of the reference's rewards that each reaches, see
/// [`quantile_reward`](crate::losses::quantile::quantile_reward).
#[derive(Debug)]
pub struct PairQuantiles {
    /// Chosen responses, `[B]`, in [0, 1].
    pub chosen: Tensor,
    /// Rejected responses, `[B]`, in [0, 1].
    pub rejected: Tensor,
}

/// Inputs of a loss. Most losses need only the first three fields.
#[derive(Debug, Clone, Copy)]
pub struct Pairs<'a> {
    /// Log-probabilities under the policy; gradients flow into them.
    pub policy: &'a PairLogps,
    /// Log-probabilities under the reference; `None` for reference-free losses.
    pub reference: Option<&'a PairLogps>,
    /// Lengths of the responses, for losses on means.
    pub lengths: Option<&'a PairLengths>,
    /// Probability that the chosen response is the better one, `[B]`, in [0, 1], for soft labels.
    pub label_probs: Option<&'a Tensor>,
    /// Quantile rewards of the responses, for losses of rewards.
    pub quantiles: Option<&'a PairQuantiles>,
    /// Factor of each pair's loss, `[B]`, such as [`crate::wpo_weights`].
    pub weights: Option<&'a Tensor>,
    /// Time of the checks for NaN, infinity and ranges.
    pub checks: Checks,
}

/// An input that not every loss needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Log-probabilities under a reference.
    Reference,
    /// Lengths of the responses in tokens.
    Lengths,
    /// Probability that each pair's label is right.
    LabelProbs,
    /// Quantile rewards of the responses.
    Quantiles,
}

impl Need {
    /// Phrase for error messages.
    pub(crate) fn phrase(self) -> &'static str {
        match self {
            Self::Reference => "a reference",
            Self::Lengths => "the responses' lengths",
            Self::LabelProbs => "label probabilities",
            Self::Quantiles => "the responses' quantile rewards",
        }
    }
}

/// Loss and implicit rewards of each pair, not reduced.
#[derive(Debug)]
pub struct LossOutput {
    /// Loss, `[B]`; gradients flow to the policy's log-probabilities.
    pub loss: Tensor,
    /// Rewards of the chosen responses, `beta * (log pi - log pi_ref)`, or `beta * log pi` without a reference; `[B]`,
    /// without gradient.
    pub chosen_rewards: Tensor,
    /// Rewards of the rejected responses, likewise.
    pub rejected_rewards: Tensor,
}

impl PairLogps {
    /// Splits responses that alternate: chosen, rejected, chosen, rejected.
    ///
    /// # Errors
    /// [`Error::Shape`] unless `logps` is `[2 B]`.
    pub fn from_alternating(logps: &Tensor) -> Result<Self> {
        match logps.size()[..] {
            [n] if n % 2 == 0 => {
                let pairs = logps.view([-1, 2]);
                Ok(Self { chosen: pairs.select(1, 0), rejected: pairs.select(1, 1) })
            }
            _ => {
                Err(Error::Shape { name: "logps", found: format!("{:?}", logps.size()), expected: "[2 B]".to_owned() })
            }
        }
    }

    /// Pairs `start..start + len`.
    pub(crate) fn narrow(&self, start: i64, len: i64) -> Self {
        Self { chosen: self.chosen.narrow(0, start, len), rejected: self.rejected.narrow(0, start, len) }
    }
}

impl PairLengths {
    /// Splits lengths of responses that alternate: chosen, rejected, chosen, rejected.
    ///
    /// # Errors
    /// [`Error::Shape`] unless `lengths` is `[2 B]`.
    pub fn from_alternating(lengths: &Tensor) -> Result<Self> {
        let PairLogps { chosen, rejected } = PairLogps::from_alternating(lengths)?;
        Ok(Self { chosen, rejected })
    }
}

impl PairQuantiles {
    /// Pairs `start..start + len`.
    pub(crate) fn narrow(&self, start: i64, len: i64) -> Self {
        Self { chosen: self.chosen.narrow(0, start, len), rejected: self.rejected.narrow(0, start, len) }
    }
}

impl<'a> Pairs<'a> {
    /// Pairs with the policy's log-probabilities alone.
    pub fn new(policy: &'a PairLogps) -> Self {
        Self {
            policy,
            reference: None,
            lengths: None,
            label_probs: None,
            quantiles: None,
            weights: None,
            checks: Checks::Now,
        }
    }

    /// Whether an input is there.
    pub(crate) fn has(&self, need: Need) -> bool {
        match need {
            Need::Reference => self.reference.is_some(),
            Need::Lengths => self.lengths.is_some(),
            Need::LabelProbs => self.label_probs.is_some(),
            Need::Quantiles => self.quantiles.is_some(),
        }
    }

    /// Number of pairs, if all vectors agree on it and are finite.
    pub(crate) fn check(&self) -> Result<i64> {
        let len = self.policy.chosen.numel() as i64;
        let mut vectors = vec![("policy.chosen", &self.policy.chosen), ("policy.rejected", &self.policy.rejected)];
        if let Some(reference) = self.reference {
            vectors.extend([("reference.chosen", &reference.chosen), ("reference.rejected", &reference.rejected)]);
        }
        if let Some(lengths) = self.lengths {
            vectors.extend([("lengths.chosen", &lengths.chosen), ("lengths.rejected", &lengths.rejected)]);
        }
        if let Some(quantiles) = self.quantiles {
            vectors.extend([("quantiles.chosen", &quantiles.chosen), ("quantiles.rejected", &quantiles.rejected)]);
        }
        vectors.extend(self.label_probs.map(|probs| ("label_probs", probs)));
        vectors.extend(self.weights.map(|weights| ("weights", weights)));
        for (name, vector) in vectors {
            float_vector(name, vector, len)?;
            if self.checks == Checks::Now {
                finite(name, vector)?;
            }
        }
        if self.checks == Checks::Later {
            return Ok(len);
        }
        let in_range = |name: &'static str, vector: &Tensor, low: f64, high: f64, expected: &str| {
            let (least, most) = (vector.min().double_value(&[]), vector.max().double_value(&[]));
            if least < low || most > high {
                let found = format!("{least} to {most}");
                return Err(Error::Shape { name, found, expected: expected.to_owned() });
            }
            Ok(())
        };
        if len > 0 {
            if let Some(lengths) = self.lengths {
                in_range("lengths.chosen", &lengths.chosen, 1.0, f64::MAX, "at least one token per response")?;
                in_range("lengths.rejected", &lengths.rejected, 1.0, f64::MAX, "at least one token per response")?;
            }
            if let Some(probs) = self.label_probs {
                in_range("label_probs", probs, 0.0, 1.0, "from 0 to 1")?;
            }
            if let Some(quantiles) = self.quantiles {
                in_range("quantiles.chosen", &quantiles.chosen, 0.0, 1.0, "from 0 to 1")?;
                in_range("quantiles.rejected", &quantiles.rejected, 0.0, 1.0, "from 0 to 1")?;
            }
        }
        Ok(len)
    }
}

impl LossOutput {
    /// Chosen minus rejected reward, `[B]`.
    pub fn margins(&self) -> Tensor {
        &self.chosen_rewards - &self.rejected_rewards
    }

    /// Concatenates the pairs of all parts.
    pub(crate) fn join(parts: &[Self]) -> Self {
        let cat = |of: fn(&Self) -> &Tensor| Tensor::cat(&parts.iter().map(of).collect::<Vec<_>>(), 0);
        Self {
            loss: cat(|part| &part.loss),
            chosen_rewards: cat(|part| &part.chosen_rewards),
            rejected_rewards: cat(|part| &part.rejected_rewards),
        }
    }
}
