//! Shares that change over the run: piecewise linear in the row's number.
//!
//! A source's due after `t` rows is the integral of its share, which is quadratic on each piece and computed as an exact
//! fraction. Two sources take it rounded. For more, the dues are made whole at the ends of segments of at most
//! `sqrt(total)` rows, inside which a share moves by less than a quarter of a row, and a tree of two-way splits fills
//! each segment with the counts that it must hold. A row is found by a search for its segment.

use super::tree::{count, descend, levels_bound};
use crate::schedule::{Piece, UNIT};

/// Sources under changing shares.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Scheduled {
    pieces: Vec<Piece>,
    sources: usize,
    segments: Option<Segments>,
}

/// Whole counts at the ends of segments.
#[derive(Debug, Clone, PartialEq)]
struct Segments {
    /// First row of each segment, and the total.
    starts: Vec<u64>,
    /// `[segments + 1, sources + 1]`: rows of all sources before the i-th, at each start.
    sums: Vec<u64>,
}

impl Scheduled {
    /// Pieces in order, the last of which goes on for ever.
    pub(crate) fn new(pieces: Vec<Piece>, sources: usize, total: u64) -> Self {
        let segments = (sources > 2).then(|| Segments::new(&pieces, sources, total));
        Self { pieces, sources, segments }
    }

    pub(crate) fn at(&self, step: u64) -> (usize, u64) {
        let Some(segments) = &self.segments else {
            let (before, after) = (self.rounded(step), self.rounded(step + 1));
            return if after > before { (0, before) } else { (1, step - before) };
        };
        let s = segments.find(step);
        let held = segments.held(s, self.sources);
        let (source, rank) = descend(step - segments.starts[s], self.sources, held);
        (source, segments.given(s, source, self.sources) + rank)
    }

    pub(crate) fn count(&self, source: usize, steps: u64) -> u64 {
        let Some(segments) = &self.segments else {
            let first = self.rounded(steps);
            return if source == 0 { first } else { steps - first };
        };
        let s = segments.find(steps);
        let held = segments.held(s, self.sources);
        segments.given(s, source, self.sources) + count(steps - segments.starts[s], source, self.sources, held)
    }

    /// Rows of `source` that its shares of the first `steps` come to.
    pub(crate) fn due(&self, source: usize, steps: u64) -> f64 {
        self.piece(steps).due(source, steps)
    }

    pub(crate) fn prefix_bound(&self) -> f64 {
        if self.segments.is_none() { 0.5 } else { 1.25 + levels_bound(self.sources) }
    }

    /// Rows of the first of two sources among the first `steps`, to the nearest whole.
    fn rounded(&self, steps: u64) -> u64 {
        self.piece(steps).due_rounded(0, steps)
    }

    fn piece(&self, steps: u64) -> &Piece {
        &self.pieces[self.pieces.partition_point(|piece| piece.start <= steps).saturating_sub(1)]
    }
}

impl Segments {
    fn new(pieces: &[Piece], sources: usize, total: u64) -> Self {
        let longest = (total.isqrt()).max(64).max(total >> 16);
        let (mut starts, mut sums) = (vec![0], vec![0; sources + 1]);
        let mut given = vec![0u64; sources];
        for (i, piece) in pieces.iter().enumerate() {
            let end = pieces.get(i + 1).map_or(total.max(piece.start), |next| next.start);
            let parts = (end - piece.start).div_ceil(longest);
            for part in 1..=parts {
                let to = piece.start + (u128::from(end - piece.start) * u128::from(part) / u128::from(parts)) as u64;
                let rows = to - starts[starts.len() - 1];
                allot(&mut given, rows, |source| piece.due(source, to));
                starts.push(to);
                let mut sum = 0;
                sums.push(0);
                for n in &given {
                    sum += n;
                    sums.push(sum);
                }
            }
        }
        Self { starts, sums }
    }

    /// The segment of row `step`; rows past the last segment repeat it.
    fn find(&self, step: u64) -> usize {
        let s = self.starts.partition_point(|&start| start <= step).saturating_sub(1);
        s.min(self.starts.len().saturating_sub(2))
    }

    fn given(&self, segment: usize, source: usize, sources: usize) -> u64 {
        let row = segment * (sources + 1);
        self.sums[row + source + 1] - self.sums[row + source]
    }

    /// Cumulative counts that the segment must hold.
    fn held(&self, segment: usize, sources: usize) -> impl Fn(usize) -> u64 + '_ {
        let (row, next) = (segment * (sources + 1), (segment + 1) * (sources + 1));
        move |i| self.sums[next + i] - self.sums[row + i]
    }
}

/// Gives `rows` more rows, so that each source comes near its due: as much as is due in whole, the rest where most is
/// owed. Counts never fall.
fn allot(given: &mut [u64], rows: u64, due: impl Fn(usize) -> f64) {
    let mut left = rows;
    for (source, given) in given.iter_mut().enumerate() {
        let more = ((due(source) - *given as f64).floor().max(0.0) as u64).min(left);
        *given += more;
        left -= more;
    }
    let mut owed: Vec<usize> = (0..given.len()).collect();
    owed.sort_by(|&a, &b| (due(b) - given[b] as f64).total_cmp(&(due(a) - given[a] as f64)).then(a.cmp(&b)));
    for source in owed.into_iter().cycle().take(left as usize) {
        given[source] += 1;
    }
}

impl Piece {
    /// Due of `source` after `steps` rows, in rows.
    fn due(&self, source: usize, steps: u64) -> f64 {
        let (numerator, denominator) = self.due_fraction(source, steps);
        numerator as f64 / denominator as f64
    }

    fn due_rounded(&self, source: usize, steps: u64) -> u64 {
        let (numerator, denominator) = self.due_fraction(source, steps);
        ((2 * numerator + denominator) / (2 * denominator)) as u64
    }

    /// `base + (a x + (b - a) x^2 / (2 len)) / UNIT` over one denominator.
    fn due_fraction(&self, source: usize, steps: u64) -> (i128, i128) {
        let share = &self.shares[source];
        let (x, len) = (i128::from(steps - self.start), i128::from(self.len.max(1)));
        // Past the piece's end its last share goes on.
        let (curved, flat) = (x.min(len), (x - len).max(0));
        let (from, to) = (i128::from(share.from), i128::from(share.to));
        let numerator =
            share.base as i128 * len + 2 * from * curved * len + (to - from) * curved * curved + 2 * to * flat * len;
        (numerator, 2 * i128::from(UNIT) * len)
    }
}
