//! What processes that train one model together agree on.
//!
//! One process trains here so far; the loop asks a [`Collective`] all the same, so that another one (over MPI, NCCL or
//! libtorch's c10d) needs no change to it. Every process holds the same weights, takes its part of each update's pairs,
//! and after the gradients are added up makes the same update.

use tch::Tensor;

use crate::error::Result;

/// Processes that act together; every one calls the same methods in the same order.
pub trait Collective {
    /// Number of this process, from zero.
    fn rank(&self) -> usize;

    /// Number of processes.
    fn size(&self) -> usize;

    /// Replaces `values` by their sums over all processes.
    ///
    /// # Errors
    /// [`crate::Error::Collective`] where the connection breaks.
    fn sum(&self, values: &mut [f64]) -> Result<()>;

    /// Replaces each tensor's values, in place, by their sums over all processes.
    ///
    /// # Errors
    /// As [`Collective::sum`].
    fn sum_tensors(&self, tensors: &mut [Tensor]) -> Result<()>;
}

/// A process by itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

impl Collective for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn sum(&self, _values: &mut [f64]) -> Result<()> {
        Ok(())
    }

    fn sum_tensors(&self, _tensors: &mut [Tensor]) -> Result<()> {
        Ok(())
    }
}
