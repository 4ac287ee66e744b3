//! Requests about a server itself, not for responses: its software, its models, new weights.
//!
//! vLLM (vllm/entrypoints/openai/models/serving.py and serve/lora/api_router.py): `POST /v1/load_lora_adapter` and
//! `/v1/unload_lora_adapter` with `lora_name` and `lora_path`, status 404 without VLLM_ALLOW_RUNTIME_LORA_UPDATING; requests name the
//! adapter as the model. SGLang (python/sglang/srt/entrypoints/http_server.py): the same beside `/v1`, and `POST
//! /update_weights_from_disk` with `model_path`, status 400 and `message` or `error_message` on failure; requests name the adapter
//! as `model:adapter`. vLLM has no request that reads a whole model from a folder.

use serde_json::{Value, json};
use simplemix_files::secret::without_secrets;

use super::client::ServerClient;
use super::lenient::json_of;
use super::settings::ServerSettings;
use super::weights::{Software, WeightsSettings};
use crate::error::{Error, Result};

/// Further attempts of a request about the server: new weights that did not come the first time may be there the second.
const RETRIES: u32 = 2;

/// A server as its administrator sees it.
#[derive(Debug)]
pub(super) struct Admin {
    client: ServerClient,
    software: Software,
}

/// A model that a server lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) name: String,
    /// Whether it is an adapter of another one.
    pub(super) is_adapter: bool,
    owner: Option<String>,
}

impl Admin {
    /// A client with the time limit of loading. Nothing is sent.
    pub(super) fn new(server: &ServerSettings, weights: &WeightsSettings) -> Result<Self> {
        let settings = ServerSettings {
            timeout_secs: weights.timeout_secs,
            retries: server.retries.min(RETRIES),
            ..server.clone()
        };
        Ok(Self { client: ServerClient::nameless(settings)?, software: weights.software })
    }

    /// Address of the server, without secrets.
    pub(super) fn url(&self) -> String {
        self.client.address().shown()
    }

    /// Models that the server lists.
    pub(super) fn models(&self, stopped: &dyn Fn() -> bool) -> Result<Vec<Listed>> {
        let text = self.client.plain(&self.client.address().of("models"), None, stopped)?;
        listed(&text)
            .ok_or_else(|| self.failure("sends no list of models".to_owned(), "`/v1/models` with `data`".to_owned()))
    }

