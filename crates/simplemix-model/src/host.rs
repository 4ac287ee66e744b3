//! Memory of f32 tensors on the CPU, as slices.
#![expect(unsafe_code, reason = "tch has no view of a tensor's memory")]

use std::marker::PhantomData;

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

    /// Blocks of at most `width` columns each of a matrix of `rows` rows, from the first column on.
    pub(crate) fn column_blocks(&mut self, rows: usize, width: usize) -> impl Iterator<Item = Columns<'_>> {
        let entries = self.entries();
        let stride = entries.len().checked_div(rows).unwrap_or(0);
        let start = entries.as_mut_ptr();
        (0..stride).step_by(width).map(move |first| Columns {
            // SAFETY: `first` is below `stride`, so it is a column of the first row, or nothing is added.
            start: unsafe { start.add(first) },
            rows,
            stride,
            width: width.min(stride - first),
            entries: PhantomData,
        })
    }

    /// Gives up exclusive access.
    pub(crate) fn into_tensor(self) -> Tensor {
        self.0
    }
}

/// Some neighbouring columns of a row-major matrix, of which no other block has any.
pub(crate) struct Columns<'a> {
    start: *mut f32,
    rows: usize,
    stride: usize,
    width: usize,
    entries: PhantomData<&'a mut [f32]>,
}

// SAFETY: blocks of one matrix have no entry in common, so each is like an exclusive borrow of its own entries.
unsafe impl Send for Columns<'_> {}

impl Columns<'_> {
    /// This block's entries of one row.
    pub(crate) fn row(&mut self, row: usize) -> &mut [f32] {
        assert!(row < self.rows, "row {row} of a block of {} rows", self.rows);
        // SAFETY: `column_blocks` made the block inside a matrix of `rows` rows that is `stride` wide and borrowed
        // mutably; columns of other blocks are not touched, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(row * self.stride), self.width) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_columns_are_the_matrix_once() {
        for (rows, columns) in [(3, 7), (1, 4), (2, 1), (3, 0), (0, 5)] {
            let mut new = NewTensor::zeros(&[rows, columns]).unwrap();
            for (number, mut block) in new.column_blocks(rows as usize, 4).enumerate() {
                for row in 0..rows as usize {
                    for (at, entry) in block.row(row).iter_mut().enumerate() {
                        *entry += (row * 100 + number * 4 + at) as f32;
                    }
                }
            }
            let found = Vec::<f32>::try_from(new.into_tensor().flatten(0, -1)).unwrap();
            let expected: Vec<f32> = (0..rows).flat_map(|r| (0..columns).map(move |c| (r * 100 + c) as f32)).collect();
            assert_eq!(found, expected);
        }
    }

    #[test]
    #[should_panic(expected = "row 2 of a block of 2 rows")]
    fn a_row_outside_of_a_block_is_not_given() {
        let mut new = NewTensor::zeros(&[2, 3]).unwrap();
        let mut block = new.column_blocks(2, 2).last().unwrap();
        block.row(2);
    }
}
