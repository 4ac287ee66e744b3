//! Apertus: a feed-forward layer without gate under xIELU, whose slopes are weights, and norms of query and key heads.

use crate::config::{
    Activation, Defaults, FeedForward, Heads, Keys, ModelConfig, NameMap, QkNorm, RopeConfig, RopePairs, RopeScaling,
};
use crate::error::Result;
use crate::family::Family;

pub(super) const FAMILY: Family = Family {
    model_type: "apertus",
    models: "Apertus",
    differs: "no gate, xIELU with learned slopes; query and key norms",
    pad: Some(3),
    has_rewards: false,
    read,
};

const DEFAULTS: Defaults = Defaults {
    vocab_size: 131_072,
    hidden_size: 4096,
    intermediate_size: 14_336,
    num_hidden_layers: 32,
    num_attention_heads: 32,
    num_key_value_heads: Heads::All,
    head_dim: None,
    max_position_embeddings: 65_536,
    rms_norm_eps: 1e-5,
    tied: false,
};

const NAMES: NameMap = NameMap {
    modules: &[("input_layernorm", "attention_layernorm"), ("post_attention_layernorm", "feedforward_layernorm")],
    ..NameMap::PLAIN
};

/// Rotary base where the file has none.
const THETA: f64 = 12e6;

fn read(keys: &Keys<'_>) -> Result<ModelConfig> {
    let base = ModelConfig::base(keys, &DEFAULTS)?;
    Ok(ModelConfig {
        activation: super::any_activation(keys, "hidden_act", Activation::Xielu)?,
        biases: super::attention_biases(keys)?,
        feed_forward: FeedForward::Plain,
        qk_norm: QkNorm::Head,
        ropes: vec![rope(keys, &base)?],
        names: NAMES,
        ..base
    })
}

/// Without a rule transformers takes one of its own, whatever base stands beside it.
fn rope(keys: &Keys<'_>, base: &ModelConfig) -> Result<RopeConfig> {
    match RopeConfig::rule(keys)? {
        Some(_) => RopeConfig::read_or(keys, base, THETA),
        None => Ok(RopeConfig {
            theta: THETA,
            width: base.head_dim,
            pairs: RopePairs::Halves,
            query_growth: None,
            scaling: RopeScaling::Llama3 {
                factor: 8.0,
                low_freq_factor: 1.0,
                high_freq_factor: 4.0,
                original_max_position_embeddings: 8192.0,
            },
        }),
    }
}
