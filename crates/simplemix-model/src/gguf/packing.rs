//! Weights into GGML's tensor types, as the `gguf` Python package and llama.cpp's reference quantisers make them.

use half::{bf16, f16};
use simplemix_settings::choice;

use super::quant::Quant;

choice! {
    /// Tensor type of the matrices of a GGUF file. Norms and biases are f32, as in llama.cpp's converter.
    pub enum GgufType {
        /// Numbers as the model's files have them.
        Auto = "auto";
        /// f32.
        F32 = "f32";
        /// f16.
        F16 = "f16";
        /// bf16.
        Bf16 = "bf16";
        /// 32 signed bytes with a scale. Rows that are no whole blocks are f16.
        Q8_0 = "q8_0";
        /// 32 numbers of four bits with a scale. Rows that are no whole blocks are f16.
        Q4_0 = "q4_0";
    }
}

/// Numbers of a block.
const BLOCK: usize = 32;

impl GgufType {
    /// The reader's name of the type for rows of `width` numbers; `auto` stands for `own`.
    pub(super) fn quant(self, width: usize, own: Quant) -> Quant {
        let is_whole = width.is_multiple_of(BLOCK);
        match self {
            Self::Auto => own,
            Self::F32 => Quant::F32,
            Self::F16 => Quant::F16,
            Self::Bf16 => Quant::Bf16,
            Self::Q8_0 if is_whole => Quant::Q8_0,
            Self::Q4_0 if is_whole => Quant::Q4_0,
            Self::Q8_0 | Self::Q4_0 => Quant::F16,
        }
    }

    /// llama.cpp's `general.file_type` of files whose matrices are of this type; `auto` stands for `own`.
    pub(super) fn file_type(self, own: Quant) -> u32 {
        match (self, own) {
            (Self::F32, _) | (Self::Auto, Quant::F32) => 0,
            (Self::Q4_0, _) => 2,
            (Self::Q8_0, _) => 7,
            (Self::Bf16, _) | (Self::Auto, Quant::Bf16) => 32,
            (Self::F16 | Self::Auto, _) => 1,
        }
    }
}

/// ggml's number of a type that is written.
pub(super) fn number(quant: Quant) -> u32 {
    match quant {
        Quant::F16 => 1,
        Quant::Q4_0 => 2,
        Quant::Q8_0 => 8,
        Quant::Bf16 => 30,
        _ => 0,
    }
}

/// Bytes of `weights`, which are whole blocks of a type that is written.
pub(super) fn packed(quant: Quant, weights: &[f32]) -> Vec<u8> {
    match quant {
        Quant::F16 => weights.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect(),
        Quant::Bf16 => weights.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect(),
        Quant::Q8_0 => weights.chunks_exact(BLOCK).flat_map(eight_bits).collect(),
        Quant::Q4_0 => weights.chunks_exact(BLOCK).flat_map(four_bits).collect(),
        _ => weights.iter().flat_map(|x| x.to_le_bytes()).collect(),
    }
}

fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

/// A block of `Q8_0`: f16 scale and 32 signed bytes.
fn eight_bits(block: &[f32]) -> Vec<u8> {
    let scale = block.iter().fold(0f32, |most, x| most.max(x.abs())) / 127.0;
    let inverse = inverse(scale);
    let codes = block.iter().map(|x| (x * inverse).round() as i8 as u8);
    f16::from_f32(scale).to_le_bytes().into_iter().chain(codes).collect()
}

/// A block of `Q4_0`: f16 scale and 16 bytes of two codes, of which the second is 16 numbers on.
fn four_bits(block: &[f32]) -> Vec<u8> {
    // The first of those with the largest magnitude, with its sign.
    let largest = block.iter().fold(0f32, |most, x| if x.abs() > most.abs() { *x } else { most });
    let scale = largest / -8.0;
    let inverse = inverse(scale);
    let code = |x: &f32| ((x * inverse + 8.5) as i32).clamp(0, 15) as u8;
    let (low, high) = block.split_at(BLOCK / 2);
    let codes = low.iter().zip(high).map(|(low, high)| code(low) | code(high) << 4);
    f16::from_f32(scale).to_le_bytes().into_iter().chain(codes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// tests/golden/gguf_packed.py wrote the file.
    #[test]
    fn blocks_are_those_of_the_gguf_package() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/gguf_packed.json");
        let text = std::fs::read_to_string(path).unwrap();
        let golden: serde_json::Value = serde_json::from_str(&text).unwrap();
        let weights: Vec<f32> =
            golden["weights"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect();
        for (name, quant) in [
            ("Q8_0", Quant::Q8_0),
            ("Q4_0", Quant::Q4_0),
            ("BF16", Quant::Bf16),
            ("F16", Quant::F16),
            ("F32", Quant::F32),
        ] {
            let hex: String = packed(quant, &weights).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, golden[name].as_str().unwrap(), "{name}");
        }
        assert_eq!(packed(Quant::Q8_0, &[0.0; 32]), [0; 34]);
        // A scale of -0, and codes of 8.
        assert_eq!(packed(Quant::Q4_0, &[0.0; 32])[2..], [0x88; 16]);
    }
}
