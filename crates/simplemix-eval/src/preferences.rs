//! Figures of a model's implicit rewards on preference pairs: accuracy, margin, length bias, calibration.
//!
//! The reward of a response is `beta` times the log-ratio of policy over reference. The margin of a pair is the reward
//! of the chosen response minus that of the rejected one, and `sigmoid(margin)` is the probability with which the model
//! prefers the chosen one (Rafailov et al. 2023, arXiv:2305.18290).

use std::collections::BTreeMap;

use serde::Serialize;

use crate::logistic::sigmoid;
use crate::share::Share;
use crate::stats::{deviation, mean, standard_error};

/// A pair with the log-probabilities of its responses, chosen then rejected, in nats.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoredPair {
    /// Source of the pair.
    pub source: String,
    /// Task of the pair, if it is known.
    pub task: Option<String>,
    /// Summed log-probabilities under the policy.
    pub policy: [f64; 2],
    /// Summed log-probabilities under the reference; zeros without one.
    pub reference: [f64; 2],
    /// Numbers of response tokens.
    pub tokens: [u64; 2],
}

impl ScoredPair {
    /// Computes the margin: the reward of the chosen response minus that of the rejected one.
    pub fn margin(&self, beta: f64) -> f64 {
        let logratio = |side: usize| self.policy[side] - self.reference[side];
        beta * (logratio(0) - logratio(1))
    }
}

/// Figures of a set of pairs; NaN where a figure does not exist.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PreferenceFigures {
    /// Number of pairs.
    pub pairs: usize,
    /// Share of pairs whose chosen response has the larger reward; ties do not count, as in TRL.
    pub accuracy: f64,
    /// Wilson's 95 % interval of the accuracy.
    pub accuracy_interval: [f64; 2],
    /// Mean margin.
    pub margin: f64,
    /// Standard error of the mean margin.
    pub margin_standard_error: f64,
    /// Mean of `-ln sigmoid(margin)`, the DPO loss.
    pub loss: f64,
    /// Mean log-probabilities under the policy, chosen and rejected.
    pub logps: [f64; 2],
    /// Mean numbers of tokens, chosen and rejected.
    pub tokens: [f64; 2],
    /// Effect of length on the order.
    pub length: LengthBias,
    /// Agreement of `sigmoid(margin)` with the share of pairs in the right order.
    pub calibration: Calibration,
}

/// Effect of length on the order of rewards.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LengthBias {
    /// Share of pairs whose chosen response is longer.
    pub chosen_longer: f64,
    /// Share of pairs, among those of unequal length, whose longer response has the larger reward.
    pub longer_preferred: f64,
    /// Accuracy on pairs whose chosen response is longer.
    pub accuracy_chosen_longer: f64,
    /// Accuracy on pairs whose chosen response is shorter.
    pub accuracy_chosen_shorter: f64,
    /// Pearson's correlation of the margin with the difference in tokens.
    pub correlation: f64,
}

/// Confidence of the model against its accuracy. The confidence in a pair is `max(p, 1 - p)` with `p =
/// sigmoid(margin)`. The model is right if it prefers the chosen response, and half right if it prefers neither.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Calibration {
    /// Expected calibration error: the gap between confidence and accuracy of each bin, averaged over pairs (Guo et al.
    /// 2017, arXiv:1706.04599).
    pub ece: f64,
    /// Mean squared error of `p` (Brier 1950).
    pub brier: f64,
    /// Reliability curve: bins of equal width from 0.5 to 1, without empty ones.
    pub bins: Vec<Bin>,
}

/// A bin of the reliability curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Bin {
    /// Lower end of the bin.
    pub from: f64,
    /// Number of pairs in the bin.
    pub pairs: usize,
    /// Mean confidence.
    pub confidence: f64,
    /// Share of pairs in the right order.
    pub accuracy: f64,
}

const BINS: usize = 10;

