//! Mixtral: Mistral with mixtures of experts in every layer.

use crate::config::{Activation, Defaults, Experts, Heads, Keys, ModelConfig, NameMap, RopeConfig, Routing};
use crate::error::Result;
use crate::family::Family;

pub(super) const FAMILY: Family = Family {
    model_type: "mixtral",
    models: "Mixtral",
    differs: "a window in every layer, if asked for; mixtures of experts",
    pad: None,
    has_rewards: true,
    read,
};

const DEFAULTS: Defaults = Defaults {
    vocab_size: 32_000,
    hidden_size: 4096,
    intermediate_size: 14_336,
    num_hidden_layers: 32,
    num_attention_heads: 32,
    num_key_value_heads: Heads::Count(8),
    head_dim: None,
    max_position_embeddings: 131_072,
    rms_norm_eps: 1e-5,
    tied: false,
};

/// Names in files, which are those of the class of transformers 4.
const FILES: &[(&str, &str)] = &[
    (".block_sparse_moe.", ".mlp."),
    (".w1.weight", ".gate_proj.weight"),
    (".w3.weight", ".up_proj.weight"),
    (".w2.weight", ".down_proj.weight"),
];

fn read(keys: &Keys<'_>) -> Result<ModelConfig> {
    let base = ModelConfig::base(keys, &DEFAULTS)?;
    let experts = Experts {
        count: super::experts_of(keys, "num_local_experts", 8)?,
        per_token: keys.count_or("num_experts_per_tok", 2)?,
        width: base.intermediate_size,
        shared_width: 0,
        routing: Routing::Softmax { normed: true, rounded: false },
        aux_loss_coef: Some(super::aux_loss_coef(keys, 0.001)?),
    };
    if keys.get("router_jitter_noise").is_some_and(|noise| noise.as_f64() != Some(0.0)) {
        return Err(keys.refuse("router_jitter_noise", "0: noise in the router's input is not computed"));
    }
    let window = keys.count("sliding_window")?;
    let sliding = vec![window.is_some(); base.num_hidden_layers];
    let config = ModelConfig {
        activation: super::activation(keys, "hidden_act", Activation::Silu)?,
        ropes: vec![RopeConfig::read_or(keys, &base, 1e6)?],
        layers: super::windows(&sliding, window),
        names: NameMap { inner: FILES, ..NameMap::PLAIN },
        ..base
    };
    config.with_experts(keys, "num_local_experts", experts, |_| true)
}
