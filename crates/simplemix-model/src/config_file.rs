//! `config.json` of a model folder: read by the family that it names, and written.

use std::path::Path;

use safetensors::tensor::Dtype;
use serde_json::Value;
use tch::Kind;

use crate::config::{Keys, ModelConfig, set_vocabulary};
use crate::error::{At, Error, Result};
use crate::family;
use crate::not_a_model;
use crate::rest::Rest;
use crate::safetensors_file::Layout;

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

/// Text for a `config.json`: the source's own if it has one, so that unknown keys survive, with the element type of the weights. That
/// of a multimodal model is the whole model's, as it was read.
pub(crate) fn to_write(config: &ModelConfig, source: Option<&Path>, kind: Kind, rest: &Rest) -> Result<Value> {
    let source = source.filter(|_| config.multimodal.is_none());
    let mut written = match source.map(|s| s.join("config.json")).filter(|p| p.is_file()) {
        Some(path) => {
            let text = simplemix_files::read_to_string(&path).at(&path, "read")?;
            let mut written: Value =
                serde_json::from_str(&text).map_err(|source| Error::Json { path: path.clone(), source })?;
            // Decided by the weights where they contradict the file.
            if config.to_json()["tie_word_embeddings"] == false {
                written["tie_word_embeddings"] = false.into();
            }
            if ModelConfig::from_json(&text, &path)?.vocab_size != config.vocab_size {
                set_vocabulary(&mut written, config.vocab_size);
            }
            written
        }
        None => config.to_json(),
    };
    // Weights are written in full.
    for part in ["", "/text_config"] {
        if let Some(Value::Object(part)) = written.pointer_mut(part) {
            part.remove("quantization_config");
        }
    }
    let dtype = dtype(kind, rest);
    set_dtype(&mut written, dtype);
    written["dtype"] = dtype.into();
    if let Some(part) = written.get_mut("text_config").filter(|_| config.multimodal.is_some()) {
        set_dtype(part, dtype);
    }
    Ok(written)
}

/// Word for the element type of the weights; the widest where there are several, since transformers makes all of them this one.
fn dtype(kind: Kind, rest: &Rest) -> &'static str {
    let (dtype, word) = match kind {
        Kind::Half => (Dtype::F16, "float16"),
        Kind::BFloat16 => (Dtype::BF16, "bfloat16"),
        _ => (Dtype::F32, "float32"),
    };
    let is_float = |found: &Dtype| matches!(found, Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16);
    let others = rest.tensors.iter().map(|(_, tensor)| tensor.dtype());
    if others.filter(is_float).all(|other| other == dtype) { word } else { "float32" }
}

/// Sets the keys of the element type that are there.
fn set_dtype(config: &mut Value, dtype: &str) {
    for key in ["torch_dtype", "dtype"] {
        if let Some(word) = config.get_mut(key) {
            *word = dtype.into();
        }
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
