//! Event streams, which some gateways send unasked: their pieces, put together to one body.

use serde_json::{Value, json};

use super::lenient::json_of;
use super::unread::{Unread, error_in};

/// Whether a body is an event stream.
pub(super) fn is_stream(body: &str) -> bool {
    ["data:", "event:", ":", "id:", "retry:"].iter().any(|start| body.starts_with(start))
}

/// The body that a server would have sent at once.
///
/// # Errors
/// An error among the events, and a stream that breaks off: without an end mark and without a finish reason.
pub(super) fn joined(stream: &str) -> Result<Value, Unread> {
    let mut whole = Whole::default();
    let mut is_done = false;
    for data in stream.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim) {
        if data == "[DONE]" {
            is_done = true;
            break;
        }
        let event =
            json_of(data.as_bytes()).map_err(|error| Unread::new(format!("an event that is not JSON: {error}")))?;
        if let Some(error) = error_in(&event) {
            return Err(error);
        }
        whole.add(&event);
    }
    if !is_done && whole.finish.is_null() {
        return Err(Unread::new("an event stream that breaks off"));
    }
    Ok(whole.body())
}

#[derive(Default)]
struct Whole {
    id: Value,
    model: Value,
    text: Option<String>,
    reasoning: String,
    refusal: String,
    calls: Vec<Value>,
    finish: Value,
    usage: Value,
    /// Log-probabilities of chat replies.
    content: Vec<Value>,
    /// Log-probabilities of completions.
    tokens: Vec<Value>,
    values: Vec<Value>,
}

impl Whole {
    fn add(&mut self, event: &Value) {
        if event["usage"].is_object() {
            self.usage = event["usage"].clone();
        }
        if self.id.is_null() {
            self.id = event["id"].clone();
            self.model = event["model"].clone();
        }
        let choice = &event["choices"][0];
        let delta = &choice["delta"];
        if let Some(piece) = delta["content"].as_str().or(choice["text"].as_str()) {
            self.text.get_or_insert_default().push_str(piece);
        }
        let reasoning = delta["reasoning_content"].as_str().or(delta["reasoning"].as_str());
        self.reasoning.push_str(reasoning.unwrap_or_default());
        self.refusal.push_str(delta["refusal"].as_str().unwrap_or_default());
        if !choice["finish_reason"].is_null() {
            self.finish = choice["finish_reason"].clone();
        }
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        self.calls.extend(list(&delta["tool_calls"]));
        self.content.extend(list(&choice["logprobs"]["content"]));
        self.tokens.extend(list(&choice["logprobs"]["tokens"]));
        self.values.extend(list(&choice["logprobs"]["token_logprobs"]));
    }

    fn body(self) -> Value {
        let logprobs = match (self.content.is_empty(), self.tokens.is_empty()) {
            (false, _) => json!({ "content": self.content }),
            (true, false) => json!({ "tokens": self.tokens, "token_logprobs": self.values }),
            (true, true) => Value::Null,
        };
        json!({
            "id": self.id,
            "model": self.model,
            "choices": [{
                "message": {
                    "content": self.text,
                    "reasoning": self.reasoning,
                    "refusal": self.refusal,
                    "tool_calls": self.calls,
                },
                "text": self.text,
                "finish_reason": self.finish,
                "logprobs": logprobs,
            }],
            "usage": self.usage,
        })
    }
}
