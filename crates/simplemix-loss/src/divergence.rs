//! f-divergences between policy and reference, as functions of log-ratios: Wang et al. 2023 (arXiv:2309.16240).

use std::fmt;

use serde::{Deserialize, Serialize};
use tch::Tensor;

/// Largest exponent, so that `e^x` is finite in f32; TRL clamps for the alpha divergence only.
const LARGEST_EXPONENT: f64 = 80.0;

/// Divergence that pulls the policy to the reference; DPO uses reverse KL. Names are TRL's.
///
/// The score of log-ratio `r` is `f'(e^r)`, up to constants that cancel in differences. TRL before 1.13 left the constants
/// out (`-e^-r`, `ln sigmoid(r)`, no `- 1`): that changes `ipo` and `sigmoid_norm`, which take means, but no loss of
/// plain differences.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Divergence {
    /// Reverse KL: `r`.
    #[default]
    ReverseKl,
    /// Forward KL: `1 - e^-r`.
    ForwardKl,
    /// Jensen-Shannon: `ln 2 + ln sigmoid(r)`.
    JsDivergence,
    /// Alpha divergence: `(e^((alpha - 1) r) - 1) / (alpha - 1)`, and `r` at alpha 1. TRL 0.24 took `1 - alpha` for alpha.
    AlphaDivergence(f64),
}

impl Divergence {
    /// Scores of log-ratios of any shape.
    ///
    /// ```
    /// use simplemix_loss::Divergence;
    /// use tch::Tensor;
    /// let score = |d: Divergence| d.scores(&Tensor::from_slice(&[2f64.ln()])).double_value(&[0]);
    /// assert!((score(Divergence::ForwardKl) - 0.5).abs() < 1e-12); // 1 - 1/2
    /// assert!((score(Divergence::JsDivergence) - (4f64 / 3.0).ln()).abs() < 1e-12); // ln (2 * 2/3)
    /// assert!((score(Divergence::AlphaDivergence(2.0)) - 1.0).abs() < 1e-12); // 2 - 1
    /// ```
    pub fn scores(self, logratios: &Tensor) -> Tensor {
        let expm1 = |x: Tensor| x.clamp_max(LARGEST_EXPONENT).expm1();
        match self {
            Self::ReverseKl => logratios.shallow_clone(),
            Self::ForwardKl => -expm1(-logratios),
            Self::JsDivergence => logratios.log_sigmoid() + std::f64::consts::LN_2,
            Self::AlphaDivergence(alpha) if (alpha - 1.0).abs() < 1e-6 => logratios.shallow_clone(),
            Self::AlphaDivergence(alpha) => expm1(logratios * (alpha - 1.0)) / (alpha - 1.0),
        }
    }
}

impl fmt::Display for Divergence {
    /// Writes the name that settings use.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReverseKl => f.write_str("reverse_kl"),
            Self::ForwardKl => f.write_str("forward_kl"),
            Self::JsDivergence => f.write_str("js_divergence"),
            Self::AlphaDivergence(alpha) => write!(f, "alpha_divergence = {alpha}"),
        }
    }
}
