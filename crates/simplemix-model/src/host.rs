//! Memory of f32 tensors on the CPU, as slices.
#![expect(unsafe_code, reason = "tch has no view of a tensor's memory")]

use tch::{Device, Kind, Tensor};

/// Entries of a contiguous f32 tensor on the CPU; `None` for any other tensor.
///
/// # Safety
/// While the slice lives, nothing may write to the tensor's memory. That includes other handles on the same memory, such
/// as shallow clones and views, on any thread.
pub(crate) unsafe fn values(tensor: &Tensor) -> Option<&[f32]> {
    if tensor.device() != Device::Cpu || tensor.kind() != Kind::Float || !tensor.is_contiguous() {
        return None;
    }
    if tensor.numel() == 0 {
        return Some(&[]);
    }
    // SAFETY: a contiguous f32 tensor holds `numel` floats one after another from `data_ptr` on, which the borrowed handle
    // keeps alive. The caller excludes writes.
    Some(unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast(), tensor.numel()) })
}

/// A contiguous f32 tensor on the CPU that no other handle shares, so that its entries can be borrowed mutably.
pub(crate) struct NewTensor(Tensor);

impl NewTensor {
    /// A tensor of zeros; `None` if memory does not suffice.
    pub(crate) fn zeros(size: &[i64]) -> Option<Self> {
        Tensor::f_zeros(size, (Kind::Float, Device::Cpu)).ok().map(Self)
    }

    /// All entries, in row-major order.
    pub(crate) fn entries(&mut self) -> &mut [f32] {
        if self.0.numel() == 0 {
            return &mut [];
        }
        // SAFETY: `zeros` made a contiguous, initialised f32 tensor. Its only handle is private to `self`, which is
        // borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.0.data_ptr().cast(), self.0.numel()) }
    }

    /// Gives up exclusive access.
    pub(crate) fn into_tensor(self) -> Tensor {
        self.0
    }
}
