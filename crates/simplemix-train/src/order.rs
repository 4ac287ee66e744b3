//! Choice of an update's pairs: a pure function of the update's number.

use std::sync::Arc;

use simplemix_mix::{Mixture, Permutation};

use crate::torch_random::randperm;

/// Order in which pairs are taken. An epoch is every pair once; its last batch takes what is left.
#[derive(Debug, Clone)]
pub enum Order {
    /// File order in every epoch. A mixture is written in its order, so every batch holds the shares.
    File,
    /// Shuffled anew each epoch, under a random seed.
    Shuffled(u64),
    /// The order of transformers' `Trainer`: `torch.randperm` under the random seed plus the epoch.
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

    /// Updates of one pass over `pairs` pairs; the last takes what is left, so that a pass is every pair once.
    pub(crate) fn updates(&self, size: usize, pairs: u64) -> u64 {
        self.pairs(pairs).div_ceil(size as u64)
    }

    /// Pairs of one pass: those of the mixture, or all `known` pairs.
    pub(crate) fn pairs(&self, known: u64) -> u64 {
        match self {
            Self::Mixed { mixture, .. } => mixture.len(),
            _ => known,
        }
    }

    /// Passes over the pairs after `step` updates, as transformers counts them: a short batch completes a pass like a full
    /// one.
    pub(crate) fn epochs(&self, step: u64, size: usize, pairs: u64) -> f64 {
        step as f64 / self.updates(size, pairs) as f64
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
        let updates = self.order.updates(self.size, pairs);
        let (epoch, first) = (step / updates, step % updates * size);
        let places = first..(first + size).min(self.order.pairs(pairs));
        match self.order {
            Order::File => places.map(|place| place as usize).collect(),
            Order::Shuffled(seed) => {
                let permutation = Permutation::new(pairs, *seed, epoch);
                places.map(|place| permutation.at(place) as usize).collect()
            }
            Order::Trl(seed) => {
                let places = places.start as usize..places.end as usize;
                self.permutation(*seed, epoch)[places].to_vec()
            }
            Order::Mixed { mixture, starts } => places
                .map(|place| {
                    let draw = mixture.at(place);
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
    use simplemix_mix::{MixtureConfig, SourceConfig, Weight};

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
    fn the_last_batch_of_an_epoch_takes_what_is_left() {
        let source = |name: &str, rows| SourceConfig::new(name, rows, Weight::whole(1));
        let mixture = Mixture::new(MixtureConfig::new(vec![source("a", 8), source("b", 7)], 3)).unwrap();
        assert_eq!(mixture.len(), 15);
        let mixed = Order::Mixed { mixture: Arc::new(mixture), starts: [0, 8].into() };
        for order in [Order::File, Order::Shuffled(1), Order::Trl(1), mixed] {
            assert_eq!((order.updates(8, 15), order.updates(20, 15), order.updates(5, 15)), (2, 1, 3), "{order:?}");
            assert_eq!((order.epochs(3, 8, 15), order.epochs(2, 20, 15)), (1.5, 2.0));
            for size in [1, 4, 8, 15, 20] {
                let (mut batches, updates) = (order.batches(size, 15), order.updates(size, 15));
                for epoch in 0..3 {
                    let epoch: Vec<Vec<usize>> =
                        (epoch * updates..(epoch + 1) * updates).map(|s| batches.at(s)).collect();
                    assert!(epoch[..epoch.len() - 1].iter().all(|batch| batch.len() == size), "{order:?} {size}");
                    let mut pairs = epoch.concat();
                    pairs.sort_unstable();
                    assert_eq!(pairs, (0..15).collect::<Vec<_>>(), "{order:?} {size}");
                }
            }
        }
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
