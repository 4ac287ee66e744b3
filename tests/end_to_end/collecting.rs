//! Collecting as a user runs it: whole, killed, stopped, from servers that fail.

#![expect(clippy::disallowed_methods, reason = "kills come at moments")]

use std::fmt::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::good_runs::{lines, succeeds};
use crate::server::{Does, Mock, REASONS, Seen, echo, faulty};
use crate::{Dir, exists, stderr, stdout};

/// `count` prompts with right answers.
fn prompts(dir: &Dir, count: usize) {
    let mut text = String::new();
    for i in 0..count {
        writeln!(
            text,
            r#"{{"id":"p{i}","prompt":[{{"role":"user","content":"What is {i} + 1?"}}],"answer":"{}","reference":"It is {}."}}"#,
            i + 1,
            i + 1
        )
        .unwrap();
    }
    dir.write("prompts.jsonl", text);
}

const SAMPLING: &[&str] =
    &["--prompts", "prompts.jsonl", "--samples", "3", "--temperature", "1", "--max-new-tokens", "12"];

fn files(dir: &Dir, names: &[&str]) -> Vec<Vec<u8>> {
    names.iter().map(|name| std::fs::read(dir.path(name)).unwrap()).collect()
}

/// Runs a command whole, then again and again, killed without warning at moments spread over the whole run until it ends
/// by itself; the outputs must be the same bytes, and some of the kills must have come after there was work to keep. How
/// often it was done from the start.
#[track_caller]
fn survives_kills(dir: &Dir, args: &[&str], outputs: &[&str], kills: u32) -> usize {
    let started = Instant::now();
    succeeds(dir, args);
    let duration = started.elapsed();
    let whole = files(dir, outputs);
    let hidden = |dir: &Dir| dir.entries().into_iter().filter(|name| name.ends_with(".partial")).count();
    assert_eq!(hidden(dir), 0);
    outputs.iter().for_each(|name| std::fs::remove_file(dir.path(name)).unwrap());
    let (mut kept, mut ended) = (0, 0usize);
    for kill in 0..kills {
        let mut child = dir.command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // A golden-section sequence: any number of moments covers the run evenly.
        let moment = (f64::from(kill) * 0.618_033_988_75 + 0.3).fract();
        std::thread::sleep(duration.mul_f64(moment));
        child.kill().unwrap();
        if child.wait().unwrap().success() {
            assert!(files(dir, outputs) == whole, "kill {kill}");
            outputs.iter().for_each(|name| std::fs::remove_file(dir.path(name)).unwrap());
            ended += 1;
        } else {
            kept += usize::from(hidden(dir) > 0 || outputs.iter().any(|name| exists(&dir.path(name))));
        }
    }
    succeeds(dir, args);
    assert!(files(dir, outputs) == whole, "after {kills} kills, of which {ended} came too late");
    assert_eq!(hidden(dir), 0);
    assert!(kept > 0, "no kill came while there was work to keep");
    2 + ended
}

