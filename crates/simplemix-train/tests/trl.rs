//! Trajectories of TRL 1.16's trainers, step for step (tests/golden/train_trl.py).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use simplemix_data::{ReadOptions, Unwatched, read_pairs};
use simplemix_model::{CausalLm, ModelConfig, tiny};
use simplemix_settings::{Settings, merge};
use simplemix_train::{Record, Resume, Run, TrainConfig};
use tch::Device;

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

/// The folder of a run's model: the tiny one, with another padding token, or of another family.
fn model_of(dir: &Path, name: Option<&str>) -> PathBuf {
    let (plain, folder) =
        (dir.join("model"), dir.join(name.map_or("model".to_owned(), |name| format!("model-{name}"))));
    if folder.exists() {
        return folder;
    }
    let read = |path: PathBuf| std::fs::read_to_string(path).unwrap();
    let config = match name {
        Some("padding") => {
            let mut config: serde_json::Value = serde_json::from_str(&read(plain.join("config.json"))).unwrap();
            config["pad_token_id"] = 258.into();
            config.to_string()
        }
        Some(name) => read(golden().join(format!("{name}.json"))),
        None => panic!("the tiny model is there"),
    };
    let config = ModelConfig::from_json(&config, Path::new("config.json")).unwrap();
    CausalLm::random(config, 1, Device::Cpu).unwrap().save(&folder, None).unwrap();
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(plain.join(file), folder.join(file)).unwrap();
    }
    folder
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
        let mut own = expected.settings.clone();
        let model = model_of(dir.path(), own.remove("model").as_ref().and_then(toml::Value::as_str));
        merge(&mut settings, own);
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

#[derive(serde::Deserialize)]
struct Routed {
    runs: BTreeMap<String, RoutedRun>,
}

#[derive(serde::Deserialize)]
struct RoutedRun {
    settings: toml::Table,
    log: Vec<BTreeMap<String, f64>>,
}

/// TRL's DPO of a mixture of experts: tests/golden/train_trl_experts.py.
#[test]
fn every_step_of_a_mixture_of_experts_is_trls() {
    let read = |name: &str| std::fs::read_to_string(golden().join(name)).unwrap();
    let pairs: Golden = serde_json::from_str(&read("trl.json")).unwrap();
    let routed: Routed = serde_json::from_str(&read("experts.json")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (model, path) = (dir.path().join("model"), dir.path().join("pairs.jsonl"));
    let config = ModelConfig::from_json(&read("experts_config.json"), Path::new("experts_config.json")).unwrap();
    let own = config.experts.and_then(|experts| experts.aux_loss_coef).unwrap();
    tiny::write_folder_of(&model, config, 3).unwrap();
    std::fs::write(&path, pairs.pairs.iter().map(|row| format!("{row}\n")).collect::<String>()).unwrap();
    let pairs = read_pairs(&path, &ReadOptions::default()).unwrap();
    for (name, expected) in &routed.runs {
        let mut settings: toml::Table =
            "batch.batch_size = 4\noptimizer.learning_rate = 5e-4\nreference.source = 'computed'".parse().unwrap();
        merge(&mut settings, expected.settings.clone());
        let mut config = TrainConfig::from_table(settings).unwrap();
        config.max_steps = Some(expected.log.len() as u64);
        (config.model, config.output) = (Some(model.clone()), Some(dir.path().join(name)));
        let coef = config.loss.router_aux_loss_coef.unwrap_or(own);
        let run = Run::with_pairs(config, &model, &pairs, &[]).unwrap();
        let records = run.start(Resume::No, &mut Unwatched).unwrap().records().unwrap();
        assert_eq!(records.len(), expected.log.len());
        for (ours, theirs) in records.iter().zip(&expected.log) {
            // TRL's loss has the routers' in it; ours is that of the pairs.
            let aux = theirs.get("aux_loss").copied().unwrap_or_default();
            assert_eq!(theirs.contains_key("aux_loss"), coef > 0.0, "{name}");
            let theirs = theirs.clone().into_iter();
            compare(
                name,
                ours,
                &theirs
                    .map(|(key, value)| if key == "loss" { (key, value - coef * aux) } else { (key, value) })
                    .collect(),
            );
        }
    }
}
