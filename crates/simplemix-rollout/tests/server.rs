//! Responses from a server that fails in every way.

#![cfg(feature = "server")]
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test fails by panicking, and measures waits")]

mod support;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use simplemix_data::{Unwatched, Watch};
use simplemix_rollout::{
    Ask, CandidateReader, CandidateRow, Endpoint, Error, GenerateReport, GenerateSettings, Generator, Group, Judge,
    JudgeMode, JudgeSettings, OnRefused, Prompt, PromptSettings, SamplingConfig, ServerClient, ServerGenerator,
    ServerSettings, generate, score_all,
};
use support::{Does, Mock, Seen, echo};

const KEY: &str = "sk-secret-0123456789abcdef";

/// Short waits, and a variable without a key.
fn settings(mock: &Mock) -> ServerSettings {
    ServerSettings {
        model: Some("mock".to_owned()),
        api_key_env: "SIMPLEMIX_TEST_NO_KEY".to_owned(),
        max_wait_secs: 0.02,
        concurrency: 4,
        ..ServerSettings::new(mock.url())
    }
}

fn run(dir: &Path, server: ServerSettings, watch: &mut dyn Watch) -> Result<GenerateReport, Error> {
    let prompts: String = (0..12).map(|i| format!("{{\"id\": \"p{i}\", \"prompt\": \"question {i}\"}}\n")).collect();
    std::fs::write(dir.join("prompts.jsonl"), prompts).unwrap();
    let settings = GenerateSettings {
        prompts: PromptSettings { files: vec![dir.join("prompts.jsonl")], messages: true, ..PromptSettings::default() },
        sampling: SamplingConfig { samples: 3, seed: 5, max_new_tokens: 16, ..SamplingConfig::simplemix() },
        output: dir.join("candidates.parquet"),
        overwrite: false,
    };
    generate(&settings, &mut ServerGenerator::new(server)?, watch)
}

fn rows(dir: &Path) -> Vec<CandidateRow> {
    let groups = CandidateReader::open(&dir.join("candidates.parquet")).unwrap();
    groups.flat_map(|group| group.unwrap().rows).collect()
}

