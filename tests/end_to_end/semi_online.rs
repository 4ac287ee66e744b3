//! `simplemix run` with a lag: a round is collected while the one before trains, and pairs have an age.

#![expect(clippy::disallowed_methods, reason = "kills come at moments, and waits have an end")]

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use simplemix_data::read_metadata;

use crate::good_runs::succeeds;
use crate::pipeline::{prepared, report, stage_folder, stage_names, summary, weights};
use crate::{Dir, stderr};

/// The preset, made small: three rounds of two updates.
const ARM: &str = "run --preset semi-online --model model --prompts prompts.jsonl --size 4 --set rounds=3 --set \
    train.batch.batch_size=2 --set train.tokens.max_length=256 --set train.optimizer.learning_rate=1e-3 --set \
    train.checkpoint.save_every_steps=1 --set collect.sampling.max_new_tokens=8 --set collect.sampling.samples=6 \
    --set collect.batch_rows=12 --set train.optimizer.epsilon=1e-8";

fn words<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&ARM.split_whitespace().collect::<Vec<_>>()[..], more].concat()
}

const RULE: [&str; 2] = ["--scorer", "digit-share"];
const BESIDE: [&str; 2] = ["--set", "collect.beside=all"];

fn run(dir: &Dir, more: &[&str]) -> String {
    succeeds(dir, &words(more))
}

