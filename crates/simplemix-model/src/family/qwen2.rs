//! Qwen 2 and 2.5: Llama with a bias on queries, keys and values.

use crate::config::{Activation, Biases, Keys, LayerConfig, ModelConfig, RopeConfig};
use crate::error::Result;

pub(super) fn read(keys: &Keys<'_>) -> Result<ModelConfig> {
    let base = ModelConfig::base(keys, false)?;
    Ok(ModelConfig {
        activation: super::activation(keys, "hidden_act", Activation::Silu)?,
        biases: Biases { qkv: true, ..Biases::default() },
        ropes: vec![RopeConfig::read(keys, base.head_dim)?],
        layers: layers(keys, base.num_hidden_layers)?,
        ..base
    })
}

/// Layers from `max_window_layers` on see a window, if `use_sliding_window` says so.
pub(super) fn layers(keys: &Keys<'_>, layers: usize) -> Result<Vec<LayerConfig>> {
    let window = match keys.flag("use_sliding_window", false)? {
        true => keys.count("sliding_window")?,
        false => None,
    };
    let first = keys.get("max_window_layers").map_or(Some(28), serde_json::Value::as_u64);
    let first = first.ok_or_else(|| keys.refuse("max_window_layers", "a number from 0"))?;
    let sliding = super::sliding_layers(keys, layers, |layer| window.is_some() && layer as u64 >= first)?;
    Ok(super::windows(&sliding, window))
}
