//! Gemma 2: scaled embeddings, norms before and after, soft caps, and a window in every other layer.

use crate::config::{Activation, Defaults, Heads, Keys, ModelConfig, Norms, RopeConfig};
use crate::error::Result;
use crate::family::Family;

pub(super) const FAMILY: Family = Family {
    model_type: "gemma2",
    models: "Gemma 2",
    differs: "scaled embedding, norms before and after, soft caps, GELU, a window in every other layer",
    pad: Some(0),
    has_rewards: true,
    read,
};

const DEFAULTS: Defaults = Defaults {
    vocab_size: 256_000,
    hidden_size: 2304,
    intermediate_size: 9216,
    num_hidden_layers: 26,
    num_attention_heads: 8,
    num_key_value_heads: Heads::Count(4),
    head_dim: Some(256),
    max_position_embeddings: 8192,
    rms_norm_eps: 1e-6,
    tied: true,
};

fn read(keys: &Keys<'_>) -> Result<ModelConfig> {
    let config = gemma(keys, &DEFAULTS)?;
    // Without a key transformers caps; with null it does not.
    let cap = |key: &str, default: f64| if keys.has(key) { keys.positive(key) } else { Ok(Some(default)) };
    let window = if keys.has("sliding_window") { keys.count("sliding_window")? } else { Some(4096) };
    let sliding = super::sliding_layers(keys, config.num_hidden_layers, window, |layer| layer % 2 == 0)?;
    Ok(ModelConfig {
        attention_soft_cap: cap("attn_logit_softcapping", 50.0)?,
        logit_soft_cap: cap("final_logit_softcapping", 30.0)?,
        ropes: vec![RopeConfig::read(keys, &config)?],
        layers: super::windows(&sliding, window),
        ..config
    })
}

/// Settings that the Gemmas share.
pub(super) fn gemma(keys: &Keys<'_>, defaults: &Defaults) -> Result<ModelConfig> {
    keys.only("use_bidirectional_attention", &false.into())?;
    let base = ModelConfig::base(keys, defaults)?;
    Ok(ModelConfig {
        activation: super::activation(keys, "hidden_activation", Activation::GeluTanh)?,
        biases: super::attention_biases(keys)?,
        norms: Norms::Both,
        norm_offset: true,
        embedding_scale: (base.hidden_size as f64).sqrt(),
        rounds_embedding_scale: true,
        attention_scale: keys.positive("query_pre_attn_scalar")?.unwrap_or(256.0).powf(-0.5),
        ..base
    })
}
