//! Which source comes next, so that no prefix strays from the shares.
//!
//! Two sources need no table: after `t` rows the first has given `round(w t)`. More take Tijdeman's rule for the
//! chairman assignment problem ("The chairman assignment problem", Discrete Mathematics 32, 1980): of the sources that
//! are at least `1/(2k - 2)` behind, the one whose deadline comes first. Its counts stay within `1 - 1/(2k - 2)` of
//! their shares, which no rule can better, and repeat after as many rows as the common denominator, so one period is
//! tabled. All of it is integer arithmetic.

use crate::error::{Error, Result};
use crate::weight::{Weight, gcd};

/// Longest period that is tabled, in rows.
pub const PERIOD_LIMIT: u64 = 1 << 22;

/// The order of sources: a pure function of the row's number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SourceOrder {
    /// One source.
    One,
    /// `a` rows of the first source in every `q`.
    Two { a: u64, q: u64 },
    /// One period: source of each row, and how many rows of it came before in the period.
    Many { shares: Vec<u64>, table: Vec<(u16, u32)> },
}

impl SourceOrder {
    pub(crate) fn new(weights: &[Weight]) -> Result<Self> {
        let shares = integers(weights)?;
        let period: u64 = shares.iter().sum();
        match shares[..] {
            [_] => Ok(Self::One),
            [a, _] => Ok(Self::Two { a, q: period }),
            _ if period <= PERIOD_LIMIT => Ok(Self::Many { table: tijdeman(&shares, period), shares }),
            _ => Err(Error::Period { found: u128::from(period), limit: PERIOD_LIMIT }),
        }
    }

    /// Source of row `step`, and how many rows of it come before.
    pub(crate) fn at(&self, step: u64) -> (usize, u64) {
        match self {
            Self::One => (0, step),
            Self::Two { a, q } => {
                let (before, after) = (rounded(*a, *q, step), rounded(*a, *q, step + 1));
                if after > before { (0, before) } else { (1, step - before) }
            }
            Self::Many { shares, table } => {
                let period = table.len() as u64;
                let (source, rank) = table[(step % period) as usize];
                (usize::from(source), step / period * shares[usize::from(source)] + u64::from(rank))
            }
        }
    }

    /// Rows of `source` among the first `steps`.
    pub(crate) fn count(&self, source: usize, steps: u64) -> u64 {
        match self {
            Self::One => steps,
            Self::Two { a, q } => {
                let first = rounded(*a, *q, steps);
                if source == 0 { first } else { steps - first }
            }
            Self::Many { shares, table } => {
                let period = table.len() as u64;
                let rest = &table[..(steps % period) as usize];
                let in_rest = rest.iter().filter(|(s, _)| usize::from(*s) == source).count();
                steps / period * shares[source] + in_rest as u64
            }
        }
    }
}

/// `a t / q` to the nearest whole number, halves up.
fn rounded(a: u64, q: u64, t: u64) -> u64 {
    let (a, q, t) = (u128::from(a), u128::from(q), u128::from(t));
    ((2 * a * t + q) / (2 * q)) as u64
}

/// Weights over their common denominator, in lowest terms.
fn integers(weights: &[Weight]) -> Result<Vec<u64>> {
    let too_long = |found| Error::Period { found, limit: PERIOD_LIMIT };
    let mut denominator = 1u128;
    for weight in weights {
        let below = u128::from(weight.parts().1);
        denominator = denominator / gcd(denominator, below) * below;
        if denominator > u128::from(u64::MAX) {
            return Err(too_long(denominator));
        }
    }
    let scaled: Vec<u128> =
        weights.iter().map(|w| u128::from(w.parts().0) * (denominator / u128::from(w.parts().1))).collect();
    let common = scaled.iter().copied().fold(0, gcd_or);
    let sum: u128 = scaled.iter().map(|n| n / common.max(1)).sum();
    match sum {
        0 => Err(Error::ZeroSum),
        // Twice the product of a share and a step must fit 128 bits.
        _ if sum > 1 << 62 => Err(too_long(sum)),
        _ => Ok(scaled.iter().map(|n| (n / common) as u64).collect()),
    }
}

