//! Tokenizers as transformers 5.24 builds them anew from the vocabulary and merges of `tokenizer.json`.

use serde_json::{Value, json};
use tokenizers::models::ModelWrapper;
use tokenizers::models::bpe::BPE;
use tokenizers::{AddedToken, DecoderWrapper, NormalizerWrapper, PreTokenizerWrapper, Tokenizer};

use super::added::Declared;
use super::class::Rebuilt;

/// `PRETOKENIZE_REGEX` of Qwen2Tokenizer.
const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|",
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// Parts of a tokenizer around its vocabulary, as `tokenizer.json` writes them.
struct Parts {
    normalizer: Value,
    pre_tokenizer: Value,
    decoder: Value,
}

/// The tokenizer that `class` makes of `file`; none if the model in it is not the one that the class knows.
pub(super) fn build(
    class: Rebuilt,
    file: &Tokenizer,
    config: &Value,
    declared: &Declared,
    unknown: Option<&str>,
) -> tokenizers::Result<Option<Tokenizer>> {
    let ModelWrapper::BPE(model) = file.get_model() else { return Ok(None) };
    let parts = parts(class, config);
    let mut tokenizer = Tokenizer::new(self::model(class, model, unknown));
    tokenizer.with_normalizer(serde_json::from_value::<Option<NormalizerWrapper>>(parts.normalizer)?)?;
    tokenizer.with_pre_tokenizer(Some(serde_json::from_value::<PreTokenizerWrapper>(parts.pre_tokenizer)?));
    tokenizer.with_decoder(Some(serde_json::from_value::<DecoderWrapper>(parts.decoder)?));
    declared.add_to(&mut tokenizer)?;
    // The class for GPT-NeoX makes its own, which adds nothing.
    let post_processor = file.get_post_processor().filter(|_| class != Rebuilt::GptNeoX);
    tokenizer.with_post_processor(post_processor.cloned());
    if class == Rebuilt::Qwen2 {
        tokenizer.add_tokens(declared.special().map(|text| AddedToken::from(text, true)))?;
    }
    Ok(Some(tokenizer))
}

/// The file's vocabulary and merges under the class' rules; `unknown` is the token for what the vocabulary lacks.
fn model(class: Rebuilt, file: &BPE, unknown: Option<&str>) -> BPE {
    let mut model = file.clone();
    let is_spm = matches!(class, Rebuilt::Gemma | Rebuilt::Llama);
    model.dropout = None;
    model.ignore_merges = false;
    model.byte_fallback = is_spm;
    model.fuse_unk = is_spm;
    model.unk_token = unknown.filter(|_| class == Rebuilt::Gemma).map(str::to_owned);
    model
}

fn parts(class: Rebuilt, config: &Value) -> Parts {
    let prefix = config["add_prefix_space"].as_bool();
    let byte_level = |prefix: bool, regex: bool| json!({ "type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": true, "use_regex": regex });
    let decoder = byte_level(true, true);
    let nfc = json!({ "type": "NFC" });
    match class {
        Rebuilt::Cohere => {
            let prefix = prefix.unwrap_or(false);
            let both = [json!({ "type": "Digits", "individual_digits": true }), byte_level(prefix, true)];
            Parts {
                normalizer: nfc,
                pre_tokenizer: json!({ "type": "Sequence", "pretokenizers": both }),
                decoder: byte_level(prefix, true),
            }
        }
        Rebuilt::Gpt2 => {
            Parts { normalizer: Value::Null, pre_tokenizer: byte_level(prefix.unwrap_or(false), true), decoder }
        }
        Rebuilt::GptNeoX => {
            Parts { normalizer: nfc, pre_tokenizer: byte_level(prefix.unwrap_or(false), true), decoder }
        }
        Rebuilt::Qwen2 => {
            let split = json!({
                "type": "Split", "pattern": { "Regex": QWEN2 }, "behavior": "Isolated", "invert": false,
            });
            let both = [split, byte_level(prefix.unwrap_or(false), false)];
            Parts { normalizer: nfc, pre_tokenizer: json!({ "type": "Sequence", "pretokenizers": both }), decoder }
        }
        Rebuilt::Llama => llama(prefix.unwrap_or(true), config["legacy"].as_bool().unwrap_or(false)),
        Rebuilt::Gemma => Parts {
            normalizer: json!({ "type": "Replace", "pattern": { "String": " " }, "content": "▁" }),
            pre_tokenizer: json!({
                "type": "Split", "pattern": { "String": " " }, "behavior": "MergedWithPrevious", "invert": false,
            }),
            decoder: json!({ "type": "Sequence", "decoders": spaces_and_bytes() }),
        },
    }
}

fn llama(prefix: bool, legacy: bool) -> Parts {
    let scheme = match (prefix, legacy) {
        (false, _) => "never",
        (true, true) => "always",
        (true, false) => "first",
    };
    let mut decoders = spaces_and_bytes();
    if prefix {
        decoders.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
    }
    Parts {
        normalizer: Value::Null,
        pre_tokenizer: json!({
            "type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": false,
        }),
        decoder: json!({ "type": "Sequence", "decoders": decoders }),
    }
}

fn spaces_and_bytes() -> Vec<Value> {
    vec![
        json!({ "type": "Replace", "pattern": { "String": "▁" }, "content": " " }),
        json!({ "type": "ByteFallback" }),
        json!({ "type": "Fuse" }),
    ]
}