/// Computes the figures of a set of pairs.
///
/// # Examples
/// ```
/// use simplemix_eval::{ScoredPair, preference_figures};
/// let pair = |chosen: f64| ScoredPair {
///     source: "on".into(), task: None, policy: [chosen, -10.0], reference: [-10.0, -10.0], tokens: [5, 4],
/// };
/// let found = preference_figures(&[pair(-8.0), pair(-11.0)], 0.5);
/// assert_eq!((found.accuracy, found.margin), (0.5, 0.25));
/// ```
pub fn preference_figures(pairs: &[ScoredPair], beta: f64) -> PreferenceFigures {
    let margins: Vec<f64> = pairs.iter().map(|pair| pair.margin(beta)).collect();
    let right = Share::of(margins.iter().map(|margin| *margin > 0.0));
    let (low, high) = right.interval(1.959_963_985);
    let of = |value: &dyn Fn(&ScoredPair) -> f64| mean(&pairs.iter().map(value).collect::<Vec<_>>());
    PreferenceFigures {
        pairs: pairs.len(),
        accuracy: right.value(),
        accuracy_interval: [low, high],
        margin: mean(&margins),
        margin_standard_error: standard_error(&margins),
        loss: mean(&margins.iter().map(|m| (-m.abs()).exp().ln_1p() + (-m).max(0.0)).collect::<Vec<_>>()),
        logps: [of(&|pair| pair.policy[0]), of(&|pair| pair.policy[1])],
        tokens: [of(&|pair| pair.tokens[0] as f64), of(&|pair| pair.tokens[1] as f64)],
        length: length_bias(pairs, &margins),
        calibration: calibration(&margins),
    }
}

/// Computes the figures of each source, under its name, and of each task, under `task:NAME`.
///
/// # Examples
/// ```
/// use simplemix_eval::{ScoredPair, preference_groups};
/// let pair = ScoredPair {
///     source: "on".into(), task: Some("math".into()), policy: [-8.0, -10.0], reference: [-9.0, -9.0], tokens: [5, 4],
/// };
/// let groups = preference_groups(&[pair], 0.1);
/// assert_eq!(groups.keys().collect::<Vec<_>>(), ["on", "task:math"]);
/// ```
pub fn preference_groups(pairs: &[ScoredPair], beta: f64) -> BTreeMap<String, PreferenceFigures> {
    let mut groups: BTreeMap<String, Vec<ScoredPair>> = BTreeMap::new();
    for pair in pairs {
        groups.entry(pair.source.clone()).or_default().push(pair.clone());
        if let Some(task) = &pair.task {
            groups.entry(format!("task:{task}")).or_default().push(pair.clone());
        }
    }
    groups.into_iter().map(|(name, pairs)| (name, preference_figures(&pairs, beta))).collect()
}

fn length_bias(pairs: &[ScoredPair], margins: &[f64]) -> LengthBias {
    let gap = |pair: &ScoredPair| pair.tokens[0] as f64 - pair.tokens[1] as f64;
    let gaps: Vec<f64> = pairs.iter().map(gap).collect();
    let both = || gaps.iter().zip(margins);
    let share = |outcomes: Vec<bool>| if outcomes.is_empty() { f64::NAN } else { Share::of(outcomes).value() };
    LengthBias {
        chosen_longer: share(gaps.iter().map(|gap| *gap > 0.0).collect()),
        longer_preferred: share(
            both().filter(|(gap, _)| **gap != 0.0).map(|(gap, margin)| gap * margin > 0.0).collect(),
        ),
        accuracy_chosen_longer: share(both().filter(|(gap, _)| **gap > 0.0).map(|(_, margin)| *margin > 0.0).collect()),
        accuracy_chosen_shorter: share(
            both().filter(|(gap, _)| **gap < 0.0).map(|(_, margin)| *margin > 0.0).collect(),
        ),
        correlation: correlation(&gaps, margins),
    }
}

/// Pearson's correlation; NaN if either side does not vary.
fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let (centre_a, centre_b) = (mean(a), mean(b));
    let products: f64 = a.iter().zip(b).map(|(a, b)| (a - centre_a) * (b - centre_b)).sum();
    products / (deviation(a) * deviation(b) * (a.len() as f64 - 1.0))
}

