//! Which pairs an update takes: a pure function of the update's number.

/// In which order pairs of a file are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// As they stand in the file, again and again. A mixture is written in its order, so that every batch of it holds
    /// the shares.
    File,
    /// Shuffled anew each epoch, under a seed.
    Shuffled(u64),
}

impl Order {
    /// Numbers of the `size` pairs of update `step` out of `pairs`.
    pub fn batch(self, step: u64, size: usize, pairs: u64) -> Vec<usize> {
        let first = step * size as u64;
        (first..first + size as u64).map(|i| self.pair(i, pairs) as usize).collect()
    }

    fn pair(self, index: u64, pairs: u64) -> u64 {
        let (epoch, place) = (index / pairs, index % pairs);
        match self {
            Self::File => place,
            Self::Shuffled(seed) => simplemix_mix::Permutation::new(pairs, seed, epoch).at(place),
        }
    }
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
}
