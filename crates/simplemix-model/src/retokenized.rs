//! A copy of a model's tokenizer files with another chat template or end-of-sequence token, to save a trained model with.

use std::path::Path;

use serde_json::{Value, json};

use crate::error::{At, Error, Result};
use crate::folder::COMPANIONS;

/// Changes to the tokenizer files of a model.
#[derive(Debug, Clone, Copy, Default)]
pub struct TokenizerChanges<'a> {
    /// Text of the chat template.
    pub chat_template: Option<&'a str>,
    /// End-of-sequence token and its id.
    pub eos_token: Option<(&'a str, u32)>,
}

impl TokenizerChanges<'_> {
    /// Copies configuration and tokenizer files of the model folder `from` into `to`, which exists, and changes them. As in TRL, the
    /// end-of-sequence token comes before those that the generation configuration has.
    ///
    /// # Errors
    /// [`Error::Io`] for a file that cannot be read, [`Error::Json`] for one that is damaged, [`Error::Files`] if `to` cannot be written.
    pub fn copy(&self, from: &Path, to: &Path) -> Result<()> {
        for name in COMPANIONS.iter().copied().chain(["config.json"]) {
            let path = from.join(name);
            if !path.is_file() || (name == TEMPLATE && self.chat_template.is_some()) {
                continue;
            }
            if !name.ends_with(".json") || name == "tokenizer.json" || name == "vocab.json" {
                let bytes = simplemix_files::read(&path).at(&path, "read")?;
                simplemix_files::write(to.join(name), bytes)?;
                continue;
            }
            let text = simplemix_files::read_to_string(&path).at(&path, "read")?;
            let mut value: Value =
                serde_json::from_str(&text).map_err(|source| Error::Json { path: path.clone(), source })?;
            self.change(name, &mut value);
            simplemix_files::write(to.join(name), format!("{value:#}\n"))?;
        }
        if let Some(template) = self.chat_template {
            simplemix_files::write(to.join(TEMPLATE), template)?;
        }
        if let Some((token, _)) = self.eos_token.filter(|_| !to.join(TOKENIZER_CONFIG).is_file()) {
            simplemix_files::write(to.join(TOKENIZER_CONFIG), format!("{:#}\n", json!({ "eos_token": token })))?;
        }
        Ok(())
    }

    fn change(&self, name: &str, value: &mut Value) {
        if let (Some(_), TOKENIZER_CONFIG, Some(keys)) = (self.chat_template, name, value.as_object_mut()) {
            keys.remove("chat_template");
        }
        let Some((token, id)) = self.eos_token else { return };
        match name {
            TOKENIZER_CONFIG | "special_tokens_map.json" => value["eos_token"] = token.into(),
            "config.json" => value["eos_token_id"] = id.into(),
            "generation_config.json" => value["eos_token_id"] = with_first(id, &value["eos_token_id"]),
            _ => {}
        }
    }
}

const TEMPLATE: &str = "chat_template.jinja";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// `id` before the ids that are there.
fn with_first(id: u32, there: &Value) -> Value {
    let ids = match there {
        Value::Array(ids) => ids.clone(),
        Value::Null => Vec::new(),
        one => vec![one.clone()],
    };
    match ids.contains(&id.into()) {
        true => there.clone(),
        false => std::iter::once(id.into()).chain(ids).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn template_and_end_of_sequence_are_changed_and_the_rest_is_copied() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        std::fs::create_dir(&from).unwrap();
        std::fs::create_dir(&to).unwrap();
        for (name, text) in [
            ("tokenizer.json", "{ \"as\":  \"it stands\" }"),
            ("tokenizer_config.json", "{\"eos_token\": {\"content\": \"a\"}, \"chat_template\": \"old\", \"x\": 1}"),
            ("config.json", "{\"eos_token_id\": 1, \"vocab_size\": 9}"),
            ("generation_config.json", "{\"eos_token_id\": [1, 2]}"),
            ("chat_template.jinja", "old"),
            ("model.safetensors", "weights"),
        ] {
            std::fs::write(from.join(name), text).unwrap();
        }
        TokenizerChanges { chat_template: Some("new"), eos_token: Some(("b", 3)) }.copy(&from, &to).unwrap();
        let read = |name: &str| std::fs::read_to_string(to.join(name)).unwrap();
        let json = |name: &str| serde_json::from_str::<Value>(&read(name)).unwrap();
        assert_eq!(
            (read("chat_template.jinja"), read("tokenizer.json")),
            ("new".to_owned(), "{ \"as\":  \"it stands\" }".to_owned())
        );
        assert_eq!(json("tokenizer_config.json"), json!({ "eos_token": "b", "x": 1 }));
        assert_eq!(json("config.json"), json!({ "eos_token_id": 3, "vocab_size": 9 }));
        assert_eq!(json("generation_config.json"), json!({ "eos_token_id": [3, 1, 2] }));
        assert!(!to.join("model.safetensors").exists());
    }

    #[test]
    fn an_id_that_is_there_stays_where_it_is() {
        assert_eq!(with_first(2, &json!([1, 2])), json!([1, 2]));
        assert_eq!(with_first(2, &json!(1)), json!([2, 1]));
        assert_eq!(with_first(2, &Value::Null), json!([2]));
    }
}
