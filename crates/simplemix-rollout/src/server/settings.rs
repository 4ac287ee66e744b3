//! Settings of a server.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use simplemix_files::secret::{self, HIDDEN, Secret, is_secret_name};

use super::key;
use crate::error::{Error, Result};
use crate::journal::json;

/// Settings of a server with the OpenAI interface. Responses depend on model, endpoint, `logps` and `extra`; the
/// other settings, also the address, may change when a run continues.
///
/// # Examples
/// ```
/// use simplemix_rollout::ServerSettings;
/// let settings = ServerSettings { concurrency: 8, ..ServerSettings::new("http://localhost:8000/v1") };
/// assert!(settings.check().is_ok());
/// ```
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerSettings {
    /// Address, such as `http://localhost:8000/v1`. `/v1` is added to a host without a path. None for a server that is started
    /// here.
    #[serde(default, serialize_with = "stored_url", skip_serializing_if = "String::is_empty")]
    pub url: String,
    /// Name of the model on the server; by default the only one there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Name for the `generator` column; by default the name of the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Environment variable with the API key. Without the variable no key is sent.
    #[serde(default = "api_key_env")]
    pub api_key_env: String,
    /// Interface to use.
    #[serde(default)]
    pub endpoint: Endpoint,
    /// Requests at the same time, from 1 to 4096.
    #[serde(default = "concurrency")]
    pub concurrency: usize,
    /// Time limit of a request in seconds, after which it is tried again.
    #[serde(default = "timeout_secs")]
    pub timeout_secs: f64,
    /// Number of further attempts after a request failed.
    #[serde(default = "retries")]
    pub retries: u32,
    /// Longest wait before another attempt in seconds, even if the server asks for more.
    #[serde(default = "max_wait_secs")]
    pub max_wait_secs: f64,
    /// Reaction to a prompt that the server refuses.
    #[serde(default)]
    pub on_refused: OnRefused,
    /// Whether to ask for log-probabilities.
    #[serde(default = "yes")]
    pub logps: bool,
    /// Largest reply in bytes; after a larger one the request is tried again.
    #[serde(default = "max_reply_bytes")]
    pub max_reply_bytes: u64,
    /// Folder of the model to be trained. When a collection starts, the server's token ids of a prompt are compared with those
    /// of this model's tokenizer and chat template; by default they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<PathBuf>,
    /// Further fields of every request; null removes a field.
    #[serde(default, skip_serializing_if = "Map::is_empty", serialize_with = "stored_fields")]
    pub extra: Map<String, Value>,
}

impl fmt::Debug for ServerSettings {
    /// The settings as they are stored, without secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerSettings({})", json(self))
    }
}

/// The address without credentials: settings are stored beside results.
fn stored_url<S: serde::Serializer>(url: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&secret::storable(url))
}

/// Fields of requests, with `[key]` in place of texts whose names say that they are secret.
fn stored_fields<S: serde::Serializer>(fields: &Map<String, Value>, serializer: S) -> Result<S::Ok, S::Error> {
    let mut fields = fields.clone();
    each_secret(&mut fields, &mut |text| *text = HIDDEN.to_owned());
    fields.serialize(serializer)
}

/// Calls `change` for the texts of secret fields, inside of objects too.
fn each_secret(fields: &mut Map<String, Value>, change: &mut dyn FnMut(&mut String)) {
    for (name, value) in fields {
        match value {
            Value::String(text) if is_secret_name(name) => change(text),
            Value::Object(inner) => each_secret(inner, change),
            _ => {}
        }
    }
}

fn api_key_env() -> String {
    "OPENAI_API_KEY".to_owned()
}

fn concurrency() -> usize {
    32
}

fn timeout_secs() -> f64 {
    600.0
}

fn retries() -> u32 {
    8
}

fn max_wait_secs() -> f64 {
    120.0
}

fn max_reply_bytes() -> u64 {
    16 << 20
}

fn yes() -> bool {
    true
}

/// Interface of a server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Endpoint {
    /// Chat for messages, completions for plain text.
    #[default]
    Auto,
    /// `chat/completions`; plain text becomes a user turn.
    Chat,
    /// `completions`, for plain text only: messages would need the model's chat template.
    Completions,
}

/// Reaction to a prompt that the server refuses with status 400, 413 or 422, such as one that is too long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnRefused {
    /// End the run with the server's message.
    #[default]
    Stop,
    /// Leave the prompt without a response, and count it.
    Skip,
}

impl ServerSettings {
    /// Defaults for the server at `url`.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            model: None,
            name: None,
            api_key_env: api_key_env(),
            endpoint: Endpoint::Auto,
            concurrency: concurrency(),
            timeout_secs: timeout_secs(),
            retries: retries(),
            max_wait_secs: max_wait_secs(),
            on_refused: OnRefused::Stop,
            logps: true,
            max_reply_bytes: max_reply_bytes(),
            tokenizer: None,
            extra: Map::new(),
        }
    }

    /// Checks that every setting is in range.
    ///
    /// # Errors
    /// [`Error::Setting`] with the first setting out of range.
    pub fn check(&self) -> Result<()> {
        let refuse = |key, found: String, expected| Err(Error::Setting { key, found, expected });
        Address::new(&self.url)?;
        key::check_name(&self.api_key_env)?;
        secret::remember_query(&self.url);
        each_secret(&mut self.extra.clone(), &mut |text| drop(Secret::new(text.clone())));
        if !(1..=4096).contains(&self.concurrency) {
            return refuse("concurrency", self.concurrency.to_string(), "a number from 1 to 4096");
        }
        for (key, seconds) in [("timeout_secs", self.timeout_secs), ("max_wait_secs", self.max_wait_secs)] {
            if !(seconds > 0.0 && seconds <= 86_400.0) {
                return refuse(key, seconds.to_string(), "a number of seconds > 0 and <= 86400");
            }
        }
        if self.max_reply_bytes == 0 {
            return refuse("max_reply_bytes", "0".to_owned(), "at least 1");
        }
        Ok(())
    }

    /// Everything that responses of `model` depend on. The address is left out, so that another server with the model can go on
    /// where one has failed.
    pub(crate) fn fingerprint(&self, model: &str) -> String {
        // Earlier versions left neutral settings to the server: their samples are others.
        format!("{model} {:?} {} {} all settings, any address", self.endpoint, self.logps, json(&self.extra))
    }
}

