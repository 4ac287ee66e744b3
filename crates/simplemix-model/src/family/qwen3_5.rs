//! Qwen 3.5 and 3.6: three layers of four with the gated delta rule in place of attention, and a gate on attention in the fourth.
//!
//! The tensors of heads that predict further tokens (`mtp.`) have no place in transformers' classes, nor here.

use crate::config::{
    Activation, Defaults, DeltaRule, Heads, Keys, LayerConfig, LayerKind, ModelConfig, NameMap, PartialKeys, QkNorm,
    RopeConfig,
};
use crate::error::Result;
use crate::family::Family;

pub(super) const FAMILY: Family = Family {
    model_type: "qwen3_5_text",
    models: "Qwen 3.5 and 3.6 (dense), text only",
    differs: "the gated delta rule with a short convolution in three layers of four; gated attention, norms of query and key heads and a \
              quarter of each head rotated in the fourth",
    pad: None,
    has_rewards: true,
    read,
};

const DEFAULTS: Defaults = Defaults {
    vocab_size: 248_320,
    hidden_size: 4096,
    intermediate_size: 12_288,
    num_hidden_layers: 32,
    num_attention_heads: 16,
    num_key_value_heads: Heads::Count(4),
    head_dim: Some(256),
    max_position_embeddings: 32_768,
    rms_norm_eps: 1e-6,
    tied: false,
};

const DELTA_RULE: DeltaRule = DeltaRule { key_heads: 16, value_heads: 32, key_dim: 128, value_dim: 128, kernel: 4 };

/// Names of the text part in files of the whole model, which transformers reads as its own.
const WHOLE: &[(&str, &str)] = &[("model.language_model.", "model.")];

fn read(keys: &Keys<'_>) -> Result<ModelConfig> {
    let base = ModelConfig::base(keys, &DEFAULTS)?;
    // The convolution has this activation too.
    if !matches!(keys.text("hidden_act")?, None | Some("silu" | "swish")) {
        return Err(keys.refuse("hidden_act", "`silu`"));
    }
    Ok(ModelConfig {
        activation: Activation::Silu,
        biases: super::attention_biases(keys)?,
        norm_offset: true,
        qk_norm: QkNorm::Head,
        gated_attention: true,
        delta_rule: Some(DeltaRule::read(keys, DELTA_RULE)?),
        ropes: vec![RopeConfig::read_partial(keys, &base, PartialKeys::USUAL, 0.25)?],
        layers: layers(keys, base.num_hidden_layers)?,
        names: NameMap { older: WHOLE, ..NameMap::PLAIN },
        ..base
    })
}

/// Layers of `layer_types`, or every `full_attention_interval`th with attention.
fn layers(keys: &Keys<'_>, layers: usize) -> Result<Vec<LayerConfig>> {
    const INTERVAL: &str = "full_attention_interval";
    let interval = match keys.get(INTERVAL) {
        None => 4,
        Some(value) => value
            .as_u64()
            .filter(|&interval| interval > 0)
            .ok_or_else(|| keys.refuse(INTERVAL, "a number from 1: every so many layers one has attention"))?,
    };
    let is_linear =
        super::layers_of_kind(keys, layers, "linear_attention", |layer| !(layer as u64 + 1).is_multiple_of(interval))?;
    let layer = |is_linear: bool| match is_linear {
        true => LayerConfig { kind: LayerKind::DeltaRule, rope: None, ..LayerConfig::PLAIN },
        false => LayerConfig::PLAIN,
    };
    Ok(is_linear.into_iter().map(layer).collect())
}
