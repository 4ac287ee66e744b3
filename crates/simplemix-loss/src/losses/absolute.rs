//! Losses of each response's own log-ratio, which depend on where both go and not on their difference alone.

use tch::Tensor;

use crate::formula::{Coupling, Formula, Rewards, softplus};
use crate::pair::Need;

const LN_2: f64 = std::f64::consts::LN_2;

/// NCA on pairs, `softplus(-a) + softplus(a) / 2 + softplus(b) / 2` with `a = beta s_w`, `b = beta s_l`: Chen et al.
/// 2024 (arXiv:2402.05369).
///
/// ```
/// use tch::Tensor;
/// // a = 1, b = 0: 0.313262 + 1.313262 / 2 + ln 2 / 2.
/// let loss = simplemix_loss::losses::absolute::nca_pair(
///     &Tensor::from_slice(&[10.0]), &Tensor::from_slice(&[0.0]), 0.1);
/// assert!((loss.double_value(&[0]) - 1.316466).abs() < 1e-6);
/// ```
pub fn nca_pair(chosen: &Tensor, rejected: &Tensor, beta: f64) -> Tensor {
    let (a, b) = (chosen * beta, rejected * beta);
    softplus(&-&a) + softplus(&a) * 0.5 + softplus(&b) * 0.5
}

/// BCO on pairs, `softplus(-(a - shift)) + softplus(b - shift)` with `a = beta s_w`, `b = beta s_l`: Jung et al. 2024
/// (arXiv:2404.04656).
///
/// `shift` is the running mean of all rewards in the paper, TRL 0.24 and LLaMA-Factory, and 0 in TRL from 1.0 on and in
/// the loss of this name.
///
/// ```
/// use tch::Tensor;
/// // a = 1, b = -1, no shift: twice ln(1 + e^-1).
/// let loss = simplemix_loss::losses::absolute::bco_pair(
///     &Tensor::from_slice(&[10.0]), &Tensor::from_slice(&[-10.0]), 0.1, 0.0);
/// assert!((loss.double_value(&[0]) - 0.626523).abs() < 1e-6);
/// ```
pub fn bco_pair(chosen: &Tensor, rejected: &Tensor, beta: f64, shift: f64) -> Tensor {
    softplus(&(chosen * -beta + shift)) + softplus(&(rejected * beta - shift))
}

/// APO-zero, `1 - sigmoid(beta s_w) + sigmoid(beta s_l)`: D'Oosterlinck et al. 2024, eq. 7 (arXiv:2408.06266). Use it
/// when chosen responses are better than the model's own. Between 0 and 2.
///
/// ```
/// use tch::Tensor;
/// // sigmoid(1) = 0.731059, sigmoid(-1) = 0.268941.
/// let loss = simplemix_loss::losses::absolute::apo_zero(
///     &Tensor::from_slice(&[10.0]), &Tensor::from_slice(&[-10.0]), 0.1);
/// assert!((loss.double_value(&[0]) - 0.537883).abs() < 1e-6);
/// ```
pub fn apo_zero(chosen: &Tensor, rejected: &Tensor, beta: f64) -> Tensor {
    (chosen * -beta).sigmoid() + (rejected * beta).sigmoid()
}

/// APO-down, `sigmoid(beta s_w) + 1 - sigmoid(beta (s_w - s_l))`: D'Oosterlinck et al. 2024, eq. 8. Use it when chosen
/// responses are worse than the model's own. Between 0 and 2.
///
/// ```
/// use tch::Tensor;
/// // sigmoid(-1) + 1 - sigmoid(1) = 0.537883.
/// let loss = simplemix_loss::losses::absolute::apo_down(
///     &Tensor::from_slice(&[-10.0]), &Tensor::from_slice(&[-20.0]), 0.1);
/// assert!((loss.double_value(&[0]) - 0.537883).abs() < 1e-6);
/// ```
pub fn apo_down(chosen: &Tensor, rejected: &Tensor, beta: f64) -> Tensor {
    (chosen * beta).sigmoid() + ((rejected - chosen) * beta).sigmoid()
}

const BASE: Formula = Formula {
    name: "",
    aliases: &[],
    constants: &[],
    needs: &[Need::Reference],
    divergences: false,
    coupling: Coupling::Independent,
    rewards: Rewards::Sum,
    value: |t| nca_pair(&t.logratios.chosen, &t.logratios.rejected, t.beta),
    at_reference: Some(|_, _| 2.0 * LN_2),
};

/// Losses of this family.
pub(crate) const FORMULAS: &[Formula] = &[
    Formula { name: "nca_pair", ..BASE },
    Formula {
        name: "bco_pair",
        value: |t| bco_pair(&t.logratios.chosen, &t.logratios.rejected, t.beta, 0.0),
        ..BASE
    },
    Formula {
        name: "apo_zero",
        value: |t| apo_zero(&t.logratios.chosen, &t.logratios.rejected, t.beta),
        at_reference: Some(|_, _| 1.0),
        ..BASE
    },
    Formula {
        name: "apo_down",
        value: |t| apo_down(&t.logratios.chosen, &t.logratios.rejected, t.beta),
        at_reference: Some(|_, _| 1.0),
        ..BASE
    },
];
