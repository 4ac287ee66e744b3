//! Losses of the margin `beta d`: DPO and its relatives.

use tch::Tensor;

use crate::formula::{Constant, Coupling, Formula, LABEL_SMOOTHING, Rewards, softplus};
use crate::pair::Need;

const LN_2: f64 = std::f64::consts::LN_2;

/// DPO, `softplus(-beta d)`: Rafailov et al. 2023, eq. 7 (arXiv:2305.18290). TRL's `sigmoid`.
///
/// `d` `[B]`, nats; `beta` above 0, usually 0.01 to 0.5; loss above 0, `ln 2` at `d = 0`.
///
/// ```
/// // A margin of 0.1 * 10 = 1 costs ln(1 + e^-1) = 0.313262.
/// let loss = simplemix_loss::losses::margin::sigmoid(&tch::Tensor::from_slice(&[10.0]), 0.1);
/// assert!((loss.double_value(&[0]) - 0.313262).abs() < 1e-6);
/// ```
pub fn sigmoid(d: &Tensor, beta: f64) -> Tensor {
    softplus(&(d * -beta))
}

/// Conservative DPO, `(1 - e) softplus(-beta d) + e softplus(beta d)`: Mitchell 2023, "A note on DPO with noisy
/// preferences".
///
/// `e` in [0, 0.5) is the probability that a label is wrong. TRL before 1.0 computed this for `sigmoid` with
/// `label_smoothing`; from 1.0 on its `sigmoid` ignores that setting.
///
/// ```
/// // At margin 1: 0.9 * 0.313262 + 0.1 * 1.313262 = 0.413262.
/// let loss = simplemix_loss::losses::margin::cdpo(&tch::Tensor::from_slice(&[10.0]), 0.1, 0.1);
/// assert!((loss.double_value(&[0]) - 0.413262).abs() < 1e-6);
/// ```
pub fn cdpo(d: &Tensor, beta: f64, e: f64) -> Tensor {
    softplus(&(d * -beta)) * (1.0 - e) + softplus(&(d * beta)) * e
}

/// DPO on soft labels, `p softplus(-beta d) + (1 - p) softplus(beta d)`: Bradley-Terry cross-entropy.
///
/// `p` `[B]` in [0, 1] is the probability that the chosen response is the better one, such as
/// `sigmoid(scale * (reward_chosen - reward_rejected))`.
///
/// ```
/// use tch::Tensor;
/// // At margin 1, an even label costs the mean of 0.313262 and 1.313262.
/// let loss = simplemix_loss::losses::margin::soft_label(
///     &Tensor::from_slice(&[10.0]), 0.1, &Tensor::from_slice(&[0.5]));
/// assert!((loss.double_value(&[0]) - 0.813262).abs() < 1e-6);
/// ```
pub fn soft_label(d: &Tensor, beta: f64, p: &Tensor) -> Tensor {
    // p a + (1 - p) (a + z) with a = softplus(-z): a single softplus, and exact for p = 1.
    softplus(&(d * -beta)) + (p.neg() + 1.0) * d * beta
}

/// Robust DPO, `((1 - e) softplus(-beta d) - e softplus(beta d)) / (1 - 2 e)`: Chowdhury et al. 2024
/// (arXiv:2403.00409).
///
/// `e` in [0, 0.5), 0.1 in the paper. Unbiased under label noise, so it can be negative.
///
/// ```
/// // At margin 1: (0.9 * 0.313262 - 0.1 * 1.313262) / 0.8 = 0.188262.
/// let loss = simplemix_loss::losses::margin::robust(&tch::Tensor::from_slice(&[10.0]), 0.1, 0.1);
/// assert!((loss.double_value(&[0]) - 0.188262).abs() < 1e-6);
/// ```
pub fn robust(d: &Tensor, beta: f64, e: f64) -> Tensor {
    (softplus(&(d * -beta)) * (1.0 - e) - softplus(&(d * beta)) * e) / (1.0 - 2.0 * e)
}

