//! Weights in f32 on a CPU, quantised and dequantised in one pass over memory, with the numbers of libtorch's operators.
//!
//! Those look up one pair of codes at a time and write each step down: decoding took three times as long
//! (benches/results/quantized-2026-12-01.md). They serve every other device and element type.
#![expect(unsafe_code, reason = "tch has no view of a tensor's memory")]

use rayon::prelude::*;
use tch::kind::Element;
use tch::{Device, Tensor};

use super::blocks::BLOCK;
use crate::stand_by::for_all;

/// Numbers of a task of a thread.
const TASK: usize = 1 << 16;

/// Both values of each byte.
type Pairs = [[f32; 2]; 256];

/// Memory of a contiguous tensor on the CPU with elements of type `T`; `None` for any other tensor, and for an empty one.
fn memory<T: Element>(tensor: &Tensor) -> Option<*mut [T]> {
    let is_here = tensor.device() == Device::Cpu && tensor.kind() == T::KIND && tensor.is_contiguous();
    let numel = tensor.numel();
    (is_here && numel > 0).then(|| std::ptr::slice_from_raw_parts_mut(tensor.data_ptr().cast(), numel))
}

/// A matrix in blocks with their scales, as [`super::blocks::Blocks`] has it.
pub(super) struct Coded<'a> {
    pub(super) packed: &'a Tensor,
    pub(super) pairs: &'a Tensor,
    pub(super) scales: &'a Tensor,
    pub(super) block: usize,
}

impl Coded<'_> {
    /// Writes the numbers to `out`, which nobody else reads or writes meanwhile; false if one of the tensors is not for kernels of the
    /// CPU.
    pub(super) fn write(&self, out: &Tensor) -> bool {
        let codes = (memory::<u8>(self.packed), memory::<f32>(self.pairs), memory::<f32>(self.scales));
        let ((Some(packed), Some(pairs), Some(scales)), Some(out)) = (codes, memory::<f32>(out)) else { return false };
        // SAFETY: the pointers are to all elements of living tensors. Codes and scales are written when they are made alone, and `out` is
        // the caller's.
        let (packed, pairs, scales, out) = unsafe { (&*packed, &*pairs, &*scales, &mut *out) };
        let (pairs, block) = (table(pairs), self.block);
        let blocks = (TASK / block).max(1);
        let parts = out.chunks_mut(blocks * block).zip(packed.chunks(blocks * block / 2)).zip(scales.chunks(blocks));
        share(parts.collect(), |((out, packed), scales)| {
            for ((out, packed), scale) in out.chunks_mut(block).zip(packed.chunks(block / 2)).zip(scales) {
                unpack(packed, &pairs, *scale, out);
            }
        });
        true
    }
}

/// Writes `codes` `[O, I]` of 8 bits times `scales` `[O]` times `step` to `out`, as [`Coded::write`] does.
pub(super) fn write_rows(codes: &Tensor, scales: &Tensor, step: f32, out: &Tensor) -> bool {
    let all = (memory::<i8>(codes), memory::<f32>(scales), memory::<f32>(out));
    let (Some(codes), Some(scales), Some(out)) = all else { return false };
    // SAFETY: as in `Coded::write`.
    let (codes, scales, out) = unsafe { (&*codes, &*scales, &mut *out) };
    let width = out.len() / scales.len();
    let rows = (TASK / width).max(1);
    let parts = out.chunks_mut(rows * width).zip(codes.chunks(rows * width)).zip(scales.chunks(rows));
    share(parts.collect(), |((out, codes), scales)| {
        for ((out, codes), scale) in out.chunks_mut(width).zip(codes.chunks(width)).zip(scales) {
            for (number, code) in out.iter_mut().zip(codes) {
                *number = f32::from(*code) * scale * step;
            }
        }
    });
    true
}

/// A matrix in groups of inputs, as [`super::groups::Groups`] has it.
pub(super) struct Grouped<'a> {
    pub(super) codes: &'a Tensor,
    pub(super) pairs: Option<&'a Tensor>,
    pub(super) scales: &'a Tensor,
    pub(super) zeros: &'a Tensor,
    pub(super) group_of: Option<&'a Tensor>,
}