fn candidates(dir: &Dir, prompts: usize) {
    let mut text = String::new();
    for i in 0..prompts {
        for sample in 0..3 {
            let right = i + sample;
            writeln!(text, r#"{{"prompt":"What is {i} + 1?","answer":"{}","response":"It is {right}."}}"#, i + 1)
                .unwrap();
        }
    }
    dir.write("candidates.jsonl", text);
}

#[test]
fn generating_in_this_process_survives_kills() {
    let dir = Dir::new();
    dir.model();
    prompts(&dir, 40);
    let args = [&["generate", "--model", "model", "--batch-rows", "3", "-o", "c.parquet"], SAMPLING].concat();
    survives_kills(&dir, &args, &["c.parquet"], 8);
}

#[test]
fn generating_by_a_server_survives_kills_and_asks_nothing_twice() {
    let dir = Dir::new();
    prompts(&dir, 60);
    let mock = Mock::start(|seen| Does::Waits(Duration::from_millis(4), Box::new(echo(seen))));
    let url = mock.url();
    let server = ["generate", "--server", &url, "--server-model", "m", "--concurrency", "2", "-o", "c.parquet"];
    let args = [&server, SAMPLING].concat();
    let times = survives_kills(&dir, &args, &["c.parquet"], 8);
    // Beside whole runs only what was under way at each of the eight kills.
    let asked = mock.seen().len();
    assert!(asked <= times * 180 + 8 * 2, "{asked} requests in {times} runs");
}

/// Fault that an answer has: every fifth one, of each kind but the large one in turn, and none after two of a sample.
fn fault(seen: &Seen) -> usize {
    if seen.tries < 2 && seen.number.is_multiple_of(5) { seen.number / 5 % 11 } else { REASONS.len() }
}

#[test]
fn collecting_from_a_server_of_faults_loses_and_doubles_nothing() {
    const WORKERS: usize = 32;
    let dir = Dir::new();
    prompts(&dir, 200);
    let mock = Mock::start(|seen| faulty(fault(seen), seen));
    let (url, workers) = (mock.url(), WORKERS.to_string());
    let server = ["collect", "--server", &url, "--server-model", "m", "--concurrency", &workers, "--timeout", "0.5"];
    let args = [&server, SAMPLING, &["--scorer", "digit-share", "-o", "on.parquet", "--json"]].concat();
    let journal = dir.path(".on.candidates.parquet.partial");
    let mut child = dir.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while std::fs::read(&journal).map_or(0, |text| text.iter().filter(|byte| **byte == b'\n').count()) < 200 {
        assert!(child.try_wait().unwrap().is_none(), "ended before the kill");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let report: Value = serde_json::from_str(&succeeds(&dir, &args)).unwrap();
    succeeds(&dir, &["score", "--candidates", "on.candidates.parquet", "--scorer", "digit-share", "-o", "all.jsonl"]);
    let rows = lines(&dir, "all.jsonl");
    assert_eq!(rows.len(), 600);
    for (at, row) in rows.iter().enumerate() {
        let (prompt, seed) = (at / 3, &row["seed"]);
        assert_eq!((&row["prompt_id"], &row["sample"]), (&format!("p{prompt}").into(), &(at % 3).into()));
        assert_eq!(row["response"], format!("What is {prompt} + 1? #{seed}"));
    }
    // Each right answer was given once, beside those under way at the kill, and each fault is counted beside theirs.
    let seen = mock.seen();
    let faults: Vec<&str> = seen.iter().filter_map(|seen| REASONS.get(fault(seen)).copied()).collect();
    let right = seen.len() - faults.len();
    assert!((600..=600 + WORKERS).contains(&right), "{right} right answers");
    for reason in &REASONS[..11] {
        let sent = faults.iter().filter(|of| *of == reason).count() as u64;
        let counted = report["generate"]["failed"][reason].as_u64().unwrap_or(0);
        assert!(
            counted > 0 && counted <= sent && sent <= counted + 2 * WORKERS as u64,
            "{reason}: {counted} of {sent}"
        );
    }
}

#[cfg(unix)]
#[test]
fn scoring_survives_kills() {
    let dir = Dir::new();
    candidates(&dir, 300);
    let command = "command:sleep 0.05; awk '{print \"{\\\"score\\\": \" NR % 7 \"}\"}'";
    let args = [
        "score",
        "--candidates",
        "candidates.jsonl",
        "--scorer",
        "exact-answer",
        "--scorer",
        command,
        "-o",
        "s.parquet",
    ];
    survives_kills(&dir, &args, &["s.parquet"], 8);
}

#[test]
fn pairing_starts_again_and_gives_the_same() {
    let dir = Dir::new();
    candidates(&dir, 500);
    succeeds(&dir, &["score", "--candidates", "candidates.jsonl", "--scorer", "exact-answer", "-o", "s.parquet"]);
    let args = ["pair", "--candidates", "s.parquet", "--select", "all-gaps", "-o", "on.parquet"];
    succeeds(&dir, &args);
    let whole = files(&dir, &["on.parquet"]);
    for kill in 1..6 {
        std::fs::remove_file(dir.path("on.parquet")).unwrap();
        let mut child = dir.command(&args).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(8 * kill));
        child.kill().unwrap();
        child.wait().unwrap();
        succeeds(&dir, &args);
        assert!(files(&dir, &["on.parquet"]) == whole);
    }
}

#[test]
fn dpo_mix_r_draws_one_pair_of_each_prompt() {
    let dir = Dir::new();
    candidates(&dir, 60);
    let scorer = "command:awk '{print \"{\\\"score\\\": \" NR % 7 \"}\"}'";
    succeeds(&dir, &["score", "--candidates", "candidates.jsonl", "--scorer", scorer, "-o", "s.parquet"]);
    let pair = |name: &str, flags: &[&str]| {
        let args = ["pair", "--candidates", "s.parquet", "--preset", "dpo-mix-r", "-o", name];
        succeeds(&dir, &[&args[..], flags].concat());
        lines(&dir, name)
    };
    let pairs = pair("first.jsonl", &[]);
    assert_eq!(pairs.len(), 60);
    let gap = |pair: &Value| pair["score_chosen"].as_f64().unwrap() - pair["score_rejected"].as_f64().unwrap();
    assert!(pairs.iter().all(|pair| gap(pair) > 0.0));
    assert_ne!(pair("seed.jsonl", &["--seed", "7"]), pairs);
    // With a huge scale the largest gap is always drawn, as by the rule best-worst.
    let huge = pair("huge.jsonl", &["--reward-margin-scale", "1000"]);
    succeeds(&dir, &["pair", "--candidates", "s.parquet", "-o", "best.jsonl"]);
    let gaps = |pairs: &[Value]| pairs.iter().map(gap).collect::<Vec<_>>();
    assert_eq!(gaps(&huge), gaps(&lines(&dir, "best.jsonl")));
    let wrong = ["pair", "--candidates", "s.parquet", "--select", "mix-r", "-o", "wrong.jsonl"];
    let refused = dir.simplemix(&wrong);
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("--reward-margin-scale is not set"), "{}", stderr(&refused));
    let unknown = dir.simplemix(&["pair", "--candidates", "s.parquet", "--preset", "simple", "-o", "wrong.jsonl"]);
    assert!(stderr(&unknown).contains("expected simplemix, simpo, rs-dpo, dno or dpo-mix-r"), "{}", stderr(&unknown));
}