/// Address of a server, with its path and query apart.
#[derive(Clone)]
pub(crate) struct Address {
    base: String,
    query: String,
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base)
    }
}

impl Address {
    pub(crate) fn new(url: &str) -> Result<Self> {
        // An invalid address may contain a password, so it is not shown.
        let refuse = |found: &str, expected| Err(Error::Setting { key: "url", found: found.to_owned(), expected });
        let (rest, query) = url.split_once('?').map_or((url, ""), |(rest, query)| (rest, query));
        if url.is_empty() {
            return refuse("not set", "http://HOST or https://HOST, optionally with a path");
        }
        let Some((scheme, host)) = rest.split_once("://").filter(|(_, host)| !host.is_empty()) else {
            return refuse("without a scheme", "http://HOST or https://HOST, optionally with a path");
        };
        if !["http", "https"].contains(&scheme) {
            return refuse(scheme, "http or https");
        }
        if scheme == "https" && !cfg!(feature = "tls") {
            return refuse("https", "http: this build has no TLS; build it with `--features tls`");
        }
        // A password may hold what ends a host.
        if host.contains('@') {
            return refuse(
                "with a user or password",
                "an address without them; pass a key in the environment variable `api_key_env`",
            );
        }
        let host = host.trim_end_matches('/');
        let path = if host.contains('/') { "" } else { "/v1" };
        Ok(Self { base: format!("{scheme}://{host}{path}"), query: query.to_owned() })
    }

    /// Address of the resource `name`.
    pub(crate) fn of(&self, name: &str) -> String {
        let query = if self.query.is_empty() { String::new() } else { format!("?{}", self.query) };
        format!("{}/{name}{query}", self.base)
    }

    /// Address of a resource beside the interface's version: `http://host/tokenize` for `http://host/v1`.
    pub(crate) fn beside(&self, name: &str) -> String {
        let base =
            self.base.rsplit_once("/v1").filter(|(_, rest)| rest.is_empty()).map_or(&*self.base, |(base, _)| base);
        Self { base: base.to_owned(), ..self.clone() }.of(name)
    }

    /// Whether there is a query, which may contain a secret.
    pub(crate) fn has_query(&self) -> bool {
        !self.query.is_empty()
    }

    /// Address without the query, which may contain a secret.
    pub(crate) fn shown(&self) -> String {
        self.base.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_completed_and_checked() {
        for (url, expected) in [
            ("http://localhost:8000", "http://localhost:8000/v1/models"),
            ("http://localhost:8000/", "http://localhost:8000/v1/models"),
            ("https://host/openai/v1/", "https://host/openai/v1/models"),
            ("https://host/v1?api-version=2", "https://host/v1/models?api-version=2"),
        ] {
            match Address::new(url) {
                Err(error) if !cfg!(feature = "tls") => assert!(url.starts_with("https:"), "{error}"),
                address => assert_eq!(address.unwrap().of("models"), expected),
            }
        }
        let beside = |url: &str| Address::new(url).unwrap().beside("tokenize");
        assert_eq!(beside("http://host/v1?key=a"), "http://host/tokenize?key=a");
        assert_eq!(beside("http://host/openai"), "http://host/openai/tokenize");
        for url in ["localhost:8000", "ftp://host", "http://", "http://me:secret@host/v1", "http://me:se/cret@h"] {
            let message = Address::new(url).err().unwrap().to_string();
            assert!(message.starts_with("`url` is ") && !message.contains("secret"), "{message}");
        }
    }

    #[test]
    fn settings_are_read_with_defaults_and_unknown_keys_refused() {
        let settings: ServerSettings = serde_json::from_str(r#"{"url": "http://h"}"#).unwrap();
        assert_eq!(settings, ServerSettings::new("http://h"));
        assert!(serde_json::from_str::<ServerSettings>(r#"{"url": "http://h", "api_key": "x"}"#).is_err());
        assert!(ServerSettings { concurrency: 0, ..settings }.check().is_err());
    }

    #[test]
    fn keys_in_settings_are_neither_stored_nor_shown_again() {
        let settings: ServerSettings = serde_json::from_str(
            r#"{"url": "http://h/v1?api-key=in-query-0123", "extra": {"api_key": "in-field-0123", "max_tokens": 5,
                "auth": {"user_token": "in-object-0123"}}}"#,
        )
        .unwrap();
        settings.check().unwrap();
        let stored = json(&settings);
        assert!(
            stored.contains(r#""url":"http://h/v1?api-key=***""#) && stored.contains("\"max_tokens\":5"),
            "{stored}"
        );
        let said = secret::redacted("in-query-0123 in-field-0123 in-object-0123").into_owned();
        assert_eq!(said, "[key] [key] [key]");
        assert!(!stored.contains("0123"), "{stored}");
    }
}
