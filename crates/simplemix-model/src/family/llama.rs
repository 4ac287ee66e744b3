//! Llama 2, 3, 3.1 and 3.2, SmolLM2, and the many others of the same kind.

use crate::config::{Activation, Biases, Keys, ModelConfig, RopeConfig};
use crate::error::Result;

pub(super) fn read(keys: &Keys<'_>) -> Result<ModelConfig> {
    let base = ModelConfig::base(keys, false)?;
    Ok(ModelConfig {
        activation: super::activation(keys, "hidden_act", Activation::Silu)?,
        biases: Biases { mlp: keys.flag("mlp_bias", false)?, ..super::attention_biases(keys)? },
        ropes: vec![RopeConfig::read(keys, base.head_dim)?],
        ..base
    })
}
