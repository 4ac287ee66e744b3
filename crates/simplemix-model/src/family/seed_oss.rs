//! Seed-OSS: Llama with heads of their own width and a bias on queries, keys and values.

use crate::config::{Activation, Biases, Defaults, Heads, Keys, ModelConfig, RopeConfig};
use crate::error::Result;
use crate::family::Family;

pub(super) const FAMILY: Family = Family {
    model_type: "seed_oss",
    models: "Seed-OSS",
    differs: "bias on queries, keys, values; heads of their own width",
    pad: Some(1),
    has_rewards: true,
    read,
};

const DEFAULTS: Defaults = Defaults {
    vocab_size: 155_136,
    hidden_size: 4096,
    intermediate_size: 27_648,
    num_hidden_layers: 64,
    num_attention_heads: 80,
    num_key_value_heads: Heads::Count(8),
    head_dim: Some(128),
    max_position_embeddings: 524_288,
    rms_norm_eps: 1e-6,
    tied: false,
};

fn read(keys: &Keys<'_>) -> Result<ModelConfig> {
    // With null, heads share the width of the residual stream.
    let head_dim = DEFAULTS.head_dim.filter(|_| !keys.has("head_dim"));
    let base = ModelConfig::base(keys, &Defaults { head_dim, ..DEFAULTS })?;
    Ok(ModelConfig {
        activation: super::activation(keys, "hidden_act", Activation::Silu)?,
        biases: Biases {
            qkv: keys.flag("attention_bias", true)?,
            output: keys.flag("attention_out_bias", false)?,
            mlp: keys.flag("mlp_bias", false)?,
        },
        ropes: vec![RopeConfig::read(keys, &base)?],
        ..base
    })
}
