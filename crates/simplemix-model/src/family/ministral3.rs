//! Ministral 3: Mistral with heads of their own width, YaRN, and queries that grow with their position.

use serde_json::{Map, Value, json};

use crate::config::{Activation, Defaults, Frame, Heads, Keys, ModelConfig, QueryGrowth, RopeConfig};
use crate::error::Result;
use crate::family::Family;

pub(super) const FAMILY: Family = Family {
    model_type: "ministral3",
    models: "Ministral 3",
    differs: "YaRN; queries that grow with their position; a window in every layer, if asked for",
    pad: Some(11),
    has_rewards: true,
    read,
};

const DEFAULTS: Defaults = Defaults {
    vocab_size: 131_072,
    hidden_size: 4096,
    intermediate_size: 14_336,
    num_hidden_layers: 34,
    num_attention_heads: 32,
    num_key_value_heads: Heads::Count(8),
    head_dim: Some(128),
    max_position_embeddings: 262_144,
    rms_norm_eps: 1e-5,
    tied: false,
};

fn read(keys: &Keys<'_>) -> Result<ModelConfig> {
    let base = ModelConfig::base(keys, &DEFAULTS)?;
    let window = keys.count("sliding_window")?;
    Ok(ModelConfig {
        activation: super::activation(keys, "hidden_act", Activation::Silu)?,
        ropes: vec![rope(keys, &base)?],
        // transformers reads no `layer_types` for this family.
        layers: super::windows(&vec![true; base.num_hidden_layers], window),
        ..base
    })
}

fn rope(keys: &Keys<'_>, model: &ModelConfig) -> Result<RopeConfig> {
    let default = default_rule();
    let rule = RopeConfig::rule(keys)?.unwrap_or_else(|| keys.of(&default, "rope_parameters."));
    let rope = RopeConfig::read_rule(keys, Some(&rule), model, 10_000.0)?;
    let growth = "llama_4_scaling_beta";
    let beta = rule.get(growth).and_then(Value::as_f64).filter(|beta| *beta >= 0.0 && beta.is_finite());
    let beta = beta.ok_or_else(|| rule.refuse(growth, "a number from 0"))?;
    // transformers finds the context only for rules that know one.
    let context = match rope.scaling.knows_context() {
        true => Frame::of(keys, model)?.original(&rule)?,
        false => rule.needed_count("original_max_position_embeddings")?,
    };
    Ok(RopeConfig { query_growth: Some(QueryGrowth { beta, context }), ..rope })
}

/// The rule of a file that has none.
fn default_rule() -> Map<String, Value> {
    let rule = json!({
        "rope_type": "yarn",
        "rope_theta": 1e6,
        "factor": 16.0,
        "original_max_position_embeddings": 16_384,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "llama_4_scaling_beta": 0.1,
    });
    rule.as_object().cloned().unwrap_or_default()
}
