//! Replies of a server, checked.

use serde::Deserialize;

use crate::generator::Finish;

/// Reply of a server: one response.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Reply {
    /// Text of the response.
    pub text: String,
    /// Reason for which the response ended.
    pub finish: Finish,
    /// Tokens of the response, if the server reports them.
    pub tokens: Option<usize>,
    /// Tokens of the prompt, if the server reports them.
    pub prompt_tokens: Option<usize>,
    /// Tokens with their log-probabilities, if they were requested and the server reports them.
    pub logps: Option<Vec<TokenLogp>>,
}

/// A token of a response with its log-probability.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TokenLogp {
    /// Text of the token.
    pub token: String,
    /// Log-probability in nats.
    pub logp: f64,
    /// Most likely tokens at the same position, with their log-probabilities.
    pub top: Vec<(String, f64)>,
}

impl Reply {
    /// Summed log-probability of the tokens; `None` without tokens.
    pub fn logp(&self) -> Option<f64> {
        self.logps.as_ref().filter(|logps| !logps.is_empty()).map(|logps| logps.iter().map(|token| token.logp).sum())
    }
}

#[derive(Deserialize)]
struct Body {
    choices: Vec<Choice>,
    #[serde(default)]
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Usage {
    #[serde(default)]
    completion_tokens: Option<usize>,
    #[serde(default)]
    prompt_tokens: Option<usize>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    message: Option<Message>,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    finish_reason: Option<String>,
    #[serde(default)]
    logprobs: Option<Logprobs>,
}

#[derive(Deserialize)]
struct Message {
    content: Option<String>,
}

/// Log-probabilities: chat replies have `content`, completions have the two lists.
#[derive(Deserialize)]
struct Logprobs {
    #[serde(default)]
    content: Option<Vec<ChatToken>>,
    #[serde(default)]
    tokens: Option<Vec<String>>,
    #[serde(default)]
    token_logprobs: Option<Vec<Option<f64>>>,
}

#[derive(Deserialize)]
struct ChatToken {
    token: String,
    logprob: f64,
    #[serde(default)]
    top_logprobs: Option<Vec<TopToken>>,
}

#[derive(Deserialize)]
struct TopToken {
    token: String,
    logprob: f64,
}

/// Parses a body with exactly one response. The error is a text for [`crate::Error::Server`].
pub(super) fn parse(body: &[u8], chat: bool) -> Result<Reply, String> {
    let body: Body = serde_json::from_slice(body).map_err(|error| format!("cannot parse the reply: {error}"))?;
    let prompt_tokens = body.usage.as_ref().and_then(|usage| usage.prompt_tokens);
    let usage = body.usage.and_then(|usage| usage.completion_tokens);
    let count = body.choices.len();
    let Some(choice) = body.choices.into_iter().next().filter(|_| count == 1) else {
        return Err(format!("{count} responses in the reply, expected one"));
    };
    let text = if chat { choice.message.and_then(|message| message.content) } else { choice.text };
    let text = text.ok_or("the response in the reply has no text")?;
    let finish = match choice.finish_reason.as_deref() {
        Some("length" | "max_tokens") => Finish::Length,
        _ => Finish::Stop,
    };
    let logps = choice.logprobs.map(logps).transpose()?.flatten();
    let tokens = usage.or_else(|| logps.as_ref().map(Vec::len));
    Ok(Reply { text, finish, tokens, prompt_tokens, logps })
}

fn logps(logprobs: Logprobs) -> Result<Option<Vec<TokenLogp>>, String> {
    if let Some(content) = logprobs.content {
        let top = |top: Vec<TopToken>| top.into_iter().map(|top| (top.token, top.logprob)).collect();
        let token = |token: ChatToken| TokenLogp {
            token: token.token,
            logp: token.logprob,
            top: token.top_logprobs.map(top).unwrap_or_default(),
        };
        return Ok(Some(content.into_iter().map(token).collect()));
    }
    let (Some(tokens), Some(values)) = (logprobs.tokens, logprobs.token_logprobs) else { return Ok(None) };
    if tokens.len() != values.len() {
        return Err(format!("{} log-probabilities in the reply for {} tokens", values.len(), tokens.len()));
    }
    let token = |(token, logp): (String, Option<f64>)| Some(TokenLogp { token, logp: logp?, top: Vec::new() });
    Ok(tokens.into_iter().zip(values).map(token).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_of_both_interfaces_are_parsed() {
        let chat = br#"{"choices": [{"index": 0, "message": {"role": "assistant", "content": "4"}, "finish_reason": "length",
            "logprobs": {"content": [{"token": "4", "logprob": -0.5, "top_logprobs": [{"token": "5", "logprob": -2}]}]}}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 1}}"#;
        let reply = parse(chat, true).unwrap();
        assert_eq!(
            (reply.text.as_str(), reply.finish, reply.tokens, reply.logp()),
            ("4", Finish::Length, Some(1), Some(-0.5))
        );
        assert_eq!(reply.logps.unwrap()[0].top, [("5".to_owned(), -2.0)]);
        let text = br#"{"choices": [{"text": " 4.", "finish_reason": "stop",
            "logprobs": {"tokens": [" 4", "."], "token_logprobs": [-1.0, -0.25]}}]}"#;
        let reply = parse(text, false).unwrap();
        assert_eq!((reply.text.as_str(), reply.tokens, reply.logp()), (" 4.", Some(2), Some(-1.25)));
    }

    #[test]
    fn replies_without_exactly_one_response_are_refused() {
        for (body, chat, expected) in [
            ("{\"choices\": []}", true, "0 responses"),
            ("{\"choices\": [{\"text\": \"a\"}, {\"text\": \"b\"}]}", false, "2 responses"),
            ("{\"choices\": [{\"text\": \"a\"}]}", true, "has no text"),
            ("{\"choices\": [{\"message\": {\"content\": null}}]}", true, "has no text"),
            ("{\"choices\"", true, "cannot parse"),
            ("<html>", true, "cannot parse"),
            (
                "{\"choices\": [{\"text\": \"a\", \"logprobs\": {\"tokens\": [\"a\"], \"token_logprobs\": []}}]}",
                false,
                "0 log-probabilities in the reply for 1 tokens",
            ),
        ] {
            let found = parse(body.as_bytes(), chat).unwrap_err();
            assert!(found.contains(expected), "{found}");
        }
    }
}
