//! Training runs of thirty updates on the device against the CPU's in f32, and the golden runs of TRL.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use simplemix::data::Unwatched;
use simplemix::model::tiny;
use simplemix::settings::{Settings, merge};
use simplemix::tch::{Device, Kind};
use simplemix::torch::device_name;
use simplemix::train::{Record, Resume, Run, TrainConfig};

use crate::Setting;
use crate::goldens::read;
use crate::report::{Found, Report};

const UPDATES: u64 = 30;

/// Name and settings of a run.
const RUNS: [(&str, &str); 4] = [
    ("DPO", ""),
    ("reward", "objective = 'reward'"),
    ("SFT", "objective = 'sft'"),
    ("LoRA", "lora.rank = 8\nlora.dropout = 0.1"),
];

/// Settings of all runs.
const BASE: &str = "batch.batch_size = 4\noptimizer.learning_rate = 5e-4\nreference.source = 'computed'\n\
                    tokens.cache = false\nlog.token_metrics = false";

pub(crate) fn check(report: &mut Report, setting: &Setting) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let model = dir.path().join("model");
    tiny::write_folder(&model, 1)?;
    let pairs = dir.path().join("pairs.jsonl");
    std::fs::write(&pairs, made_pairs())?;
    let place = Place { model, pairs, runs: dir.path().join("runs") };
    std::fs::create_dir(&place.runs)?;
    for (name, settings) in RUNS {
        // Micro-batches of the CPU hold a pair each; the device's all four.
        let wanted = place.run(Device::Cpu, settings, "batch.micro_batch_tokens = 1\ndtype = 'float32'");
        let wanted = wanted.with_context(|| format!("{name} on the CPU"))?;
        for (kind, word) in [(Kind::Float, "float32"), (Kind::BFloat16, "bfloat16")] {
            if kind == Kind::BFloat16 && setting.device == Device::Cpu && name != "DPO" {
                // Slow on a CPU: one run shows it.
                continue;
            }
            let shapes = format!("{UPDATES} updates of 4 pairs, 2 layers, 64 wide");
            report.check(&format!("{name} against the CPU"), &shapes, kind, || {
                let found = place.run(setting.device, settings, &format!("dtype = '{word}'"))?;
                compare(&found, &wanted, kind)
            })?;
        }
    }
    match setting.device {
        // The tests of simplemix-train hold these on a CPU.
        Device::Cpu => Ok(()),
        _ => goldens(report, setting, &place),
    }
}

/// Files of the runs.
struct Place {
    model: PathBuf,
    pairs: PathBuf,
    runs: PathBuf,
}

impl Place {
    /// Losses and gradient norms of a run.
    fn run(&self, device: Device, settings: &str, more: &str) -> Result<Vec<Record>> {
        let mut table: toml::Table = BASE.parse()?;
        for text in [settings, more] {
            merge(&mut table, text.parse()?);
        }
        let mut config = TrainConfig::from_table(table)?;
        config.max_steps = Some(UPDATES);
        config.train = Some(self.pairs.clone());
        self.records(config, device)
    }

    fn records(&self, mut config: TrainConfig, device: Device) -> Result<Vec<Record>> {
        config.model = Some(self.model.clone());
        config.device = device_name(device).parse()?;
        let output = tempfile::tempdir_in(&self.runs)?;
        config.output = Some(output.path().join("run"));
        let run = Run::prepare(config)?;
        let finished = run.start(Resume::No, &mut Unwatched)?;
        Ok(finished.records()?.into_iter().filter(|record| record.get("loss").is_some()).collect())
    }
}

