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
    /// End of a turn, where it is another token than the end of the sequence.
    pub(super) eot: Option<u64>,
    pub(super) pad: Option<u64>,
    pub(super) unknown: Option<u64>,
}

impl TokenIds {
    pub(super) fn of(gguf: &Gguf<'_>) -> Result<Self> {
        let tokens = gguf.list("tokenizer.ggml.tokens").map_or(0, <[_]>::len) as u64;
        let id = |name: &str| {
            let key = format!("tokenizer.ggml.{name}_token_id");
            match gguf.unsigned(&key) {
                Some(id) if id >= tokens => {
                    Err(gguf.unsupported(&key, id.to_string(), &format!("below {tokens}, the number of tokens")))
                }
                found => Ok(found),
            }
        };
        let (bos, eos, eot, unknown) = (id("bos")?, id("eos")?, id("eot")?, id("unknown")?);
        Ok(Self { bos, eos, eot, pad: id("padding")?.or(eos), unknown })
    }
}

/// Rebuilds the tokenizer.
pub(super) fn rebuild(gguf: &Gguf<'_>, ids: TokenIds) -> Result<TokenizerFiles> {
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
    let token = |id: Option<u64>| id.and_then(|id| tokens.get(usize::try_from(id).ok()?).copied());
    let adds = |name: &str| gguf.flag(&format!("tokenizer.ggml.add_{name}_token")).unwrap_or(false);
    let bos = token(ids.bos).filter(|_| adds("bos")).zip(ids.bos);
    let eos = token(ids.eos).filter(|_| adds("eos")).zip(ids.eos);
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": pre_tokenizer(gguf)?,
        "post_processor": around(bos, eos),
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

/// Puts `bos` before every text and `eos` after it, each a token and its id; null if there is neither.
fn around(bos: Option<(&str, u64)>, eos: Option<(&str, u64)>) -> Json {
    if bos.is_none() && eos.is_none() {
        return Json::Null;
    }
    let special =
        |token: Option<(&str, u64)>| token.map(|(token, _)| json!({ "SpecialToken": { "id": token, "type_id": 0 } }));
    let sequence = |id: &str, kind: u32| json!({ "Sequence": { "id": id, "type_id": kind } });
    let with = |sequences: Vec<Json>| special(bos).into_iter().chain(sequences).chain(special(eos)).collect::<Vec<_>>();
    let described =
        |(token, id): (&str, u64)| (token.to_owned(), json!({ "id": token, "ids": [id], "tokens": [token] }));
    json!({
        "type": "TemplateProcessing",
        "single": with(vec![sequence("A", 0)]),
        "pair": with(vec![sequence("A", 0), sequence("B", 1)]),
        "special_tokens": bos.into_iter().chain(eos).map(described).collect::<Map<String, Json>>(),
    })
}
