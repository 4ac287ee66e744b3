//! Phi 3: Llama with fused projections; the long variants stretch rotary frequencies one by one.

use crate::config::{
    Activation, Defaults, FeedForward, Frame, Heads, Keys, ModelConfig, Qkv, RopeConfig, as_it_is, long_rope,
};
use crate::error::Result;
use crate::family::Family;

pub(super) const FAMILY: Family = Family {
    model_type: "phi3",
    models: "Phi 3, 3.5, 4-mini",
    differs: "fused projections, partial rotation, LongRoPE",
    pad: Some(32_000),
    has_rewards: true,
    read,
};

const DEFAULTS: Defaults = Defaults {
    vocab_size: 32_064,
    hidden_size: 3072,
    intermediate_size: 8192,
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
    let window = keys.count("sliding_window")?;
    let rule = RopeConfig::rule(keys)?;
    let holder = rule.as_ref().filter(|rule| rule.get("partial_rotary_factor").is_some()).unwrap_or(keys);
    let share = holder.positive("partial_rotary_factor")?.unwrap_or(1.0);
    let width = (base.head_dim as f64 * share) as i64;
    if share > 1.0 || width < 2 || width % 2 != 0 {
        let expected = format!("at most 1, and a share of {} that is even", base.head_dim);
        return Err(holder.refuse("partial_rotary_factor", &expected));
    }
    let frame = Frame {
        width,
        original: Some(keys.count("original_max_position_embeddings")?.unwrap_or(4096)),
        reads_again: true,
        rules: &[("default", as_it_is), ("longrope", long_rope), ("su", long_rope), ("yarn", long_rope)],
        ..Frame::of(keys, &base)?
    };
    let theta = keys.positive("rope_theta")?.unwrap_or(10_000.0);
    Ok(ModelConfig {
        activation: super::activation(keys, "hidden_act", Activation::Silu)?,
        feed_forward: FeedForward::GatedFused,
        qkv: Qkv::Fused,
        ropes: vec![RopeConfig::of_rule(keys, rule.as_ref(), theta, &frame)?],
        layers: super::windows(&vec![true; base.num_hidden_layers], window),
        ..base
    })
}
