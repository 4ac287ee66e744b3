//! Qwen 3: Llama with norms of each query and key head.

use crate::config::{Activation, Keys, ModelConfig, QkNorm, RopeConfig};
use crate::error::Result;

pub(super) fn read(keys: &Keys<'_>) -> Result<ModelConfig> {
    let base = ModelConfig::base(keys, false)?;
    let head_dim = keys.count("head_dim")?.unwrap_or(128);
    Ok(ModelConfig {
        activation: super::activation(keys, "hidden_act", Activation::Silu)?,
        biases: super::attention_biases(keys)?,
        qk_norm: QkNorm::Head,
        head_dim,
        attention_scale: (head_dim as f64).powf(-0.5),
        ropes: vec![RopeConfig::read(keys, head_dim)?],
        layers: super::qwen2::layers(keys, base.num_hidden_layers)?,
        ..base
    })
}
