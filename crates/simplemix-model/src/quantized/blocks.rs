//! 4-bit codes in blocks of a flattened matrix, each with its largest magnitude: NF4 and FP4 as bitsandbytes stores them.
//!
//! A number is its block's scale times the code's value. Two codes share a byte, the first in its high nibble. With double
//! quantisation the scales less their mean are 8-bit codes themselves, in blocks of 256 (Dettmers et al. 2023, section 3).

use tch::{Kind, TchError, Tensor};

use super::on_host::{self, Coded};
use super::{CHUNK, pairs_of, tensor_bytes, unfit, unpacked};
use crate::error::{Doing, Result};

/// Numbers of a block.
pub(super) const BLOCK: i64 = 64;
/// Scales of a block of scales.
const NESTED_BLOCK: i64 = 256;
/// Bytes of scales for each number.
pub(super) const SCALE_BYTES: f64 = 4.0 / BLOCK as f64;
/// As [`SCALE_BYTES`], with double quantisation.
pub(super) const NESTED_BYTES: f64 = (1.0 + 4.0 / NESTED_BLOCK as f64) / BLOCK as f64;

/// Values of the codes of NF4: quantiles of a normal distribution (`get_4bit_type` in bitsandbytes' functional.py).
pub(super) const NF4: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// A matrix in 4-bit blocks.
#[derive(Debug)]
pub(crate) struct Blocks {
    /// Two codes a byte, `[(O I + 1) / 2]`.
    packed: Tensor,
    /// Values of both codes of a byte, `[256, 2]`.
    pairs: Tensor,
    scales: Scales,
    /// Numbers of a block.
    block: i64,
    numel: i64,
}

/// Scales of blocks.
#[derive(Debug)]
pub(super) enum Scales {
    /// f32.
    Plain(Tensor),
    /// `map[codes] * scales + offset`.
    Nested { codes: Tensor, map: Tensor, scales: Tensor, offset: f64, block: i64 },
}

impl Scales {
    /// Scale of each block, in f32.
    fn values(&self) -> Result<Tensor, TchError> {
        match self {
            Self::Plain(values) => Ok(values.shallow_clone()),
            Self::Nested { codes, map, scales, offset, block } => {
                let count = codes.numel() as i64;
                let each = scales.f_repeat_interleave_self_int(*block, 0, None::<i64>)?.f_narrow(0, 0, count)?;
                let values = map.f_index_select(0, &codes.f_to_kind(Kind::Int)?)?;
                values.f_mul(&each)?.f_add_scalar(*offset)
            }
        }
    }

    /// Quantises scales once more.
    fn nested(scales: &Tensor) -> Result<Self, TchError> {
        // The mean as f32, which is how bitsandbytes keeps it.
        let offset = scales.f_mean(Kind::Float)?;
        let centred = scales.f_sub(&offset)?;
        let map = dynamic_map()?.f_to_device(scales.device())?;
        let count = centred.numel() as i64;
        let blocks = (count + NESTED_BLOCK - 1) / NESTED_BLOCK;
        let padded = centred.f_constant_pad_nd([0, blocks * NESTED_BLOCK - count])?.f_view([blocks, NESTED_BLOCK])?;
        let largest = padded.f_abs()?.f_amax([1], true)?;
        let scaled = scaled(&padded, &largest, count % NESTED_BLOCK != 0)?.f_view(-1)?.f_narrow(0, 0, count)?;
        let codes = scaled.f_bucketize(&middles(&map)?, true, false)?.f_to_kind(Kind::Uint8)?;
        let offset = offset.f_double_value(&[])?;
        Ok(Self::Nested { codes, map, scales: largest.f_view(-1)?, offset, block: NESTED_BLOCK })
    }

    fn bytes(&self) -> u64 {
        match self {
            Self::Plain(values) => tensor_bytes(&[values]),
            Self::Nested { codes, map, scales, .. } => tensor_bytes(&[codes, map, scales]),
        }
    }

    fn count(&self) -> i64 {
        match self {
            Self::Plain(values) => values.numel() as i64,
            Self::Nested { codes, .. } => codes.numel() as i64,
        }
    }
}

/// Parts of a matrix as a file has them.
pub(super) struct Parts {
    /// Codes, u8, two a byte.
    pub(super) packed: Tensor,
    /// Values of the codes.
    pub(super) values: [f32; 16],
    pub(super) scales: Scales,
    pub(super) block: i64,
}

