//! Bodies of requests: parameters as fields, and what becomes of a field that a server refuses.

use serde_json::{Map, Value, json};
use simplemix_data::{TemplateInputs, Text};

/// Parameters of a request. Fields that are `None` are left to the server.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Ask {
    /// Longest response, in tokens.
    pub max_tokens: Option<usize>,
    /// Shortest response, in tokens. Not part of the OpenAI interface; vLLM and SGLang have it.
    pub min_tokens: Option<usize>,
    /// Divisor of the logits.
    pub temperature: Option<f64>,
    /// Share of the probability to draw from.
    pub top_p: Option<f64>,
    /// Number of most likely tokens to draw from; 0 keeps all, which is sent as -1, as vLLM, SGLang and llama.cpp read it.
    /// Not part of the OpenAI interface.
    pub top_k: Option<usize>,
    /// Smallest probability to draw from, relative to the most likely token. Supported by the same servers as `top_k`.
    pub min_p: Option<f64>,
    /// Divisor of logits of tokens that are there already. Supported by vLLM and SGLang.
    pub repetition_penalty: Option<f64>,
    /// Subtracted from logits of tokens that are in the response already.
    pub presence_penalty: Option<f64>,
    /// Subtracted from logits of tokens in the response, once for each time.
    pub frequency_penalty: Option<f64>,
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
    /// Whether to return the token ids of the prompt, as vLLM does.
    pub prompt_ids: bool,
    /// Whether a request may go without a field that the server refuses, where that field is neutral, the seed, or asks for
    /// log-probabilities or token ids. What was left out is told by [`super::ServerClient::notices`].
    pub lenient: bool,
}

/// Fields that a request may go without, in the order in which they are looked for in a refusal. A field that is a part of
/// another one's name comes after it.
const OPTIONAL: [&str; 12] = [
    "return_token_ids",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "top_logprobs",
    "logprobs",
    "temperature",
    "max_tokens",
    "top_k",
    "top_p",
    "min_p",
    "seed",
];

/// Neutral fields that are not part of the OpenAI interface.
const FURTHER: [&str; 3] = ["top_k", "min_p", "repetition_penalty"];

/// Words for a field, of which a refusal without a name has one.
const FIELD: [&str; 5] = ["field", "argument", "parameter", "property", "extra inputs"];

/// Words of a refusal of a field. Names of fields that are common words count only beside one of them.
const REFUSALS: [&str; 12] = [
    "unsupported",
    "not support",
    "unrecognized",
    "unrecognised",
    "unknown",
    "unexpected",
    "extra",
    "not permitted",
    "not allowed",
    "not available",
    "invalid",
    "must be",
];

/// Fate of a field that a server refuses.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Instead {
    /// The field has another value.
    Value(Value),
    /// The field has another name.
    Name(&'static str),
    /// The request goes without it.
    Nothing,
}

