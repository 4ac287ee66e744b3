//! Shares that change over the run.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::weight::Weight;

/// Shares of a piece are counted in units of `1 / UNIT`.
pub(crate) const UNIT: u64 = 1 << 20;

/// Number of linear pieces that approximate a cosine.
const COSINE_PIECES: u64 = 64;

/// Shares over the run: points, and the curve between them.
///
/// # Examples
/// ```
/// use simplemix_mix::{Curve, Mixture, MixtureConfig, Schedule, SourceConfig};
/// // Off-policy pairs first, on-policy pairs last.
/// let schedule = Schedule::between(vec!["1".parse()?, "0".parse()?], vec!["0".parse()?, "1".parse()?], Curve::Linear);
/// let source = |name: &str| SourceConfig::new(name, 1000, "1".parse().unwrap());
/// let mixture = Mixture::new(MixtureConfig {
///     size: Some(1000),
///     schedule: Some(schedule),
///     ..MixtureConfig::new(vec![source("off"), source("on")], 7)
/// })?;
/// // Three quarters of the first half are off-policy pairs.
/// assert_eq!((mixture.count(0, 500), mixture.count(0, 1000)), (375, 500));
/// # Ok::<(), simplemix_mix::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Shape of the change between points.
    pub curve: Curve,
    /// Points in rising order, at least one; the first holds from the start, the last to the end.
    pub points: Vec<Point>,
}

/// Shape of the change between two points of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Curve {
    /// The shares of a point hold until the next point.
    Step,
    /// A straight line.
    Linear,
    /// Half a cosine wave, slow at both ends, made of 64 straight lines.
    Cosine,
}

/// Shares at one point of the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Point {
    /// Fraction of the run, from 0 to 1.
    pub at: Weight,
    /// One weight for each source, in the order of the sources.
    pub weights: Vec<Weight>,
}

impl Schedule {
    /// A schedule from the weights `from` at the start to the weights `to` at the end.
    pub fn between(from: Vec<Weight>, to: Vec<Weight>, curve: Curve) -> Self {
        let points = vec![Point { at: Weight::whole(0), weights: from }, Point { at: Weight::whole(1), weights: to }];
        Self { curve, points }
    }

    /// A schedule of the first source alone up to `start`, the second alone from `end`, and a straight line between
    /// them; both are fractions of the run. With off-policy pairs as the first source, this is an off-to-on curriculum.
    pub fn hand_over(start: Weight, end: Weight) -> Self {
        let (none, all) = (Weight::whole(0), Weight::whole(1));
        let points = vec![Point { at: start, weights: vec![all, none] }, Point { at: end, weights: vec![none, all] }];
        Self { curve: Curve::Linear, points }
    }

    /// Checks that every point has one weight for each source.
    pub(crate) fn check(&self, sources: usize) -> Result<()> {
        match self.points.iter().find(|point| point.weights.len() != sources) {
            None => Ok(()),
            Some(point) => {
                let found = format!("a list of {} weights at {}", point.weights.len(), point.at);
                Err(Error::Setting { key: "schedule", found, expected: "one for each source" })
            }
        }
    }

