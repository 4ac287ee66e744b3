//! Responses from a server that fails in every way.

#![cfg(feature = "server")]
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test fails by panicking, and measures waits")]

#[path = "support/several.rs"]
mod several;
mod support;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use simplemix_data::{Message, Text, Unwatched, Watch};
use simplemix_rollout::{
    Ask, CandidateReader, CandidateRow, Endpoint, Error, Failures, Finish, GenerateReport, GenerateSettings, Generator,
    Group, Judge, JudgeMode, JudgeSettings, NoPair, OnRefused, PairSettings, Prompt, PromptSettings, SamplingConfig,
    ScoreSettings, ScorerSettings, ServerClient, ServerGenerator, ServerSettings, generate, pair, score, score_all,
};
use support::{Does, Mock, REASONS, Seen, echo, faulty};

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
        share: None,
    };
    generate(&settings, &mut ServerGenerator::new(server)?, watch)
}

fn rows(dir: &Path) -> Vec<CandidateRow> {
    let groups = CandidateReader::open(&dir.join("candidates.parquet")).unwrap();
    groups.flat_map(|group| group.unwrap().rows).collect()
}

/// Fault that an attempt meets, by number: none from the fourth attempt on, and none for the number 12.
fn fault(seen: &Seen) -> usize {
    if seen.tries >= 3 { 12 } else { (seen.number + seen.tries * 5) % 13 }
}

/// Every request fails several times, each time in a different way, before it succeeds. Each failure is counted.
#[test]
fn transient_failures_are_retried_and_responses_are_the_right_ones() {
    let mock = Mock::start(|seen| faulty(fault(seen), seen));
    let dir = tempfile::tempdir().unwrap();
    let server = ServerSettings { timeout_secs: 0.5, max_reply_bytes: 5 << 18, ..settings(&mock) };
    let report = run(dir.path(), server, &mut Unwatched).unwrap();
    assert_eq!((report.prompts, report.candidates, report.refused), (12, 36, 0));
    let mut failed = Failures::new();
    for reason in mock.seen().iter().filter_map(|seen| REASONS.get(fault(seen))) {
        *failed.entry((*reason).to_owned()).or_default() += 1;
    }
    assert_eq!((&report.failed, failed.len()), (&failed, 9));
    let rows = rows(dir.path());
    for (at, row) in rows.iter().enumerate() {
        assert_eq!((row.prompt_id.as_str(), row.sample), (format!("p{}", at / 3).as_str(), at as i64 % 3));
        assert_eq!(row.response, Some(format!("question {} #{}", at / 3, row.seed.unwrap())));
        assert_eq!((row.logp, row.tokens, row.generator.as_deref()), (Some(-1.5), Some(7), Some("mock")));
    }
    let seeds: BTreeSet<u64> = rows.iter().map(|row| row.seed.unwrap()).collect();
    assert_eq!(seeds.len(), 36, "every sample has a seed of its own");
    let seen = mock.seen();
    assert!(seen.len() > 72, "{} requests", seen.len());
    let body = &seen[0].body;
    assert_eq!((&body["temperature"], &body["top_p"], &body["max_tokens"]), (&json!(0.7), &json!(0.9), &json!(16)));
    assert_eq!(
        (&body["model"], &body["logprobs"], body.get("top_k")),
        (&json!("mock"), &json!(true), Some(&json!(-1)))
    );
}

#[test]
fn a_server_that_is_too_slow_is_told_from_one_that_is_away() {
    let mock = Mock::start(|seen| Does::Waits(Duration::from_millis(300), Box::new(echo(seen))));
    let dir = tempfile::tempdir().unwrap();
    let server = ServerSettings { timeout_secs: 0.1, retries: 0, ..settings(&mock) };
    let error = run(dir.path(), server, &mut Unwatched).unwrap_err().to_string();
    assert!(error.contains("no whole reply within 0.1 s, the limit `timeout_secs`"), "{error}");
}

