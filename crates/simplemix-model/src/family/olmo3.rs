//! OLMo 3: OLMo 2 with a window in three layers of four, and a rotary rule of its own for those.

use crate::config::{Activation, Bases, Defaults, Heads, Keys, ModelConfig, Norms, QkNorm, by_kind_of_layer};
use crate::error::Result;
use crate::family::Family;

pub(super) const FAMILY: Family = Family {
    model_type: "olmo3",
    models: "OLMo 3",
    differs: "as OLMo 2; three windows in four layers, which have a rotary rule of their own",
    pad: Some(1),
    has_rewards: true,
    read,
};

const DEFAULTS: Defaults = Defaults {
    vocab_size: 50_304,
    hidden_size: 4096,
    intermediate_size: 11_008,
    num_hidden_layers: 32,
    num_attention_heads: 32,
    num_key_value_heads: Heads::All,
    head_dim: None,
    max_position_embeddings: 2048,
    rms_norm_eps: 1e-5,
    tied: false,
};

/// Base of rotary frequencies where the file has none; transformers takes the file's own for layers without a window alone.
const THETA: f64 = 500_000.0;

fn read(keys: &Keys<'_>) -> Result<ModelConfig> {
    let base = ModelConfig::base(keys, &DEFAULTS)?;
    let window = if keys.has("sliding_window") { keys.count("sliding_window")? } else { Some(4096) };
    let sliding = super::sliding_layers(keys, base.num_hidden_layers, window, |layer| (layer + 1) % 4 != 0)?;
    let bases = Bases { full: keys.positive("rope_theta")?.unwrap_or(THETA), sliding: THETA };
    Ok(ModelConfig {
        activation: super::activation(keys, "hidden_act", Activation::Silu)?,
        biases: super::attention_biases(keys)?,
        norms: Norms::After,
        qk_norm: QkNorm::Width,
        ropes: by_kind_of_layer(keys, &base, &bases)?.into(),
        layers: super::windows_with_own_rope(&sliding, window),
        ..base
    })
}
