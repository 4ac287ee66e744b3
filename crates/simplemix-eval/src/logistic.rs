//! Logistic regression with an L1 penalty, weights and soft targets, solved to convergence by proximal Newton steps,
//! each of which is found by coordinate descent (Lee, Sun and Saunders 2014, arXiv:1206.1623).
//!
//! The solver is meant for a few features: the Hessian is a small dense matrix.

use crate::error::{Error, Result};

/// One row of the data.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sample<const D: usize> {
    /// Values of the features.
    pub(crate) features: [f64; D],
    /// Probability of the label 1, in [0, 1].
    pub(crate) target: f64,
    /// Weight of the row, at least 0.
    pub(crate) weight: f64,
}

/// Most iterations of the solver. Problems with a minimum take about ten.
const ITERATIONS: usize = 200;
/// Least curvature of a row, so that there is a step even far from the minimum, where the curvature vanishes. It
/// changes the path to the minimum, not the minimum.
const LEAST_CURVE: f64 = 1e-9;
/// Size of a step, relative to the coefficients, below which the search ends.
const TOLERANCE: f64 = 1e-11;

/// Finds the coefficients that minimise `|beta|_1 + C * sum_i w_i * (softplus(z_i) - y_i * z_i)`, with `z = x · beta`
/// and no intercept. That is the objective of scikit-learn's `LogisticRegression(penalty="l1", fit_intercept=False)`,
/// where a soft target `y` stands for two rows of weights `w * y` and `w * (1 - y)`. The search begins at `start`.
///
/// # Errors
/// [`Error::NotConverged`] if a number among the samples is not finite.
pub(crate) fn fit_l1<const D: usize>(samples: &[Sample<D>], c: f64, start: [f64; D]) -> Result<[f64; D]> {
    let mut beta = start;
    let mut value = objective(samples, c, &beta);
    for _ in 0..ITERATIONS {
        let (gradient, hessian) = derivatives(samples, c, &beta);
        let step = newton_step(&beta, &gradient, &hessian);
        let length = largest(&step);
        if !length.is_finite() || !value.is_finite() {
            break;
        }
        if length <= TOLERANCE * (1.0 + largest(&beta)) {
            return Ok(beta);
        }
        // Decrease that the quadratic model predicts; below rounding, there is nothing left to gain.
        let full = moved(&beta, &step, 1.0);
        let predicted = dot(&gradient, &step) + norm(&full) - norm(&beta);
        if predicted > -1e-14 * value.abs() {
            return Ok(full);
        }
        match descend(samples, c, &beta, &step, value, predicted) {
            Some(found) => (beta, value) = found,
            // Sums over the samples round at about this size.
            None if predicted > -1e-10 * value.abs() => return Ok(full),
            None => break,
        }
    }
    Err(Error::NotConverged { c, iterations: ITERATIONS })
}

/// Halves the step until it lowers the objective enough (Armijo's rule); `None` if rounding hides the decrease.
fn descend<const D: usize>(
    samples: &[Sample<D>],
    c: f64,
    beta: &[f64; D],
    step: &[f64; D],
    value: f64,
    predicted: f64,
) -> Option<([f64; D], f64)> {
    (0..60).find_map(|halvings| {
        let share = 0.5f64.powi(halvings);
        let next = moved(beta, step, share);
        let lower = objective(samples, c, &next);
        (lower <= value + 1e-4 * share * predicted).then_some((next, lower))
    })
}

/// Computes `1 / (1 + e^-z)`.
///
/// # Examples
/// ```
/// assert_eq!(simplemix_eval::sigmoid(0.0), 0.5);
/// assert_eq!(simplemix_eval::sigmoid(-800.0), 0.0);
/// ```
pub fn sigmoid(z: f64) -> f64 {
    // The exponential of a negative number never overflows.
    let e = (-z.abs()).exp();
    if z >= 0.0 { 1.0 / (1.0 + e) } else { e / (1.0 + e) }
}

fn objective<const D: usize>(samples: &[Sample<D>], c: f64, beta: &[f64; D]) -> f64 {
    let loss = |s: &Sample<D>| {
        let z = dot(&s.features, beta);
        let softplus = z.max(0.0) + (-z.abs()).exp().ln_1p();
        s.weight * (softplus - s.target * z)
    };
    norm(beta) + c * samples.iter().map(loss).sum::<f64>()
}

type Matrix<const D: usize> = [[f64; D]; D];

/// Gradient and Hessian of the smooth part.
pub(crate) fn derivatives<const D: usize>(samples: &[Sample<D>], c: f64, beta: &[f64; D]) -> ([f64; D], Matrix<D>) {
    let (mut gradient, mut hessian) = ([0.0; D], [[0.0; D]; D]);
    for s in samples {
        let p = sigmoid(dot(&s.features, beta));
        let (slope, curve) = (s.weight * (p - s.target), s.weight * (p * (1.0 - p)).max(LEAST_CURVE));
        for ((g, row), x) in gradient.iter_mut().zip(&mut hessian).zip(s.features) {
            *g += slope * x;
            for (h, other) in row.iter_mut().zip(s.features) {
                *h += curve * x * other;
            }
        }
    }
    (gradient.map(|g| c * g), hessian.map(|row| row.map(|h| c * h)))
}

