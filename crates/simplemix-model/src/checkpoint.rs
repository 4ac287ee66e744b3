//! Names of tensors in a checkpoint that differ from those of the model, read as transformers 5 reads them.
//!
//! A base model's file lacks the prefix of the decoder. A file may hold an output head beside an embedding that the
//! configuration ties to it: the two may differ, and either may be missing.

use std::collections::BTreeSet;

use crate::config::{HEAD, ModelConfig};
use crate::reward::SCORE;

/// Embedding of the model, and the prefix of the decoder.
pub(crate) const EMBEDDING: &str = "model.embed_tokens.weight";
const DECODER: &str = "model.";

/// Kind of the layer on top of the decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Top {
    /// The output head.
    Head,
    /// The score of a reward model.
    Score,
}

/// How a checkpoint names the tensors of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Names {
    /// Without the prefix of the decoder.
    is_base: bool,
    head: Head,
}

/// Use of the output head in the checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Head {
    /// Read if the model has one of its own.
    AsConfigured,
    /// Beside an embedding that should be the same.
    Second,
    /// In place of the embedding, which is missing.
    Only,
}

impl Names {
    /// Those of a checkpoint that holds `stored`.
    pub(crate) fn of(stored: &BTreeSet<String>, config: &ModelConfig, top: Top) -> Self {
        let is_base =
            stored.contains(&EMBEDDING[DECODER.len()..]) && !stored.iter().any(|name| name.starts_with(DECODER));
        let has_head = top == Top::Head && config.tie_word_embeddings && stored.contains(HEAD);
        let head = match (has_head, is_base || stored.contains(EMBEDDING)) {
            (false, _) => Head::AsConfigured,
            (true, true) => Head::Second,
            (true, false) => Head::Only,
        };
        Self { is_base, head }
    }

    /// Whether the checkpoint has a head beside the embedding that the configuration ties to it.
    pub(crate) fn has_second_head(self) -> bool {
        self.head == Head::Second
    }

    /// Name in the model of the checkpoint's tensor `name`; none if it is left aside.
    pub(crate) fn in_model(self, name: &str, config: &ModelConfig) -> Option<String> {
        // Old checkpoints carry the rotary table.
        if name.ends_with("rotary_emb.inv_freq") {
            return None;
        }
        if name == HEAD && config.tie_word_embeddings {
            return match self.head {
                Head::AsConfigured => None,
                Head::Second => Some(HEAD.to_owned()),
                Head::Only => Some(EMBEDDING.to_owned()),
            };
        }
        let on_top = name == HEAD || name == SCORE;
        Some(if self.is_base && !on_top { format!("{DECODER}{name}") } else { name.to_owned() })
    }
}

/// Tensors on top of the decoder, with their shapes.
pub(crate) fn on_top(config: &ModelConfig, top: Top, names: Names) -> Vec<(String, Vec<i64>)> {
    match top {
        Top::Score => vec![(SCORE.to_owned(), vec![1, config.hidden_size])],
        Top::Head if names.has_second_head() => vec![(HEAD.to_owned(), vec![config.vocab_size, config.hidden_size])],
        Top::Head => config.head_tensor().into_iter().collect(),
    }
}
