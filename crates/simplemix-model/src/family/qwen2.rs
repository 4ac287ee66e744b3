//! Qwen 2 and 2.5: Llama with a bias on queries, keys and values.

use crate::config::{Activation, Biases, Defaults, Heads, Keys, LayerConfig, ModelConfig, RopeConfig};
use crate::error::Result;
use crate::family::Family;

pub(super) const FAMILY: Family = Family {
    model_type: "qwen2",
    models: "Qwen 2, 2.5",
    differs: "bias on queries, keys, values; windows in upper layers, if asked for",
    pad: None,
    has_rewards: true,
    read,
};

const DEFAULTS: Defaults = Defaults {
    vocab_size: 151_936,
    hidden_size: 4096,
    intermediate_size: 22_016,
    num_hidden_layers: 32,
    num_attention_heads: 32,
    num_key_value_heads: Heads::Count(32),
    head_dim: None,
    max_position_embeddings: 32_768,
    rms_norm_eps: 1e-6,
    tied: false,
};

fn read(keys: &Keys<'_>) -> Result<ModelConfig> {
    let base = ModelConfig::base(keys, &DEFAULTS)?;
    Ok(ModelConfig {
        activation: super::activation(keys, "hidden_act", Activation::Silu)?,
        biases: Biases { qkv: true, ..Biases::default() },
        ropes: vec![RopeConfig::read(keys, &base)?],
        layers: layers(keys, base.num_hidden_layers, 28)?,
        ..base
    })
}

/// Layers from `max_window_layers` on, `first` without the key, see a window, if `use_sliding_window` says so.
pub(super) fn layers(keys: &Keys<'_>, layers: usize, first: u64) -> Result<Vec<LayerConfig>> {
    let window = match keys.flag("use_sliding_window", false)? {
        true if keys.has("sliding_window") => keys.count("sliding_window")?,
        true => Some(4096),
        false => None,
    };
    let first = keys.get("max_window_layers").map_or(Some(first), serde_json::Value::as_u64);
    let first = first.ok_or_else(|| keys.refuse("max_window_layers", "a number from 0"))?;
    let sliding = super::sliding_layers(keys, layers, window, |layer| window.is_some() && layer as u64 >= first)?;
    Ok(super::windows(&sliding, window))
}
