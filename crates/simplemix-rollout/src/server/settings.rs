//! Where a server is, and how it is asked.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// A server and the manners to ask it with. Only address, model, endpoint, `logps` and `extra` count for what it answers;
/// the rest may differ when a run goes on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerSettings {
    /// Address, such as `http://localhost:8000/v1`; a bare host gets `/v1`.
    pub url: String,
    /// Model to ask for; the only one that the server has if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Name for the `generator` column; the model's if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Environment variable with the key. Without the variable no key is sent.
    #[serde(default = "api_key_env")]
    pub api_key_env: String,
    /// Which interface.
    #[serde(default)]
    pub endpoint: Endpoint,
    /// Requests under way at once.
    #[serde(default = "concurrency")]
    pub concurrency: usize,
    /// Seconds after which a request is given up and tried again.
    #[serde(default = "timeout_secs")]
    pub timeout_secs: f64,
    /// Times that a request is tried again.
    #[serde(default = "retries")]
    pub retries: u32,
    /// Longest wait before a request is tried again, whatever the server asks for.
    #[serde(default = "max_wait_secs")]
    pub max_wait_secs: f64,
    /// What happens when the server refuses a prompt.
    #[serde(default)]
    pub on_refused: OnRefused,
    /// Ask for log-probabilities of answers.
    #[serde(default = "yes")]
    pub logps: bool,
    /// Bytes of an answer; longer ones are not read.
    #[serde(default = "max_reply_bytes")]
    pub max_reply_bytes: u64,
    /// Further fields of every request; null takes one out.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub extra: Map<String, Value>,
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

/// Which interface of a server is asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Endpoint {
    /// Chat for messages, completions for bare text.
    #[default]
    Auto,
    /// `chat/completions`; bare text becomes a turn of the user.
    Chat,
    /// `completions`, for bare text only: messages would need the model's template.
    Completions,
}

/// What happens when a server refuses a prompt for good (status 400, 413 or 422), such as one that is too long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnRefused {
    /// The run ends with the server's words.
    #[default]
    Stop,
    /// The prompt goes without an answer, and is counted.
    Skip,
}

impl ServerSettings {
    /// The server at `url` with everything else as usual.
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
            extra: Map::new(),
        }
    }

    /// # Errors
    /// [`Error::Setting`] naming the first setting out of range.
    pub fn check(&self) -> Result<()> {
        let refuse = |key, found: String, expected| Err(Error::Setting { key, found, expected });
        Address::new(&self.url)?;
        if !(1..=4096).contains(&self.concurrency) {
            return refuse("concurrency", self.concurrency.to_string(), "from 1 to 4096");
        }
        for (key, seconds) in [("timeout_secs", self.timeout_secs), ("max_wait_secs", self.max_wait_secs)] {
            if !(seconds > 0.0 && seconds <= 86_400.0) {
                return refuse(key, seconds.to_string(), "above 0 and at most a day");
            }
        }
        if self.max_reply_bytes == 0 {
            return refuse("max_reply_bytes", "0".to_owned(), "at least 1");
        }
        Ok(())
    }

    /// What answers depend on.
    pub(crate) fn fingerprint(&self, model: &str) -> String {
        let shown = Address::new(&self.url).map(|address| address.shown()).unwrap_or_default();
        let extra = serde_json::to_string(&self.extra).unwrap_or_default();
        format!("{shown} {model} {:?} {} {extra}", self.endpoint, self.logps)
    }
}

/// An address in its parts.
#[derive(Debug, Clone)]
pub(crate) struct Address {
    base: String,
    query: String,
}

impl Address {
    pub(crate) fn new(url: &str) -> Result<Self> {
        // What is wrong with an address may be a password in it, so it is not shown.
        let refuse = |found: &str, expected| Err(Error::Setting { key: "url", found: found.to_owned(), expected });
        let (rest, query) = url.split_once('?').map_or((url, ""), |(rest, query)| (rest, query));
        let Some((scheme, host)) = rest.split_once("://").filter(|(_, host)| !host.is_empty()) else {
            return refuse("without a scheme", "http://HOST or https://HOST, perhaps with a path");
        };
        if !["http", "https"].contains(&scheme) {
            return refuse(scheme, "http or https");
        }
        if host.split('/').next().is_some_and(|authority| authority.contains('@')) {
            return refuse("with a user or password", "an address without; a key goes into an environment variable");
        }
        let host = host.trim_end_matches('/');
        let path = if host.contains('/') { "" } else { "/v1" };
        Ok(Self { base: format!("{scheme}://{host}{path}"), query: query.to_owned() })
    }

    /// The address of `what`.
    pub(crate) fn of(&self, what: &str) -> String {
        let query = if self.query.is_empty() { String::new() } else { format!("?{}", self.query) };
        format!("{}/{what}{query}", self.base)
    }

    /// Without the query, which may hold a secret.
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
            assert_eq!(Address::new(url).unwrap().of("models"), expected);
        }
        for url in ["localhost:8000", "ftp://host", "http://", "http://me:secret@host/v1"] {
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
}
