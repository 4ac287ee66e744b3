//! Alignment by optimal transport: compares sorted log-ratios of a batch instead of those of the same pair.
//!
//! The loss depends on which pairs are in a batch, so it must see the whole batch at once. Gradients flow through the
//! permutation. Melnyk et al. 2024 (arXiv:2406.05882).

use tch::Tensor;

use crate::formula::{Coupling, Formula, LABEL_SMOOTHING, Rewards};
use crate::pair::Need;
use crate::losses::margin::cdpo;

/// AOT on pairs: conservative DPO of the differences between the sorted `l_w - l_l` of the policy and of the reference.
///
/// `policy` and `reference` are differences `log p(chosen) - log p(rejected)`, `[B]`; `e` label smoothing in [0, 0.5).
/// The i-th loss is that of the i-th smallest difference.
///
/// ```
/// use tch::Tensor;
/// // Sorted: (10, 20) and (0, 10). Both differ by 10, a margin of 1.
/// let loss = simplemix_loss::losses::transport::aot(
///     &Tensor::from_slice(&[20.0, 10.0]), &Tensor::from_slice(&[0.0, 10.0]), 0.1, 0.0);
/// assert!((loss.double_value(&[1]) - 0.313262).abs() < 1e-6);
/// ```
pub fn aot(policy: &Tensor, reference: &Tensor, beta: f64, e: f64) -> Tensor {
    sorted_difference(policy, reference, beta, e)
}

/// AOT on unpaired responses: conservative DPO of the differences between the sorted log-ratios of chosen and of rejected
/// responses. TRL 0.24 called it `aot_pair`.
///
/// ```
/// use tch::Tensor;
/// // Sorted: (10, 30) and (0, 20).
/// let loss = simplemix_loss::losses::transport::aot_unpaired(
///     &Tensor::from_slice(&[30.0, 10.0]), &Tensor::from_slice(&[0.0, 20.0]), 0.1, 0.0);
/// assert!((loss.double_value(&[0]) - 0.313262).abs() < 1e-6);
/// ```
pub fn aot_unpaired(chosen: &Tensor, rejected: &Tensor, beta: f64, e: f64) -> Tensor {
    sorted_difference(chosen, rejected, beta, e)
}

fn sorted_difference(above: &Tensor, below: &Tensor, beta: f64, e: f64) -> Tensor {
    cdpo(&(above.sort(0, false).0 - below.sort(0, false).0), beta, e)
}

const BASE: Formula = Formula {
    name: "aot",
    aliases: &[],
    constants: &[LABEL_SMOOTHING],
    needs: &[Need::Reference],
    divergences: false,
    coupling: Coupling::Sorted,
    rewards: Rewards::Sum,
    value: |t| {
        let difference = |logps: &crate::PairLogps| &logps.chosen - &logps.rejected;
        aot(&difference(t.pairs.policy), &difference(t.reference()), t.beta, t.constants[0])
    },
    at_reference: Some(|_, _| std::f64::consts::LN_2),
};

/// Losses of this family.
pub(crate) const FORMULAS: &[Formula] = &[
    BASE,
    Formula {
        name: "aot_unpaired",
        aliases: &["aot_pair"],
        value: |t| aot_unpaired(&t.logratios.chosen, &t.logratios.rejected, t.beta, t.constants[0]),
        ..BASE
    },
];
