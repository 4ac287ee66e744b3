//! Finds the chat template and the special tokens of a model folder.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;
use simplemix_files::{is_lfs_pointer, python_number};

use crate::error::{Error, Result};

/// Texts of the special tokens by name: `bos_token`, `eos_token`, `unk_token`, `pad_token`, `sep_token`, `cls_token`,
/// `mask_token`; only those that the tokenizer defines.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct SpecialTokens(BTreeMap<String, String>);

const NAMES: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

impl SpecialTokens {
    /// The token `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Sets the token `name`.
    pub fn set(&mut self, name: impl Into<String>, token: impl Into<String>) {
        self.0.insert(name.into(), token.into());
    }

    /// Sets the token `name` unless it is set.
    pub(crate) fn set_default(&mut self, name: &str, token: &str) {
        self.0.entry(name.to_owned()).or_insert_with(|| token.to_owned());
    }

    fn of_json(config: &Value) -> Self {
        let token = |name: &&str| {
            let value = &config[*name];
            let text = value.as_str().or_else(|| value["content"].as_str())?;
            Some(((*name).to_owned(), text.to_owned()))
        };
        Self(NAMES.iter().filter_map(token).collect())
    }
}

/// Reads `tokenizer_config.json`, if there is one.
pub(crate) fn tokenizer_config(dir: &Path) -> Result<Option<Value>> {
    read_json(dir, "tokenizer_config.json")
}

/// Reads a JSON file of the folder, if it exists.
pub(crate) fn read_json(dir: &Path, file: &str) -> Result<Option<Value>> {
    let path = dir.join(file);
    let Some(text) = read_text(&path)? else { return Ok(None) };
    match serde_json::from_str(&text) {
        Ok(value) => Ok(Some(value)),
        Err(error) => Err(not_json(&path, &text, &error)),
    }
}

/// Why a file of a model folder is not JSON.
pub(crate) fn not_json(path: &Path, text: &str, error: &serde_json::Error) -> Error {
    let otherwise = || Error::ModelConfig { path: path.to_owned(), found: error.to_string(), expected: "JSON" };
    foreign(path, text).unwrap_or_else(otherwise)
}

/// The reason, where a file that should be JSON is something else that is known.
pub(crate) fn foreign(path: &Path, text: &str) -> Option<Error> {
    let (found, expected) = if is_lfs_pointer(path) {
        let found = "Git LFS's pointer to the file".to_owned();
        (found, "the file itself: fetch it with `git lfs pull`")
    } else if text.starts_with('\u{feff}') {
        ("a byte order mark".to_owned(), "JSON without one")
    } else {
        let (key, number) = python_number(text)?;
        let expected = "a finite number: Python writes this one, and it is not JSON; put a number there, or null";
        (format!("`{key}` is {number}"), expected)
    };
    Some(Error::ModelConfig { path: path.to_owned(), found, expected })
}

fn read_text(path: &Path) -> Result<Option<String>> {
    match simplemix_files::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(path, "read")(error)),
    }
}

/// Special tokens by name, from `tokenizer_config.json` and `special_tokens_map.json`, each null if absent. As in transformers, the
/// latter takes precedence unless the former lists the added tokens.
pub(crate) fn special_tokens(config: &Value, map: &Value) -> SpecialTokens {
    let lists_tokens = config["added_tokens_decoder"].is_object();
    let (first, second) = if lists_tokens { (config, map) } else { (map, config) };
    let mut tokens = SpecialTokens::of_json(second);
    tokens.0.extend(SpecialTokens::of_json(first).0);
    tokens
}

/// Name and text of the folder's template.
pub(crate) fn template_text(dir: &Path, config: Option<&Value>) -> Result<Option<(String, String)>> {
    let path = dir.join("chat_template.jinja");
    if let Some(text) = read_text(&path)? {
        return Ok(Some((path.display().to_string(), text)));
    }
    let path = dir.join("tokenizer_config.json");
    let name = path.display().to_string();
    match config.map(|config| &config["chat_template"]) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some((name, text.clone()))),
        Some(Value::Array(named)) => match named.iter().find(|entry| entry["name"] == "default") {
            Some(entry) if entry["template"].is_string() => {
                Ok(entry["template"].as_str().map(|text| (name, text.to_owned())))
            }
            _ => Err(Error::ModelConfig {
                path,
                found: "a list of chat templates without one called `default`".to_owned(),
                expected: "a template, or a list with `default`",
            }),
        },
        Some(_) => Err(Error::ModelConfig {
            path,
            found: "a chat template that is neither text nor a list".to_owned(),
            expected: "a template, or a list with `default`",
        }),
    }
}

/// Text of the template for conversations with tools, beside the default one: `additional_chat_templates/tool_use.jinja`, else
/// the one of this name in a list of `tokenizer_config.json`.
pub(crate) fn tool_use_text(dir: &Path, config: Option<&Value>) -> Result<Option<String>> {
    if let Some(text) = read_text(&dir.join("additional_chat_templates").join("tool_use.jinja"))? {
        return Ok(Some(text));
    }
    let named = config.and_then(|config| config["chat_template"].as_array());
    let found = named.into_iter().flatten().find(|entry| entry["name"] == "tool_use");
    Ok(found.and_then(|entry| entry["template"].as_str()).map(str::to_owned))
}
