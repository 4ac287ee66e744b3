//! The length-controlled win rate of AlpacaEval 2.0 (Dubois et al. 2024, arXiv:2404.04475), `length_controlled_v1`.
//!
//! The model wins an instruction with probability `sigmoid(theta * l + b * d + a)`, where `l = tanh(delta / sd)` of the
//! difference in length, `d` is the difficulty of the instruction, and `a` the strength of the model. The
//! length-controlled win rate is the mean of this with `l = 0`. The fit is a logistic regression with an L1 penalty
//! over the verdicts on the model and, with little weight, over those on the baseline told to be verbose or concise,
//! which pin `theta` down.

use crate::alpaca::annotation::{Annotation, Annotations};
use crate::alpaca::folds::group_k_fold;
use crate::alpaca::tables::{GamedRow, GlmWeights};
use crate::error::{Error, Result};
use crate::logistic::{Sample, fit_l1, sigmoid};
use crate::stats::{deviation, mean, standard_error};

/// Length-controlled figures of one model.
#[derive(Debug, Clone, PartialEq)]
pub struct LengthControlled {
    /// Weights, fitted or given.
    pub weights: GlmWeights,
    /// Weight of the data against the penalty; `None` if the weights were given.
    pub c: Option<f64>,
    /// Length-controlled win rate in percent.
    pub win_rate: f64,
    /// Standard error of the win rate over instructions, in percent; it ignores that the weights are estimates.
    pub standard_error: f64,
    /// Probability to win each row at equal lengths.
    pub predicted: Vec<f64>,
}

/// Number of weights of the data that are tried, `numpy.logspace(-4, 4, 10)`.
const CS: i32 = 10;
const FOLDS: usize = 5;
/// Weight of a gamed row: a fifth of a model's row, divided between the two of each instruction.
const GAMED_WEIGHT: f64 = 0.2 / 2.0;

/// Constant inputs of the fit.
///
/// # Examples
/// ```
/// use simplemix_eval::alpaca::{GamedRow, LengthControl};
///
/// let row = |index, std_delta_len| GamedRow {
///     preference: Some(0.4),
///     index,
///     std_delta_len,
///     instruction_difficulty: 0.5,
/// };
/// let control = LengthControl::new(&[row(0, -1.0), row(1, 1.0)], None);
/// assert_eq!(control.difficulty(), [0.5, 0.5]);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct LengthControl {
    gamed: Vec<Sample<3>>,
    difficulty: Vec<f64>,
}

impl LengthControl {
    /// Takes the rows of `df_gamed.csv`. By default, the difficulties are taken from these rows too.
    pub fn new(gamed: &[GamedRow], difficulty: Option<Vec<f64>>) -> Self {
        let sample = |row: &GamedRow| {
            let features = [row.std_delta_len.tanh(), row.instruction_difficulty, 0.0];
            Some(Sample { features, target: row.preference?, weight: GAMED_WEIGHT })
        };
        // The official package takes the first row of each instruction.
        let firsts = || {
            let mut found = Vec::new();
            for row in gamed {
                if row.index == found.len() {
                    found.push(row.instruction_difficulty);
                }
            }
            found
        };
        Self { gamed: gamed.iter().filter_map(sample).collect(), difficulty: difficulty.unwrap_or_else(firsts) }
    }

    /// Difficulty of each instruction, by number.
    pub fn difficulty(&self) -> &[f64] {
        &self.difficulty
    }

    /// Fits a model. Five-fold cross-validation chooses the weight of the data among ten values, as scikit-learn's
    /// `LogisticRegressionCV(Cs=10, penalty="l1", fit_intercept=False)` does with alpaca_eval's score, the mean over
    /// folds of the weighted log loss. Training rows are the gamed ones, with a weight of a tenth, then those of the
    /// model. The baseline itself has weights 0 and a win rate of 50.
    ///
    /// The solver continues to the minimum, where the official package stops liblinear early: the difference is at most
    /// 0.016 points over the 56 public models.
    ///
    /// # Errors
    /// [`Error::LengthControl`] if a row has no lengths or no difficulty, or there are no gamed rows.
    pub fn fit(&self, annotations: &Annotations) -> Result<LengthControlled> {
        if annotations.is_baseline() {
            return self.predict(annotations, GlmWeights::default());
        }
        let samples = self.samples(annotations)?;
        let c = best_c(&samples)?;
        self.fit_samples(annotations, &samples, c)
    }

