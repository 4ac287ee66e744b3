//! Squared errors of log-ratios against a target that beta sets.

use tch::Tensor;

use crate::formula::{Coupling, Formula, Rewards};
use crate::pair::Need;

/// IPO, `(d - 1 / (2 beta))^2`: Azar et al. 2023, eq. 17 (arXiv:2310.12036).
///
/// The name `ipo_sum` takes sums of log-ratios, as the original DPO code; `ipo` takes means over tokens
/// (`s_w / n_w - s_l / n_l` for `d`), as TRL and the paper's experiments. `beta` above 0 is the paper's tau.
///
/// ```
/// // The target is 1 / 0.2 = 5.
/// let loss = simplemix_loss::losses::squared::ipo(&tch::Tensor::from_slice(&[3.0]), 0.1);
/// assert!((loss.double_value(&[0]) - 4.0).abs() < 1e-12);
/// ```
pub fn ipo(d: &Tensor, beta: f64) -> Tensor {
    (d - 0.5 / beta).square()
}

/// SPPO with hard labels, `(s_w - 1/(2 beta))^2 + (s_l + 1/(2 beta))^2`: Wu et al. 2024, eq. 4.7 with win
/// probabilities 1 and 0 (arXiv:2405.00675).
///
/// `chosen`, `rejected` are log-ratios; `beta` above 0 is the inverse of the paper's eta, 0.001 there.
///
/// ```
/// use tch::Tensor;
/// // The targets are 5 and -5.
/// let loss = simplemix_loss::losses::squared::sppo_hard(
///     &Tensor::from_slice(&[4.0]), &Tensor::from_slice(&[-3.0]), 0.1);
/// assert!((loss.double_value(&[0]) - 5.0).abs() < 1e-12);
/// ```
pub fn sppo_hard(chosen: &Tensor, rejected: &Tensor, beta: f64) -> Tensor {
    (chosen - 0.5 / beta).square() + (rejected + 0.5 / beta).square()
}

const BASE: Formula = Formula {
    name: "",
    aliases: &[],
    constants: &[],
    needs: &[Need::Reference],
    divergences: true,
    coupling: Coupling::Independent,
    rewards: Rewards::Sum,
    value: |t| ipo(&t.delta(), t.beta),
    at_reference: Some(|beta, _| 0.25 / (beta * beta)),
};

/// Losses of this family.
pub(crate) const FORMULAS: &[Formula] = &[
    Formula { name: "ipo", needs: &[Need::Reference, Need::Lengths], value: |t| ipo(&t.mean_delta(), t.beta), ..BASE },
    Formula { name: "ipo_sum", ..BASE },
    Formula {
        name: "sppo_hard",
        divergences: false,
        value: |t| sppo_hard(&t.logratios.chosen, &t.logratios.rejected, t.beta),
        at_reference: Some(|beta, _| 0.5 / (beta * beta)),
        ..BASE
    },
];
