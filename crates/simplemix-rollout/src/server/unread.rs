//! Failures that a server reports in a body, whatever the status around it: errors as JSON, pages for people.

use serde_json::Value;
use simplemix_files::secret::redacted;

use super::reason::Reason;

/// Longest excerpt of a server's words, in characters.
const MOST_CHARS: usize = 300;

/// Characters of a body that are looked at for it.
const MOST_READ: usize = 1 << 14;
/// Bytes of a page that are searched for its words.
const MOST_BYTES: usize = 64 << 10;

/// A body without a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unread {
    /// Status that the error in the body names or stands for.
    pub(super) status: Option<u16>,
    /// The server's words, or what is wrong with the body.
    pub(super) found: String,
    /// Reason under which the failure is counted.
    pub(super) reason: Reason,
}

impl Unread {
    pub(super) fn new(found: impl Into<String>) -> Self {
        Self { status: None, found: redacted(&found.into()).into_owned(), reason: Reason::Unreadable }
    }
}

/// The error that a body is or holds: OpenAI's `error`, vLLM's `"object": "error"`, FastAPI's `detail`.
pub(super) fn error_in(body: &Value) -> Option<Unread> {
    let body = inner(body);
    let is_error = |value: &Value| value.is_string() || value.as_object().is_some_and(|fields| !fields.is_empty());
    let error =
        [&body["error"], &body["choices"][0]["error"], &body["detail"]].into_iter().find(|error| is_error(error));
    let error = error.or_else(|| (body["object"] == "error" || body["detail"].is_array()).then_some(body))?;
    let status = status_of(error).or_else(|| status_of(body));
    let reason = Reason::InReply(status);
    Some(Unread { status, found: format!("{reason}: {}", words(body)), reason })
}

/// The object in a list of one, as Google sends errors.
fn inner(body: &Value) -> &Value {
    match body.as_array().map(Vec::as_slice) {
        Some([only]) => only,
        _ => body,
    }
}

/// Status that an error names, or that its type stands for.
fn status_of(error: &Value) -> Option<u16> {
    let number = |value: &Value| value.as_u64().or_else(|| value.as_str()?.trim().parse().ok());
    let fields = [&error["code"], &error["status"], &error["status_code"], &error["http_status"]];
    let named = fields.into_iter().filter_map(number).find(|status| (400..600).contains(status));
    if let Some(named) = named {
        return u16::try_from(named).ok();
    }
    let words = [&error["code"], &error["type"], &error["status"]].map(|value| value.as_str().unwrap_or_default());
    let words = words.join(" ").to_ascii_lowercase();
    STATUSES.iter().find(|(part, _)| words.contains(part)).map(|(_, status)| *status)
}

/// Parts of error types and codes, with the status that servers send them with.
const STATUSES: [(&str, u16); 14] = [
    ("rate_limit", 429),
    ("ratelimit", 429),
    ("quota", 429),
    ("exhausted", 429),
    ("overloaded", 503),
    ("unavailable", 503),
    ("timeout", 504),
    ("internal", 500),
    ("server_error", 500),
    ("invalid", 400),
    ("badrequest", 400),
    ("context_length", 400),
    ("content_", 400),
    ("permission", 403),
];

/// The server's words in a body: the message of an error, else the text of the body, in one short line.
pub(super) fn words(body: &Value) -> String {
    let body = inner(body);
    let fields = [
        &body["error"]["message"],
        &body["choices"][0]["error"]["message"],
        &body["message"],
        &body["detail"],
        &body["error"],
    ];
    let text = fields.into_iter().find_map(Value::as_str).map(str::to_owned);
    let text = text.or_else(|| details(&body["detail"])).unwrap_or_else(|| body.to_string());
    short(&text)
}

