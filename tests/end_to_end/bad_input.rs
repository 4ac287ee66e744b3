//! Input that cannot be used: one clear error, exit code 2, nothing left behind.

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;

use crate::{Dir, stderr, stdout};

/// Runs the command, expects exit code 2, one line that holds every part, and no new file.
#[track_caller]
pub(crate) fn refused(dir: &Dir, args: &[&str], parts: &[&str]) {
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
    refused(&dir, &train("--beta", "-1"), &["--beta is -1, expected a number above 0"]);
    refused(&dir, &train("--batch-size", "0"), &["--batch-size is 0, expected a whole number >= 1"]);
    refused(&dir, &train("--loss", "dop"), &["--loss is `dop`, expected one of sigmoid"]);
    refused(&dir, &train("--learning-rate", "fast"), &["--learning-rate is \"fast\", expected a number above 0"]);
    refused(&dir, &train("--shuffle", "often"), &["--shuffle is \"often\", expected `none` or `seed` or `trl`"]);
    refused(&dir, &train("--set", "loss.beta=-1"), &["`loss.beta` is -1, expected a number above 0"]);
    refused(&dir, &train("--set", "loss.betta=1"), &["unknown key `loss.betta`; did you mean `loss.beta`?"]);
    refused(&dir, &train("--set", "loss.beta"), &["--set is `loss.beta`, expected SECTION.KEY=VALUE"]);
    refused(&dir, &["train", "--train", "p.jsonl", "--output", "run"], &["`model` is not set"]);
}

#[test]
fn flags_and_keys_that_are_gone_say_what_replaced_them() {
    let dir = Dir::new();
    for (flag, value, expected) in [
        ("--label-smoothing", "0.1", "--label-smoothing is now --set loss.label_smoothing=VALUE"),
        ("--hypo-lambda", "1e-3", "--hypo-lambda is now --set hypo.lambda=VALUE"),
        ("--lora-targets", "q_proj", "--lora-targets is now --set lora.targets='[\"VALUE\"]'"),
        ("--warmup-ratio", "0.1", "--warmup-ratio is now --set optimizer.warmup_ratio=VALUE"),
        ("--micro-batch-tokens", "512", "--micro-batch-tokens is now --set batch.micro_batch_tokens=VALUE"),
        ("--reference", "computed", "--reference is now --set reference.source=cached|computed|on-the-fly"),
        ("--loss-constant", "a=1", "--loss-constant is now --set loss.constants.NAME=VALUE"),
    ] {
        refused(&dir, &["train", flag, value], &[expected]);
    }
    refused(&dir, &["train", "--set", "lora_rank=4"], &["`lora_rank` is now `lora.rank`"]);
    dir.write("old.toml", "beta = 0.1\nreference = \"on_the_fly\"\n[adamw]\nweight_decay = 0.1\n");
    let moved = ["old.toml: `adamw.weight_decay` is now `optimizer.weight_decay`", "`beta` is now `loss.beta`"];
    refused(&dir, &["train", "--config", "old.toml"], &moved);
}

#[test]
fn help_and_settings_come_with_defaults() {
    let dir = Dir::new();
    let help = stdout(&dir.simplemix(&["train", "--help"]));
    for part in ["Optimisation:", "--learning-rate <RATE>", "[default: 1e-6]", "--shuffle <none|seed|trl>", "--set"] {
        assert!(help.contains(part), "`{part}` is not in: {help}");
    }
    let settings = stdout(&dir.simplemix(&["train", "--settings"]));
    assert!(settings.contains("\n[hypo]\n") && settings.contains("\nlearning_rate = 1e-6\n"), "{settings}");
    dir.write("run.toml", settings);
    refused(&dir, &["train", "--config", "run.toml"], &["`model` is not set"]);
}

#[test]
fn an_unknown_setting_is_named_with_its_line() {
    let dir = Dir::new();
    dir.write("run.toml", "model = \"model\"\nloss.betta = 0.1\n");
    let output = dir.simplemix(&["train", "--config", "run.toml"]);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(2));
    for part in ["run.toml:2: ", "`loss.betta`", "`loss.beta`"] {
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