/// The server breaks after some responses: they are kept and not requested again, and the file is that of a run without a
/// break. Each time the server has another address.
#[test]
fn a_server_that_fails_half_way_loses_nothing() {
    let whole = tempfile::tempdir().unwrap();
    run(whole.path(), settings(&Mock::start(echo)), &mut Unwatched).unwrap();
    let expected = std::fs::read(whole.path().join("candidates.parquet")).unwrap();

    let dir = tempfile::tempdir().unwrap();
    // One request at a time, so that it is certain which responses arrived before the break.
    let one_by_one = |mock: &Mock, retries| ServerSettings { retries, concurrency: 1, ..settings(mock) };
    for (turn, good) in [3, 1, 17].into_iter().enumerate() {
        let mock = Mock::start(move |seen: &Seen| {
            if seen.number < good { echo(seen) } else { Does::Sends(500, vec![], "out of memory".to_owned()) }
        });
        let error = run(dir.path(), one_by_one(&mock, 0), &mut Unwatched).unwrap_err();
        assert!(error.to_string().contains("status 500: out of memory"), "{error}");
        let journal = std::fs::read_to_string(dir.path().join(".candidates.parquet.partial")).unwrap();
        let kept = [3, 4, 21][turn];
        let results = journal.lines().filter(|line| line.starts_with('[')).count();
        assert_eq!(results, kept, "a line for each response");
        assert!(!dir.path().join("candidates.parquet").exists());
    }
    let mock = Mock::start(echo);
    let report = run(dir.path(), one_by_one(&mock, 8), &mut Unwatched).unwrap();
    assert_eq!((report.candidates, mock.seen().len()), (36, 36 - 21));
    assert!(std::fs::read(dir.path().join("candidates.parquet")).unwrap() == expected);
    assert!(!dir.path().join(".candidates.parquet.partial").exists());
    // Called again with the output there: no further request.
    run(dir.path(), one_by_one(&mock, 8), &mut Unwatched).unwrap();
    assert_eq!(mock.seen().len(), 36 - 21);
    assert!(expected.len() > 1000);
    // Responses of another model, or through another interface, are others.
    let other = ServerSettings { model: Some("another".to_owned()), ..settings(&mock) };
    assert!(matches!(run(dir.path(), other, &mut Unwatched), Err(Error::Exists { .. })));
}

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
    assert_eq!((text.text.as_deref(), text.logp()), (Some("plain #null"), Some(-2.5)));
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

/// A chat reply with these fields in its choice.
fn replies(choice: &serde_json::Value) -> Does {
    Does::Sends(200, vec![], json!({ "choices": [choice], "usage": null }).to_string())
}

/// Keeps what a stage tells.
#[derive(Default)]
struct Told(Vec<String>);

impl Watch for Told {
    fn notice(&mut self, text: &str) {
        self.0.push(text.to_owned());
    }
}

