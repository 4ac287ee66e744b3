//! Tokens that a folder declares beside `tokenizer.json`, added as transformers 5.24 adds them.
//!
//! They stand in `tokenizer_config.json` (`added_tokens_decoder`, `bos_token` and its kin, `extra_special_tokens`), else in
//! `special_tokens_map.json` and `added_tokens.json`. A token that the vocabulary lacks gets the next free id, whatever id it was
//! declared with.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use tokenizers::{AddedToken, Tokenizer};

use crate::template::SpecialTokens;

/// Names of special tokens, in transformers' order.
const NAMES: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// What the files of a folder say about tokens.
#[derive(Debug)]
pub(super) struct Declared {
    /// Tokens with ids.
    by_id: BTreeMap<u32, AddedToken>,
    /// Special tokens by name, in the order in which they are added.
    named: Vec<String>,
    /// Further special tokens.
    extra: Vec<String>,
}

/// Text of a token that is written as text or as an object.
fn text(token: &Value) -> Option<&str> {
    token.as_str().or_else(|| token["content"].as_str())
}

fn token(value: &Value, special: bool) -> Option<AddedToken> {
    let flag = |name: &str, default: bool| value[name].as_bool().unwrap_or(default);
    let special = flag("special", special);
    Some(
        AddedToken::from(text(value)?, special)
            .single_word(flag("single_word", false))
            .lstrip(flag("lstrip", false))
            .rstrip(flag("rstrip", false))
            .normalized(flag("normalized", !special)),
    )
}

impl Declared {
    /// From `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json`, each null if absent; `file` is the
    /// tokenizer of `tokenizer.json`, and `special` the tokens by name.
    pub(super) fn of(config: &Value, map: &Value, added: &Value, file: &Tokenizer, special: &SpecialTokens) -> Self {
        let mut named: Vec<String> = NAMES.iter().filter_map(|name| special.get(name).map(str::to_owned)).collect();
        let decoder = config["added_tokens_decoder"].as_object();
        let map = if decoder.is_some() { &Value::Null } else { map };
        let extra = extra(config, map);
        named.extend(of_the_model(config));
        let by_id = match decoder {
            Some(decoder) => of_decoder(decoder),
            None => {
                let is_special = |token: &str| named.iter().chain(&extra).any(|known| known == token);
                let mut by_id = of_encoder(added, is_special);
                by_id.extend(file.get_added_tokens_decoder());
                by_id
            }
        };
        Self { by_id, named, extra }
    }

    /// Adds the tokens that `tokenizer` lacks, or has with other properties.
    pub(super) fn add_to(&self, tokenizer: &mut Tokenizer) -> tokenizers::Result<()> {
        let present = tokenizer.get_added_tokens_decoder();
        let mut new: Vec<AddedToken> =
            self.by_id.values().filter(|token| !present.values().any(|known| known == *token)).cloned().collect();
        let known = |new: &[AddedToken], text: &str| present.values().chain(new).any(|token| token.content == text);
        for text in self.named.iter().chain(&self.extra) {
            if !known(&new, text) {
                new.push(AddedToken::from(text.as_str(), true));
            }
        }
        for token in &mut new {
            token.special |= self.named.contains(&token.content);
        }
        tokenizer.add_tokens(new).map(drop)
    }

    /// Special tokens, by name and further ones.
    pub(super) fn special(&self) -> impl Iterator<Item = &str> {
        self.named.iter().chain(&self.extra).map(String::as_str)
    }

    /// Tokens whose id in `tokenizer` is another than the declared one: text, declared id, id.
    pub(super) fn moved<'a>(&'a self, tokenizer: &'a Tokenizer) -> impl Iterator<Item = (&'a str, u32, u32)> {
        self.by_id.iter().filter_map(|(declared, token)| {
            let id = tokenizer.token_to_id(&token.content)?;
            (id != *declared).then_some((token.content.as_str(), *declared, id))
        })
    }
}

fn of_decoder(decoder: &Map<String, Value>) -> BTreeMap<u32, AddedToken> {
    decoder.iter().filter_map(|(id, value)| Some((id.parse().ok()?, token(value, false)?))).collect()
}

fn of_encoder(added: &Value, is_special: impl Fn(&str) -> bool) -> BTreeMap<u32, AddedToken> {
    let all = added.as_object().into_iter().flatten();
    let token = |(text, id): (&String, &Value)| {
        let id = id.as_u64().and_then(|id| u32::try_from(id).ok())?;
        Some((id, AddedToken::from(text.as_str(), is_special(text))))
    };
    all.filter_map(token).collect()
}

/// Lists of further special tokens.
fn extra(config: &Value, map: &Value) -> Vec<String> {
    let keys = ["extra_special_tokens", "additional_special_tokens"];
    let lists = [config, map].into_iter().flat_map(|file| keys.map(|key| file[key].as_array()));
    let first = lists.flatten().find(|list| !list.is_empty());
    first.into_iter().flatten().filter_map(text).map(str::to_owned).collect()
}

/// Tokens under names of the model's own, such as `image_token`, and those of a table of extra tokens.
fn of_the_model(config: &Value) -> impl Iterator<Item = String> {
    let own = config.as_object().into_iter().flatten();
    let own = own.filter(|(key, _)| key.ends_with("_token") && !NAMES.contains(&key.as_str()));
    let table = config["extra_special_tokens"].as_object().into_iter().flatten();
    own.chain(table).filter_map(|(_, value)| text(value).map(str::to_owned))
}
