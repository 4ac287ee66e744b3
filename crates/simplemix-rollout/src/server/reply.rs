//! Replies of a server, checked. What a server leaves out or spells in its own way is absent, and only a reply without
//! a response is an error.

use std::borrow::Cow;

use serde_json::Value;
use simplemix_files::secret::without_secrets;

use super::lenient::json_of;
use super::reason::Reason;
use super::stream;
use super::unread::{Unread, error_in, words, words_of_bytes};
use crate::finish::Finish;

/// Log-probability that vLLM writes in place of minus infinity, which JSON does not have.
const NO_PROBABILITY: f64 = -9999.0;

/// Reply of a server: one response.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Reply {
    /// Id of the reply, if the server gives one.
    pub id: Option<String>,
    /// Name of the model that responded, if the server gives one.
    pub model: Option<String>,
    /// Text of the response; `None` if it has none, such as for reasoning alone, a refusal or a tool call.
    pub text: Option<String>,
    /// Reason for which the response ended, in the server's word; `None` if the server tells none.
    pub finish: Option<Finish>,
    /// Tokens of the response, if the server reports them.
    pub tokens: Option<usize>,
    /// Tokens of the prompt, if the server reports them.
    pub prompt_tokens: Option<usize>,
    /// Token ids of the prompt, if they were requested and the server reports them, as vLLM does.
    pub prompt_ids: Option<Vec<u32>>,
    /// Token ids of the response, if they were requested and the server reports them, as vLLM does.
    pub response_ids: Option<Vec<u32>>,
    /// Tokens with their log-probabilities, if they were requested and the server reports them.
    pub logps: Option<Vec<TokenLogp>>,
    /// Fields of the message that the server keeps apart from its text: reasoning, a refusal, calls.
    pub apart: Vec<&'static str>,
}

/// A token of a response with its log-probability.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TokenLogp {
    /// Text of the token.
    pub token: String,
    /// Log-probability in nats; `None` if the server wrote null or minus infinity.
    pub logp: Option<f64>,
    /// Most likely tokens at the same position, with their log-probabilities.
    pub top: Vec<(String, f64)>,
}

impl Reply {
    /// The reply without secrets of this process, which a server may repeat, and whether it had one.
    pub(super) fn without_secrets(mut self) -> (Self, bool) {
        let mut had_one = false;
        let mut clean = |text: &mut String| {
            if let Cow::Owned(rest) = without_secrets(text) {
                had_one = true;
                *text = rest;
            }
        };
        self.text.iter_mut().chain(&mut self.model).for_each(&mut clean);
        for token in self.logps.iter_mut().flatten() {
            clean(&mut token.token);
            token.top.iter_mut().for_each(|(token, _)| clean(token));
        }
        if let Some(finish) = &self.finish {
            let mut word = finish.name().to_owned();
            clean(&mut word);
            self.finish = Some(Finish::from(word));
        }
        (self, had_one)
    }

    /// Summed log-probability of the tokens; `None` without tokens, or if one of them has none.
    pub fn logp(&self) -> Option<f64> {
        self.logps.as_ref().filter(|logps| !logps.is_empty())?.iter().map(|token| token.logp).sum()
    }
}

/// Parses a body with exactly one response.
///
/// # Errors
/// The server's own words, if the body is an error or a page; otherwise what is wrong with it.
pub(super) fn parse(body: &[u8], chat: bool) -> Result<Reply, Unread> {
    let body = body_of(body)?;
    let choices = body["choices"].as_array().map(Vec::as_slice).unwrap_or_default();
    let [choice] = choices else {
        return Err(error_in(&body).unwrap_or_else(|| {
            let found = format!("{} responses in the reply, expected one: {}", choices.len(), words(&body));
            Unread { reason: Reason::Count, ..Unread::new(found) }
        }));
    };
    let text = text_of(choice, chat);
    if text.is_none() {
        has_response(&body, choice)?;
    }
    let (logps, usage) = (logps(&choice["logprobs"])?, &body["usage"]);
    let count = |name: &str| usage[name].as_u64().and_then(|count| usize::try_from(count).ok());
    Ok(Reply {
        id: body["id"].as_str().filter(|id| !id.is_empty()).map(str::to_owned),
        model: body["model"].as_str().filter(|name| !name.is_empty()).map(str::to_owned),
        text,
        finish: choice["finish_reason"].as_str().map(|word| Finish::from(word.to_owned())),
        tokens: count("completion_tokens").or_else(|| logps.as_ref().map(Vec::len).filter(|count| *count > 0)),
        prompt_tokens: count("prompt_tokens"),
        prompt_ids: ids(&body["prompt_token_ids"]).or_else(|| ids(&choice["prompt_token_ids"])),
        response_ids: ids(&choice["token_ids"]),
        logps,
        apart: apart(&choice["message"]),
    })
}

