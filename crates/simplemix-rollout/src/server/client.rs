//! One request to a server, retried where that helps.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Map, Value, json};
use simplemix_data::{TemplateInputs, Text};
use ureq::Agent;
use ureq::http::Response;

use super::key::Key;
use super::reply::{Reply, parse};
use super::settings::{Address, Endpoint, ServerSettings};
use super::waiting::{Advice, Gate, backoff, sleep};
use crate::error::{Error, Result};

/// Parameters of a request. Fields that are `None` are left to the server.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Ask {
    /// Longest response, in tokens.
    pub max_tokens: Option<usize>,
    /// Divisor of the logits.
    pub temperature: Option<f64>,
    /// Share of the probability to draw from.
    pub top_p: Option<f64>,
    /// Number of most likely tokens to draw from. Not part of the OpenAI interface; vLLM, SGLang and llama.cpp have it.
    pub top_k: Option<usize>,
    /// Smallest probability to draw from, relative to the most likely token. Supported by the same servers as `top_k`.
    pub min_p: Option<f64>,
    /// Random seed.
    pub seed: Option<u64>,
    /// Texts that end the response.
    pub stop: Vec<String>,
    /// Whether to return the log-probabilities of the tokens.
    pub logprobs: bool,
    /// Number of most likely tokens to return for each position. Chat only, and only with `logprobs`.
    pub top_logprobs: usize,
    /// Tools, documents and arguments for the chat template of the server; for chat only.
    pub inputs: TemplateInputs,
}

/// Client of a server. Threads can share it, and then respect the server's rate limits together.
///
/// # Examples
/// ```no_run
/// use simplemix_data::{Message, Text};
/// use simplemix_rollout::{Ask, ServerClient, ServerSettings};
/// let mut settings = ServerSettings::new("http://localhost:8000/v1");
/// settings.model = Some("a-model".to_owned());
/// let client = ServerClient::new(settings)?;
/// let prompt = Text::Messages(vec![Message::user("Yes or no?")]);
/// let ask = Ask { max_tokens: Some(1), temperature: Some(0.0), logprobs: true, top_logprobs: 5, ..Ask::default() };
/// let reply = client.ask(&prompt, &ask, &|| false)?;
/// println!("{} {:?}", reply.text, reply.logps);
/// # Ok::<(), simplemix_rollout::Error>(())
/// ```
#[derive(Debug)]
pub struct ServerClient {
    settings: ServerSettings,
    address: Address,
    agent: Agent,
    key: Option<Key>,
    model: String,
    gate: Gate,
    /// Requests so far. Waiting times depend on the number of the request.
    requests: AtomicU64,
}

