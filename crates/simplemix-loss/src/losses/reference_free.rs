//! Losses without a reference. `m_w`, `m_l` are mean log-probabilities over a response's tokens, `l / n`.

use tch::Tensor;

use crate::formula::{Constant, Coupling, Formula, LABEL_SMOOTHING, Rewards, softplus};
use crate::pair::Need;
use crate::losses::likelihood::sft;
use crate::losses::margin::cdpo;

/// SimPO, `softplus(-(beta (m_w - m_l) - gamma))`, smoothed by `e` as conservative DPO: Meng et al. 2024
/// (arXiv:2405.14734).
///
/// `beta` above 0, 2 to 10 in the paper; `gamma`, finite, is the target margin: TRL's `simpo_gamma`, 0.5 by default. The
/// authors' code takes `gamma / beta`, 0.3 to 0.5.
///
/// ```
/// use tch::Tensor;
/// // 2 * (-1 + 2) - 1 = 1.
/// let loss = simplemix_loss::losses::reference_free::simpo(
///     &Tensor::from_slice(&[-1.0]), &Tensor::from_slice(&[-2.0]), 2.0, 1.0, 0.0);
/// assert!((loss.double_value(&[0]) - 0.313262).abs() < 1e-6);
/// ```
pub fn simpo(mean_chosen: &Tensor, mean_rejected: &Tensor, beta: f64, gamma: f64, e: f64) -> Tensor {
    cdpo(&((mean_chosen - mean_rejected) * beta - gamma), 1.0, e)
}

/// CPO, `softplus(-beta (l_w - l_l)) + alpha NLL(chosen)`, smoothed by `e`: Xu et al. 2024, eq. 3 (arXiv:2401.08417).
///
/// `alpha` 0 or above, 1 by default, on the token mean of [`sft`].
///
/// ```
/// use tch::Tensor;
/// // Margin 0.1 * 10 = 1, and 10 nats over 5 tokens: 0.313262 + 2.
/// let v = |x: f64| Tensor::from_slice(&[x]);
/// let loss = simplemix_loss::losses::reference_free::cpo(&v(-10.0), &v(-20.0), &v(5.0), 0.1, 1.0, 0.0);
/// assert!((loss.double_value(&[0]) - 2.313262).abs() < 1e-6);
/// ```
pub fn cpo(chosen: &Tensor, rejected: &Tensor, chosen_lengths: &Tensor, beta: f64, alpha: f64, e: f64) -> Tensor {
    cdpo(&(chosen - rejected), beta, e) + sft(chosen, chosen_lengths) * alpha
}

/// ORPO, `NLL(chosen) + beta softplus(-g)` with the log odds ratio `g = (m_w - m_l) - (ln(1 - e^m_w) - ln(1 - e^m_l))`:
/// Hong et al. 2024, eq. 4 to 7 (arXiv:2403.07691).
///
/// `beta` above 0, 0.1 in TRL, is the paper's lambda. Mean log-probabilities are clamped to at most `-1e-6`, since the odds
/// of a certain response are infinite. The NLL term is over the response's tokens; TRL's includes the prompt's.
///
/// ```
/// use tch::Tensor;
/// // Even odds of both: ln 2 * 0.1 + 10 nats over 5 tokens.
/// let v = |x: f64| Tensor::from_slice(&[x]);
/// let loss = simplemix_loss::losses::reference_free::orpo(&v(-10.0), &v(-16.0), &v(5.0), &v(8.0), 0.1);
/// assert!((loss.double_value(&[0]) - 2.069315).abs() < 1e-6);
/// ```
pub fn orpo(
    chosen: &Tensor,
    rejected: &Tensor,
    chosen_lengths: &Tensor,
    rejected_lengths: &Tensor,
    beta: f64,
) -> Tensor {
    let log_odds = |logps: &Tensor, lengths: &Tensor| {
        let mean = (logps / lengths).clamp_max(-1e-6);
        &mean - log1mexp(&mean)
    };
    let ratio = log_odds(chosen, chosen_lengths) - log_odds(rejected, rejected_lengths);
    softplus(&-ratio) * beta + sft(chosen, chosen_lengths)
}

