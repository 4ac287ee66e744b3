//! Preference losses on pairs with a reference, under TRL's names.
//!
//! Symbols: `s_w`, `s_l` log-ratios `log pi - log pi_ref` of chosen and rejected response, summed over tokens;
//! `d = s_w - s_l`; `n_w`, `n_l` tokens of the responses; `e` label smoothing; `softplus(x) = ln(1 + e^x)`, so that
//! `-ln sigmoid(x) = softplus(-x)` stays finite at any margin.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::error::{Error, Result};
use crate::pair::{LossOutput, PairLengths, PairLogps, check_vectors};

/// Which formula.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LossKind {
    /// DPO, `softplus(-beta d)`: Rafailov et al. 2023, eq. 7 (arXiv:2305.18290).
    Sigmoid,
    /// Conservative DPO, `(1 - e) softplus(-beta d) + e softplus(beta d)`: a label is wrong with probability `e`
    /// (Mitchell 2023). TRL before 1.0 computed this for `sigmoid` with label smoothing.
    Cdpo,
    /// Robust DPO, `((1 - e) softplus(-beta d) - e softplus(beta d)) / (1 - 2 e)`: Chowdhury et al. 2024
    /// (arXiv:2403.00409).
    Robust,
    /// Hinge, `max(0, 1 - beta d)`: Liu et al. 2023 (arXiv:2309.06657), SLiC normalised.
    Hinge,
    /// IPO on per-token means, `(s_w / n_w - s_l / n_l - 1 / (2 beta))^2`: Azar et al. 2023 (arXiv:2310.12036), as TRL.
    Ipo,
    /// IPO on sums, `(d - 1 / (2 beta))^2`, as the original DPO code.
    IpoSum,
    /// EXO on pairs: reverse KL to the smoothed label, Ji et al. 2024 (arXiv:2402.00856). Needs `e > 0`.
    ExoPair,
    /// NCA on pairs: Chen et al. 2024 (arXiv:2402.05369).
    NcaPair,
    /// BCO on pairs without running mean, `softplus(-beta s_w) + softplus(beta s_l)`: Jung et al. 2024
    /// (arXiv:2404.04656), as TRL from 1.0 on.
    BcoPair,
    /// SPPO with hard labels, `(s_w - 1/(2 beta))^2 + (s_l + 1/(2 beta))^2`: Wu et al. 2024 (arXiv:2405.00675).
    SppoHard,
    /// APO-zero, `1 - sigmoid(beta s_w) + sigmoid(beta s_l)`: D'Oosterlinck et al. 2024 (arXiv:2408.06266).
    ApoZero,
    /// APO-down, `sigmoid(beta s_w) + 1 - sigmoid(beta d)`: the same paper.
    ApoDown,
    /// DiscoPOP with gate temperature 0.05: Lu et al. 2024 (arXiv:2406.08414).
    Discopop,
    /// DPO on per-token means, `softplus(-beta (s_w / n_w - s_l / n_l))`: Tulu 3 (arXiv:2411.15124).
    SigmoidNorm,
}

/// Names as in TRL.
const NAMES: &[(&str, LossKind)] = &[
    ("sigmoid", LossKind::Sigmoid),
    ("cdpo", LossKind::Cdpo),
    ("robust", LossKind::Robust),
    ("hinge", LossKind::Hinge),
    ("ipo", LossKind::Ipo),
    ("ipo_sum", LossKind::IpoSum),
    ("exo_pair", LossKind::ExoPair),
    ("nca_pair", LossKind::NcaPair),
    ("bco_pair", LossKind::BcoPair),
    ("sppo_hard", LossKind::SppoHard),
    ("apo_zero", LossKind::ApoZero),
    ("apo_down", LossKind::ApoDown),
    ("discopop", LossKind::Discopop),
    ("sigmoid_norm", LossKind::SigmoidNorm),
];

impl LossKind {
    /// Every kind.
    pub fn all() -> impl Iterator<Item = Self> {
        NAMES.iter().map(|(_, kind)| *kind)
    }

    /// TRL's name.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }

    /// Whether label smoothing means something to it.
    pub fn smooths(self) -> bool {
        matches!(self, Self::Cdpo | Self::Robust | Self::ExoPair)
    }
}