/// Every request fails several times, each time in a different way, before it succeeds.
#[test]
fn transient_failures_are_retried_and_responses_are_the_right_ones() {
    let mock = Mock::start(|seen| {
        let words = |status| Does::Sends(status, vec![], r#"{"error": {"message": "later"}}"#.to_owned());
        let body = |text: &str| Does::Sends(200, vec![], text.to_owned());
        match (seen.tries, (seen.number + seen.tries * 5) % 11) {
            (3.., _) => echo(seen),
            (_, 0) => words(500),
            (_, 1) => words(503),
            (_, 2) => Does::HangsUp,
            (_, 3) => Does::CutsOff,
            (_, 4) => body("{\"choices\": [{\"message\""),
            (_, 5) => body("<html>busy</html>"),
            (_, 6) => body(r#"{"choices": []}"#),
            (_, 7) => body(r#"{"choices": [{"message": {"content": "a"}}, {"message": {"content": "b"}}]}"#),
            (_, 8) => Does::Sends(429, vec![("retry-after", "0".to_owned())], String::new()),
            (_, 9) => Does::Waits(Duration::from_millis(700), Box::new(echo(seen))),
            _ => echo(seen),
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let server = ServerSettings { timeout_secs: 0.5, ..settings(&mock) };
    let report = run(dir.path(), server, &mut Unwatched).unwrap();
    assert_eq!((report.prompts, report.candidates, report.refused), (12, 36, 0));
    let rows = rows(dir.path());
    for (at, row) in rows.iter().enumerate() {
        assert_eq!((row.prompt_id.as_str(), row.sample), (format!("p{}", at / 3).as_str(), at as i64 % 3));
        assert_eq!(row.response, format!("question {} #{}", at / 3, row.seed.unwrap()));
        assert_eq!((row.logp, row.tokens, row.generator.as_deref()), (Some(-1.5), Some(7), Some("mock")));
    }
    let seeds: BTreeSet<i64> = rows.iter().map(|row| row.seed.unwrap()).collect();
    assert_eq!(seeds.len(), 36, "every sample has a seed of its own");
    let seen = mock.seen();
    assert!(seen.len() > 72, "{} requests", seen.len());
    let body = &seen[0].body;
    assert_eq!((&body["temperature"], &body["top_p"], &body["max_tokens"]), (&json!(0.7), &json!(0.9), &json!(16)));
    assert_eq!((&body["model"], &body["logprobs"], body.get("top_k")), (&json!("mock"), &json!(true), None));
}

/// The server breaks after some responses: they are kept and not requested again, and the file is that of a run without a
/// break.
#[test]
fn a_server_that_fails_half_way_loses_nothing() {
    let whole = tempfile::tempdir().unwrap();
    run(whole.path(), settings(&Mock::start(echo)), &mut Unwatched).unwrap();
    let expected = std::fs::read(whole.path().join("candidates.parquet")).unwrap();

    let dir = tempfile::tempdir().unwrap();
    for (turn, good) in [3, 1, 17].into_iter().enumerate() {
        let mock = Mock::start(move |seen: &Seen| {
            if seen.number < good { echo(seen) } else { Does::Sends(500, vec![], "out of memory".to_owned()) }
        });
        // The key depends on the address, so every turn must look like the same server.
        let error = at_one_address(dir.path(), &mock, 0).unwrap_err();
        assert!(error.to_string().contains("status 500: out of memory"), "{error}");
        let journal = std::fs::read_to_string(dir.path().join(".candidates.parquet.partial")).unwrap();
        let kept = [3, 4, 21][turn];
        assert_eq!(journal.lines().count(), 1 + kept, "a header, and a line for each response");
        assert!(!dir.path().join("candidates.parquet").exists());
    }
    let mock = Mock::start(echo);
    let report = at_one_address(dir.path(), &mock, 8).unwrap();
    assert_eq!((report.candidates, mock.seen().len()), (36, 36 - 21));
    let texts = |rows: Vec<CandidateRow>| rows.into_iter().map(|row| row.response).collect::<Vec<_>>();
    assert_eq!(texts(rows(dir.path())), texts(rows(whole.path())));
    assert!(!dir.path().join(".candidates.parquet.partial").exists());
    // Called again with the output there: no further request.
    at_one_address(dir.path(), &mock, 8).unwrap();
    assert_eq!(mock.seen().len(), 36 - 21);
    assert!(expected.len() > 1000);
}

/// Runs through a relay with a fixed address, behind which servers change.
fn at_one_address(dir: &Path, mock: &Mock, retries: u32) -> Result<GenerateReport, Error> {
    let target = mock.address;
    let relay = RELAY.get_or_init(|| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let target: std::sync::Arc<std::sync::Mutex<std::net::SocketAddr>> =
            std::sync::Arc::new(std::sync::Mutex::new(target));
        let of_thread = target.clone();
        std::thread::spawn(move || {
            for from in listener.incoming().map_while(Result::ok) {
                let to = std::net::TcpStream::connect(*of_thread.lock().unwrap()).unwrap();
                let (mut from_too, mut to_too) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                let (mut from, mut to) = (from, to);
                std::thread::spawn(move || std::io::copy(&mut from, &mut to));
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut to_too, &mut from_too);
                    let _ = from_too.shutdown(std::net::Shutdown::Both);
                });
            }
        });
        (address, target)
    });
    *relay.1.lock().unwrap() = target;
    // One request at a time, so that it is certain which responses arrived before the break.
    let mut server = ServerSettings { retries, concurrency: 1, ..settings(mock) };
    server.url = format!("http://{}/v1", relay.0);
    run(dir, server, &mut Unwatched)
}

static RELAY: std::sync::OnceLock<(std::net::SocketAddr, std::sync::Arc<std::sync::Mutex<std::net::SocketAddr>>)> =
    std::sync::OnceLock::new();

#[test]
fn rate_limits_hold_for_all_requests_together() {
    let mock = Mock::start(|seen| match seen.number {
        0 => Does::Sends(429, vec![("retry-after-ms", "400".to_owned())], r#"{"error": "slow down"}"#.to_owned()),
        _ => echo(seen),
    });
    let dir = tempfile::tempdir().unwrap();
    let before = Instant::now();
    let server = ServerSettings { max_wait_secs: 5.0, concurrency: 1, ..settings(&mock) };
    run(dir.path(), server, &mut Unwatched).unwrap();
    assert!(before.elapsed() >= Duration::from_millis(400));

    // A limit that is used up is respected before the server refuses.
    let mock = Mock::start(|seen| {
        let body = json!({ "choices": [{ "message": { "content": "x" } }] }).to_string();
        let left = usize::from(seen.number != 5);
        Does::Sends(
            200,
            vec![
                ("x-ratelimit-remaining-requests", left.to_string()),
                ("x-ratelimit-reset-requests", "300ms".to_owned()),
            ],
            body,
        )
    });
    let dir = tempfile::tempdir().unwrap();
    let before = Instant::now();
    let server = ServerSettings { max_wait_secs: 5.0, concurrency: 1, ..settings(&mock) };
    run(dir.path(), server, &mut Unwatched).unwrap();
    assert!(before.elapsed() >= Duration::from_millis(300));
    assert_eq!(mock.seen().len(), 36, "none was refused");
}

#[test]
fn permanent_refusals_are_not_retried() {
    for status in [400, 401, 403, 404, 307] {
        let mock =
            Mock::start(move |_| Does::Sends(status, vec![("location", "/elsewhere".to_owned())], "no".to_owned()));
        let dir = tempfile::tempdir().unwrap();
        let server = ServerSettings { concurrency: 1, ..settings(&mock) };
        let error = run(dir.path(), server, &mut Unwatched).unwrap_err().to_string();
        assert!(error.contains(&format!("status {status}: no")) && error.contains("prompt `p0`"), "{error}");
        assert_eq!(mock.seen().len(), 1);
    }
    // With `skip` a prompt that is too long does not end the run.
    let mock = Mock::start(|seen| match seen.prompt().as_str() {
        "question 3" => Does::Sends(400, vec![], r#"{"message": "maximum context length"}"#.to_owned()),
        _ => echo(seen),
    });
    let dir = tempfile::tempdir().unwrap();
    let server = ServerSettings { on_refused: OnRefused::Skip, ..settings(&mock) };
    let report = run(dir.path(), server, &mut Unwatched).unwrap();
    assert_eq!((report.candidates, report.refused), (33, 3));
    assert!(rows(dir.path()).iter().all(|row| row.prompt_id != "p3"));
}

/// The key is in the header of requests and nowhere else.
#[test]
fn the_key_is_sent_and_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    // Only this test uses a variable of this name.
    #[expect(unsafe_code, reason = "no other thread of this test reads the environment at this moment")]
    unsafe {
        std::env::set_var("SIMPLEMIX_TEST_KEY", KEY);
    }
    let mock = Mock::start(|seen| match seen.number {
        0..9 => echo(seen),
        _ => Does::Sends(401, vec![], format!(r#"{{"error": {{"message": "Incorrect key: {KEY}"}}}}"#)),
    });
    let server = ServerSettings { api_key_env: "SIMPLEMIX_TEST_KEY".to_owned(), concurrency: 1, ..settings(&mock) };
    let error = run(dir.path(), server.clone(), &mut Unwatched).unwrap_err();
    assert_eq!(mock.seen()[0].authorization, Some(format!("Bearer {KEY}")));
    let shown = format!("{error} {error:?} {server:?} {:?}", ServerGenerator::new(server.clone()).unwrap());
    assert!(shown.contains("Incorrect key: [key]"), "{shown}");
    let mut texts = vec![shown, serde_json::to_string(&server).unwrap()];
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        texts.push(String::from_utf8_lossy(&std::fs::read(entry.unwrap().path()).unwrap()).into_owned());
    }
    assert!(texts.len() > 3 && texts.iter().all(|text| !text.contains(KEY)));
}

#[test]
fn stopping_keeps_finished_responses() {
    struct After(Cell<u32>);
    impl Watch for After {
        fn progress(&mut self, _: &str, done: u64, _: u64) {
            self.0.set(done as u32);
        }
        fn is_interrupted(&self) -> bool {
            self.0.get() >= 10
        }
    }
    let mock = Mock::start(|seen| Does::Waits(Duration::from_millis(5), Box::new(echo(seen))));
    let dir = tempfile::tempdir().unwrap();
    let ended = run(dir.path(), settings(&mock), &mut After(Cell::new(0)));
    assert!(matches!(ended, Err(Error::Interrupted)));
    let asked = mock.seen().len();
    assert!((10..20).contains(&asked), "{asked} requests");
    run(dir.path(), settings(&mock), &mut Unwatched).unwrap();
    // Only requests that were running at the end are sent again.
    assert!(mock.seen().len() <= 36 + 4 + 4, "{} requests", mock.seen().len());
}

#[test]
fn models_are_found_and_interfaces_chosen() {
    let mock = Mock::start(|seen| match seen.path.as_str() {
        "/v1/models" => Does::Answers("only".to_owned()),
        _ => echo(seen),
    });
    let client = ServerClient::new(ServerSettings { model: None, ..settings(&mock) }).unwrap();
    assert_eq!(client.model(), "only");
    let ask = Ask { logprobs: true, top_logprobs: 3, ..Ask::default() };
    let text = client.ask(&"plain".into(), &ask, &|| false).unwrap();
    assert_eq!((text.text.as_str(), text.logp()), ("plain #null", Some(-2.5)));
    let last = mock.seen().pop().unwrap();
    assert_eq!((last.path.as_str(), &last.body["logprobs"]), ("/v1/completions", &json!(3)));

    let extra = json!({ "top_logprobs": null, "chat_template_kwargs": { "thinking": false } });
    let chat =
        ServerSettings { endpoint: Endpoint::Chat, extra: extra.as_object().unwrap().clone(), ..settings(&mock) };
    ServerClient::new(chat).unwrap().ask(&"plain".into(), &ask, &|| false).unwrap();
    let last = mock.seen().pop().unwrap();
    assert_eq!((last.path.as_str(), last.body.get("top_logprobs")), ("/v1/chat/completions", None));
    assert_eq!(last.body["chat_template_kwargs"]["thinking"], false);

    let none = Mock::start(|_| Does::Sends(200, vec![], r#"{"data": [{"id": "a"}, {"id": "b"}]}"#.to_owned()));
    let error = ServerClient::new(ServerSettings { model: None, ..settings(&none) }).unwrap_err().to_string();
    assert!(error.contains("has the models a, b; name the model to use in `model`"), "{error}");
}

#[test]
fn tools_and_calls_of_a_prompt_reach_the_server() {
    let mock = Mock::start(|_| Does::Answers("four".to_owned()));
    let dir = tempfile::tempdir().unwrap();
    let call = json!([{"type": "function", "function": {"name": "die", "arguments": {}}}]);
    let row = json!({
        "prompt": [
            {"role": "user", "content": "Roll."},
            {"role": "assistant", "content": null, "tool_calls": call},
            {"role": "tool", "name": "die", "content": [{"type": "text", "text": "4"}]},
        ],
        "tools": json!([{"type": "function", "function": {"name": "die"}}]).to_string(),
        "chat_template_kwargs": {"enable_thinking": false, "level": "low"},
    });
    let path = dir.path().join("prompts.jsonl");
    std::fs::write(&path, row.to_string()).unwrap();
    let prompts = PromptSettings { files: vec![path], ..PromptSettings::default() }.prompts().unwrap();
    let mut server = settings(&mock);
    server.extra.insert("chat_template_kwargs".to_owned(), json!({"level": "high"}));
    let sampling = SamplingConfig { samples: 1, ..SamplingConfig::simplemix() };
    ServerGenerator::new(server).unwrap().generate(&prompts, &sampling, &mut |_, _| {}).unwrap();
    let body = mock.seen().pop().unwrap().body;
    assert_eq!(body["tools"][0]["function"]["name"], "die");
    assert_eq!(body["chat_template_kwargs"], json!({"enable_thinking": false, "level": "high"}));
    assert_eq!(body["messages"][1], json!({"role": "assistant", "tool_calls": call}));
    assert_eq!(body["messages"][2], json!({"role": "tool", "content": "4", "name": "die"}));
}

#[test]
fn endless_replies_are_not_read() {
    let mock = Mock::start(|_| Does::Sends(200, vec![], "x".repeat(100_000)));
    let client = ServerClient::new(ServerSettings { max_reply_bytes: 1000, ..settings(&mock) }).unwrap();
    assert!(client.ask(&"q".into(), &Ask::default(), &|| false).is_err());
    assert_eq!(mock.seen().len(), 1);
}

/// A judge that prefers longer responses, and the first of two equal ones: comparing in both orders cancels that.
#[test]
fn judges_rate_or_compare_in_both_orders() {
    let mock = Mock::start(|seen| {
        let prompt = seen.prompt();
        let part = |open: &str, close: &str| {
            let at = prompt.find(open).unwrap() + open.len();
            prompt[at..].split(close).next().unwrap().trim().len()
        };
        let verdict = if prompt.contains("<response A>") {
            let (a, b) = (part("<response A>", "</response A>"), part("<response B>", "</response B>"));
            if a >= b { "[[A]]" } else { "[[B]]" }.to_owned()
        } else {
            format!("Hm. [[{}]]", part("<response>", "</response>"))
        };
        Does::Answers(verdict)
    });
    let group = |id: &str, responses: &[&str]| Group {
        prompt: Prompt::new(id, "Which?"),
        responses: responses.iter().map(|text| (*text).to_owned()).collect(),
    };
    let groups = [group("a", &["xx", "x", "yy"]), group("b", &["z"]), group("c", &[&"z".repeat(11)])];
    let judge = |mode| {
        let settings = JudgeSettings { mode, ..JudgeSettings::new(settings(&mock)) };
        score_all(&mut Judge::new(settings).unwrap(), &groups).unwrap()
    };
    let scalar = judge(JudgeMode::Scalar);
    assert_eq!(scalar, [vec![Some(2.0), Some(1.0), Some(2.0)], vec![Some(1.0)], vec![None]]);
    let pairwise = judge(JudgeMode::Pairwise);
    // Four comparisons each: two won, and two against an equal response, of which each wins one.
    assert_eq!(pairwise, [vec![Some(0.75), Some(0.0), Some(0.75)], vec![None], vec![None]]);
}
