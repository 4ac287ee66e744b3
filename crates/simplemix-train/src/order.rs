//! Choice of an update's pairs: a pure function of the update's number.

use std::sync::Arc;

use simplemix_mix::{Mixture, Permutation};

use crate::torch_random::randperm;

/// Order in which pairs are taken.
#[derive(Debug, Clone)]
pub enum Order {
    /// File order, again and again. A mixture is written in its order, so every batch holds the shares.
    File,
    /// Shuffled anew each epoch, under a random seed.
    Shuffled(u64),
    /// The order of transformers' `Trainer`: `torch.randperm` under the random seed plus the epoch; the last batch of an
    /// epoch may be short.
    Trl(u64),
    /// The order of a mixture of several sources. Pairs of source `s` begin at `starts[s]`.
    Mixed {
        /// Mixture of the pairs that are kept.
        mixture: Arc<Mixture>,
        /// Number of each source's first pair.
        starts: Arc<[usize]>,
    },
}

impl Order {
    /// Batches of `size` pairs out of `pairs`.
    pub(crate) fn batches(&self, size: usize, pairs: u64) -> Batches<'_> {
        Batches { order: self, size, pairs, epoch: None }
    }

    /// Updates of one pass over `pairs` pairs.
    pub(crate) fn updates(&self, size: usize, pairs: u64) -> u64 {
        match self {
            Self::Trl(_) => pairs.div_ceil(size as u64),
            _ => pairs / size as u64,
        }
    }

    /// Pairs of one pass: those of the mixture, or all `known` pairs.
    pub(crate) fn pairs(&self, known: u64) -> u64 {
        match self {
            Self::Mixed { mixture, .. } => mixture.len(),
            _ => known,
        }
    }

    /// Passes over the pairs after `step` updates.
    pub(crate) fn epochs(&self, step: u64, size: usize, pairs: u64) -> f64 {
        match self {
            // A short batch completes an epoch like a full one.
            Self::Trl(_) => step as f64 / self.updates(size, pairs) as f64,
            _ => (step * size as u64) as f64 / self.pairs(pairs) as f64,
        }
    }
}

/// Batches of an [`Order`], by the number of their update. The permutation of the current epoch is kept, so batches in
/// sequence are cheap; any sequence gives the same batches.
#[derive(Debug, Clone)]
pub(crate) struct Batches<'a> {
    order: &'a Order,
    size: usize,
    pairs: u64,
    /// Number and permutation of the epoch that was last asked for, if the order draws whole permutations.
    epoch: Option<(u64, Vec<usize>)>,
}

impl Batches<'_> {
    /// Numbers of the pairs of update `step`, counted from zero.
    pub(crate) fn at(&mut self, step: u64) -> Vec<usize> {
        let (size, pairs) = (self.size as u64, self.pairs);
        let places = step * size..(step + 1) * size;
        match self.order {
            Order::File => places.map(|i| (i % pairs) as usize).collect(),
            Order::Shuffled(seed) => {
                places.map(|i| Permutation::new(pairs, *seed, i / pairs).at(i % pairs) as usize).collect()
            }
            Order::Trl(seed) => {
                let updates = self.order.updates(self.size, pairs);
                let first = (step % updates) as usize * self.size;
                let last = (first + self.size).min(pairs as usize);
                self.permutation(*seed, step / updates)[first..last].to_vec()
            }
            Order::Mixed { mixture, starts } => places
                .map(|i| {
                    let draw = mixture.at(i % mixture.len());
                    starts[draw.source] + draw.row as usize
                })
                .collect(),
        }
    }

    fn permutation(&mut self, seed: u64, epoch: u64) -> &[usize] {
        let pairs = self.pairs as usize;
        let make = || (epoch, randperm(pairs, seed.wrapping_add(epoch)));
        let kept = self.epoch.take().filter(|(number, _)| *number == epoch);
        &self.epoch.insert(kept.unwrap_or_else(make)).1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shuffled_epoch_holds_every_pair_once_and_the_next_another_order() {
        let order = Order::Shuffled(4);
        let mut batches = order.batches(10, 10);
        let (first, second) = (batches.at(0), batches.at(1));
        let mut sorted = first.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..10).collect::<Vec<_>>());
        assert_ne!(first, second);
        assert_eq!(order.batches(5, 10).at(1), first[5..]);
    }

    #[test]
    fn trls_epochs_are_permutations_of_torch_with_a_short_last_batch() {
        let order = Order::Trl(42);
        assert_eq!(order.updates(4, 10), 3);
        let epochs = [randperm(10, 42), randperm(10, 43)];
        let mut batches = order.batches(4, 10);
        assert_eq!(order.batches(10, 10).at(0), epochs[0]);
        assert_eq!(batches.at(1), epochs[0][4..8]);
        assert_eq!(batches.at(2), epochs[0][8..]);
        assert_eq!(batches.at(3), epochs[1][..4]);
        assert_eq!(batches.at(0), epochs[0][..4]);
    }
}
