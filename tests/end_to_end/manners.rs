//! The program among other programs: closed pipes, full disks, and what it writes where there is no terminal.

use std::process::Stdio;

use serde_json::{Value, json};

use crate::{Dir, stderr, stdout};

/// A file of pairs, and another with one more column.
fn odd_pairs(dir: &Dir) {
    dir.write("more.jsonl", r#"{"prompt":"q","chosen":"good","rejected":"bad","length":3}"#);
    let mut rows = String::new();
    for i in 0..40 {
        rows.push_str(&format!("{{\"prompt\":\"question {i}\",\"chosen\":\"yes {i}\",\"rejected\":\"no {i}\"}}\n"));
    }
    dir.write("odd.jsonl", rows);
}

#[test]
fn a_closed_pipe_ends_the_output_quietly() {
    let dir = Dir::new();
    odd_pairs(&dir);
    for args in [&["inspect", "odd.jsonl"][..], &["train", "--settings"], &["completions", "bash"], &["--help"]] {
        let mut child = dir.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", stderr(&output));
        assert!(!stderr(&output).contains("panic") && !stderr(&output).contains("error"), "{}", stderr(&output));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_stream_that_cannot_be_written_is_no_panic() {
    let full = || Stdio::from(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    let dir = Dir::new();
    odd_pairs(&dir);
    for args in [
        &["inspect", "odd.jsonl"][..],
        &["show", "odd.jsonl"],
        &["convert", "odd.jsonl", "-o", "told.jsonl"],
        &["train", "--settings"],
        &["completions", "bash"],
        &["--version"],
        &["mix", "--help"],
    ] {
        let output = dir.command(args).stdout(full()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains("error: standard output: writing failed: "), "{}", stderr(&output));
    }
    // Messages that cannot be written change nothing.
    for (args, code) in [(&["convert", "odd.jsonl", "-o", "out.jsonl"][..], 0), (&["inspect", "nowhere.jsonl"], 2)] {
        let output = dir.command(args).stderr(full()).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}");
    }
}

#[test]
fn warnings_off_a_terminal_are_plain_lines() {
    let dir = Dir::new();
    odd_pairs(&dir);
    let output = dir.simplemix(&["convert", "odd.jsonl", "more.jsonl", "-o", "out.jsonl"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let said = stderr(&output);
    assert!(said.contains("warning: columns that not all files have, or with other types, are left out: "), "{said}");
    for text in [said, stdout(&output)] {
        assert!(!text.contains('\u{1b}') && !text.contains("simplemix_") && !text.contains("WARN"), "{text}");
    }
}

#[test]
fn threads_sleep_while_they_wait_unless_the_user_says_otherwise() {
    let dir = Dir::new();
    dir.model();
    dir.pairs("on.jsonl", "on", 4);
    let settings = ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"];
    for (set, expected) in [
        (None, json!("PASSIVE")),
        (Some(("OMP_WAIT_POLICY", "active")), json!("active")),
        (Some(("GOMP_SPINCOUNT", "9")), Value::Null),
    ] {
        let output = format!("run-{}", expected.as_str().unwrap_or("none"));
        let mut command =
            dir.command(&["train", "--model", "model", "--train", "on.jsonl", "--max-steps", "1", "--output", &output]);
        for name in settings {
            command.env_remove(name);
        }
        command.envs(set);
        let found = command.output().unwrap();
        assert!(found.status.success(), "{}", stderr(&found));
        let environment = std::fs::read_to_string(dir.path(&output).join("environment.json")).unwrap();
        let environment: Value = serde_json::from_str(&environment).unwrap();
        assert_eq!(environment["omp_wait_policy"], expected);
        // The arguments are those of the first start.
        assert_eq!(environment["arguments"][1], "train");
    }
}

#[test]
fn training_ends_with_loss_accuracy_and_margin_also_as_json() {
    let dir = Dir::new();
    dir.model();
    dir.pairs("on.jsonl", "on", 8);
    dir.pairs("held-out.jsonl", "held-out", 4);
    let train = |output: &str, more: &[&str]| {
        let args =
            ["train", "--model", "model", "--train", "on.jsonl", "--eval", "held-out.jsonl", "--batch-size", "4"];
        let output = dir.simplemix(&[&args[..], &["--learning-rate", "1e-3", "--output", output], more].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        stdout(&output)
    };
    let said = train("runs/first", &[]);
    for part in ["last tenth of 2 updates: loss 0.", ", margin ", ", accuracy ", "held-out pairs: loss 0."] {
        assert!(said.contains(part), "{part} in {said}");
    }
    let found: Value = serde_json::from_str(&train("runs/second", &["--json"])).unwrap();
    assert_eq!((&found["outcome"], &found["updates"]), (&json!("finished"), &json!(2)));
    for metric in ["loss", "rewards/margins", "rewards/accuracies", "eval_loss", "eval_rewards/accuracies"] {
        assert!(found["last"][metric].is_number(), "{metric} in {found}");
    }
    assert!(found["notices"].is_array() && found["model"] == "runs/second/model");

    // A result is named by its run.
    dir.write("prompts.jsonl", "{\"prompt\": \"say\"}");
    let args = ["generate", "--model", "runs/first/model", "--prompts", "prompts.jsonl", "--max-new-tokens", "2"];
    let output = dir.simplemix(&[&args[..], &["-o", "c.parquet"]].concat());
    assert!(stdout(&output).contains(" by first\n"), "{}{}", stdout(&output), stderr(&output));
    let output = dir.simplemix(&[&args[..], &["--name", "mine", "-o", "d.parquet"]].concat());
    assert!(stdout(&output).contains(" by mine\n"), "{}", stdout(&output));
}
