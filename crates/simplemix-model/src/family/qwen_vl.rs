//! Text models of Qwen 2-VL, 2.5-VL and 3-VL: Qwen 2 and 3 whose rotary embedding has three positions a token, which are one and
//! the same in text.

use serde_json::Value;

use crate::config::{
    Activation, Biases, Defaults, Frame, Heads, Keys, ModelConfig, QkNorm, RopeConfig, Rule, as_it_is,
};
use crate::error::Result;
use crate::family::Family;

pub(super) const QWEN2_VL: Family = Family {
    model_type: "qwen2_vl_text",
    models: "Qwen 2-VL, inside `qwen2_vl`",
    differs: "as `qwen2`; rotary positions of its own for images",
    pad: None,
    has_rewards: true,
    read: read_2,
};

pub(super) const QWEN2_5_VL: Family = Family {
    model_type: "qwen2_5_vl_text",
    models: "Qwen 2.5-VL, inside `qwen2_5_vl`",
    differs: "as `qwen2`; rotary positions of its own for images",
    pad: None,
    has_rewards: true,
    read: read_2,
};

pub(super) const QWEN3_VL: Family = Family {
    model_type: "qwen3_vl_text",
    models: "Qwen 3-VL (dense), inside `qwen3_vl`",
    differs: "as `qwen3`; rotary positions of its own for images",
    pad: None,
    has_rewards: true,
    read: read_3,
};

const DEFAULTS_2: Defaults = Defaults {
    vocab_size: 152_064,
    hidden_size: 8192,
    intermediate_size: 29_568,
    num_hidden_layers: 80,
    num_attention_heads: 64,
    num_key_value_heads: Heads::Count(8),
    head_dim: None,
    max_position_embeddings: 32_768,
    rms_norm_eps: 1e-5,
    tied: false,
};

const DEFAULTS_3: Defaults = Defaults {
    vocab_size: 151_936,
    hidden_size: 4096,
    intermediate_size: 22_016,
    num_hidden_layers: 32,
    num_attention_heads: 32,
    num_key_value_heads: Heads::Count(32),
    head_dim: Some(128),
    max_position_embeddings: 128_000,
    rms_norm_eps: 1e-6,
    tied: false,
};

fn read_2(keys: &Keys<'_>) -> Result<ModelConfig> {
    let base = ModelConfig::base(keys, &DEFAULTS_2)?;
    if base.head_dim * base.num_attention_heads != base.hidden_size {
        return Err(keys.refuse("head_dim", "`hidden_size` over `num_attention_heads`, or nothing"));
    }
    Ok(ModelConfig {
        activation: super::activation(keys, "hidden_act", Activation::Silu)?,
        biases: Biases { qkv: true, ..Biases::default() },
        ropes: vec![rope_2(keys, &base)?],
        layers: super::qwen2::layers(keys, base.num_hidden_layers, 80)?,
        ..base
    })
}

fn read_3(keys: &Keys<'_>) -> Result<ModelConfig> {
    let base = ModelConfig::base(keys, &DEFAULTS_3)?;
    Ok(ModelConfig {
        activation: super::activation(keys, "hidden_act", Activation::Silu)?,
        biases: super::attention_biases(keys)?,
        qk_norm: QkNorm::Head,
        ropes: vec![RopeConfig::read_or(keys, &base, 5e5)?],
        ..base
    })
}

/// The rule of Qwen 2-VL, under its older name too.
fn rope_2(keys: &Keys<'_>, model: &ModelConfig) -> Result<RopeConfig> {
    const THETA: f64 = 1e6;
    const MROPE: &[(&str, Rule)] = &[("mrope", as_it_is)];
    let Some(rule) = RopeConfig::rule(keys)? else {
        check_sections(keys, None, model)?;
        return RopeConfig::read_or(keys, model, THETA);
    };
    check_sections(keys, Some(&rule), model)?;
    let name = rule.get("rope_type").or_else(|| rule.get("type")).and_then(Value::as_str);
    if name != Some("mrope") {
        return RopeConfig::read_or(keys, model, THETA);
    }
    let theta = keys.positive("rope_theta")?.unwrap_or(THETA);
    RopeConfig::of_rule(keys, Some(&rule), theta, &Frame { rules: MROPE, ..Frame::of(keys, model)? })
}

/// Refuses shares of the frequencies for time, height and width that are not all of them: transformers cannot rotate by them.
fn check_sections(keys: &Keys<'_>, rule: Option<&Keys<'_>>, model: &ModelConfig) -> Result<()> {
    const KEY: &str = "mrope_section";
    let given = rule.and_then(|rule| rule.get(KEY));
    let sum = match given {
        None => Some(16 + 24 + 24),
        Some(given) => given.as_array().and_then(|all| all.iter().map(Value::as_i64).sum()),
    };
    if sum == Some(model.head_dim / 2) {
        return Ok(());
    }
    let expected =
        format!("numbers that sum to {}, half of a head (16, 24, 24 where the key is absent)", model.head_dim / 2);
    Err(rule.unwrap_or(keys).refuse(KEY, &expected))
}
