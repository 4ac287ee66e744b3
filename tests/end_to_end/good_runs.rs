//! Runs that end well.

use serde_json::Value;

use crate::{Dir, exists, stderr, stdout};

pub(crate) fn lines(dir: &Dir, file: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(dir.path(file)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[track_caller]
pub(crate) fn succeeds(dir: &Dir, args: &[&str]) -> String {
    let output = dir.simplemix(args);
    assert!(output.status.success(), "{}", stderr(&output));
    stdout(&output)
}

pub(crate) fn mixed(dir: &Dir) {
    dir.pairs("off.jsonl", "off", 30);
    dir.pairs("on.jsonl", "on", 20);
    succeeds(
        dir,
        &[
            "mix",
            "--source",
            "off=off.jsonl",
            "--source",
            "on=on.jsonl",
            "--weights",
            "off=0.5,on=0.5",
            "--size",
            "24",
            "--seed",
            "1",
            "-o",
            "mix.parquet",
            "--report",
            "mix.json",
        ],
    );
}

#[test]
fn a_mixture_holds_its_shares_and_is_the_same_twice() {
    let dir = Dir::new();
    mixed(&dir);
    let report: Value = serde_json::from_str(&std::fs::read_to_string(dir.path("mix.json")).unwrap()).unwrap();
    assert_eq!(report["achieved"]["pairs"], 24);
    assert_eq!(report["achieved"]["sources"][0]["share"], 0.5);
    let found: Value = serde_json::from_str(&succeeds(&dir, &["inspect", "--json", "mix.parquet"])).unwrap();
    assert_eq!((&found["sources"]["off"], &found["sources"]["on"]), (&Value::from(12), &Value::from(12)));
    let first = std::fs::read(dir.path("mix.parquet")).unwrap();
    // A file that is there is not overwritten unasked.
    for name in ["mix.parquet", "mix.json"] {
        std::fs::remove_file(dir.path(name)).unwrap();
    }
    mixed(&dir);
    assert_eq!(std::fs::read(dir.path("mix.parquet")).unwrap(), first);
}

const TRAIN: &[&str] = &[
    "train",
    "--model",
    "model",
    "--train",
    "mix.parquet",
    "--eval",
    "off.jsonl",
    "--learning-rate",
    "1e-3",
    "--batch-size",
    "4",
];

#[test]
fn a_dry_run_says_what_memory_it_takes_and_writes_nothing() {
    let dir = Dir::new();
    dir.model();
    mixed(&dir);
    let text = |more: &[&str]| {
        let output = dir.simplemix(&[TRAIN, &["--output", "run", "--dry-run"], more].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        stdout(&output) + &stderr(&output)
    };
    let whole = text(&[]);
    assert!(whole.contains("expected peak memory 0.") && whole.contains("optimizer"), "{whole}");
    assert!(text(&["--set", "memory.activation_checkpointing=true"]).contains("passes of"));
    assert!(!dir.path("run").exists());
}

#[test]
fn activations_computed_again_change_no_number() {
    let dir = Dir::new();
    dir.model();
    mixed(&dir);
    succeeds(&dir, &[TRAIN, &["--output", "plain"]].concat());
    succeeds(&dir, &[TRAIN, &["--output", "again", "--set", "memory.activation_checkpointing=true"]].concat());
    for (plain, again) in lines(&dir, "plain/metrics.jsonl").iter().zip(lines(&dir, "again/metrics.jsonl")) {
        for key in ["loss", "grad_norm", "rewards/margins"] {
            let (Some(a), Some(b)) = (plain[key].as_f64(), again[key].as_f64()) else { continue };
            assert!((a - b).abs() < 1e-4 * a.abs().max(1.0), "{key}: {a} {b}");
        }
    }
}

#[test]
fn training_raises_the_margin_of_both_sources_and_saves_a_model() {
    let dir = Dir::new();
    dir.model();
    mixed(&dir);
    succeeds(&dir, &[TRAIN, &["--output", "run", "--epochs", "3"]].concat());
    let metrics = lines(&dir, "run/metrics.jsonl");
    // 18 updates and the evaluation after them.
    assert_eq!(metrics.len(), 19);
    assert!((metrics[0]["loss"].as_f64().unwrap() - 2f64.ln()).abs() < 1e-3);
    for source in ["off", "on"] {
        let margin = |line: &Value| line[format!("rewards/margins@{source}")].as_f64().unwrap();
        assert!(margin(&metrics[17]) > margin(&metrics[0]) + 0.1, "{source}: {}", margin(&metrics[17]));
    }
    assert!(metrics[18]["eval_rewards/accuracies"].as_f64().unwrap() > 0.5);
    for file in ["config.toml", "model/config.json", "model/model.safetensors", "model/tokenizer.json"] {
        assert!(exists(&dir.path("run").join(file)), "{file}");
    }
    // The result is a model folder like any other.
    let again =
        [&["train", "--model", "run/model", "--train", "on.jsonl", "--output", "two"][..], &["--max-steps", "1"]];
    succeeds(&dir, &again.concat());
}

#[test]
fn flags_and_set_win_over_the_file_and_the_resolved_settings_are_kept() {
    let dir = Dir::new();
    dir.model();
    dir.pairs("p.jsonl", "a", 8);
    dir.write("run.toml", "model = \"model\"\ntrain = \"p.jsonl\"\noutput = \"run\"\nmax_steps = 5\nloss.beta = 0.3\n");
    let set = ["--set", "optimizer.beta1=0.8", "--set", "reference.source=on_the_fly"];
    succeeds(&dir, &[&["train", "--config", "run.toml", "--max-steps", "1"][..], &set].concat());
    let resolved = std::fs::read_to_string(dir.path("run/config.toml")).unwrap();
    for line in ["beta = 0.3", "max_steps = 1", "beta1 = 0.8", "source = \"on-the-fly\"", "beta2 = 0.999"] {
        assert!(resolved.lines().any(|found| found == line), "{line} is not in: {resolved}");
    }
    assert_eq!(lines(&dir, "run/metrics.jsonl").len(), 1);
}

/// A run cut after its checkpoint at update 4 goes on to the very weights of one that was not.
#[test]
fn a_resumed_run_ends_on_the_same_weights() {
    let dir = Dir::new();
    dir.model();
    mixed(&dir);
    succeeds(&dir, &[TRAIN, &["--output", "whole", "--save-every-steps", "4"]].concat());
    succeeds(&dir, &[TRAIN, &["--output", "cut", "--save-every-steps", "4"]].concat());
    // As after a crash between the checkpoint and the end.
    std::fs::remove_dir_all(dir.path("cut/model")).unwrap();
    succeeds(&dir, &[TRAIN, &["--output", "cut", "--save-every-steps", "4", "--resume"]].concat());
    let weights = |run: &str| std::fs::read(dir.path(run).join("model/model.safetensors")).unwrap();
    assert!(weights("whole") == weights("cut"));
    assert_eq!(lines(&dir, "cut/metrics.jsonl").len(), lines(&dir, "whole/metrics.jsonl").len());
}

#[test]
fn help_teaches_by_example_and_completions_are_scripts() {
    let dir = Dir::new();
    for command in ["inspect", "convert", "tokenize", "mix", "train", "logps", "import-gguf"] {
        let help = succeeds(&dir, &[command, "--help"]);
        assert!(help.contains("Example") && help.contains(&format!("simplemix {command}")), "{help}");
    }
    assert!(succeeds(&dir, &["completions", "bash"]).contains("complete"));
}