impl ServerClient {
    /// Reads the API key from its environment variable and, if the settings name no model, asks the server for its only one.
    ///
    /// # Errors
    /// [`Error::Setting`] with the first setting out of range or with an invalid key, [`Error::Server`] if the server cannot
    /// be asked for its model.
    pub fn new(settings: ServerSettings) -> Result<Self> {
        settings.check()?;
        let key = Key::from_env(&settings.api_key_env)?;
        let agent = Agent::config_builder()
            // The status is handled here. Redirects are not followed, so that the key goes only to the given address.
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_global(Some(Duration::from_secs_f64(settings.timeout_secs)))
            .max_idle_connections(settings.concurrency)
            .max_idle_connections_per_host(settings.concurrency)
            .user_agent(concat!("simplemix/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        let address = Address::new(&settings.url)?;
        let (gate, requests) = (Gate::default(), AtomicU64::new(0));
        let named = settings.model.clone();
        let mut client = Self { settings, address, agent, key, model: String::new(), gate, requests };
        client.model = named.map_or_else(|| client.only_model(), Ok)?;
        Ok(client)
    }

    /// Name of the model on the server.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Settings of the client.
    pub fn settings(&self) -> &ServerSettings {
        &self.settings
    }

    /// Everything that responses depend on beside prompts and parameters.
    pub(crate) fn fingerprint(&self) -> String {
        self.settings.fingerprint(&self.address, &self.model)
    }

    /// Asks for one response to `prompt`. Retries with growing waits while the server fails, refuses for lack of capacity,
    /// or sends a reply that cannot be read.
    ///
    /// # Errors
    /// [`Error::Server`] with the last failure, [`Error::Setting`] for messages if the endpoint is `completions`,
    /// [`Error::Interrupted`] if `stopped` returns true during a wait.
    pub fn ask(&self, prompt: &Text, ask: &Ask, stopped: &dyn Fn() -> bool) -> Result<Reply> {
        let (chat, body) = self.body(prompt, ask)?;
        let url = self.address.of(if chat { "chat/completions" } else { "completions" });
        self.retry(stopped, &|| self.once(self.request(&url, Some(&body)), &|body| parse(body, chat)))
    }

    fn body(&self, prompt: &Text, ask: &Ask) -> Result<(bool, String)> {
        let chat = match (self.settings.endpoint, prompt) {
            (Endpoint::Auto, Text::Plain(_)) | (Endpoint::Completions, Text::Plain(_)) => false,
            (Endpoint::Auto | Endpoint::Chat, _) => true,
            (Endpoint::Completions, Text::Messages(_)) => {
                let found = "completions, for a prompt of messages".to_owned();
                return Err(Error::Setting { key: "endpoint", found, expected: "chat, or prompts of plain text" });
            }
        };
        let mut body = Map::new();
        body.insert("model".into(), self.model.as_str().into());
        match prompt {
            Text::Plain(text) if chat => {
                body.insert("messages".into(), json!([{ "role": "user", "content": text }]));
            }
            Text::Plain(text) => {
                body.insert("prompt".into(), text.as_str().into());
            }
            Text::Messages(turns) => {
                body.insert("messages".into(), json!(turns));
            }
        }
        if chat && let Value::Object(inputs) = json!(ask.inputs) {
            // `tools` is OpenAI's; vLLM and SGLang know the other two.
            body.extend(inputs);
        }
        let fields: [(&str, Option<Value>); 6] = [
            ("max_tokens", ask.max_tokens.map(Value::from)),
            ("temperature", ask.temperature.map(Value::from)),
            ("top_p", ask.top_p.map(Value::from)),
            ("top_k", ask.top_k.map(Value::from)),
            ("min_p", ask.min_p.map(Value::from)),
            ("seed", ask.seed.map(Value::from)),
        ];
        body.extend(fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
        if !ask.stop.is_empty() {
            body.insert("stop".into(), json!(ask.stop));
        }
        if ask.logprobs {
            // For completions the field is the number of most likely tokens to return.
            body.insert("logprobs".into(), if chat { true.into() } else { ask.top_logprobs.max(1).into() });
            if chat && ask.top_logprobs > 0 {
                body.insert("top_logprobs".into(), ask.top_logprobs.into());
            }
        }
        for (name, value) in &self.settings.extra {
            match value {
                Value::Null => drop(body.remove(name)),
                // Settings for all prompts take precedence over those of a row, argument by argument.
                Value::Object(all) if body.get(name).is_some_and(Value::is_object) => {
                    body[name].as_object_mut().into_iter().for_each(|of_row| of_row.extend(all.clone()));
                }
                value => drop(body.insert(name.clone(), value.clone())),
            }
        }
        Ok((chat, Value::Object(body).to_string()))
    }

    fn only_model(&self) -> Result<String> {
        let url = self.address.of("models");
        let names = self.retry(&|| false, &|| self.once(self.request(&url, None), &models))?;
        match names.as_slice() {
            [name] => Ok(name.clone()),
            names => {
                let found =
                    if names.is_empty() { "no model".to_owned() } else { format!("the models {}", names.join(", ")) };
                Err(self.error(None, format!("has {found}; name the model to use in `model`"), 1))
            }
        }
    }

    /// Calls `once` until it succeeds or another attempt cannot help.
    fn retry<T>(&self, stopped: &dyn Fn() -> bool, once: &dyn Fn() -> Result<T, Failed>) -> Result<T> {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let most = Duration::from_secs_f64(self.settings.max_wait_secs);
        let mut attempt = 1;
        loop {
            if !self.gate.pass(stopped) {
                return Err(Error::Interrupted);
            }
            let failed = match once() {
                Ok(value) => return Ok(value),
                Err(failed) => failed,
            };
            if !failed.is_transient || attempt > self.settings.retries {
                return Err(self.error(failed.status, failed.found, attempt));
            }
            let wait = failed.advice.retry_after.map_or_else(|| backoff(number, attempt, most), |wait| wait.min(most));
            let (url, found, retries) = (self.address.shown(), self.clean(&failed.found), self.settings.retries);
            match attempt {
                // Lasting trouble is worth a warning, a single failure is not.
                3 => tracing::warn!("{url}: {found}; retrying up to {retries} times"),
                _ => tracing::debug!("{url}: {found}; retrying in {wait:.1?}"),
            }
            if failed.status == Some(429) {
                // The rate limit counts the requests of all threads.
                self.gate.pause(wait);
            }
            if !sleep(wait, stopped) {
                return Err(Error::Interrupted);
            }
            attempt += 1;
        }
    }

    fn request(&self, url: &str, body: Option<&str>) -> Result<Response<ureq::Body>, ureq::Error> {
        let bearer = self.key.as_ref().map(Key::bearer);
        match body {
            Some(body) => {
                let mut request = self.agent.post(url).header("content-type", "application/json");
                if let Some(bearer) = bearer {
                    request = request.header("authorization", bearer);
                }
                request.send(body)
            }
            None => {
                let mut request = self.agent.get(url);
                if let Some(bearer) = bearer {
                    request = request.header("authorization", bearer);
                }
                request.call()
            }
        }
    }

    /// Reads the response of one attempt.
    fn once<T>(
        &self,
        response: Result<Response<ureq::Body>, ureq::Error>,
        parse: &dyn Fn(&[u8]) -> Result<T, String>,
    ) -> Result<T, Failed> {
        let mut response = response.map_err(Failed::transport)?;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let advice = Advice::from_headers(&header);
        if let Some(pause) = advice.pause {
            self.gate.pause(pause.min(Duration::from_secs_f64(self.settings.max_wait_secs)));
        }
        let body = response.body_mut().with_config().limit(self.settings.max_reply_bytes).read_to_vec();
        if !(200..300).contains(&status) {
            // A body that cannot be read has no message.
            let message = body.map(|body| message(&body)).unwrap_or_default();
            let found =
                if message.is_empty() { format!("status {status}") } else { format!("status {status}: {message}") };
            let is_transient = matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504 | 529);
            return Err(Failed { status: Some(status), found, is_transient, advice });
        }
        let parsed = body.map_err(Failed::transport).map(|body| parse(&body))?;
        parsed.map_err(|found| Failed { status: Some(status), found, is_transient: true, advice })
    }

    /// `text` without the API key.
    fn clean(&self, text: &str) -> String {
        self.key.as_ref().map_or_else(|| text.to_owned(), |key| key.removed_from(text))
    }

    fn error(&self, status: Option<u16>, found: String, attempts: u32) -> Error {
        Error::Server { url: self.address.shown(), status, found: self.clean(&found), attempts }
    }
}

/// A failed attempt.
struct Failed {
    status: Option<u16>,
    found: String,
    /// Whether another attempt may help.
    is_transient: bool,
    advice: Advice,
}

impl Failed {
    fn transport(error: ureq::Error) -> Self {
        let is_transient = !matches!(
            error,
            ureq::Error::BadUri(_)
                | ureq::Error::Http(_)
                | ureq::Error::InvalidProxyUrl
                | ureq::Error::BodyExceedsLimit(_)
        );
        Self { status: None, found: error.to_string(), is_transient, advice: Advice::default() }
    }
}

/// Message in the body of an error: `error.message` or a similar field, otherwise the body itself.
fn message(body: &[u8]) -> String {
    // A body that is not JSON has none of these fields.
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    let fields = [&json["error"]["message"], &json["message"], &json["detail"], &json["error"]];
    let text = fields.into_iter().find_map(Value::as_str).map(str::to_owned);
    let text = text.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
    // One short line: the rest is likely a page for people.
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(300).collect()
}

fn models(body: &[u8]) -> Result<Vec<String>, String> {
    let json: Value =
        serde_json::from_slice(body).map_err(|error| format!("a list of models that is not JSON: {error}"))?;
    let list = json["data"].as_array().ok_or("a list of models without `data`")?;
    Ok(list.iter().filter_map(|model| model["id"].as_str()).map(str::to_owned).collect())
}
