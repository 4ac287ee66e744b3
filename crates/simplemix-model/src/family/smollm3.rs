//! SmolLM3: Llama without rotation in every fourth layer, which may see a window.

use serde_json::Value;

use crate::config::{Activation, Biases, Defaults, Heads, Keys, LayerConfig, ModelConfig, RopeConfig};
use crate::error::Result;
use crate::family::Family;

pub(super) const FAMILY: Family = Family {
    model_type: "smollm3",
    models: "SmolLM3",
    differs: "no rotation in every fourth layer; windows in those, if asked for",
    pad: Some(128_004),
    has_rewards: true,
    read,
};

const DEFAULTS: Defaults = Defaults {
    vocab_size: 128_256,
    hidden_size: 2048,
    intermediate_size: 11_008,
    num_hidden_layers: 36,
    num_attention_heads: 16,
    num_key_value_heads: Heads::Count(4),
    head_dim: None,
    max_position_embeddings: 32_768,
    rms_norm_eps: 1e-6,
    tied: true,
};

fn read(keys: &Keys<'_>) -> Result<ModelConfig> {
    let base = ModelConfig::base(keys, &DEFAULTS)?;
    Ok(ModelConfig {
        activation: super::activation(keys, "hidden_act", Activation::Silu)?,
        biases: Biases { mlp: keys.flag("mlp_bias", false)?, ..super::attention_biases(keys)? },
        ropes: vec![RopeConfig::read_or(keys, &base, 2_000_000.0)?],
        layers: layers(keys, base.num_hidden_layers)?,
        ..base
    })
}

fn layers(keys: &Keys<'_>, count: usize) -> Result<Vec<LayerConfig>> {
    let rotated = rotated(keys, count)?;
    let window = keys.count("sliding_window")?;
    let slides = keys.flag("use_sliding_window", false)? && window.is_some();
    // `layer_types` alone decides the mask where it is given.
    let sliding = super::sliding_layers(keys, count, window, |layer| slides && !rotated[layer])?;
    let layers = super::windows(&sliding, window).into_iter().zip(rotated);
    Ok(layers.map(|(layer, is_rotated)| LayerConfig { rope: layer.rope.filter(|_| is_rotated), ..layer }).collect())
}

/// Whether each layer is rotated: those whose entry in `no_rope_layers` is not 0.
fn rotated(keys: &Keys<'_>, count: usize) -> Result<Vec<bool>> {
    let Some(list) = keys.get("no_rope_layers") else {
        let interval = keys.count_or("no_rope_layer_interval", 4)? as usize;
        return Ok((0..count).map(|layer| (layer + 1) % interval != 0).collect());
    };
    let flags: Option<Vec<bool>> = list.as_array().filter(|list| list.len() >= count).and_then(|list| {
        let flag = |entry: &Value| entry.as_i64().map(|entry| entry != 0);
        list.iter().take(count).map(flag).collect()
    });
    flags.ok_or_else(|| keys.refuse("no_rope_layers", &format!("at least {count} of 0 and 1, one for each layer")))
}
