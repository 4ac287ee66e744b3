//! Qwen 3 mixtures of experts: Qwen 3 with experts in place of most feed-forward layers.

use serde_json::Value;

use crate::config::{Activation, Defaults, Experts, Heads, Keys, ModelConfig, QkNorm, RopeConfig};
use crate::error::Result;
use crate::family::Family;

pub(super) const FAMILY: Family = Family {
    model_type: "qwen3_moe",
    models: "Qwen 3 (30B-A3B and other mixtures of experts)",
    differs: "norms of query and key heads; mixtures of experts",
    pad: None,
    has_rewards: true,
    read,
};

const DEFAULTS: Defaults = Defaults {
    vocab_size: 151_936,
    hidden_size: 2048,
    intermediate_size: 6144,
    num_hidden_layers: 24,
    num_attention_heads: 32,
    num_key_value_heads: Heads::Count(4),
    head_dim: None,
    max_position_embeddings: 32_768,
    rms_norm_eps: 1e-6,
    tied: false,
};

fn read(keys: &Keys<'_>) -> Result<ModelConfig> {
    let base = ModelConfig::base(keys, &DEFAULTS)?;
    let (count, routing) = super::softmax_routing(keys, "num_experts", 128, true)?;
    let experts = Experts {
        count,
        per_token: keys.count_or("num_experts_per_tok", 8)?,
        width: keys.count_or("moe_intermediate_size", 768)?,
        shared_width: 0,
        routing,
        aux_loss_coef: Some(super::aux_loss_coef(keys, 0.001)?),
    };
    let window = match keys.flag("use_sliding_window", false)? {
        true if keys.has("sliding_window") => keys.count("sliding_window")?,
        true => Some(4096),
        false => None,
    };
    let (step, dense) = (keys.count_or("decoder_sparse_step", 1)? as usize, dense_layers(keys)?);
    let sliding = vec![window.is_some(); base.num_hidden_layers];
    let config = ModelConfig {
        activation: super::activation(keys, "hidden_act", Activation::Silu)?,
        biases: super::attention_biases(keys)?,
        qk_norm: QkNorm::Head,
        ropes: vec![RopeConfig::read(keys, &base)?],
        layers: super::windows(&sliding, window),
        ..base
    };
    let is_sparse = |layer: usize| !dense.contains(&(layer as u64)) && (layer + 1).is_multiple_of(step);
    config.with_experts(keys, "num_experts", experts, is_sparse)
}

/// Layers that `mlp_only_layers` leaves without experts.
fn dense_layers(keys: &Keys<'_>) -> Result<Vec<u64>> {
    const KEY: &str = "mlp_only_layers";
    let expected = || keys.refuse(KEY, "a list of numbers of layers");
    let Some(listed) = keys.get(KEY) else { return Ok(Vec::new()) };
    listed.as_array().ok_or_else(expected)?.iter().map(|layer: &Value| layer.as_u64().ok_or_else(expected)).collect()
}