#[test]
fn a_round_samples_from_the_model_before_the_last_and_its_pairs_tell_their_age() {
    let dir = prepared();
    run(&dir, &[&RULE[..], &["--output", "one"]].concat());
    let found = summary(&dir, "one");
    for (stage, age) in [("train-1", 0.0), ("train-2", 1.0), ("train-3", 1.0)] {
        let last = &report(&found, stage)["last"];
        assert_eq!((last["age/mean"].as_f64(), last["age/max"].as_f64()), (Some(age), Some(age)), "{stage}: {last:#}");
        let run = dir.path(stage_folder(&found, stage)).join("run");
        let metrics = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
        assert!(metrics.lines().next().unwrap().contains(&format!("\"age/mean\":{age:?}")), "{metrics}");
    }
    // The first model writes the pairs of two rounds, by other seeds; the model of the first round those of the third.
    let mixture = |round: u32| dir.path(stage_folder(&found, &format!("mix-{round}"))).join("mixture.parquet");
    let writer = |round: u32| {
        let pairs = simplemix_data::read_pairs(mixture(round), &simplemix_data::ReadOptions::default()).unwrap();
        let names: std::collections::BTreeSet<_> = pairs.into_iter().map(|pair| pair.generator.unwrap()).collect();
        assert_eq!(names.len(), 1, "{names:?}");
        names.into_iter().next().unwrap()
    };
    assert_eq!((writer(1).as_str(), writer(2).as_str()), ("model", "model"));
    let candidates =
        |round: u32| dir.path(stage_folder(&found, &format!("generate-{round}"))).join("candidates.parquet");
    assert!(std::fs::read(candidates(1)).unwrap() != std::fs::read(candidates(2)).unwrap());
    assert!(writer(3).starts_with("train-1-"), "{}", writer(3));
    assert_eq!(read_metadata(mixture(2)).unwrap()["simplemix.ages"], r#"{"on":1}"#);
    let receipt = dir.path(stage_folder(&found, "mix-2")).join("receipt.json");
    let receipt: Value = serde_json::from_str(&std::fs::read_to_string(receipt).unwrap()).unwrap();
    assert_eq!(receipt["settings"]["source"][0]["age"], 1);
    // Older pairs within a larger bound.
    run(&dir, &[&RULE[..], &["--set", "max_age=2", "--output", "older"]].concat());
    let last = report(&summary(&dir, "older"), "train-3")["last"].clone();
    assert_eq!((last["age/mean"].as_f64(), last["age/max"].as_f64()), (Some(1.5), Some(2.0)), "{last:#}");
}

/// Whether stages run beside each other decides when, and never what.
#[test]
fn the_result_is_that_of_one_stage_after_the_other() {
    let dir = prepared();
    let said = run(&dir, &[&RULE[..], &BESIDE, &["--dry-run", "--output", "beside"]].concat());
    assert!(said.contains("beside training") && said.contains("pair-2, generate-3, score-3, pair-3"), "{said}");
    run(&dir, &[&RULE[..], &["--set", "collect.beside=none", "--output", "after"]].concat());
    run(&dir, &[&RULE[..], &BESIDE, &["--output", "beside"]].concat());
    assert!(weights(&dir, "after") == weights(&dir, "beside"));
    // Stages are reported in the plan's order, whichever is done first.
    let json = run(&dir, &[&RULE[..], &BESIDE, &["--output", "beside", "--json"]].concat());
    let json: Value = serde_json::from_str(&json).unwrap();
    let expected = "generate-1 score-1 pair-1 generate-2 score-2 pair-2 mix-1 train-1 generate-3 score-3 pair-3 mix-2 train-2 mix-3 train-3";
    assert_eq!(stage_names(&json).join(" "), expected);
}

fn spawn(dir: &Dir, more: &[&str]) -> Child {
    dir.command(&words(more)).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits until `is_there`, a minute at most, while the program runs.
fn wait_until(child: &mut Child, what: &str, is_there: &dyn Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_there() {
        assert!(child.try_wait().unwrap().is_none(), "the program ended before {what}");
        assert!(Instant::now() < deadline, "{what} did not come");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Folder of a stage before it is there, from the plan.
fn planned(dir: &Dir, more: &[&str], stage: &str) -> std::path::PathBuf {
    let said = run(dir, &[more, &["--dry-run"]].concat());
    let line = said.lines().find(|line| line.starts_with(stage)).unwrap();
    let name = line.split_whitespace().find(|word| word.starts_with(&format!("{stage}-"))).unwrap();
    dir.path("out/stages").join(name.trim_end_matches("/run"))
}

/// Training of the second round cannot begin, since its lock is held here; the third round is collected all the same.
#[test]
fn a_round_is_collected_while_the_one_before_trains() {
    let dir = prepared();
    let more = [&RULE[..], &BESIDE, &["--output", "out"]].concat();
    let (train, pair) = (planned(&dir, &more, "train-2"), planned(&dir, &more, "pair-3"));
    std::fs::create_dir_all(&train).unwrap();
    let lock = simplemix_files::Lock::acquire(train.join(".lock")).unwrap();
    let mut child = spawn(&dir, &more);
    wait_until(&mut child, "the third round's pairs", &|| pair.join("stage.json").exists());
    assert!(!train.join("stage.json").exists());
    drop(lock);
    assert!(child.wait().unwrap().success());
    assert!(train.join("stage.json").exists());
    assert_eq!(summary(&dir, "out")["stages"].as_array().unwrap().len(), 15);
}

/// Kills and requests to stop at moments spread over the whole of it, and the same bits as without any.
#[test]
fn a_pipeline_with_two_threads_that_is_killed_goes_on() {
    let dir = prepared();
    let arm = |output| [&RULE[..], &BESIDE, &["--output", output]].concat();
    run(&dir, &arm("whole"));
    let done = || {
        let stages = std::fs::read_dir(dir.path("cut/stages")).into_iter().flatten().flatten();
        stages.filter(|stage| stage.path().join("stage.json").is_file()).count()
    };
    // There are 15 stages; several are left in each case.
    for (after, signal) in [(1, "-KILL"), (4, "-TERM"), (7, "-KILL"), (10, "-TERM")] {
        let mut child = spawn(&dir, &arm("cut"));
        while done() < after {
            assert!(child.try_wait().unwrap().is_none(), "ended before {after} stages were done");
            std::thread::sleep(Duration::from_millis(2));
        }
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
        let code = child.wait().unwrap().code();
        // A request that comes before the program listens ends it.
        assert!(code.is_none() || signal == "-TERM" && code == Some(130), "{code:?} after {after} stages");
    }
    run(&dir, &arm("cut"));
    assert!(weights(&dir, "whole") == weights(&dir, "cut"));
    let [whole, cut] = ["whole", "cut"].map(|output| {
        let found = summary(&dir, output);
        dir.path(stage_folder(&found, "mix-3")).join("mixture.parquet")
    });
    assert!(std::fs::read(whole).unwrap() == std::fs::read(cut).unwrap());
}

/// A scorer that fails in the third round, while the second cannot train: the other thread is stopped, and says nothing in its place.
#[test]
fn a_failure_of_one_thread_stops_the_other_and_both_go_on() {
    let dir = prepared();
    let score = "awk '{print \"{\\\"score\\\": \" NR % 7 \"}\"}'";
    let script = |third: &str| {
        dir.write("score.sh", format!("if ls -d out/stages/score-3-* 2>/dev/null >&2; then {third}; fi\n{score}\n"))
    };
    script("echo no scores today >&2; exit 3");
    let more = ["--scorer", "command:sh score.sh", "--output", "out", "--set", "collect.beside=all"];
    let train = planned(&dir, &more, "train-2");
    std::fs::create_dir_all(&train).unwrap();
    let lock = simplemix_files::Lock::acquire(train.join(".lock")).unwrap();
    let output = dir.simplemix(&words(&more));
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("command `sh score.sh`"), "{}", stderr(&output));
    drop(lock);
    script("true");
    let said = run(&dir, &more);
    assert_eq!(said.matches("done before").count(), 10, "{said}");
    // Stages that were done before the failure are not done again.
    assert!(said.contains("generate-3 (done before)") && !said.contains("train-2 (done before)"), "{said}");
}

#[test]
fn a_lag_that_has_no_effect_or_no_bound_is_refused() {
    let dir = prepared();
    for (sets, expected) in [
        (&["rounds=1"][..], "`collect.lag` is 1, expected less than `rounds`, 1"),
        (&["collect.lag=3"], "`collect.lag` is 3, expected less than `rounds`, 3"),
        (&["max_age=0"], "`max_age` is 0, expected at least `collect.lag`, 1: pairs of a round are that old"),
        (&["collect.lag=0", "collect.beside=all"], "`collect.beside` is all, expected no value without `collect.lag`"),
        (&["collect.beside=all", "parallel.processes=2"], "`collect.beside` is all, expected `servers` or `none`"),
        (
            &[
                "collect.server.url=['http://a','http://b']",
                "collect.weights.by=command",
                "collect.weights.command=reload {model}",
            ],
            "`collect.server` is several servers, expected one server",
        ),
        (&["mix.on=0", "mix.off=1"], "`rounds` is 3, expected 1 without on-policy pairs"),
        (&["mix.on=0", "mix.off=1", "rounds=1"], "`collect.lag` is 1, expected 0 without on-policy pairs"),
    ] {
        let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
        let output = dir.simplemix(&words(&[&["--output", "out", "--show"], &sets[..]].concat()));
        assert_eq!(output.status.code(), Some(2), "{sets:?}");
        assert!(stderr(&output).contains(expected), "{}", stderr(&output));
    }
}