impl Blocks {
    /// Quantises `weight` as bitsandbytes' `quantize_4bit(.., quant_type="nf4")` does, its numbers taken as f32.
    pub(super) fn quantise(weight: &Tensor, double: bool) -> Result<Self, TchError> {
        quantise(weight, double)
    }

    /// A matrix of `numel` numbers; `name` is for errors.
    pub(super) fn of(name: &str, parts: Parts, numel: i64) -> Result<Self> {
        let Parts { packed, values, scales, block } = parts;
        let packed = packed.f_reshape(-1).doing("reading a quantised weight")?;
        if !(block > 0 && block % 2 == 0) {
            return Err(unfit(format!("`blocksize` of `{name}`"), block.to_string(), "an even number above 0"));
        }
        for (what, found, expected) in [
            (format!("bytes of `{name}`"), packed.numel() as i64, (numel + 1) / 2),
            (format!("scales of `{name}`"), scales.count(), (numel + block - 1) / block),
        ] {
            if found != expected {
                return Err(unfit(what, found.to_string(), expected.to_string()));
            }
        }
        if let Scales::Nested { codes, map, scales, block, .. } = &scales {
            let (count, expected) = (codes.numel() as i64, scales.numel() as i64);
            if *block <= 0 || (count + block - 1) / block != expected || map.numel() != 256 {
                let found = format!("{expected} for {count} scales in blocks of {block}, and {} values", map.numel());
                return Err(unfit(
                    format!("scales of the scales of `{name}`"),
                    found,
                    "one for each block, and 256 values",
                ));
            }
        }
        let pairs = pairs_of(&values, packed.device()).doing("reading a quantised weight")?;
        Ok(Self { packed, pairs, scales, block, numel })
    }

    pub(super) fn dequantise_into(&self, out: &Tensor) -> Result<(), TchError> {
        let scales = self.scales.values()?;
        let coded = Coded { packed: &self.packed, pairs: &self.pairs, scales: &scales, block: self.block as usize };
        if coded.write(out) { Ok(()) } else { self.by_operators(out, &scales) }
    }

    /// As [`Blocks::dequantise_into`], by libtorch's operators.
    fn by_operators(&self, out: &Tensor, scales: &Tensor) -> Result<(), TchError> {
        let (flat, block) = (out.f_view(-1)?, self.block);
        let step = (CHUNK / block).max(1) * block;
        let mut start = 0;
        while start < self.numel {
            let count = step.min(self.numel - start);
            let values = unpacked(&self.packed, &self.pairs, start / 2, count)?;
            let whole = count / block * block;
            // The last block may be cut short.
            for (from, length, width) in [(0, whole, block), (whole, count - whole, count - whole)] {
                if length > 0 {
                    let first = (start + from) / block;
                    let scales = scales.f_narrow(0, first, length / width)?.f_unsqueeze(1)?;
                    let values = values.f_narrow(0, from, length)?.f_view([-1, width])?;
                    let mut to = flat.f_narrow(0, start + from, length)?.f_view([-1, width])?;
                    to.f_copy_(&values.f_mul(&scales)?)?;
                }
            }
            start += count;
        }
        Ok(())
    }

    pub(super) fn bytes(&self) -> u64 {
        tensor_bytes(&[&self.packed, &self.pairs]) + self.scales.bytes()
    }

    /// Codes and scales, for tests.
    #[cfg(test)]
    pub(super) fn parts(&self) -> (&Tensor, &Scales) {
        (&self.packed, &self.scales)
    }
}

fn quantise(weight: &Tensor, double: bool) -> Result<Blocks, TchError> {
    let device = weight.device();
    let flat = weight.f_contiguous()?.f_view(-1)?;
    let numel = flat.numel() as i64;
    let packed = Tensor::f_empty([(numel + 1) / 2], (Kind::Uint8, device))?;
    let largest = Tensor::f_empty([(numel + BLOCK - 1) / BLOCK], (Kind::Float, device))?;
    let bounds: [f32; 15] = std::array::from_fn(|code| (NF4[code] + NF4[code + 1]) / 2.0);
    if !on_host::quantise(&flat, bounds, &packed, &largest) {
        by_operators(&flat, &packed, &largest)?;
    }
    let scales = if double { Scales::nested(&largest)? } else { Scales::Plain(largest) };
    Ok(Blocks { packed, pairs: pairs_of(&NF4, device)?, scales, block: BLOCK, numel })
}

