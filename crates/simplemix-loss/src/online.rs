//! Terms that need the policy's own samples: HyPO's KL, XPO's optimism, Nash-MD; and a reward model's loss.
//!
//! Letters: P prompts, k samples of each, B pairs.

use tch::{Kind, Tensor};

use crate::check::finite;
use crate::error::{Error, Result};
use crate::formula::softplus;

/// A score-function term: what to differentiate, and what to log.
#[derive(Debug)]
pub struct ScoreTerm {
    /// Scalar whose gradient is the term's; its value means nothing.
    pub surrogate: Tensor,
    /// Unbiased estimate of what is being minimised, nats; no gradient.
    pub estimate: f64,
}

/// HyPO's `KL(policy || reference)` from the policy's own samples: Song et al. 2024 (arXiv:2406.01462).
///
/// The gradient is `E[(R_i - b_i) grad ln pi(y_i)]` with the whole response's log-ratio `R_i` and the leave-one-out
/// mean `b_i` of the prompt's other samples (RLOO), 0 if there is one sample only. Multiplying each token's log-ratio
/// with the same token's log-probability, as is sometimes done, is not the gradient of the sequences' divergence.
///
/// # Shapes
/// `policy`, `reference` `[P, k]`: summed log-probabilities of samples drawn from the policy at temperature 1; gradients
/// flow into `policy`. `clip` bounds `|R_i|`, none in the paper.
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

/// Nash-MD: samples that the mixture of policy and reference loses to are made likelier, `-E[(p_i - 1/2) ln pi(y_i)] +
/// beta KL(policy || reference)`. Munos et al. 2023 (arXiv:2312.00886).
///
/// `win_probs` `[P, k]` in [0, 1]: probability that the sample beats the opponent's. The KL part is that of
/// [`kl_from_samples`], on whole responses; `beta` 0 or above, 0.1 in TRL.
///
/// # Errors
/// As [`kl_from_samples`].
///
/// ```
/// use tch::Tensor;
/// let v = |x: f64| Tensor::from_slice(&[x]).view([1, 1]);
/// let policy = v(-1.0).set_requires_grad(true);
/// simplemix_loss::nash_md(&policy, &v(-1.0), &v(0.75), 0.1)?.surrogate.backward();
/// assert_eq!(policy.grad().double_value(&[0, 0]), -0.25);
/// # Ok::<(), simplemix_loss::Error>(())
/// ```
pub fn nash_md(policy: &Tensor, reference: &Tensor, win_probs: &Tensor, beta: f64) -> Result<ScoreTerm> {
    matrix("win_probs", win_probs, Some(policy))?;
    if !(beta.is_finite() && beta >= 0.0) {
        let expected = "a number, 0 or above".to_owned();
        return Err(Error::Setting { key: "beta".to_owned(), found: beta.to_string(), expected });
    }
    let kl = kl_from_samples(policy, reference, None)?;
    let lead = win_probs.detach() - 0.5;
    let estimate = beta * kl.estimate - lead.mean(Kind::Double).double_value(&[]);
    Ok(ScoreTerm { surrogate: kl.surrogate * beta - (lead * policy).mean(policy.kind()), estimate })
}

/// XPO's optimism, `alpha ln pi(y_ref)`, to add to the DPO loss of online pairs: Xie et al. 2024, algorithm 1
/// (arXiv:2405.21046).
///
/// `policy` `[B]`: the policy's log-probabilities of responses that the reference wrote; `alpha` 0 or above, 1e-5 in
/// TRL. Gives `[B]`.
///
/// # Errors
/// [`Error::Setting`], [`Error::NonFinite`].
///
/// ```
/// let term = simplemix_loss::xpo_optimism(&tch::Tensor::from_slice(&[-20.0]), 0.01)?;
/// assert!((term.double_value(&[0]) + 0.2).abs() < 1e-12);
/// # Ok::<(), simplemix_loss::Error>(())
/// ```
pub fn xpo_optimism(policy: &Tensor, alpha: f64) -> Result<Tensor> {
    if !(alpha.is_finite() && alpha >= 0.0) {
        let expected = "a number, 0 or above".to_owned();
        return Err(Error::Setting { key: "alpha".to_owned(), found: alpha.to_string(), expected });
    }
    finite("policy", policy)?;
    Ok(policy * alpha)
}

/// Loss of a reward model, `softplus(-(r_w - r_l - margin)) + c (r_w + r_l)^2`: Bradley-Terry, with Llama 2's margin
/// (arXiv:2307.09288) and the centring of Eisenstein et al. 2023 (arXiv:2312.09244). TRL's `RewardTrainer`.
///
/// `chosen`, `rejected` rewards `[B]`; `margin` `[B]`, wanted at least; `center` 0 or above, 0 for none. Gives `[B]`.
///
/// # Errors
/// [`Error::Shape`], [`Error::NonFinite`], [`Error::Setting`].
///
/// ```
/// use tch::Tensor;
/// let v = |x: f64| Tensor::from_slice(&[x]);
/// // 3 - 1 - 1 = 1, and 0.01 * 4^2.
/// let loss = simplemix_loss::bradley_terry(&v(3.0), &v(1.0), Some(&v(1.0)), 0.01)?;
/// assert!((loss.double_value(&[0]) - 0.473262).abs() < 1e-6);
/// # Ok::<(), simplemix_loss::Error>(())
/// ```
pub fn bradley_terry(chosen: &Tensor, rejected: &Tensor, margin: Option<&Tensor>, center: f64) -> Result<Tensor> {
    let len = chosen.numel() as i64;
    for (name, vector) in [("chosen", Some(chosen)), ("rejected", Some(rejected)), ("margin", margin)] {
        if let Some(vector) = vector {
            crate::check::float_vector(name, vector, len)?;
            finite(name, vector)?;
        }
    }
    if !(center.is_finite() && center >= 0.0) {
        let expected = "a number, 0 or above".to_owned();
        return Err(Error::Setting { key: "center".to_owned(), found: center.to_string(), expected });
    }
    let short = margin.map_or_else(|| rejected - chosen, |margin| rejected - chosen + margin);
    Ok(softplus(&short) + (chosen + rejected).square() * center)
}

/// Values minus the mean of their row's others.
fn advantages(values: &Tensor, k: i64) -> Tensor {
    if k == 1 {
        return values.shallow_clone();
    }
    let sum = values.sum_dim_intlist([1i64].as_slice(), true, values.kind());
    values - (sum - values) / (k - 1) as f64
}

/// Prompts and samples, if `tensor` is a matrix of finite numbers, as large as `like`.
fn matrix(name: &'static str, tensor: &Tensor, like: Option<&Tensor>) -> Result<(i64, i64)> {
    let found = || format!("{:?} {:?}", tensor.kind(), tensor.size());
    let shape = tensor.size2().ok().filter(|(p, k)| *p > 0 && *k > 0 && crate::check::is_float(tensor.kind()));
    let Some(shape) = shape else {
        return Err(Error::Shape { name, found: found(), expected: "a float matrix [P, k]".to_owned() });
    };
    if let Some(like) = like.filter(|like| like.size() != tensor.size()) {
        return Err(Error::Shape { name, found: found(), expected: format!("{:?}, as the policy", like.size()) });
    }
    finite(name, tensor)?;
    Ok(shape)
}
