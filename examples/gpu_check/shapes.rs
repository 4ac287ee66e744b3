//! Shapes of random models, after published ones.

use std::path::Path;

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde_json::{Value, json};
use simplemix::model::{CausalLm, ModelConfig, tiny, weights};
use simplemix::tch::{Device, Kind, Tensor};

/// Shape of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shape {
    /// Two layers, 512 wide
    Small,
    /// Qwen2.5-0.5B
    #[value(name = "0.5b")]
    Half,
    /// Qwen2.5-1.5B
    #[value(name = "1.5b")]
    OneAndHalf,
    /// Llama-3-8B, trained by an adapter
    #[value(name = "8b")]
    Eight,
}

/// Tokens of a pair's prompt, chosen and rejected response.
pub(crate) type Lengths = [usize; 3];

impl Shape {
    /// Layers, width, inner width, query heads, key heads, vocabulary.
    fn sizes(self) -> [i64; 6] {
        match self {
            Self::Small => [2, 512, 1376, 8, 4, 1000],
            Self::Half => [24, 896, 4864, 14, 2, 151_936],
            Self::OneAndHalf => [28, 1536, 8960, 12, 2, 151_936],
            Self::Eight => [32, 4096, 14_336, 32, 8, 128_256],
        }
    }

    pub(crate) fn vocabulary(self) -> i64 {
        self.sizes()[5]
    }

    /// Whether weights stay frozen under an adapter.
    pub(crate) fn is_adapted(self) -> bool {
        self == Self::Eight
    }

    /// Lengths of a pair: those of UltraFeedback on a real shape.
    pub(crate) fn lengths(self) -> Lengths {
        if self == Self::Small { [8, 12, 10] } else { [150, 350, 350] }
    }

    pub(crate) fn config(self) -> Result<ModelConfig> {
        let [layers, width, inner, heads, key_heads, vocabulary] = self.sizes();
        config(layers, width, inner, [heads, key_heads], vocabulary, self != Self::Eight)
    }

    /// A model of as many layers that is narrow, for what does not depend on the width.
    pub(crate) fn narrow_config(self) -> Result<ModelConfig> {
        config(self.sizes()[0], 64, 128, [4, 2], 259, true)
    }

    pub(crate) fn text(self) -> String {
        let [layers, width, inner, heads, key_heads, vocabulary] = self.sizes();
        format!("layers {layers}, width {width}, inner {inner}, heads {heads}/{key_heads}, vocabulary {vocabulary}")
    }
}

/// A Qwen2 or, untied, a Llama.
fn config(layers: i64, width: i64, inner: i64, heads: [i64; 2], vocabulary: i64, is_qwen: bool) -> Result<ModelConfig> {
    let (name, class) = if is_qwen { ("qwen2", "Qwen2ForCausalLM") } else { ("llama", "LlamaForCausalLM") };
    let mut json = json!({
        "architectures": [class],
        "model_type": name,
        "hidden_act": "silu",
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads[0],
        "num_key_value_heads": heads[1],
        "rms_norm_eps": 1e-6,
        "rope_parameters": { "rope_theta": 1_000_000.0, "rope_type": "default" },
        "tie_word_embeddings": is_qwen,
        "max_position_embeddings": 4096,
    });
    if is_qwen {
        json["use_sliding_window"] = Value::Bool(false);
    }
    Ok(ModelConfig::from_json(&json.to_string(), Path::new("config.json"))?)
}

/// A model with random weights, drawn on `device`.
pub(crate) fn random_model(config: &ModelConfig, kind: Kind, device: Device) -> Result<CausalLm> {
    let dir = tempfile::tempdir()?;
    let folder = dir.path().join("model");
    write_folder(config, kind, device, &folder)?;
    Ok(CausalLm::load(&folder, kind, device)?)
}

/// Writes a model folder with random weights and the tokenizer of the tiny model.
pub(crate) fn write_folder(config: &ModelConfig, kind: Kind, device: Device, folder: &Path) -> Result<()> {
    tiny::write_folder(folder, 1)?;
    simplemix::tch::manual_seed(7);
    let draw = |(name, shape): (String, Vec<i64>)| {
        let options = (kind, device);
        let tensor = match name.as_str() {
            name if name.ends_with("norm.weight") => Tensor::f_ones(&shape, options)?,
            // Larger than models begin with, so that entropies and gradients are those of a trained one.
            _ => Tensor::f_randn(&shape, options)?.f_mul_scalar(0.03)?,
        };
        Ok((name, tensor))
    };
    let tensors = config.tensors().into_iter().map(draw).collect::<Result<Vec<_>>>()?;
    weights::save(&folder.join(weights::WEIGHTS), &tensors)?;
    let path = folder.join("config.json");
    let mut json = config.to_json();
    for (key, value) in [("bos_token_id", 257), ("eos_token_id", 258), ("pad_token_id", 256)] {
        json[key] = value.into();
    }
    std::fs::write(&path, json.to_string()).with_context(|| format!("cannot write {}", path.display()))
}
