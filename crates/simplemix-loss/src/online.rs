//! HyPO's KL term, which needs the policy's own samples, and the loss of a reward model.
//!
//! Letters: P prompts, k samples of each, B pairs.

use tch::{Kind, Tensor};

use crate::check::finite;
use crate::error::{Error, Result};
use crate::formula::softplus;
use crate::inputs::Checks;

/// A score-function term: a surrogate to differentiate, and an estimate to log.
#[derive(Debug)]
pub struct ScoreTerm {
    /// Scalar whose gradient is that of the term. Only its gradient has a meaning.
    pub surrogate: Tensor,
    /// Unbiased estimate of the minimised quantity, nats, without gradient.
    pub estimate: f64,
}

/// HyPO's `KL(policy || reference)` from the policy's own samples: Song et al. 2024 (arXiv:2406.01462).
///
/// The gradient is `E[(R_i - b_i) grad ln pi(y_i)]` with the whole response's log-ratio `R_i` and the leave-one-out
/// mean `b_i` of the prompt's other samples (RLOO), 0 for a single sample. Multiplying each token's log-ratio by the same
/// token's log-probability, as is sometimes done, does not give the gradient of the sequences' divergence.
///
/// # Shapes
/// `policy`, `reference` `[P, k]`: summed log-probabilities of samples drawn from the policy at temperature 1; gradients
/// flow into `policy`. `clip` bounds `|R_i|`; the paper has no bound.
///
/// # Errors
/// [`Error::Shape`], [`Error::NonFinite`], [`Error::Setting`] if `clip` is not above 0.
///
/// # Examples
/// ```
/// use tch::{Kind, Tensor};
/// let policy = Tensor::from_slice(&[-1.0, -3.0]).view([1, 2]).set_requires_grad(true);
/// let reference = Tensor::from_slice(&[-2.0, -2.0]).view([1, 2]);
/// let term = simplemix_loss::kl_from_samples(&policy, &reference, None)?;
/// assert_eq!(term.estimate, 0.0); // log-ratios 1 and -1
/// term.surrogate.backward();
/// assert_eq!(policy.grad().double_value(&[0, 0]), 1.0); // (1 - (-1)) / 2
/// # Ok::<(), simplemix_loss::Error>(())
/// ```
pub fn kl_from_samples(policy: &Tensor, reference: &Tensor, clip: Option<f64>) -> Result<ScoreTerm> {
    let (_, k) = matrix("policy", policy, None)?;
    matrix("reference", reference, Some(policy))?;
    let mut ratios = (policy - reference).detach();
    let estimate = ratios.mean(Kind::Double).double_value(&[]);
    if let Some(clip) = clip {
        if clip.is_nan() || clip <= 0.0 {
            let expected = "a number above 0".to_owned();
            return Err(Error::Setting { key: "clip".to_owned(), found: clip.to_string(), expected });
        }
        ratios = ratios.clamp(-clip, clip);
    }
    Ok(ScoreTerm { surrogate: (advantages(&ratios, k) * policy).mean(policy.kind()), estimate })
}

/// Loss of a reward model, `softplus(-(r_w - r_l - margin)) + c (r_w + r_l)^2`: Bradley-Terry, with Llama 2's margin
/// (arXiv:2307.09288) and the centring of Eisenstein et al. 2023 (arXiv:2312.09244). TRL's `RewardTrainer`.
///
/// `chosen`, `rejected`: rewards, `[B]`; `margin`: smallest difference aimed at, `[B]`; `center`: coefficient `c` of the
/// centring term, 0 or above; `checks`: whether the host waits to look for NaN. Returns `[B]`.
///
/// # Errors
/// [`Error::Shape`], [`Error::NonFinite`], [`Error::Setting`].
///
/// ```
/// use simplemix_loss::Checks;
/// use tch::Tensor;
/// let v = |x: f64| Tensor::from_slice(&[x]);
/// // 3 - 1 - 1 = 1, and 0.01 * 4^2.
/// let loss = simplemix_loss::bradley_terry(&v(3.0), &v(1.0), Some(&v(1.0)), 0.01, Checks::Now)?;
/// assert!((loss.double_value(&[0]) - 0.473262).abs() < 1e-6);
/// # Ok::<(), simplemix_loss::Error>(())
/// ```
pub fn bradley_terry(
    chosen: &Tensor,
    rejected: &Tensor,
    margin: Option<&Tensor>,
    center: f64,
    checks: Checks,
) -> Result<Tensor> {
    let len = chosen.numel() as i64;
    for (name, vector) in [("chosen", Some(chosen)), ("rejected", Some(rejected)), ("margin", margin)] {
        if let Some(vector) = vector {
            crate::check::float_vector(name, vector, len)?;
            if checks == Checks::Now {
                finite(name, vector)?;
            }
        }
    }
    if !(center.is_finite() && center >= 0.0) {
        let expected = "a number >= 0".to_owned();
        return Err(Error::Setting { key: "center".to_owned(), found: center.to_string(), expected });
    }
    let short = margin.map_or_else(|| rejected - chosen, |margin| rejected - chosen + margin);
    Ok(softplus(&short) + (chosen + rejected).square() * center)
}

/// Values minus the mean of the other values in their row.
fn advantages(values: &Tensor, k: i64) -> Tensor {
    if k == 1 {
        return values.shallow_clone();
    }
    let sum = values.sum_dim_intlist([1i64].as_slice(), true, values.kind());
    values - (sum - values) / (k - 1) as f64
}

/// Numbers of prompts and samples, if `tensor` is a matrix of finite numbers with the shape of `like`.
fn matrix(name: &'static str, tensor: &Tensor, like: Option<&Tensor>) -> Result<(i64, i64)> {
    let found = || format!("{:?} {:?}", tensor.kind(), tensor.size());
    let shape = tensor.size2().ok().filter(|(p, k)| *p > 0 && *k > 0 && crate::check::is_float(tensor.kind()));
    let Some(shape) = shape else {
        return Err(Error::Shape { name, found: found(), expected: "a float matrix [P, k]".to_owned() });
    };
    if let Some(like) = like.filter(|like| like.size() != tensor.size()) {
        return Err(Error::Shape { name, found: found(), expected: format!("{:?}, like the policy", like.size()) });
    }
    finite(name, tensor)?;
    Ok(shape)
}