/// Hinge, `max(0, 1 - beta d)`: SLiC normalised by the reference, Liu et al. 2023 (arXiv:2309.06657).
///
/// `beta` is the inverse of the wanted margin.
///
/// ```
/// // At margin 0.4, 0.6 is missing.
/// let loss = simplemix_loss::losses::margin::hinge(&tch::Tensor::from_slice(&[4.0]), 0.1);
/// assert!((loss.double_value(&[0]) - 0.6).abs() < 1e-12);
/// ```
pub fn hinge(d: &Tensor, beta: f64) -> Tensor {
    (d * -beta + 1.0).relu()
}

/// EXO on pairs, `q (ln q - ln(1 - e)) + (1 - q) (ln(1 - q) - ln e)` with `q = sigmoid(beta d)`: reverse KL to the
/// smoothed label, Ji et al. 2024, eq. 16 (arXiv:2402.00856).
///
/// `e` in (0, 0.5), 0.001 in the paper; 0 makes the loss infinite. TRL 0.24 silently replaced 0 by 0.001.
///
/// ```
/// // At q = 1/2: 0.5 (ln 0.5 - ln 0.9) + 0.5 (ln 0.5 - ln 0.1) = -0.5 ln 0.36 = 0.510826.
/// let loss = simplemix_loss::losses::margin::exo_pair(&tch::Tensor::from_slice(&[0.0]), 0.1, 0.1);
/// assert!((loss.double_value(&[0]) - 0.510826).abs() < 1e-6);
/// ```
pub fn exo_pair(d: &Tensor, beta: f64, e: f64) -> Tensor {
    let (log_q, log_other) = ((d * beta).log_sigmoid(), (d * -beta).log_sigmoid());
    log_q.exp() * (&log_q - (-e).ln_1p()) + log_other.exp() * (&log_other - e.ln())
}

/// DiscoPOP, `(1 - m) softplus(-z) + m e^-z` with `z = beta d`, `m = sigmoid(z / tau)`: Lu et al. 2024, eq. 5
/// (arXiv:2406.08414).
///
/// `tau` above 0, 0.05 in the paper. The exponential is clamped to at most `e^80`: below `z = -80` its factor `m` is 0.
///
/// ```
/// // At z = 0: half of ln 2, half of 1.
/// let loss = simplemix_loss::losses::margin::discopop(&tch::Tensor::from_slice(&[0.0]), 0.1, 0.05);
/// assert!((loss.double_value(&[0]) - 0.846574).abs() < 1e-6);
/// ```
pub fn discopop(d: &Tensor, beta: f64, tau: f64) -> Tensor {
    let z = d * beta;
    let gate = (&z / tau).sigmoid();
    softplus(&-&z) * (-&gate + 1.0) + (-z).clamp_max(80.0).exp() * gate
}

/// Hybrid-DPO, `softplus(-beta ((l_w - l_l) - max(0, lref_w - lref_l)))`: the reference counts only if it agrees with the
/// label (arXiv:2602.11902, where it is called HyPO).
///
/// `policy` and `reference` are differences `log p(chosen) - log p(rejected)`.
///
/// ```
/// use tch::Tensor;
/// let loss = |reference: f64| simplemix_loss::losses::margin::hybrid_dpo(
///     &Tensor::from_slice(&[10.0]), &Tensor::from_slice(&[reference]), 0.1).double_value(&[0]);
/// // A reference that prefers the rejected response is ignored: ln(1 + e^-1).
/// assert!((loss(-3.0) - 0.313262).abs() < 1e-6);
/// // A reference that prefers the chosen response by 10 leaves a margin of 0.
/// assert!((loss(10.0) - 0.693147).abs() < 1e-6);
/// ```
pub fn hybrid_dpo(policy: &Tensor, reference: &Tensor, beta: f64) -> Tensor {
    sigmoid(&(policy - reference.relu()), beta)
}