    /// Fits a model with a given weight of the data.
    ///
    /// # Errors
    /// Those of [`fit`](Self::fit).
    pub fn fit_at(&self, annotations: &Annotations, c: f64) -> Result<LengthControlled> {
        self.fit_samples(annotations, &self.samples(annotations)?, c)
    }

    fn fit_samples(&self, annotations: &Annotations, samples: &[Sample<3>], c: f64) -> Result<LengthControlled> {
        let [length, difficulty, model] = fit_l1(samples, c, [0.0; 3])?;
        let found = self.predict(annotations, GlmWeights { length, difficulty, model })?;
        Ok(LengthControlled { c: Some(c), ..found })
    }

    fn predict(&self, annotations: &Annotations, weights: GlmWeights) -> Result<LengthControlled> {
        predict(annotations, weights, &self.difficulty)
    }

    /// Training rows: the gamed ones, then those of the model.
    pub(crate) fn samples(&self, annotations: &Annotations) -> Result<Vec<Sample<3>>> {
        if self.gamed.is_empty() {
            let (model, reason) =
                (annotations.model.clone(), "no gamed rows to pin the effect of length down".to_owned());
            return Err(Error::LengthControl { model, reason });
        }
        let own = own_samples(annotations, &self.difficulty)?;
        Ok(self.gamed.iter().copied().chain(own).collect())
    }

    /// Difficulty of each row of a model.
    pub(crate) fn difficulties(&self, annotations: &Annotations) -> Result<Vec<f64>> {
        annotations.rows.iter().map(|row| difficulty_of(annotations, row, &self.difficulty)).collect()
    }

    /// Number of gamed rows among the [`samples`](Self::samples).
    pub(crate) fn gamed(&self) -> usize {
        self.gamed.len()
    }
}

/// Computes the length-controlled win rate of a model under given weights.
///
/// # Errors
/// [`Error::LengthControl`] if a row has no difficulty.
pub fn predict(annotations: &Annotations, weights: GlmWeights, difficulty: &[f64]) -> Result<LengthControlled> {
    let chance = |row: &Annotation| {
        Ok(sigmoid(weights.difficulty * difficulty_of(annotations, row, difficulty)? + weights.model))
    };
    let predicted: Vec<f64> = annotations.rows.iter().map(chance).collect::<Result<_>>()?;
    let (win_rate, standard_error) = (100.0 * mean(&predicted), 100.0 * standard_error(&predicted));
    Ok(LengthControlled { weights, c: None, win_rate, standard_error, predicted })
}

/// Whether a length-controlled win rate is so far from the plain one that the official package warns of a failed fit:
/// more than 10 points, and more than a quarter of the distance from the plain rate to 0 or 100.
///
/// # Examples
/// ```
/// use simplemix_eval::alpaca::is_extreme_change;
/// assert!(is_extreme_change(50.0, 30.0));
/// assert!(!is_extreme_change(50.0, 45.0));
/// ```
pub fn is_extreme_change(plain: f64, controlled: f64) -> bool {
    controlled < (plain - plain / 4.0).min(plain - 10.0)
        || controlled > (plain + (100.0 - plain) / 4.0).max(plain + 10.0)
}

fn difficulty_of(annotations: &Annotations, row: &Annotation, difficulty: &[f64]) -> Result<f64> {
    difficulty.get(row.row).copied().ok_or_else(|| Error::LengthControl {
        model: annotations.model.clone(),
        reason: format!("row {} has no difficulty, expected a row from 0 to {}", row.row, difficulty.len().max(1) - 1),
    })
}

/// Rows of the model that have a verdict, as samples.
fn own_samples(annotations: &Annotations, difficulty: &[f64]) -> Result<Vec<Sample<3>>> {
    let wrong = |reason: String| Error::LengthControl { model: annotations.model.clone(), reason };
    let mut deltas = Vec::with_capacity(annotations.rows.len());
    for row in &annotations.rows {
        let [baseline, model] =
            row.lengths.ok_or_else(|| wrong(format!("row {} has no lengths of both responses", row.row)))?;
        deltas.push(baseline as f64 - model as f64);
    }
    // Not centred, as in the official package. If all differences are equal, they carry no information.
    let spread = deviation(&deltas);
    let standardised = |delta: f64| if spread > 0.0 { (delta / spread).tanh() } else { 0.0 };
    let mut samples = Vec::with_capacity(deltas.len());
    for (row, delta) in annotations.rows.iter().zip(&deltas) {
        let features = [standardised(*delta), difficulty_of(annotations, row, difficulty)?, 1.0];
        samples.extend(row.outcome().map(|target| Sample { features, target, weight: 1.0 }));
    }
    match samples.is_empty() {
        true => Err(wrong("no row has a verdict".to_owned())),
        false => Ok(samples),
    }
}