/// Greatest common divisor where zero stands for none.
fn gcd_or(a: u128, b: u128) -> u128 {
    match (a, b) {
        (0, n) | (n, 0) => n,
        _ => gcd(a, b),
    }
}

/// One period of Tijdeman's rule.
fn tijdeman(shares: &[u64], period: u64) -> Vec<(u16, u32)> {
    let slack = 2 * shares.len() as u128 - 2;
    let q = u128::from(period);
    let mut given = vec![0u128; shares.len()];
    (1..=q)
        .map(|t| {
            let behind = |i: usize| u128::from(shares[i]) * t * slack >= given[i] * q * slack + q;
            let deadline = |i: usize| (given[i] * slack + slack - 1) * q / (u128::from(shares[i]) * slack);
            let next = (0..shares.len()).filter(|&i| shares[i] > 0 && behind(i)).min_by_key(|&i| (deadline(i), i));
            // Some source is behind at every step, since all together have given t - 1 rows of t.
            let next = next.unwrap_or(0);
            let rank = given[next] as u32;
            given[next] += 1;
            (next as u16, rank)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn order(shares: &[u64]) -> SourceOrder {
        SourceOrder::new(&shares.iter().map(|&n| Weight::whole(n)).collect::<Vec<_>>()).unwrap()
    }

    /// Largest deviation of any source's count from its share over all prefixes of two periods, and the bound.
    fn deviation(shares: &[u64]) -> (f64, f64) {
        let order = order(shares);
        let sum: u64 = shares.iter().sum();
        let mut counts = vec![0u64; shares.len()];
        let mut worst = 0f64;
        for step in 0..2 * sum {
            let (source, rank) = order.at(step);
            assert_eq!(rank, counts[source], "{shares:?} at {step}");
            counts[source] += 1;
            for (i, &share) in shares.iter().enumerate() {
                assert_eq!(order.count(i, step + 1), counts[i]);
                let due = share as f64 * (step + 1) as f64 / sum as f64;
                worst = worst.max((counts[i] as f64 - due).abs());
            }
        }
        (worst, 1.0 - 1.0 / (2.0 * shares.len() as f64 - 2.0))
    }

    proptest! {
        #[test]
        fn no_prefix_strays_past_the_bound(shares in prop::collection::vec(1u64..60, 2..9)) {
            let (worst, bound) = deviation(&shares);
            prop_assert!(worst <= bound + 1e-9, "{worst} > {bound}");
        }

        #[test]
        fn every_batch_of_two_sources_holds_floor_or_ceil(a in 1u64..40, b in 1u64..40, size in 1u64..50) {
            let order = order(&[a, b]);
            for batch in 0..40 {
                let held = order.count(0, (batch + 1) * size) - order.count(0, batch * size);
                let due = a as f64 * size as f64 / (a + b) as f64;
                prop_assert!((held as f64 - due).abs() < 1.0, "{held} of {due}");
            }
        }
    }

    #[test]
    fn half_and_half_alternates() {
        let order = order(&[1, 1]);
        assert_eq!((0..6).map(|t| order.at(t).0).collect::<Vec<_>>(), [0, 1, 0, 1, 0, 1]);
    }

    /// Weights on which a published stateless blend returns one row twice (indices 7 and 10).
    #[test]
    fn no_rank_comes_twice_on_13_1_6() {
        let order = order(&[13, 1, 6]);
        let mut seen = std::collections::HashSet::new();
        assert!((0..10_000).all(|t| seen.insert(order.at(t))));
    }

    #[test]
    fn far_steps_are_as_exact_as_near_ones() {
        let order = order(&[3, 7]);
        let far = 10 * (1u64 << 58);
        assert_eq!(order.count(0, far), 3 * (1u64 << 58));
        assert_eq!(order.at(far).0, order.at(0).0);
    }
}
