//! OLMo 2: norms after attention and feed-forward, and of queries and keys over all heads.

use crate::config::{Activation, Keys, ModelConfig, Norms, QkNorm, RopeConfig};
use crate::error::Result;

pub(super) fn read(keys: &Keys<'_>) -> Result<ModelConfig> {
    let base = ModelConfig::base(keys, false)?;
    Ok(ModelConfig {
        activation: super::activation(keys, "hidden_act", Activation::Silu)?,
        biases: super::attention_biases(keys)?,
        norms: Norms::After,
        qk_norm: QkNorm::Width,
        ropes: vec![RopeConfig::read(keys, base.head_dim)?],
        ..base
    })
}