fn calibration(margins: &[f64]) -> Calibration {
    let mut held = vec![(0usize, 0.0, 0.0); BINS];
    for margin in margins {
        let confidence = sigmoid(margin.abs());
        let right = if *margin > 0.0 {
            1.0
        } else if *margin < 0.0 {
            0.0
        } else {
            0.5
        };
        let place = (((confidence - 0.5) * 2.0 * BINS as f64) as usize).min(BINS - 1);
        let bin = &mut held[place];
        *bin = (bin.0 + 1, bin.1 + confidence, bin.2 + right);
    }
    let bin = |(place, (pairs, confidence, right)): (usize, (usize, f64, f64))| Bin {
        from: 0.5 + place as f64 / (2 * BINS) as f64,
        pairs,
        confidence: confidence / pairs as f64,
        accuracy: right / pairs as f64,
    };
    let bins: Vec<Bin> = held.into_iter().enumerate().filter(|(_, held)| held.0 > 0).map(bin).collect();
    let gap = |bin: &Bin| bin.pairs as f64 * (bin.accuracy - bin.confidence).abs();
    Calibration {
        ece: bins.iter().map(gap).sum::<f64>() / margins.len() as f64,
        brier: mean(&margins.iter().map(|m| (1.0 - sigmoid(*m)).powi(2)).collect::<Vec<_>>()),
        bins,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(source: &str, policy: [f64; 2], reference: [f64; 2], tokens: [u64; 2]) -> ScoredPair {
        ScoredPair { source: source.into(), task: Some("math".into()), policy, reference, tokens }
    }

    /// Computed by NumPy:
    /// ```python
    /// m = np.array([1.0, -0.5, 0.25, 2.0]); g = np.array([3, 2, -1, -4]); p = 1/(1+np.exp(-m))
    /// m.mean(), m.std(ddof=1)/2, np.log1p(np.exp(-m)).mean(), np.corrcoef(g, m)[0, 1], ((1-p)**2).mean()
    /// c = np.maximum(p, 1-p); r = m > 0
    /// b = np.minimum(((c-.5)*20).astype(int), 9)
    /// sum((b==k).sum()*abs(r[b==k].mean()-c[b==k].mean()) for k in set(b))/4
    /// ```
    #[test]
    fn figures_match_numpy() {
        let pairs = [
            pair("a", [-10.0, -12.0], [-11.0, -12.0], [8, 5]),
            pair("a", [-9.5, -9.0], [-9.0, -9.0], [6, 4]),
            pair("b", [-7.75, -9.0], [-8.0, -9.0], [3, 4]),
            pair("b", [-5.0, -8.0], [-7.0, -8.0], [1, 5]),
        ];
        let found = preference_figures(&pairs, 1.0);
        let close =
            |found: f64, expected: f64| assert!((found - expected).abs() < 1e-7, "{found}, expected {expected}");
        close(found.accuracy, 0.75);
        close(found.margin, 0.6875);
        close(found.margin_standard_error, 0.534_000_23);
        close(found.loss, 0.497_551_53);
        close(found.length.correlation, -0.616_861_01);
        close(found.calibration.brier, 0.166_420_97);
        close(found.calibration.ece, 0.362_106_79);
        assert_eq!((found.length.chosen_longer, found.length.longer_preferred), (0.5, 0.25));
        assert_eq!((found.length.accuracy_chosen_longer, found.length.accuracy_chosen_shorter), (0.5, 1.0));
        assert_eq!(found.calibration.bins.len(), 4);
        let groups = preference_groups(&pairs, 1.0);
        assert_eq!(groups.keys().map(String::as_str).collect::<Vec<_>>(), ["a", "b", "task:math"]);
        assert_eq!((groups["a"].accuracy, groups["task:math"].pairs), (0.5, 4));
    }

    #[test]
    fn a_model_like_its_reference_prefers_nothing() {
        let same = pair("a", [-3.0, -4.0], [-3.0, -4.0], [1, 1]);
        let found = preference_figures(&[same.clone(), same], 0.1);
        assert_eq!((found.accuracy, found.margin, found.calibration.ece), (0.0, 0.0, 0.0));
        assert!((found.loss - std::f64::consts::LN_2).abs() < 1e-15);
        assert!(found.length.longer_preferred.is_nan() && preference_figures(&[], 1.0).margin.is_nan());
    }
}
