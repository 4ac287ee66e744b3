//! Command R: attention and feed-forward side by side after one norm by variance, pairs of neighbours rotated, logits scaled.

use crate::config::{
    Activation, Defaults, Heads, Keys, ModelConfig, NormKind, Norms, QkNorm, RopeConfig, RopePairs, SizeKeys,
};
use crate::error::Result;
use crate::family::Family;

pub(super) const FAMILY: Family = Family {
    model_type: "cohere",
    models: "Command R, Command R+, Aya 23",
    differs: "attention and feed-forward side by side; LayerNorm; neighbouring entries rotated; a factor of the logits",
    pad: None,
    has_rewards: false,
    read,
};

const DEFAULTS: Defaults = Defaults {
    vocab_size: 256_000,
    hidden_size: 8192,
    intermediate_size: 22_528,
    num_hidden_layers: 40,
    num_attention_heads: 64,
    num_key_value_heads: Heads::All,
    head_dim: None,
    max_position_embeddings: 8192,
    rms_norm_eps: 1e-5,
    tied: true,
};

fn read(keys: &Keys<'_>) -> Result<ModelConfig> {
    let config = cohere(keys, 500_000.0)?;
    let qk_norm = if keys.flag("use_qk_norm", false)? { QkNorm::EachHead } else { QkNorm::None };
    Ok(ModelConfig { qk_norm, ..config })
}

/// Settings that the Coheres share; `theta` is the rotary base of a file that has none.
pub(super) fn cohere(keys: &Keys<'_>, theta: f64) -> Result<ModelConfig> {
    let base = ModelConfig::base_of(keys, &DEFAULTS, &SizeKeys { norm_eps: "layer_norm_eps", ..SizeKeys::LLAMA })?;
    Ok(ModelConfig {
        activation: super::activation(keys, "hidden_act", Activation::Silu)?,
        biases: super::attention_biases(keys)?,
        norms: Norms::ParallelShared,
        norm_kind: NormKind::Layer,
        logit_scale: keys.positive_or("logit_scale", 0.0625)?,
        ropes: vec![RopeConfig { pairs: RopePairs::Neighbours, ..RopeConfig::read_or(keys, &base, theta)? }],
        ..base
    })
}
