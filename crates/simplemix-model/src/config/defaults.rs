//! Values of keys that a `config.json` may leave out.

use super::keys::Keys;
use crate::error::Result;

/// Values that transformers 5.24 takes for a family's absent keys.
pub(crate) struct Defaults {
    pub(crate) vocab_size: i64,
    pub(crate) hidden_size: i64,
    pub(crate) intermediate_size: i64,
    pub(crate) num_hidden_layers: i64,
    pub(crate) num_attention_heads: i64,
    pub(crate) num_key_value_heads: Heads,
    /// Width of a head; none: that of the residual stream over the query heads.
    pub(crate) head_dim: Option<i64>,
    pub(crate) max_position_embeddings: i64,
    pub(crate) rms_norm_eps: f64,
    /// Whether the output head is the embedding.
    pub(crate) tied: bool,
}

/// Keys of a family's sizes.
pub(crate) struct SizeKeys {
    pub(crate) hidden_size: &'static str,
    /// None: the feed-forward layer is four times as wide as the residual stream.
    pub(crate) intermediate_size: Option<&'static str>,
    pub(crate) num_hidden_layers: &'static str,
    pub(crate) num_attention_heads: &'static str,
    /// None: as many as query heads.
    pub(crate) num_key_value_heads: Option<&'static str>,
    /// None: heads share the residual stream's width.
    pub(crate) head_dim: Option<&'static str>,
    pub(crate) max_position_embeddings: &'static str,
    pub(crate) norm_eps: &'static str,
}

impl SizeKeys {
    /// Those of Llama, and of nearly every family.
    pub(crate) const LLAMA: Self = Self {
        hidden_size: "hidden_size",
        intermediate_size: Some("intermediate_size"),
        num_hidden_layers: "num_hidden_layers",
        num_attention_heads: "num_attention_heads",
        num_key_value_heads: Some("num_key_value_heads"),
        head_dim: Some("head_dim"),
        max_position_embeddings: "max_position_embeddings",
        norm_eps: "rms_norm_eps",
    };
}

/// Key and value heads where the key is absent.
#[derive(Clone, Copy)]
pub(crate) enum Heads {
    /// As many as query heads.
    All,
    /// So many.
    Count(i64),
}

impl Defaults {
    /// Key and value heads; null means as many as query heads.
    pub(super) fn key_heads(&self, keys: &Keys<'_>, key: Option<&str>, query_heads: i64) -> Result<i64> {
        let Some(key) = key else { return Ok(query_heads) };
        match self.num_key_value_heads {
            Heads::Count(heads) if !keys.has(key) => Ok(heads),
            _ => Ok(keys.count(key)?.unwrap_or(query_heads)),
        }
    }
}
