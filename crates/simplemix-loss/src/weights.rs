//! Weights of pairs (WPO) and of tokens (LD-DPO). Letters: B pairs, N scored positions.

use std::fmt;

use serde::{Deserialize, Serialize};
use simplemix_torch::device::to_device;
use tch::{Device, Tensor};

use crate::check::float_vector;
use crate::error::{Error, Result};
use crate::inputs::Positions;
use crate::pair::PairLogps;

/// Weighting of pairs by WPO: Zhou et al. 2024, eq. 2 (arXiv:2406.11827).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wpo {
    /// Weight `min(1, w_w w_l)`: the authors' code and TRL 0.24.
    Capped,
    /// Weight `w_w w_l`: TRL from 1.0 on.
    Uncapped,
}

impl fmt::Display for Wpo {
    /// Writes the name that settings use.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Capped => "capped",
            Self::Uncapped => "uncapped",
        })
    }
}

/// Weight of each pair by how likely the policy is to write its responses, `[B]`, without gradient.
///
/// `w(y) = exp(mean over y's tokens of [ln p(token) - ln sum p^2])`, on average 1 for a response sampled from the policy.
/// The vectors are [`crate::Scores::token_logps`] and [`crate::Scores::log_sum_sq_probs`], `[N]`; responses alternate:
/// chosen, rejected.
///
/// # Errors
/// [`Error::Shape`] if the vectors differ in length or responses are not in pairs.
///
/// # Examples
/// ```
/// use simplemix_loss::{Positions, Wpo, wpo_weights};
/// use tch::Tensor;
/// // One token per response, both of probability 1/2; squared probabilities sum to 1/4 and to 1: weights 2 and 1/2.
/// let positions = Positions::new(&[0, 0], &[0, 1], 2, tch::Device::Cpu)?;
/// let token_logps = Tensor::from_slice(&[0.5f64.ln(), 0.5f64.ln()]);
/// let weights = wpo_weights(Wpo::Capped, &positions, &token_logps, &Tensor::from_slice(&[0.25f64.ln(), 0.0]))?;
/// assert!((weights.double_value(&[0]) - 1.0).abs() < 1e-12);
/// # Ok::<(), simplemix_loss::Error>(())
/// ```
pub fn wpo_weights(wpo: Wpo, positions: &Positions, token_logps: &Tensor, log_sum_sq_probs: &Tensor) -> Result<Tensor> {
    let _guard = tch::no_grad_guard();
    let rows = positions.rows();
    float_vector("token_logps", token_logps, rows)?;
    float_vector("log_sum_sq_probs", log_sum_sq_probs, rows)?;
    let kind = token_logps.kind();
    let sums = Tensor::zeros([positions.responses()], (kind, token_logps.device()));
    let sums = sums.index_add(0, positions.owners(), &(token_logps - log_sum_sq_probs));
    let means = sums / positions.lengths(kind);
    let PairLogps { chosen, rejected } = PairLogps::from_alternating(&means)?;
    let weights = chosen + rejected;
    Ok(match wpo {
        Wpo::Capped => weights.clamp_max(0.0).exp(),
        Wpo::Uncapped => weights.exp(),
    })
}

/// Weight of each token in LD-DPO, `[N]`, f64: 1 up to the shorter response's length, `alpha` beyond it. Liu et al.
/// 2024 (arXiv:2409.06411).
///
/// Use it as [`crate::ScoreOptions::token_weights`]. `alpha` in [0, 1]: 1 is plain DPO, 0 ignores the tokens beyond. TRL
/// from 1.0 on weights policy and reference, 0.24 only the policy. Each response's positions must be in reading order;
/// responses alternate: chosen, rejected.
///
/// # Errors
/// [`Error::Setting`] for another `alpha`, [`Error::Shape`] if responses are not in pairs, [`Error::Index`].
///
/// # Examples
/// ```
/// use simplemix_loss::{Positions, ld_token_weights};
/// use tch::Tensor;
/// let positions = Positions::new(&[0; 4], &[0, 0, 0, 1], 2, tch::Device::Cpu)?;
/// let weights = ld_token_weights(&positions, 0.5)?;
/// assert_eq!(Vec::<f64>::try_from(weights).unwrap(), [1.0, 0.5, 0.5, 1.0]);
/// # Ok::<(), simplemix_loss::Error>(())
/// ```
pub fn ld_token_weights(positions: &Positions, alpha: f64) -> Result<Tensor> {
    if !(0.0..=1.0).contains(&alpha) {
        let expected = "a number from 0 to 1".to_owned();
        return Err(Error::Setting { key: "ld_alpha".to_owned(), found: alpha.to_string(), expected });
    }
    let counts = positions.counts();
    if counts.len() % 2 == 1 {
        return Err(Error::Shape {
            name: "positions",
            found: format!("{} responses", counts.len()),
            expected: "pairs".to_owned(),
        });
    }
    let mut seen = vec![0; counts.len()];
    let weight = |&owner: &i64| {
        let owner = owner as usize;
        seen[owner] += 1;
        // The other response of the pair differs in the last bit of its number.
        if seen[owner] <= counts[owner].min(counts[owner ^ 1]) { 1.0 } else { alpha }
    };
    let weights: Vec<f64> = positions.owner_of().iter().map(weight).collect();
    let weights = Tensor::from_slice(&weights);
    match positions.targets().device() {
        Device::Cpu => Ok(weights),
        device => Ok(to_device(&weights, device)?),
    }
}
