//! Commands and pipelines whose work several processes share: the files are those of one process.

#![expect(clippy::disallowed_methods, reason = "kills come at moments")]

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::good_runs::{lines, succeeds};
use crate::{Dir, exists, stderr, stdout};

/// The command in processes that reach each other on this machine and end in any case.
fn command(dir: &Dir, args: &[&str]) -> Command {
    let mut command = dir.command(args);
    command.env("GLOO_SOCKET_IFNAME", "lo").env("OMP_NUM_THREADS", "1");
    command
}

#[track_caller]
fn shared(dir: &Dir, args: &[&str]) -> String {
    let output = command(dir, args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", stderr(&output));
    stdout(&output)
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[track_caller]
fn same(dir: &Dir, a: &str, b: &str) {
    assert!(read(&dir.path(a)) == read(&dir.path(b)), "{a} and {b} differ");
}

fn prompts(dir: &Dir, count: usize) {
    let row =
        |i: usize| format!(r#"{{"prompt":[{{"role":"user","content":"What is {i} + {i}?"}}],"answer":"{}"}}"#, 2 * i);
    dir.write("prompts.jsonl", (0..count).map(row).collect::<Vec<_>>().join("\n"));
}

/// A reward model, `reward/model`, and a file of scorers with it, whose passes are short.
fn reward(dir: &Dir) {
    dir.pairs("pairs.jsonl", "some", 18);
    let train = ["train", "--model", "model", "--train", "pairs.jsonl", "--objective", "reward", "--output", "reward"];
    shared(dir, &[&train[..], &["--learning-rate", "1e-3", "--max-steps", "1", "--batch-size", "4"]].concat());
    let scorers = "[[scorer]]\nkind = 'reward-model'\nmodel = 'reward/model'\nbatch_tokens = 200\n\
                   [[scorer]]\nkind = 'digit-share'\nweight = 0.5\n";
    dir.write("scorers.toml", scorers);
}

const SAMPLING: &[&str] =
    &["--prompts", "prompts.jsonl", "--samples", "2", "--batch-rows", "2", "--max-new-tokens", "8"];

/// Processes as torchrun would start them, with a store that rank 0 keeps.
fn as_torchrun(dir: &Dir, args: &[&str], size: usize) -> Vec<Output> {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let start = |rank: usize| {
        let mut command = command(dir, args);
        for (name, value) in [("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", size), ("MASTER_PORT", port.into())]
        {
            command.env(name, value.to_string());
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let started: Vec<Child> = (0..size).map(start).collect();
    started.into_iter().map(|child| child.wait_with_output().unwrap()).collect()
}

#[test]
fn commands_write_the_same_bytes_in_any_number_of_processes() {
    let dir = Dir::new();
    dir.model();
    simplemix_model::tiny::write_folder(&dir.path("other"), 2).unwrap();
    reward(&dir);
    prompts(&dir, 18);
    let collect = [&["collect", "--model", "model", "--scorers", "scorers.toml"], SAMPLING].concat();
    shared(&dir, &[&collect[..], &["-o", "one.parquet"]].concat());
    let said = shared(&dir, &[&collect[..], &["--processes", "3", "-o", "three.parquet"]].concat());
    assert_eq!(said.matches("36 responses to 18 prompts").count(), 2, "the first process alone speaks: {said}");
    for part in ["parquet", "candidates.parquet", "scored.parquet"] {
        same(&dir, &format!("one.{part}"), &format!("three.{part}"));
    }
    let generate = [&["generate", "--model", "model", "--processes", "2", "-o", "two.parquet"], SAMPLING].concat();
    shared(&dir, &generate);
    same(&dir, "one.candidates.parquet", "two.parquet");
    let score = ["score", "--candidates", "two.parquet", "--scorers", "scorers.toml", "-o", "two.scored.parquet"];
    let found = as_torchrun(&dir, &score, 2);
    assert!(found.iter().all(|output| output.status.success()), "{}{}", stderr(&found[0]), stderr(&found[1]));
    assert!(stdout(&found[0]).contains("36 responses") && stdout(&found[1]).is_empty());
    same(&dir, "one.scored.parquet", "two.scored.parquet");

    let logps = ["logps", "--model", "model", "--data", "pairs.jsonl", "--micro-batch-tokens", "150", "-o"];
    shared(&dir, &[&logps[..], &["one.jsonl"]].concat());
    shared(&dir, &[&logps[..], &["three.jsonl", "--processes", "3"]].concat());
    same(&dir, "one.jsonl", "three.jsonl");
    let preferences =
        ["eval", "preferences", "--model", "model", "--reference", "other", "--data", "pairs.jsonl", "--json"];
    let preferences =
        [&preferences[..], &["--micro-batch-tokens", "150", "--kl-prompts", "6", "--kl-tokens", "5"]].concat();
    let figures = |more: &[&str]| shared(&dir, &[&preferences[..], more].concat());
    assert_eq!(figures(&[]), figures(&["--processes", "2"]));
    let answers = [
        "eval",
        "generate",
        "--model",
        "model",
        "--prompts",
        "prompts.jsonl",
        "--batch-rows",
        "1",
        "--max-new-tokens",
        "4",
    ];
    shared(&dir, &[&answers[..], &["-o", "one.json"]].concat());
    shared(&dir, &[&answers[..], &["-o", "two.json", "--processes", "2"]].concat());
    same(&dir, "one.json", "two.json");
    // Lines of the other processes lie beside the outputs; nothing else is left.
    let left = dir.entries().into_iter().filter(|name| name.starts_with('.') || name.ends_with(".log"));
    assert_eq!(left.collect::<Vec<_>>(), [""; 0]);
}

/// Waits until `is_so`.
#[track_caller]
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < end, "{what} does not come");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Kills the process of a number that `parent` has started. Returns whether there was one.
fn kill_rank(parent: &Child, rank: usize) -> bool {
    let id = parent.id();
    let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
    let of_rank = format!("RANK={rank}");
    let is_of_rank = |id: &&str| {
        let variables = std::fs::read_to_string(format!("/proc/{id}/environ")).unwrap_or_default();
        variables.split('\0').any(|variable| variable == of_rank)
    };
    let Some(id) = children.split_whitespace().find(is_of_rank) else { return false };
    Command::new("kill").args(["-KILL", id]).status().unwrap().success()
}

fn start(dir: &Dir, args: &[&str]) -> Child {
    command(dir, args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn journal_lines(dir: &Dir, name: &str) -> usize {
    std::fs::read_to_string(dir.path(name)).map_or(0, |text| text.lines().count())
}

#[test]
fn unfinished_work_goes_on_with_another_number_of_processes() {
    let dir = Dir::new();
    dir.model();
    prompts(&dir, 160);
    let generate = [&["generate", "--model", "model"], SAMPLING].concat();
    shared(&dir, &[&generate[..], &["-o", "whole.parquet"]].concat());
    let partial = ".out.parquet.partial";
    let parts = [&generate[..], &["-o", "out.parquet"]].concat();

    let child = start(&dir, &[&parts[..], &["--processes", "3"]].concat());
    wait_until("a response", || journal_lines(&dir, partial) > 3);
    assert!(kill_rank(&child, 1));
    let killed = child.wait_with_output().unwrap();
    assert_eq!(killed.status.code(), Some(1));
    let said = stderr(&killed);
    assert!(
        said.contains("error: rank 1 was ended by signal 9") || said.contains("error: rank 1 has ended, was killed"),
        "{said}"
    );
    let kept = journal_lines(&dir, partial);
    assert!(kept > 3);

    let mut child = start(&dir, &parts);
    wait_until("a further response", || journal_lines(&dir, partial) > kept + 1);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(exists(&dir.path(partial)));
    shared(&dir, &[&parts[..], &["--processes", "2"]].concat());
    same(&dir, "whole.parquet", "out.parquet");
    assert!(!exists(&dir.path(partial)));
}

/// Settings that make a pipeline small.
const SMALL: &[&str] = &[
    "run",
    "--preset",
    "simplemix",
    "--model",
    "model",
    "--prompts",
    "prompts.jsonl",
    "--off-policy",
    "off.jsonl",
    "--size",
    "8",
    "--set",
    "train.batch.batch_size=4",
    "--set",
    "train.tokens.max_length=128",
    "--set",
    "train.optimizer.learning_rate=1e-3",
    "--set",
    "collect.sampling.max_new_tokens=6",
    "--set",
    "collect.batch_rows=4",
    "--set",
    "reward.train='pairs.jsonl'",
    "--set",
    "reward.max_steps=1",
    "--set",
    "reward.batch.batch_size=4",
    "--eval-prompts",
    "held.jsonl",
    "--set",
    "evaluate.kl_prompts=2",
];

fn stage_folders(dir: &Dir, output: &str) -> Vec<String> {
    let entries = std::fs::read_dir(dir.path(output).join("stages")).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_pipeline_in_two_processes_is_that_of_one() {
    let dir = Dir::new();
    dir.model();
    dir.pairs("off.jsonl", "written", 12);
    dir.pairs("pairs.jsonl", "some", 8);
    dir.pairs("held.jsonl", "held", 4);
    prompts(&dir, 10);
    shared(&dir, &[SMALL, &["--output", "one"]].concat());
    let said = shared(&dir, &[SMALL, &["--output", "two", "--processes", "2"]].concat());
    assert!(said.contains("[1/11] reward") && said.contains("[11/11] divergence"), "{said}");
    let stages = stage_folders(&dir, "one");
    assert_eq!(stages, stage_folders(&dir, "two"), "keys of stages do not depend on processes");
    // These do not follow from a training, whose last bits are others.
    let untrained = stages.iter().filter(|name| name.starts_with("answer-before") || name.starts_with("generate"));
    for stage in untrained.clone() {
        same(
            &dir,
            &format!("one/stages/{stage}/candidates.parquet"),
            &format!("two/stages/{stage}/candidates.parquet"),
        );
    }
    assert_eq!(untrained.count(), 2);
    let train = stages.iter().find(|name| name.starts_with("train")).unwrap();
    let losses = |output: &str| -> Vec<f64> {
        let records = lines(&dir, &format!("{output}/stages/{train}/run/metrics.jsonl"));
        records.iter().filter_map(|record| record["loss"].as_f64()).collect()
    };
    let (one, two) = (losses("one"), losses("two"));
    assert!(one.len() == 2 && two.len() == 2);
    assert!(one.iter().zip(&two).all(|(one, two)| (one - two).abs() < 1e-6), "{one:?} {two:?}");
    let divergence = |output: &str| -> f64 {
        let summary: Value = serde_json::from_slice(&read(&dir.path(output).join("summary.json"))).unwrap();
        let stages = summary["stages"].as_array().unwrap();
        stages.iter().find(|stage| stage["stage"] == "divergence").unwrap()["report"]["mean"].as_f64().unwrap()
    };
    assert!((divergence("one") - divergence("two")).abs() < 1e-4);
    // All of it is found again, whatever the number of processes.
    for processes in ["1", "3"] {
        let said = shared(&dir, &[SMALL, &["--output", "two", "--processes", processes]].concat());
        assert_eq!(said.matches("done before").count(), 11, "{said}");
    }
}

#[test]
fn a_pipeline_goes_on_after_a_killed_process_and_after_a_signal() {
    let dir = Dir::new();
    dir.model();
    dir.pairs("off.jsonl", "written", 24);
    let run = ["run", "--preset", "off-policy", "--model", "model", "--off-policy", "off.jsonl", "--size", "24"];
    let sets = ["train.batch.batch_size=4", "train.checkpoint.save_every_steps=2", "train.max_steps=60"];
    let run: Vec<&str> =
        run.into_iter().chain(["--output", "out"]).chain(sets.iter().flat_map(|set| ["--set", set])).collect();
    let checkpoints = || -> usize {
        let train = || stage_folders(&dir, "out").into_iter().find(|name| name.starts_with("train"));
        let folder = exists(&dir.path("out/stages")).then(train).flatten();
        let folder = folder.map(|train| dir.path("out/stages").join(train).join("run/checkpoints"));
        let entries = folder.and_then(|folder| std::fs::read_dir(folder).ok());
        let names = entries.into_iter().flatten().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter_map(|name| name.strip_prefix("step-")?.parse().ok()).max().unwrap_or(0)
    };
    let child = start(&dir, &[&run[..], &["--processes", "2"]].concat());
    wait_until("a checkpoint", || checkpoints() >= 2);
    assert!(kill_rank(&child, 1));
    let killed = child.wait_with_output().unwrap();
    assert_eq!(killed.status.code(), Some(1));
    let said = stderr(&killed);
    assert!(
        said.contains("error: train: rank 1 was ended by signal 9")
            || said.contains("error: train: rank 1 has ended, was killed"),
        "{said}"
    );

    let before = checkpoints();
    let child = start(&dir, &[&run[..], &["--processes", "3"]].concat());
    wait_until("a later checkpoint", || checkpoints() > before);
    assert!(Command::new("kill").args(["-USR1", &child.id().to_string()]).status().unwrap().success());
    let stopped = child.wait_with_output().unwrap();
    assert_eq!(stopped.status.code(), Some(130), "{}", stderr(&stopped));
    assert!(stdout(&stopped).contains("train: stopped; the same command continues"), "{}", stdout(&stopped));

    let said = succeeds(&dir, &run);
    assert!(said.contains("[1/2] mix (done before)") && said.contains("60 updates"), "{said}");
}

#[test]
fn requests_that_cannot_be_shared_are_refused() {
    let dir = Dir::new();
    dir.model();
    dir.pairs("off.jsonl", "written", 4);
    prompts(&dir, 2);
    let refused = |output: Output, expected: &str| {
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(stderr(&output).contains(expected), "{}", stderr(&output));
    };
    let run = ["run", "--preset", "off-policy", "--model", "model", "--off-policy", "off.jsonl", "--output", "out"];
    let as_rank = command(&dir, &run).envs([("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "2")]).output().unwrap();
    refused(as_rank, "was started as 2 processes, by torchrun, Slurm or what sets the same variables");
    refused(
        dir.simplemix(&[&run[..], &["--set", "train.parallel.processes=2"]].concat()),
        "`parallel.processes` holds",
    );
    refused(dir.simplemix(&[&run[..], &["--processes", "0"]].concat()), "`parallel.processes` is 0");
    let score =
        ["score", "--candidates", "prompts.jsonl", "--scorer", "exact-answer", "-o", "s.parquet", "--processes", "2"];
    refused(dir.simplemix(&score), "--processes 2 has no use: no model runs in this process");
    let server = ["generate", "--server", "http://localhost:1/v1", "--prompts", "prompts.jsonl", "-o", "g.parquet"];
    refused(dir.simplemix(&[&server[..], &["--processes", "2"]].concat()), "--processes 2 has no use");
    refused(dir.simplemix(&["stage"]), "a stage is a part of `simplemix run --processes N`");
    // A fault of the input of a stage is told as one process tells it.
    dir.write("bad.jsonl", r#"{"prompt":[{"role":"user","content":""#);
    let other = ["logps", "--model", "model", "--data", "bad.jsonl", "-o", "l.jsonl", "--processes", "2"];
    refused(command(&dir, &other).output().unwrap(), "bad.jsonl");
}
