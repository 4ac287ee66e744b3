//! One question to a server, tried again where that helps.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Map, Value, json};
use simplemix_data::Text;
use ureq::Agent;
use ureq::http::Response;

use super::key::Key;
use super::reply::{Reply, parse};
use super::settings::{Address, Endpoint, ServerSettings};
use super::waiting::{Advice, Gate, backoff, sleep};
use crate::error::{Error, Result};

/// A question. Fields that are none are left to the server.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Ask {
    /// Tokens of the answer, at most.
    pub max_tokens: Option<usize>,
    /// Divides the logits.
    pub temperature: Option<f64>,
    /// Share of the probability that is drawn from.
    pub top_p: Option<f64>,
    /// Number of tokens drawn from; no part of OpenAI's interface, though vLLM, SGLang and llama.cpp have it.
    pub top_k: Option<usize>,
    /// Least share of the likeliest token's probability; as `top_k`.
    pub min_p: Option<f64>,
    /// Seed of the answer.
    pub seed: Option<u64>,
    /// Texts that end the answer.
    pub stop: Vec<String>,
    /// Whether log-probabilities of the answer's tokens are wanted.
    pub logprobs: bool,
    /// How many likeliest tokens in the place of each are wanted too; chat only, and only with `logprobs`.
    pub top_logprobs: usize,
}

/// Asks a server. Safe to share between threads, which a limit of the server's then holds back together.
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
    /// Requests so far, by which waits differ.
    requests: AtomicU64,
}

impl ServerClient {
    /// Reads the key from its environment variable and, where the settings name no model, asks the server for its only one.
    ///
    /// # Errors
    /// [`Error::Setting`] for settings out of range or an unusable key, [`Error::Server`] if it has to be asked and does
    /// not answer.
    pub fn new(settings: ServerSettings) -> Result<Self> {
        settings.check()?;
        let key = Key::from_env(&settings.api_key_env)?;
        let agent = Agent::config_builder()
            // A status is looked at here, and a redirection is not followed: the key goes where the user said.
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
        let model = settings.model.clone().unwrap_or_default();
        let (gate, requests) = (Gate::default(), AtomicU64::new(0));
        let mut client = Self { settings, address, agent, key, model, gate, requests };
        if client.settings.model.is_none() {
            client.model = client.only_model()?;
        }
        Ok(client)
    }

    /// The model that is asked.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// How the server is asked.
    pub fn settings(&self) -> &ServerSettings {
        &self.settings
    }

    /// Asks for one answer to `prompt`, and asks again, later each time, while the server fails, refuses for lack of
    /// capacity, or answers what cannot be understood.
    ///
    /// # Errors
    /// [`Error::Server`] with the last failure, [`Error::Setting`] for messages where only completions may be asked,
    /// [`Error::Interrupted`] when `stopped` says so during a wait.
    pub fn ask(&self, prompt: &Text, ask: &Ask, stopped: &dyn Fn() -> bool) -> Result<Reply> {
        let (chat, body) = self.body(prompt, ask)?;
        let url = self.address.of(if chat { "chat/completions" } else { "completions" });
        self.persist(stopped, &|| self.once(self.request(&url, Some(&body)), &|body| parse(body, chat)))
    }

    fn body(&self, prompt: &Text, ask: &Ask) -> Result<(bool, String)> {
        let chat = match (self.settings.endpoint, prompt) {
            (Endpoint::Auto, Text::Plain(_)) | (Endpoint::Completions, Text::Plain(_)) => false,
            (Endpoint::Auto | Endpoint::Chat, _) => true,
            (Endpoint::Completions, Text::Messages(_)) => {
                let found = "completions, for a prompt of messages".to_owned();
                return Err(Error::Setting { key: "endpoint", found, expected: "chat, or prompts of bare text" });
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
                body.insert("messages".into(), serde_json::to_value(turns).unwrap_or_default());
            }
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
            // Completions want a number: of likeliest tokens told beside the drawn one.
            body.insert("logprobs".into(), if chat { true.into() } else { ask.top_logprobs.max(1).into() });
            if chat && ask.top_logprobs > 0 {
                body.insert("top_logprobs".into(), ask.top_logprobs.into());
            }
        }
        for (name, value) in &self.settings.extra {
            match value {
                Value::Null => drop(body.remove(name)),
                value => drop(body.insert(name.clone(), value.clone())),
            }
        }
        Ok((chat, Value::Object(body).to_string()))
    }

