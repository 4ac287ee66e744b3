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
    pub(super) fn key_heads(&self, keys: &Keys<'_>, query_heads: i64) -> Result<i64> {
        let key = "num_key_value_heads";
        match self.num_key_value_heads {
            Heads::Count(heads) if !keys.has(key) => Ok(heads),
            _ => Ok(keys.count(key)?.unwrap_or(query_heads)),
        }
    }
}
