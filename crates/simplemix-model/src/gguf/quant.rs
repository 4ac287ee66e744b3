//! GGML's tensor types, to f32 as llama.cpp and the `gguf` Python package compute them.

use half::{bf16, f16};
use rayon::prelude::*;

use super::super_blocks;

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
    /// 32 weights: f16 scale, 32 high bits, 16 bytes of two weights each, 16 taken off.
    Q5_0,
    /// 32 weights: f16 scale, f16 minimum, 32 high bits, 16 bytes of two weights each.
    Q5_1,
    /// 32 weights: f16 scale, 32 signed bytes.
    Q8_0,
    /// 32 weights: f16 scale, 16 bytes of the numbers of two values each.
    Iq4Nl,
    /// 32 weights: an exponent, 16 bytes of two floats of four bits each.
    Mxfp4,
    // 256 weights: see [`super_blocks`].
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
    Iq4Xs,
    Tq1_0,
    Tq2_0,
}

/// Values of four bits in `IQ4_NL` and `IQ4_XS`.
pub(super) const IQ4_VALUES: [f32; 16] =
    [-127., -104., -83., -65., -49., -35., -22., -10., 1., 13., 25., 38., 53., 69., 89., 113.];
/// Values of four bits in `MXFP4`, twice what they are: the exponent counts for half.
const MXFP4_VALUES: [f32; 16] = [0., 1., 2., 3., 4., 6., 8., 12., 0., -1., -2., -3., -4., -6., -8., -12.];

impl Quant {
    pub(super) const NAMES: &str =
        "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K to Q6_K, IQ4_NL, IQ4_XS, MXFP4, TQ1_0 or TQ2_0";

    pub(super) fn of(kind: u32) -> Option<Self> {
        Some(match kind {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            10 => Self::Q2K,
            11 => Self::Q3K,
            12 => Self::Q4K,
            13 => Self::Q5K,
            14 => Self::Q6K,
            20 => Self::Iq4Nl,
            23 => Self::Iq4Xs,
            30 => Self::Bf16,
            34 => Self::Tq1_0,
            35 => Self::Tq2_0,
            39 => Self::Mxfp4,
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
            (40, "NVFP4"),
        ];
        let known = NAMES.iter().find(|(known, _)| *known == kind).map(|(_, name)| (*name).to_owned());
        known.unwrap_or_else(|| format!("of an unknown type, {kind}"))
    }

    /// Weights of a block.
    pub(super) fn block(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 | Self::Iq4Nl | Self::Mxfp4 => 32,
            Self::Q2K | Self::Q3K | Self::Q4K | Self::Q5K | Self::Q6K => 256,
            Self::Iq4Xs | Self::Tq1_0 | Self::Tq2_0 => 256,
        }
    }

