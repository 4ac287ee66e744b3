//! GPT-2: learned positions, norms by variance, one matrix of queries, keys and values, and linear layers that files hold turned.

use crate::config::{
    Activation, Biases, Defaults, FeedForward, Heads, Keys, LayerConfig, ModelConfig, NameMap, NormKind, Qkv, SizeKeys,
};
use crate::error::Result;
use crate::family::Family;

pub(super) const FAMILY: Family = Family {
    model_type: "gpt2",
    models: "GPT-2, Cerebras-GPT",
    differs: "learned positions and no rotation; LayerNorm with bias; one matrix of queries, keys and values; no gate, GELU, biases",
    pad: None,
    has_rewards: true,
    read,
};

const DEFAULTS: Defaults = Defaults {
    vocab_size: 50_257,
    hidden_size: 768,
    intermediate_size: 3072,
    num_hidden_layers: 12,
    num_attention_heads: 12,
    num_key_value_heads: Heads::All,
    head_dim: None,
    max_position_embeddings: 1024,
    rms_norm_eps: 1e-5,
    tied: true,
};

const NAMES: NameMap = NameMap {
    decoder: "transformer",
    modules: &[
        ("embed_tokens", "wte"),
        ("embed_positions", "wpe"),
        ("layers", "h"),
        ("norm", "ln_f"),
        ("input_layernorm", "ln_1"),
        ("post_attention_layernorm", "ln_2"),
        ("self_attn.qkv_proj", "attn.c_attn"),
        ("self_attn.o_proj", "attn.c_proj"),
        ("mlp.up_proj", "mlp.c_fc"),
        ("mlp.down_proj", "mlp.c_proj"),
    ],
    ..NameMap::PLAIN
};

fn read(keys: &Keys<'_>) -> Result<ModelConfig> {
    // The class has two words for some sizes, of which the general one takes precedence.
    let either = |general: &'static str, own: &'static str| if keys.has(general) { general } else { own };
    let sizes = SizeKeys {
        hidden_size: either("hidden_size", "n_embd"),
        intermediate_size: keys.get("n_inner").map(|_| "n_inner"),
        num_hidden_layers: either("num_hidden_layers", "n_layer"),
        num_attention_heads: either("num_attention_heads", "n_head"),
        num_key_value_heads: None,
        head_dim: None,
        max_position_embeddings: either("max_position_embeddings", "n_positions"),
        norm_eps: "layer_norm_epsilon",
    };
    let base = ModelConfig::base_of(keys, &DEFAULTS, &sizes)?;
    if keys.flag("add_cross_attention", false)? {
        return Err(keys.refuse("add_cross_attention", "`false`: attention to an encoder is not computed"));
    }
    // `reorder_and_upcast_attn` asks for products in f32, which is how attention sums them here.
    keys.flag("reorder_and_upcast_attn", false)?;
    let by_layer = keys.flag("scale_attn_by_inverse_layer_idx", false)?;
    let layer = |index: usize| LayerConfig {
        rope: None,
        query_scale: if by_layer { 1.0 / (index + 1) as f64 } else { 1.0 },
        ..LayerConfig::PLAIN
    };
    Ok(ModelConfig {
        feed_forward: FeedForward::Plain,
        activation: super::any_activation(keys, "activation_function", Activation::GeluTanh)?,
        biases: Biases { qkv: true, output: true, mlp: true },
        norm_kind: NormKind::LayerBias,
        attention_scale: if keys.flag("scale_attn_weights", true)? { base.attention_scale } else { 1.0 },
        qkv: Qkv::Fused,
        learned_positions: true,
        layers: (0..base.num_hidden_layers).map(layer).collect(),
        names: NAMES,
        turned_linear: true,
        trains_padding: true,
        ..base
    })
}
