//! Regression of each response's log-ratio onto the value that its reward gives under the KL-regularised optimum, where rewards are
//! quantiles among those of the reference: QRPO, Matrenok et al. 2025 (arXiv:2507.08068), with the quantile reward as it stands (the
//! paper's identity transform).

use tch::{Kind, Tensor};

use crate::formula::{Coupling, Formula, Rewards, Terms};
use crate::pair::Need;

/// Largest beta of a response in `qrpo_norm`, which Apertus' code sets against large gradients of short responses.
const MOST_BETA_BY_LENGTH: f64 = 0.1;

/// Share of the reference's rewards that `reward` reaches, from 0 to 1: the empirical distribution function, which counts ties as
/// reached. `None` without rewards, or if one of the numbers is NaN.
///
/// ```
/// use simplemix_loss::losses::quantile::quantile_reward;
/// assert_eq!(quantile_reward(0.5, &[0.1, 0.5, 0.7, 0.9]), Some(0.5));
/// assert_eq!(quantile_reward(0.5, &[]), None);
/// ```
pub fn quantile_reward(reward: f64, reference: &[f64]) -> Option<f64> {
    if reference.is_empty() || reward.is_nan() || reference.iter().any(|reward| reward.is_nan()) {
        return None;
    }
    Some(reference.iter().filter(|of_reference| **of_reference <= reward).count() as f64 / reference.len() as f64)
}

/// `beta ln Z` of rewards that are uniform on [0, 1] under the reference: `Z = beta (e^(1/beta) - 1)`. Finite for every `beta`
/// above 0.
///
/// The authors' code has `ln Z = ln beta + 1/beta` (eq. 11), which is the same in double precision for a `beta` below 0.027, and in
/// single precision below 0.06.
///
/// ```
/// use simplemix_loss::losses::quantile::beta_log_partition;
/// let at = |beta: f64| beta_log_partition(&tch::Tensor::from(beta)).double_value(&[]);
/// // ln(e - 1), and 0.003 ln 0.003 + 1.
/// assert!((at(1.0) - 0.541325).abs() < 1e-6 && (at(0.003) - 0.982573).abs() < 1e-6);
/// ```
pub fn beta_log_partition(beta: &Tensor) -> Tensor {
    // ln(e^(1/beta) - 1) = 1/beta + ln(1 - e^(-1/beta)): nothing overflows.
    let rest = (-(beta.reciprocal().neg().exp())).log1p();
    beta * (beta.log() + rest) + 1.0
}

/// QRPO of one response, `(q - beta ln Z - beta s)^2`, with the quantile reward `q` in [0, 1] and the log-ratio `s`: Matrenok et al.
/// 2025, algorithm 1 (arXiv:2507.08068).
///
/// `quantile` and `logratio` are `[B]`, `beta` above 0 is `[B]` or a scalar. The square is 0 where the policy is the optimum: a
/// response of quantile `q` is then `e^(q/beta) / Z` times as likely as under the reference.
///
/// ```
/// use tch::Tensor;
/// use simplemix_loss::losses::quantile::qrpo;
/// // beta ln Z = 0.1 ln(0.1 (e^10 - 1)) = 0.769737, so the target is 0.230263, and beta s is 0.1.
/// let loss = qrpo(&Tensor::from_slice(&[1.0]), &Tensor::from_slice(&[1.0]), &Tensor::from(0.1));
/// assert!((loss.double_value(&[0]) - 0.016968).abs() < 2e-6);
/// ```
pub fn qrpo(logratio: &Tensor, quantile: &Tensor, beta: &Tensor) -> Tensor {
    (quantile - beta_log_partition(beta) - beta * logratio).square()
}

/// Mean loss of the two responses, as in the authors' code.
fn mean(chosen: &Tensor, rejected: &Tensor) -> Tensor {
    (chosen + rejected) * 0.5
}

fn of_sums(t: &Terms<'_>) -> Tensor {
    let (beta, quantiles) = (Tensor::from(t.beta), t.quantiles());
    let chosen = qrpo(&t.logratios.chosen, &quantiles.chosen, &beta);
    mean(&chosen, &qrpo(&t.logratios.rejected, &quantiles.rejected, &beta))
}

/// QRPO with a beta of each response that its length divides.
fn by_length(t: &Terms<'_>) -> Tensor {
    let (lengths, quantiles) = (t.lengths(), t.quantiles());
    let beta = |length: &Tensor, like: &Tensor| {
        (length.to_kind(Kind::Double).reciprocal() * t.beta).clamp_max(MOST_BETA_BY_LENGTH).to_kind(like.kind())
    };
    let side = |logratio: &Tensor, quantile: &Tensor, length: &Tensor| qrpo(logratio, quantile, &beta(length, logratio));
    mean(
        &side(&t.logratios.chosen, &quantiles.chosen, &lengths.chosen),
        &side(&t.logratios.rejected, &quantiles.rejected, &lengths.rejected),
    )
}

const BASE: Formula = Formula {
    name: "",
    aliases: &[],
    constants: &[],
    needs: &[Need::Reference, Need::Quantiles],
    divergences: false,
    coupling: Coupling::Independent,
    rewards: Rewards::Sum,
    value: of_sums,
    // Where policy and reference agree it depends on the quantiles.
    at_reference: None,
};

/// Losses of this family.
pub(crate) const FORMULAS: &[Formula] = &[
    Formula { name: "qrpo", ..BASE },
    Formula {
        name: "qrpo_norm",
        needs: &[Need::Reference, Need::Quantiles, Need::Lengths],
        rewards: Rewards::Mean,
        value: by_length,
        ..BASE
    },
];
