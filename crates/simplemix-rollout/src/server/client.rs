//! One request to a server, retried where that helps.

use std::cell::RefCell;
use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value};
use simplemix_data::{TemplateInputs, Text};
use simplemix_files::secret::{Secret, first_in_the_open, redacted, without_secrets};
use ureq::http::Response;

use super::connection::{Connection, Connections};
use super::key;
use super::lenient::json_of;
use super::reason::Reason;
use super::reply::{Reply, ids, parse};
use super::request::{Ask, Changes, Instead, notice};
use super::settings::{Address, Endpoint, ServerSettings};
use super::unread::{Unread, error_in, words_of_bytes};
use super::waiting::{Advice, Gate, backoff, sleep};
use crate::error::{Error, Result};
use crate::generator::Failures;

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
/// println!("{:?} {:?}", reply.text, reply.logps);
/// # Ok::<(), simplemix_rollout::Error>(())
/// ```
#[derive(Debug)]
pub struct ServerClient {
    settings: ServerSettings,
    address: Address,
    connections: Connections,
    key: Option<Secret>,
    model: String,
    gate: Gate,
    /// Requests so far. Waiting times depend on the number of the request.
    requests: AtomicU64,
    /// Requests so far whose trouble lasted.
    warnings: AtomicU64,
    learned: Mutex<Learned>,
    /// The large reply that is being read and parsed: memory holds one at a time, in one place, since allocators keep what each
    /// thread has freed.
    large: Mutex<Vec<u8>>,
}

/// Bytes from which on a reply is large.
const LARGE: u64 = 1 << 20;
/// Requests whose trouble is a warning; all failures are counted.
const MOST_WARNINGS: u64 = 8;

/// Facts about the server that its refusals tell.
#[derive(Debug, Default)]
struct Learned {
    changes: Changes,
    /// Whether a request has succeeded.
    has_succeeded: bool,
    /// Whether several replies have one id.
    ids_repeat: bool,
    /// Texts for the user that nobody has fetched.
    notices: Vec<String>,
    /// Failed attempts that nobody has fetched.
    failures: Failures,
    /// Whether the user knows that the server writes the key into responses.
    told_key: bool,
}

impl ServerClient {
    /// Reads the API key from its environment variable and, if the settings name no model, asks the server for its only one.
    ///
    /// # Errors
    /// [`Error::Setting`] with the first setting out of range or with an invalid key, [`Error::Server`] if the server cannot
    /// be asked for its model.
    pub fn new(settings: ServerSettings) -> Result<Self> {
        let named = settings.model.clone();
        let mut client = Self::nameless(settings)?;
        client.model = named.map_or_else(|| client.only_model(), Ok)?;
        Ok(client)
    }

    /// A client that does not know the name of the model, for requests about the server itself.
    ///
    /// # Errors
    /// [`Error::Setting`] with the first setting out of range or with an invalid key.
    pub(super) fn nameless(settings: ServerSettings) -> Result<Self> {
        settings.check()?;
        let key = key::from_env(&settings.api_key_env)?;
        let connections = Connections::new(Duration::from_secs_f64(settings.timeout_secs));
        let address = Address::new(&settings.url)?;
        warn_of_the_open(&settings, &address, key.is_some());
        let (gate, requests, learned) = (Gate::default(), AtomicU64::new(0), Mutex::default());
        let model = String::new();
        let (large, warnings) = (Mutex::default(), AtomicU64::new(0));
        Ok(Self { settings, address, connections, key, model, gate, requests, warnings, learned, large })
    }

    pub(super) fn with_model(self, model: String) -> Self {
        Self { model, ..self }
    }

    /// Address without its query, for the user.
    pub(super) fn shown(&self) -> String {
        self.address.shown()
    }

    /// Whether a request would be sent at once: no rate limit is being waited for.
    pub(super) fn is_open(&self) -> bool {
        self.gate.is_open()
    }

    /// Address of the server.
    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// The body of a reply of status 2xx to a request with this JSON, or to one without a body.
    ///
    /// # Errors
    /// [`Error::Server`] and [`Error::Interrupted`].
    pub(super) fn plain(&self, url: &str, body: Option<&Value>, stopped: &dyn Fn() -> bool) -> Result<String> {
        let body = body.map(Value::to_string);
        let text = |reply: &[u8]| Ok(String::from_utf8_lossy(reply).into_owned());
        self.retry(stopped, &|connection| self.once(self.request(connection, url, body.as_deref()), &text))
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
        self.settings.fingerprint(&self.model)
    }

