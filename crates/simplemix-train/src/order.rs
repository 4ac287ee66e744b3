//! Which pairs an update takes: a pure function of the update's number.

use std::sync::Arc;

use simplemix_mix::{Mixture, Permutation};
use tch::{Device, Kind, Tensor};

/// In which order pairs are taken.
#[derive(Debug, Clone)]
pub enum Order {
    /// As they stand in the file, again and again. A mixture is written in its order, so that every batch of it holds
    /// the shares.
    File,
    /// Shuffled anew each epoch, under a seed.
    Shuffled(u64),
    /// As transformers' `Trainer` takes them: `torch.randperm` under the seed plus the epoch, and a last batch of what
    /// an epoch has left.
    Trl(u64),
    /// As a mixture of several sources draws them. Pairs of source `s` begin at `starts[s]`.
    Mixed {
        /// The mixture of the pairs that are kept.
        mixture: Arc<Mixture>,
        /// Number of each source's first pair.
        starts: Arc<[usize]>,
    },
}

impl Order {
    /// Numbers of the pairs of update `step`, `size` of them (less at an epoch's end, as transformers has it), out of
    /// `pairs`.
    pub fn batch(&self, step: u64, size: usize, pairs: u64) -> Vec<usize> {
        let first = step * size as u64;
        let places = first..first + size as u64;
        match self {
            Self::File => places.map(|i| (i % pairs) as usize).collect(),
            Self::Shuffled(seed) => {
                places.map(|i| Permutation::new(pairs, *seed, i / pairs).at(i % pairs) as usize).collect()
            }
            Self::Trl(seed) => {
                let updates = self.updates(size, pairs);
                let epoch = randperm(pairs, seed.wrapping_add(step / updates));
                let first = (step % updates) as usize * size;
                epoch[first..epoch.len().min(first + size)].to_vec()
            }
            Self::Mixed { mixture, starts } => places
                .map(|i| {
                    let draw = mixture.at(i % mixture.len());
                    starts[draw.source] + draw.row as usize
                })
                .collect(),
        }
    }

    /// Updates of one pass over `pairs` pairs.
    pub fn updates(&self, size: usize, pairs: u64) -> u64 {
        match self {
            Self::Trl(_) => pairs.div_ceil(size as u64),
            _ => pairs / size as u64,
        }
    }

    /// Pairs of one pass: of a mixture, those that it has.
    pub fn pairs(&self, known: u64) -> u64 {
        match self {
            Self::Mixed { mixture, .. } => mixture.len(),
            _ => known,
        }
    }
}

/// `torch.randperm(n, generator=torch.Generator().manual_seed(seed))`. libtorch's generator of random numbers is left at
/// another place than it was; nothing here reads from it otherwise.
fn randperm(n: u64, seed: u64) -> Vec<usize> {
    use std::sync::Mutex;
    // The generator is the process's.
    static GENERATOR: Mutex<()> = Mutex::new(());
    let _alone = GENERATOR.lock();
    tch::manual_seed(seed as i64);
    let order = Tensor::randperm(n as i64, (Kind::Int64, Device::Cpu));
    Vec::<i64>::try_from(order).unwrap_or_default().into_iter().map(|pair| pair as usize).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shuffled_epoch_holds_every_pair_once_and_the_next_another_order() {
        let order = Order::Shuffled(4);
        let first = order.batch(0, 10, 10);
        let second = order.batch(1, 10, 10);
        let mut sorted = first.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..10).collect::<Vec<_>>());
        assert_ne!(first, second);
        assert_eq!(order.batch(1, 5, 10), first[5..]);
    }

    /// torch 2.11: `torch.randperm(10, generator=torch.Generator().manual_seed(42))`, and with 43.
    #[test]
    fn trls_order_is_that_of_torch() {
        let order = Order::Trl(42);
        assert_eq!(order.updates(4, 10), 3);
        assert_eq!(order.batch(0, 10, 10), TORCH[0]);
        assert_eq!(order.batch(1, 4, 10), TORCH[0][4..8]);
        assert_eq!(order.batch(2, 4, 10), TORCH[0][8..]);
        assert_eq!(order.batch(3, 4, 10), TORCH[1][..4]);
    }

    const TORCH: [[usize; 10]; 2] = [[2, 6, 1, 8, 4, 5, 0, 9, 3, 7], [8, 4, 9, 0, 5, 1, 6, 7, 2, 3]];
}