    /// The pieces of a run of `total` positions.
    pub(crate) fn pieces(&self, sources: usize, total: u64) -> Result<Vec<Piece>> {
        let wrong = |found: String, expected: &'static str| Error::Setting { key: "schedule", found, expected };
        let (Some(first), Some(last)) = (self.points.first(), self.points.last()) else {
            return Err(wrong("empty".to_owned(), "at least one point"));
        };
        self.check(sources)?;
        let mut places = Vec::new();
        for point in &self.points {
            let (above, below) = point.at.parts();
            if above > below {
                return Err(wrong(format!("a point at {}", point.at), "points from 0 to 1"));
            }
            let row = (u128::from(total) * u128::from(above) / u128::from(below)) as u64;
            if places.last().is_some_and(|&(before, _)| before > row) {
                return Err(wrong(format!("a point at {} after a later one", point.at), "points in rising order"));
            }
            places.push((row, units(&point.weights)?));
        }
        let mut pieces = Pieces { made: Vec::new(), bases: vec![0; sources] };
        let (first, last) = (units(&first.weights)?, units(&last.weights)?);
        pieces.push(0, places[0].0, &first, &first);
        for pair in places.windows(2) {
            let ((start, from), (end, to)) = (&pair[0], &pair[1]);
            match self.curve {
                Curve::Step => pieces.push(*start, *end, from, from),
                Curve::Linear => pieces.push(*start, *end, from, to),
                Curve::Cosine => {
                    let between = |part: u64| -> Vec<u64> {
                        let moved = (half_wave(part as f64 / COSINE_PIECES as f64) * UNIT as f64).round() as i128;
                        let at = |(&a, &b): (&u64, &u64)| {
                            (i128::from(a) + (i128::from(b) - i128::from(a)) * moved / i128::from(UNIT)) as u64
                        };
                        whole(from.iter().zip(to).map(at).collect())
                    };
                    let row = |part: u64| {
                        start + (u128::from(end - start) * u128::from(part) / u128::from(COSINE_PIECES)) as u64
                    };
                    for part in 0..COSINE_PIECES {
                        pieces.push(row(part), row(part + 1), &between(part), &between(part + 1));
                    }
                }
            }
        }
        let end = places[places.len() - 1].0;
        pieces.push(end, total.max(end) + 1, &last, &last);
        Ok(pieces.made)
    }
}

/// A range of positions over which shares change along a straight line.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Piece {
    pub(crate) start: u64,
    pub(crate) len: u64,
    pub(crate) shares: Vec<Line>,
}

/// Share of one source over a piece, in units of `1 / UNIT`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Line {
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// Rows due at the start of the piece, in units of `1 / (2 UNIT)` of a row.
    pub(crate) base: u128,
}

struct Pieces {
    made: Vec<Piece>,
    bases: Vec<u128>,
}

impl Pieces {
    fn push(&mut self, start: u64, end: u64, from: &[u64], to: &[u64]) {
        let len = end - start;
        if len == 0 {
            return;
        }
        let line = |((&from, &to), &base): ((&u64, &u64), &u128)| Line { from, to, base };
        let shares: Vec<Line> = from.iter().zip(to).zip(&self.bases).map(line).collect();
        for (base, line) in self.bases.iter_mut().zip(&shares) {
            *base += u128::from(line.from + line.to) * u128::from(len);
        }
        self.made.push(Piece { start, len, shares });
    }
}

/// Shares in units of `1 / UNIT` that sum to `UNIT`.
fn units(weights: &[Weight]) -> Result<Vec<u64>> {
    let values: Vec<f64> = weights.iter().map(|w| w.parts().0 as f64 / w.parts().1 as f64).collect();
    let sum: f64 = values.iter().sum();
    if sum <= 0.0 {
        return Err(Error::ZeroSum);
    }
    Ok(whole(values.iter().map(|v| (v / sum * UNIT as f64).round() as u64).collect()))
}

/// Makes shares sum to `UNIT` by adding the rounding error to the largest.
fn whole(mut shares: Vec<u64>) -> Vec<u64> {
    let sum: u64 = shares.iter().sum();
    if let Some(largest) = shares.iter_mut().max() {
        *largest = (*largest + UNIT).saturating_sub(sum);
    }
    shares
}