/// The weight of the data with the least loss on held-out rows; the first among equals.
fn best_c(samples: &[Sample<3>]) -> Result<f64> {
    let losses = cross_validate(samples, &group_k_fold(samples.len(), FOLDS), FOLDS)?;
    let least = losses
        .iter()
        .copied()
        .enumerate()
        .fold((0, f64::INFINITY), |least, (place, loss)| if loss < least.1 { (place, loss) } else { least });
    Ok(c_values()[least.0])
}

fn c_values() -> Vec<f64> {
    (0..CS).map(|i| 10f64.powf(-4.0 + 8.0 * f64::from(i) / f64::from(CS - 1))).collect()
}

/// Loss on held-out rows for each weight of the data, as a mean over folds.
fn cross_validate(samples: &[Sample<3>], fold_of: &[usize], folds: usize) -> Result<Vec<f64>> {
    let cs = c_values();
    let mut losses = vec![0.0; cs.len()];
    for fold in 0..folds {
        let split = |held: bool| -> Vec<Sample<3>> {
            let chosen = samples.iter().zip(fold_of).filter(|(_, f)| (**f == fold) == held);
            chosen.map(|(sample, _)| *sample).collect()
        };
        let (train, held) = (split(false), split(true));
        let mut beta = [0.0; 3];
        for (c, loss) in cs.iter().zip(&mut losses) {
            // Each fit starts from the one with the stronger penalty.
            beta = fit_l1(&train, *c, beta)?;
            *loss += log_loss(&held, &beta) / folds as f64;
        }
    }
    Ok(losses)
}

fn log_loss(samples: &[Sample<3>], beta: &[f64; 3]) -> f64 {
    let loss = |s: &Sample<3>| {
        let p = sigmoid(crate::logistic::dot(&s.features, beta)).clamp(1e-15, 1.0 - 1e-15);
        -s.weight * (s.target * p.ln() + (1.0 - s.target) * (1.0 - p).ln())
    };
    samples.iter().map(loss).sum::<f64>() / samples.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of scikit-learn's liblinear with a tight tolerance: tests/golden/eval_alpaca.py.
    #[test]
    fn regressions_are_scikit_learns() {
        let golden = include_str!("eval_alpaca.json");
        let golden: serde_json::Value = serde_json::from_str(golden).unwrap();
        let numbers = |value: &serde_json::Value| -> Vec<f64> { serde_json::from_value(value.clone()).unwrap() };
        for case in golden["regressions"].as_array().unwrap() {
            let features: Vec<[f64; 3]> = serde_json::from_value(case["features"].clone()).unwrap();
            let (targets, weights) = (numbers(&case["targets"]), numbers(&case["weights"]));
            let sample = |i: usize| Sample { features: features[i], target: targets[i], weight: weights[i] };
            let samples: Vec<Sample<3>> = (0..targets.len()).map(sample).collect();
            let coefficients: Vec<[f64; 3]> = serde_json::from_value(case["coefficients"].clone()).unwrap();
            assert_eq!(coefficients.len(), 10);
            for (c, expected) in c_values().into_iter().zip(coefficients) {
                let found = fit_l1(&samples, c, [0.0; 3]).unwrap();
                for (found, expected) in found.iter().zip(expected) {
                    assert!((found - expected).abs() < 2e-6, "C {c}: {found}, expected {expected}");
                }
            }
            let losses = cross_validate(&samples, &group_k_fold(samples.len(), 5), 5).unwrap();
            for (found, expected) in losses.iter().zip(numbers(&case["losses"])) {
                assert!((found - expected).abs() < 1e-7, "{found}, expected {expected}");
            }
            let best = case["best"].as_u64().unwrap() as usize;
            assert_eq!(best_c(&samples).unwrap(), c_values()[best]);
        }
    }

    #[test]
    fn the_weights_tried_are_numpys() {
        let cs = c_values();
        assert_eq!((cs[0], cs[9], cs.len()), (1e-4, 1e4, 10));
        assert!((cs[5] - 2.782_559_402_207_126).abs() < 1e-14);
    }
}
