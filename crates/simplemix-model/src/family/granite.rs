//! Granite 3: Llama with factors of embedding, attention, residual stream and logits.

use crate::config::{Activation, Biases, Defaults, Heads, Keys, ModelConfig, RopeConfig};
use crate::error::Result;
use crate::family::Family;

pub(super) const FAMILY: Family = Family {
    model_type: "granite",
    models: "Granite 3 (dense)",
    differs: "factors of embedding, attention, residual stream and logits",
    pad: None,
    has_rewards: false,
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
    let factor = |key: &str| keys.positive_or(key, 1.0);
    Ok(ModelConfig {
        activation: super::activation(keys, "hidden_act", Activation::Silu)?,
        biases: Biases { mlp: keys.flag("mlp_bias", false)?, ..super::attention_biases(keys)? },
        embedding_scale: factor("embedding_multiplier")?,
        attention_scale: factor("attention_multiplier")?,
        residual_scale: factor("residual_multiplier")?,
        logit_scale: 1.0 / factor("logits_scaling")?,
        ropes: vec![RopeConfig::read(keys, &base)?],
        ..base
    })
}
