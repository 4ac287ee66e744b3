//! Plain memory of tensors on the CPU.
#![expect(unsafe_code, reason = "tch has no view of a tensor's memory")]

use tch::{Device, Kind, Tensor};

/// A matrix whose entries several threads write, no two the same one.
pub(crate) struct Shared {
    start: *mut f32,
    len: usize,
}

// SAFETY: writes through it are of distinct entries, which is what `Shared::put` asks of its callers.
unsafe impl Sync for Shared {}

/// The entries of a contiguous f32 tensor on the CPU; none of any other.
pub(crate) fn values(tensor: &Tensor) -> Option<&[f32]> {
    // SAFETY: a contiguous f32 tensor holds as many floats one after another, and lives as long as the borrow.
    is_plain(tensor).then(|| unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast(), tensor.numel()) })
}

/// As [`values`], to be written. The tensor must be one that nothing else looks at: one just made.
pub(crate) fn values_mut(tensor: &mut Tensor) -> Option<&mut [f32]> {
    // SAFETY: as above; the tensor is borrowed alone.
    is_plain(tensor).then(|| unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast(), tensor.numel()) })
}

fn is_plain(tensor: &Tensor) -> bool {
    tensor.device() == Device::Cpu && tensor.kind() == Kind::Float && tensor.is_contiguous()
}

impl Shared {
    pub(crate) fn new(entries: &mut [f32]) -> Self {
        Self { start: entries.as_mut_ptr(), len: entries.len() }
    }

    /// Writes entries from `at` on, which no other thread writes.
    pub(crate) fn put(&self, at: usize, values: &[f32]) {
        assert!(at <= self.len && values.len() <= self.len - at);
        // SAFETY: they are inside, by the line above, and no other thread's.
        unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), self.start.add(at), values.len()) }
    }
}
