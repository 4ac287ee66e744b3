//! Trajectories of TRL 1.16's trainers, step for step (tests/golden/train_trl.py).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use simplemix_data::{ReadOptions, Unwatched, read_pairs};
use simplemix_model::tiny;
use simplemix_settings::{Settings, merge};
use simplemix_train::{Record, Resume, Run, TrainConfig};

#[derive(serde::Deserialize)]
struct Golden {
    pairs: Vec<serde_json::Value>,
    held_out: Vec<serde_json::Value>,
    runs: BTreeMap<String, Expected>,
}

#[derive(serde::Deserialize)]
struct Expected {
    settings: toml::Table,
    log: Vec<BTreeMap<String, f64>>,
    eval: BTreeMap<String, f64>,
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/train")
}

/// Every number that TRL reports is ours too.
fn compare(run: &str, ours: &Record, theirs: &BTreeMap<String, f64>) {
    let in_evaluation = theirs.contains_key("eval_loss");
    for (name, expected) in theirs {
        // TRL's mean over micro-batches of means over tokens is not the mean over the update's tokens; and what it counts
        // in evaluations is where training stands.
        let per_token = ["entropy", "mean_token_accuracy", "logits/chosen", "logits/rejected"].contains(&name.as_str());
        let stands = in_evaluation && (name == "epoch" || name == "eval_num_tokens");
        if stands || (run == "accumulation" && per_token) {
            continue;
        }
        let found = ours.get(name).unwrap_or_else(|| panic!("{run}: no {name}"));
        let bound = match name.trim_start_matches("eval_") {
            "loss" => 1e-4 * expected.abs().max(1.0),
            "grad_norm" => 1e-3 * expected,
            "num_tokens" | "rewards/accuracies" | "mean_token_accuracy" => 1e-6,
            "logps/chosen" | "logps/rejected" => 1e-5 * expected.abs(),
            _ => 1e-4 * expected.abs().max(1.0),
        };
        let off = (found - expected).abs();
        assert!(off <= bound, "{run}, step {}: {name} is {found}, TRL has {expected}", ours.step);
    }
}

#[test]
fn every_step_is_trls() {
    let text = std::fs::read_to_string(golden().join("trl.json")).unwrap();
    let golden_runs: Golden = serde_json::from_str(&text).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    tiny::write_folder(&model, 1).unwrap();
    let read = |name: &str, rows: &[serde_json::Value]| {
        let path = dir.path().join(name);
        std::fs::write(&path, rows.iter().map(|row| format!("{row}\n")).collect::<String>()).unwrap();
        read_pairs(&path, &ReadOptions::default()).unwrap()
    };
    let (pairs, held_out) = (read("pairs.jsonl", &golden_runs.pairs), read("held.jsonl", &golden_runs.held_out));
    for (name, expected) in &golden_runs.runs {
        let mut settings: toml::Table =
            "batch.batch_size = 4\noptimizer.learning_rate = 5e-4\nreference.source = 'computed'".parse().unwrap();
        merge(&mut settings, expected.settings.clone());
        let mut config = TrainConfig::from_table(settings).unwrap();
        config.max_steps = Some(expected.log.len() as u64);
        config.model = Some(model.clone());
        config.output = Some(dir.path().join(name));
        config.lora.adapter = config.lora.adapter.map(|adapter| golden().join(adapter));
        let kept = if name == "random_order" { 30 } else { pairs.len() };
        let run = Run::with_pairs(config, &model, &pairs[..kept], &held_out).unwrap();
        let finished = run.start(Resume::No, &mut Unwatched).unwrap();
        let records = finished.records().unwrap();
        let (eval, steps) = records.split_last().unwrap();
        assert_eq!(steps.len(), expected.log.len());
        for (ours, theirs) in steps.iter().zip(&expected.log) {
            compare(name, ours, theirs);
        }
        compare(name, eval, &expected.eval);
    }
}
