//! Independent draws: the source at each position is random, as the paper describes its mixture.
//!
//! The row that a draw takes depends on how often its source was drawn before. To know that without drawing everything,
//! counts are drawn first: the counts over all `2^40` positions are multinomial, the counts of one half given the whole
//! are multivariate hypergeometric, and so on down to blocks of 256 positions, whose counts are dealt out in a keyed
//! random order. So the draws are exactly independent, and any position is reached in 32 splits.

use super::hypergeometric::{Stream, binomial, hypergeometric};
use crate::permutation::mix;

/// Number of positions, as a power of two.
pub(crate) const POSITIONS_LOG2: u32 = 40;
const BLOCK_LOG2: u32 = 8;

/// Sources drawn at random.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Bernoulli {
    seed: u64,
    /// Rows of each source over all positions.
    counts: Vec<u64>,
}

impl Bernoulli {
    pub(crate) fn new(shares: &[u64], seed: u64) -> Self {
        let mut stream = Stream::new(mix(seed));
        let (mut left, mut share_left) = (1u64 << POSITIONS_LOG2, shares.iter().sum::<u64>());
        let counts = shares
            .iter()
            .map(|&share| {
                let chance = if share_left == 0 { 0.0 } else { share as f64 / share_left as f64 };
                let count = binomial(&mut stream, left, chance);
                left -= count;
                share_left -= share;
                count
            })
            .collect();
        Self { seed, counts }
    }

    pub(crate) fn at(&self, position: u64) -> (usize, u64) {
        let (mut before, deal) = self.block(position);
        let place = (position & ((1 << BLOCK_LOG2) - 1)) as usize;
        for &source in &deal[..place] {
            before[usize::from(source)] += 1;
        }
        let source = usize::from(deal[place]);
        (source, before[source])
    }

    pub(crate) fn count(&self, source: usize, end: u64) -> u64 {
        if end >= 1 << POSITIONS_LOG2 {
            return self.counts[source];
        }
        let (before, deal) = self.block(end);
        let place = (end & ((1 << BLOCK_LOG2) - 1)) as usize;
        before[source] + deal[..place].iter().filter(|&&s| usize::from(s) == source).count() as u64
    }

    /// Counts before the block of `position`, and the sources in the block.
    fn block(&self, position: u64) -> (Vec<u64>, Vec<u16>) {
        let position = position & ((1 << POSITIONS_LOG2) - 1);
        let (mut inside, mut before) = (self.counts.clone(), vec![0u64; self.counts.len()]);
        for level in (BLOCK_LOG2..POSITIONS_LOG2).rev() {
            let mut stream = Stream::new(mix(self.seed ^ mix(u64::from(level))) ^ mix(position >> (level + 1)));
            // Rows of each source in the first half.
            let (mut sample, mut all) = (1u64 << level, 2u64 << level);
            let right = position >> level & 1 == 1;
            for (inside, before) in inside.iter_mut().zip(&mut before) {
                let left = hypergeometric(&mut stream, *inside, all - *inside, sample);
                all -= *inside;
                sample -= left;
                if right {
                    *before += left;
                    *inside -= left;
                } else {
                    *inside = left;
                }
            }
        }
        let mut deal: Vec<u16> =
            inside.iter().enumerate().flat_map(|(i, &n)| std::iter::repeat_n(i as u16, n as usize)).collect();
        let mut stream = Stream::new(mix(self.seed ^ 0x5eed) ^ mix(position >> BLOCK_LOG2));
        for i in (1..deal.len()).rev() {
            deal.swap(i, stream.below(i as u64 + 1) as usize);
        }
        (before, deal)
    }
}

/// Cache of the last block, for positions in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cursor {
    block: Option<u64>,
    before: Vec<u64>,
    deal: Vec<u16>,
    place: usize,
}

impl Cursor {
    pub(crate) fn at(&mut self, order: &Bernoulli, position: u64) -> (usize, u64) {
        let (block, place) = (position >> BLOCK_LOG2, (position & ((1 << BLOCK_LOG2) - 1)) as usize);
        if self.block != Some(block) || place < self.place {
            (self.before, self.deal) = order.block(position);
            (self.block, self.place) = (Some(block), 0);
        }
        for &source in &self.deal[self.place..place] {
            self.before[usize::from(source)] += 1;
        }
        self.place = place;
        let source = usize::from(self.deal[place]);
        (source, self.before[source])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::{SourceOrder, testing::strays};

    #[test]
    fn counts_agree_over_blocks() {
        let order = SourceOrder::Bernoulli(Bernoulli::new(&[3, 0, 7], 11));
        let worst = strays(&order, 3, 3000, |i, t| [0.3, 0.0, 0.7][i] * t as f64);
        // A random walk of deviation sqrt(3000 * 0.21) = 25.
        assert!((5.0..125.0).contains(&worst), "{worst}");
    }

    /// Draws and pairs of neighbouring draws are as frequent as independence demands.
    #[test]
    fn draws_are_independent() {
        let (mut singles, mut pairs) = ([0f64; 2], [0f64; 4]);
        let n = 400;
        for seed in 0..n {
            let order = Bernoulli::new(&[1, 3], seed);
            // Across the border of two blocks too.
            let (a, b) = (order.at(255).0, order.at(256).0);
            singles[a] += 1.0;
            pairs[2 * a + b] += 1.0;
        }
        let n = n as f64;
        let chi =
            |found: &[f64], due: &[f64]| found.iter().zip(due).map(|(f, d)| (f - d * n).powi(2) / (d * n)).sum::<f64>();
        // 99.9 % of samples: below 10.8 at one degree of freedom, 16.3 at three.
        assert!(chi(&singles, &[0.25, 0.75]) < 10.8, "{singles:?}");
        assert!(chi(&pairs, &[0.0625, 0.1875, 0.1875, 0.5625]) < 16.3, "{pairs:?}");
    }

    #[test]
    fn far_positions_are_reached_at_once() {
        let order = Bernoulli::new(&[1, 1], 3);
        let far = (1 << 39) + 12_345;
        let (source, nth) = order.at(far);
        assert_eq!(order.count(source, far), nth);
        assert_eq!(order.count(0, far) + order.count(1, far), far);
        assert!((nth as f64 / far as f64 - 0.5).abs() < 1e-4);
    }
}