/// Fields that a server refuses, the latest change of a field last.
pub(super) type Changes = Vec<(&'static str, Instead)>;

impl Ask {
    /// A request with every sampling setting at its neutral value, so that a server fills none from the model's
    /// `generation_config.json`, as vLLM and SGLang do with what is absent. It goes without those that the server refuses.
    pub fn neutral() -> Self {
        Self {
            temperature: Some(1.0),
            top_p: Some(1.0),
            top_k: Some(0),
            min_p: Some(0.0),
            repetition_penalty: Some(1.0),
            presence_penalty: Some(0.0),
            frequency_penalty: Some(0.0),
            lenient: true,
            ..Self::default()
        }
    }

    /// Fields of a request to `model`, with the changes that the server asks for.
    pub(super) fn body(&self, model: &str, prompt: &Text, chat: bool, changes: &Changes) -> Map<String, Value> {
        let mut body = Map::new();
        body.insert("model".into(), model.into());
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
        if chat && let Value::Object(inputs) = json!(self.inputs) {
            // `tools` is OpenAI's; vLLM and SGLang know the other two.
            body.extend(inputs);
        }
        body.extend(self.fields().into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
        if !self.stop.is_empty() {
            body.insert("stop".into(), json!(self.stop));
        }
        if self.logprobs {
            // For completions the field is the number of most likely tokens to return.
            body.insert("logprobs".into(), if chat { true.into() } else { self.top_logprobs.max(1).into() });
            if chat && self.top_logprobs > 0 {
                body.insert("top_logprobs".into(), self.top_logprobs.into());
            }
        }
        if self.prompt_ids {
            body.insert("return_token_ids".into(), true.into());
        }
        for (name, instead) in changes {
            let Some(value) = body.remove(*name) else { continue };
            match instead {
                Instead::Value(value) => drop(body.insert((*name).to_owned(), value.clone())),
                Instead::Name(other) => drop(body.insert((*other).to_owned(), value)),
                Instead::Nothing => {}
            }
        }
        body
    }

    fn fields(&self) -> [(&'static str, Option<Value>); 10] {
        let top_k = |k| if k == 0 { json!(-1) } else { json!(k) };
        [
            ("max_tokens", self.max_tokens.map(Value::from)),
            ("min_tokens", self.min_tokens.map(Value::from)),
            ("temperature", self.temperature.map(Value::from)),
            ("top_p", self.top_p.map(Value::from)),
            ("top_k", self.top_k.map(top_k)),
            ("min_p", self.min_p.map(Value::from)),
            ("repetition_penalty", self.repetition_penalty.map(Value::from)),
            ("presence_penalty", self.presence_penalty.map(Value::from)),
            ("frequency_penalty", self.frequency_penalty.map(Value::from)),
            ("seed", self.seed.map(Value::from)),
        ]
    }

    /// The change that helps against a refusal with the words `found`, after `changes` did not; `None` if none does. A first
    /// request may also go without the fields that the OpenAI interface does not have, where the server refuses some field
    /// without its name.
    pub(super) fn change(&self, found: &str, changes: &Changes, is_first: bool) -> Option<(&'static str, Instead)> {
        let words = found.to_ascii_lowercase();
        let is_refusal = REFUSALS.iter().any(|refusal| words.contains(refusal));
        let is_named = |name: &&str| has_word(&words, name) && (name.contains('_') || is_refusal);
        let named: Vec<&str> = OPTIONAL.into_iter().filter(is_named).collect();
        let is_of_a_field = is_refusal && FIELD.iter().any(|word| words.contains(word));
        let candidates = if named.is_empty() && is_first && is_of_a_field { FURTHER.to_vec() } else { named };
        candidates.into_iter().filter_map(|name| Some((name, self.instead(name, &words, changes)?))).next()
    }

    fn instead(&self, name: &str, words: &str, changes: &Changes) -> Option<Instead> {
        let before: Vec<&Instead> = changes.iter().filter(|(of, _)| *of == name).map(|(_, instead)| instead).collect();
        let may_go = match name {
            "max_tokens" if before.is_empty() && has_word(words, "max_completion_tokens") => {
                return self.max_tokens.map(|_| Instead::Name("max_completion_tokens"));
            }
            "top_k" if self.top_k == Some(0) && before.is_empty() => return Some(Instead::Value(json!(0))),
            "top_k" => self.top_k == Some(0),
            "return_token_ids" => self.prompt_ids,
            "logprobs" => self.logprobs,
            "top_logprobs" => self.logprobs && self.top_logprobs > 0,
            "seed" => self.seed.is_some(),
            "temperature" => self.temperature == Some(1.0),
            "top_p" => self.top_p == Some(1.0),
            "min_p" => self.min_p == Some(0.0),
            "repetition_penalty" => self.repetition_penalty == Some(1.0),
            "presence_penalty" => self.presence_penalty == Some(0.0),
            "frequency_penalty" => self.frequency_penalty == Some(0.0),
            _ => false,
        };
        (may_go && !before.contains(&&Instead::Nothing)).then_some(Instead::Nothing)
    }
}

/// Text for the user about a field that the server refuses with the words `found`; none if the samples are the same.
pub(super) fn notice(name: &str, instead: &Instead, found: &str) -> Option<String> {
    let consequence = match (name, instead) {
        (_, Instead::Value(_) | Instead::Name(_)) | ("return_token_ids" | "top_logprobs", _) => return None,
        ("seed", _) => "samples cannot be drawn again",
        ("logprobs", _) => "candidates are without log-probabilities",
        _ => "its own default holds, which samples may not be on-policy under",
    };
    Some(format!("the server refuses `{name}`, and requests go without it: {consequence} ({found})"))
}

/// Whether `text` has `name` as a whole word.
fn has_word(text: &str, name: &str) -> bool {
    let is_of_word = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let bytes = text.as_bytes();
    text.match_indices(name).any(|(at, _)| {
        let before = at.checked_sub(1).and_then(|at| bytes.get(at).copied());
        !is_of_word(before) && !is_of_word(bytes.get(at + name.len()).copied())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn neutral() -> Ask {
        Ask { max_tokens: Some(16), temperature: Some(0.7), seed: Some(3), logprobs: true, ..Ask::neutral() }
    }

    #[test]
    fn neutral_settings_are_sent() {
        let body = neutral().body("m", &"q".into(), true, &vec![]);
        let expected = json!({
            "model": "m", "messages": [{ "role": "user", "content": "q" }], "max_tokens": 16, "temperature": 0.7, "top_p": 1.0,
            "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0, "seed": 3,
            "logprobs": true,
        });
        assert_eq!(Value::Object(body), expected);
        let set = Ask { top_k: Some(20), prompt_ids: true, ..Ask::default() }.body("m", &"q".into(), false, &vec![]);
        assert_eq!(Value::Object(set), json!({ "model": "m", "prompt": "q", "top_k": 20, "return_token_ids": true }));
    }

    #[test]
    fn a_refused_field_is_changed_where_nothing_is_lost_unsaid() {
        let change = |found: &str| neutral().change(found, &vec![], false);
        let gone = |name| Some((name, Instead::Nothing));
        assert_eq!(change("Unrecognized request argument supplied: min_p"), gone("min_p"));
        assert_eq!(change("body.repetition_penalty: Extra inputs are not permitted"), gone("repetition_penalty"));
        assert_eq!(change("Unsupported parameter: 'seed'"), gone("seed"));
        assert_eq!(change("logprobs are not supported with reasoning models."), gone("logprobs"));
        let renamed = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.";
        assert_eq!(change(renamed), Some(("max_tokens", Instead::Name("max_completion_tokens"))));
        // First the other spelling of all tokens, then none.
        let zero = Instead::Value(json!(0));
        assert_eq!(change("top_k must be at least 0"), Some(("top_k", zero.clone())));
        assert_eq!(neutral().change("unknown field top_k", &vec![("top_k", zero)], false), gone("top_k"));
        assert_eq!(neutral().change("unknown field top_k", &vec![("top_k", Instead::Nothing)], false), None);
        // A field that the user asked for is not dropped, nor are prompts taken for refusals of a field.
        for found in [
            "temperature must be 1",
            "max_tokens is too large: 16",
            "This model's maximum context length is 16 tokens",
            "a prompt about a seed and logprobs",
            "my_top_k_setting is unknown",
        ] {
            assert_eq!(change(found), None, "{found}");
        }
        assert_eq!(Ask { top_k: Some(20), ..neutral() }.change("unknown field top_k", &vec![], false), None);
        // A field without its name, in a first request alone.
        let unnamed = "Extra inputs are not permitted";
        assert_eq!(change(unnamed), None);
        let mut changes = vec![("top_k", Instead::Nothing)];
        for name in ["min_p", "repetition_penalty"] {
            let next = neutral().change(unnamed, &changes, true);
            assert_eq!(next, gone(name));
            changes.extend(next);
        }
        assert_eq!(neutral().change(unnamed, &changes, true), None);
    }

    #[test]
    fn changes_hold_for_bodies() {
        let changes = vec![
            ("top_k", Instead::Value(json!(0))),
            ("max_tokens", Instead::Name("max_completion_tokens")),
            ("seed", Instead::Nothing),
            ("return_token_ids", Instead::Nothing),
        ];
        let body = neutral().body("m", &"q".into(), true, &changes);
        assert_eq!((&body["top_k"], &body["max_completion_tokens"]), (&json!(0), &json!(16)));
        assert!(!body.contains_key("max_tokens") && !body.contains_key("seed"));
        assert!(notice("seed", &Instead::Nothing, "no").unwrap().contains("refuses `seed`"));
        assert_eq!(notice("top_k", &Instead::Value(json!(0)), "no"), None);
    }
}
