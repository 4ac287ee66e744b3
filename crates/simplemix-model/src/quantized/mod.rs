//! Frozen weights of a few bits each, under an adapter (QLoRA, Dettmers et al. 2023, arXiv:2305.14314).
//!
//! Linear layers of the decoder are kept quantised; embedding, output head, norms and biases are not, as in transformers. A layer's
//! weights are dequantised when a pass comes to it, and once more in its backward pass, by libtorch's operators on every device; f32 on a CPU
//! has kernels with the same bits.
//! Nothing is computed in integers: activations are as they would be of the dequantised weights.
//!
//! | form | from | follows |
//! | --- | --- | --- |
//! | [`blocks`]: 4-bit codes in blocks | a full checkpoint, or one of bitsandbytes | NF4 and FP4 of bitsandbytes |
//! | [`rows`]: 8-bit integers with a scale a row | a full checkpoint, or one of bitsandbytes | the weights of LLM.int8 |
//! | [`groups`]: 4- or 8-bit integers in groups of inputs | a checkpoint of GPTQ or AWQ | their published formulas |

mod blocks;
mod groups;
mod keeper;
mod on_host;
mod rows;
mod stored;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use simplemix_settings::choice;
use tch::{Device, Kind, Tensor};

use crate::config::{ModelConfig, ROUTER};
use crate::error::Error;
pub use keeper::Quantizer;
pub(crate) use keeper::{Quantized, Weight};
pub(crate) use stored::{Checkpoint, Method};

choice! {
    /// Form in which the frozen weights of linear layers are held.
    pub enum LoadIn {
        /// In the model's element type, or as a quantised checkpoint has them.
        None = "none";
        /// 8-bit integers with a scale for each row, the weights of LLM.int8 (arXiv:2208.07339); activations are not quantised.
        EightBit = "8bit";
        /// 4-bit NormalFloat in blocks of 64, bitsandbytes' NF4 (arXiv:2305.14314).
        FourBit = "4bit";
    }
}

impl LoadIn {
    /// Whether weights are held as they are.
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }
}

simplemix_settings::section! {
    /// Quantised frozen weights under an adapter (QLoRA, arXiv:2305.14314). Needs `lora.rank` or `lora.adapter`.
    pub struct QuantizationSettings("quantization") {
        /// Form of the frozen weights of the linear layers. A checkpoint that is quantised already is read as it is.
        load_in: LoadIn = LoadIn::None;
        /// Quantise the scales of the 4-bit blocks too: bitsandbytes' `bnb_4bit_use_double_quant`.
        double_quant: bool = false;
    }
}

impl From<LoadIn> for QuantizationSettings {
    fn from(load_in: LoadIn) -> Self {
        Self { load_in, ..Self::default() }
    }
}

impl QuantizationSettings {
    /// Whether weights are to be quantised.
    pub fn is_on(&self) -> bool {
        self.load_in != LoadIn::None
    }

    /// Checks that the settings fit each other.
    ///
    /// # Errors
    /// An error that names `quantization.double_quant` if there are no 4-bit weights.
    pub fn check(&self) -> simplemix_settings::Result {
        if self.double_quant && self.load_in != LoadIn::FourBit {
            return Err(simplemix_settings::Error::value(
                "quantization.double_quant",
                "set",
                "`quantization.load_in = \"4bit\"`: other forms have no scales of blocks",
            ));
        }
        Ok(())
    }

    /// Bytes of a model's `tensors` with elements of `element` bytes, and of those that are dequantised at a time.
    ///
    /// # Examples
    /// ```
    /// use simplemix_model::{LoadIn, QuantizationSettings, tiny};
    ///
    /// let config = tiny::config();
    /// let whole = QuantizationSettings::default().weight_bytes(&config, &config.tensors(), 4);
    /// assert_eq!(whole, (4 * config.parameters() as u64, 0));
    /// let quantised = QuantizationSettings { load_in: LoadIn::FourBit, ..Default::default() };
    /// let (held, dequantised) = quantised.weight_bytes(&config, &config.tensors(), 4);
    /// assert!(held + dequantised < whole.0);
    /// ```
    pub fn weight_bytes(&self, config: &ModelConfig, tensors: &[(String, Vec<i64>)], element: usize) -> (u64, u64) {
        let element = element as f64;
        let bytes = match (self.load_in, Method::of(&config.to_json())) {
            (LoadIn::FourBit, _) => 0.5 + if self.double_quant { blocks::NESTED_BYTES } else { blocks::SCALE_BYTES },
            (LoadIn::EightBit, _) => 1.0,
            (LoadIn::None, Ok(Some(method))) => method.weight_bytes(),
            (LoadIn::None, _) => element,
        };
        let is_on = self.is_on() || config.is_quantized();
        let (names, stages) = (quantizable(config), config.stages());
        let (mut held, mut layers) = (0.0, BTreeMap::new());
        for (name, shape) in tensors {
            let numel = shape.iter().product::<i64>() as f64;
            if is_on && names.contains(name) {
                held += numel * bytes;
                *layers.entry(stages.get(name)).or_insert(0.0) += numel * element;
            } else {
                held += numel * element;
            }
        }
        (held as u64, layers.into_values().fold(0.0, f64::max) as u64)
    }
}

