//! OLMoE: Llama with query and key norms over all heads, and mixtures of experts in every layer.

use serde_json::Value;

use crate::config::{Activation, Defaults, Experts, Heads, Keys, ModelConfig, QkNorm, RopeConfig};
use crate::error::Result;
use crate::family::Family;

pub(super) const FAMILY: Family = Family {
    model_type: "olmoe",
    models: "OLMoE",
    differs: "query and key norms over all heads; mixtures of experts",
    pad: Some(1),
    has_rewards: false,
    read,
};

const DEFAULTS: Defaults = Defaults {
    vocab_size: 50_304,
    hidden_size: 2048,
    intermediate_size: 2048,
    num_hidden_layers: 16,
    num_attention_heads: 16,
    num_key_value_heads: Heads::All,
    head_dim: None,
    max_position_embeddings: 4096,
    rms_norm_eps: 1e-5,
    tied: false,
};

fn read(keys: &Keys<'_>) -> Result<ModelConfig> {
    let base = ModelConfig::base(keys, &DEFAULTS)?;
    keys.only("clip_qkv", &Value::Null)?;
    let (count, routing) = super::softmax_routing(keys, "num_experts", 64, true)?;
    let experts = Experts {
        count,
        per_token: keys.count_or("num_experts_per_tok", 8)?,
        width: base.intermediate_size,
        shared_width: 0,
        routing,
        aux_loss_coef: Some(super::aux_loss_coef(keys, 0.01)?),
    };
    let config = ModelConfig {
        activation: super::activation(keys, "hidden_act", Activation::Silu)?,
        biases: super::attention_biases(keys)?,
        qk_norm: QkNorm::Width,
        ropes: vec![RopeConfig::read(keys, &base)?],
        ..base
    };
    config.with_experts(keys, "num_experts", experts, |_| true)
}
