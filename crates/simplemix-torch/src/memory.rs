//! Memory of tensors that comes and goes while the tensors stay.

use tch::Tensor;

use crate::error::Result;
use crate::native;

/// Gives each of two tensors the memory of the other. Views go along with their tensor, and so do what autograd has saved of it and
/// other handles: tensors whose memory is given away keep their shapes and hold no bytes until it comes back.
///
/// A tensor with less memory than its shape asks for must not be read or written.
///
/// # Errors
/// [`Error::Torch`](crate::Error::Torch) for tensors that share their memory, or on two devices.
///
/// # Examples
/// ```
/// use simplemix_torch::{exchange_memory, has_memory};
/// use tch::{Device, Kind, Tensor};
///
/// let all = Tensor::from_slice(&[1f32, 2.0, 3.0]);
/// let last = all.narrow(0, 2, 1);
/// let kept = Tensor::empty([0], (Kind::Float, Device::Cpu));
/// exchange_memory(&all, &kept)?;
/// assert!(last.size() == [1] && !has_memory(&last)?);
/// exchange_memory(&all, &kept)?;
/// assert_eq!(last.double_value(&[0]), 3.0);
/// # Ok::<(), simplemix_torch::Error>(())
/// ```
pub fn exchange_memory(a: &Tensor, b: &Tensor) -> Result<()> {
    native::exchange_memory(a, b)
}

/// Whether a contiguous tensor has the memory that its shape asks for, which it has unless [`exchange_memory`] has taken it.
///
/// # Errors
/// [`Error::Torch`](crate::Error::Torch) for a tensor that has no such thing as memory.
pub fn has_memory(tensor: &Tensor) -> Result<bool> {
    native::has_memory(tensor)
}

/// While it lives, each tensor of 128 KB or more on a CPU is memory of its own to glibc, which the system has back when it is dropped.
/// Other C libraries do as always.
///
/// For times in which small tensors are made of large ones and stay, as when weights are quantised while they are read. glibc keeps what
/// is freed between blocks that stay, cuts it up for later ones, and finds no use for the pieces. Afterwards this is left to tensors of
/// 32 MB or more, to which glibc itself comes as soon as it has freed one.
///
/// # Examples
/// ```
/// use simplemix_torch::BlocksApart;
/// use tch::{Device, Kind, Tensor};
///
/// let _apart = BlocksApart::begin();
/// let small = Tensor::ones([1 << 20], (Kind::Float, Device::Cpu)).to_kind(Kind::Uint8);
/// assert_eq!(small.numel(), 1 << 20);
/// ```
#[derive(Debug)]
pub struct BlocksApart(());

impl BlocksApart {
    /// Begins such a time.
    pub fn begin() -> Self {
        native::map_blocks(true);
        Self(())
    }
}

impl Drop for BlocksApart {
    fn drop(&mut self) {
        native::map_blocks(false);
    }
}
