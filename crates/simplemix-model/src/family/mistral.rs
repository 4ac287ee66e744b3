//! Mistral: Llama, every layer of which may see a window only.

use crate::config::{Activation, Defaults, Heads, Keys, ModelConfig, RopeConfig};
use crate::error::Result;
use crate::family::Family;

pub(super) const FAMILY: Family = Family {
    model_type: "mistral",
    models: "Mistral",
    differs: "a window in every layer",
    pad: None,
    has_rewards: true,
    read,
};

const DEFAULTS: Defaults = Defaults {
    vocab_size: 32_000,
    hidden_size: 4096,
    intermediate_size: 14_336,
    num_hidden_layers: 32,
    num_attention_heads: 32,
    num_key_value_heads: Heads::Count(8),
    head_dim: None,
    max_position_embeddings: 131_072,
    rms_norm_eps: 1e-6,
    tied: false,
};

fn read(keys: &Keys<'_>) -> Result<ModelConfig> {
    let base = ModelConfig::base(keys, &DEFAULTS)?;
    let window = if keys.has("sliding_window") { keys.count("sliding_window")? } else { Some(4096) };
    // With `layer_types`, transformers reads the file as one of Ministral.
    let sliding = super::sliding_layers(keys, base.num_hidden_layers, window, |_| window.is_some())?;
    Ok(ModelConfig {
        activation: super::activation(keys, "hidden_act", Activation::Silu)?,
        ropes: vec![RopeConfig::read(keys, &base)?],
        layers: super::windows(&sliding, window),
        ..base
    })
}
