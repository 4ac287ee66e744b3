//! Log-probabilities of pairs, and what a loss makes of them. Letters: B pairs.

use tch::{Kind, Tensor};

use crate::error::{Error, Result};

/// Summed log-probabilities of the two responses of each pair, nats.
#[derive(Debug)]
pub struct PairLogps {
    /// Of the chosen responses, `[B]`.
    pub chosen: Tensor,
    /// Of the rejected responses, `[B]`.
    pub rejected: Tensor,
}

/// Tokens of the two responses of each pair.
#[derive(Debug)]
pub struct PairLengths {
    /// Of the chosen responses, `[B]`.
    pub chosen: Tensor,
    /// Of the rejected responses, `[B]`.
    pub rejected: Tensor,
}

/// Loss and implicit rewards of each pair; nothing is reduced.
#[derive(Debug)]
pub struct LossOutput {
    /// Loss, `[B]`; gradients flow to the policy's log-probabilities.
    pub loss: Tensor,
    /// `beta * (log pi - log pi_ref)` of the chosen responses, `[B]`, without gradient.
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
}

impl LossOutput {
    /// Chosen minus rejected reward, `[B]`.
    pub fn margins(&self) -> Tensor {
        &self.chosen_rewards - &self.rejected_rewards
    }
}

/// Number of pairs B, if all vectors agree on it.
pub(crate) fn check_vectors(vectors: &[(&'static str, &Tensor)]) -> Result<i64> {
    let expected = vectors[0].1.size();
    for (name, vector) in vectors {
        if vector.dim() != 1 || vector.size() != expected || !is_float(vector.kind()) {
            return Err(Error::Shape {
                name,
                found: format!("{:?} {:?}", vector.kind(), vector.size()),
                expected: format!("a float vector of {expected:?}"),
            });
        }
    }
    Ok(expected[0])
}

/// Whether `kind` holds fractions.
fn is_float(kind: Kind) -> bool {
    matches!(kind, Kind::Float | Kind::Double | Kind::Half | Kind::BFloat16)
}
