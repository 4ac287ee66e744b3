//! OLMo 2: norms after attention and feed-forward, and of queries and keys over all heads.

use crate::config::{Activation, Defaults, Heads, Keys, ModelConfig, Norms, QkNorm, RopeConfig};
use crate::error::Result;
use crate::family::Family;

pub(super) const FAMILY: Family = Family {
    model_type: "olmo2",
    models: "OLMo 2",
    differs: "norms after attention and feed-forward; query and key norms over all heads",
    pad: Some(1),
    has_rewards: true,
    read,
};

const DEFAULTS: Defaults = Defaults {
    vocab_size: 50_304,
    hidden_size: 4096,
    intermediate_size: 11_008,
    num_hidden_layers: 32,
    num_attention_heads: 32,
    num_key_value_heads: Heads::All,
    head_dim: None,
    max_position_embeddings: 2048,
    rms_norm_eps: 1e-5,
    tied: false,
};

fn read(keys: &Keys<'_>) -> Result<ModelConfig> {
    let base = ModelConfig::base(keys, &DEFAULTS)?;
    Ok(ModelConfig {
        activation: super::activation(keys, "hidden_act", Activation::Silu)?,
        biases: super::attention_biases(keys)?,
        norms: Norms::After,
        qk_norm: QkNorm::Width,
        ropes: vec![RopeConfig::read(keys, &base)?],
        ..base
    })
}
