//! Judges and preference metrics as a user runs them, with tiny models and a server of the tests' own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::good_runs::succeeds;
use crate::server::{Does, Mock};
use crate::{Dir, exists, stderr};

fn value(dir: &Dir, name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(dir.path(name)).unwrap()).unwrap()
}

/// Responses of a model to `count` questions.
fn outputs(dir: &Dir, name: &str, generator: &str, count: usize, answer: impl Fn(usize) -> String) {
    let row = |i| json!({"instruction": format!("question {i}"), "output": answer(i), "generator": generator, "dataset": "koala"});
    dir.write(name, json!((0..count).map(row).collect::<Vec<_>>()).to_string());
}

/// A judge that prefers the longer output: the probability of its token is 0.75. Requests beyond `patience` are refused
/// for good.
fn server(patience: usize) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let count = count.clone();
            std::thread::spawn(move || answer(stream, &count, patience));
        }
    });
    (url, asked)
}

fn answer(mut stream: TcpStream, asked: &AtomicUsize, patience: usize) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 || line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((body["max_tokens"].as_u64(), body["top_logprobs"].as_u64()), (Some(1), Some(5)), "{body}");
    let user = body["messages"][1]["content"].as_str().unwrap();
    let outputs: Vec<&str> =
        user.split("\"output\": \"\"\"").skip(1).map(|rest| rest.split("\"\"\"").next().unwrap()).collect();
    let (likely, other) = if outputs[0].len() > outputs[1].len() { ("m", "M") } else { ("M", "m") };
    let top = json!([
        {"token": likely, "logprob": 0.6f64.ln()}, {"token": other, "logprob": 0.2f64.ln()}, {"token": "The", "logprob": -3.0},
    ]);
    let reply = json!({
        "choices": [{"message": {"role": "assistant", "content": likely}, "finish_reason": "length",
            "logprobs": {"content": [{"token": likely, "logprob": 0.6f64.ln(), "top_logprobs": top}]}}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 1},
    })
    .to_string();
    let (status, reply) = match asked.fetch_add(1, Ordering::SeqCst) {
        0 => ("503 Service Unavailable", "{}".to_owned()),
        number if number <= patience => ("200 OK", reply),
        _ => ("400 Bad Request", "{\"error\":{\"message\":\"no more\"}}".to_owned()),
    };
    let _ = write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{reply}",
        reply.len()
    );
}

#[test]
fn equal_responses_are_draws_without_a_request() {
    let dir = Dir::new();
    outputs(&dir, "m.json", "mine", 6, |i| format!("same {i}"));
    let (url, asked) = server(100);
    let args =
        ["eval", "judge", "--outputs", "m.json", "--baseline", "m.json", "--server", &url, "--server-model", "j"];
    let said = succeeds(&dir, &args);
    assert!(said.contains("6 draws of equal responses, without a question"), "{said}");
    assert!(said.contains("mine: win rate 50.00 ± 0.00"), "{said}");
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[test]
fn a_judge_that_thinks_is_told_which_limit_to_raise() {
    let dir = Dir::new();
    outputs(&dir, "base.json", "base", 2, |i| format!("a {i}"));
    outputs(&dir, "m.json", "mine", 2, |i| format!("b {i}"));
    let mock = Mock::start(|seen| {
        let (text, finish) = match seen.body["max_tokens"].as_u64() {
            Some(1) => (Value::Null, "length"),
            _ => (json!("<think>m or M?</think>\n\n**M**"), "stop"),
        };
        let message = json!({"role": "assistant", "content": text, "reasoning_content": "m or M?"});
        let choice = json!({"index": 0, "message": message, "finish_reason": finish});
        Does::Sends(200, Vec::new(), json!({ "choices": [choice] }).to_string())
    });
    let url = mock.url();
    let judge =
        ["eval", "judge", "--outputs", "m.json", "--baseline", "base.json", "--server", &url, "--server-model", "j"];
    let output = dir.simplemix(&judge);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("no text within --max-tokens 1"), "{}", stderr(&output));
    assert!(mock.seen().len() <= 4, "one attempt for each request in progress: {}", mock.seen().len());
    let said = succeeds(&dir, &[&judge[..], &["--max-tokens", "64"]].concat());
    assert!(said.contains("2 verdicts of weighted_alpaca_eval_j") && !said.contains("without a preference"), "{said}");
}

