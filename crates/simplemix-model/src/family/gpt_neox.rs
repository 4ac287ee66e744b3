//! GPT-NeoX and Pythia: norms by variance, attention and feed-forward side by side, one matrix of queries, keys and values.

use crate::config::{
    Activation, Biases, Defaults, FeedForward, Heads, Keys, ModelConfig, NameMap, NormKind, Norms, PartialKeys, Qkv,
    RopeConfig, SizeKeys,
};
use crate::error::Result;
use crate::family::Family;

pub(super) const FAMILY: Family = Family {
    model_type: "gpt_neox",
    models: "GPT-NeoX, Pythia, Dolly 2, RedPajama-INCITE",
    differs: "LayerNorm with bias; attention and feed-forward side by side; one matrix of queries, keys and values, head by head; \
              a quarter of each head rotated; no gate, GELU, biases",
    pad: None,
    has_rewards: true,
    read,
};

const DEFAULTS: Defaults = Defaults {
    vocab_size: 50_432,
    hidden_size: 6144,
    intermediate_size: 24_576,
    num_hidden_layers: 44,
    num_attention_heads: 64,
    num_key_value_heads: Heads::All,
    head_dim: None,
    max_position_embeddings: 2048,
    rms_norm_eps: 1e-5,
    tied: false,
};

const SIZES: SizeKeys =
    SizeKeys { num_key_value_heads: None, head_dim: None, norm_eps: "layer_norm_eps", ..SizeKeys::LLAMA };

const NAMES: NameMap = NameMap {
    decoder: "gpt_neox",
    modules: &[
        ("embed_tokens", "embed_in"),
        ("norm", "final_layer_norm"),
        ("self_attn.qkv_proj", "attention.query_key_value"),
        ("self_attn.o_proj", "attention.dense"),
        ("mlp.up_proj", "mlp.dense_h_to_4h"),
        ("mlp.down_proj", "mlp.dense_4h_to_h"),
    ],
    older: &[("embed_out.", "lm_head.")],
    written: &[("lm_head.", "embed_out.")],
    ..NameMap::PLAIN
};

fn read(keys: &Keys<'_>) -> Result<ModelConfig> {
    let base = ModelConfig::base_of(keys, &DEFAULTS, &SIZES)?;
    if keys.count("head_dim")?.is_some_and(|width| width != base.head_dim) {
        // transformers takes rotary frequencies for it, and cuts heads by the other keys.
        return Err(keys.refuse("head_dim", &format!("{}, the width of the model over its heads", base.head_dim)));
    }
    let attention = keys.flag("attention_bias", true)?;
    let is_parallel = keys.flag("use_parallel_residual", true)?;
    let words = PartialKeys { theta: "rotary_emb_base", share: "rotary_pct" };
    Ok(ModelConfig {
        feed_forward: FeedForward::Plain,
        activation: super::any_activation(keys, "hidden_act", Activation::Gelu)?,
        biases: Biases { qkv: attention, output: attention, mlp: true },
        norms: if is_parallel { Norms::Parallel } else { Norms::Before },
        norm_kind: NormKind::LayerBias,
        qkv: Qkv::FusedByHead,
        ropes: vec![RopeConfig::read_partial(keys, &base, words, 0.25)?],
        names: NAMES,
        trains_padding: true,
        ..base
    })
}
