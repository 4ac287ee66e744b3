//! Input that cannot be used: one clear error, exit code 2, nothing left behind.

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;

use crate::{Dir, stderr};

/// Runs the command, expects exit code 2, one line that holds every part, and no new file.
#[track_caller]
fn refused(dir: &Dir, args: &[&str], parts: &[&str]) {
    let before = dir.entries();
    let output = dir.simplemix(args);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.starts_with("error: ") && text.trim_end().lines().count() == 1, "{text}");
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
    assert_eq!(dir.entries(), before, "something was left behind");
}

#[test]
fn a_missing_file_is_named() {
    let dir = Dir::new();
    refused(&dir, &["inspect", "none.parquet"], &["none.parquet", "No such file"]);
    refused(&dir, &["mix", "--source", "a=none.parquet", "-o", "m.parquet"], &["none.parquet"]);
    dir.model();
    refused(&dir, &["train", "--model", "model", "--train", "none.jsonl", "--output", "run"], &["none.jsonl"]);
    refused(&dir, &["train", "--config", "none.toml"], &["none.toml", "cannot read"]);
    refused(&dir, &["import-gguf", "none.gguf", "out"], &["none.gguf", "cannot read"]);
}

#[test]
fn a_model_folder_without_tokenizer_is_named() {
    let dir = Dir::new();
    std::fs::remove_file(dir.model().join("tokenizer.json")).unwrap();
    dir.pairs("p.jsonl", "a", 8);
    refused(
        &dir,
        &["train", "--model", "model", "--train", "p.jsonl", "--output", "run"],
        &["model", "tokenizer.json"],
    );
}

#[test]
fn truncated_weights_are_named() {
    let dir = Dir::new();
    let weights = dir.model().join("model.safetensors");
    let whole = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &whole[..whole.len() / 2]).unwrap();
    dir.pairs("p.jsonl", "a", 8);
    refused(
        &dir,
        &["train", "--model", "model", "--train", "p.jsonl", "--output", "run"],
        &["model.safetensors", "not a readable safetensors file"],
    );
}

#[test]
fn a_column_of_the_wrong_type_is_named() {
    let dir = Dir::new();
    let text = Arc::new(StringArray::from(vec!["q", "r"]));
    let batch = RecordBatch::try_from_iter([
        ("prompt", text.clone() as _),
        ("chosen", Arc::new(Int64Array::from(vec![1, 2])) as _),
        ("rejected", text as _),
    ])
    .unwrap();
    let file = std::fs::File::create(dir.path("bad.parquet")).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    refused(&dir, &["inspect", "bad.parquet"], &["bad.parquet", "`chosen` is number, expected text"]);
    refused(&dir, &["mix", "--source", "a=bad.parquet", "-o", "m.parquet"], &["bad.parquet", "`chosen`"]);
}

#[test]
fn a_truncated_parquet_is_named() {
    let dir = Dir::new();
    dir.pairs("p.jsonl", "a", 50);
    assert!(dir.simplemix(&["mix", "--source", "a=p.jsonl", "-o", "m.parquet"]).status.success());
    let whole = std::fs::read(dir.path("m.parquet")).unwrap();
    dir.write("m.parquet", &whole[..whole.len() - 9]);
    refused(&dir, &["inspect", "m.parquet"], &["m.parquet", "Parquet"]);
}

#[test]
fn an_empty_mixture_is_refused() {
    let dir = Dir::new();
    dir.pairs("p.jsonl", "a", 4);
    refused(
        &dir,
        &["mix", "--source", "a=p.jsonl", "--size", "0", "-o", "m.parquet"],
        &["--size is 0, expected at least 1"],
    );
    refused(&dir, &["mix", "--source", "a=p.jsonl", "--weights", "a=0", "-o", "m.parquet"], &["all weights are 0"]);
    dir.write("empty.jsonl", "");
    refused(&dir, &["mix", "--source", "a=empty.jsonl", "-o", "m.parquet"], &["empty.jsonl"]);
}

#[test]
fn a_mixture_that_would_repeat_rows_is_refused() {
    let dir = Dir::new();
    dir.pairs("a.jsonl", "a", 4);
    dir.pairs("b.jsonl", "b", 40);
    let sources = ["--source", "a=a.jsonl", "--source", "b=b.jsonl"];
    let args = [&["mix"][..], &sources, &["--size", "20", "-o", "m.parquet"]].concat();
    refused(&dir, &args, &["`a` has 4 rows, but the mixture needs 10", "--repeat 3"]);
}

#[test]
fn weights_and_sources_must_match() {
    let dir = Dir::new();
    dir.pairs("a.jsonl", "a", 4);
    let mix = |weights: &'static str| ["mix", "--source", "a=a.jsonl", "--weights", weights, "-o", "m.parquet"];
    refused(&dir, &mix("b=1"), &["--weights", "source `b`: no such source, expected one of the sources a"]);
    refused(&dir, &mix("a=-0.5"), &["--weights: weight of source `a` is `-0.5`"]);
}

#[test]
fn a_setting_out_of_range_is_named() {
    let dir = Dir::new();
    dir.model();
    dir.pairs("p.jsonl", "a", 8);
    let train = |flag: &'static str, value: &'static str| {
        ["train", "--model", "model", "--train", "p.jsonl", "--output", "run", flag, value]
    };
    refused(&dir, &train("--beta", "-1"), &["`beta` is -1, expected a number above 0"]);
    refused(&dir, &train("--batch-size", "0"), &["`batch_size` is 0"]);
    refused(&dir, &train("--loss", "dop"), &["`loss` is `dop`, expected one of sigmoid"]);
    refused(&dir, &["train", "--train", "p.jsonl", "--output", "run"], &["`model` is not set"]);
}

#[test]
fn an_unknown_setting_is_named_with_its_line() {
    let dir = Dir::new();
    dir.write("run.toml", "model = \"model\"\nbetta = 0.1\n");
    let output = dir.simplemix(&["train", "--config", "run.toml"]);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(2));
    for part in ["run.toml", "line 2", "betta", "`beta`"] {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}

#[test]
fn a_run_is_not_written_over() {
    let dir = Dir::new();
    dir.model();
    dir.pairs("p.jsonl", "a", 8);
    let args = ["train", "--model", "model", "--train", "p.jsonl", "--output", "run", "--max-steps", "1"];
    assert!(dir.simplemix(&args).status.success());
    refused(&dir, &args, &["run: holds a run already"]);
    refused(&dir, &["train", "--model", "model", "--train", "p.jsonl", "--resume", "nowhere"], &["nowhere: no run"]);
}

#[test]
fn a_file_that_is_no_gguf_is_named() {
    let dir = Dir::new();
    dir.write("x.gguf", b"GGML0000");
    refused(&dir, &["import-gguf", "x.gguf", "out"], &["x.gguf", "byte 0", "GGUF"]);
}

#[test]
fn a_model_that_is_not_there_and_no_network() {
    let dir = Dir::new();
    dir.pairs("p.jsonl", "a", 8);
    refused(
        &dir,
        &["train", "--model", "nobody/nothing", "--train", "p.jsonl", "--output", "run"],
        &["nobody/nothing"],
    );
}
