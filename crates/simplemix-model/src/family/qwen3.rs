//! Qwen 3: Llama with norms of each query and key head.

use crate::config::{Activation, Defaults, Heads, Keys, ModelConfig, QkNorm, RopeConfig};
use crate::error::Result;
use crate::family::Family;

pub(super) const FAMILY: Family = Family {
    model_type: "qwen3",
    models: "Qwen 3 (dense)",
    differs: "norms of query and key heads",
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
    head_dim: Some(128),
    max_position_embeddings: 32_768,
    rms_norm_eps: 1e-6,
    tied: false,
};

fn read(keys: &Keys<'_>) -> Result<ModelConfig> {
    let base = ModelConfig::base(keys, &DEFAULTS)?;
    Ok(ModelConfig {
        activation: super::activation(keys, "hidden_act", Activation::Silu)?,
        biases: super::attention_biases(keys)?,
        qk_norm: QkNorm::Head,
        ropes: vec![RopeConfig::read(keys, &base)?],
        layers: super::qwen2::layers(keys, base.num_hidden_layers, 28)?,
        ..base
    })
}
