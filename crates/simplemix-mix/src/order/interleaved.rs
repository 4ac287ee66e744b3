//! Three and more sources, with one period in a table.
//!
//! Without a batch size the order follows Tijdeman's rule for the chairman assignment problem ("The chairman assignment
//! problem", Discrete Mathematics 32, 1980): among the sources that are at least `1/(2k - 2)` behind, take the one with
//! the earliest deadline. Counts stay within `1 - 1/(2k - 2)` of their shares, which is the best possible bound.
//!
//! With a batch size, every batch holds each share rounded up or down too. Tijdeman's rule with the end of the batch as
//! a second deadline nearly always does that; where it reaches a dead end, a search goes back, row by row. For a few
//! weights no order keeps both promises (such as 11 : 3 : 6 : 11 in batches of 16). Prefixes then hold each share
//! rounded up or down, so they stray by less than a row. docs/mixing-proofs.md gives the reasons. Every row of the table is
//! checked.

use std::collections::HashSet;

use super::{PERIOD_LIMIT, gcd_u64};
use crate::error::{Error, Result};

/// One period: the source at each position, and the number of its rows before in the period.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Interleaved {
    given: Vec<u64>,
    table: Vec<(u16, u32)>,
    prefix_bound: f64,
}

impl Interleaved {
    /// Makes the table; `None` if no order was found that keeps the promise of the batches.
    pub(crate) fn new(shares: &[u64], batch: Option<u64>) -> Result<Option<Self>> {
        let sum: u64 = shares.iter().sum();
        let repeats = batch.map_or(1, |batch| batch / gcd_u64(batch, sum));
        let period = u128::from(sum) * u128::from(repeats);
        if period > u128::from(PERIOD_LIMIT) {
            let nearest = String::new();
            return Err(Error::Period { found: period, limit: PERIOD_LIMIT, nearest });
        }
        let k = shares.iter().filter(|&&share| share > 0).count() as i128;
        let slack = (2 * k - 2).max(1);
        let tijdeman = Rule { shares, batch, sum: i128::from(sum), slack, reach: (slack - 1) * i128::from(sum) };
        let rows = match batch {
            None => Some((tijdeman.greedy(period as u64), 1.0 - 1.0 / slack as f64)),
            Some(_) => {
                let whole = Rule { reach: slack * i128::from(sum) - 1, ..tijdeman };
                tijdeman
                    .search(period as u64)
                    .map(|rows| (rows, 1.0 - 1.0 / slack as f64))
                    .or_else(|| whole.search(period as u64).map(|rows| (rows, 1.0 - 1.0 / (sum as f64 * slack as f64))))
            }
        };
        Ok(rows.map(|(rows, prefix_bound)| {
            let mut given = vec![0u64; shares.len()];
            let table = rows
                .into_iter()
                .map(|source| {
                    let nth = given[usize::from(source)];
                    given[usize::from(source)] += 1;
                    (source, nth as u32)
                })
                .collect();
            Self { given, table, prefix_bound }
        }))
    }

    #[inline]
    pub(crate) fn at(&self, position: u64) -> (usize, u64) {
        let period = self.table.len() as u64;
        let (source, nth) = self.table[(position % period) as usize];
        (usize::from(source), position / period * self.given[usize::from(source)] + u64::from(nth))
    }

    pub(crate) fn count(&self, source: usize, end: u64) -> u64 {
        let period = self.table.len() as u64;
        let rest = &self.table[..(end % period) as usize];
        // The last entry of the source holds the number of its rows before.
        let in_rest = rest.iter().rev().find(|(s, _)| usize::from(*s) == source).map_or(0, |(_, nth)| nth + 1);
        end / period * self.given[source] + u64::from(in_rest)
    }

    pub(crate) fn prefix_bound(&self) -> f64 {
        self.prefix_bound
    }
}

/// Rule that every position must keep, `|count - share| <= reach`, in units of `1 / (sum * slack)` of a row.
#[derive(Clone, Copy)]
struct Rule<'a> {
    shares: &'a [u64],
    batch: Option<u64>,
    sum: i128,
    slack: i128,
    reach: i128,
}