/// The scores of all samples of a prompt go with its pairs, through every file, to the loss that ranks rewards among them.
#[test]
fn rewards_of_the_reference_reach_the_loss_that_needs_them() {
    let dir = Dir::new();
    dir.model();
    prompts(&dir, 12);
    let collect = ["collect", "--model", "model", "--scorer", "digit-share", "-o", "on.parquet"];
    succeeds(&dir, &[&collect[..], SAMPLING].concat());
    succeeds(&dir, &["convert", "on.parquet", "-o", "on.jsonl"]);
    let pairs = lines(&dir, "on.jsonl");
    for pair in &pairs {
        let rewards: Vec<f64> = pair["ref_rewards"].as_array().unwrap().iter().map(|r| r.as_f64().unwrap()).collect();
        let [chosen, rejected] = ["score_chosen", "score_rejected"].map(|side| pair[side].as_f64().unwrap());
        // Best against worst of three samples.
        assert_eq!(rewards.len(), 3);
        assert_eq!(rewards.iter().copied().fold(f64::MIN, f64::max), chosen);
        assert_eq!(rewards.iter().copied().fold(f64::MAX, f64::min), rejected);
    }
    succeeds(&dir, &["mix", "--source", "on=on.jsonl:1", "-o", "mix.parquet"]);
    let train = |data: &str, more: &[&str]| {
        let args =
            ["train", "--model", "model", "--train", data, "--loss", "qrpo", "--batch-size", "4", "--max-steps", "2"];
        dir.simplemix(&[&args[..], more].concat())
    };
    let trained = train("mix.parquet", &["--output", "run", "--eval", "on.jsonl"]);
    assert!(trained.status.success(), "{}", stderr(&trained));
    dir.pairs("off.jsonl", "written", 8);
    let refused = train("off.jsonl", &["--output", "none"]);
    assert_eq!(refused.status.code(), Some(2));
    let said = stderr(&refused);
    assert!(
        said.contains("row 0: `score_chosen` or `score_rejected` is missing; the loss `qrpo` needs both"),
        "{said}"
    );
    let bare: Vec<String> = pairs
        .iter()
        .map(|pair| {
            let mut pair = pair.clone();
            pair.as_object_mut().unwrap().remove("ref_rewards");
            pair.to_string()
        })
        .collect();
    dir.write("bare.jsonl", bare.join("\n"));
    let said = stderr(&train("bare.jsonl", &["--output", "none"]));
    assert!(
        said.contains("row 0: `ref_rewards` is missing; the loss `qrpo` needs the scores of the reference's samples"),
        "{said}"
    );
    assert!(!exists(&dir.path("none")));
}

