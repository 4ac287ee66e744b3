//! Gemma 3, text only: Gemma 2 with norms of queries and keys instead of soft caps, five layers of six with a window,
//! and a rotary base of their own for those.

use crate::config::{Keys, ModelConfig, QkNorm, RopeConfig};
use crate::error::Result;

pub(super) fn read(keys: &Keys<'_>) -> Result<ModelConfig> {
    let config = super::gemma2::gemma(keys)?;
    let period = keys.count("sliding_window_pattern")?.unwrap_or(6) as usize;
    let sliding = super::sliding_layers(keys, config.num_hidden_layers, |layer| (layer + 1) % period != 0)?;
    let window = if keys.has("sliding_window") { keys.count("sliding_window")? } else { Some(4096) };
    let mut layers = super::windows(&sliding, window);
    for (layer, slides) in layers.iter_mut().zip(sliding) {
        layer.rope = usize::from(slides);
    }
    Ok(ModelConfig {
        qk_norm: QkNorm::Head,
        attention_soft_cap: keys.positive("attn_logit_softcapping")?,
        logit_soft_cap: keys.positive("final_logit_softcapping")?,
        ropes: ropes(keys, config.head_dim)?,
        layers,
        ..config
    })
}

/// For layers that see everything, and for layers with a window. transformers 5 has a rule for each kind of layer;
/// transformers 4's one rule is for the former.
fn ropes(keys: &Keys<'_>, head_dim: i64) -> Result<Vec<RopeConfig>> {
    let rules = keys.object("rope_parameters", "rope_parameters.")?;
    let rule = |kind: &str, within: &'static str| match &rules {
        Some(rules) => rules.object(kind, within),
        None => Ok(None),
    };
    let full = match rule("full_attention", "rope_parameters.full_attention.")? {
        Some(full) => Some(full),
        None => keys.object("rope_scaling", "rope_scaling.")?,
    };
    let global = RopeConfig::of_rule(keys, full.as_ref(), head_dim, keys.positive("rope_theta")?.unwrap_or(1e6))?;
    let local = rule("sliding_attention", "rope_parameters.sliding_attention.")?;
    let theta = keys.positive("rope_local_base_freq")?.unwrap_or(1e4);
    Ok(vec![global, RopeConfig::of_rule(keys, local.as_ref(), head_dim, theta)?])
}
