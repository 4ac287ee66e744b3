//! GLM 4 of 2024: Llama with gate and up in one matrix, and half of each head rotated, neighbours together.

use crate::config::{
    Activation, Biases, Defaults, FeedForward, Heads, Keys, ModelConfig, PartialKeys, RopeConfig, RopePairs,
};
use crate::error::Result;
use crate::family::Family;

pub(super) const FAMILY: Family = Family {
    model_type: "glm",
    models: "GLM-4-9B (2024), GLM-Edge",
    differs: "gate and up in one matrix; half of each head rotated, neighbouring entries together",
    pad: None,
    has_rewards: true,
    read,
};

const DEFAULTS: Defaults = Defaults {
    vocab_size: 151_552,
    hidden_size: 4096,
    intermediate_size: 13_696,
    num_hidden_layers: 40,
    num_attention_heads: 32,
    num_key_value_heads: Heads::Count(2),
    head_dim: Some(128),
    max_position_embeddings: 131_072,
    rms_norm_eps: 1.5625e-7,
    tied: false,
};

pub(super) fn read(keys: &Keys<'_>) -> Result<ModelConfig> {
    let base = ModelConfig::base(keys, &DEFAULTS)?;
    let rope = RopeConfig::read_partial(keys, &base, PartialKeys::USUAL, 0.5)?;
    Ok(ModelConfig {
        activation: super::activation(keys, "hidden_act", Activation::Silu)?,
        biases: Biases { qkv: keys.flag("attention_bias", true)?, ..Biases::default() },
        feed_forward: FeedForward::GatedFused,
        ropes: vec![RopeConfig { pairs: RopePairs::Neighbours, ..rope }],
        ..base
    })
}
