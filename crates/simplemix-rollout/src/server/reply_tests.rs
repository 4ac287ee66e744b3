use super::*;

fn chat(body: &str) -> Reply {
    parse(body.as_bytes(), true).unwrap_or_else(|unread| panic!("{body}: {}", unread.found))
}

/// A chat reply with these fields in its choice.
fn choice(fields: &str) -> Reply {
    chat(&format!(r#"{{"choices": [{{{fields}}}]}}"#))
}

#[test]
fn replies_of_both_interfaces_are_parsed() {
    let reply = chat(
        r#"{"choices": [{"index": 0, "message": {"role": "assistant", "content": "4"}, "finish_reason": "length",
            "logprobs": {"content": [{"token": "4", "logprob": -0.5, "top_logprobs": [{"token": "5", "logprob": -2}]}]}}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 1}, "prompt_token_ids": [1, 2, 3]}"#,
    );
    assert_eq!((reply.text.as_deref(), reply.finish.as_ref()), (Some("4"), Some(&Finish::Length)));
    assert_eq!((reply.tokens, reply.prompt_tokens, reply.logp()), (Some(1), Some(3), Some(-0.5)));
    assert_eq!(reply.logps.unwrap()[0].top, [("5".to_owned(), -2.0)]);
    assert_eq!(reply.prompt_ids, Some(vec![1, 2, 3]));
    // Each interface in the form of the other one.
    assert_eq!(choice(r#""text": "a""#).text.as_deref(), Some("a"));
    let message = br#"{"choices": [{"message": {"content": "a"}}]}"#;
    assert_eq!(parse(message, false).unwrap().text.as_deref(), Some("a"));
    let text = br#"{"model": "m", "choices": [{"text": " 4.", "finish_reason": "stop", "prompt_token_ids": [7], "token_ids": [5, 6],
        "logprobs": {"tokens": [" 4", "."], "token_logprobs": [-1.0, -0.25]}}]}"#;
    let reply = parse(text, false).unwrap();
    assert_eq!((reply.text.as_deref(), reply.tokens, reply.logp()), (Some(" 4."), Some(2), Some(-1.25)));
    assert_eq!((reply.prompt_ids, reply.response_ids), (Some(vec![7]), Some(vec![5, 6])));
    assert_eq!(reply.model.as_deref(), Some("m"));
}