    /// Bytes of a block.
    pub(super) fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Iq4Nl => 18,
            Self::Mxfp4 => 17,
            Self::Q2K => 84,
            Self::Q3K => 110,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
            Self::Iq4Xs => 136,
            Self::Tq1_0 => 54,
            Self::Tq2_0 => 66,
        }
    }

    /// All weights of `bytes`, which are whole blocks.
    pub(super) fn dequantise(self, bytes: &[u8]) -> Vec<f32> {
        let mut weights = vec![0f32; bytes.len() / self.block_bytes() * self.block()];
        weights
            .par_chunks_exact_mut(self.block())
            .with_min_len((1 << 15) / self.block())
            .zip(bytes.par_chunks_exact(self.block_bytes()))
            .for_each(|(weights, block)| self.block_to(block, weights));
        weights
    }

    fn block_to(self, block: &[u8], weights: &mut [f32]) {
        let half = |at: usize| half_at(block, at);
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
            Self::Q5_0 => {
                let scale = half(0);
                nibbles(&block[6..], weights, f32::from);
                high_bits(&block[2..6], weights, |q| (q - 16.0) * scale);
            }
            Self::Q5_1 => {
                let (scale, least) = (half(0), half(2));
                nibbles(&block[8..], weights, f32::from);
                high_bits(&block[4..8], weights, |q| q * scale + least);
            }
            Self::Iq4Nl => {
                let scale = half(0);
                nibbles(&block[2..], weights, |q| scale * IQ4_VALUES[usize::from(q)]);
            }
            Self::Mxfp4 => {
                let exponent = u32::from(block[0]);
                let bits = if exponent < 2 { 0x0020_0000 << exponent } else { (exponent - 1) << 23 };
                let scale = f32::from_bits(bits);
                nibbles(&block[1..], weights, |q| scale * MXFP4_VALUES[usize::from(q)]);
            }
            Self::Q2K => super_blocks::q2_k(block, weights),
            Self::Q3K => super_blocks::q3_k(block, weights),
            Self::Q4K => super_blocks::q4_k(block, weights),
            Self::Q5K => super_blocks::q5_k(block, weights),
            Self::Q6K => super_blocks::q6_k(block, weights),
            Self::Iq4Xs => super_blocks::iq4_xs(block, weights),
            Self::Tq1_0 => super_blocks::tq1_0(block, weights),
            Self::Tq2_0 => super_blocks::tq2_0(block, weights),
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

/// The f16 at byte `at`.
pub(super) fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Adds the fifth bit of each of 32 weights, and makes `value` of the sum.
fn high_bits(bytes: &[u8], weights: &mut [f32], value: impl Fn(f32) -> f32) {
    for (i, weight) in weights.iter_mut().enumerate() {
        let bit = (bytes[i / 8] >> (i % 8)) & 1;
        *weight = value(*weight + f32::from(bit << 4));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hashes of all weights of eight blocks, bit for bit, by tests/golden/gguf_quant.py with gguf 0.19.0.
    #[test]
    fn blocks_are_those_of_the_gguf_package() {
        for &(kind, golden) in GOLDEN {
            let quant = Quant::of(kind).unwrap();
            let mut state = u64::from(kind);
            let mut byte = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            };
            let mut bytes: Vec<u8> = (0..8 * quant.block_bytes()).map(|_| byte()).collect();
            // Scales that are ordinary numbers: 0.5 and -0.25 in f16.
            for block in bytes.chunks_exact_mut(quant.block_bytes()) {
                for (at, scale) in scales(kind).iter().zip([[0x00, 0x38], [0x00, 0xb4]]) {
                    block[*at..*at + 2].copy_from_slice(&scale);
                }
            }
            let hash = quant
                .dequantise(&bytes)
                .iter()
                .flat_map(|weight| weight.to_le_bytes())
                .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
            assert_eq!(hash, golden, "{quant:?}");
        }
    }

    /// Places of the f16 scales of a type.
    fn scales(kind: u32) -> &'static [usize] {
        match kind {
            3 | 7 | 12 | 13 => &[0, 2],
            10 => &[80, 82],
            11 => &[108],
            14 => &[208],
            34 => &[52],
            35 => &[64],
            39 => &[],
            _ => &[0],
        }
    }

    const GOLDEN: &[(u32, u64)] = &[
        (2, 0x1505_18bc_33f2_22c8),  // Q4_0
        (3, 0x5e2a_64e6_8511_e40a),  // Q4_1
        (6, 0x1cbc_5a19_84ba_54bb),  // Q5_0
        (7, 0x46e6_c4c1_c9a4_a7b9),  // Q5_1
        (8, 0x88d9_b3d7_206e_06e5),  // Q8_0
        (10, 0x1944_ce3d_65a3_a83e), // Q2_K
        (11, 0xd43f_c234_65ae_0f73), // Q3_K
        (12, 0x9829_6fb7_32e1_9d9d), // Q4_K
        (13, 0xafbd_ebba_ba93_a510), // Q5_K
        (14, 0xfa43_fc36_1f24_2ddf), // Q6_K
        (20, 0x94dc_e5df_ad54_598f), // IQ4_NL
        (23, 0x78b0_aa5b_f9e1_c39d), // IQ4_XS
        (34, 0x7cdf_1397_c664_fa98), // TQ1_0
        (35, 0x2874_8a5b_5d7e_bf38), // TQ2_0
        (39, 0xccb4_c8df_a2b8_f7c9), // MXFP4
    ];

    #[test]
    fn plain_floats_are_read_bit_for_bit() {
        assert_eq!(Quant::F32.dequantise(&1.5f32.to_le_bytes()), [1.5]);
        assert_eq!(Quant::F16.dequantise(&f16::from_f32(-0.375).to_le_bytes()), [-0.375]);
        assert_eq!(Quant::Bf16.dequantise(&bf16::from_f32(3.0).to_le_bytes()), [3.0]);
    }
}
