//! Batches that are shuffled by key: the contents of a batch are fixed, the order within it is not.
//!
//! Every batch holds each share rounded up or down, and so does every prefix that ends with a batch. For two sources
//! the closed form does that. For more, the problem is scheduling on as many processors as a batch has rows beyond the
//! rounded down shares, where each source runs a fixed share of the time: PD² (Anderson and Srinivasan, "Mixed
//! Pfair/ERfair scheduling of asynchronous periodic tasks", Journal of Computer and System Sciences 68, 2004) never
//! strays by a whole unit. One period of batches is kept as a table.
//!
//! Within a batch, the rows are sorted by source, in a keyed order of the sources, and place `p` holds sorted row
//! `(a p + c) mod B` with keyed `c` and keyed `a`, coprime to `B`. For every number of ranks `w` that divides `B`, rank
//! `r` takes places `r, r + w, ...`, whose sorted rows are one class modulo `w`. A source is a run of sorted rows, so the
//! micro-batch of each rank holds each share rounded up or down as well.

use super::{PERIOD_LIMIT, Two, gcd_u64};
use crate::error::{Error, Result};
use crate::permutation::mix;

/// Batches of `size` rows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Batched {
    size: u64,
    sources: usize,
    seed: u64,
    totals: Totals,
}

/// Rows that each source has given by the end of each batch.
#[derive(Debug, Clone, PartialEq)]
enum Totals {
    /// Closed form.
    Two(Two),
    /// `[batches + 1, sources]` of one period.
    Table(Vec<u32>),
}

impl Batched {
    pub(crate) fn new(shares: &[u64], size: u64, seed: u64) -> Result<Self> {
        let totals = match *shares {
            [a, b] => Totals::Two(Two::new(a, b)),
            _ => Totals::Table(pfair(shares, size)?),
        };
        Ok(Self { size, sources: shares.len(), seed, totals })
    }

    pub(crate) fn at(&self, position: u64) -> (usize, u64) {
        let (batch, place) = (position / self.size, position % self.size);
        let layout = Layout::new(self, batch);
        let sorted = layout.sorted(place);
        let (mut source, mut before) = (0, 0);
        // The keyed order of the sources is a rotation, possibly reversed.
        for i in 0..self.sources {
            source = layout.source(i);
            let rows = self.held(source, batch);
            if sorted < before + rows {
                break;
            }
            before += rows;
        }
        // Rows of a source are numbered by place, so that `nth` rises within the batch.
        let run = before..before + self.held(source, batch);
        let earlier = (0..place).filter(|&p| run.contains(&layout.sorted(p))).count() as u64;
        (source, self.total(source, batch) + earlier)
    }

    pub(crate) fn count(&self, source: usize, end: u64) -> u64 {
        let (batch, rest) = (end / self.size, end % self.size);
        let layout = Layout::new(self, batch);
        let mut before = 0;
        for i in 0..self.sources {
            let next = layout.source(i);
            if next == source {
                break;
            }
            before += self.held(next, batch);
        }
        let run = before..before + self.held(source, batch);
        let in_rest = (0..rest).filter(|&p| run.contains(&layout.sorted(p))).count() as u64;
        self.total(source, batch) + in_rest
    }

    /// Bound within a batch: all rows of a source may come first or last.
    pub(crate) fn prefix_bound(&self) -> f64 {
        let most = (0..self.sources).map(|source| self.held(source, 0) + 1).max().unwrap_or(0);
        most as f64 + 1.0
    }

    fn held(&self, source: usize, batch: u64) -> u64 {
        self.total(source, batch + 1) - self.total(source, batch)
    }

    fn total(&self, source: usize, batch: u64) -> u64 {
        match &self.totals {
            Totals::Two(two) => two.count(source, batch * self.size),
            Totals::Table(table) => {
                let k = self.sources;
                let period = (table.len() / k - 1) as u64;
                let entry = |batch: u64| u64::from(table[batch as usize * k + source]);
                batch / period * entry(period) + entry(batch % period)
            }
        }
    }
}

/// Order of the rows in one batch.
struct Layout {
    size: u64,
    factor: u64, // `a`
    offset: u64, // `c`
    sources: usize,
    first: usize, // source that comes first
    reversed: bool,
}

impl Layout {
    fn new(order: &Batched, batch: u64) -> Self {
        let key = |salt: u64| mix(mix(order.seed ^ salt) ^ batch);
        let size = order.size;
        let mut factor = key(1) % size.max(1);
        while gcd_u64(factor, size) != 1 {
            factor = (factor + 1) % size;
        }
        let first = (key(3) % order.sources as u64) as usize;
        Self { size, factor, offset: key(2) % size, sources: order.sources, first, reversed: key(4) & 1 == 1 }
    }

    /// Index of the sorted row at `place`.
    fn sorted(&self, place: u64) -> u64 {
        let product = u128::from(self.factor) * u128::from(place) + u128::from(self.offset);
        (product % u128::from(self.size)) as u64
    }

    fn source(&self, i: usize) -> usize {
        let i = if self.reversed { self.sources - 1 - i } else { i };
        (self.first + i) % self.sources
    }
}

