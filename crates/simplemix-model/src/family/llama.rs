//! Llama 2, 3, 3.1 and 3.2, SmolLM2, and the many others of the same kind.

use crate::config::{Activation, Biases, Defaults, Heads, Keys, ModelConfig, RopeConfig};
use crate::error::Result;
use crate::family::Family;

pub(super) const FAMILY: Family = Family {
    model_type: "llama",
    models: "Llama 2, 3, 3.1, 3.2, SmolLM2 and kin",
    differs: "",
    pad: None,
    has_rewards: true,
    read,
};

const DEFAULTS: Defaults = Defaults {
    vocab_size: 32_000,
    hidden_size: 4096,
    intermediate_size: 11_008,
    num_hidden_layers: 32,
    num_attention_heads: 32,
    num_key_value_heads: Heads::All,
    head_dim: None,
    max_position_embeddings: 2048,
    rms_norm_eps: 1e-6,
    tied: false,
};

fn read(keys: &Keys<'_>) -> Result<ModelConfig> {
    let base = ModelConfig::base(keys, &DEFAULTS)?;
    Ok(ModelConfig {
        activation: super::activation(keys, "hidden_act", Activation::Silu)?,
        biases: Biases { mlp: keys.flag("mlp_bias", false)?, ..super::attention_biases(keys)? },
        ropes: vec![RopeConfig::read(keys, &base)?],
        ..base
    })
}