#[test]
fn a_sample_without_text_is_kept_counted_and_left_out_of_pairs() {
    // Reasoning alone, a refusal, a tool call, nothing: by sample.
    let mock = Mock::start(|seen| {
        let seed = seen.body["seed"].as_u64().unwrap();
        match seed % 5 {
            0 => replies(
                &json!({ "message": { "content": null, "reasoning_content": "so" }, "finish_reason": "length" }),
            ),
            1 => replies(&json!({ "message": { "content": null, "refusal": "no" }, "finish_reason": "stop" })),
            2 => replies(&json!({ "message": { "content": "", "tool_calls": [{}] }, "finish_reason": "tool_calls" })),
            _ => replies(&json!({ "message": { "content": format!("text {seed}") }, "finish_reason": null })),
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let mut told = Told::default();
    let report = run(dir.path(), settings(&mock), &mut told).unwrap();
    assert_eq!((report.candidates, report.refused, mock.seen().len()), (36, 0, 36), "nothing is asked twice");
    let rows = rows(dir.path());
    let without: Vec<&CandidateRow> = rows.iter().filter(|row| row.response.is_none()).collect();
    assert!(without.len() > 10 && without.len() as u64 == report.without_text, "{report:?}");
    for row in &rows {
        let word = ["length", "stop", "tool_calls"].get((row.seed.unwrap() % 5) as usize).copied();
        assert_eq!((row.finish.as_ref().map(Finish::name), row.response.is_none()), (word, word.is_some()));
    }
    assert_eq!(report.finish["unknown"] + report.without_text, 36);
    assert_eq!(report.without_tokens, 36, "usage is null, and so are log-probabilities");
    let said = told.0.join("\n");
    assert!(said.contains("of 36 responses have no text and stay out of pairs"), "{said}");
    assert!(said.contains("tells no log-probabilities that are numbers"), "{said}");
    assert_eq!(report.notices, told.0, "what is said is in the report");

    let scored = dir.path().join("scored.parquet");
    let score_settings = ScoreSettings {
        candidates: dir.path().join("candidates.parquet"),
        output: scored.clone(),
        reference: false,
        overwrite: false,
    };
    let scorer: ScorerSettings =
        serde_json::from_str(r#"{"kind": "command", "command": "awk '{print \"{\\\"score\\\": \" NR \"}\"}'"}"#)
            .unwrap();
    let scores = score(&score_settings, &mut [scorer.open().unwrap()], &mut Unwatched).unwrap();
    assert_eq!(scores.candidates, 36 - report.without_text);
    let pairs = pair(&PairSettings::new(&scored, dir.path().join("on.jsonl")), &mut Unwatched).unwrap();
    assert_eq!(pairs.without_text, report.without_text);
    assert!(pairs.pairs > 0 && pairs.dropped.keys().all(|reason| *reason == NoPair::TooFew), "{pairs:?}");
}

#[test]
fn an_error_in_a_reply_counts_as_its_status() {
    // Permanent: not tried again, and a refusal where refusals are skipped.
    let error = |code: u16| json!({ "error": { "message": "99999 tokens asked", "code": code } }).to_string();
    let mock = Mock::start(move |_| Does::Sends(200, vec![], error(400)));
    let dir = tempfile::tempdir().unwrap();
    let server = ServerSettings { concurrency: 1, ..settings(&mock) };
    let said = run(dir.path(), server.clone(), &mut Unwatched).unwrap_err().to_string();
    assert!(said.contains("error 400 in the reply: 99999 tokens asked") && mock.seen().len() == 1, "{said}");
    // All prompts refused: a failure, which asks again when it is called again.
    let skip = ServerSettings { on_refused: OnRefused::Skip, ..server };
    for turn in 1..3 {
        let mut told = Told::default();
        let error = run(dir.path(), skip.clone(), &mut told).unwrap_err();
        let said = error.to_string();
        assert!(said.contains("no response with text to any of 12 prompts: 36 refused"), "{said}");
        assert!(!error.is_input() && told.0[0].contains("99999 tokens asked"), "{:?}", told.0);
        assert_eq!(mock.seen().len(), 1 + 36 * turn);
    }
    // Passing: tried again until it helps.
    let mock = Mock::start(move |seen| if seen.tries == 0 { Does::Sends(200, vec![], error(502)) } else { echo(seen) });
    let dir = tempfile::tempdir().unwrap();
    let report = run(dir.path(), settings(&mock), &mut Unwatched).unwrap();
    assert_eq!((report.candidates, mock.seen().len()), (36, 72));
    // Reasoning alone everywhere: a failure that says what helps.
    let mock = Mock::start(|_| {
        replies(&json!({ "message": { "content": null, "reasoning": "so" }, "finish_reason": "length" }))
    });
    let dir = tempfile::tempdir().unwrap();
    let said = run(dir.path(), settings(&mock), &mut Unwatched).unwrap_err().to_string();
    assert!(said.contains("ended: 36 length") && said.contains("higher `max_new_tokens`"), "{said}");
}

#[test]
fn neutral_settings_are_sent_and_what_the_server_refuses_is_named_once() {
    let mock = Mock::start(|seen| {
        let refused = ["repetition_penalty", "seed", "logprobs"].into_iter().find(|name| seen.body.get(name).is_some());
        match (refused, seen.body["top_k"].as_i64()) {
            (Some(name), _) => Does::Sends(
                400,
                vec![],
                json!({ "error": { "message": format!("Unsupported parameter: '{name}'") } }).to_string(),
            ),
            (_, Some(-1)) => Does::Sends(
                422,
                vec![],
                json!({ "detail": [{ "loc": ["body", "top_k"], "msg": "must be at least 0" }] }).to_string(),
            ),
            _ => replies(&json!({ "message": { "content": format!("text {}", seen.number) } })),
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let mut told = Told::default();
    let report = run(dir.path(), settings(&mock), &mut told).unwrap();
    assert_eq!(report.candidates, 36);
    let last = mock.seen().pop().unwrap().body;
    assert_eq!((&last["top_k"], &last["min_p"], &last["presence_penalty"]), (&json!(0), &json!(0.0), &json!(0.0)));
    assert!(last.get("seed").is_none() && last.get("repetition_penalty").is_none());
    let named = |name: &str| told.0.iter().filter(|text| text.contains(&format!("refuses `{name}`"))).count();
    assert_eq!(["seed", "repetition_penalty", "logprobs"].map(named), [1; 3], "{:?}", told.0);
    assert_eq!(told.0.len(), 3, "what was not asked for is not missed: {:?}", told.0);
    assert!(rows(dir.path()).iter().all(|row| row.seed.is_none()));
    // At most the requests that were under way were refused: the server is asked without from then on.
    assert!(mock.seen().len() <= 36 + 4 * 4, "{}", mock.seen().len());
    // A field that the user asks for is not dropped.
    let ask = Ask { repetition_penalty: Some(1.2), lenient: true, ..Ask::default() };
    let error = ServerClient::new(settings(&mock)).unwrap().ask(&"q".into(), &ask, &|| false).unwrap_err().to_string();
    assert!(error.contains("Unsupported parameter: 'repetition_penalty'"), "{error}");
}

#[test]
fn what_a_server_keeps_apart_from_a_text_is_told_once() {
    let mock = Mock::start(|seen| {
        let text = format!("text {}", seen.number);
        replies(&json!({ "message": { "content": text, "reasoning": "so" }, "finish_reason": "stop" }))
    });
    let dir = tempfile::tempdir().unwrap();
    let server = ServerSettings { logps: false, ..settings(&mock) };
    let report = run(dir.path(), server, &mut Unwatched).unwrap();
    assert_eq!((report.without_text, report.notices.len()), (0, 1), "{:?}", report.notices);
    assert!(report.notices[0].contains("keeps `reasoning` apart from the text"), "{:?}", report.notices);
}

#[test]
fn samples_that_are_all_one_text_are_told() {
    let mock = Mock::start(|seen| Does::Answers(seen.prompt()));
    let dir = tempfile::tempdir().unwrap();
    let mut told = Told::default();
    let report = run(dir.path(), settings(&mock), &mut told).unwrap();
    assert_eq!(report.identical, 12);
    assert!(told.0[0].contains("all 3 samples are one text for 12 of 12 prompts, at temperature 0.7"), "{:?}", told.0);
    let mock = Mock::start(echo);
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(run(dir.path(), settings(&mock), &mut Unwatched).unwrap().notices, Vec::<String>::new());
}

#[test]
fn compressed_replies_and_replies_after_a_mark_are_read() {
    let body = json!({ "choices": [{ "message": { "content": "a" } }] }).to_string();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, body.as_bytes()).unwrap();
    let (gzip, marked) = (gzip.finish().unwrap(), [b"\xef\xbb\xbf", body.as_bytes()].concat());
    let mock = Mock::start(move |seen| match seen.number {
        0 => Does::SendsBytes(200, vec![("content-encoding", "gzip".to_owned())], gzip.clone()),
        _ => Does::SendsBytes(200, vec![], marked.clone()),
    });
    let client = ServerClient::new(ServerSettings { endpoint: Endpoint::Chat, ..settings(&mock) }).unwrap();
    for _ in 0..2 {
        assert_eq!(client.ask(&"q".into(), &Ask::default(), &|| false).unwrap().text.as_deref(), Some("a"));
    }
    assert_eq!(mock.seen().len(), 2);
}

/// Answer of a server; by default an echo.
#[cfg(feature = "local")]
type Says = Box<dyn Fn(&Seen) -> Option<Does> + Send + Sync>;

/// The server's token ids of the first prompt, beside those of a model folder.
#[cfg(feature = "local")]
#[test]
fn token_ids_of_a_prompt_are_compared_when_a_collection_starts() {
    use simplemix_data::{Message, PairTokenizer, Text, TokenizeOptions};
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("model");
    simplemix_model::tiny::write_folder(&folder, 1).unwrap();
    let tokenizer = PairTokenizer::from_dir(&folder, TokenizeOptions::default()).unwrap();
    let ours = tokenizer.encode_prompt(&Text::Messages(vec![Message::user("question 0")])).unwrap();
    let count = ours.len();
    let told = |says: Says| {
        let mock = Mock::start(move |seen| says(seen).unwrap_or_else(|| echo(seen)));
        let dir = tempfile::tempdir().unwrap();
        let server = ServerSettings { tokenizer: Some(folder.clone()), ..settings(&mock) };
        let report = run(dir.path(), server, &mut Unwatched).unwrap();
        assert_eq!(report.candidates, 36);
        (report.notices, mock.seen())
    };
    let reply = |fields: serde_json::Value| {
        let mut body = json!({ "choices": [{ "message": { "content": "a" } }] });
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        Does::Sends(200, vec![], body.to_string())
    };
    let asks_ids = |seen: &Seen| seen.body["return_token_ids"] == true;

    let ids = ours.clone();
    let (notices, seen) = told(Box::new(move |seen| asks_ids(seen).then(|| reply(json!({ "prompt_token_ids": ids })))));
    assert_eq!((notices, seen.len()), (vec![], 37));
    assert_eq!((&seen[0].body["max_tokens"], seen.iter().filter(|seen| asks_ids(seen)).count()), (&json!(1), 1));

    let other: Vec<u32> = ours.iter().copied().chain([7]).collect();
    let expected = format!("token {count} is id 7 there, the end here, of {} and {count}", count + 1);
    let ids = other.clone();
    let (notices, _) = told(Box::new(move |seen| asks_ids(seen).then(|| reply(json!({ "prompt_token_ids": ids })))));
    assert!(notices[0].contains(&expected) && notices.len() == 1, "{notices:?}");

    // Older servers tell them at an address of their own, others at least their number.
    let (notices, seen) = told(Box::new(move |seen| {
        (seen.path == "/tokenize").then(|| Does::Sends(200, vec![], json!({ "tokens": other }).to_string()))
    }));
    assert!(notices[0].contains(&expected) && seen[1].body["messages"][0]["content"] == "question 0", "{notices:?}");
    let counted = |count: usize| {
        told(Box::new(move |seen| match seen.path.as_str() {
            "/tokenize" => Some(Does::Sends(404, vec![], String::new())),
            _ => asks_ids(seen).then(|| reply(json!({ "usage": { "prompt_tokens": count } }))),
        }))
        .0
    };
    assert_eq!(counted(count), Vec::<String>::new());
    assert!(counted(count + 3)[0].contains(&format!("{} tokens there, {count} here", count + 3)));
    let (notices, _) =
        told(Box::new(|seen| (seen.path == "/tokenize").then(|| Does::Sends(200, vec![], "{}".to_owned()))));
    assert!(notices[0].contains("tells neither token ids nor their number"), "{notices:?}");
}

#[test]
fn settings_without_a_field_are_refused() {
    let mock = Mock::start(echo);
    let sampling = SamplingConfig { suppress_tokens: Some(vec![1]), ..SamplingConfig::simplemix() };
    let mut model = ServerGenerator::new(settings(&mock)).unwrap();
    let error = model.generate(&[Prompt::new("a", "q")], &sampling, &mut |_, _| {}).unwrap_err().to_string();
    assert!(
        error.contains("`suppress_tokens` is given, expected no value with a server") && mock.seen().is_empty(),
        "{error}"
    );
    let sampling =
        SamplingConfig { repetition_penalty: Some(1.1), min_new_tokens: Some(3), ..SamplingConfig::simplemix() };
    model.generate(&[Prompt::new("a", "q")], &sampling, &mut |_, _| {}).unwrap();
    let body = &mock.seen()[0].body;
    assert_eq!((&body["repetition_penalty"], &body["min_tokens"]), (&json!(1.1), &json!(3)));
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

/// The second copy arrives while the next request waits over the same connection.
#[test]
fn a_second_copy_of_a_reply_is_no_reply_to_the_next_request() {
    let mock = Mock::start(|seen| match seen.prompt().as_str() {
        "a" => Does::Repeats("to a".to_owned(), "id of a", Duration::from_millis(30)),
        _ if seen.tries == 0 => Does::Waits(Duration::from_millis(200), Box::new(echo(seen))),
        _ => echo(seen),
    });
    let client = ServerClient::new(settings(&mock)).unwrap();
    let ask = |text: &str| client.ask(&Text::Messages(vec![Message::user(text)]), &Ask::default(), &|| false).unwrap();
    assert_eq!(ask("a").text.as_deref(), Some("to a"));
    assert_eq!(ask("b").text.as_deref(), Some("b #null"));
    assert_eq!(client.failures(), [("repeated reply".to_owned(), 1)].into());
    assert_eq!(ask("c").text.as_deref(), Some("c #null"), "the late reply to b went with its connection");
}

#[test]
fn a_server_whose_replies_have_one_id_is_known_after_one_more_request() {
    let mock = Mock::start(|seen| {
        Does::Sends(
            200,
            vec![],
            json!({
                "id": "chatcmpl-1", "choices": [{ "message": { "content": seen.prompt() } }],
            })
            .to_string(),
        )
    });
    let client = ServerClient::new(settings(&mock)).unwrap();
    for text in ["a", "b", "c", "d", "d", "d", "d"] {
        let reply = client.ask(&Text::Messages(vec![Message::user(text)]), &Ask::default(), &|| false).unwrap();
        assert_eq!(reply.text.as_deref(), Some(text));
    }
    assert_eq!((mock.seen().len(), client.failures()), (8, [("repeated reply".to_owned(), 1)].into()));
}

#[test]
fn endless_replies_are_not_read() {
    let mock = Mock::start(|_| Does::Sends(200, vec![], "x".repeat(100_000)));
    let client = ServerClient::new(ServerSettings { max_reply_bytes: 1000, ..settings(&mock) }).unwrap();
    let error = client.ask(&"q".into(), &Ask::default(), &|| false).unwrap_err().to_string();
    assert!(error.contains("larger than request limit: 1000"), "{error}");
    // Another attempt may get an answer: a gateway sent this one.
    assert_eq!(mock.seen().len(), 9);
    assert_eq!(client.failures(), [("reply too large".to_owned(), 9)].into());
    assert!(client.failures().is_empty(), "each is told once");
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