impl fmt::Display for LossKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for LossKind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let known = || NAMES.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        NAMES.iter().find(|(n, _)| *n == name).map(|(_, kind)| *kind).ok_or_else(|| Error::Setting {
            key: "loss",
            found: format!("`{name}`"),
            expected: format!("one of {}", known()),
        })
    }
}

/// A loss with its constants, checked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PreferenceLoss {
    kind: LossKind,
    beta: f64,
    label_smoothing: f64,
}

impl PreferenceLoss {
    /// `beta > 0`; `label_smoothing` in [0, 0.5), and 0 for losses that do not know it.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the constant.
    pub fn new(kind: LossKind, beta: f64, label_smoothing: f64) -> Result<Self> {
        let refuse = |key, found: f64, expected: &str| {
            Err(Error::Setting { key, found: found.to_string(), expected: expected.to_owned() })
        };
        if !(beta.is_finite() && beta > 0.0) {
            return refuse("beta", beta, "a number above 0");
        }
        if !(0.0..0.5).contains(&label_smoothing) {
            return refuse("label_smoothing", label_smoothing, "from 0 to below 0.5");
        }
        if label_smoothing > 0.0 && !kind.smooths() {
            return refuse("label_smoothing", label_smoothing, &format!("0 for `{kind}`, which does not know it"));
        }
        if label_smoothing == 0.0 && kind == LossKind::ExoPair {
            return refuse("label_smoothing", 0.0, "above 0 for `exo_pair`, such as 0.001");
        }
        Ok(Self { kind, beta, label_smoothing })
    }

    /// Which formula.
    pub fn kind(&self) -> LossKind {
        self.kind
    }

    /// Strength of the pull towards the reference.
    pub fn beta(&self) -> f64 {
        self.beta
    }

    /// Loss of a pair on which policy and reference agree, where it does not depend on the pair.
    ///
    /// ```
    /// use simplemix_loss::{LossKind, PreferenceLoss};
    /// let dpo = PreferenceLoss::new(LossKind::Sigmoid, 0.1, 0.0)?;
    /// assert_eq!(dpo.at_reference(), 2f64.ln());
    /// # Ok::<(), simplemix_loss::Error>(())
    /// ```
    pub fn at_reference(&self) -> f64 {
        let ln2 = std::f64::consts::LN_2;
        let half = 0.5 / self.beta;
        match self.kind {
            LossKind::Sigmoid | LossKind::Cdpo | LossKind::Robust | LossKind::SigmoidNorm => ln2,
            LossKind::Hinge | LossKind::ApoZero | LossKind::ApoDown => 1.0,
            LossKind::Ipo | LossKind::IpoSum => half * half,
            LossKind::SppoHard => 2.0 * half * half,
            LossKind::NcaPair | LossKind::BcoPair => 2.0 * ln2,
            LossKind::Discopop => 0.5 * ln2 + 0.5,
            LossKind::ExoPair => {
                let e = self.label_smoothing;
                0.5 * (0.5f64.ln() - (1.0 - e).ln()) + 0.5 * (0.5f64.ln() - e.ln())
            }
        }
    }

    /// Loss and rewards of each pair.
    ///
    /// # Shapes
    /// All vectors `[B]`, float; the loss is `[B]`, not reduced.
    ///
    /// # Errors
    /// [`Error::Shape`] if the vectors differ in length.
    ///
    /// # Examples
    /// ```
    /// use simplemix_loss::{LossKind, PairLengths, PairLogps, PreferenceLoss};
    /// use tch::Tensor;
    ///
    /// let pair = |chosen: f64, rejected: f64| (Tensor::from_slice(&[chosen]), Tensor::from_slice(&[rejected]));
    /// let (chosen, rejected) = pair(-10.0, -12.0);
    /// let policy = PairLogps { chosen, rejected };
    /// let (chosen, rejected) = pair(-15.0, -7.0);
    /// let reference = PairLogps { chosen, rejected };
    /// let (chosen, rejected) = pair(5.0, 8.0);
    /// let lengths = PairLengths { chosen, rejected };
    ///
    /// // Log-ratios 5 and -5: at beta 0.1 a margin of 1, which costs ln(1 + e^-1).
    /// let output = PreferenceLoss::new(LossKind::Sigmoid, 0.1, 0.0)?.evaluate(&policy, &reference, &lengths)?;
    /// assert!((output.loss.double_value(&[0]) - 0.313262).abs() < 1e-6);
    /// # Ok::<(), simplemix_loss::Error>(())
    /// ```
    pub fn evaluate(&self, policy: &PairLogps, reference: &PairLogps, lengths: &PairLengths) -> Result<LossOutput> {
        check_vectors(&[
            ("policy.chosen", &policy.chosen),
            ("policy.rejected", &policy.rejected),
            ("reference.chosen", &reference.chosen),
            ("reference.rejected", &reference.rejected),
            ("lengths.chosen", &lengths.chosen),
            ("lengths.rejected", &lengths.rejected),
        ])?;
        let chosen = &policy.chosen - &reference.chosen;
        let rejected = &policy.rejected - &reference.rejected;
        let loss = self.formula(&chosen, &rejected, lengths);
        let reward = |logratio: &Tensor| logratio.detach() * self.beta;
        Ok(LossOutput { loss, chosen_rewards: reward(&chosen), rejected_rewards: reward(&rejected) })
    }

