//! OLMo 2: norms after attention and feed-forward, and of queries and keys over all heads.

use crate::config::{Activation, Biases, Keys, ModelConfig, Norms, QkNorm, RopeConfig};
use crate::error::Result;

pub(super) fn read(keys: &Keys<'_>) -> Result<ModelConfig> {
    let base = ModelConfig::base(keys, false)?;
    let attention = keys.flag("attention_bias", false)?;
    Ok(ModelConfig {
        activation: super::activation(keys, "hidden_act", Activation::Silu)?,
        biases: Biases { qkv: attention, output: attention, mlp: false },
        norms: Norms::After,
        qk_norm: QkNorm::Width,
        ropes: vec![RopeConfig::read(keys, base.head_dim, 10_000.0)?],
        ..base
    })
}
