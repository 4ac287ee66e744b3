//! The byte-level BPE tokenizer out of GGUF metadata, as `tokenizer.json` and its companions.
//!
//! The pre-tokenizer follows `tokenizer.ggml.pre`. transformers' own GGUF loader ignores that key and splits as GPT-2
//! did; for SmolLM this differs where white space precedes digits (the model's own tokenizer splits digits off first),
//! and there the model's own tokenizer is followed.

use serde_json::{Map, Value as Json, json};

use super::error::Result;
use super::reader::{Gguf, Value};

/// `tokenizer.ggml.token_type` of tokens that are matched before anything else.
const CONTROL: u64 = 3;
const USER_DEFINED: u64 = 4;

/// The files of a tokenizer.
pub(super) struct TokenizerFiles {
    pub(super) tokenizer: Json,
    pub(super) config: Json,
    pub(super) special_tokens: Json,
    pub(super) chat_template: Option<String>,
}

/// Token ids that the model's configuration names too.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct TokenIds {
    pub(super) bos: Option<u64>,
    pub(super) eos: Option<u64>,
    pub(super) pad: Option<u64>,
    pub(super) unknown: Option<u64>,
}

impl TokenIds {
    pub(super) fn of(gguf: &Gguf<'_>) -> Self {
        let id = |name: &str| gguf.unsigned(&format!("tokenizer.ggml.{name}_token_id"));
        Self { bos: id("bos"), eos: id("eos"), pad: id("padding").or(id("eos")), unknown: id("unknown") }
    }
}

/// Rebuilds the tokenizer.
pub(super) fn rebuild(gguf: &Gguf<'_>) -> Result<TokenizerFiles> {
    let model = gguf.text("tokenizer.ggml.model").unwrap_or("absent");
    if model != "gpt2" {
        return Err(gguf.unsupported("tokenizer.ggml.model", format!("`{model}`"), "`gpt2`: byte-level BPE"));
    }
    let tokens = texts(gguf, "tokenizer.ggml.tokens")?;
    let merges = texts(gguf, "tokenizer.ggml.merges")?;
    let kinds = gguf.list("tokenizer.ggml.token_type").unwrap_or_default();
    let added: Vec<Json> = tokens
        .iter()
        .zip(kinds)
        .enumerate()
        .filter_map(|(id, (content, kind))| added_token(id, content, kind))
        .collect();
    let pairs = merges
        .iter()
        .map(|merge| match merge.split_once(' ') {
            Some((left, right)) => Ok(json!([left, right])),
            None => {
                Err(gguf.unsupported("tokenizer.ggml.merges", format!("`{merge}`"), "two tokens with a space between"))
            }
        })
        .collect::<Result<Vec<_>>>()?;
    let vocab: Map<String, Json> = tokens.iter().enumerate().map(|(id, t)| ((*t).to_owned(), json!(id))).collect();
    let ids = TokenIds::of(gguf);
    let token = |id: Option<u64>| id.and_then(|id| tokens.get(usize::try_from(id).ok()?).copied());
    let bos = token(ids.bos).filter(|_| gguf.flag("tokenizer.ggml.add_bos_token").unwrap_or(false)).zip(ids.bos);
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": pre_tokenizer(gguf)?,
        "post_processor": bos.map(|(token, id)| prepend(token, id)),
        "decoder": byte_level(),
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": pairs,
        },
    });
    let mut special_tokens = Map::new();
    for (name, id) in [("bos", ids.bos), ("eos", ids.eos), ("pad", ids.pad), ("unk", ids.unknown)] {
        if let Some(text) = token(id) {
            special_tokens.insert(format!("{name}_token"), json!(text));
        }
    }
    let chat_template = gguf.text("tokenizer.chat_template").map(str::to_owned);
    let mut config = special_tokens.clone();
    config.insert("tokenizer_class".to_owned(), json!("PreTrainedTokenizerFast"));
    config.insert("clean_up_tokenization_spaces".to_owned(), json!(false));
    config.insert("model_max_length".to_owned(), json!(gguf.unsigned("llama.context_length")));
    if let Some(template) = &chat_template {
        config.insert("chat_template".to_owned(), json!(template));
    }
    Ok(TokenizerFiles { tokenizer, config: config.into(), special_tokens: special_tokens.into(), chat_template })
}

/// A list of texts that the tokenizer cannot do without.
fn texts<'a>(gguf: &'a Gguf<'_>, key: &str) -> Result<Vec<&'a str>> {
    let missing = || gguf.unsupported(key, "absent or no list of texts", "a list of texts");
    let text = |value: &'a Value| match value {
        Value::Text(text) => Ok(text.as_str()),
        _ => Err(missing()),
    };
    gguf.list(key).ok_or_else(missing)?.iter().map(text).collect()
}

fn added_token(id: usize, content: &str, kind: &Value) -> Option<Json> {
    let kind = match kind {
        Value::Signed(kind) => u64::try_from(*kind).ok()?,
        Value::Unsigned(kind) => *kind,
        _ => return None,
    };
    (kind == CONTROL || kind == USER_DEFINED).then(|| {
        json!({ "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": kind == CONTROL })
    })
}

fn byte_level() -> Json {
    json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true })
}

fn pre_tokenizer(gguf: &Gguf<'_>) -> Result<Json> {
    match gguf.text("tokenizer.ggml.pre").unwrap_or("gpt-2") {
        "gpt-2" | "gpt2" => Ok(byte_level()),
        // HuggingFaceTB's tokenizers: each digit alone, then GPT-2's pattern.
        "smollm" => Ok(json!({
            "type": "Sequence",
            "pretokenizers": [{ "type": "Digits", "individual_digits": true }, byte_level()],
        })),
        other => Err(gguf.unsupported("tokenizer.ggml.pre", format!("`{other}`"), "`gpt-2` or `smollm`")),
    }
}

/// Puts the begin-of-sequence token before every text.
fn prepend(token: &str, id: u64) -> Json {
    json!({
        "type": "TemplateProcessing",
        "single": [{ "SpecialToken": { "id": token, "type_id": 0 } }, { "Sequence": { "id": "A", "type_id": 0 } }],
        "pair": [{ "SpecialToken": { "id": token, "type_id": 0 } }, { "Sequence": { "id": "A", "type_id": 0 } },
                 { "Sequence": { "id": "B", "type_id": 1 } }],
        "special_tokens": { token: { "id": token, "ids": [id], "tokens": [token] } },
    })
}
