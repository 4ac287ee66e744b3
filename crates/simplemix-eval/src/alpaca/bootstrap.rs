//! Intervals of win rates, by drawing a model's rows anew (Efron's percentile bootstrap).

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::Serialize;

use crate::alpaca::annotation::Annotations;
use crate::alpaca::length_control::{LengthControl, LengthControlled};
use crate::logistic::{Sample, derivatives, newton_step, sigmoid};
use crate::stats::quantile;

/// Bounds that hold a figure in 95 of 100 repetitions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// Lower bound.
    pub low: f64,
    /// Upper bound.
    pub high: f64,
}

/// How rows are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bootstrap {
    /// Times that all rows are drawn anew.
    pub replicates: u32,
    /// What the draws follow from.
    pub seed: u64,
}

impl Bootstrap {
    /// Intervals of the win rate and of the length-controlled one, where there is a fit: it is done again for each
    /// replicate, at the same weight of the data. The gamed rows stay as they are.
    pub(crate) fn intervals(
        self,
        annotations: &Annotations,
        fitted: Option<(&LengthControl, &LengthControlled)>,
    ) -> (Interval, Option<Interval>) {
        let outcomes: Vec<Option<f64>> = annotations.rows.iter().map(|row| row.outcome()).collect();
        let refit = fitted.map(|(control, found)| Refit::new(control, annotations, found));
        let (mut plain, mut controlled) = (Vec::new(), Vec::new());
        for replicate in 0..self.replicates {
            let counts = self.counts(replicate, outcomes.len());
            let drawn =
                || outcomes.iter().zip(&counts).filter_map(|(y, count)| Some((*y.as_ref()?, f64::from(*count))));
            let total: f64 = drawn().map(|(_, count)| count).sum();
            plain.push(100.0 * drawn().map(|(y, count)| y * count).sum::<f64>() / total);
            controlled.extend(refit.as_ref().map(|refit| refit.win_rate(&counts)));
        }
        (interval(plain), fitted.map(|_| interval(controlled)))
    }

    /// How often each of `rows` rows is drawn in a replicate; a stream of its own each.
    fn counts(self, replicate: u32, rows: usize) -> Vec<u32> {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        random.set_stream(u64::from(replicate));
        let mut counts = vec![0; rows];
        for _ in 0..rows {
            // The upper half of a product: uniform to within 2^-22 for a thousand rows.
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

/// A fit to do again and again with other weights of the rows.
struct Refit {
    /// Training rows, the model's last; none where the weights are not fitted.
    samples: Vec<Sample<3>>,
    gamed: usize,
    c: f64,
    beta: [f64; 3],
    /// Which of the model's rows have a verdict, in the order of the samples.
    judged: Vec<usize>,
    difficulty: Vec<f64>,
}

impl Refit {
    fn new(control: &LengthControl, annotations: &Annotations, found: &LengthControlled) -> Self {
        let samples = found.c.and_then(|_| control.samples(annotations).ok()).unwrap_or_default();
        let weights = found.weights;
        let rows = || annotations.rows.iter().enumerate();
        let difficulty = |row: usize| control.difficulty().get(row).copied().unwrap_or_default();
        Self {
            samples,
            gamed: control.gamed(),
            c: found.c.unwrap_or_default(),
            beta: [weights.length, weights.difficulty, weights.model],
            judged: rows().filter(|(_, row)| row.outcome().is_some()).map(|(place, _)| place).collect(),
            difficulty: rows().map(|(_, row)| difficulty(row.row)).collect(),
        }
    }

    /// Length-controlled win rate with each row counted as often as it was drawn.
    fn win_rate(&self, counts: &[u32]) -> f64 {
        let mut beta = self.beta;
        if !self.samples.is_empty() {
            let mut samples = self.samples.clone();
            for (sample, row) in samples[self.gamed..].iter_mut().zip(&self.judged) {
                sample.weight = f64::from(counts[*row]);
            }
            // The full fit is near: two Newton steps from it leave less than a thousandth of a point.
            for _ in 0..2 {
                let (gradient, hessian) = derivatives(&samples, self.c, &beta);
                let step = newton_step(&beta, &gradient, &hessian);
                beta.iter_mut().zip(step).for_each(|(b, s)| *b += s);
            }
        }
        let chances = self.difficulty.iter().zip(counts).filter(|(_, count)| **count > 0);
        let sum: f64 = chances.map(|(d, count)| f64::from(*count) * sigmoid(beta[1] * d + beta[2])).sum();
        100.0 * sum / counts.iter().sum::<u32>() as f64
    }
}
