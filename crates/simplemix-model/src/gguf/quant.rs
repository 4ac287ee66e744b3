//! GGML's tensor types, to f32 as llama.cpp and the `gguf` Python package compute them.

use half::{bf16, f16};
use rayon::prelude::*;

/// A tensor type that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quant {
    F32,
    F16,
    Bf16,
    /// 32 weights: f16 scale, 16 bytes of two weights each, 8 taken off.
    Q4_0,
    /// 32 weights: f16 scale, f16 minimum, 16 bytes of two weights each.
    Q4_1,
    /// 32 weights: f16 scale, 32 signed bytes.
    Q8_0,
}

impl Quant {
    pub(super) const NAMES: &str = "F32, F16, BF16, Q4_0, Q4_1 or Q8_0";

    pub(super) fn of(kind: u32) -> Option<Self> {
        Some(match kind {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            8 => Self::Q8_0,
            30 => Self::Bf16,
            _ => return None,
        })
    }

    /// ggml's name of a tensor type.
    pub(super) fn name(kind: u32) -> String {
        const NAMES: &[(u32, &str)] = &[
            (0, "F32"),
            (1, "F16"),
            (2, "Q4_0"),
            (3, "Q4_1"),
            (6, "Q5_0"),
            (7, "Q5_1"),
            (8, "Q8_0"),
            (9, "Q8_1"),
            (10, "Q2_K"),
            (11, "Q3_K"),
            (12, "Q4_K"),
            (13, "Q5_K"),
            (14, "Q6_K"),
            (15, "Q8_K"),
            (16, "IQ2_XXS"),
            (17, "IQ2_XS"),
            (18, "IQ3_XXS"),
            (19, "IQ1_S"),
            (20, "IQ4_NL"),
            (21, "IQ3_S"),
            (22, "IQ2_S"),
            (23, "IQ4_XS"),
            (24, "I8"),
            (25, "I16"),
            (26, "I32"),
            (27, "I64"),
            (28, "F64"),
            (29, "IQ1_M"),
            (30, "BF16"),
            (34, "TQ1_0"),
            (35, "TQ2_0"),
            (39, "MXFP4"),
        ];
        let known = NAMES.iter().find(|(known, _)| *known == kind).map(|(_, name)| (*name).to_owned());
        known.unwrap_or_else(|| format!("of an unknown type, {kind}"))
    }

    /// Weights of a block.
    pub(super) fn block(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q8_0 => 32,
        }
    }

    /// Bytes of a block.
    pub(super) fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q8_0 => 34,
        }
    }

    /// All weights of `bytes`, which are whole blocks.
    pub(super) fn dequantise(self, bytes: &[u8]) -> Vec<f32> {
        let mut weights = vec![0f32; bytes.len() / self.block_bytes() * self.block()];
        weights
            .par_chunks_exact_mut(self.block())
            .with_min_len(1 << 10)
            .zip(bytes.par_chunks_exact(self.block_bytes()))
            .for_each(|(weights, block)| self.block_to(block, weights));
        weights
    }

    fn block_to(self, block: &[u8], weights: &mut [f32]) {
        let half = |at: usize| f16::from_le_bytes([block[at], block[at + 1]]).to_f32();
        match self {
            Self::F32 => weights[0] = f32::from_le_bytes([block[0], block[1], block[2], block[3]]),
            Self::F16 => weights[0] = half(0),
            Self::Bf16 => weights[0] = bf16::from_le_bytes([block[0], block[1]]).to_f32(),
            Self::Q4_0 => {
                let scale = half(0);
                nibbles(&block[2..], weights, |q| (f32::from(q) - 8.0) * scale);
            }
            Self::Q4_1 => {
                let (scale, least) = (half(0), half(2));
                nibbles(&block[4..], weights, |q| f32::from(q) * scale + least);
            }
            Self::Q8_0 => {
                let scale = half(0);
                for (weight, byte) in weights.iter_mut().zip(&block[2..]) {
                    *weight = f32::from(i8::from_le_bytes([*byte])) * scale;
                }
            }
        }
    }
}

/// The low halves of 16 bytes are the first 16 weights, the high halves the others.
fn nibbles(bytes: &[u8], weights: &mut [f32], value: impl Fn(u8) -> f32) {
    let (first, second) = weights.split_at_mut(16);
    for ((byte, low), high) in bytes.iter().zip(first).zip(second) {
        *low = value(byte & 15);
        *high = value(byte >> 4);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Weights 4, 13 and 31 of a block of bytes `(7 i + 3) mod 256`, by tests/golden/gguf_quant.py with gguf 0.19.0.
    #[test]
    fn blocks_are_those_of_the_gguf_package() {
        for (kind, golden) in GOLDEN {
            let quant = Quant::of(*kind).unwrap();
            let mut block: Vec<u8> = (0..quant.block_bytes()).map(|i| (7 * i + 3) as u8).collect();
            // Scales that are ordinary numbers: 0.5 and -0.25 in f16.
            if quant.block() > 1 {
                block[..2].copy_from_slice(&[0x00, 0x38]);
            }
            if quant == Quant::Q4_1 {
                block[2..4].copy_from_slice(&[0x00, 0xb4]);
            }
            let weights = quant.dequantise(&block);
            let picked: Vec<f32> = [4, 13, 31].iter().filter_map(|&i: &usize| weights.get(i).copied()).collect();
            assert_eq!(picked, *golden, "{quant:?}");
        }
    }

    const GOLDEN: &[(u32, &[f32])] = &[(2, &[2.5, 2.0, -0.5]), (3, &[5.25, 4.75, 3.75]), (8, &[22.5, 54.0, -11.0])];

    #[test]
    fn plain_floats_are_read_bit_for_bit() {
        assert_eq!(Quant::F32.dequantise(&1.5f32.to_le_bytes()), [1.5]);
        assert_eq!(Quant::F16.dequantise(&f16::from_f32(-0.375).to_le_bytes()), [-0.375]);
        assert_eq!(Quant::Bf16.dequantise(&bf16::from_f32(3.0).to_le_bytes()), [3.0]);
    }
}