/// Finds the step `d` that minimises `g·d + d·Hd/2 + |beta + d|_1`, coordinate by coordinate.
pub(crate) fn newton_step<const D: usize>(beta: &[f64; D], gradient: &[f64; D], hessian: &Matrix<D>) -> [f64; D] {
    // A feature that is always 0 has no curvature. With a tiny one, the penalty sets its coefficient to 0.
    let least = (0..D).map(|i| hessian[i][i]).fold(0.0, f64::max) * 1e-12 + f64::MIN_POSITIVE;
    let mut step = [0.0; D];
    for _ in 0..10_000 {
        let mut change = 0.0f64;
        for j in 0..D {
            let curve = hessian[j][j].max(least);
            let slope = gradient[j] + dot(&hessian[j], &step);
            let target = soft(beta[j] + step[j] - slope / curve, 1.0 / curve);
            change = change.max((target - beta[j] - step[j]).abs());
            step[j] = target - beta[j];
        }
        if change <= 1e-15 * (1.0 + largest(beta)) {
            break;
        }
    }
    step
}

/// Moves `value` towards 0 by `by`.
fn soft(value: f64, by: f64) -> f64 {
    if value > by {
        value - by
    } else if value < -by {
        value + by
    } else {
        0.0
    }
}

pub(crate) fn dot<const D: usize>(a: &[f64; D], b: &[f64; D]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn norm<const D: usize>(beta: &[f64; D]) -> f64 {
    beta.iter().map(|b| b.abs()).sum()
}

fn largest<const D: usize>(values: &[f64; D]) -> f64 {
    // `f64::max` would hide a NaN.
    values.iter().fold(0.0, |most, v| if v.abs() > most || v.is_nan() { v.abs() } else { most })
}

fn moved<const D: usize>(beta: &[f64; D], step: &[f64; D], share: f64) -> [f64; D] {
    std::array::from_fn(|i| beta[i] + share * step[i])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Sample<2>> {
        let row = |i: i32| {
            let x = f64::from(i) / 10.0 - 1.0;
            Sample { features: [x, 1.0], target: if i % 3 == 0 { 0.9 } else { 0.2 }, weight: 1.0 }
        };
        (0..20).map(row).collect()
    }

    #[test]
    fn the_minimum_has_a_zero_subgradient() {
        for c in [1e-4, 0.1, 1.0, 1e4] {
            let beta = fit_l1(&samples(), c, [0.0; 2]).unwrap();
            let (gradient, _) = derivatives(&samples(), c, &beta);
            for (b, g) in beta.iter().zip(gradient) {
                let rest = if *b == 0.0 { (g.abs() - 1.0).max(0.0) } else { (g + b.signum()).abs() };
                assert!(rest < 1e-9 * (1.0 + c), "C {c}: {beta:?} {gradient:?}");
            }
        }
    }

    /// A single feature that is always 1: the minimum is where C * n * (p - y) = -1, so p = 0.8 - 1/10.
    #[test]
    fn a_minimum_known_by_hand_is_found() {
        let sample = Sample { features: [1.0], target: 0.8, weight: 1.0 };
        let [beta] = fit_l1(&[sample; 10], 1.0, [0.0]).unwrap();
        assert!((beta - (0.7f64 / 0.3).ln()).abs() < 1e-9);
    }

    #[test]
    fn the_start_does_not_matter() {
        let from_zero = fit_l1(&samples(), 10.0, [0.0; 2]).unwrap();
        let from_afar = fit_l1(&samples(), 10.0, [-30.0, 50.0]).unwrap();
        for (a, b) in from_zero.iter().zip(from_afar) {
            assert!((a - b).abs() < 1e-9);
        }
    }

    #[test]
    fn a_feature_without_values_stays_at_zero() {
        let sample = |y| Sample { features: [0.0, 1.0], target: y, weight: 1.0 };
        let beta = fit_l1(&[sample(1.0), sample(0.5)], 100.0, [2.0, 0.0]).unwrap();
        assert_eq!(beta[0], 0.0);
    }

    #[test]
    fn nan_is_an_error() {
        let sample = Sample { features: [f64::NAN], target: 0.5, weight: 1.0 };
        assert!(matches!(fit_l1(&[sample], 1.0, [0.0]), Err(Error::NotConverged { .. })));
    }

    #[test]
    fn sigmoid_reaches_its_ends() {
        assert_eq!((sigmoid(800.0), sigmoid(-800.0), sigmoid(0.0)), (1.0, 0.0, 0.5));
    }
}