/// Writes codes and scales of `flat` by libtorch's operators, which take 24 bytes for each number of a part.
fn by_operators(flat: &Tensor, packed: &Tensor, largest: &Tensor) -> Result<(), TchError> {
    let numel = flat.numel() as i64;
    let bounds = middles(&Tensor::f_from_slice(&NF4)?.f_to_device(flat.device())?)?;
    let mut start = 0;
    while start < numel {
        let count = CHUNK.min(numel - start);
        let part = flat.f_narrow(0, start, count)?.f_to_kind(Kind::Float)?;
        let blocks = (count + BLOCK - 1) / BLOCK;
        // Zeros change no block's largest magnitude.
        let part = match blocks * BLOCK - count {
            0 => part,
            missing => part.f_constant_pad_nd([0, missing])?,
        };
        let part = part.f_view([blocks, BLOCK])?;
        let most = part.f_abs()?.f_amax([1], true)?; // [blocks, 1]
        let codes = scaled(&part, &most, count % BLOCK != 0)?.f_bucketize(&bounds, true, false)?;
        let codes = codes.f_to_kind(Kind::Uint8)?.f_view([-1, 2])?;
        let high = codes.f_select(1, 0)?.f_bitwise_left_shift_tensor_scalar(4)?;
        let bytes = (count + 1) / 2;
        let both = high.f_bitwise_or_tensor(&codes.f_select(1, 1)?)?.f_narrow(0, 0, bytes)?;
        packed.f_narrow(0, start / 2, bytes)?.f_copy_(&both)?;
        largest.f_narrow(0, start / BLOCK, blocks)?.f_copy_(&most.f_view(-1)?)?;
        start += count;
    }
    Ok(())
}

/// Numbers of `blocks` `[B, W]` over their `largest` `[B, 1]`, by its reciprocal; bitsandbytes divides those of a block that is cut short.
fn scaled(blocks: &Tensor, largest: &Tensor, is_cut: bool) -> Result<Tensor, TchError> {
    let largest = largest.f_clamp_min(1e-38)?;
    let scaled = blocks.f_mul(&largest.f_reciprocal()?)?;
    if is_cut {
        let last = blocks.f_select(0, -1)?.f_div(&largest.f_select(0, -1)?)?;
        scaled.f_select(0, -1)?.f_copy_(&last)?;
    }
    scaled.f_clamp(-1.0, 1.0)
}

/// Numbers half way between neighbours of sorted `values`.
fn middles(values: &Tensor) -> Result<Tensor, TchError> {
    let count = values.numel() as i64 - 1;
    values.f_narrow(0, 0, count)?.f_add(&values.f_narrow(0, 1, count)?)?.f_div_scalar(2.0)
}

/// Values of 8-bit codes with a dynamic exponent (Dettmers 2015, arXiv:1511.04561): bitsandbytes' `create_dynamic_map`.
fn dynamic_map() -> Result<Tensor, TchError> {
    let options = (Kind::Float, tch::Device::Cpu);
    let mut all = vec![Tensor::f_zeros([1], options)?, Tensor::f_ones([1], options)?];
    for (exponent, scale) in [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0].into_iter().enumerate() {
        let means = middles(&Tensor::f_linspace(0.1, 1.0, (1 << exponent) + 1, options)?)?;
        all.extend([means.f_mul_scalar(scale)?, means.f_mul_scalar(-scale)?]);
    }
    Ok(Tensor::f_cat(&all, 0)?.f_sort(0, false)?.0)
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    /// Numbers in several parts of a thread, in whole blocks and with one that is cut short.
    #[test]
    fn kernels_of_the_cpu_have_the_bits_of_operators() {
        for (rows, columns) in [(1, 1), (3, 7), (5, 64), (300, 513), (2100, 512)] {
            let raw = Tensor::arange(rows * columns, (Kind::Float, Device::Cpu)).view([rows, columns]);
            let mut weight = (raw * 0.37).sin() * 0.02;
            // A block of zeros.
            let _ = weight.view([-1]).narrow(0, 0, 64.min(rows * columns)).zero_();
            weight = weight.to_kind(Kind::Float);
            for double in [false, true] {
                let own = quantise(&weight, double).unwrap();
                let [packed, largest] = [&own.packed, &own.scales.values().unwrap()].map(Tensor::empty_like);
                by_operators(&weight.view(-1), &packed, &largest).unwrap();
                assert_eq!(own.packed, packed, "{rows} x {columns}");
                if !double {
                    assert_eq!(own.scales.values().unwrap(), largest);
                }
                let [found, expected] = [&weight, &weight].map(Tensor::empty_like);
                own.dequantise_into(&found).unwrap();
                own.by_operators(&expected, &own.scales.values().unwrap()).unwrap();
                assert_eq!(found, expected, "{rows} x {columns}");
            }
        }
    }
}
