//! GLM 4.5 to 4.7: routed experts beside one that every token has, below a few layers without.

use crate::config::{
    Activation, Biases, Defaults, Experts, Heads, Keys, ModelConfig, PartialKeys, QkNorm, RopeConfig, Routing,
};
use crate::error::Result;
use crate::family::Family;

pub(super) const FAMILY: Family = Family {
    model_type: "glm4_moe",
    models: "GLM 4.5, 4.6 and 4.7",
    differs: "partial rotation, norms of query and key heads, bias on queries, keys and values, each if asked for; mixtures of experts, chosen \
              by sigmoids in groups, with one that every token has",
    pad: None,
    has_rewards: false,
    read,
};

const DEFAULTS: Defaults = Defaults {
    vocab_size: 151_552,
    hidden_size: 4096,
    intermediate_size: 10_944,
    num_hidden_layers: 46,
    num_attention_heads: 96,
    num_key_value_heads: Heads::Count(8),
    head_dim: None,
    max_position_embeddings: 131_072,
    rms_norm_eps: 1e-5,
    tied: false,
};

fn read(keys: &Keys<'_>) -> Result<ModelConfig> {
    let base = ModelConfig::base(keys, &DEFAULTS)?;
    let width = keys.count_or("moe_intermediate_size", 1408)?;
    let shared = keys.count_or("n_shared_experts", 1)?;
    let routing = Routing::Sigmoid {
        normed: keys.flag("norm_topk_prob", true)?,
        groups: keys.count_or("n_group", 1)?,
        groups_per_token: keys.count_or("topk_group", 1)?,
        scale: keys.positive_or("routed_scaling_factor", 1.0)?,
    };
    let experts = Experts {
        count: super::experts_of(keys, "n_routed_experts", 128)?,
        per_token: keys.count_or("num_experts_per_tok", 8)?,
        width,
        shared_width: width.saturating_mul(shared),
        routing,
        aux_loss_coef: None,
    };
    const DENSE: &str = "first_k_dense_replace";
    let dense = match keys.get(DENSE) {
        None => 1,
        Some(value) => value.as_u64().ok_or_else(|| keys.refuse(DENSE, "a number of layers from 0"))?,
    };
    let config = ModelConfig {
        activation: super::activation(keys, "hidden_act", Activation::Silu)?,
        biases: Biases { qkv: keys.flag("attention_bias", false)?, ..Biases::default() },
        qk_norm: if keys.flag("use_qk_norm", false)? { QkNorm::Head } else { QkNorm::None },
        ropes: vec![RopeConfig::read_partial(keys, &base, PartialKeys::USUAL, 0.5)?],
        ..base
    };
    config.with_experts(keys, "n_routed_experts", experts, |layer| layer as u64 >= dense)
}