    /// The loss of log-ratios `w` (chosen) and `l` (rejected).
    fn formula(&self, w: &Tensor, l: &Tensor, lengths: &PairLengths) -> Tensor {
        let (beta, e) = (self.beta, self.label_smoothing);
        let margin = || (w - l) * beta;
        let mean_difference = || w / &lengths.chosen - l / &lengths.rejected;
        match self.kind {
            LossKind::Sigmoid => softplus(&-margin()),
            LossKind::Cdpo => softplus(&-margin()) * (1.0 - e) + softplus(&margin()) * e,
            LossKind::Robust => (softplus(&-margin()) * (1.0 - e) - softplus(&margin()) * e) / (1.0 - 2.0 * e),
            LossKind::Hinge => (margin() * -1.0 + 1.0).relu(),
            LossKind::Ipo => (mean_difference() - 0.5 / beta).square(),
            LossKind::IpoSum => (w - l - 0.5 / beta).square(),
            LossKind::ExoPair => {
                let (log_q, log_other) = (margin().log_sigmoid(), (-margin()).log_sigmoid());
                log_q.exp() * (&log_q - (1.0 - e).ln()) + log_other.exp() * (&log_other - e.ln())
            }
            LossKind::NcaPair => {
                let (a, b) = (w * beta, l * beta);
                softplus(&-&a) + softplus(&a) * 0.5 + softplus(&b) * 0.5
            }
            LossKind::BcoPair => softplus(&(w * -beta)) + softplus(&(l * beta)),
            LossKind::SppoHard => (w - 0.5 / beta).square() + (l + 0.5 / beta).square(),
            LossKind::ApoZero => (w * -beta).sigmoid() + (l * beta).sigmoid(),
            LossKind::ApoDown => (w * beta).sigmoid() + (-margin()).sigmoid(),
            LossKind::Discopop => discopop(&margin()),
            LossKind::SigmoidNorm => softplus(&(mean_difference() * -beta)),
        }
    }
}

/// `ln(1 + e^x)`, stable for every x.
fn softplus(x: &Tensor) -> Tensor {
    -(-x).log_sigmoid()
}

