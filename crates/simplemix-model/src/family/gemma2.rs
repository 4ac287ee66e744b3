//! Gemma 2: scaled embeddings, norms before and after, soft caps, and a window in every other layer.

use crate::config::{Activation, Keys, ModelConfig, Norms, RopeConfig};
use crate::error::Result;

pub(super) fn read(keys: &Keys<'_>) -> Result<ModelConfig> {
    let config = gemma(keys)?;
    // Without a key transformers caps; with null it does not.
    let cap = |key: &str, default: f64| if keys.has(key) { keys.positive(key) } else { Ok(Some(default)) };
    let window = if keys.has("sliding_window") { keys.count("sliding_window")? } else { Some(4096) };
    let sliding = super::sliding_layers(keys, config.num_hidden_layers, |layer| layer % 2 == 0)?;
    Ok(ModelConfig {
        attention_soft_cap: cap("attn_logit_softcapping", 50.0)?,
        logit_soft_cap: cap("final_logit_softcapping", 30.0)?,
        ropes: vec![RopeConfig::read(keys, config.head_dim)?],
        layers: super::windows(&sliding, window),
        ..config
    })
}

/// Settings that the Gemmas share.
pub(super) fn gemma(keys: &Keys<'_>) -> Result<ModelConfig> {
    keys.only("use_bidirectional_attention", &false.into())?;
    let base = ModelConfig::base(keys, true)?;
    Ok(ModelConfig {
        activation: super::activation(keys, "hidden_activation", Activation::GeluTanh)?,
        biases: super::attention_biases(keys)?,
        head_dim: keys.needed_count("head_dim")?,
        norms: Norms::Both,
        norm_offset: true,
        embedding_scale: (base.hidden_size as f64).sqrt(),
        attention_scale: keys.positive("query_pre_attn_scalar")?.unwrap_or(256.0).powf(-0.5),
        ..base
    })
}