#[test]
fn collecting_survives_kills_in_every_stage() {
    let dir = Dir::new();
    dir.model();
    prompts(&dir, 30);
    let collect = ["collect", "--model", "model", "--batch-rows", "4", "--scorer", "digit-share", "-o", "on.parquet"];
    let args = [&collect, SAMPLING].concat();
    survives_kills(&dir, &args, &["on.candidates.parquet", "on.scored.parquet", "on.parquet"], 8);
}

#[test]
fn stages_alone_and_together_give_the_same_pairs() {
    let dir = Dir::new();
    dir.model();
    prompts(&dir, 20);
    let model = ["--model", "model"];
    let said = succeeds(
        &dir,
        &[&["collect", "--scorer", "digit-share", "-o", "on.parquet", "--reference"], &model[..], SAMPLING].concat(),
    );
    assert!(said.contains("60 responses to 20 prompts by model") && said.contains("mean gap"), "{said}");
    succeeds(&dir, &[&["generate", "-o", "c.parquet"], &model[..], SAMPLING].concat());
    let score = ["score", "--candidates", "c.parquet", "--scorer", "digit-share", "--reference", "-o", "s.parquet"];
    succeeds(&dir, &score);
    succeeds(&dir, &["pair", "--candidates", "s.parquet", "--reference", "-o", "p.parquet"]);
    assert!(files(&dir, &["on.candidates.parquet"]) == files(&dir, &["c.parquet"]));
    succeeds(&dir, &["convert", "on.parquet", "-o", "on.jsonl"]);
    succeeds(&dir, &["convert", "p.parquet", "-o", "p.jsonl"]);
    let pairs = lines(&dir, "on.jsonl");
    assert_eq!(pairs, lines(&dir, "p.jsonl"));
    for pair in &pairs {
        assert_eq!((&pair["policy"], &pair["source"]), (&Value::from("on"), &Value::from("on_policy")));
        assert_eq!((&pair["candidates"], &pair["temperature"]), (&Value::from(4), &Value::from(1.0)));
        assert!(pair["score_chosen"].as_f64() > pair["score_rejected"].as_f64());
        let by_model = pair["reference"].is_null();
        assert_eq!(pair["generator"], if by_model { Value::from("model") } else { Value::Null });
    }
    assert!(pairs.iter().any(|pair| !pair["reference"].is_null()), "references take part");
    // The file trains.
    succeeds(&dir, &["train", "--model", "model", "--train", "on.parquet", "--max-steps", "1", "--output", "run"]);

    // Once more, and nothing is done; with other arguments, nothing is harmed.
    let again = succeeds(&dir, &score);
    assert!(again.contains("80 responses to 20 prompts"), "{again}");
    let other = dir.simplemix(&["score", "--candidates", "c.parquet", "--scorer", "length:3", "-o", "s.parquet"]);
    assert_eq!(other.status.code(), Some(2));
    assert!(
        stderr(&other).contains("s.parquet: exists, and is not known to be made with these settings"),
        "{}",
        stderr(&other)
    );
    succeeds(&dir, &["score", "--candidates", "c.parquet", "--scorer", "length:3", "-o", "s.parquet", "--overwrite"]);
}

