//! Arcee's AFM: Llama with a feed-forward layer without gate.

use crate::config::{Activation, Biases, Defaults, FeedForward, Heads, Keys, ModelConfig, RopeConfig};
use crate::error::Result;
use crate::family::Family;

pub(super) const FAMILY: Family = Family {
    model_type: "arcee",
    models: "Arcee AFM",
    differs: "a feed-forward layer without gate, its activation squared",
    pad: None,
    has_rewards: true,
    read,
};

const DEFAULTS: Defaults = Defaults {
    vocab_size: 32_000,
    hidden_size: 2560,
    intermediate_size: 18_432,
    num_hidden_layers: 32,
    num_attention_heads: 32,
    num_key_value_heads: Heads::All,
    head_dim: None,
    max_position_embeddings: 4096,
    rms_norm_eps: 1e-5,
    tied: false,
};

fn read(keys: &Keys<'_>) -> Result<ModelConfig> {
    let base = ModelConfig::base(keys, &DEFAULTS)?;
    Ok(ModelConfig {
        feed_forward: FeedForward::Plain,
        activation: super::any_activation(keys, "hidden_act", Activation::ReluSquared)?,
        biases: Biases { mlp: keys.flag("mlp_bias", false)?, ..super::attention_biases(keys)? },
        ropes: vec![RopeConfig::read(keys, &base)?],
        ..base
    })
}
