//! Mistral: Llama, every layer of which may see a window only.

use crate::config::{Activation, Keys, ModelConfig, RopeConfig};
use crate::error::Result;

pub(super) fn read(keys: &Keys<'_>) -> Result<ModelConfig> {
    let base = ModelConfig::base(keys, false)?;
    let window = keys.count("sliding_window")?;
    Ok(ModelConfig {
        activation: super::activation(keys, "hidden_act", Activation::Silu)?,
        num_key_value_heads: keys.needed_count("num_key_value_heads")?,
        ropes: vec![RopeConfig::read(keys, base.head_dim)?],
        layers: super::windows(&vec![true; base.num_hidden_layers], window),
        ..base
    })
}
