//! Training as a user runs it: killed, stopped, on several sources, as LoRA, as a reward model.

#![expect(clippy::disallowed_methods, reason = "kills come at moments")]

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::good_runs::{lines, mixed, succeeds};
use crate::{Dir, exists, stderr, stdout};

const RUN: &[&str] = &[
    "train",
    "--model",
    "model",
    "--train",
    "mix.parquet",
    "--eval",
    "on.jsonl",
    "--batch-size",
    "4",
    "--learning-rate",
    "1e-3",
    "--epochs",
    "2",
    "--save-every-steps",
    "1",
    "--output",
];

fn prepared() -> Dir {
    let dir = Dir::new();
    dir.model();
    mixed(&dir);
    dir
}

fn weights(dir: &Dir, run: &str) -> Vec<u8> {
    std::fs::read(dir.path(run).join("model/model.safetensors")).unwrap()
}

/// Thirty kills without warning, at moments spread over the whole run, and the same bits as without any.
#[test]
fn a_run_that_is_killed_goes_on_from_its_last_whole_checkpoint() {
    let dir = prepared();
    let started = Instant::now();
    succeeds(&dir, &[RUN, &["whole"]].concat());
    let duration = started.elapsed();
    let (mut finished, mut resumed) = (0, 0);
    for kill in 0..30u32 {
        let mut child = dir.command(&[RUN, &["cut", "--resume", "auto"]].concat());
        let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // A golden-section sequence: any number of moments covers the run evenly.
        let moment = (f64::from(kill) * 0.618_033_988_75).fract();
        std::thread::sleep(duration.mul_f64(moment));
        child.kill().unwrap();
        let ended = child.wait().unwrap();
        resumed += u32::from(exists(&dir.path("cut/checkpoints")));
        if ended.success() {
            assert!(weights(&dir, "whole") == weights(&dir, "cut"), "kill {kill}");
            std::fs::remove_dir_all(dir.path("cut")).unwrap();
            finished += 1;
        }
    }
    succeeds(&dir, &[RUN, &["cut", "--resume", "auto"]].concat());
    assert!(weights(&dir, "whole") == weights(&dir, "cut"), "{finished} of 30 had finished before they were killed");
    assert!(resumed > 5, "kills came after the first checkpoint in {resumed} of 30");
    // Nothing half-written is left.
    for folder in ["cut", "cut/checkpoints"] {
        for entry in std::fs::read_dir(dir.path(folder)).unwrap() {
            let name = entry.unwrap().file_name();
            assert!(!name.to_string_lossy().starts_with('.'), "{name:?}");
        }
    }
    let steps = |run: &str| -> Vec<Value> {
        lines(&dir, &format!("{run}/metrics.jsonl")).iter().map(|line| line["step"].clone()).collect()
    };
    assert_eq!(steps("cut"), steps("whole"));
}