#[test]
fn processors_of_the_models_generation_config_hold_and_are_told() {
    let dir = Dir::new();
    dir.model();
    prompts(&dir, 4);
    let generate = |name: &str, flags: &[&str]| {
        let args = [
            "generate",
            "--model",
            "model",
            "--temperature",
            "0",
            "--samples",
            "1",
            "--max-new-tokens",
            "16",
            "--json",
        ];
        let said = succeeds(&dir, &[&args[..], &["--prompts", "prompts.jsonl", "-o", name], flags].concat());
        let report: Value = serde_json::from_str(&said).unwrap();
        let groups = simplemix_rollout::CandidateReader::open(&dir.path(name)).unwrap();
        let rows: Vec<_> = groups.flat_map(|group| group.unwrap().rows).map(|row| (row.response, row.logp)).collect();
        (report["notices"].clone(), rows)
    };
    let (notices, plain) = generate("plain.parquet", &[]);
    assert_eq!(notices, Value::Array(vec![]));
    let config = r#"{"eos_token_id": 258, "repetition_penalty": 5.0, "suppress_tokens": [65], "eta_cutoff": 0.1}"#;
    dir.write("model/generation_config.json", config);
    let (notices, followed) = generate("followed.parquet", &[]);
    let said = notices.to_string();
    assert!(said.contains("repetition_penalty 5, suppress_tokens (1)") && said.contains("eta_cutoff 0.1"), "{said}");
    assert_ne!(followed, plain);
    let (notices, none) = generate("none.parquet", &["--generation-config", "none"]);
    assert_eq!((none, notices), (plain, Value::Array(vec![])));
    let wrong = ["generate", "--model", "model", "--repetition-penalty", "0", "-o", "x.parquet"];
    let refused = dir.simplemix(&[&wrong, SAMPLING].concat());
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("--repetition-penalty is 0, expected a number > 0"), "{}", stderr(&refused));
}

#[test]
fn prompts_without_what_a_scorer_needs_are_refused_before_anything_is_sampled() {
    let dir = Dir::new();
    dir.model();
    dir.pairs("pairs.jsonl", "off", 4);
    let collect =
        ["collect", "--model", "model", "--prompts", "pairs.jsonl", "--scorer", "exact-answer", "-o", "on.parquet"];
    let output = dir.simplemix(&collect);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("has no `answer`, which scorer `exact-answer` needs"), "{}", stderr(&output));
    assert!(dir.entries().iter().all(|name| !name.contains("candidates")), "{:?}", dir.entries());
}

#[test]
fn a_reward_model_that_was_trained_here_scores() {
    let dir = Dir::new();
    dir.model();
    prompts(&dir, 6);
    candidates(&dir, 20);
    dir.pairs("pairs.jsonl", "off", 8);
    let train =
        ["train", "--model", "model", "--train", "pairs.jsonl", "--objective", "reward", "--learning-rate", "1e-3"];
    succeeds(&dir, &[&train[..], &["--max-steps", "2", "--batch-size", "4", "--output", "reward"]].concat());
    let scorers = r#"
        [[scorer]]
        kind = "reward-model"
        model = "reward/model"
        batch_tokens = 512
        [[scorer]]
        kind = "format"
        weight = 2
        contains = ["."]
        [[scorer]]
        kind = "length"
        min = 1
        max = 2
        weight = -1
    "#;
    dir.write("scorers.toml", scorers);
    let score = ["score", "--candidates", "candidates.jsonl", "--scorers", "scorers.toml", "-o", "s.parquet", "--json"];
    let report: Value = serde_json::from_str(&succeeds(&dir, &score)).unwrap();
    let mean = |name: &str| report["means"][name].as_f64().unwrap();
    assert_eq!((report["candidates"].as_u64(), mean("score_format"), mean("score_length")), (Some(60), 1.0, 0.5));
    let sum = mean("score_reward_model") + 2.0 * mean("score_format") - mean("score_length");
    assert!((mean("score") - sum).abs() < 1e-9 && mean("score_reward_model") != 0.0);
    let by = ["pair", "--candidates", "s.parquet", "--by", "score_reward_model", "-o", "on.parquet"];
    assert!(succeeds(&dir, &by).contains("20 prompts"));
    dir.write("wrong.toml", "[[scorer]]\nkind = \"length\"\nmax = 0\n");
    let wrong = ["score", "--candidates", "candidates.jsonl", "--scorers", "wrong.toml", "-o", "w.parquet"];
    assert_eq!(dir.simplemix(&wrong).status.code(), Some(2));
}

