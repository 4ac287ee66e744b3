//! Blocks of 256 weights, whose parts have scales of their own: k-quants, `IQ4_XS` and the ternary types.
//!
//! Each function is the layout of `ggml-common.h` and the arithmetic of the `gguf` package's `dequantize`, in its order, so that every
//! weight has the same bits.

use super::quant::{IQ4_VALUES, half_at};

/// Two bits a weight; 16 parts with scale and minimum of four bits each.
pub(super) fn q2_k(block: &[u8], weights: &mut [f32]) {
    let (scales, rest) = block.split_at(16);
    let (bits, ends) = rest.split_at(64);
    let (scale, least) = (half_at(ends, 0), half_at(ends, 2));
    for (part, weights) in weights.chunks_exact_mut(16).enumerate() {
        let (own, min) = (scale * f32::from(scales[part] & 15), least * f32::from(scales[part] >> 4));
        for (i, weight) in weights.iter_mut().enumerate() {
            *weight = own * f32::from(crumb(bits, part * 16 + i)) - min;
        }
    }
}

/// Three bits a weight, the highest apart; 16 parts with a signed scale of six bits.
pub(super) fn q3_k(block: &[u8], weights: &mut [f32]) {
    let (high, rest) = block.split_at(32);
    let (bits, rest) = rest.split_at(64);
    let (packed, scale) = (&rest[..12], half_at(rest, 12));
    for (part, weights) in weights.chunks_exact_mut(16).enumerate() {
        let low = (packed[part % 8] >> (4 * (part / 8))) & 15;
        let top = (packed[8 + part % 4] >> (2 * (part / 4))) & 3;
        let own = scale * (f32::from(low | (top << 4)) - 32.0);
        for (i, weight) in weights.iter_mut().enumerate() {
            let at = part * 16 + i;
            // The offset is taken off where the bit is not set.
            let is_high = (high[at % 32] >> (at / 32)) & 1 == 1;
            *weight = own * (f32::from(crumb(bits, at)) - if is_high { 0.0 } else { 4.0 });
        }
    }
}

/// Four bits a weight; eight parts with scale and minimum of six bits each.
pub(super) fn q4_k(block: &[u8], weights: &mut [f32]) {
    let (scale, least) = (half_at(block, 0), half_at(block, 2));
    let (scales, bits) = block[4..].split_at(12);
    for (part, weights) in weights.chunks_exact_mut(32).enumerate() {
        let (own, min) = six_bits(scales, part);
        let (own, min) = (scale * own, least * min);
        for (i, weight) in weights.iter_mut().enumerate() {
            *weight = own * f32::from(nibble(bits, 32, part, i)) - min;
        }
    }
}

/// Five bits a weight, the highest apart; scales as those of [`q4_k`].
pub(super) fn q5_k(block: &[u8], weights: &mut [f32]) {
    let (scale, least) = (half_at(block, 0), half_at(block, 2));
    let (scales, rest) = block[4..].split_at(12);
    let (high, bits) = rest.split_at(32);
    for (part, weights) in weights.chunks_exact_mut(32).enumerate() {
        let (own, min) = six_bits(scales, part);
        let (own, min) = (scale * own, least * min);
        for (i, weight) in weights.iter_mut().enumerate() {
            let bit = (high[i] >> part) & 1;
            *weight = own * f32::from(nibble(bits, 32, part, i) | (bit << 4)) - min;
        }
    }
}

/// Six bits a weight, the two highest apart; 16 parts with a signed scale of a byte.
pub(super) fn q6_k(block: &[u8], weights: &mut [f32]) {
    let (low, rest) = block.split_at(128);
    let (high, rest) = rest.split_at(64);
    let scale = half_at(rest, 16);
    for (at, weight) in weights.iter_mut().enumerate() {
        // Halves of 128 weights: four rows of 32, of which the low bits of two share 64 bytes, and the high ones of all share 32.
        let (half, row, column) = (at / 128, at / 32 % 4, at % 32);
        let nibble = (low[half * 64 + (row % 2) * 32 + column] >> (4 * (row / 2))) & 15;
        let top = (high[half * 32 + column] >> (2 * row)) & 3;
        let own = scale * f32::from(i8::from_le_bytes([rest[at / 16]]));
        *weight = own * (f32::from(nibble | (top << 4)) - 32.0);
    }
}

/// Four bits a weight, which name one of 16 values; eight parts with a signed scale of six bits.
pub(super) fn iq4_xs(block: &[u8], weights: &mut [f32]) {
    let scale = half_at(block, 0);
    let tops = u16::from_le_bytes([block[2], block[3]]);
    let (lows, bits) = block[4..].split_at(4);
    for (part, weights) in weights.chunks_exact_mut(32).enumerate() {
        let low = (lows[part / 2] >> (4 * (part % 2))) & 15;
        let top = (tops >> (2 * part)) as u8 & 3;
        let own = scale * (f32::from(low | (top << 4)) - 32.0);
        for (i, weight) in weights.iter_mut().enumerate() {
            let byte = bits[part * 16 + i % 16];
            *weight = own * IQ4_VALUES[usize::from((byte >> (4 * (i / 16))) & 15)];
        }
    }
}

/// Ternary weights, five a byte, the last 16 four a byte.
pub(super) fn tq1_0(block: &[u8], weights: &mut [f32]) {
    const POWERS: [u8; 5] = [1, 3, 9, 27, 81];
    let (digits, rest) = block.split_at(48);
    let scale = half_at(rest, 4);
    let weight = |byte: u8, power: usize| {
        let digit = (u16::from(byte.wrapping_mul(POWERS[power])) * 3) >> 8;
        scale * (f32::from(digit) - 1.0)
    };
    for (at, out) in weights.iter_mut().enumerate() {
        *out = match at {
            0..160 => weight(digits[at % 32], at / 32),
            160..240 => weight(digits[32 + (at - 160) % 16], (at - 160) / 16),
            _ => weight(rest[(at - 240) % 4], (at - 240) / 4),
        };
    }
}

/// Ternary weights, four a byte.
pub(super) fn tq2_0(block: &[u8], weights: &mut [f32]) {
    let scale = half_at(block, 64);
    for (at, weight) in weights.iter_mut().enumerate() {
        *weight = scale * (f32::from(crumb(block, at)) - 1.0);
    }
}

/// Two bits of weight `at`: 32 bytes hold 128 weights, each byte those of one column.
fn crumb(bytes: &[u8], at: usize) -> u8 {
    (bytes[at / 128 * 32 + at % 32] >> (2 * (at / 32 % 4))) & 3
}

/// Four bits of weight `i` of a part of `width` weights: two parts share their bytes.
fn nibble(bytes: &[u8], width: usize, part: usize, i: usize) -> u8 {
    (bytes[part / 2 * width + i] >> (4 * (part % 2))) & 15
}

/// Scale and minimum of a part, of eight whose numbers share 12 bytes.
fn six_bits(packed: &[u8], part: usize) -> (f32, f32) {
    let (scale, least) = match part {
        0..4 => (packed[part] & 63, packed[4 + part] & 63),
        _ => {
            let (own, both) = (part - 4, packed[4 + part]);
            ((both & 15) | ((packed[own] >> 2) & 48), (both >> 4) | ((packed[4 + own] >> 2) & 48))
        }
    };
    (f32::from(scale), f32::from(least))
}