impl Rule<'_> {
    /// Whether the source may have `count` of the first `t` rows.
    fn released(&self, i: usize, count: u64, t: u64) -> bool {
        i128::from(count) * self.sum * self.slack - i128::from(self.shares[i]) * i128::from(t) * self.slack
            <= self.reach
    }

    /// Last position by which a source with `count` rows must give another one.
    fn deadline(&self, i: usize, count: u64) -> u64 {
        ((self.reach + i128::from(count) * self.sum * self.slack) / (i128::from(self.shares[i]) * self.slack) + 1)
            as u64
    }

    /// Plain Tijdeman's rule. Some source is always behind, since all together have given t - 1 rows of t.
    fn greedy(&self, period: u64) -> Vec<u16> {
        let mut given = vec![0u64; self.shares.len()];
        (1..=period)
            .map(|t| {
                let open = |&i: &usize| self.shares[i] > 0 && self.released(i, given[i] + 1, t);
                let next = (0..self.shares.len()).filter(open).min_by_key(|&i| (self.deadline(i, given[i]), i));
                let next = next.unwrap_or(0);
                given[next] += 1;
                next as u16
            })
            .collect()
    }

    /// The first order, by the rule's preference, that keeps the promises of prefixes and batches; `None` if there is
    /// none or the search takes too long.
    fn search(&self, period: u64) -> Option<Vec<u16>> {
        let batch = self.batch.unwrap_or(period);
        let k = self.shares.len();
        let (mut given, mut rows, mut tried) = (vec![0u64; k], Vec::<u16>::new(), Vec::<u8>::new());
        let mut starts = vec![given.clone()]; // counts at the start of each batch
        let mut dead: HashSet<(u64, Vec<u64>, Vec<u64>)> = HashSet::new();
        let mut work = 0u64;
        let most = 64 * period + (1 << 16);
        tried.push(0);
        while (rows.len() as u64) < period {
            work += 1;
            let t = rows.len() as u64 + 1;
            let start = &starts[((t - 1) / batch) as usize];
            let choices = self.choices(t, batch, &given, start);
            let turn = tried[rows.len()];
            let next = choices.get(usize::from(turn)).copied().filter(|_| work <= most);
            match next {
                Some(source) => {
                    tried[rows.len()] += 1;
                    given[source] += 1;
                    let whole = t.is_multiple_of(batch);
                    let fits = (0..k).all(|i| self.holds(i, given[i], t, whole, given[i] - start[i], batch));
                    let seen = !dead.is_empty()
                        && dead.contains(&(t, given.clone(), if whole { given.clone() } else { start.clone() }));
                    if fits && !seen {
                        rows.push(source as u16);
                        tried.push(0);
                        if whole {
                            starts.push(given.clone());
                        }
                    } else {
                        given[source] -= 1;
                    }
                }
                None if work > most => return None,
                None => {
                    dead.insert((t - 1, given.clone(), start.clone()));
                    tried.pop();
                    if t > 1 && (t - 1).is_multiple_of(batch) {
                        starts.pop();
                    }
                    let last = rows.pop()?;
                    given[usize::from(last)] -= 1;
                }
            }
        }
        Some(rows)
    }

    /// Sources that may give row `t`, most urgent first.
    fn choices(&self, t: u64, batch: u64, given: &[u64], start: &[u64]) -> Vec<usize> {
        let end = (t - 1) / batch * batch + batch;
        let mut open: Vec<(u64, u64, usize)> = Vec::new();
        let mut needed = 0;
        for i in (0..self.shares.len()).filter(|&i| self.shares[i] > 0) {
            let in_batch = given[i] - start[i];
            let (least, most) = self.floor_and_ceil(i, batch);
            let need = least.saturating_sub(in_batch);
            needed += need;
            if in_batch < most && self.released(i, given[i] + 1, t) {
                let deadline = self.deadline(i, given[i]);
                open.push((if need > 0 { deadline.min(end) } else { deadline }, u64::MAX - need, i));
            }
        }
        if needed > end - t + 1 {
            return Vec::new();
        }
        open.sort_unstable();
        // A single row cannot serve two sources that are both due.
        match open[..] {
            [(first, ..), (second, ..), ..] if first <= t && second <= t => Vec::new(),
            [(first, _, i), ..] if first <= t => vec![i],
            _ => open.into_iter().map(|(_, _, i)| i).collect(),
        }
    }

    fn holds(&self, i: usize, count: u64, t: u64, whole: bool, in_batch: u64, batch: u64) -> bool {
        let (least, most) = self.floor_and_ceil(i, batch);
        let behind =
            i128::from(self.shares[i]) * i128::from(t) * self.slack - i128::from(count) * self.sum * self.slack;
        behind.abs() <= self.reach && (!whole || (least..=most).contains(&in_batch))
    }

    fn floor_and_ceil(&self, i: usize, batch: u64) -> (u64, u64) {
        let due = i128::from(self.shares[i]) * i128::from(batch);
        let least = due / self.sum;
        (least as u64, (least + i128::from(due % self.sum != 0)) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::{SourceOrder, testing::deviation};
    use proptest::prelude::*;

    /// Whether every batch of the period holds floor or ceil of each share.
    fn batches_hold(order: &Interleaved, shares: &[u64], batch: u64) -> bool {
        let sum: u64 = shares.iter().sum();
        (0..order.table.len() as u64 / batch).all(|b| {
            shares.iter().enumerate().all(|(i, &share)| {
                let held = order.count(i, (b + 1) * batch) - order.count(i, b * batch);
                (share * batch / sum..=(share * batch).div_ceil(sum)).contains(&held)
            })
        })
    }

    proptest! {
        #[test]
        fn no_prefix_strays_past_tijdemans_bound(shares in prop::collection::vec(1u64..60, 3..9)) {
            let order = Interleaved::new(&shares, None).unwrap().unwrap();
            let bound = 1.0 - 1.0 / (2.0 * shares.len() as f64 - 2.0);
            prop_assert_eq!(order.prefix_bound(), bound);
            let worst = deviation(&SourceOrder::Interleaved(order), &shares, 2 * shares.iter().sum::<u64>());
            prop_assert!(worst <= bound + 1e-9, "{worst} > {bound}");
        }

        #[test]
        fn batches_and_prefixes_hold_together(shares in prop::collection::vec(1u64..13, 3..8), batch in 2u64..21) {
            let order = Interleaved::new(&shares, Some(batch)).unwrap().unwrap();
            prop_assert!(batches_hold(&order, &shares, batch));
            let bound = order.prefix_bound();
            prop_assert!(bound < 1.0);
            let period = order.table.len() as u64;
            let worst = deviation(&SourceOrder::Interleaved(order), &shares, period + batch);
            prop_assert!(worst <= bound + 1e-9, "{worst} > {bound}");
        }
    }

    /// No order keeps both of the strictest promises here, as an exhaustive search found. Rounding up or down is
    /// possible.
    #[test]
    fn where_both_promises_cannot_be_kept_prefixes_hold_floor_or_ceil() {
        let shares = [11, 3, 6, 11];
        let order = Interleaved::new(&shares, Some(16)).unwrap().unwrap();
        assert!(order.prefix_bound() > 1.0 - 1.0 / 6.0 && order.prefix_bound() < 1.0);
        assert!(batches_hold(&order, &shares, 16));
        assert!(deviation(&SourceOrder::Interleaved(order), &shares, 31 * 16) < 1.0);
    }

    /// A source that is due less than once a batch is served in turn.
    #[test]
    fn small_shares_are_not_starved() {
        let mut shares = vec![20];
        shares.extend([1; 20]);
        let order = Interleaved::new(&shares, Some(8)).unwrap().unwrap();
        assert!(batches_hold(&order, &shares, 8));
        for source in 1..21 {
            assert_eq!(order.count(source, 400), 10);
        }
    }

    /// Weights on which a published stateless blend (Fast-LLM's) returns one row twice (indices 7 and 10).
    #[test]
    fn no_row_comes_twice_on_13_1_6() {
        let order = Interleaved::new(&[13, 1, 6], None).unwrap().unwrap();
        let mut seen = HashSet::new();
        assert!((0..10_000).all(|t| seen.insert(order.at(t))));
    }
}
