//! Llama 2, 3, 3.1 and 3.2, SmolLM2, and the many others of the same kind.

use crate::config::{Activation, Biases, Keys, ModelConfig, RopeConfig};
use crate::error::Result;

pub(super) fn read(keys: &Keys<'_>) -> Result<ModelConfig> {
    let base = ModelConfig::base(keys, false)?;
    let attention = keys.flag("attention_bias", false)?;
    Ok(ModelConfig {
        activation: super::activation(keys, "hidden_act", Activation::Silu)?,
        biases: Biases { qkv: attention, output: attention, mlp: keys.flag("mlp_bias", false)? },
        ropes: vec![RopeConfig::read(keys, base.head_dim, 10_000.0)?],
        ..base
    })
}
