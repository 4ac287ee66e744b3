//! Every write, sync, rename and deletion in a run folder fails once; resuming then ends on the bits of a run without a
//! fault. The learner is one number, so that it is quick.

use std::path::PathBuf;

use simplemix_data::Unwatched;
use simplemix_files::faults;
use simplemix_model::tiny;

use super::*;
use crate::learner::Trainable;
use crate::loop_settings::OnNonFinite;
use crate::order::Order;
use crate::schedule::{Decay, Schedule};
use crate::stats::PairStats;
use crate::table::PairEntry;

/// Learns one number: the loss of pair `p` is `(w - p)^2`.
struct Number {
    w: f64,
    gradient: f64,
    /// Forward passes before memory runs out.
    passes: usize,
}

/// Error of libtorch's allocator on a GPU.
const OUT_OF_MEMORY: &str = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.15 GiB of which 1.20 GiB \
                             is free. ";

impl Learner for Number {
    fn trainee(&self) -> &dyn Trainable {
        self
    }

    fn trainee_mut(&mut self) -> &mut dyn Trainable {
        self
    }

    fn accumulate(&mut self, pairs: &[usize], weight: f64) -> Result<Vec<PairStats>> {
        let Some(passes) = self.passes.checked_sub(1) else {
            let source = tch::TchError::Torch(OUT_OF_MEMORY.to_owned());
            return Err(simplemix_model::Error::Torch { doing: "a forward pass", source }.into());
        };
        self.passes = passes;
        let errors: Vec<f64> = pairs.iter().map(|&pair| self.w - pair as f64).collect();
        self.gradient += errors.iter().map(|error| 2.0 * error * weight).sum::<f64>();
        Ok(errors.iter().map(|error| PairStats { loss: error * error, ..PairStats::default() }).collect())
    }
}

impl Trainable for Number {
    fn gradient_norm(&self) -> Result<f64> {
        Ok(self.gradient.abs())
    }

    fn update(&mut self, learning_rate: f64, scale: f64) -> Result<()> {
        self.w -= learning_rate * scale * self.gradient;
        self.gradient = 0.0;
        Ok(())
    }

    fn discard(&mut self) -> Result<()> {
        self.gradient = 0.0;
        Ok(())
    }

    fn save(&self, folder: &Path) -> Result<()> {
        Ok(simplemix_files::write(folder.join("w"), self.w.to_bits().to_string())?)
    }

    fn restore(&mut self, folder: &Path) -> Result<()> {
        self.restore_weights(folder)
    }

    fn restore_weights(&mut self, folder: &Path) -> Result<()> {
        let text = std::fs::read_to_string(folder.join("w")).unwrap();
        self.w = f64::from_bits(text.parse().unwrap());
        Ok(())
    }
}

/// Starts a run, or resumes the one that is there. Returns the weight at the end.
fn run(output: &Path) -> Result<f64> {
    run_with(output, usize::MAX)
}

/// Such a run with memory for this number of forward passes.
fn run_with(output: &Path, passes: usize) -> Result<f64> {
    let table = PairTable {
        sources: vec!["a".into()],
        pairs: (0..4).map(|row| PairEntry { row, tokens: 6, ..PairEntry::default() }).collect(),
        ..PairTable::default()
    };
    let (train, mut config) = (PairSet { table, ..PairSet::default() }, TrainConfig::default());
    config.checkpoint.keep = 1;
    let settings = LoopSettings {
        steps: 3,
        batch_size: 3,
        micro_batch_tokens: 10,
        learning_rate: 0.1,
        schedule: Schedule::Linear,
        warmup_steps: 0,
        min_rate_ratio: 0.0,
        decay_steps: 0,
        decay: Decay::Cosine,
        max_grad_norm: f64::INFINITY,
        eval_every_steps: 0,
        eval_every_epoch: false,
        eval_at_end: true,
        save_every_epoch: false,
        save_every_steps: 1,
        order: Order::Shuffled(1),
        on_nonfinite: OnNonFinite::Stop,
        best: None,
    };
    let resume = RunFolder::is_started(output);
    let folder = if resume { RunFolder::open(output)? } else { RunFolder::create(output)? };
    let _lock = folder.lock()?;
    let team = Team::default();
    let drive =
        Drive { config: &config, settings: &settings, train: &train, eval: &[], device: Device::Cpu, team: &team };
    let mut last = f64::NAN;
    drive.run(Number { w: 9.0, gradient: 0.0, passes }, folder, resume, &mut Unwatched, |number, folder| {
        let model = simplemix_files::AtomicFolder::create(folder.expect("the first process writes").model())?;
        model.write("w", number.w.to_string())?;
        model.commit()?;
        last = number.w;
        // The result is a model; here it is one that has nothing to do with the number.
        Ok(Trained::Policy(Box::new(CausalLm::random(tiny::config(), 1, Device::Cpu)?)))
    })?;
    Ok(last)
}

/// Names of the files and folders in a run folder, at any depth; those of events carry the time.
fn names(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("tensorboard") {
            found.extend(names(&path));
        }
        found.push(path);
    }
    found.sort();
    found
}

/// Number and loss of each line of the metrics.
fn losses(folder: &Path) -> Vec<(u64, f64)> {
    let text = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    let line = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        (line["step"].as_u64().unwrap(), line["loss"].as_f64().unwrap())
    };
    text.lines().map(line).collect()
}

#[test]
fn a_run_folder_survives_each_failing_operation() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("run");
    let counter = faults::on_this_thread(None);
    let expected = run(&output).unwrap();
    let operations = counter.operations();
    drop(counter);
    let (files, lines) = (names(&output), losses(&output));
    assert!(operations > 50 && lines.len() == 3, "{operations} {lines:?}");
    for operation in 1..=operations {
        std::fs::remove_dir_all(&output).unwrap();
        let fault = faults::on_this_thread(Some(operation));
        let error = run(&output).unwrap_err().to_string();
        drop(fault);
        assert!(error.starts_with(&format!("{}", output.display())), "operation {operation}: {error}");
        let last = run(&output).unwrap_or_else(|error| panic!("operation {operation}: {error}"));
        assert_eq!(last.to_bits(), expected.to_bits(), "operation {operation}");
        assert_eq!((names(&output), losses(&output)), (files.clone(), lines.clone()), "operation {operation}");
    }
}

#[test]
fn memory_that_runs_out_leaves_the_last_checkpoint_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, cut) = (dir.path().join("whole"), dir.path().join("cut"));
    let expected = run(&whole).unwrap();
    // Three pairs, then one, then three, each in a pass of its own: memory runs out in the middle of the third update.
    let error = run_with(&cut, 5).unwrap_err();
    assert!(std::error::Error::source(&error).unwrap().to_string().contains(OUT_OF_MEMORY), "{error}");
    let folder = RunFolder::open(&cut).unwrap();
    assert_eq!(folder.checkpoints().unwrap(), [2]);
    folder.check(2).unwrap();
    assert_eq!(run(&cut).unwrap().to_bits(), expected.to_bits());
    assert_eq!((names(&cut).len(), losses(&cut)), (names(&whole).len(), losses(&whole)));
}