/// Logistic and exponential loss of margin `z`, mixed by a gate of temperature 0.05.
fn discopop(z: &Tensor) -> Tensor {
    let gate = (z / 0.05).sigmoid();
    // Where the exponential would overflow the gate has closed; e^80 is finite in f32.
    let exponential = (-z).clamp_max(80.0).exp();
    softplus(&-z) * (-&gate + 1.0) + exponential * gate
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector(x: f64) -> Tensor {
        Tensor::from_slice(&[x])
    }

    fn logps(chosen: f64, rejected: f64) -> PairLogps {
        PairLogps { chosen: vector(chosen), rejected: vector(rejected) }
    }

    fn value(kind: LossKind, beta: f64, e: f64, policy: &PairLogps) -> f64 {
        let lengths = PairLengths { chosen: vector(5.0), rejected: vector(8.0) };
        let loss = PreferenceLoss::new(kind, beta, e).unwrap();
        loss.evaluate(policy, &logps(-11.0, -11.5), &lengths).unwrap().loss.double_value(&[0])
    }

    /// Worked in f64 from the formulas of the papers, at `s_w` = 1, `s_l` = -0.5, 5 and 8 tokens.
    #[test]
    fn golden_values() {
        for (kind, beta, e, want) in [
            (LossKind::Sigmoid, 0.1, 0.0, 0.620957048),
            (LossKind::Cdpo, 0.1, 0.1, 0.635957048),
            (LossKind::Robust, 0.1, 0.1, 0.602207048),
            (LossKind::Hinge, 0.1, 0.0, 0.85),
            (LossKind::Ipo, 0.1, 0.0, 22.443906250),
            (LossKind::IpoSum, 0.1, 0.0, 12.25),
            (LossKind::ExoPair, 0.1, 1e-3, 2.505516555),
            (LossKind::NcaPair, 0.1, 0.0, 1.350824814),
            (LossKind::BcoPair, 0.1, 0.0, 1.312856308),
            (LossKind::SppoHard, 0.1, 0.0, 36.25),
            (LossKind::ApoZero, 0.1, 0.0, 0.962523416),
            (LossKind::ApoDown, 0.1, 0.0, 0.987549342),
            (LossKind::Discopop, 0.1, 0.0, 0.849337579),
            (LossKind::SigmoidNorm, 5.0, 0.0, 0.238344508),
        ] {
            let got = value(kind, beta, e, &logps(-10.0, -12.0));
            assert!((got - want).abs() < 5e-9, "{kind}: {got} {want}");
        }
    }

    #[test]
    fn every_loss_is_finite_at_huge_margins_and_known_at_the_reference() {
        for kind in LossKind::all() {
            let e = if kind == LossKind::ExoPair { 1e-3 } else { 0.0 };
            for margin in [-1e4, 1e4] {
                assert!(value(kind, 1.0, e, &logps(-11.0 + margin, -11.5)).is_finite(), "{kind} {margin}");
            }
            let known = PreferenceLoss::new(kind, 0.3, e).unwrap().at_reference();
            let got = value(kind, 0.3, e, &logps(-11.0, -11.5));
            assert!((got - known).abs() < 1e-12, "{kind}: {got} {known}");
        }
    }

    /// Gradients by autograd against central differences in f64.
    #[test]
    fn gradients_are_those_of_finite_differences() {
        for kind in LossKind::all() {
            let e = if kind.smooths() { 0.1 } else { 0.0 };
            let policy = logps(-10.0, -12.0);
            let _ = policy.chosen.set_requires_grad(true);
            let _ = policy.rejected.set_requires_grad(true);
            let lengths = PairLengths { chosen: vector(5.0), rejected: vector(8.0) };
            let loss = PreferenceLoss::new(kind, 0.2, e).unwrap();
            loss.evaluate(&policy, &logps(-11.0, -11.5), &lengths).unwrap().loss.sum(tch::Kind::Double).backward();
            let h = 1e-6;
            let slope = |a: f64, b: f64| {
                let at = |t: f64| value(kind, 0.2, e, &logps(-10.0 + a * t, -12.0 + b * t));
                (at(h) - at(-h)) / (2.0 * h)
            };
            for (got, want) in [(policy.chosen.grad(), slope(1.0, 0.0)), (policy.rejected.grad(), slope(0.0, 1.0))] {
                let got = got.double_value(&[0]);
                assert!((got - want).abs() < 1e-6 * want.abs().max(1.0), "{kind}: {got} {want}");
            }
        }
    }

    #[test]
    fn constants_out_of_range_are_named() {
        let text = |kind, beta, e| PreferenceLoss::new(kind, beta, e).unwrap_err().to_string();
        assert_eq!(text(LossKind::Sigmoid, -1.0, 0.0), "`beta` is -1, expected a number above 0");
        assert_eq!(text(LossKind::Robust, 0.1, 0.5), "`label_smoothing` is 0.5, expected from 0 to below 0.5");
        assert!(text(LossKind::Sigmoid, 0.1, 0.1).contains("0 for `sigmoid`"));
        assert!("dpo2".parse::<LossKind>().unwrap_err().to_string().contains("one of sigmoid, cdpo"));
    }

    #[test]
    fn vectors_of_different_length_are_refused() {
        let lengths = PairLengths { chosen: vector(5.0), rejected: vector(8.0) };
        let loss = PreferenceLoss::new(LossKind::Sigmoid, 0.1, 0.0).unwrap();
        let two = PairLogps { chosen: Tensor::from_slice(&[0.0, 1.0]), rejected: Tensor::from_slice(&[0.0, 1.0]) };
        let error = loss.evaluate(&two, &logps(0.0, 0.0), &lengths).unwrap_err();
        assert!(error.to_string().starts_with("`reference.chosen` is Double [1], expected"), "{error}");
    }
}
