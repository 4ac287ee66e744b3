//! LFM2: short convolutions in place of attention in most layers.

use serde_json::Value;

use crate::config::{
    Activation, Defaults, Heads, Keys, LayerConfig, LayerKind, ModelConfig, NameMap, QkNorm, RopeConfig,
    ShortConvolution, SizeKeys,
};
use crate::error::Result;
use crate::family::Family;

pub(super) const FAMILY: Family = Family {
    model_type: "lfm2",
    models: "LFM2 (dense)",
    differs: "short gated convolutions in place of attention in most layers; norms of query and key heads",
    pad: Some(0),
    has_rewards: false,
    read,
};

const DEFAULTS: Defaults = Defaults {
    vocab_size: 65_536,
    hidden_size: 2560,
    intermediate_size: 12_288,
    num_hidden_layers: 32,
    num_attention_heads: 32,
    num_key_value_heads: Heads::Count(8),
    head_dim: None,
    max_position_embeddings: 128_000,
    rms_norm_eps: 1e-5,
    tied: true,
};

const NAMES: NameMap = NameMap {
    modules: &[
        ("norm", "embedding_norm"),
        ("input_layernorm", "operator_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("self_attn.o_proj", "self_attn.out_proj"),
        ("self_attn.q_norm", "self_attn.q_layernorm"),
        ("self_attn.k_norm", "self_attn.k_layernorm"),
        ("mlp.gate_proj", "feed_forward.w1"),
        ("mlp.up_proj", "feed_forward.w3"),
        ("mlp.down_proj", "feed_forward.w2"),
    ],
    ..NameMap::PLAIN
};

fn read(keys: &Keys<'_>) -> Result<ModelConfig> {
    let sizes = SizeKeys { norm_eps: "norm_eps", ..SizeKeys::LLAMA };
    let base = ModelConfig::base_of(keys, &DEFAULTS, &sizes)?;
    let kernel = keys.count_or("conv_L_cache", 3)?;
    if kernel > 1 << 10 {
        return Err(keys.refuse("conv_L_cache", "at most 1024"));
    }
    Ok(ModelConfig {
        activation: Activation::Silu,
        intermediate_size: width(keys, keys.count("block_ff_dim")?.unwrap_or(base.intermediate_size))?,
        tie_word_embeddings: keys.flag("tie_embedding", base.tie_word_embeddings)?,
        qk_norm: QkNorm::Head,
        short_convolution: Some(ShortConvolution { kernel, bias: keys.flag("conv_bias", false)? }),
        ropes: vec![RopeConfig::read_or(keys, &base, 1e6)?],
        layers: layers(keys, base.num_hidden_layers)?,
        names: NAMES,
        ..base
    })
}

/// Width of the feed-forward layer: two thirds of the key's, times a factor, up to a multiple, unless it is to be taken as it is.
fn width(keys: &Keys<'_>, whole: i64) -> Result<i64> {
    if !keys.flag("block_auto_adjust_ff_dim", true)? {
        return Ok(whole);
    }
    let width = (2.0 * whole as f64 / 3.0) as i64;
    let factor = keys.positive_or("block_ffn_dim_multiplier", 1.0)?;
    let multiple = keys.count_or("block_multiple_of", 256)?;
    let width = ((factor * width as f64) as i64).saturating_add(multiple - 1) / multiple * multiple;
    match width {
        1..=MOST_WIDTH => Ok(width),
        _ => Err(keys.refuse("intermediate_size", "one that gives a feed-forward layer of 1 to 16777216")),
    }
}

const MOST_WIDTH: i64 = 1 << 24;

/// Layers of `layer_types`, or those with attention that `full_attn_idxs` names.
fn layers(keys: &Keys<'_>, layers: usize) -> Result<Vec<LayerConfig>> {
    let attends = match keys.get("full_attn_idxs") {
        None => (0..layers as u64).collect(),
        Some(named) => {
            let expected = || keys.refuse("full_attn_idxs", "a list of numbers of layers");
            let all = named.as_array().ok_or_else(expected)?;
            all.iter().map(Value::as_u64).collect::<Option<Vec<u64>>>().ok_or_else(expected)?
        }
    };
    let convolves = super::layers_of_kind(keys, layers, "conv", |layer| !attends.contains(&(layer as u64)))?;
    let layer = |convolves: bool| match convolves {
        true => LayerConfig { kind: LayerKind::Convolution, rope: None, ..LayerConfig::PLAIN },
        false => LayerConfig::PLAIN,
    };
    Ok(convolves.into_iter().map(layer).collect())
}
