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

/// Statements of a folder's files about tokens.
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
        let decoder = config["added_tokens_decoder"].as_object();
        let map = if decoder.is_some() { &Value::Null } else { map };
        let mut named: Vec<String> = NAMES.iter().filter_map(|name| special.get(name).map(str::to_owned)).collect();
        let Lists { extra, late } = Lists::of(config, map);
        let by_id = match decoder {
            Some(decoder) => of_decoder(decoder),
            None => {
                let is_special = |token: &str| named.iter().chain(extra.iter().flatten()).any(|known| known == token);
                let mut by_id = of_encoder(added, is_special);
                by_id.extend(file.get_added_tokens_decoder());
                by_id
            }
        };
        named.extend(of_the_model(config, map));
        Self { by_id, named, extra: extra.or(late).unwrap_or_default() }
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
struct Lists {
    /// Under `extra_special_tokens`.
    extra: Option<Vec<String>>,
    /// Under the older name, which transformers takes in the end if there is no other list.
    late: Option<Vec<String>>,
}

impl Lists {
    fn of(config: &Value, map: &Value) -> Self {
        const OLDER: &str = "additional_special_tokens";
        let list = |value: &Value| {
            let texts = value.as_array()?.iter().filter_map(text);
            Some(texts.map(str::to_owned).collect::<Vec<_>>())
        };
        let given = &config["extra_special_tokens"];
        let is_given = given.as_array().is_some_and(|list| !list.is_empty())
            || given.as_object().is_some_and(|table| !table.is_empty());
        let (mut extra, late) = match is_given {
            true => (list(given), list(&config[OLDER])),
            false => (list(&config[OLDER]).or(list(given)), None),
        };
        if let Some(more) = list(&map["extra_special_tokens"]) {
            let known = extra.get_or_insert_default();
            more.into_iter().for_each(|token| {
                if !known.contains(&token) {
                    known.push(token);
                }
            });
        }
        Self { extra, late: list(&map[OLDER]).or(late) }
    }
}

/// Tokens under names of the model's own, such as `image_token`, and those of a table of extra tokens.
fn of_the_model(config: &Value, map: &Value) -> Vec<String> {
    let own = [config, map].into_iter().filter_map(Value::as_object).flatten();
    let own = own.filter(|(key, _)| key.ends_with("_token") && !NAMES.contains(&key.as_str()));
    let tables = [config, map].into_iter().filter_map(|file| file["extra_special_tokens"].as_object()).flatten();
    own.chain(tables).filter_map(|(_, value)| text(value).map(str::to_owned)).collect()
}