/// DPO with a length margin, `softplus(-beta (d - c (n_w - n_l)))`, as in RLHFlow's Online-RLHF.
///
/// `extra_tokens` is `n_w - n_l`; `c` in nats per token, finite, usually from 0 to 0.1: the longer the chosen response, the
/// larger the margin that it must reach.
///
/// ```
/// use tch::Tensor;
/// // 40 tokens more at 0.1 nats each take 4 off a difference of 14: a margin of 1.
/// let loss = simplemix_loss::losses::margin::length_margin(
///     &Tensor::from_slice(&[14.0]), &Tensor::from_slice(&[40.0]), 0.1, 0.1);
/// assert!((loss.double_value(&[0]) - 0.313262).abs() < 1e-6);
/// ```
pub fn length_margin(d: &Tensor, extra_tokens: &Tensor, beta: f64, c: f64) -> Tensor {
    sigmoid(&(d - extra_tokens * c), beta)
}

const BASE: Formula = Formula {
    name: "",
    aliases: &[],
    constants: &[],
    needs: &[Need::Reference],
    divergences: true,
    coupling: Coupling::Independent,
    rewards: Rewards::Sum,
    value: |t| sigmoid(&t.delta(), t.beta),
    at_reference: Some(|_, _| LN_2),
};

/// Losses of this family.
pub(crate) const FORMULAS: &[Formula] = &[
    Formula { name: "sigmoid", aliases: &["dpo"], ..BASE },
    Formula {
        name: "cdpo",
        constants: &[LABEL_SMOOTHING],
        value: |t| cdpo(&t.delta(), t.beta, t.constants[0]),
        ..BASE
    },
    Formula {
        name: "soft_label",
        needs: &[Need::Reference, Need::LabelProbs],
        value: |t| soft_label(&t.delta(), t.beta, t.label_probs()),
        ..BASE
    },
    Formula {
        name: "robust",
        constants: &[LABEL_SMOOTHING],
        value: |t| robust(&t.delta(), t.beta, t.constants[0]),
        ..BASE
    },
    Formula {
        name: "hinge",
        aliases: &["slic"],
        value: |t| hinge(&t.delta(), t.beta),
        at_reference: Some(|_, _| 1.0),
        ..BASE
    },
    Formula {
        name: "exo_pair",
        constants: &[Constant {
            default: None,
            expected: "above 0 and below 0.5, such as 0.001",
            accepts: |e| e > 0.0 && e < 0.5,
            ..LABEL_SMOOTHING
        }],
        value: |t| exo_pair(&t.delta(), t.beta, t.constants[0]),
        at_reference: Some(|_, c| -0.5 * (4.0 * c[0] * (1.0 - c[0])).ln()),
        ..BASE
    },
    Formula {
        name: "discopop",
        constants: &[Constant {
            name: "discopop_tau",
            default: Some(0.05),
            expected: "a number above 0",
            accepts: |tau| tau > 0.0,
        }],
        value: |t| discopop(&t.delta(), t.beta, t.constants[0]),
        at_reference: Some(|_, _| 0.5 * LN_2 + 0.5),
        ..BASE
    },
    Formula {
        name: "sigmoid_norm",
        aliases: &["dpo_norm"],
        needs: &[Need::Reference, Need::Lengths],
        value: |t| sigmoid(&t.mean_delta(), t.beta),
        ..BASE
    },
    Formula {
        name: "hybrid_dpo",
        divergences: false,
        value: |t| {
            let difference = |logps: &crate::PairLogps| &logps.chosen - &logps.rejected;
            hybrid_dpo(&difference(t.pairs.policy), &difference(t.reference()), t.beta)
        },
        at_reference: None,
        ..BASE
    },
    Formula {
        name: "length_margin",
        constants: &[Constant {
            name: "len_penalty",
            default: None,
            expected: "a finite number of nats per token",
            accepts: f64::is_finite,
        }],
        needs: &[Need::Reference, Need::Lengths],
        divergences: false,
        value: |t| {
            let extra = &t.lengths().chosen - &t.lengths().rejected;
            length_margin(&t.delta(), &extra, t.beta, t.constants[0])
        },
        at_reference: None,
        ..BASE
    },
];
