//! `generation_config.json`: the processors of logits that a model's makers ask for.
//!
//! As in transformers, a folder without the file has them in its `config.json`, where old versions wrote them. How tokens are
//! drawn from the logits (temperature, top-k, top-p) is the caller's business and not read here.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{At, Error, Result};
use crate::processors::Processors;

/// Processors of logits that a model folder asks for.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct GenerationConfig {
    /// Processors that are followed.
    pub processors: Processors,
    /// Keys with values that change what transformers draws, and that are not followed, as `typical_p 0.9`.
    pub not_followed: Vec<String>,
}

/// Keys that are not followed, with the values at which they change nothing; null is one for all.
const NOT_FOLLOWED: [(&str, &str); 20] = [
    ("typical_p", "1.0"),
    ("epsilon_cutoff", "0.0"),
    ("eta_cutoff", "0.0"),
    ("top_h", "null"),
    ("guidance_scale", "1.0"),
    ("sequence_bias", "null"),
    ("exponential_decay_length_penalty", "null"),
    ("forced_bos_token_id", "null"),
    ("forced_eos_token_id", "null"),
    ("encoder_repetition_penalty", "1.0"),
    ("encoder_no_repeat_ngram_size", "0"),
    ("num_beams", "1"),
    ("penalty_alpha", "0.0"),
    ("dola_layers", "null"),
    ("watermarking_config", "null"),
    ("stop_strings", "[]"),
    ("token_healing", "false"),
    ("max_time", "null"),
    ("constraints", "null"),
    ("force_words_ids", "null"),
];

impl GenerationConfig {
    /// Reads `generation_config.json` of a model folder, or else its `config.json`; without both, nothing is asked for.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Json`] for a file that cannot be read; [`Error::Config`] for a value of the wrong kind.
    pub fn read(folder: &Path) -> Result<Self> {
        let path =
            ["generation_config.json", "config.json"].map(|name| folder.join(name)).into_iter().find(|p| p.is_file());
        let Some(path) = path else { return Ok(Self::default()) };
        let text = simplemix_files::read_to_string(&path).at(&path, "read")?;
        let json: Value = serde_json::from_str(&text).map_err(|source| Error::Json { path: path.clone(), source })?;
        Keys { path, json }.config()
    }
}

/// The keys of a file.
struct Keys {
    path: PathBuf,
    json: Value,
}

impl Keys {
    fn config(&self) -> Result<GenerationConfig> {
        let processors = Processors {
            repetition_penalty: self.get("repetition_penalty", "a number above 0", penalty)?.unwrap_or(1.0),
            no_repeat_ngram_size: self.size("no_repeat_ngram_size")?,
            bad_words: self.get("bad_words_ids", "lists of token ids", words)?.unwrap_or_default(),
            suppress_tokens: self.tokens("suppress_tokens")?,
            begin_suppress_tokens: self.tokens("begin_suppress_tokens")?,
            min_new_tokens: self.size("min_new_tokens")?,
            min_length: self.size("min_length")?,
        };
        let is_neutral = |value: &Value, neutral: &str| {
            value.is_null() || serde_json::from_str::<Value>(neutral).is_ok_and(|neutral| same(value, &neutral))
        };
        let not_followed = NOT_FOLLOWED.iter().filter(|(key, neutral)| !is_neutral(&self.json[*key], neutral));
        let not_followed = not_followed.map(|(key, _)| format!("{key} {}", self.json[*key])).collect();
        Ok(GenerationConfig { processors, not_followed })
    }

    /// The value of a key; `None` if it is absent or null.
    fn get<T>(&self, key: &str, expected: &str, read: fn(&Value) -> Option<T>) -> Result<Option<T>> {
        let value = &self.json[key];
        if value.is_null() {
            return Ok(None);
        }
        read(value).map(Some).ok_or_else(|| Error::Config {
            path: self.path.clone(),
            key: key.to_owned(),
            found: value.to_string(),
            expected: expected.to_owned(),
        })
    }

    fn size(&self, key: &str) -> Result<usize> {
        Ok(self.get(key, "a whole number from 0", size)?.unwrap_or(0))
    }

    fn tokens(&self, key: &str) -> Result<Vec<u32>> {
        Ok(self.get(key, "a list of token ids", tokens)?.unwrap_or_default())
    }
}

/// Whether two values are equal, numbers by their size.
fn same(a: &Value, b: &Value) -> bool {
    a == b || a.as_f64().is_some_and(|a| b.as_f64() == Some(a))
}

fn penalty(value: &Value) -> Option<f64> {
    value.as_f64().filter(|penalty| penalty.is_finite() && *penalty > 0.0)
}

fn size(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|size| usize::try_from(size).ok())
}

/// Token ids; those below 0, which some files have for none, name no token.
fn tokens(value: &Value) -> Option<Vec<u32>> {
    let ids: Vec<i64> = value.as_array()?.iter().map(Value::as_i64).collect::<Option<_>>()?;
    ids.into_iter().filter(|id| *id >= 0).map(|id| u32::try_from(id).ok()).collect()
}

fn words(value: &Value) -> Option<Vec<Vec<u32>>> {
    value.as_array()?.iter().map(tokens).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(name: &str, json: &Value) -> Result<GenerationConfig> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(name), json.to_string()).unwrap();
        GenerationConfig::read(dir.path())
    }

    #[test]
    fn what_changes_nothing_is_neutral() {
        let neutral = json!({
            "temperature": 0.7, "top_k": 20, "do_sample": true, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0,
            "suppress_tokens": [], "bad_words_ids": null, "typical_p": 1, "num_beams": 1, "forced_eos_token_id": null,
        });
        assert_eq!(read("generation_config.json", &neutral).unwrap(), GenerationConfig::default());
        assert_eq!(GenerationConfig::read(Path::new("/nowhere")).unwrap(), GenerationConfig::default());
    }

    #[test]
    fn processors_are_read_and_others_named() {
        let json = json!({
            "repetition_penalty": 1.05, "no_repeat_ngram_size": 3, "suppress_tokens": [5, -1], "bad_words_ids": [[1, 2]],
            "min_new_tokens": 2, "typical_p": 0.9, "forced_bos_token_id": 7,
        });
        for name in ["generation_config.json", "config.json"] {
            let config = read(name, &json).unwrap();
            assert_eq!((config.processors.repetition_penalty, config.processors.no_repeat_ngram_size), (1.05, 3));
            assert_eq!(
                (&config.processors.suppress_tokens[..], &config.processors.bad_words[..]),
                (&[5][..], &[vec![1, 2]][..])
            );
            assert_eq!((config.processors.min_new_tokens, config.processors.min_length), (2, 0));
            assert_eq!(config.not_followed, ["typical_p 0.9", "forced_bos_token_id 7"]);
        }
        let wrong = read("generation_config.json", &json!({ "suppress_tokens": "all" })).unwrap_err().to_string();
        assert!(wrong.contains("`suppress_tokens` is \"all\", expected a list of token ids"), "{wrong}");
    }
}
