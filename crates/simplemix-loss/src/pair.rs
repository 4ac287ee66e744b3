//! Log-probabilities of pairs, what a loss takes, and what it gives. Letters: B pairs.

use tch::Tensor;

use crate::check::{finite, float_vector};
use crate::error::{Error, Result};

/// Summed log-probabilities of the two responses of each pair, nats.
#[derive(Debug)]
pub struct PairLogps {
    /// Of the chosen responses, `[B]`.
    pub chosen: Tensor,
    /// Of the rejected responses, `[B]`.
    pub rejected: Tensor,
}

/// Tokens of the two responses of each pair, end-of-text tokens included.
#[derive(Debug)]
pub struct PairLengths {
    /// Of the chosen responses, `[B]`, float.
    pub chosen: Tensor,
    /// Of the rejected responses, `[B]`, float.
    pub rejected: Tensor,
}

/// All that a loss may look at. Most need only the first three fields.
#[derive(Debug, Clone, Copy)]
pub struct Pairs<'a> {
    /// Log-probabilities under the policy; gradients flow into them.
    pub policy: &'a PairLogps,
    /// Under the reference; none for reference-free losses.
    pub reference: Option<&'a PairLogps>,
    /// Tokens of the responses, for losses on means.
    pub lengths: Option<&'a PairLengths>,
    /// Probability that the chosen response is the better one, `[B]`, in [0, 1], for soft labels.
    pub label_probs: Option<&'a Tensor>,
    /// Factor of each pair's loss, `[B]`, such as [`crate::wpo_weights`].
    pub weights: Option<&'a Tensor>,
    /// Running mean of rewards, for `bco_pair`: see [`crate::RewardMean`]. 0 as in TRL from 1.0 on.
    pub reward_shift: f64,
}

/// Loss and implicit rewards of each pair; nothing is reduced.
#[derive(Debug)]
pub struct LossOutput {
    /// Loss, `[B]`; gradients flow to the policy's log-probabilities.
    pub loss: Tensor,
    /// `beta * (log pi - log pi_ref)` of the chosen responses, `[B]`, without gradient; of `log pi` alone where a loss
    /// has no reference.
    pub chosen_rewards: Tensor,
    /// The same of the rejected responses, `[B]`.
    pub rejected_rewards: Tensor,
}

impl PairLogps {
    /// Pairs out of responses that alternate: chosen, rejected, chosen, rejected.
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
    /// Lengths out of responses that alternate: chosen, rejected, chosen, rejected.
    ///
    /// # Errors
    /// [`Error::Shape`] unless `lengths` is `[2 B]`.
    pub fn from_alternating(lengths: &Tensor) -> Result<Self> {
        let PairLogps { chosen, rejected } = PairLogps::from_alternating(lengths)?;
        Ok(Self { chosen, rejected })
    }
}

impl<'a> Pairs<'a> {
    /// Pairs with nothing but the policy's log-probabilities.
    pub fn new(policy: &'a PairLogps) -> Self {
        Self { policy, reference: None, lengths: None, label_probs: None, weights: None, reward_shift: 0.0 }
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
        vectors.extend(self.label_probs.map(|probs| ("label_probs", probs)));
        vectors.extend(self.weights.map(|weights| ("weights", weights)));
        for (name, vector) in vectors {
            float_vector(name, vector, len)?;
            finite(name, vector)?;
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
                in_range("lengths.chosen", &lengths.chosen, 1.0, f64::MAX, "at least one token a response")?;
                in_range("lengths.rejected", &lengths.rejected, 1.0, f64::MAX, "at least one token a response")?;
            }
            if let Some(probs) = self.label_probs {
                in_range("label_probs", probs, 0.0, 1.0, "from 0 to 1")?;
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

    /// The pairs of all parts, one after the other.
    pub(crate) fn join(parts: &[Self]) -> Self {
        let cat = |of: fn(&Self) -> &Tensor| Tensor::cat(&parts.iter().map(of).collect::<Vec<_>>(), 0);
        Self {
            loss: cat(|part| &part.loss),
            chosen_rewards: cat(|part| &part.chosen_rewards),
            rejected_rewards: cat(|part| &part.rejected_rewards),
        }
    }
}