    /// Whether a resource beside the interface is there.
    fn has(&self, name: &str, stopped: &dyn Fn() -> bool) -> Result<bool> {
        match self.client.plain(&self.client.address().beside(name), None, stopped) {
            Ok(_) => Ok(true),
            Err(Error::Server { status: Some(_), .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether the server says that it can work: `/health`, where it has that.
    pub(super) fn is_healthy(&self, stopped: &dyn Fn() -> bool) -> Result<bool> {
        match self.client.plain(&self.client.address().beside("health"), None, stopped) {
            Ok(_) | Err(Error::Server { status: Some(404 | 405), .. }) => Ok(true),
            Err(Error::Server { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Software of the server: as the settings say, or by what it says itself.
    pub(super) fn software(&self, models: &[Listed], stopped: &dyn Fn() -> bool) -> Result<Software> {
        if self.software != Software::Auto {
            return Ok(self.software);
        }
        match models.iter().find_map(|model| model.owner.as_deref()) {
            Some("vllm") => return Ok(Software::Vllm),
            Some("sglang") => return Ok(Software::Sglang),
            _ => {}
        }
        // SGLang renamed its request; of other servers vLLM alone has `/version`.
        if self.has("get_model_info", stopped)? || self.has("model_info", stopped)? {
            return Ok(Software::Sglang);
        }
        if self.has("version", stopped)? {
            return Ok(Software::Vllm);
        }
        let expected = "vLLM or SGLang, told by `owned_by` in `/v1/models`, `/version` or `/get_model_info`; name it in `weights.software`, \
                        or use `by = \"command\"` or `\"serve\"`";
        Err(self.failure("does not say what software it is".to_owned(), expected.to_owned()))
    }

    /// Has the server load the adapter in a folder under a name of its own. One that is there under this name already is the same.
    pub(super) fn load_adapter(
        &self,
        software: Software,
        name: &str,
        folder: &str,
        stopped: &dyn Fn() -> bool,
    ) -> Result<()> {
        let body = json!({ "lora_name": name, "lora_path": folder });
        match self.client.plain(&self.adapters(software, "load"), Some(&body), stopped) {
            Ok(text) => self.accepted(&text, "load the adapter", &advice(software)),
            Err(Error::Server { status: Some(400), found, .. }) if is_loaded(&found) => Ok(()),
            Err(error) => Err(self.refused(error, "load_lora_adapter", &advice(software))),
        }
    }

    /// Has the server forget an adapter. One that it does not have is forgotten.
    pub(super) fn unload_adapter(&self, software: Software, name: &str, stopped: &dyn Fn() -> bool) -> Result<()> {
        let body = json!({ "lora_name": name });
        match self.client.plain(&self.adapters(software, "unload"), Some(&body), stopped) {
            Ok(text) => self.accepted(&text, "unload the adapter", "an adapter that is there"),
            Err(Error::Server { status: Some(400 | 404), .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Has SGLang read a whole model from its folder.
    pub(super) fn update_from_disk(&self, software: Software, folder: &str, stopped: &dyn Fn() -> bool) -> Result<()> {
        if software != Software::Sglang {
            let found =
                "\"disk\", and the server is vLLM, which has no request that reads a model from a folder".to_owned();
            let expected = "\"serve\" or \"command\", or for a LoRA run \"lora\"";
            return Err(Error::Setting { key: "weights.by", found, expected });
        }
        const FOLDER: &str = "a server that can read the model's folder, of a model of the same shape";
        // The cache of prefixes is the old weights'.
        let body = json!({ "model_path": folder, "flush_cache": true });
        let url = self.client.address().beside("update_weights_from_disk");
        match self.client.plain(&url, Some(&body), stopped) {
            Ok(text) => self.accepted(&text, "read the model", FOLDER),
            Err(error) => Err(self.refused(error, "update_weights_from_disk", FOLDER)),
        }
    }

    fn adapters(&self, software: Software, verb: &str) -> String {
        let name = format!("{verb}_lora_adapter");
        if software == Software::Sglang { self.client.address().beside(&name) } else { self.client.address().of(&name) }
    }

    /// Checks what SGLang says in a reply of status 200.
    fn accepted(&self, text: &str, what: &str, expected: &str) -> Result<()> {
        let json = json_of(text.as_bytes()).unwrap_or_default();
        if json["success"].as_bool() != Some(false) {
            return Ok(());
        }
        let message = json["error_message"].as_str().or(json["message"].as_str()).unwrap_or("no reason given");
        let found = format!("did not {what}: {}", without_secrets(message));
        Err(self.failure(found, expected.to_owned()))
    }

    /// A refusal as one about the weights.
    fn refused(&self, error: Error, request: &str, expected: &str) -> Error {
        match error {
            Error::Server { status: Some(404 | 405), .. } => {
                self.failure(format!("has no request `{request}` (status 404)"), expected.to_owned())
            }
            Error::Server { status: Some(status), found, .. } if status < 500 => {
                self.failure(format!("refuses `{request}`: {found}"), expected.to_owned())
            }
            Error::Server { found, attempts, .. } => {
                let times = if attempts > 1 { format!(" ({attempts} attempts)") } else { String::new() };
                self.failure(format!("`{request}` failed: {found}{times}"), expected.to_owned())
            }
            error => error,
        }
    }

    pub(super) fn failure(&self, found: String, expected: String) -> Error {
        Error::Weights { url: self.url(), found, expected }
    }
}

/// Whether a refusal says that the adapter's name is taken: by vLLM `has already been loaded`, by SGLang `already loaded` or `already
/// exists`.
fn is_loaded(found: &str) -> bool {
    found.contains("already been loaded") || found.contains("already loaded") || found.contains("already exists")
}

/// Ways to make adapters possible.
fn advice(software: Software) -> String {
    match software {
        Software::Sglang => "a server started with `--enable-lora`, and with `--max-lora-rank` and `--lora-target-modules` that fit, \
                             which can read the adapter's folder"
            .to_owned(),
        _ => "a server started with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, `--enable-lora` and a `--max-lora-rank` that fits, which \
              can read the adapter's folder"
            .to_owned(),
    }
}

/// Models in the body of `/v1/models`.
fn listed(text: &str) -> Option<Vec<Listed>> {
    let json = json_of(text.as_bytes()).ok()?;
    let model = |model: &Value| {
        Some(Listed {
            name: without_secrets(model["id"].as_str()?).into_owned(),
            is_adapter: model["parent"].is_string(),
            owner: model["owned_by"].as_str().map(str::to_ascii_lowercase),
        })
    };
    Some(json["data"].as_array()?.iter().filter_map(model).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_models_are_read() {
        let text = r#"{"object": "list", "data": [{"id": "base", "owned_by": "vllm", "parent": null},
            {"id": "train-1-0a", "owned_by": "vllm", "parent": "base"}, {"object": "model"}]}"#;
        let models = listed(text).unwrap();
        let found: Vec<(&str, bool)> = models.iter().map(|model| (model.name.as_str(), model.is_adapter)).collect();
        assert_eq!(found, [("base", false), ("train-1-0a", true)]);
        assert!(listed("{}").is_none() && listed("<html>").is_none());
    }

    #[test]
    fn a_name_that_is_taken_is_known_in_both_servers_words() {
        assert!(is_loaded(
            "The lora adapter 'a' has already been loaded. If you want to load the adapter in place, set"
        ));
        assert!(is_loaded("Failed to load LoRA adapter a: LoRA adapter with name a already exists."));
        assert!(!is_loaded("No adapter found for /a"));
    }
}
