//! SentencePiece's vocabulary of pieces and scores (`tokenizer.ggml.model` is `llama`), as a `tokenizer.json` of BPE with bytes for what
//! no piece has.
//!
//! SentencePiece joins the neighbours whose piece has the highest score, the leftmost of equals; merges in the order of scores do so
//! too. They follow from the pieces, as in transformers' conversion of such vocabularies.

use std::collections::HashMap;

use serde_json::{Map, Value as Json, json};

use super::error::Result;
use super::reader::{Gguf, Value};

/// `tokenizer.ggml.token_type` of a piece that text is made of, of the unknown piece, and of a byte.
const NORMAL: u64 = 1;
const UNKNOWN: u64 = 2;
const BYTE: u64 = 6;

/// Longest piece: the longest of published vocabularies are runs of a few dozen spaces.
const MOST_BYTES: usize = 1024;

/// White space in pieces.
const SPACE: &str = "\u{2581}";

/// `model`, `normalizer` and `decoder` of the `tokenizer.json`.
pub(super) struct SentencePiece {
    pub(super) model: Json,
    pub(super) normalizer: Json,
    pub(super) decoder: Json,
}

/// Tokenizer of pieces in the order of their ids, and of their types.
pub(super) fn rebuild(gguf: &Gguf<'_>, tokens: &[&str], kinds: &[u64], unknown: Option<u64>) -> Result<SentencePiece> {
    const REMOVES: &str = "tokenizer.ggml.remove_extra_whitespaces";
    if gguf.flag(REMOVES) == Some(true) {
        return Err(gguf.unsupported(REMOVES, "true", "false: white space is kept"));
    }
    if let Some(piece) = tokens.iter().find(|piece| piece.len() > MOST_BYTES) {
        let found = format!("a list with a piece of {} bytes", piece.len());
        return Err(gguf.unsupported("tokenizer.ggml.tokens", found, &format!("pieces of at most {MOST_BYTES} bytes")));
    }
    let scores = scores(gguf, tokens.len())?;
    let vocab: Map<String, Json> = tokens.iter().enumerate().map(|(id, t)| ((*t).to_owned(), json!(id))).collect();
    let unknown = unknown.or_else(|| kinds.iter().position(|kind| *kind == UNKNOWN).map(|id| id as u64));
    let unknown = unknown.and_then(|id| tokens.get(usize::try_from(id).ok()?).copied());
    let has_bytes = kinds.contains(&BYTE);
    let prefixes = gguf.flag("tokenizer.ggml.add_space_prefix").unwrap_or(true);
    let replace = json!({ "type": "Replace", "pattern": { "String": " " }, "content": SPACE });
    let normalizer = match prefixes {
        true => json!({ "type": "Sequence", "normalizers": [{ "type": "Prepend", "prepend": SPACE }, replace] }),
        false => replace,
    };
    let mut decoders = vec![
        json!({ "type": "Replace", "pattern": { "String": SPACE }, "content": " " }),
        json!({ "type": "ByteFallback" }),
        json!({ "type": "Fuse" }),
    ];
    if prefixes {
        decoders.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
    }
    let model = json!({
        "type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": has_bytes, "ignore_merges": false,
        "vocab": vocab, "merges": merges(tokens, kinds, &scores),
    });
    Ok(SentencePiece { model, normalizer, decoder: json!({ "type": "Sequence", "decoders": decoders }) })
}

fn scores(gguf: &Gguf<'_>, count: usize) -> Result<Vec<f64>> {
    const KEY: &str = "tokenizer.ggml.scores";
    let wrong = || gguf.unsupported(KEY, "absent, or no list of numbers", &format!("{count} numbers"));
    let number = |value: &Value| match value {
        Value::Float(score) => Ok(*score),
        Value::Signed(score) => Ok(*score as f64),
        _ => Err(wrong()),
    };
    let scores: Vec<f64> = gguf.list(KEY).ok_or_else(wrong)?.iter().map(number).collect::<Result<_>>()?;
    if scores.len() == count { Ok(scores) } else { Err(wrong()) }
}

/// Pairs of pieces that make a piece: by its score, the highest first, then by the ids of the two.
fn merges(tokens: &[&str], kinds: &[u64], scores: &[f64]) -> Vec<Json> {
    let is_normal = |id: usize| kinds.get(id).is_none_or(|kind| *kind == NORMAL);
    let ids: HashMap<&str, usize> =
        tokens.iter().enumerate().filter(|(id, _)| is_normal(*id)).map(|(i, t)| (*t, i)).collect();
    let mut all: Vec<(f64, usize, usize)> = Vec::new();
    for (piece, &id) in &ids {
        for (at, _) in piece.char_indices().skip(1) {
            let (left, right) = piece.split_at(at);
            if let (Some(&left), Some(&right)) = (ids.get(left), ids.get(right)) {
                all.push((scores[id], left, right));
            }
        }
    }
    all.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    all.into_iter().map(|(_, left, right)| json!([tokens[left], tokens[right]])).collect()
}