/// A polite end: what is done is kept, and the exit code says so.
#[cfg(unix)]
#[test]
fn any_of_several_answers_is_right_from_prompts_to_scores() {
    let dir = Dir::new();
    dir.model();
    let prompt = |text: &str, answer: &str| {
        format!(r#"{{"prompt": [{{"role": "user", "content": "{text}"}}], "answer": {answer}}}"#)
    };
    let prompts =
        [prompt("How long?", r#"["5 days", "120 hours"]"#), prompt("Where?", r#""Paris""#), prompt("Why?", "[]")];
    dir.write("prompts.jsonl", prompts.join("\n"));
    let answers = |file: &str| -> Vec<Value> {
        let rows = simplemix_data::RowReader::open(dir.path(file)).unwrap();
        rows.map(|row| row.unwrap()["answer"].clone()).collect()
    };
    let expected = [json!(["5 days", "120 hours"]), json!(["Paris"]), Value::Null];
    for (file, scored) in [("c.parquet", "s.arrow"), ("c.arrow", "s.jsonl"), ("c.jsonl", "s.parquet")] {
        let sample = ["generate", "--model", "model", "--prompts", "prompts.jsonl", "--samples", "1", "-o", file];
        succeeds(&dir, &[&sample[..], &["--max-new-tokens", "2"]].concat());
        assert_eq!(answers(file), expected, "{file}");
        succeeds(&dir, &["score", "--candidates", file, "--scorer", "digit-share", "-o", scored]);
        assert_eq!(answers(scored), expected, "{scored}");
    }
    let said =
        |response: &str| format!(r#"{{"prompt": "How long?", "answer": ["5 days", 120], "response": "{response}"}}"#);
    dir.write("c.said.jsonl", ["It took 120.", "That is 5 days.", "6 days"].map(said).join("\n"));
    let score = ["score", "--candidates", "c.said.jsonl", "--scorer", "exact-answer", "-o", "s.said.parquet", "--json"];
    succeeds(&dir, &score);
    let rows = simplemix_data::RowReader::open(dir.path("s.said.parquet")).unwrap();
    let scores: Vec<f64> = rows.map(|row| row.unwrap()["score"].as_f64().unwrap()).collect();
    assert_eq!(scores, [1.0, 1.0, 0.0]);
}

/// Two servers, one of which is dead, give the file of one, by flags and by settings.
#[test]
fn several_servers_share_a_collection_and_a_dead_one_is_told() {
    let dir = Dir::new();
    prompts(&dir, 20);
    let mocks = [(); 2].map(|()| Mock::start(|seen| Does::Waits(Duration::from_millis(3), Box::new(echo(seen)))));
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let dead = format!("http://{dead}/v1");
    let [first, second] = mocks.each_ref().map(Mock::url);
    let rest = ["--server-model", "m", "--concurrency", "4", "--retries", "1", "--json"];
    let generate = |servers: &[&str], output: &str| -> serde_json::Value {
        let servers: Vec<&str> = servers.iter().flat_map(|url| ["--server", url]).collect();
        let said = succeeds(&dir, &[&["generate"], &servers[..], &rest, &["-o", output], SAMPLING].concat());
        serde_json::from_str(&said).unwrap()
    };
    let one = generate(&[&first], "one.parquet");
    assert!(one["servers"].is_null(), "{one:#}");
    let both = generate(&[&first, &dead, &second], "three.parquet");
    let count = |url: &str| both["servers"][url].as_u64().unwrap_or_default();
    assert!(count(&first) > 0 && count(&second) > 0 && count(&dead) == 0, "{both:#}");
    assert_eq!(count(&first) + count(&second), 60);
    let notices: Vec<&str> =
        both["notices"].as_array().unwrap().iter().map(|notice| notice.as_str().unwrap()).collect();
    assert_eq!(
        notices.iter().filter(|text| text.contains(&dead) && text.contains("set aside")).count(),
        1,
        "{notices:?}"
    );
    let [one, three] = &files(&dir, &["one.parquet", "three.parquet"])[..] else { unreachable!() };
    assert!(one == three);
    let output = dir.simplemix(
        &[
            &["generate", "--server", &dead, "--server", "http://127.0.0.1:9"],
            &rest[..],
            &["-o", "none.parquet"],
            SAMPLING,
        ]
        .concat(),
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("all 2 servers have failed"), "{}", stderr(&output));
    // A pipeline: servers with settings of their own, and then others with the model, whose results are the same stage.
    dir.model();
    dir.pairs("off.jsonl", "off", 12);
    let server = |url: &str, concurrency: usize| {
        format!("[[collect.server]]\nurl = \"{url}\"\nmodel = \"m\"\nretries = 1\nconcurrency = {concurrency}\n")
    };
    let settings = format!(
        "preset = \"simplemix\"\nmodel = \"model\"\noff_policy = \"off.jsonl\"\nprompts.files = [\"prompts.jsonl\"]\n\
         train.batch.batch_size = 4\nmix.size = 8\n[collect]\nscorer = [{{ kind = \"digit-share\" }}]\n\
         [collect.sampling]\nmax_new_tokens = 12\n{}{}",
        server(&first, 2),
        server(&dead, 8)
    );
    dir.write("pipeline.toml", settings);
    let run = |more: &[&str]| succeeds(&dir, &[&["run", "pipeline.toml", "--output", "out"], more].concat());
    let asked = mocks[0].seen().len();
    let said = run(&[]);
    assert!(said.contains(&format!("80 {first}")), "{said}");
    assert_eq!(mocks[0].seen().iter().skip(asked).filter(|seen| seen.body["seed"].is_u64()).count(), 80);
    let shown = run(&["--show"]);
    assert_eq!(
        (shown.matches("[[collect.server]]").count(), shown.matches("concurrency = 8").count()),
        (2, 1),
        "{shown}"
    );
    let again = run(&["--server", &second, "--server-model", "m"]);
    assert_eq!(again.matches("done before").count(), 5, "{again}");
    let other = dir.simplemix(&[
        "run",
        "pipeline.toml",
        "--output",
        "out",
        "--set",
        "collect.server=[{url='http://a'},{url='http://b',logps=false}]",
    ]);
    assert_eq!(other.status.code(), Some(2));
    assert!(stderr(&other).contains("http://a/v1 and http://b/v1, whose `logps` differ"), "{}", stderr(&other));
}

#[test]
fn collecting_that_is_asked_to_stop_keeps_what_is_done() {
    let dir = Dir::new();
    prompts(&dir, 100);
    let mock = Mock::start(|seen| Does::Waits(Duration::from_millis(20), Box::new(echo(seen))));
    let url = mock.url();
    let server = ["collect", "--server", &url, "--server-model", "m", "--concurrency", "2"];
    let args = [&server[..], &["--scorer", "digit-share", "-o", "on.parquet"], SAMPLING].concat();
    let child = dir.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while mock.seen().len() < 20 {
        assert!(Instant::now() < deadline, "no request within a minute");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(stderr(&output).contains("the same command continues from there"), "{}", stderr(&output));
    let journal = std::fs::read_to_string(dir.path(".on.candidates.parquet.partial")).unwrap();
    assert!(journal.lines().count() > 15);

    // Unfinished work of other arguments is not gone on with.
    let other = [&args[..], &["--seed", "7"]].concat();
    let refused = dir.simplemix(&other);
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("unfinished work with other settings"), "{}", stderr(&refused));
    let said = succeeds(&dir, &args);
    assert!(said.contains("300 responses to 100 prompts by m"), "{said}");
}

/// The key is in the header of requests, and nowhere else: not in logs at their most talkative, not in errors, not in files.
#[test]
fn the_key_is_never_shown() {
    const KEY: &str = "sk-very-secret-9876543210";
    let dir = Dir::new();
    prompts(&dir, 8);
    let mock = Mock::start(|seen| match seen.number {
        0..6 => echo(seen),
        6 => Does::Sends(429, vec![("retry-after-ms", "1".to_owned())], format!("slow down, {KEY}")),
        7..15 => echo(seen),
        _ => Does::Sends(401, vec![], format!(r#"{{"error": {{"message": "{KEY} is no key"}}}}"#)),
    });
    let url = mock.url();
    let server = ["-vv", "generate", "--server", &url, "--server-model", "m", "--concurrency", "1", "-o", "c.parquet"];
    let output =
        dir.command(&[&server, SAMPLING].concat()).env("OPENAI_API_KEY", KEY).env("RUST_LOG", "trace").output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output) + &stdout(&output);
    assert!(said.contains("status 401: [key] is no key") && said.contains("slow down, [key]"), "{said}");
    assert_eq!(mock.seen()[0].authorization, Some(format!("Bearer {KEY}")));
    let mut texts = vec![said];
    for name in dir.entries() {
        texts.push(String::from_utf8_lossy(&std::fs::read(dir.path(&name)).unwrap()).into_owned());
    }
    assert_eq!(texts.len(), 3, "what was said, the prompts, the journal");
    assert!(texts.iter().all(|text| !text.contains(KEY)));
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_written() {
    let dir = Dir::new();
    dir.model();
    prompts(&dir, 2);
    dir.write("bare.jsonl", "{\"prompt\": \"What?\"}\n");
    dir.write("columns.jsonl", "{\"text\": \"What?\"}\n");
    dir.write("unscored.jsonl", "{\"prompt\": \"What?\", \"response\": \"That.\"}\n");
    let before = dir.entries();
    let generate = ["generate", "--model", "model", "--samples", "2", "--max-new-tokens", "2"];
    let cases: [(&[&str], &str); 9] = [
        (&["--prompts", "columns.jsonl", "-o", "c.parquet"], "columns text, expected preference pairs, or a column"),
        (&["--prompts", "none.jsonl", "-o", "c.parquet"], "none.jsonl"),
        (&["--prompts", "prompts.jsonl", "-o", "c.txt"], "--output is c.txt, expected a name that ends in .parquet"),
        (&["--prompts", "prompts.jsonl", "-o", "c.parquet", "--top-p", "0"], "--top-p is 0, expected a number > 0"),
        (&["--prompts", "prompts.jsonl", "-o", "c.parquet", "--batch-rows", "0"], "--batch-rows is 0"),
        (&["score", "--candidates", "unscored.jsonl", "--scorer", "exact", "-o", "s.parquet"], "`scorer` is `exact`"),
        (
            &["score", "--candidates", "unscored.jsonl", "--scorer", "exact-answer", "-o", "s.parquet"],
            "has no `answer`, which scorer `exact-answer` needs",
        ),
        (&["pair", "--candidates", "unscored.jsonl", "-o", "p.parquet"], "no scores, expected a column `score`"),
        (
            &["pair", "--candidates", "unscored.jsonl", "--select", "threshold", "-o", "p.parquet"],
            "--threshold is not set, expected a score",
        ),
    ];
    for (flags, expected) in cases {
        let of_generate = flags[0] == "--prompts";
        let output = dir.simplemix(&if of_generate { [&generate, flags].concat() } else { flags.to_vec() });
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(expected), "{said}");
    }
    assert_eq!(dir.entries(), before);

    // Nobody there.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let output = dir.simplemix(
        &[&["generate", "--server", &url, "--server-model", "m", "--retries", "1", "-o", "c.parquet"], SAMPLING]
            .concat(),
    );
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("{url}/v1: prompt `p0`")) && said.contains("(2 attempts)"), "{said}");
    assert!(!exists(Path::new("c.parquet")));
}

#[test]
fn responses_of_several_models_become_pairs_without_a_scorer() {
    let dir = Dir::new();
    let rows = |name: &str| {
        let row = |i: i32| format!(r#"{{"prompt":"{i} + {i}?","response":"{name} says {}"}}"#, 2 * i);
        (0..6).map(row).collect::<Vec<_>>().join("\n")
    };
    for name in ["weak", "middle", "strong"] {
        dir.write(&format!("{name}.jsonl"), rows(name));
    }
    let members = ["--candidates", "weak=weak.jsonl", "--candidates", "middle=middle.jsonl", "--candidates"];
    let pool =
        [&["pool"], &members[..], &["strong=strong.jsonl", "--take", "1:weak,middle", "--take", "1:strong"]].concat();
    let said = succeeds(&dir, &[&pool[..], &["-o", "pool.parquet"]].concat());
    assert!(said.contains("12 responses to 6 of 6 prompts") && said.contains("6 by strong"), "{said}");
    let delta = ["pair", "--candidates", "pool.parquet", "--select", "delta", "--chosen-generators", "strong"];
    let said = succeeds(&dir, &[&delta[..], &["--rejected-generators", "weak,middle", "-o", "delta.jsonl"]].concat());
    assert!(said.contains("6 pairs from 6 of 6 prompts") && !said.contains("mean gap"), "{said}");
    let refused = dir.simplemix(&[&delta[..], &["-o", "none.jsonl"]].concat());
    assert_eq!(refused.status.code(), Some(2));
    let expected = "--rejected-generators is not set, expected at least one model, for the rule `delta`";
    assert!(stderr(&refused).contains(expected), "{}", stderr(&refused));
    let refused = dir.simplemix(&[&pool[..], &["--take", "1:stronger", "-o", "none.parquet"]].concat());
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("no response by `stronger`"), "{}", stderr(&refused));
    assert!(!exists(&dir.path("none.parquet")));
}