/// A polite end: a checkpoint is saved, and the exit code says so.
#[cfg(unix)]
#[test]
fn a_run_that_is_asked_to_stop_saves_a_checkpoint() {
    let dir = prepared();
    let many = ["--epochs", "400", "--save-every-steps", "100000"];
    let mut child = dir.command(&[RUN, &["run"], &many].concat());
    let child = child.stdout(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !std::fs::read_to_string(dir.path("run/metrics.jsonl")).is_ok_and(|text| text.lines().count() > 2) {
        assert!(Instant::now() < deadline, "no update within a minute");
        std::thread::sleep(Duration::from_millis(20));
    }
    let id = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let hint = said.lines().find_map(|line| line.strip_prefix("stopped; go on with: simplemix ")).unwrap();
    let checkpoints = std::fs::read_dir(dir.path("run/checkpoints")).unwrap().count();
    assert_eq!(checkpoints, 1);
    // The hint works as it stands; fewer updates than are done end the run.
    let args: Vec<&str> = hint.split(' ').chain(["--max-steps", "1"]).collect();
    assert!(succeeds(&dir, &args).contains("model: run/model"));
}

/// A run goes on as it began, or says what has changed.
#[test]
fn a_run_does_not_go_on_with_other_settings_or_data() {
    let dir = prepared();
    let few = ["--max-steps", "2"];
    succeeds(&dir, &[RUN, &["run"], &few].concat());
    let refused = |more: &[&str]| {
        let output = dir.simplemix(&[RUN, &["run", "--resume", "auto"], more].concat());
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        stderr(&output)
    };
    let again = succeeds(&dir, &[RUN, &["run", "--resume", "auto"], &few].concat());
    assert!(again.contains("the run had finished; nothing was changed"), "{again}");
    let said = refused(&["--max-steps", "4", "--batch-size", "2"]);
    assert!(said.contains("`batch.batch_size` was 4 and is 2"), "{said}");
    // Other pairs under a name that stays.
    let on = std::fs::read_to_string(dir.path("on.jsonl")).unwrap();
    std::fs::copy(dir.path("mix.parquet"), dir.path("kept.parquet")).unwrap();
    std::fs::write(dir.path("other.jsonl"), on).unwrap();
    succeeds(&dir, &["convert", "other.jsonl", "-o", "mix.parquet", "--overwrite"]);
    let said = refused(&["--max-steps", "4"]);
    assert!(said.contains("the content of the training pairs has changed"), "{said}");
    succeeds(&dir, &[RUN, &["run", "--resume", "auto", "--resume-anyway", "--max-steps", "4"]].concat());
    let notices = std::fs::read_to_string(dir.path("run/notices.json")).unwrap();
    assert!(notices.contains("the content of the training pairs has changed"), "{notices}");
}

/// Data from several files, text and messages, and what is told of them.
#[test]
fn folders_and_text_are_read_and_what_is_done_with_them_is_said() {
    let dir = prepared();
    let line = r#"{"prompt": "Two and two?", "chosen": " Four.", "rejected": " Five."}"#;
    std::fs::create_dir(dir.path("shards")).unwrap();
    for (name, lines) in [("a.jsonl", 3), ("b.jsonl", 4)] {
        dir.write(&format!("shards/{name}"), format!("{line}\n").repeat(lines));
    }
    let train = |train: &str, output: &str, more: &[&str]| {
        let base = ["train", "--model", "model", "--train", train, "--output", output, "--learning-rate", "1e-3"];
        dir.simplemix(&[&base[..], more].concat())
    };
    let output = train("shards", "text", &["--batch-size", "4"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let said = stdout(&output) + &stderr(&output);
    assert!(said.contains("2 updates of 4 pairs, the last of an epoch of 3"), "{said}");
    assert!(said.contains("7 pairs are plain text") && said.contains("--messages"), "{said}");
    let output = train("shards/*.jsonl", "messages", &["--messages"]);
    let said = stdout(&output) + &stderr(&output);
    assert!(output.status.success() && !said.contains("plain text"), "{said}");
    assert!(said.contains("7 pairs are fewer than `batch.batch_size`, 8"), "{said}");
    let output = train("shards", "still", &["--max-steps", "1", "--set", "optimizer.warmup_ratio=0.1"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("`optimizer.warmup_ratio`") && !exists(&dir.path("still")), "{}", stderr(&output));
}

/// A checkpoint that does not fit, as on a full disk: one error that names the file, and the last good one is intact.
#[cfg(unix)]
#[test]
fn a_checkpoint_that_cannot_be_written_leaves_the_last_one_whole() {
    let dir = prepared();
    succeeds(&dir, &[RUN, &["run", "--max-steps", "3"]].concat());
    std::fs::remove_dir_all(dir.path("run/model")).unwrap();
    let checkpoints = || {
        let names = std::fs::read_dir(dir.path("run/checkpoints")).unwrap();
        let mut names: Vec<String> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(checkpoints(), ["step-1", "step-2"]);
    // No file may grow beyond 64 blocks of 512 bytes: metrics fit, weights do not.
    let go_on = [RUN, &["run", "--max-steps", "6", "--resume", "auto"]].concat();
    let limited = dir.command(&go_on);
    let mut shell = std::process::Command::new("sh");
    shell
        .current_dir(limited.get_current_dir().unwrap())
        .args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$0\" \"$@\""]);
    shell.arg(limited.get_program()).args(limited.get_args());
    shell.envs(limited.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let output = shell.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("safetensors") && said.contains("File too large"), "{said}");
    assert_eq!(checkpoints(), ["step-1", "step-2"]);
    assert!(!exists(&dir.path("run/model")));

    succeeds(&dir, &go_on);
    succeeds(&dir, &[RUN, &["whole", "--max-steps", "6"]].concat());
    // The shorter run had a schedule of its own up to its second update.
    assert_eq!(lines(&dir, "run/metrics.jsonl").len(), lines(&dir, "whole/metrics.jsonl").len());
}

/// A folder that cannot be written: one error that names it, nothing lost, and the run goes on once it can be.
#[cfg(unix)]
#[expect(clippy::print_stderr, reason = "a test says that it is skipped")]
#[test]
fn a_folder_that_is_read_only_is_named_and_the_last_checkpoint_stays() {
    use std::os::unix::fs::PermissionsExt;
    let dir = prepared();
    let allow = |name: &str, mode: u32| {
        std::fs::set_permissions(dir.path(name), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    // Root may write anywhere, unless it gives up its capabilities.
    let unprivileged = |args: &[&str]| {
        let plain = dir.command(args);
        let probe = std::process::Command::new("setpriv").arg("--version").output();
        let mut command = if probe.is_ok_and(|output| output.status.success()) {
            let mut command = std::process::Command::new("setpriv");
            command.args(["--inh-caps=-all", "--bounding-set=-all"]).arg(plain.get_program());
            command
        } else {
            std::process::Command::new(plain.get_program())
        };
        command.args(plain.get_args()).current_dir(plain.get_current_dir().unwrap());
        command.envs(plain.get_envs().filter_map(|(key, value)| Some((key, value?))));
        command.output().unwrap()
    };
    std::fs::create_dir(dir.path("closed")).unwrap();
    allow("closed", 0o555);
    if std::fs::write(dir.path("closed/probe"), "").is_ok() && !unprivileged(&["--version"]).status.success() {
        eprintln!("skipped: this user can write anywhere, and there is no setpriv");
        return;
    }
    let _ = std::fs::remove_file(dir.path("closed/probe"));
    let output = unprivileged(&[RUN, &["closed/run"]].concat());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(matches!(output.status.code(), Some(1 | 2)), "{said}");
    assert!(said.contains("closed/run") && said.contains("Permission denied"), "{said}");
    assert_eq!(std::fs::read_dir(dir.path("closed")).unwrap().count(), 0);

    succeeds(&dir, &[RUN, &["run", "--max-steps", "3"]].concat());
    std::fs::remove_dir_all(dir.path("run/model")).unwrap();
    let go_on = [RUN, &["run", "--max-steps", "6", "--resume", "auto"]].concat();
    allow("run/checkpoints", 0o555);
    let output = unprivileged(&go_on);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("run/checkpoints") && said.contains("Permission denied"), "{said}");
    assert!(exists(&dir.path("run/checkpoints/step-2")) && !exists(&dir.path("run/model")));
    allow("run/checkpoints", 0o755);
    succeeds(&dir, &go_on);
    assert!(exists(&dir.path("run/model/model.safetensors")));
}

/// Token ids are made once; a file of them that was cut short is made anew.
#[test]
fn token_ids_are_kept_between_runs() {
    let dir = prepared();
    succeeds(&dir, &[RUN, &["none", "--set", "tokens.cache=false"]].concat());
    assert!(!exists(&dir.path("cache/tokens")));
    succeeds(&dir, &[RUN, &["first"]].concat());
    let kept = || -> Vec<(PathBuf, Vec<u8>)> {
        let files = std::fs::read_dir(dir.path("cache/tokens")).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = files.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect();
        files.sort();
        files
    };
    let first = kept();
    assert_eq!(first.len(), 2, "of training and of held-out pairs");
    succeeds(&dir, &[RUN, &["second"]].concat());
    assert!(first == kept());
    std::fs::write(&first[0].0, &first[0].1[..first[0].1.len() / 2]).unwrap();
    succeeds(&dir, &[RUN, &["third"]].concat());
    assert!(first == kept());
    for run in ["first", "second", "third"] {
        assert!(weights(&dir, "none") == weights(&dir, run), "{run}");
    }
}

#[test]
fn sources_are_mixed_on_the_way_and_every_batch_holds_the_shares() {
    let dir = Dir::new();
    dir.model();
    dir.pairs("on.jsonl", "sampled", 12);
    dir.pairs("off.jsonl", "written", 40);
    let mix = ["--mix", "on=on.jsonl:1", "--mix", "off=off.jsonl:3", "--batch-size", "8", "--output", "run"];
    succeeds(&dir, &[&["train", "--model", "model"][..], &mix].concat());
    let metrics = lines(&dir, "run/metrics.jsonl");
    assert_eq!(metrics.len(), 7, "six whole batches and what is left");
    let shares = |line: &Value| (line["share@on"].as_f64(), line["share@off"].as_f64());
    for line in &metrics[..6] {
        assert_eq!(shares(line), (Some(0.25), Some(0.75)));
    }
    let (on, off) = shares(&metrics[6]);
    assert!(on.unwrap_or(0.0) <= 0.34 && (on.unwrap_or(0.0) + off.unwrap() - 1.0).abs() < 1e-9, "{on:?} {off:?}");
}

#[test]
fn logps_are_columns_under_trls_names_and_those_that_training_starts_from() {
    let dir = prepared();
    let said = succeeds(&dir, &["logps", "--model", "model", "--data", "on.jsonl", "-o", "scored.jsonl"]);
    assert!(said.contains("mean log-probability"), "{said}");
    let (pairs, scored) = (lines(&dir, "on.jsonl"), lines(&dir, "scored.jsonl"));
    assert_eq!(pairs.len(), scored.len());
    succeeds(&dir, &[RUN, &["run", "--max-steps", "1", "--train", "on.jsonl"]].concat());
    let first = &lines(&dir, "run/metrics.jsonl")[0];
    let mean = scored[..4].iter().map(|row| row["ref_chosen_logps"].as_f64().unwrap()).sum::<f64>() / 4.0;
    assert!((mean - first["logps/chosen"].as_f64().unwrap()).abs() < 1e-3);
    let again = dir.simplemix(&["logps", "--model", "model", "--data", "scored.jsonl", "-o", "twice.jsonl"]);
    assert_eq!(again.status.code(), Some(2));
    assert!(
        String::from_utf8_lossy(&again.stderr).contains("has a column `ref_chosen_logps`, expected pairs without it")
    );
    assert!(!exists(&dir.path("twice.jsonl")));
}

#[test]
fn adapters_reward_models_and_responses_are_trained_by_flags() {
    let dir = prepared();
    let said =
        succeeds(&dir, &[RUN, &["lora", "--lora-rank", "4", "--set", "lora.targets=['q_proj', 'v_proj']"]].concat());
    assert!(said.contains(" of ") && said.contains("weights trained"), "{said}");
    assert!(exists(&dir.path("lora/adapter/adapter_model.safetensors")) && exists(&dir.path("lora/model/config.json")));
    succeeds(&dir, &[RUN, &["reward", "--objective", "reward"]].concat());
    assert!(lines(&dir, "reward/metrics.jsonl")[0]["accuracy"].is_number());
    succeeds(&dir, &[RUN, &["adapted", "--objective", "reward", "--lora-rank", "4"]].concat());
    assert!(exists(&dir.path("adapted/adapter/adapter_model.safetensors")));
    let settings: Value =
        serde_json::from_slice(&std::fs::read(dir.path("adapted/adapter/adapter_config.json")).unwrap()).unwrap();
    assert_eq!(settings["task_type"], "SEQ_CLS");
    let best = ["--set", "eval.best_metric=eval_loss", "--eval-every-steps", "2"];
    succeeds(&dir, &[RUN, &["sft", "--objective", "sft"], &best].concat());
    assert!(exists(&dir.path("sft/report.html")));
}

#[test]
fn settings_that_cannot_be_are_refused_before_anything_is_written() {
    let dir = prepared();
    for (flags, expected) in [
        (&["--lora-rank", "4", "--set", "lora.targets=['nothing']"][..], "nothing"),
        (&["--set", "optimizer.freeze=['layers.9.*']"], "`optimizer.freeze`: the pattern `layers.9.*` matches none of"),
        (
            &["--lora-rank", "4", "--lora-dropout", "0.1", "--set", "lora.targets=['lm_head']"],
            "--lora-dropout is 0.1 with an adapter of the output head, expected 0, or the output head in",
        ),
        (&["--set", "eval.early_stopping_patience=2"], "expected `eval.best_metric` to be set too"),
        (&["--objective", "rewards"], "--objective is \"rewards\", expected `preference` or `sft` or `reward`"),
    ] {
        let output = dir.simplemix(&[RUN, &["run"], flags].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(expected), "{said}");
        assert!(!exists(&dir.path("run")), "{flags:?}");
    }
    dir.write("run.toml", "learning_rat = 1e-3\n");
    let output = dir.simplemix(&["train", "--config", "run.toml"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("did you mean `optimizer.learning_rate`?"));
}
