//! Any number of sources with any whole shares, without a table: a tree of two-way splits.
//!
//! The sources are halved, the positions are divided between the halves by rounding their shares, and each half is
//! divided again. Counts are exact after every whole period. A prefix strays by at most half a row a level, `ceil(log2
//! k) / 2` in all, which is more than with a table. The tree serves quotas and token shares, whose periods may be as
//! long as the run.

use super::rounded;

/// Cumulative shares: `sums[i]` is the sum over all sources before `i`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tree {
    sums: Vec<u64>,
}

impl Tree {
    pub(crate) fn new(shares: &[u64]) -> Self {
        let mut sums = vec![0];
        for share in shares {
            sums.push(sums[sums.len() - 1] + share);
        }
        Self { sums }
    }

    pub(crate) fn at(&self, position: u64) -> (usize, u64) {
        descend(position, self.sums.len() - 1, |i| self.sums[i])
    }

    pub(crate) fn count(&self, source: usize, end: u64) -> u64 {
        count(end, source, self.sums.len() - 1, |i| self.sums[i])
    }

    pub(crate) fn prefix_bound(&self) -> f64 {
        levels_bound(self.sums.len() - 1)
    }
}

/// Bound of a tree: half a row a level.
pub(crate) fn levels_bound(sources: usize) -> f64 {
    0.5 * f64::from(sources.next_power_of_two().trailing_zeros())
}

/// Source at `position` and the number of its rows before, under cumulative shares.
pub(crate) fn descend(position: u64, sources: usize, sum: impl Fn(usize) -> u64) -> (usize, u64) {
    let (mut low, mut high, mut n) = (0, sources, position);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        let (left, all) = (sum(middle) - sum(low), sum(high) - sum(low));
        let before = rounded(left, all, n);
        if rounded(left, all, n + 1) > before {
            (high, n) = (middle, before);
        } else {
            (low, n) = (middle, n - before);
        }
    }
    (low, n)
}

/// Rows of `source` among the first `end` positions, under cumulative shares.
pub(crate) fn count(end: u64, source: usize, sources: usize, sum: impl Fn(usize) -> u64) -> u64 {
    let (mut low, mut high, mut n) = (0, sources, end);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        let all = sum(high) - sum(low);
        // A branch without shares gives no rows.
        let left = if all == 0 { 0 } else { rounded(sum(middle) - sum(low), all, n) };
        if source < middle {
            (high, n) = (middle, left);
        } else {
            (low, n) = (middle, n - left);
        }
    }
    n
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::{SourceOrder, testing::deviation};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn counts_are_exact_after_a_period_and_near_before(shares in prop::collection::vec(0u64..40, 1..12)) {
            prop_assume!(shares.iter().any(|&share| share > 0));
            let (period, tree) = (shares.iter().sum::<u64>(), Tree::new(&shares));
            for (i, &share) in shares.iter().enumerate() {
                prop_assert_eq!(tree.count(i, 3 * period), 3 * share);
            }
            let bound = tree.prefix_bound();
            let worst = deviation(&SourceOrder::Tree(tree), &shares, period);
            prop_assert!(worst <= bound + 1e-9, "{worst} > {bound}");
        }
    }
}