impl ModelConfig {
    /// Whether the weights of the checkpoint are quantised.
    pub fn is_quantized(&self) -> bool {
        matches!(Method::of(&self.to_json()), Ok(Some(_)))
    }
}

/// Names, transformers', of the weights of linear layers, which are what is quantised.
pub(crate) fn quantizable(config: &ModelConfig) -> BTreeSet<String> {
    let is_linear = |name: &str, shape: &[i64]| {
        let in_layer = name.starts_with("model.layers.") && name.ends_with(".weight");
        in_layer && shape.len() == 2 && !name.contains("norm") && !name.ends_with(ROUTER)
    };
    let all = config.decoder_tensors().into_iter();
    all.filter(|(name, shape)| is_linear(name, shape)).map(|(name, _)| config.names.tensor(&name)).collect()
}

/// A quantised matrix.
#[derive(Debug)]
pub(crate) enum Stored {
    Blocks(blocks::Blocks),
    Rows(rows::Rows),
    Groups(groups::Groups),
}

impl Stored {
    /// Quantises `weight` `[O, I]`, on its device; none if it is not to be.
    pub(crate) fn quantise(
        weight: &Tensor,
        settings: &QuantizationSettings,
    ) -> std::result::Result<Option<Self>, tch::TchError> {
        let _guard = tch::no_grad_guard();
        Ok(match settings.load_in {
            LoadIn::None => None,
            LoadIn::EightBit => Some(Self::Rows(rows::Rows::quantise(weight)?)),
            LoadIn::FourBit => Some(Self::Blocks(blocks::Blocks::quantise(weight, settings.double_quant)?)),
        })
    }

    /// Writes the numbers to `out` `[O, I]`, in its kind. Nobody else reads or writes it meanwhile.
    pub(crate) fn dequantise_into(&self, out: &Tensor) -> std::result::Result<(), tch::TchError> {
        let _guard = tch::no_grad_guard();
        match self {
            Self::Blocks(blocks) => blocks.dequantise_into(out),
            Self::Rows(rows) => rows.dequantise_into(out),
            Self::Groups(groups) => groups.dequantise_into(out),
        }
    }

    /// Bytes of memory.
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Self::Blocks(blocks) => blocks.bytes(),
            Self::Rows(rows) => rows.bytes(),
            Self::Groups(groups) => groups.bytes(),
        }
    }
}

/// Numbers that are dequantised at a time: their indices and products take 24 bytes each.
const CHUNK: i64 = 1 << 20;

/// Both values of each byte, `[256, 2]`: the high nibble's first.
fn pairs_of(values: &[f32; 16], device: Device) -> std::result::Result<Tensor, tch::TchError> {
    let all: Vec<f32> = (0..256usize).flat_map(|byte| [values[byte >> 4], values[byte & 15]]).collect();
    Tensor::f_from_slice(&all)?.f_view([256, 2])?.f_to_device(device)
}

/// Values of `count` nibbles from byte `start` of `packed` on.
fn unpacked(packed: &Tensor, pairs: &Tensor, start: i64, count: i64) -> std::result::Result<Tensor, tch::TchError> {
    let codes = packed.f_narrow(0, start, (count + 1) / 2)?.f_to_kind(Kind::Int)?;
    pairs.f_index_select(0, &codes)?.f_view(-1)?.f_narrow(0, 0, count)
}

fn tensor_bytes(tensors: &[&Tensor]) -> u64 {
    tensors.iter().map(|tensor| (tensor.numel() * tensor.kind().elt_size_in_bytes()) as u64).sum()
}

/// Refuses a tensor of a checkpoint, whose folder the caller adds.
fn unfit(what: String, found: String, expected: impl std::fmt::Display) -> Error {
    Error::Weights { folder: PathBuf::new(), problems: format!("{what} is {found}, expected {expected}") }
}

#[cfg(test)]
mod tests;