/// Computes `(1 - cos(pi x)) / 2` on [0, 1] by its series, in plain arithmetic that is equal on every platform.
fn half_wave(x: f64) -> f64 {
    if x > 0.5 {
        return 1.0 - half_wave(1.0 - x);
    }
    let square = (std::f64::consts::PI * x).powi(2);
    // 1 - cos y = y^2/2! - y^4/4! + ...
    let (mut term, mut sum) = (1.0, 0.0);
    for n in 1..=12 {
        term *= -square / f64::from((2 * n - 1) * (2 * n));
        sum -= term;
    }
    sum / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::{Scheduled, SourceOrder, testing::strays};
    use proptest::prelude::*;

    fn weights(values: &[u64]) -> Vec<Weight> {
        values.iter().map(|&value| Weight::whole(value)).collect()
    }

    fn order(schedule: &Schedule, sources: usize, total: u64) -> SourceOrder {
        SourceOrder::Scheduled(Scheduled::new(schedule.pieces(sources, total).unwrap(), sources, total))
    }

    #[test]
    fn a_linear_schedule_follows_its_integral() {
        let schedule = Schedule::between(weights(&[1, 0]), weights(&[0, 1]), Curve::Linear);
        let order = order(&schedule, 2, 1000);
        let due = |i: usize, t: u64| {
            let (t, first) = (t as f64, t as f64 - (t as f64).powi(2) / 2000.0);
            if i == 0 { first } else { t - first }
        };
        assert!(strays(&order, 2, 1000, due) <= 0.5 + 1e-6);
        assert_eq!((order.count(0, 500), order.count(0, 1000)), (375, 500));
    }

    #[test]
    fn a_hand_over_is_pure_at_both_ends() {
        let order = order(&Schedule::hand_over("1/4".parse().unwrap(), "3/4".parse().unwrap()), 2, 400);
        assert!((0..100).all(|t| order.at(t).0 == 0));
        assert!((300..400).all(|t| order.at(t).0 == 1));
        assert_eq!(order.count(0, 400), 200);
    }

    #[test]
    fn a_cosine_is_slow_at_both_ends_and_even_in_all() {
        let schedule = Schedule::between(weights(&[1, 0]), weights(&[0, 1]), Curve::Cosine);
        let order = order(&schedule, 2, 10_000);
        assert_eq!(order.count(0, 10_000), 5000);
        // The integral of (1 + cos(pi x)) / 2 over the first quarter: 1/8 + sqrt(1/2) / (2 pi) = 0.23754.
        assert!((order.count(0, 2500) as f64 - 2375.4).abs() < 2.0, "{}", order.count(0, 2500));
        assert!((half_wave(0.25) - (1.0 - 0.5f64.sqrt()) / 2.0).abs() < 1e-15);
    }

    #[test]
    fn a_step_changes_at_its_point() {
        let schedule = Schedule {
            curve: Curve::Step,
            points: vec![
                Point { at: Weight::whole(0), weights: weights(&[1, 0, 0]) },
                Point { at: "1/2".parse().unwrap(), weights: weights(&[0, 1, 1]) },
            ],
        };
        let order = order(&schedule, 3, 600);
        assert_eq!((0..3).map(|i| order.count(i, 600)).collect::<Vec<_>>(), [300, 150, 150]);
        assert!((0..300).all(|t| order.at(t).0 == 0));
    }

    #[test]
    fn wrong_schedules_are_named() {
        let text = |schedule: &Schedule| schedule.pieces(2, 10).unwrap_err().to_string();
        let mut schedule = Schedule::between(weights(&[1]), weights(&[1, 2]), Curve::Linear);
        assert_eq!(text(&schedule), "`schedule` is a list of 1 weights at 0, expected one for each source");
        schedule.points[0].weights = weights(&[1, 1]);
        schedule.points[1].at = Weight::whole(2);
        assert_eq!(text(&schedule), "`schedule` is a point at 2, expected points from 0 to 1");
        schedule.points.clear();
        assert_eq!(text(&schedule), "`schedule` is empty, expected at least one point");
    }

    proptest! {
        #[test]
        fn any_schedule_stays_near_its_integral(
            from in prop::collection::vec(0u64..20, 2..7), seed in 0u64..100, total in 200u64..3000,
        ) {
            prop_assume!(from.iter().sum::<u64>() > 0);
            let k = from.len();
            let to: Vec<u64> = (0..k as u64).map(|i| (i * 7 + seed * 3 + 1) % 19 + 1).collect();
            let schedule = Schedule::between(weights(&from), weights(&to), Curve::Linear);
            let order = order(&schedule, k, total);
            let share = |values: &[u64], i: usize| values[i] as f64 / values.iter().sum::<u64>() as f64;
            let due = |i: usize, t: u64| {
                let (a, b, t) = (share(&from, i), share(&to, i), t as f64);
                a * t + (b - a) * t * t / (2.0 * total as f64)
            };
            let bound = order.prefix_bound().unwrap();
            let worst = strays(&order, k, total, due);
            // The shares are rounded to 2^-20.
            prop_assert!(worst <= bound + 0.01, "{worst} > {bound}");
        }
    }
}