/// FastAPI's list of faults: the place and the message of each, without the input that it repeats.
fn details(detail: &Value) -> Option<String> {
    let fault = |fault: &Value| {
        let place: Vec<&str> = fault["loc"].as_array()?.iter().filter_map(Value::as_str).collect();
        Some(format!("{}: {}", place.join("."), fault["msg"].as_str()?))
    };
    let faults: Vec<String> = detail.as_array()?.iter().filter_map(fault).collect();
    (!faults.is_empty()).then(|| faults.join("; "))
}

/// The words of a body that may be JSON, a page or plain text.
pub(super) fn words_of_bytes(body: &[u8]) -> String {
    match super::lenient::json_of(body) {
        Ok(json) if json.is_object() || json.is_array() => words(&json),
        _ => short(&without_tags(&String::from_utf8_lossy(&body[..body.len().min(MOST_BYTES)]))),
    }
}

/// One short line: the rest is likely a page for people. Secrets are taken out before the cut, which could leave a part of one.
fn short(text: &str) -> String {
    let start: String = text.chars().take(MOST_READ).collect();
    redacted(&start).split_whitespace().collect::<Vec<_>>().join(" ").chars().take(MOST_CHARS).collect()
}

/// The text of a page, if it is one.
fn without_tags(text: &str) -> String {
    if !text.trim_start().starts_with('<') {
        return text.to_owned();
    }
    let (mut plain, mut rest) = (String::new(), text);
    while let Some((before, tag)) = rest.split_once('<') {
        plain.push_str(before);
        plain.push(' ');
        // The inside of a script or a style is no text.
        let is_called = |name: &str| tag.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
        let hidden = ["script", "style"].into_iter().find(|name| is_called(name));
        let end = hidden.and_then(|name| tag.find(&format!("</{name}"))).unwrap_or(0);
        rest = tag[end..].split_once('>').map_or("", |(_, rest)| rest);
    }
    plain + rest
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn errors_are_known_with_their_status() {
        for (body, status, found) in [
            (json!({ "error": { "message": "too long", "code": 400 } }), Some(400), "error 400 in the reply: too long"),
            (json!({ "error": { "message": "later", "code": "502" } }), Some(502), "error 502 in the reply: later"),
            (
                json!({ "error": { "message": "m", "type": "rate_limit_error" } }),
                Some(429),
                "error 429 in the reply: m",
            ),
            (
                json!({ "error": { "message": "m", "code": "context_length_exceeded" } }),
                Some(400),
                "error 400 in the reply: m",
            ),
            (json!({ "error": "not loaded", "choices": null }), None, "error in the reply: not loaded"),
            (
                json!({ "object": "error", "message": "m", "type": "BadRequestError", "code": 400 }),
                Some(400),
                "error 400 in the reply: m",
            ),
            (
                json!({ "detail": [{ "loc": ["body", "top_k"], "msg": "extra", "input": "secret" }] }),
                None,
                "error in the reply: body.top_k: extra",
            ),
            (json!([{ "error": { "code": 429, "message": "m" } }]), Some(429), "error 429 in the reply: m"),
            (
                json!({ "choices": [{ "error": { "code": 503, "message": "m" } }] }),
                Some(503),
                "error 503 in the reply: m",
            ),
        ] {
            let error = error_in(&body).unwrap();
            assert_eq!((error.status, error.found.as_str()), (status, found), "{body}");
        }
        assert_eq!(error_in(&json!({ "error": null, "choices": [] })), None);
        assert_eq!(error_in(&json!({ "error": {}, "choices": [{ "text": "a" }] })), None);
    }

    #[test]
    fn pages_are_shown_by_their_text() {
        let page =
            b"<html><head><style>a { b: c }</style></head><body><h1>502 Bad Gateway</h1><p>nginx</p></body></html>";
        assert_eq!(words_of_bytes(page), "502 Bad Gateway nginx");
        assert_eq!(words_of_bytes(b"out of memory"), "out of memory");
        assert_eq!(words_of_bytes(b"1 < 2"), "1 < 2");
        assert_eq!(words_of_bytes(&b"x ".repeat(1000)).chars().count(), MOST_CHARS);
    }
}
