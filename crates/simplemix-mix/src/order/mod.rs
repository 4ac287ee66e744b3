//! The source at each position: one rule a file, each a pure function of the position.
//!
//! | order | sources | time of `at` | memory |
//! | --- | --- | --- | --- |
//! | [`Two`] | 2 | O(1) | none |
//! | [`Interleaved`] | 3 and more | O(1) | one period |
//! | [`Batched`] | 2 and more | O(log k) | one period's batches |
//! | [`Tree`] | any | O(log k) | none |
//! | [`Bernoulli`] | any | O(log n) | none |
//! | [`Scheduled`] | any | O(log n) | O(sqrt(n)) for 3 and more |
//!
//! Here `k` is the number of sources and `n` the number of positions. `at` gives the source at a position and `nth`,
//! the number of rows that this source gives before it; `count` gives the rows of a source among the first `end`
//! positions.

mod batched;
mod bernoulli;
mod hypergeometric;
mod interleaved;
mod scheduled;
mod tree;
mod two;

use crate::error::{Error, Result};
use crate::weight::{Weight, gcd};

pub(crate) use batched::Batched;
pub(crate) use bernoulli::{Bernoulli, Cursor as BernoulliCursor};
pub(crate) use interleaved::Interleaved;
pub(crate) use scheduled::Scheduled;
pub(crate) use tree::Tree;
pub(crate) use two::Two;

/// Longest period that is kept as a table, in positions (for batches, in entries).
pub(crate) const PERIOD_LIMIT: u64 = 1 << 22;

/// The order of sources.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum SourceOrder {
    /// One source.
    One,
    Two(Two),
    Interleaved(Interleaved),
    Batched(Batched),
    Tree(Tree),
    Bernoulli(Bernoulli),
    Scheduled(Scheduled),
}

impl SourceOrder {
    /// Source at `position`, and the number of its rows before.
    #[inline]
    pub(crate) fn at(&self, position: u64) -> (usize, u64) {
        match self {
            Self::One => (0, position),
            Self::Two(order) => order.at(position),
            Self::Interleaved(order) => order.at(position),
            Self::Batched(order) => order.at(position),
            Self::Tree(order) => order.at(position),
            Self::Bernoulli(order) => order.at(position),
            Self::Scheduled(order) => order.at(position),
        }
    }

    /// Rows of `source` among the first `end` positions.
    pub(crate) fn count(&self, source: usize, end: u64) -> u64 {
        match self {
            Self::One => end,
            Self::Two(order) => order.count(source, end),
            Self::Interleaved(order) => order.count(source, end),
            Self::Batched(order) => order.count(source, end),
            Self::Tree(order) => order.count(source, end),
            Self::Bernoulli(order) => order.count(source, end),
            Self::Scheduled(order) => order.count(source, end),
        }
    }

    /// Most rows by which any prefix strays from a share; `None` if the order is random.
    pub(crate) fn prefix_bound(&self) -> Option<f64> {
        match self {
            Self::One => Some(0.0),
            Self::Two(_) => Some(0.5),
            Self::Interleaved(order) => Some(order.prefix_bound()),
            Self::Batched(order) => Some(order.prefix_bound()),
            Self::Tree(order) => Some(order.prefix_bound()),
            Self::Bernoulli(_) => None,
            Self::Scheduled(order) => Some(order.prefix_bound()),
        }
    }
}

/// Rounds `a t / q` to the nearest whole number, halves up.
#[inline]
pub(crate) fn rounded(a: u64, q: u64, t: u64) -> u64 {
    // Products below 2^62 need no 128-bit division.
    match a.checked_mul(t) {
        Some(product) if product < 1 << 62 && q < 1 << 62 => (2 * product + q) / (2 * q),
        _ => {
            let (a, q, t) = (u128::from(a), u128::from(q), u128::from(t));
            ((2 * a * t + q) / (2 * q)) as u64
        }
    }
}

/// Weights over their common denominator, in lowest terms.
pub(crate) fn integers(weights: &[Weight]) -> Result<Vec<u64>> {
    let too_long = |found| Error::Period { found, limit: PERIOD_LIMIT, nearest: nearest(weights) };
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
        // Twice the product of a share and a position must fit in 128 bits.
        _ if sum > 1 << 62 => Err(too_long(sum)),
        _ => Ok(scaled.iter().map(|n| (n / common) as u64).collect()),
    }
}

/// The weights rounded to millionths, as advice if they repeat too late.
pub(crate) fn nearest(weights: &[Weight]) -> String {
    const PARTS: f64 = 1e6;
    let values: Vec<f64> = weights.iter().map(|w| w.parts().0 as f64 / w.parts().1 as f64).collect();
    let sum: f64 = values.iter().sum();
    let parts: Vec<String> = values.iter().map(|v| format!("{}", (v / sum * PARTS).round() / PARTS)).collect();
    parts.join(", ")
}

pub(crate) fn gcd_u64(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd_u64(b, a % b) }
}

/// Greatest common divisor; a zero is skipped.
fn gcd_or(a: u128, b: u128) -> u128 {
    match (a, b) {
        (0, n) | (n, 0) => n,
        _ => gcd(a, b),
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::SourceOrder;

    /// Largest deviation of any count from its share over all prefixes of `end`; also checks `nth` and `count`.
    pub(crate) fn deviation(order: &SourceOrder, shares: &[u64], end: u64) -> f64 {
        let sum: u64 = shares.iter().sum();
        strays(order, shares.len(), end, |i, t| shares[i] as f64 * t as f64 / sum as f64)
    }

    /// Largest deviation from any target.
    pub(crate) fn strays(order: &SourceOrder, k: usize, end: u64, due: impl Fn(usize, u64) -> f64) -> f64 {
        let mut counts = vec![0u64; k];
        let mut worst = 0f64;
        for position in 0..end {
            let (source, nth) = order.at(position);
            assert_eq!(nth, counts[source], "position {position}");
            counts[source] += 1;
            for (i, count) in counts.iter().enumerate() {
                assert_eq!(order.count(i, position + 1), *count, "source {i} after {}", position + 1);
                worst = worst.max((*count as f64 - due(i, position + 1)).abs());
            }
        }
        worst
    }
}
