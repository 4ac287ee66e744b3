//! Phi 3: Llama with fused projections; the long variants stretch rotary frequencies one by one.

use crate::config::{Activation, Keys, ModelConfig, RopeConfig};
use crate::error::Result;

pub(super) fn read(keys: &Keys<'_>) -> Result<ModelConfig> {
    let base = ModelConfig::base(keys, false)?;
    let window = keys.count("sliding_window")?;
    let rule = RopeConfig::rule(keys)?.filter(|rule| rule.get("partial_rotary_factor").is_some());
    let holder = rule.as_ref().unwrap_or(keys);
    let share = holder.positive("partial_rotary_factor")?.unwrap_or(1.0);
    let width = (base.head_dim as f64 * share) as i64;
    if share > 1.0 || width < 2 || width % 2 != 0 {
        let expected = format!("at most 1, and a share of {} that is even", base.head_dim);
        return Err(holder.refuse("partial_rotary_factor", &expected));
    }
    Ok(ModelConfig {
        activation: super::activation(keys, "hidden_act", Activation::Silu)?,
        fused_projections: true,
        ropes: vec![RopeConfig::read(keys, width)?],
        layers: super::windows(&vec![true; base.num_hidden_layers], window),
        ..base
    })
}
