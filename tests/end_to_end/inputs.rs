//! Inputs that are no regular files: named at once, where opening a pipe would wait for ever.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::{Dir, stderr};

/// Times that a command is looked at before it counts as waiting: a minute at least.
const LOOKS: u32 = 12_000;

fn pipe(path: &Path) {
    let _ = std::fs::remove_file(path);
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// Output of a command that must end by itself.
fn ended(mut command: Command) -> Output {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    for _ in 0..LOOKS {
        if child.try_wait().unwrap().is_some() {
            return child.wait_with_output().unwrap();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    panic!("{command:?} waits: {}", stderr(&child.wait_with_output().unwrap()))
}

/// Runs the command with a pipe under `name`, which the error has to name.
#[track_caller]
fn refused(dir: &Dir, name: &str, args: &[&str]) {
    let kept = std::fs::read(dir.path(name)).ok();
    pipe(&dir.path(name));
    let output = ended(dir.command(args));
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {text}");
    assert!(text.starts_with("error: ") && text.trim_end().lines().count() == 1, "{args:?}: {text}");
    let file = Path::new(name).file_name().unwrap().to_str().unwrap();
    assert!(text.contains(file), "{args:?}: {text}");
    std::fs::remove_file(dir.path(name)).unwrap();
    if let Some(kept) = kept {
        std::fs::write(dir.path(name), kept).unwrap();
    }
}

#[test]
fn a_pipe_in_place_of_a_file_is_named_at_once() {
    let dir = Dir::new();
    dir.model();
    dir.pairs("p.jsonl", "a", 8);
    dir.write("q.jsonl", "{\"prompt\": \"q\"}\n");
    let train = ["train", "--model", "model", "--train", "p.jsonl", "--output", "run"];
    for (name, args) in [
        ("x.jsonl", &["inspect", "x.jsonl"][..]),
        ("x.parquet", &["show", "x.parquet"]),
        ("x.jsonl", &["convert", "x.jsonl", "-o", "y.parquet"]),
        ("f.toml", &["convert", "p.jsonl", "-o", "y.parquet", "--filter", "f.toml"]),
        ("m.toml", &["show", "p.jsonl", "--map", "m.toml"]),
        ("t.jinja", &["tokenize", "p.jsonl", "--tokenizer", "model", "--template", "t.jinja"]),
        ("x.jsonl", &["tokenize", "x.jsonl", "--tokenizer", "model"]),
        ("x.jsonl", &["mix", "--source", "a=x.jsonl", "--source", "b=p.jsonl", "-o", "m.parquet"]),
        ("mix.toml", &["mix", "--config", "mix.toml", "-o", "m.parquet"]),
        ("receipt.json", &["mix", "--verify", "receipt.json"]),
        ("x.jsonl", &["generate", "--model", "model", "--prompts", "x.jsonl", "-o", "c.parquet"]),
        ("c.parquet", &["score", "--candidates", "c.parquet", "--scorer", "exact-answer", "-o", "s.parquet"]),
        ("s.parquet", &["pair", "--candidates", "s.parquet", "-o", "y.parquet"]),
        ("run.toml", &["train", "--config", "run.toml"]),
        ("trl.yaml", &["train", "--trl-config", "trl.yaml"]),
        ("x.jsonl", &["train", "--model", "model", "--train", "x.jsonl", "--output", "run"]),
        ("model/config.json", &train),
        ("model/model.safetensors", &train),
        ("model/tokenizer.json", &train),
        ("model/tokenizer_config.json", &train),
        ("model/generation_config.json", &["generate", "--model", "model", "--prompts", "q.jsonl", "-o", "c.parquet"]),
        ("x.jsonl", &["logps", "--model", "model", "--data", "x.jsonl", "-o", "l.parquet"]),
        ("x.json", &["eval", "alpaca", "--annotations", "x.json"]),
        ("x.json", &["eval", "preferences", "--model", "model", "--data", "x.json"]),
        ("x.toml", &["run", "x.toml"]),
        ("x.gguf", &["import-gguf", "x.gguf", "out"]),
    ] {
        refused(&dir, name, args);
    }
}

#[test]
fn what_a_pipe_or_a_folder_is_and_what_to_do() {
    let dir = Dir::new();
    pipe(&dir.path("pipe"));
    std::fs::create_dir(dir.path("folder")).unwrap();
    for (args, part) in [
        (&["inspect", "pipe"][..], "pipe: cannot open: it is a pipe, expected a regular file"),
        (&["inspect", "/dev/zero"], "/dev/zero: cannot open: it is a device, expected a regular file"),
        (&["train", "--config", "folder"], "folder: cannot read: it is a folder, expected a regular file"),
        (&["import-gguf", "folder", "out"], "folder: cannot read: it is a folder, expected a regular file"),
    ] {
        let output = ended(dir.command(args));
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
    // A shell's `<(...)`.
    let mut command = dir.command(&["inspect", "/dev/stdin"]);
    command.stdin(Stdio::piped());
    let text = stderr(&ended(command));
    assert!(text.contains("write what it gives to a file, and name that"), "{text}");
}

#[test]
fn a_damaged_input_shows_no_panic() {
    let dir = Dir::new();
    let tokenizer = dir.model().join("tokenizer.json");
    dir.pairs("p.jsonl", "a", 8);
    let whole = std::fs::read_to_string(&tokenizer).unwrap();
    let mut value: serde_json::Value = serde_json::from_str(&whole).unwrap();
    let token = serde_json::json!({ "SpecialToken": { "id": "<x>", "type_id": 0 } });
    let text = serde_json::json!({ "Sequence": { "id": "A", "type_id": 0 } });
    value["post_processor"] = serde_json::json!({
        "type": "TemplateProcessing", "single": [token, text], "pair": [text], "special_tokens": {},
    });
    for (damaged, part) in [(whole[..whole.len() / 2].to_owned(), "expected JSON"), (value.to_string(), "damaged: ")] {
        std::fs::write(&tokenizer, damaged).unwrap();
        let output = dir.simplemix(&["tokenize", "p.jsonl", "--tokenizer", "model"]);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert_eq!(text.trim_end().lines().count(), 1, "{text}");
        assert!(text.contains("tokenizer.json") && text.contains(part) && !text.contains("fault"), "{text}");
    }
}