/// The JSON of a reply, which may be an event stream.
fn body_of(body: &[u8]) -> Result<Value, Unread> {
    let text = String::from_utf8_lossy(body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body));
    let text = text.trim_start();
    if stream::is_stream(text) {
        return stream::joined(text);
    }
    json_of(body).map_err(|error| Unread::new(format!("not a reply but `{}` ({error})", words_of_bytes(body))))
}

/// Text of a response. Some gateways answer in the form of the other interface.
fn text_of(choice: &Value, chat: bool) -> Option<String> {
    let text = choice["text"].as_str().map(str::to_owned);
    let message = &choice["message"];
    if chat && message.is_object() { text_of_message(message) } else { text.or_else(|| text_of_message(message)) }
}

/// Checks that a reply without text is not an error, and has the place of a text.
fn has_response(body: &Value, choice: &Value) -> Result<(), Unread> {
    match error_in(body) {
        Some(error) => Err(error),
        None if choice["message"].is_object() || choice.get("text").is_some() => Ok(()),
        None => Err(Unread::new(format!("neither a message nor a text in the reply: {}", words(body)))),
    }
}

/// Fields of a message beside its text that hold something.
fn apart(message: &Value) -> Vec<&'static str> {
    let is_given = |value: &Value| match value {
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        value => value.is_object(),
    };
    let names = ["reasoning_content", "reasoning", "refusal", "tool_calls", "function_call"];
    names.into_iter().filter(|name| is_given(&message[*name])).collect()
}

/// Text of a message: its content, or the text parts of its content. Empty content beside reasoning, a refusal or calls is
/// no text.
fn text_of_message(message: &Value) -> Option<String> {
    let text = match &message["content"] {
        Value::String(text) => text.clone(),
        Value::Array(parts) => text_of_parts(parts)?,
        _ => return None,
    };
    (!text.is_empty() || apart(message).is_empty()).then_some(text)
}

/// The text parts of a list of parts, joined; `None` if there is none.
fn text_of_parts(parts: &[Value]) -> Option<String> {
    let text = |part: &Value| match part {
        Value::String(text) => Some(text.clone()),
        part => matches!(part["type"].as_str(), None | Some("text" | "output_text"))
            .then(|| part["text"].as_str().map(str::to_owned))
            .flatten(),
    };
    let texts: Vec<String> = parts.iter().filter_map(text).collect();
    (!texts.is_empty()).then(|| texts.concat())
}

/// A list of token ids that is not empty.
pub(super) fn ids(value: &Value) -> Option<Vec<u32>> {
    let id = |id: &Value| id.as_u64().and_then(|id| u32::try_from(id).ok());
    value.as_array().filter(|ids| !ids.is_empty())?.iter().map(id).collect()
}

/// A log-probability that is a number: neither null nor what stands for minus infinity.
fn logp(value: &Value) -> Option<f64> {
    value.as_f64().filter(|logp| logp.is_finite() && *logp > NO_PROBABILITY)
}

/// Log-probabilities: chat replies have `content`, completions have two lists.
fn logps(logprobs: &Value) -> Result<Option<Vec<TokenLogp>>, Unread> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    if let Some(content) = logprobs["content"].as_array() {
        let pair = |top: &Value| Some((text(&top["token"]), logp(&top["logprob"])?));
        let tops = |token: &Value| {
            token["top_logprobs"].as_array().map_or_else(Vec::new, |top| top.iter().filter_map(pair).collect())
        };
        let token =
            |token: &Value| TokenLogp { token: text(&token["token"]), logp: logp(&token["logprob"]), top: tops(token) };
        return Ok(Some(content.iter().map(token).collect()));
    }
    let (Some(tokens), Some(values)) = (logprobs["tokens"].as_array(), logprobs["token_logprobs"].as_array()) else {
        return Ok(None);
    };
    if tokens.len() != values.len() {
        let found = format!("{} log-probabilities in the reply for {} tokens", values.len(), tokens.len());
        return Err(Unread::new(found));
    }
    let token = |(token, value): (&Value, &Value)| TokenLogp { token: text(token), logp: logp(value), top: Vec::new() };
    Ok(Some(tokens.iter().zip(values).map(token).collect()))
}

#[cfg(test)]
#[path = "reply_tests.rs"]
mod tests;