    fn only_model(&self) -> Result<String> {
        let url = self.address.of("models");
        let names = self.persist(&|| false, &|| self.once(self.request(&url, None), &models))?;
        match names.as_slice() {
            [name] => Ok(name.clone()),
            names => {
                let found = if names.is_empty() { "no model".to_owned() } else { names.join(", ") };
                Err(self.error(None, format!("has {found}: name the one to ask for"), 1))
            }
        }
    }

    /// Tries until it helps no more.
    fn persist<T>(&self, stopped: &dyn Fn() -> bool, once: &dyn Fn() -> Result<T, Failed>) -> Result<T> {
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
            if !failed.again || attempt > self.settings.retries {
                return Err(self.error(failed.status, failed.found, attempt));
            }
            let wait = failed.advice.retry_after.map_or_else(|| backoff(number, attempt, most), |wait| wait.min(most));
            let (url, said, of) = (self.address.shown(), self.clean(&failed.found), self.settings.retries);
            match attempt {
                // Trouble that lasts is worth a word; the rest is for those who ask.
                3 => tracing::warn!("{url}: {said}; tried again, up to {of} times"),
                _ => tracing::debug!("{url}: {said}; again in {wait:.1?}"),
            }
            if failed.status == Some(429) {
                // One request too many is one of all.
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

    /// Looks at what came of one try.
    fn once<T>(
        &self,
        response: Result<Response<ureq::Body>, ureq::Error>,
        parse: &dyn Fn(&[u8]) -> Result<T, String>,
    ) -> Result<T, Failed> {
        let mut response = response.map_err(Failed::transport)?;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let advice = Advice::of_headers(&header);
        if let Some(pause) = advice.pause {
            self.gate.pause(pause.min(Duration::from_secs_f64(self.settings.max_wait_secs)));
        }
        let body = response.body_mut().with_config().limit(self.settings.max_reply_bytes).read_to_vec();
        if !(200..300).contains(&status) {
            let words = body.map(|body| words_of(&body)).unwrap_or_default();
            let found = if words.is_empty() { format!("status {status}") } else { format!("status {status}: {words}") };
            let again = matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504 | 529);
            return Err(Failed { status: Some(status), found, again, advice });
        }
        let understood = body.map_err(Failed::transport).map(|body| parse(&body))?;
        understood.map_err(|found| Failed { status: Some(status), found, again: true, advice })
    }

    fn clean(&self, text: &str) -> String {
        self.key.as_ref().map_or_else(|| text.to_owned(), |key| key.taken_out_of(text))
    }

    fn error(&self, status: Option<u16>, found: String, attempts: u32) -> Error {
        Error::Server { url: self.address.shown(), status, found: self.clean(&found), attempts }
    }
}

/// What came of a try that was no answer.
struct Failed {
    status: Option<u16>,
    found: String,
    /// Whether trying again may help.
    again: bool,
    advice: Advice,
}

impl Failed {
    fn transport(error: ureq::Error) -> Self {
        let again = !matches!(
            error,
            ureq::Error::BadUri(_)
                | ureq::Error::Http(_)
                | ureq::Error::InvalidProxyUrl
                | ureq::Error::BodyExceedsLimit(_)
        );
        Self { status: None, found: error.to_string(), again, advice: Advice::default() }
    }
}

/// A server's words in a body of an error: `error.message`, or what there is.
fn words_of(body: &[u8]) -> String {
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    let said = [&json["error"]["message"], &json["message"], &json["detail"], &json["error"]];
    let words = said.into_iter().find_map(Value::as_str).map(str::to_owned);
    let words = words.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
    // One line, not too long: what follows is likely a page for people.
    words.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(300).collect()
}

fn models(body: &[u8]) -> Result<Vec<String>, String> {
    let json: Value =
        serde_json::from_slice(body).map_err(|error| format!("a list of models that is not JSON: {error}"))?;
    let list = json["data"].as_array().ok_or("a list of models without `data`")?;
    Ok(list.iter().filter_map(|model| model["id"].as_str()).map(str::to_owned).collect())
}