    /// Asks for one response to `prompt`. Retries with growing waits while the server fails, refuses for lack of capacity,
    /// or sends a reply that cannot be read. An [`Ask`] that is `lenient` goes without the fields that the server refuses.
    ///
    /// # Errors
    /// [`Error::Server`] with the last failure, [`Error::Setting`] for messages if the endpoint is `completions`,
    /// [`Error::Interrupted`] if `stopped` returns true during a wait.
    pub fn ask(&self, prompt: &Text, ask: &Ask, stopped: &dyn Fn() -> bool) -> Result<Reply> {
        let chat = self.is_chat(prompt)?;
        let url = self.address.of(if chat { "chat/completions" } else { "completions" });
        let mut changes = self.learned().changes.clone();
        let mut refusals: Vec<(usize, String)> = Vec::new();
        let repeated = RefCell::new(None);
        loop {
            let body = self.with_extra(ask.body(&self.model, prompt, chat, &changes)).to_string();
            let parse = |reply: &[u8]| Ok((parse(reply, chat)?, blake3::hash(reply)));
            let once = |connection: &mut Connection| {
                let (reply, hash) = self.once(self.request(connection, &url, Some(&body)), &parse)?;
                self.check_new(connection, &reply, hash, &mut repeated.borrow_mut())?;
                Ok(reply)
            };
            match self.retry(stopped, &once) {
                Ok(reply) => {
                    self.learn(&changes, &refusals);
                    return Ok(self.without_secrets(reply));
                }
                Err(Error::Server { status: status @ Some(400 | 422), found, url, attempts }) if ask.lenient => {
                    let is_first = !self.learned().has_succeeded;
                    let Some(change) = ask.change(&found, &changes, is_first) else {
                        return Err(Error::Server { url, status, found, attempts });
                    };
                    refusals.push((changes.len(), found));
                    changes.push(change);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Texts for the user about what the server refused, each of them once.
    pub fn notices(&self) -> Vec<String> {
        std::mem::take(&mut self.learned().notices)
    }

    /// Attempts that failed since the last call, whether or not another one succeeded.
    pub fn failures(&self) -> Failures {
        std::mem::take(&mut self.learned().failures)
    }

    /// Whether requests have the field `name`: the server did not refuse it.
    pub(crate) fn sends(&self, name: &str) -> bool {
        !self.learned().changes.iter().any(|(of, instead)| *of == name && *instead == Instead::Nothing)
    }

    /// Token ids that the server's own endpoint `tokenize` gives a prompt, as vLLM's does; `None` if it has none.
    pub(crate) fn tokenize(&self, prompt: &Text, inputs: &TemplateInputs) -> Option<Vec<u32>> {
        let chat = self.is_chat(prompt).ok()?;
        let ask = Ask { inputs: inputs.clone(), ..Ask::default() };
        let body = self.with_extra(ask.body(&self.model, prompt, chat, &Changes::new())).to_string();
        let ids_of = |reply: &[u8]| {
            let reply = json_of(reply).map_err(|error| Unread::new(error.to_string()))?;
            ids(&reply["tokens"]).ok_or_else(|| Unread::new("no token ids"))
        };
        let url = self.address.beside("tokenize");
        self.once(self.request(&self.connections.take(), &url, Some(&body)), &ids_of).ok()
    }

    fn is_chat(&self, prompt: &Text) -> Result<bool> {
        match (self.settings.endpoint, prompt) {
            (Endpoint::Auto | Endpoint::Completions, Text::Plain(_)) => Ok(false),
            (Endpoint::Auto | Endpoint::Chat, _) => Ok(true),
            (Endpoint::Completions, Text::Messages(_)) => {
                let found = "completions, for a prompt of messages".to_owned();
                Err(Error::Setting { key: "endpoint", found, expected: "chat, or prompts of plain text" })
            }
        }
    }

    /// A body with the fields that the settings add; null removes one.
    fn with_extra(&self, mut body: Map<String, Value>) -> Value {
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
        Value::Object(body)
    }

    fn learned(&self) -> MutexGuard<'_, Learned> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the changes that made a request succeed; `refusals` are the server's words against fields, each with the place
    /// of the change.
    fn learn(&self, changes: &Changes, refusals: &[(usize, String)]) {
        let mut learned = self.learned();
        learned.has_succeeded = true;
        for (at, found) in refusals {
            let change = &changes[*at];
            if !learned.changes.contains(change) {
                learned.changes.push(change.clone());
                let text = notice(change.0, &change.1, &redacted(found));
                learned.notices.extend(text.map(|text| format!("{}: {text}", self.address.shown())));
            }
        }
    }

    /// The reply without the key, which a server may repeat in a response; the user is told once.
    fn without_secrets(&self, reply: Reply) -> Reply {
        let (reply, had_one) = reply.without_secrets();
        let mut learned = self.learned();
        if had_one && !std::mem::replace(&mut learned.told_key, true) {
            let url = self.address.shown();
            let found = "the server writes the key that it was sent into responses";
            learned.notices.push(format!("{url}: {found}; it is replaced by `[key]` in each of them"));
        }
        reply
    }

    fn only_model(&self) -> Result<String> {
        self.only_of(&self.models(&|| false)?)
    }

    /// Names of the models on the server.
    pub(super) fn models(&self, stopped: &dyn Fn() -> bool) -> Result<Vec<String>> {
        let url = self.address.of("models");
        self.retry(stopped, &|connection| self.once(self.request(connection, &url, None), &models))
    }

    /// The only one of the server's models.
    pub(super) fn only_of(&self, names: &[String]) -> Result<String> {
        match names {
            [name] => Ok(name.clone()),
            names => {
                let found =
                    if names.is_empty() { "no model".to_owned() } else { format!("the models {}", names.join(", ")) };
                Err(self.error(None, format!("has {found}; name the model to use in `model`"), 1))
            }
        }
    }

    /// Checks that a reply is no second copy of an earlier one on the same connection, which would stand in place of another
    /// request's reply: the same bytes under an id. `repeated` is a reply to this request that was taken for one.
    fn check_new(
        &self,
        connection: &mut Connection,
        reply: &Reply,
        hash: blake3::Hash,
        repeated: &mut Option<blake3::Hash>,
    ) -> Result<(), Failed> {
        let Some(id) = &reply.id else { return Ok(()) };
        if *repeated == Some(hash) {
            // Again, after the connection was closed: this server's replies have no ids of their own.
            self.learned().ids_repeat = true;
        }
        if self.learned().ids_repeat || connection.is_new(hash) {
            return Ok(());
        }
        *repeated = Some(hash);
        let found = format!("a second copy of the reply `{id}`");
        Err(Failed { status: None, found, reason: Reason::Repeated, is_transient: true, advice: Advice::default() })
    }

    /// Calls `once` until it succeeds or another attempt cannot help. A connection with a failure is not used again.
    fn retry<T>(&self, stopped: &dyn Fn() -> bool, once: &dyn Fn(&mut Connection) -> Result<T, Failed>) -> Result<T> {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let most = Duration::from_secs_f64(self.settings.max_wait_secs);
        let mut attempt = 1;
        loop {
            if !self.gate.pass(stopped) {
                return Err(Error::Interrupted);
            }
            let mut connection = self.connections.take();
            let failed = match once(&mut connection) {
                Ok(value) => {
                    self.connections.give_back(connection);
                    return Ok(value);
                }
                Err(failed) => failed,
            };
            drop(connection);
            *self.learned().failures.entry(failed.reason.to_string()).or_default() += 1;
            let wait = failed.advice.retry_after.map_or_else(|| backoff(number, attempt, most), |wait| wait.min(most));
            if !failed.is_transient || attempt > self.settings.retries {
                if failed.is_transient && (failed.status == Some(429) || failed.advice.retry_after.is_some()) {
                    // Whoever asks again, now by another request, is to wait as long.
                    self.gate.pause(wait);
                }
                return Err(self.error(failed.status, failed.found, attempt));
            }
            let (url, found, retries) = (self.address.shown(), redacted(&failed.found), self.settings.retries);
            // Lasting trouble is worth a warning, a single failure is not, nor is the same trouble of thousands of requests.
            match if attempt == 3 { self.warnings.fetch_add(1, Ordering::Relaxed) } else { MOST_WARNINGS } {
                0..MOST_WARNINGS => tracing::warn!("{url}: {found}; retrying up to {retries} times"),
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

    fn request(
        &self,
        connection: &Connection,
        url: &str,
        body: Option<&str>,
    ) -> Result<Response<ureq::Body>, ureq::Error> {
        let bearer = self.key.as_ref().map(|key| format!("Bearer {}", key.expose()));
        match body {
            Some(body) => {
                let mut request = connection.agent().post(url).header("content-type", "application/json");
                if let Some(bearer) = bearer {
                    request = request.header("authorization", bearer);
                }
                request.send(body)
            }
            None => {
                let mut request = connection.agent().get(url);
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
        parse: &dyn Fn(&[u8]) -> Result<T, Unread>,
    ) -> Result<T, Failed> {
        let mut response = response.map_err(|error| self.failed(error))?;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let advice = Advice::from_headers(&header);
        if let Some(pause) = advice.pause {
            self.gate.pause(pause.min(Duration::from_secs_f64(self.settings.max_wait_secs)));
        }
        let body = self.read(&mut response);
        if !(200..300).contains(&status) {
            // A body that cannot be read has no message.
            let message = body.map(|body| words_of_bytes(body.bytes())).unwrap_or_default();
            let found =
                if message.is_empty() { format!("status {status}") } else { format!("status {status}: {message}") };
            let reason = Reason::Status(status);
            return Err(Failed { status: Some(status), found, reason, is_transient: is_transient(status), advice });
        }
        let parsed = body.map_err(|error| self.failed(error)).map(|body| parse(body.bytes()))?;
        let encoding = header("content-encoding").filter(|encoding| !["gzip", "identity", ""].contains(encoding));
        let parsed = parsed.map_err(|unread| match encoding {
            Some(encoding) => Unread::new(format!("a body with content-encoding `{encoding}`, expected gzip or none")),
            None => unread,
        });
        // An error inside a reply is tried again as its own status would be.
        parsed.map_err(|Unread { status: own, found, reason }| Failed {
            status: own.or(Some(status)),
            found,
            reason,
            is_transient: own.is_none_or(is_transient),
            advice,
        })
    }

    /// An attempt without a whole reply.
    fn failed(&self, error: ureq::Error) -> Failed {
        let failed = Failed::transport(error);
        match failed.reason {
            Reason::Timeout => {
                let seconds = self.settings.timeout_secs;
                Failed { found: format!("no whole reply within {seconds} s, the limit `timeout_secs`"), ..failed }
            }
            _ => failed,
        }
    }

    /// Reads a body; a large one once the earlier ones are done with.
    fn read(&self, response: &mut Response<ureq::Body>) -> Result<Body<'_>, ureq::Error> {
        let mut reader = response.body_mut().with_config().limit(self.settings.max_reply_bytes).reader();
        let mut body = Vec::new();
        if reader.by_ref().take(LARGE).read_to_end(&mut body)? < LARGE as usize {
            return Ok(Body::Small(body));
        }
        let mut large = self.large.lock().unwrap_or_else(PoisonError::into_inner);
        large.clear();
        large.append(&mut body);
        reader.read_to_end(&mut large)?;
        Ok(Body::Large(large))
    }

    fn error(&self, status: Option<u16>, found: String, attempts: u32) -> Error {
        Error::Server { url: self.address.shown(), status, found: redacted(&found).into_owned(), attempts }
    }
}

/// Warns once of a key, in the header or the address, that goes unencrypted to another machine.
fn warn_of_the_open(settings: &ServerSettings, address: &Address, has_key: bool) {
    let place = match has_key {
        true => format!("the key in `{}`", settings.api_key_env),
        false if address.has_query() => "the query of the address".to_owned(),
        false => return,
    };
    if let Some(host) = first_in_the_open(&settings.url) {
        let shown = address.shown();
        tracing::warn!("{shown}: {place} is sent to {host} over http, readable for every machine between; use https");
    }
}

/// Bytes of a reply.
enum Body<'a> {
    Small(Vec<u8>),
    Large(MutexGuard<'a, Vec<u8>>),
}

impl Body<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Small(body) => body,
            Self::Large(body) => body,
        }
    }
}

/// A failed attempt.
struct Failed {
    status: Option<u16>,
    found: String,
    reason: Reason,
    /// Whether another attempt may help.
    is_transient: bool,
    advice: Advice,
}

impl Failed {
    fn transport(error: ureq::Error) -> Self {
        let is_transient =
            !matches!(error, ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::InvalidProxyUrl);
        let reason = Reason::of_transport(&error);
        Self { status: None, found: error.to_string(), reason, is_transient, advice: Advice::default() }
    }
}

/// Whether another attempt may help after this status.
pub(super) fn is_transient(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504 | 529)
}

/// Names in a list of models.
fn models(body: &[u8]) -> Result<Vec<String>, Unread> {
    let wrong = || Unread::new(format!("not a list of models but `{}`", words_of_bytes(body)));
    let json = json_of(body).map_err(|_| wrong())?;
    let list = json["data"].as_array().ok_or_else(|| error_in(&json).unwrap_or_else(wrong))?;
    Ok(list.iter().filter_map(|model| model["id"].as_str()).map(|id| without_secrets(id).into_owned()).collect())
}
