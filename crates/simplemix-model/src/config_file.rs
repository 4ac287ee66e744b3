//! `config.json` of a model folder: read by the family that it names, and written.

use std::path::Path;

use serde_json::Value;
use tch::Kind;

use crate::config::{Keys, ModelConfig};
use crate::error::{At, Error, Result};
use crate::family;
use crate::not_a_model;

impl ModelConfig {
    /// Reads `config.json` of `folder`.
    ///
    /// # Errors
    /// [`Error::MissingFile`], [`Error::NotAModel`], [`Error::Io`] or [`Error::Json`] if the file cannot be read; [`Error::Config`] if a
    /// setting in it is not supported.
    pub fn from_folder(folder: &Path) -> Result<Self> {
        let path = folder.join("config.json");
        if !path.is_file() {
            not_a_model::check(folder)?;
            return Err(Error::MissingFile { folder: folder.to_owned(), file: "config.json" });
        }
        let text = simplemix_files::read_to_string(&path).at(&path, "read")?;
        Self::from_json(&text, &path)
    }

    /// Reads the text of a `config.json`; `path` is for messages only.
    ///
    /// # Errors
    /// [`Error::Json`] or [`Error::Config`].
    pub fn from_json(text: &str, path: &Path) -> Result<Self> {
        let map = serde_json::from_str(text).map_err(|source| not_json(text, path, source))?;
        let keys = Keys::new(&map, path, "");
        let mut config = family::read(&keys)?;
        config.check(&keys)?;
        config.json = Value::Object(map);
        Ok(config)
    }
}

/// Why a text is no JSON object, with the key of a number that only Python writes.
pub(crate) fn not_json(text: &str, path: &Path, source: serde_json::Error) -> Error {
    match simplemix_files::python_number(text) {
        Some((key, number)) => Error::Config {
            path: path.to_owned(),
            key,
            found: number.to_owned(),
            expected: "a finite number: Python writes this one, and it is not JSON; put a number there, or null"
                .to_owned(),
        },
        None => Error::Json { path: path.to_owned(), source },
    }
}

/// Text for a `config.json`: the source's own if it has one, so that unknown keys survive, with the weights' element type.
pub(crate) fn to_write(config: &ModelConfig, source: Option<&Path>, kind: Kind) -> Result<Value> {
    let dtype = match kind {
        Kind::Half => "float16",
        Kind::BFloat16 => "bfloat16",
        _ => "float32",
    };
    let mut config = match source.map(|s| s.join("config.json")).filter(|p| p.is_file()) {
        Some(path) => {
            let text = simplemix_files::read_to_string(&path).at(&path, "read")?;
            let mut written: Value = serde_json::from_str(&text).map_err(|source| Error::Json { path, source })?;
            // Decided by the weights where they contradict the file.
            if config.to_json()["tie_word_embeddings"] == false {
                written["tie_word_embeddings"] = false.into();
            }
            written
        }
        None => config.to_json(),
    };
    if config.get("torch_dtype").is_some() {
        config["torch_dtype"] = dtype.into();
    }
    config["dtype"] = dtype.into();
    Ok(config)
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