/// Largest differences of losses and gradient norms over the run, and the mean one, which tells of drift.
fn compare(found: &[Record], wanted: &[Record], kind: Kind) -> Result<Found> {
    ensure!(found.len() == wanted.len(), "{} updates, expected {}", found.len(), wanted.len());
    let (of_loss, of_norm) = if kind == Kind::Float { (1e-4, 1e-2) } else { (2e-2, 1e-1) };
    let value = |record: &Record, name: &str| record.get(name).with_context(|| format!("no {name} in the metrics"));
    let (mut losses, mut norms) = (Vec::new(), Vec::new());
    for (found, wanted) in found.iter().zip(wanted) {
        let (loss, norm) = (value(wanted, "loss")?, value(wanted, "grad_norm")?);
        losses.push((value(found, "loss")? - loss) / loss.abs().max(1.0));
        norms.push((value(found, "grad_norm")? - norm).abs() / norm);
    }
    let worst = |values: &[f64]| values.iter().fold(0.0, |most: f64, value| most.max(value.abs()));
    let drift = losses.iter().sum::<f64>() / losses.len() as f64;
    let first = value(&wanted[0], "loss")?;
    let last = value(&wanted[wanted.len() - 1], "loss")?;
    ensure!((first - last).abs() > 1e-2, "the run goes from a loss of {first} to {last}: it shows nothing");
    let errors = [worst(&losses), worst(&norms) * of_loss / of_norm];
    let found = Found::within(of_loss, errors);
    Ok(found.note("loss", worst(&losses)).note("grad_norm", worst(&norms)).note("drift", drift).note("last_loss", last))
}

/// Forty pairs: prompts share a form, chosen responses end alike, so that there is something to learn.
fn made_pairs() -> String {
    let row = |at: u64| {
        let (a, b) = (at * 7 % 40, at * 13 % 29);
        let other = ["no idea", "who can say", "ask me later"][at as usize % 3];
        json!({ "prompt": format!("What is {a} plus {b}?"), "chosen": format!("It is {}.", a + b),
                "rejected": format!("{other}, {}", a * b) })
    };
    (0..40).map(|at| format!("{}\n", row(at))).collect()
}

/// Every loss, gradient norm and margin of TRL's trainers, update for update.
fn goldens(report: &mut Report, setting: &Setting, place: &Place) -> Result<()> {
    let folder = setting.golden.join("train");
    let golden = read(&folder.join("trl.json"))?;
    let pairs = golden["pairs"].as_array().context("no pairs in trl.json")?;
    let path = place.runs.join("golden.jsonl");
    for (name, expected) in golden["runs"].as_object().into_iter().flatten() {
        // One run took fewer rows, so that their order is drawn anew.
        let kept = if name == "random_order" { 30 } else { pairs.len() };
        std::fs::write(&path, pairs[..kept].iter().map(|row| format!("{row}\n")).collect::<String>())?;
        report.check(&format!("TRL's run {name}"), "2 layers, 64 wide", Kind::Float, || {
            let base = "batch.batch_size = 4\noptimizer.learning_rate = 5e-4\nreference.source = 'computed'\n\
                        tokens.cache = false\ndtype = 'float32'";
            let mut table: toml::Table = base.parse()?;
            merge(&mut table, toml::Table::try_from(&expected["settings"])?);
            let mut config = TrainConfig::from_table(table)?;
            let log = expected["log"].as_array().context("no log in trl.json")?;
            config.max_steps = Some(log.len() as u64);
            config.train = Some(path.clone());
            config.lora.adapter = config.lora.adapter.map(|adapter| folder.join(adapter));
            against_trl(&place.records(config, setting.device)?, log)
        })?;
    }
    Ok(())
}

fn against_trl(found: &[Record], log: &[Value]) -> Result<Found> {
    ensure!(found.len() >= log.len(), "{} updates, expected {}", found.len(), log.len());
    let mut errors = Vec::new();
    for (found, wanted) in found.iter().zip(log) {
        for (name, relative) in [("loss", 1.0), ("grad_norm", 10.0), ("rewards/margins", 1.0)] {
            let Some(wanted) = wanted[name].as_f64() else { continue };
            let found = found.get(name).with_context(|| format!("no {name} in the metrics"))?;
            let scale = if name == "grad_norm" { wanted.abs() } else { wanted.abs().max(1.0) };
            errors.push((found - wanted).abs() / scale / relative);
        }
    }
    ensure!(!errors.is_empty(), "nothing to compare");
    Ok(Found::within(1e-4, errors))
}