impl Grouped<'_> {
    /// As [`Coded::write`], to `out` `[O, I]`; groups of inputs are in range.
    pub(super) fn write(&self, out: &Tensor) -> bool {
        let groups_of_all = (memory::<f32>(self.scales), memory::<f32>(self.zeros));
        let all = (memory::<u8>(self.codes), groups_of_all, memory::<f32>(out));
        let (Some(codes), (Some(scales), Some(zeros)), Some(out)) = all else { return false };
        let (pairs, of) = (self.pairs.map(memory::<f32>), self.group_of.map(memory::<i64>));
        let (None | Some(Some(_)), None | Some(Some(_))) = (pairs, of) else { return false };
        let Ok((outputs, groups)) = self.scales.size2() else { return false };
        let (outputs, groups) = (outputs as usize, groups as usize);
        // SAFETY: as in `Coded::write`.
        let (codes, scales, zeros, out) = unsafe { (&*codes, &*scales, &*zeros, &mut *out) };
        // SAFETY: as above.
        let (pairs, of) = unsafe { (pairs.flatten().map(|all| table(&*all)), of.flatten().map(|of| &*of)) };
        let width = out.len() / outputs;
        let bytes = codes.len() / outputs;
        let rows = (TASK / width).max(1);
        let parts = out.chunks_mut(rows * width).zip(codes.chunks(rows * bytes));
        let parts = parts.zip(scales.chunks(rows * groups).zip(zeros.chunks(rows * groups)));
        share(parts.collect(), |((out, codes), (scales, zeros))| {
            let all = out.chunks_mut(width).zip(codes.chunks(bytes));
            for ((out, codes), (scales, zeros)) in all.zip(scales.chunks(groups).zip(zeros.chunks(groups))) {
                match &pairs {
                    Some(pairs) => unpack(codes, pairs, 1.0, out),
                    None => out.iter_mut().zip(codes).for_each(|(number, code)| *number = f32::from(*code)),
                }
                match of {
                    Some(of) => {
                        for (number, group) in out.iter_mut().zip(of) {
                            *number = (*number - zeros[*group as usize]) * scales[*group as usize];
                        }
                    }
                    None => {
                        for (out, (scale, zero)) in out.chunks_mut(width / groups).zip(scales.iter().zip(zeros)) {
                            out.iter_mut().for_each(|number| *number = (*number - zero) * scale);
                        }
                    }
                }
            }
        });
        true
    }
}

/// Writes codes of `weight`, which stand between `bounds`, to `packed`, and the largest magnitude of each block to `scales`; false as in
/// [`Coded::write`].
pub(super) fn quantise(weight: &Tensor, bounds: [f32; 15], packed: &Tensor, scales: &Tensor) -> bool {
    const WIDTH: usize = BLOCK as usize;
    let all = (memory::<f32>(weight), memory::<u8>(packed), memory::<f32>(scales));
    let (Some(weight), Some(packed), Some(scales)) = all else { return false };
    // SAFETY: as in `Coded::write`; `packed` and `scales` are the caller's, and nobody writes to a weight that is being read.
    let (weight, packed, scales) = unsafe { (&*weight, &mut *packed, &mut *scales) };
    let blocks = TASK / WIDTH;
    let parts = packed.chunks_mut(TASK / 2).zip(scales.chunks_mut(blocks)).zip(weight.chunks(TASK));
    share(parts.collect(), |((packed, scales), weight)| {
        let all = packed.chunks_mut(WIDTH / 2).zip(scales).zip(weight.chunks(WIDTH));
        for ((packed, scale), numbers) in all {
            // A number that is none makes the block one of such.
            let larger = |most: f32, number: &f32| if number.abs() <= most { most } else { number.abs() };
            let largest = numbers.iter().fold(0.0, larger);
            let divisor = if largest < 1e-38 { 1e-38 } else { largest };
            let inverse = 1.0 / divisor;
            let (mut scaled, is_cut) = ([0.0; WIDTH], numbers.len() < WIDTH);
            for (scaled, number) in scaled.iter_mut().zip(numbers) {
                *scaled = if is_cut { number / divisor } else { number * inverse };
            }
            let mut codes = [15u8; WIDTH];
            for bound in bounds {
                codes.iter_mut().zip(&scaled).for_each(|(code, scaled)| *code -= u8::from(bound >= *scaled));
            }
            let (two, _) = codes.as_chunks::<2>();
            packed.iter_mut().zip(two).for_each(|(byte, [high, low])| *byte = high << 4 | low);
            *scale = largest;
        }
    });
    true
}

fn table(pairs: &[f32]) -> Pairs {
    let (pairs, _) = pairs.as_chunks::<2>();
    std::array::from_fn(|byte| pairs.get(byte).copied().unwrap_or_default())
}

/// Writes the values of both codes of each byte times `scale`; of the last byte's the first alone where one number is left.
fn unpack(packed: &[u8], pairs: &Pairs, scale: f32, out: &mut [f32]) {
    let (two, rest) = out.as_chunks_mut::<2>();
    for (two, byte) in two.iter_mut().zip(packed) {
        let [first, second] = pairs[usize::from(*byte)];
        *two = [first * scale, second * scale];
    }
    if let ([number], Some(byte)) = (rest, packed.last()) {
        *number = pairs[usize::from(*byte)][0] * scale;
    }
}

/// Runs `work` on every part: on several threads where libtorch has several, and on those that stand by while rows are decoded.
fn share<T: Send>(parts: Vec<T>, work: impl Fn(T) + Sync + Send) {
    if tch::get_num_threads() > 1 { parts.into_par_iter().for_each(work) } else { for_all(parts, work) }
}