/// AlphaPO, SimPO on rewards `(1 - p^-alpha) / alpha` with `p = e^m`: Gupta et al. 2025 (arXiv:2501.03884).
///
/// `alpha` finite, 0.25 in the paper; 0 is SimPO. The exponent `-alpha m` is clamped to at most 80.
///
/// ```
/// use tch::Tensor;
/// // p = 1/2 and 1/4 at alpha 1: rewards -1 and -3, so 2 * 0.5 - 0 = 1.
/// let v = |p: f64| Tensor::from_slice(&[p.ln()]);
/// let loss = simplemix_loss::losses::reference_free::alphapo(&v(0.5), &v(0.25), 0.5, 0.0, 1.0, 0.0);
/// assert!((loss.double_value(&[0]) - 0.313262).abs() < 1e-6);
/// ```
pub fn alphapo(mean_chosen: &Tensor, mean_rejected: &Tensor, beta: f64, gamma: f64, alpha: f64, e: f64) -> Tensor {
    let reward = |mean: &Tensor| {
        if alpha == 0.0 { mean.shallow_clone() } else { (mean * -alpha).clamp_max(80.0).expm1() / -alpha }
    };
    simpo(&reward(mean_chosen), &reward(mean_rejected), beta, gamma, e)
}

/// `ln(1 - e^x)` for `x < 0`, precise at both ends.
fn log1mexp(x: &Tensor) -> Tensor {
    let ln_2 = std::f64::consts::LN_2;
    // Each branch gets inputs clamped to where it is precise, so that the other's gradient is 0 and not 0 times infinity.
    let near_zero = (-x.clamp_min(-ln_2).expm1()).log();
    let far = (-x.clamp_max(-ln_2).exp()).log1p();
    near_zero.where_self(&x.gt(-ln_2), &far)
}

const fn finite(name: &'static str, default: f64) -> Constant {
    Constant { name, default: Some(default), expected: "a finite number", accepts: f64::is_finite }
}

const BASE: Formula = Formula {
    name: "",
    aliases: &[],
    constants: &[],
    needs: &[Need::Lengths],
    divergences: false,
    coupling: Coupling::Independent,
    rewards: Rewards::Mean,
    value: |t| {
        let m = t.mean_logps();
        simpo(&m.chosen, &m.rejected, t.beta, t.constants[0], t.constants[1])
    },
    at_reference: None,
};

/// Losses of this family.
pub(crate) const FORMULAS: &[Formula] = &[
    Formula { name: "simpo", constants: &[finite("simpo_gamma", 0.5), LABEL_SMOOTHING], ..BASE },
    Formula {
        name: "cpo",
        constants: &[
            Constant {
                name: "cpo_alpha",
                default: Some(1.0),
                expected: "0 or above",
                accepts: |alpha| alpha >= 0.0 && alpha.is_finite(),
            },
            LABEL_SMOOTHING,
        ],
        coupling: Coupling::Batch,
        rewards: Rewards::Sum,
        value: |t| {
            let logps = t.pairs.policy;
            let [alpha, e, ..] = t.constants;
            cpo(&logps.chosen, &logps.rejected, &t.lengths().chosen, t.beta, alpha, e)
        },
        ..BASE
    },
    Formula {
        name: "orpo",
        coupling: Coupling::Batch,
        value: |t| {
            let (logps, lengths) = (t.pairs.policy, t.lengths());
            orpo(&logps.chosen, &logps.rejected, &lengths.chosen, &lengths.rejected, t.beta)
        },
        ..BASE
    },
    Formula {
        name: "alphapo",
        constants: &[finite("simpo_gamma", 0.5), finite("alpha", 0.25), LABEL_SMOOTHING],
        value: |t| {
            let m = t.mean_logps();
            let [gamma, alpha, e, ..] = t.constants;
            alphapo(&m.chosen, &m.rejected, t.beta, gamma, alpha, e)
        },
        ..BASE
    },
];
