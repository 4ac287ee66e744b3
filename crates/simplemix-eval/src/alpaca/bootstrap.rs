//! Intervals of win rates by resampling the rows of a model (Efron's percentile bootstrap).

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::Serialize;

use crate::alpaca::annotation::Annotations;
use crate::alpaca::length_control::{LengthControl, LengthControlled};
use crate::error::Result;
use crate::logistic::{Sample, derivatives, newton_step, sigmoid};
use crate::stats::quantile;

/// A 95 % confidence interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// Lower bound.
    pub low: f64,
    /// Upper bound.
    pub high: f64,
}

/// Settings of the bootstrap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bootstrap {
    /// Number of replicates, in each of which all rows are drawn with replacement.
    pub replicates: u32,
    /// Random seed.
    pub seed: u64,
}

impl Bootstrap {
    /// Intervals of the win rate and, if there is a fit, of the length-controlled one. The fit is repeated for each
    /// replicate, with the same weight of the data and the same gamed rows.
    ///
    /// # Errors
    /// Those of [`LengthControl::fit`].
    pub(crate) fn intervals(
        self,
        annotations: &Annotations,
        fitted: Option<(&LengthControl, &LengthControlled)>,
    ) -> Result<(Interval, Option<Interval>)> {
        let outcomes: Vec<Option<f64>> = annotations.rows.iter().map(|row| row.outcome()).collect();
        let refit = fitted.map(|(control, found)| Refit::new(control, annotations, found)).transpose()?;
        let (mut plain, mut controlled) = (Vec::new(), Vec::new());
        for replicate in 0..self.replicates {
            let counts = self.counts(replicate, outcomes.len());
            let drawn =
                || outcomes.iter().zip(&counts).filter_map(|(y, count)| Some((*y.as_ref()?, f64::from(*count))));
            let total: f64 = drawn().map(|(_, count)| count).sum();
            plain.push(100.0 * drawn().map(|(y, count)| y * count).sum::<f64>() / total);
            controlled.extend(refit.as_ref().map(|refit| refit.win_rate(&counts)));
        }
        Ok((interval(plain), fitted.map(|_| interval(controlled))))
    }

    /// Number of times that each of `rows` rows is drawn; each replicate has its own random stream.
    pub(crate) fn counts(self, replicate: u32, rows: usize) -> Vec<u32> {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        random.set_stream(u64::from(replicate));
        let mut counts = vec![0; rows];
        for _ in 0..rows {
            // The upper half of the product is uniform to within 2^-22 for a thousand rows.
            counts[((u64::from(random.next_u32()) * rows as u64) >> 32) as usize] += 1;
        }
        counts
    }
}

fn interval(mut values: Vec<f64>) -> Interval {
    values.retain(|value| value.is_finite());
    values.sort_by(f64::total_cmp);
    Interval { low: quantile(&values, 0.025), high: quantile(&values, 0.975) }
}

/// A model's figures, to be repeated with other numbers of each row.
struct Refit {
    /// `None` if the weights were given.
    fit: Option<Fit>,
    beta: [f64; 3],
    /// Difficulty of each row of the model.
    difficulty: Vec<f64>,
}

/// Inputs of a fit.
struct Fit {
    /// Gamed rows, then those of the model.
    samples: Vec<Sample<3>>,
    gamed: usize,
    /// Weight of the data against the penalty.
    c: f64,
    /// Indices of the model's rows that have a verdict, in the order of the samples.
    judged: Vec<usize>,
}

impl Refit {
    fn new(control: &LengthControl, annotations: &Annotations, found: &LengthControlled) -> Result<Self> {
        let weights = found.weights;
        Ok(Self {
            fit: found.c.map(|c| Fit::new(control, annotations, c)).transpose()?,
            beta: [weights.length, weights.difficulty, weights.model],
            difficulty: control.difficulties(annotations)?,
        })
    }

    /// Length-controlled win rate with each row counted as often as it was drawn.
    fn win_rate(&self, counts: &[u32]) -> f64 {
        let beta = self.fit.as_ref().map_or(self.beta, |fit| fit.coefficients(self.beta, counts));
        let chances = self.difficulty.iter().zip(counts).filter(|(_, count)| **count > 0);
        let sum: f64 = chances.map(|(d, count)| f64::from(*count) * sigmoid(beta[1] * d + beta[2])).sum();
        100.0 * sum / counts.iter().sum::<u32>() as f64
    }
}

impl Fit {
    fn new(control: &LengthControl, annotations: &Annotations, c: f64) -> Result<Self> {
        let rows = annotations.rows.iter().enumerate();
        Ok(Self {
            samples: control.samples(annotations)?,
            gamed: control.gamed(),
            c,
            judged: rows.filter(|(_, row)| row.outcome().is_some()).map(|(place, _)| place).collect(),
        })
    }

    /// Coefficients with each row counted as often as it was drawn, starting from those of the full fit.
    fn coefficients(&self, mut beta: [f64; 3], counts: &[u32]) -> [f64; 3] {
        let mut samples = self.samples.clone();
        for (sample, row) in samples[self.gamed..].iter_mut().zip(&self.judged) {
            sample.weight = f64::from(counts[*row]);
        }
        // The full fit is so close that the error after two Newton steps is less than a thousandth of a point.
        for _ in 0..2 {
            let (gradient, hessian) = derivatives(&samples, self.c, &beta);
            let step = newton_step(&beta, &gradient, &hessian);
            beta.iter_mut().zip(step).for_each(|(b, s)| *b += s);
        }
        beta
    }
}
