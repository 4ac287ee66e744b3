//! The tokenizer out of GGUF metadata, as `tokenizer.json` and its companions: byte-level BPE, or SentencePiece's pieces.
//!
//! The pre-tokenizer of byte-level BPE follows `tokenizer.ggml.pre`. transformers' own GGUF loader ignores that key and splits as GPT-2
//! did; for SmolLM this differs where white space precedes digits (the model's own tokenizer splits digits off first),
//! and there the model's own tokenizer is followed.

use serde_json::{Map, Value as Json, json};

use super::error::Result;
use super::pre_tokenizer::{PreTokenizer, byte_level};
use super::reader::{Gguf, Value};
use super::sentence_piece::{self, SentencePiece};

/// `tokenizer.ggml.token_type` of tokens that are matched before anything else.
const CONTROL: u64 = 3;
const USER_DEFINED: u64 = 4;
/// That of SentencePiece's unknown piece.
const UNKNOWN: u64 = 2;

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
pub(super) fn rebuild(gguf: &Gguf<'_>, ids: TokenIds, context: u64) -> Result<TokenizerFiles> {
    let tokens = texts(gguf, "tokenizer.ggml.tokens")?;
    let kinds: Vec<u64> = gguf.list("tokenizer.ggml.token_type").unwrap_or_default().iter().map(kind).collect();
    let token = |id: Option<u64>| id.and_then(|id| tokens.get(usize::try_from(id).ok()?).copied());
    let splitting = Splitting::of(gguf, ids, &tokens, &kinds)?;
    let adds = |name: &str, default: bool| gguf.flag(&format!("tokenizer.ggml.add_{name}_token")).unwrap_or(default);
    let bos = token(ids.bos).filter(|_| adds("bos", splitting.adds_bos)).zip(ids.bos);
    let eos = token(ids.eos).filter(|_| adds("eos", false)).zip(ids.eos);
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added_tokens(&tokens, &kinds, splitting.has_pieces),
        "normalizer": splitting.normalizer,
        "pre_tokenizer": splitting.pre_tokenizer,
        "post_processor": around(bos, eos),
        "decoder": splitting.decoder,
        "model": splitting.model,
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
    config.insert("model_max_length".to_owned(), json!(context));
    if let Some(template) = &chat_template {
        config.insert("chat_template".to_owned(), json!(template));
    }
    Ok(TokenizerFiles { tokenizer, config: config.into(), special_tokens: special_tokens.into(), chat_template })
}

/// Parts of a `tokenizer.json` that depend on the kind of vocabulary.
struct Splitting {
    normalizer: Json,
    pre_tokenizer: Json,
    decoder: Json,
    model: Json,
    /// Whether a text begins with a token of its own where the file does not say.
    adds_bos: bool,
    /// Whether the vocabulary is SentencePiece's.
    has_pieces: bool,
}

impl Splitting {
    fn of(gguf: &Gguf<'_>, ids: TokenIds, tokens: &[&str], kinds: &[u64]) -> Result<Self> {
        match gguf.text("tokenizer.ggml.model").unwrap_or("absent") {
            "gpt2" => Self::of_bytes(gguf, tokens),
            "llama" => {
                let pieces = sentence_piece::rebuild(gguf, tokens, kinds, ids.unknown)?;
                let SentencePiece { model, normalizer, decoder } = pieces;
                Ok(Self { normalizer, pre_tokenizer: Json::Null, decoder, model, adds_bos: true, has_pieces: true })
            }
            other => {
                let expected = "`gpt2`, byte-level BPE, or `llama`, SentencePiece's pieces";
                Err(gguf.unsupported("tokenizer.ggml.model", format!("`{other}`"), expected))
            }
        }
    }

    fn of_bytes(gguf: &Gguf<'_>, tokens: &[&str]) -> Result<Self> {
        let split = PreTokenizer::of(gguf)?;
        let pairs = texts(gguf, "tokenizer.ggml.merges")?
            .into_iter()
            .map(|merge| match merge.split_once(' ') {
                Some((left, right)) => Ok(json!([left, right])),
                None => {
                    let expected = "two tokens with a space between";
                    Err(gguf.unsupported("tokenizer.ggml.merges", format!("`{merge}`"), expected))
                }
            })
            .collect::<Result<Vec<_>>>()?;
        let vocab: Map<String, Json> = tokens.iter().enumerate().map(|(id, t)| ((*t).to_owned(), json!(id))).collect();
        let model = json!({
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false, "ignore_merges": split.ignores_merges,
            "vocab": vocab, "merges": pairs,
        });
        Ok(Self {
            normalizer: Json::Null,
            pre_tokenizer: split.to_json(),
            decoder: byte_level(true),
            model,
            adds_bos: split.adds_bos,
            has_pieces: false,
        })
    }
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

/// `tokenizer.ggml.token_type` of a token; 0 for none that there is.
fn kind(value: &Value) -> u64 {
    match value {
        Value::Signed(kind) => u64::try_from(*kind).unwrap_or(0),
        Value::Unsigned(kind) => *kind,
        _ => 0,
    }
}

/// Tokens that are matched before anything else. SentencePiece's unknown piece is one of them.
fn added_tokens(tokens: &[&str], kinds: &[u64], has_pieces: bool) -> Vec<Json> {
    let all = tokens.iter().zip(kinds).enumerate();
    all.filter(|(_, (_, kind))| [CONTROL, USER_DEFINED].contains(*kind) || (has_pieces && **kind == UNKNOWN))
        .map(|(id, (content, kind))| {
            json!({ "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false, "special": *kind != USER_DEFINED })
        })
        .collect()
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
