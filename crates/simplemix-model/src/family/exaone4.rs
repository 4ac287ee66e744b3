//! EXAONE 4: norms after attention and feed-forward, norms of query and key heads; in its hybrid form most layers have a window,
//! and the others no rotation.

use crate::config::{Activation, Defaults, Heads, Keys, LayerConfig, ModelConfig, Norms, QkNorm, RopeConfig};
use crate::error::Result;
use crate::family::Family;

pub(super) const FAMILY: Family = Family {
    model_type: "exaone4",
    models: "EXAONE 4.0",
    differs: "norms after attention and feed-forward; query and key norms; if hybrid, windows in three layers of four and no rotation \
              in the fourth",
    pad: None,
    has_rewards: true,
    read,
};

const DEFAULTS: Defaults = Defaults {
    vocab_size: 102_400,
    hidden_size: 4096,
    intermediate_size: 16_384,
    num_hidden_layers: 32,
    num_attention_heads: 32,
    num_key_value_heads: Heads::Count(32),
    head_dim: None,
    max_position_embeddings: 2048,
    rms_norm_eps: 1e-5,
    tied: false,
};

fn read(keys: &Keys<'_>) -> Result<ModelConfig> {
    let base = ModelConfig::base(keys, &DEFAULTS)?;
    Ok(ModelConfig {
        activation: super::activation(keys, "hidden_act", Activation::Silu)?,
        norms: Norms::After,
        qk_norm: QkNorm::Head,
        ropes: vec![RopeConfig::read(keys, &base)?],
        layers: layers(keys, base.num_hidden_layers)?,
        ..base
    })
}

/// Where no window is given, every layer sees everything and is rotated.
fn layers(keys: &Keys<'_>, layers: usize) -> Result<Vec<LayerConfig>> {
    let window = if keys.has("sliding_window") { keys.count("sliding_window")? } else { Some(4096) };
    let named = keys.get("layer_types").is_some();
    if window.is_none() && !named {
        // transformers divides by zero here.
        return Err(keys.refuse("layer_types", "a list, since `sliding_window` is null"));
    }
    // A pattern in letters stands beside `layer_types`, which holds it in full.
    let period = if named { 1 } else { keys.count_or("sliding_window_pattern", 4)? as usize };
    let sliding = super::sliding_layers(keys, layers, window, |layer| (layer + 1) % period != 0)?;
    Ok(match window {
        None => super::windows(&sliding, None),
        Some(_) => super::rotated_windows(&sliding, window),
    })
}