/// Totals at the end of every batch of a period, by PD².
fn pfair(shares: &[u64], size: u64) -> Result<Vec<u32>> {
    let k = shares.len();
    let sum: u64 = shares.iter().sum();
    let batches = sum / gcd_u64(size, sum);
    let entries = u128::from(batches + 1) * k as u128;
    if entries > u128::from(PERIOD_LIMIT) {
        return Err(Error::Period { found: entries, limit: PERIOD_LIMIT, nearest: String::new() });
    }
    let due = |share: u64| u128::from(share) * u128::from(size);
    let floors: Vec<u64> = shares.iter().map(|&share| (due(share) / u128::from(sum)) as u64).collect();
    let tasks: Vec<Task> =
        shares.iter().map(|&share| Task { a: (due(share) % u128::from(sum)) as u64, q: sum }).collect();
    let extra = (size - floors.iter().sum::<u64>()) as usize;
    let mut units = vec![0u64; k];
    let mut totals = vec![0u64; k];
    let mut table = vec![0u32; k];
    for slot in 0..batches {
        let mut ready: Vec<_> = (0..k)
            .filter(|&i| tasks[i].a > 0 && tasks[i].release(units[i]) <= slot)
            .map(|i| (tasks[i].priority(units[i]), i))
            .collect();
        ready.sort_unstable();
        for (total, floor) in totals.iter_mut().zip(&floors) {
            *total += floor;
        }
        for &(_, i) in ready.iter().take(extra) {
            units[i] += 1;
            totals[i] += 1;
        }
        table.extend(totals.iter().map(|&total| total as u32));
    }
    Ok(table)
}

/// Fractional share of a source in a batch: `a / q` of a row.
struct Task {
    a: u64,
    q: u64,
}

impl Task {
    /// First slot in which the unit after `units` may be given.
    fn release(&self, units: u64) -> u64 {
        (u128::from(units) * u128::from(self.q) / u128::from(self.a)) as u64
    }

    /// Number of slots within which that unit must be given.
    fn deadline(&self, units: u64) -> u64 {
        ((u128::from(units) + 1) * u128::from(self.q)).div_ceil(u128::from(self.a)) as u64
    }

    /// Whether the window of the next unit begins before that of this one ends.
    fn overlaps(&self, units: u64) -> bool {
        !((u128::from(units) + 1) * u128::from(self.q)).is_multiple_of(u128::from(self.a))
    }

    /// Priority of PD²: the earlier deadline, then an overlap with the next window, then the later end of a chain of
    /// tight windows.
    fn priority(&self, units: u64) -> (u64, bool, std::cmp::Reverse<u64>) {
        (self.deadline(units), !self.overlaps(units), std::cmp::Reverse(self.chain_end(units)))
    }

    /// End of a chain of windows of two slots, where each forces the next; 0 for shares below a half, which have none.
    fn chain_end(&self, units: u64) -> u64 {
        if 2 * u128::from(self.a) < u128::from(self.q) {
            return 0;
        }
        let mut unit = units;
        loop {
            let deadline = self.deadline(unit);
            if !self.overlaps(unit) || self.deadline(unit + 1) - self.release(unit + 1) == 3 {
                return deadline;
            }
            unit += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn floor_or_ceil(held: u64, share: u64, size: u64, sum: u64) -> bool {
        (share * size / sum..=(share * size).div_ceil(sum)).contains(&held)
    }

    proptest! {
        #[test]
        fn batches_totals_and_every_number_of_ranks_hold(
            shares in prop::collection::vec(1u64..30, 2..9), size in 1u64..33, seed: u64,
        ) {
            let sum: u64 = shares.iter().sum();
            let order = Batched::new(&shares, size, seed).unwrap();
            let mut counts = vec![0u64; shares.len()];
            for batch in 0..sum.min(60) {
                let rows: Vec<(usize, u64)> = (0..size).map(|p| order.at(batch * size + p)).collect();
                for (place, &(source, nth)) in rows.iter().enumerate() {
                    prop_assert_eq!(order.count(source, batch * size + place as u64), counts[source]);
                    prop_assert_eq!(nth, counts[source]);
                    counts[source] += 1;
                }
                for (i, &share) in shares.iter().enumerate() {
                    let held = rows.iter().filter(|(source, _)| *source == i).count() as u64;
                    prop_assert!(floor_or_ceil(held, share, size, sum), "batch {batch}: {held}");
                    prop_assert!(floor_or_ceil(counts[i], share, (batch + 1) * size, sum), "total of {batch}");
                    for ranks in (2..=size).filter(|ranks| size % ranks == 0) {
                        for rank in 0..ranks {
                            let dealt = rows.iter().skip(rank as usize).step_by(ranks as usize);
                            let held = dealt.filter(|(source, _)| *source == i).count() as u64;
                            prop_assert!(floor_or_ceil(held, share, size / ranks, sum), "rank {rank} of {ranks}: {held}");
                        }
                    }
                }
            }
        }
    }

    /// A place says nothing about the source: over many batches, each source has its share of each place.
    #[test]
    fn every_place_gets_every_source_alike() {
        let order = Batched::new(&[1, 1, 2], 8, 5).unwrap();
        let mut counts = [[0f64; 3]; 8];
        for position in 0..80_000 {
            counts[(position % 8) as usize][order.at(position).0] += 1.0;
        }
        for place in counts {
            // 2 degrees of freedom: below 18.4 in 99.99 % of samples.
            let chi: f64 = place.iter().zip([2500.0, 2500.0, 5000.0]).map(|(n, due)| (n - due).powi(2) / due).sum();
            assert!(chi < 18.4, "{place:?}");
        }
    }

    /// Mosaic's stratified batching rounds every batch alike, and refuses a source that is due less than a row a batch.
    #[test]
    fn a_source_due_less_than_a_row_a_batch_is_served_in_turn() {
        let mut shares = vec![100];
        shares.extend([1; 20]);
        let order = Batched::new(&shares, 8, 0).unwrap();
        for source in 1..21 {
            assert_eq!(order.count(source, 1200), 10);
        }
    }

    #[test]
    fn two_sources_need_no_table() {
        let order = Batched::new(&[1, (1 << 40) - 1], 64, 3).unwrap();
        assert_eq!(order.count(0, 1 << 40), 1);
    }
}