#[test]
fn a_response_without_text_is_one_with_its_finish_reason() {
    for (fields, word) in [
        (r#""message": {"content": null, "reasoning_content": "so"}, "finish_reason": "length""#, Some("length")),
        (r#""message": {"content": "", "reasoning": "so"}, "finish_reason": "length""#, Some("length")),
        (r#""message": {"content": null, "refusal": "I cannot."}, "finish_reason": "stop""#, Some("stop")),
        (
            r#""message": {"content": "", "tool_calls": [{"id": "1"}]}, "finish_reason": "tool_calls""#,
            Some("tool_calls"),
        ),
        (r#""message": {"content": [{"type": "thinking", "thinking": "so"}]}, "finish_reason": null"#, None),
        (r#""message": {"content": null}"#, None),
    ] {
        let reply = choice(fields);
        assert_eq!((reply.text, reply.finish.as_ref().map(Finish::name)), (None, word), "{fields}");
    }
    let both = choice(r#""message": {"content": "a", "reasoning_content": "so", "tool_calls": []}"#);
    assert_eq!((both.text.as_deref(), &both.apart[..]), (Some("a"), &["reasoning_content"][..]));
    // An empty answer is an answer.
    assert_eq!(choice(r#""message": {"content": "", "tool_calls": []}"#).text.as_deref(), Some(""));
    let parts = choice(
        r#""message": {"content": [{"type": "thinking", "thinking": "so"}, {"type": "text", "text": "a"}, {"text": "b"}]}"#,
    );
    assert_eq!(parts.text.as_deref(), Some("ab"));
    let words = ["content_filter", "abort", "eos_token"];
    let finish = |word: &str| choice(&format!(r#""message": {{"content": "a"}}, "finish_reason": "{word}""#)).finish;
    assert!(words.iter().all(|word| finish(word).is_some_and(|finish| finish.name() == *word)));
}

#[test]
fn what_is_absent_or_no_number_is_absent() {
    let with = |logprobs: &str| choice(&format!(r#""message": {{"content": "a"}}, "logprobs": {logprobs}"#));
    for logprobs in [
        "null",
        r#"{"content": []}"#,
        r#"{"content": null, "refusal": null}"#,
        r#"{"content": [{"token": "a", "logprob": null, "top_logprobs": []}, {"token": "b", "logprob": -0.5}]}"#,
        r#"{"content": [{"token": "a", "logprob": -Infinity}]}"#,
        r#"{"content": [{"token": "a", "logprob": NaN}]}"#,
        r#"{"content": [{"token": "a", "logprob": -9999.0}]}"#,
        r#"{"tokens": ["a", "b"], "token_logprobs": [null, -1]}"#,
    ] {
        let reply = with(logprobs);
        assert_eq!((reply.text.as_deref(), reply.logp()), (Some("a"), None), "{logprobs}");
    }
    let old = with(r#"{"tokens": ["a", "b"], "token_logprobs": [-0.25, -0.5], "top_logprobs": null}"#);
    assert_eq!(old.logp(), Some(-0.75));
    for usage in ["null", "{}", r#"{"completion_tokens": null}"#] {
        let reply = chat(&format!(r#"{{"choices": [{{"message": {{"content": "a"}}}}], "usage": {usage}}}"#));
        assert_eq!((reply.tokens, reply.prompt_tokens), (None, None));
    }
    // Names of numbers in texts stay.
    let text = choice(
        r#""message": {"content": "NaN \" Infinity é"}, "logprobs": {"content": [{"token": "a", "logprob": NaN}]}"#,
    );
    assert_eq!(text.text.as_deref(), Some("NaN \" Infinity é"));
}

#[test]
fn bytes_around_a_reply_and_event_streams_are_read() {
    let body = r#"{"choices": [{"message": {"content": "a"}, "finish_reason": "stop"}]}"#;
    assert_eq!(chat(&format!("\u{feff}{body}")).text.as_deref(), Some("a"));
    assert_eq!(chat(&format!("\n\n   {body}\n")).text.as_deref(), Some("a"));
    let stream = r#": keep-alive

data: {"choices": [{"delta": {"role": "assistant", "content": ""}, "finish_reason": null}]}

data: {"choices": [{"delta": {"content": "Hel"}, "logprobs": {"content": [{"token": "Hel", "logprob": -1}]}}]}

data: {"choices": [{"delta": {"content": "lo."}, "logprobs": {"content": [{"token": "lo.", "logprob": -2}]}, "finish_reason": "stop"}]}

data: {"choices": [], "usage": {"completion_tokens": 2, "prompt_tokens": 5}}

data: [DONE]
"#;
    let reply = chat(stream);
    assert_eq!(
        (reply.text.as_deref(), reply.finish.clone(), reply.logp()),
        (Some("Hello."), Some(Finish::Stop), Some(-3.0))
    );
    assert_eq!((reply.tokens, reply.prompt_tokens), (Some(2), Some(5)));
    let text = "data: {\"choices\": [{\"text\": \"a\"}]}\n\ndata: {\"choices\": [{\"text\": \"b\", \"finish_reason\": \"length\"}]}\n\n";
    assert_eq!(parse(text.as_bytes(), false).unwrap().text.as_deref(), Some("ab"));
    let thinks = "data: {\"choices\": [{\"delta\": {\"reasoning\": \"so\", \"content\": \"\"}, \"finish_reason\": \"length\"}]}\n\n";
    assert_eq!(chat(thinks).text, None);
    let unread = |stream: &str| parse(stream.as_bytes(), true).unwrap_err();
    assert_eq!(
        unread("data: {\"choices\": [{\"delta\": {\"content\": \"a\"}}]}\n\n").found,
        "an event stream that breaks off"
    );
    let error = unread("data: {\"error\": {\"message\": \"too long\", \"code\": 400}}\n\n");
    assert_eq!((error.status, error.found.as_str()), (Some(400), "error 400 in the reply: too long"));
}

#[test]
fn replies_without_a_response_show_the_servers_words() {
    for (body, chat, status, expected) in [
        (r#"{"choices": []}"#, true, None, "0 responses"),
        (r#"{"choices": [{"index": 0}]}"#, true, None, "neither a message nor a text in the reply: {"),
        (r#"{"choices": [{"text": "a"}, {"text": "b"}]}"#, false, None, "2 responses"),
        (
            r#"{"choices": null, "error": {"message": "quota exceeded for model m"}}"#,
            true,
            None,
            "quota exceeded for model m",
        ),
        (
            r#"{"error": {"message": "99999 tokens asked", "code": 400}}"#,
            true,
            Some(400),
            "error 400 in the reply: 99999 tokens asked",
        ),
        (
            r#"{"choices": [{"message": {"content": null}}], "error": {"message": "m", "code": 502}}"#,
            true,
            Some(502),
            "m",
        ),
        ("{\"choices\"", true, None, "not a reply but `{\"choices\"`"),
        ("<html><body>Please log in</body></html>", true, None, "not a reply but `Please log in`"),
        (
            r#"{"choices": [{"text": "a", "logprobs": {"tokens": ["a"], "token_logprobs": []}}]}"#,
            false,
            None,
            "0 log-probabilities in the reply for 1 tokens",
        ),
    ] {
        let unread = parse(body.as_bytes(), chat).unwrap_err();
        assert!(unread.found.contains(expected) && unread.status == status, "{unread:?}");
    }
}
