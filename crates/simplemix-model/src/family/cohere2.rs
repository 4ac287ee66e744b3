//! Command R7B and Command A: Cohere with a window in three layers of four, which alone are rotated.

use crate::config::{Keys, ModelConfig};
use crate::error::Result;
use crate::family::Family;

pub(super) const FAMILY: Family = Family {
    model_type: "cohere2",
    models: "Command R7B, Command A",
    differs: "as `cohere`; windows in three layers of four, and no rotation in the fourth",
    pad: Some(0),
    has_rewards: false,
    read,
};

fn read(keys: &Keys<'_>) -> Result<ModelConfig> {
    let config = super::cohere::cohere(keys, 10_000.0)?;
    // transformers leaves the pattern aside where `layer_types` says it all.
    let named = keys.get("layer_types").is_some();
    let period = if named { 1 } else { keys.count_or("sliding_window_pattern", 4)? as usize };
    let window = if keys.has("sliding_window") { keys.count("sliding_window")? } else { Some(4096) };
    let sliding = super::sliding_layers(keys, config.num_hidden_layers, window, |layer| (layer + 1) % period != 0)?;
    Ok(ModelConfig { layers: super::rotated_windows(&sliding, window), ..config })
}
