//! Gemma 3, text only: Gemma 2 with norms of queries and keys instead of soft caps, five layers of six with a window,
//! and a rotary base of their own for those.

use crate::config::{Bases, Defaults, Heads, Keys, ModelConfig, QkNorm, by_kind_of_layer};
use crate::error::Result;
use crate::family::Family;

pub(super) const FAMILY: Family = Family {
    model_type: "gemma3_text",
    models: "Gemma 3, text only",
    differs: "as Gemma 2 without caps; query and key norms; two rotary bases; five windows in six layers",
    pad: Some(0),
    has_rewards: true,
    read,
};

const DEFAULTS: Defaults = Defaults {
    vocab_size: 262_208,
    hidden_size: 2304,
    intermediate_size: 9216,
    num_hidden_layers: 26,
    num_attention_heads: 8,
    num_key_value_heads: Heads::Count(4),
    head_dim: Some(256),
    max_position_embeddings: 131_072,
    rms_norm_eps: 1e-6,
    tied: true,
};

fn read(keys: &Keys<'_>) -> Result<ModelConfig> {
    let config = super::gemma2::gemma(keys, &DEFAULTS)?;
    let period = keys.count("sliding_window_pattern")?.unwrap_or(6) as usize;
    let window = if keys.has("sliding_window") { keys.count("sliding_window")? } else { Some(4096) };
    let sliding = super::sliding_layers(keys, config.num_hidden_layers, window, |layer| (layer + 1) % period != 0)?;
    let bases = Bases {
        full: keys.positive("rope_theta")?.unwrap_or(1e6),
        sliding: keys.positive("rope_local_base_freq")?.unwrap_or(1e4),
    };
    Ok(ModelConfig {
        qk_norm: QkNorm::Head,
        // transformers reads `attn_logit_softcapping` for this family and caps nothing by it.
        logit_soft_cap: keys.positive("final_logit_softcapping")?,
        ropes: by_kind_of_layer(keys, &config, &bases)?.into(),
        layers: super::windows_with_own_rope(&sliding, window),
        ..config
    })
}