#[test]
fn outputs_that_cannot_be_judged_are_refused_by_name() {
    let dir = Dir::new();
    outputs(&dir, "base.json", "base", 2, |_| "5".into());
    dir.write("answers.json", r#"[{"instruction": "question 0", "question": "x", "answer": 4}]"#);
    let row = |output: &str, generator: &str| format!(r#"{{"instruction":"question 0","output":{output}{generator}}}"#);
    let judge = |content: String, more: &[&str]| {
        dir.write("m.json", content);
        let args = ["eval", "judge", "--outputs", "m.json", "--baseline", "base.json", "--answers", "answers.json"];
        dir.simplemix(&[&args[..], more].concat())
    };
    // A byte order mark, a number, no generator: read.
    let output = judge(format!("\u{feff}[{}]", row("4", "")), &["--json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&found["models"][0]["model"], &found["models"][0]["figures"]["win_rate"]),
        (&json!("m"), &json!(100.0))
    );
    assert_eq!(
        found["notices"][0],
        "left out: 1 instructions without a response of the model, 0 without one of the baseline"
    );
    for (content, code, expected) in [
        (format!("[{}]", row("null", "")), 2, "m.json: row 0: no text in `output`, found null there"),
        (
            format!("[{}, {}]", row("4", r#","generator":"a""#), row("4", r#","generator":"b""#)),
            2,
            "--outputs m.json: responses of several models, a, b; expected those of one",
        ),
        (format!("[{}]", row("4", r#","generator":"base""#)), 2, "one name, `base`; give --name"),
        (row("4", "").replace("question 0", "question 1"), 1, "expected --answers answers.json to have some"),
    ] {
        std::fs::remove_file(dir.path("annotations.json")).ok();
        let output = judge(content, &[]);
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        assert!(stderr(&output).contains(expected), "{expected} in {}", stderr(&output));
        assert!(!exists(&dir.path("annotations.json")));
    }
    let output = judge(format!("[{}]", row("4", r#","generator":"base""#)), &["--name", "mine"]);
    assert!(crate::stdout(&output).contains("mine: win rate 100.00"), "{}", stderr(&output));
}

#[test]
fn a_server_judges_in_the_official_format_and_goes_on_after_a_failure() {
    let dir = Dir::new();
    // The responses of the model are longer, except to every third question.
    outputs(&dir, "base.json", "base", 12, |_| "x".repeat(20));
    outputs(&dir, "model.json", "model", 12, |i| "y".repeat(if i % 3 == 0 { 10 } else { 30 }));
    let args = |url: &str| {
        let text = format!(
            "eval judge --outputs model.json --baseline base.json --server {url} --server-model j --concurrency 2"
        );
        text.split(' ').map(str::to_owned).collect::<Vec<String>>()
    };
    let run = |url: &str| {
        let args = args(url);
        dir.simplemix(&args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let (url, _) = server(5);
    let output = run(&url);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("no more") && !exists(&dir.path("annotations.json")), "{}", stderr(&output));
    assert!(exists(&dir.path(".annotations.json.partial")));

    let (url, asked) = server(100);
    let output = run(&url);
    assert!(output.status.success(), "{}", stderr(&output));
    let said = crate::stdout(&output);
    assert!(
        said.contains("12 verdicts of weighted_alpaca_eval_j") && said.contains("5 of them kept from an earlier run"),
        "{said}"
    );
    assert!(
        said.contains("1200 tokens in questions, 12 in replies") && said.contains("model: win rate 58.33"),
        "{said}"
    );
    assert_eq!(asked.load(Ordering::SeqCst), 1 + 7, "the first was refused for a moment");
    assert!(!exists(&dir.path(".annotations.json.partial")));

    let rows = value(&dir, "annotations.json");
    for (i, row) in rows.as_array().unwrap().iter().enumerate() {
        let expected = if i % 3 == 0 { 1.25 } else { 1.75 };
        assert!((row["preference"].as_f64().unwrap() - expected).abs() < 1e-12, "{row}");
        assert_eq!((row["generator_1"].as_str(), row["generator_2"].as_str()), (Some("base"), Some("model")));
        assert_eq!(
            (row["dataset"].as_str(), row["annotator"].as_str()),
            (Some("koala"), Some("weighted_alpaca_eval_j"))
        );
    }
    let table = succeeds(&dir, &["eval", "alpaca", "--annotations", "annotations.json", "--bootstrap", "0"]);
    assert!(table.contains("model") && table.contains("58.33"), "{table}");
}

#[test]
fn right_answers_and_reward_models_judge_too() {
    let dir = Dir::new();
    outputs(&dir, "base.json", "base", 4, |i| format!("The answer is {}.", [0, 1, 2, 3][i]));
    outputs(&dir, "model.json", "model", 5, |_| "The answer is 1.".to_owned());
    let right: Vec<Value> = (0..3).map(|i| json!({"question": format!("question {i}"), "answer": "1"})).collect();
    dir.write("right.json", json!(right).to_string());
    let judge = ["eval", "judge", "--outputs", "model.json", "--baseline", "base.json"];
    let said = succeeds(&dir, &[&judge[..], &["--answers", "right.json", "-o", "exact.json"]].concat());
    assert!(said.contains("1 without a preference"), "{said}");
    let preferences: Vec<Option<f64>> =
        value(&dir, "exact.json").as_array().unwrap().iter().map(|row| row["preference"].as_f64()).collect();
    assert_eq!(preferences, [Some(2.0), Some(1.5), Some(2.0), None]);

    dir.model();
    dir.pairs("pairs.jsonl", "on", 8);
    let train = "train --model model --train pairs.jsonl --objective reward --learning-rate 1e-3 --output reward";
    succeeds(&dir, &train.split(' ').collect::<Vec<_>>());
    succeeds(&dir, &[&judge[..], &["--reward-model", "reward/model", "-o", "reward.json"]].concat());
    let rows = value(&dir, "reward.json");
    // Equal responses are a draw that the reward model does not see.
    assert_eq!(rows[1]["preference"].as_f64(), Some(1.5));
    for row in rows.as_array().unwrap().iter().filter(|row| !row["raw_completion"].is_null()) {
        let rewards: Vec<f64> = serde_json::from_value(row["raw_completion"]["rewards"].clone()).unwrap();
        assert!(rewards.len() == 2 && (1.0..=2.0).contains(&row["preference"].as_f64().unwrap()));
    }

    for (args, expected) in [
        (&["eval", "judge", "--outputs", "model.json", "--baseline", "base.json"][..], "--server <URL>"),
        (
            &["eval", "judge", "--outputs", "right.json", "--baseline", "base.json", "--answers", "right.json"],
            "right.json: ",
        ),
    ] {
        let output = dir.simplemix(args);
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains(expected), "{}", stderr(&output));
    }
}

/// Half a character, as Python writes it without complaint, in the files of an evaluation.
#[test]
fn a_row_that_is_no_text_costs_itself_only_and_any_of_several_answers_is_right() {
    let dir = Dir::new();
    let row =
        |i: usize, output: &str| format!(r#"{{"instruction": "question {i}", "output": "{output}", "generator": "#);
    let file = |generator: &str, said: [&str; 4]| {
        let rows: Vec<String> = (0..4).map(|i| format!("{}\"{generator}\"}}", row(i, said[i]))).collect();
        dir.write(&format!("{generator}.json"), format!("[{}]", rows.join(",")));
    };
    file("base", ["The answer is 0.", "It is 1.", "2", "3"]);
    file("model", ["The answer is 1.", "It is 1.", r"\ud83d", "1"]);
    let answers = r#"{"instruction": "question 0", "answer": ["zero", 0]}
        {"instruction": "question \udc00", "answer": "1"}
        {"instruction": "question 1", "answer": "1"}
        {"instruction": "question 3", "answer": ["7", "1"]}"#;
    dir.write("answers.jsonl", answers.replace("\n        ", "\n"));
    let judge = "eval judge --outputs model.json --baseline base.json --answers answers.jsonl -o exact.json --json";
    let told: Value = serde_json::from_str(&succeeds(&dir, &judge.split(' ').collect::<Vec<_>>())).unwrap();
    let verdicts = value(&dir, "exact.json");
    let verdicts: Vec<(&str, f64)> = verdicts
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["instruction"].as_str().unwrap(), row["preference"].as_f64().unwrap()))
        .collect();
    assert_eq!(verdicts, [("question 0", 1.0), ("question 1", 1.5), ("question 3", 2.0)]);
    let notices = told["notices"].to_string();
    for part in [
        "model.json: 1 rows left out that cannot be read: lone-surrogate 1 (first rows 2)",
        "answers.jsonl: 1 rows left out that cannot be read: lone-surrogate 1 (first rows 1)",
        "left out: 1 instructions without a response of the model",
    ] {
        assert!(notices.contains(part), "{part} is not in {notices}");
    }

    let verdict = |text: &str, p: f64| format!(r#"{{"output_1": "{text}", "output_2": "b", "preference": {p}}}"#);
    dir.write("verdicts.jsonl", [verdict("a", 2.0), verdict(r"\ud800", 1.0), verdict("c", 1.5)].join("\n"));
    let rows = succeeds(&dir, &["eval", "alpaca", "--annotations", "verdicts.jsonl", "--bootstrap", "0", "--json"]);
    let rows: Value = serde_json::from_str(&rows).unwrap();
    // The mean of 1 and 0.5, in percent.
    assert_eq!((rows[0]["win_rate"].as_f64(), rows[0]["n_total"].as_u64()), (Some(75.0), Some(2)));
    let notices = rows[0]["notices"].to_string();
    assert!(
        notices.contains("verdicts: 2 rows, 1 more left out, which are no objects or hold a lone surrogate"),
        "{notices}"
    );
}

#[test]
fn answers_to_an_evaluation_set_are_written_as_the_official_package_reads_them() {
    let dir = Dir::new();
    dir.model();
    let prompts: Vec<Value> = (0..5)
        .map(|i| json!({"instruction": format!("say {i}"), "dataset": "koala", "output": "x", "generator": "b"}))
        .collect();
    dir.write("prompts.json", json!(prompts).to_string());
    let args = "eval generate --model model --prompts prompts.json --max-new-tokens 6 --generator-name mine -o model_outputs.json";
    let args: Vec<&str> = args.split(' ').collect();
    let said = succeeds(&dir, &args);
    assert!(said.contains("5 responses of mine"), "{said}");
    let first = value(&dir, "model_outputs.json");
    let rows = first.as_array().unwrap();
    assert_eq!(rows.len(), 5);
    assert_eq!((rows[2]["instruction"].as_str(), rows[2]["dataset"].as_str()), (Some("say 2"), Some("koala")));
    assert!(rows.iter().all(|row| row["output"].is_string() && row["generator"] == "mine"));
    assert_eq!(dir.simplemix(&args).status.code(), Some(2), "it exists already");
    succeeds(&dir, &[&args[..], &["--overwrite"]].concat());
    assert_eq!(first, value(&dir, "model_outputs.json"));
    let left: Vec<String> = dir.entries().into_iter().filter(|name| name.contains("candidates")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn preferences_are_measured_against_the_reference() {
    let dir = Dir::new();
    dir.model();
    simplemix_model::tiny::write_folder(&dir.path("other"), 2).unwrap();
    dir.pairs("pairs.jsonl", "on", 10);
    let args =
        "eval preferences --model model --reference model --data pairs.jsonl --kl-prompts 2 --kl-tokens 5 --json";
    let same: Value = serde_json::from_str(&succeeds(&dir, &args.split(' ').collect::<Vec<_>>())).unwrap();
    assert_eq!((same["all"]["margin"].as_f64(), same["all"]["accuracy"].as_f64()), (Some(0.0), Some(0.0)));
    assert!((same["all"]["loss"].as_f64().unwrap() - std::f64::consts::LN_2).abs() < 1e-12);
    assert_eq!((same["kl"]["mean"].as_f64(), same["kl"]["answers"].as_u64()), (Some(0.0), Some(4)));
    assert_eq!(same["all"]["length"]["chosen_longer"].as_f64(), Some(1.0));

    // Equal to the log-probabilities of `simplemix logps`.
    let mut expected = 0.0;
    for (model, sign) in [("model", 1.0), ("other", -1.0)] {
        let file = format!("{model}.jsonl");
        succeeds(&dir, &["logps", "--model", model, "--data", "pairs.jsonl", "-o", &file]);
        for row in crate::good_runs::lines(&dir, &file) {
            let logp = |name: &str| row[name].as_f64().unwrap();
            expected += sign * 0.5 * (logp("ref_chosen_logps") - logp("ref_rejected_logps")) / 10.0;
        }
    }
    let args =
        "eval preferences --model model --reference other --data pairs.jsonl --beta 0.5 --json --plot reliability.svg";
    let found: Value = serde_json::from_str(&succeeds(&dir, &args.split(' ').collect::<Vec<_>>())).unwrap();
    let margin = found["all"]["margin"].as_f64().unwrap();
    assert!((margin - expected).abs() < 1e-6, "{margin}, expected {expected}");
    assert_eq!(found["groups"]["pairs"]["pairs"].as_u64(), Some(10));
    assert!(exists(&dir.path("reliability.svg")));
    let text = succeeds(&dir, &["eval", "preferences", "--model", "model", "--data", "pairs.jsonl"]);
    assert!(text.contains("accuracy") && text.contains("reliability:"), "{text}");
    let output = dir.simplemix(&["eval", "preferences", "--model", "model", "--data", "pairs.jsonl", "--beta", "0"]);
    assert!(output.status.code() == Some(2) && stderr(&output).contains("--beta is 0, expected a number above 0"));
}
