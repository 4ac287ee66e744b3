//! Shares that change over the run, piecewise linear in the position.
//!
//! The rows that a source is due after `t` positions are the integral of its share, which is quadratic on each piece
//! and computed as an exact fraction. For two sources this number is rounded. For more, it is made whole at the ends of
//! segments of at most `sqrt(total)` positions, within which a share moves by less than a quarter of a row, and a tree
//! of two-way splits fills each segment with the counts it must hold. A binary search finds the segment of a position.

use super::tree::{count, descend, levels_bound};
use crate::schedule::{Piece, UNIT};

/// Sources under changing shares.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Scheduled {
    pieces: Vec<Piece>,
    sources: usize,
    segments: Option<Segments>,
}

/// Whole counts at the ends of the segments.
#[derive(Debug, Clone, PartialEq)]
struct Segments {
    /// First position of each segment, and the total.
    starts: Vec<u64>,
    /// Table `[segments + 1, sources + 1]`: at each start, the rows of all sources before the i-th.
    sums: Vec<u64>,
}

impl Scheduled {
    /// Takes the pieces in order; the last one never ends.
    pub(crate) fn new(pieces: Vec<Piece>, sources: usize, total: u64) -> Self {
        let segments = (sources > 2).then(|| Segments::new(&pieces, sources, total));
        Self { pieces, sources, segments }
    }

    pub(crate) fn at(&self, position: u64) -> (usize, u64) {
        let Some(segments) = &self.segments else {
            let (before, after) = (self.rounded(position), self.rounded(position + 1));
            return if after > before { (0, before) } else { (1, position - before) };
        };
        let s = segments.find(position);
        let held = segments.held(s, self.sources);
        let (source, nth) = descend(position - segments.starts[s], self.sources, held);
        (source, segments.given(s, source, self.sources) + nth)
    }

    pub(crate) fn count(&self, source: usize, end: u64) -> u64 {
        let Some(segments) = &self.segments else {
            let first = self.rounded(end);
            return if source == 0 { first } else { end - first };
        };
        let s = segments.find(end);
        let held = segments.held(s, self.sources);
        segments.given(s, source, self.sources) + count(end - segments.starts[s], source, self.sources, held)
    }

    /// Rows of `source` that its shares of the first `end` positions come to.
    pub(crate) fn due(&self, source: usize, end: u64) -> f64 {
        self.piece(end).due(source, end)
    }

    pub(crate) fn prefix_bound(&self) -> f64 {
        if self.segments.is_none() { 0.5 } else { 1.25 + levels_bound(self.sources) }
    }

    /// Rows of the first of two sources among the first `end` positions, rounded.
    fn rounded(&self, end: u64) -> u64 {
        self.piece(end).due_rounded(0, end)
    }

    fn piece(&self, end: u64) -> &Piece {
        &self.pieces[self.pieces.partition_point(|piece| piece.start <= end).saturating_sub(1)]
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

    /// The segment of `position`; positions past the last segment repeat it.
    fn find(&self, position: u64) -> usize {
        let s = self.starts.partition_point(|&start| start <= position).saturating_sub(1);
        s.min(self.starts.len().saturating_sub(2))
    }

    fn given(&self, segment: usize, source: usize, sources: usize) -> u64 {
        let row = segment * (sources + 1);
        self.sums[row + source + 1] - self.sums[row + source]
    }

    /// Cumulative counts over the sources that the segment must hold.
    fn held(&self, segment: usize, sources: usize) -> impl Fn(usize) -> u64 + '_ {
        let (row, next) = (segment * (sources + 1), (segment + 1) * (sources + 1));
        move |i| self.sums[next + i] - self.sums[row + i]
    }
}

/// Gives out `rows` more rows: to each source the whole rows that it is due, and the rest to the sources that are owed
/// most. Counts never fall.
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
    /// Rows that `source` is due after `end` positions.
    fn due(&self, source: usize, end: u64) -> f64 {
        let (numerator, denominator) = self.due_fraction(source, end);
        numerator as f64 / denominator as f64
    }

    fn due_rounded(&self, source: usize, end: u64) -> u64 {
        let (numerator, denominator) = self.due_fraction(source, end);
        ((2 * numerator + denominator) / (2 * denominator)) as u64
    }

    /// Computes `base + (a x + (b - a) x^2 / (2 len)) / UNIT` as numerator and denominator.
    fn due_fraction(&self, source: usize, end: u64) -> (i128, i128) {
        let share = &self.shares[source];
        let (x, len) = (i128::from(end - self.start), i128::from(self.len.max(1)));
        // The last share continues past the end of the piece.
        let (curved, flat) = (x.min(len), (x - len).max(0));
        let (from, to) = (i128::from(share.from), i128::from(share.to));
        let numerator =
            share.base as i128 * len + 2 * from * curved * len + (to - from) * curved * curved + 2 * to * flat * len;
        (numerator, 2 * i128::from(UNIT) * len)
    }
}
