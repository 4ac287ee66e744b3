//! Execution of a run: the loop with checkpoints, metrics and events, then the trained model.

use std::path::Path;

use simplemix_data::{Metrics, Watch};
use simplemix_files::remove_folder;
use simplemix_model::{CausalLm, RewardModel, device_name};
use tch::Device;

use super::{Finished, Trained};
use crate::adamw::Movement;
use crate::config::TrainConfig;
use crate::error::{Error, Result};
use crate::events::Events;
use crate::learner::Learner;
use crate::loop_settings::LoopSettings;
use crate::metrics::Record;
use crate::observer::{NonFinite, Observer, Occasion};
use crate::pairs::{NamedSet, PairSet};
use crate::progress::Progress;
use crate::run_folder::{MetricsFile, RunFolder};
use crate::table::PairTable;
use crate::team::Team;
use crate::trainer::{Outcome, Tables, train};

/// Notice of a run whose result is its start, rounded.
const UNMOVED: &str = "the updates were too small for half precision: every weight of the model still rounds to its first \
                       value; raise `optimizer.learning_rate`, train longer, or set `dtype = \"float32\"`";

/// Parts of a run that do not depend on its objective.
pub(super) struct Drive<'a> {
    pub(super) config: &'a TrainConfig,
    pub(super) settings: &'a LoopSettings,
    pub(super) train: &'a PairSet,
    pub(super) eval: &'a [NamedSet],
    pub(super) device: Device,
    pub(super) team: &'a Team,
}

impl Drive<'_> {
    pub(super) fn run<L: Learner>(
        &self,
        mut learner: L,
        folder: RunFolder,
        resume: bool,
        watch: &mut dyn Watch,
        save: impl FnOnce(L, Option<&RunFolder>) -> Result<Trained>,
    ) -> Result<Finished> {
        if !self.team.is_first() {
            return self.run_beside(learner, folder, watch, save);
        }
        let keep = self.config.checkpoint.keep;
        let mut notice = |text: &str| {
            watch.notice(text);
            folder.add_notice(text)
        };
        self.team.does_at_length("reading a checkpoint");
        let restored = if resume { folder.restore(&mut learner, keep, &mut notice)? } else { None };
        let mut progress = restored.unwrap_or_default();
        self.team.told(&serde_json::json!(progress).to_string(), "telling where the run goes on")?;
        let metrics = folder.metrics(progress.step)?;
        let first_byte = metrics.len();
        let events = if self.config.log.tensorboard { Some(Events::open(folder.path(), progress.step)?) } else { None };
        let mut recorder = Recorder {
            folder: &folder,
            metrics,
            events,
            watch,
            steps: self.settings.steps,
            keep,
            ids: &self.train.ids,
            team: self.team,
        };
        let eval: Vec<&PairTable> = self.eval.iter().map(|(_, set)| &set.table).collect();
        let tables = Tables { train: &self.train.table, eval: &eval };
        let outcome = train(self.settings, tables, self.team, &mut learner, &mut progress, &mut recorder)?;
        // On disk before the mark that the run is finished, as before each checkpoint.
        recorder.sync()?;
        let Recorder { watch, .. } = recorder;
        if outcome == Outcome::Stopped {
            let device_peak_bytes = self.peak()?;
            return Ok(Finished { outcome, model: None, folder, device_peak_bytes, pushed: None, first_byte });
        }
        match progress.movement {
            Movement::Nothing => return Err(Error::NothingTrained { updates: progress.step }),
            Movement::Copies => {
                watch.notice(UNMOVED);
                folder.add_notice(UNMOVED)?;
            }
            Movement::Parameters => {}
        }
        if let Some(best) = progress.best {
            folder.check(best.step)?;
            learner.trainee_mut().restore_weights(&folder.checkpoint(best.step))?;
        }
        self.team.does_at_length("writing the result");
        // A run that was killed while it saved the model has left these folders.
        for old in [folder.model(), folder.adapter()] {
            remove_folder(old)?;
        }
        let model = self.kept(save(learner, Some(&folder))?);
        #[cfg(feature = "report")]
        crate::report::write(&folder, self.config, self.train)?;
        folder.finish(self.settings.steps)?;
        let device_peak_bytes = self.peak()?;
        Ok(Finished { outcome, model, folder, device_peak_bytes, pushed: None, first_byte })
    }

    /// As [`Drive::run`], beside the process that writes.
    fn run_beside<L: Learner>(
        &self,
        mut learner: L,
        folder: RunFolder,
        watch: &mut dyn Watch,
        save: impl FnOnce(L, Option<&RunFolder>) -> Result<Trained>,
    ) -> Result<Finished> {
        let told = self.team.told("", "hearing where the run goes on")?;
        let mut progress: Progress = serde_json::from_str(&told).expect("the first process writes its progress");
        if progress.step > 0 {
            self.team.does_at_length("reading a checkpoint");
            folder.restore_step(&mut learner, progress.step)?;
        }
        let eval: Vec<&PairTable> = self.eval.iter().map(|(_, set)| &set.table).collect();
        let tables = Tables { train: &self.train.table, eval: &eval };
        let outcome = train(self.settings, tables, self.team, &mut learner, &mut progress, &mut Beside { watch })?;
        let model = match outcome {
            Outcome::Stopped => None,
            _ => {
                if let Some(best) = progress.best {
                    learner.trainee_mut().restore_weights(&folder.checkpoint(best.step))?;
                }
                self.kept(save(learner, None)?)
            }
        };
        Ok(Finished { outcome, model, folder, device_peak_bytes: self.peak()?, pushed: None, first_byte: 0 })
    }

    /// The model in memory, unless each process has a part of it.
    fn kept(&self, model: Trained) -> Option<Trained> {
        (!self.config.parallel.shard.divides_weights(self.team)).then_some(model)
    }

    fn peak(&self) -> Result<Option<u64>> {
        Ok(simplemix_torch::device::memory(self.device)?.map(|memory| memory.peak_allocated))
    }
}

/// Writes metrics and checkpoints to the run folder, and passes progress on.
struct Recorder<'a> {
    folder: &'a RunFolder,
    metrics: MetricsFile,
    events: Option<Events>,
    watch: &'a mut dyn Watch,
    steps: u64,
    keep: usize,
    ids: &'a [String],
    team: &'a Team,
}

/// Observer of a process that leaves writing to the first one.
struct Beside<'a> {
    watch: &'a mut dyn Watch,
}

impl<L: Learner> Observer<L> for Beside<'_> {
    fn update(&mut self, record: &Record) -> Result<()> {
        tracing::info!(step = record.step, "updated");
        Ok(())
    }

    fn evaluation(&mut self, _: &Record) -> Result<()> {
        Ok(())
    }

    fn checkpoint(&mut self, learner: &L, _: &Progress, _: Occasion) -> Result<()> {
        learner.help_save()
    }

    fn is_interrupted(&self) -> bool {
        self.watch.is_interrupted()
    }
}

impl Recorder<'_> {
    fn record(&mut self, record: &Record) -> Result<()> {
        self.team.does_at_length("writing metrics");
        self.metrics.append(record)?;
        if let Some(events) = &mut self.events {
            events.append(record)?;
        }
        Ok(())
    }

    /// Waits until all metrics are on disk.
    fn sync(&self) -> Result<()> {
        self.metrics.sync()?;
        self.events.as_ref().map_or(Ok(()), Events::sync)
    }
}

impl<L: Learner> Observer<L> for Recorder<'_> {
    fn update(&mut self, record: &Record) -> Result<()> {
        self.record(record)?;
        self.watch.metrics(&Metrics::update(record.step, self.steps, &record.values));
        Ok(())
    }

    fn evaluation(&mut self, record: &Record) -> Result<()> {
        self.record(record)?;
        self.watch.metrics(&Metrics::evaluation(record.step, self.steps, &record.values));
        Ok(())
    }

    fn evaluating(&mut self, done: usize, total: usize) {
        self.watch.progress("evaluation", done as u64, total as u64);
    }

    fn checkpoint(&mut self, learner: &L, progress: &Progress, _: Occasion) -> Result<()> {
        self.team.does_at_length("writing a checkpoint");
        // On disk before the checkpoint, so that a resumed run has the lines of all updates before it.
        self.sync()?;
        self.folder.save_checkpoint(learner, progress, self.keep)
    }

    fn nonfinite(&mut self, report: &NonFinite) -> Result<()> {
        self.team.does_at_length("writing a report");
        let mut value = serde_json::json!(report);
        value["ids"] = report.pairs.iter().map(|&pair| self.ids[pair].as_str()).collect();
        self.folder.write(&format!("nonfinite-{}.json", report.step), &format!("{value:#}\n"))
    }

    fn is_interrupted(&self) -> bool {
        self.watch.is_interrupted()
    }
}

/// File of the environment in which a run was last started.
const ENVIRONMENT: &str = "environment.json";

/// Writes the environment. Returns a notice if the run was on another device before.
pub(super) fn note_environment(folder: &RunFolder, device: Device) -> Result<Option<String>> {
    let kept: Option<serde_json::Value> = folder.read_json(ENVIRONMENT)?;
    folder.write(ENVIRONMENT, &environment(device))?;
    let now = device_name(device);
    // Earlier versions wrote `Cpu` and `Cuda(0)`.
    let spellings = [now.clone(), format!("{device:?}")];
    let before = kept.as_ref().and_then(|kept| kept["device"].as_str());
    let before = before.filter(|before| !spellings.iter().any(|spelling| spelling == before));
    Ok(before.map(|before| {
        format!(
            "the run goes on on `{now}`; before it was on `{before}`, where the last bits of its numbers are others"
        )
    }))
}

/// Environment of the run as JSON: version, device, threads, arguments.
fn environment(device: Device) -> String {
    let value = serde_json::json!({
        "simplemix": env!("CARGO_PKG_VERSION"),
        "system": std::env::consts::OS,
        "architecture": std::env::consts::ARCH,
        "device": device_name(device),
        "libtorch_threads": tch::get_num_threads(),
        "omp_wait_policy": std::env::var("OMP_WAIT_POLICY").ok(),
        "threads": std::thread::available_parallelism().map_or(1, usize::from),
        "arguments": std::env::args().collect::<Vec<_>>(),
    });
    format!("{value:#}\n")
}

/// Name of the trained adapter, which is peft's default name.
pub(super) const ADAPTER: &str = "default";

/// Writes the result to `folder`, or helps the process that does. It gets the files of `tokenizer`; `source` is the model that an
/// adapter belongs to.
pub(super) fn save_policy(
    model: CausalLm,
    folder: Option<&RunFolder>,
    source: Option<&Path>,
    tokenizer: Option<&Path>,
) -> Result<Trained> {
    // peft's file may hold the embedding beside the adapter.
    let root = model.resident_root()?;
    if let (Some(folder), Some(_)) = (folder, model.active_adapter()) {
        model.save_adapter(ADAPTER, &folder.adapter(), source.and_then(Path::to_str))?;
    }
    drop(root);
    let is_divided = model.is_divided();
    match (folder, model.active_adapter()) {
        (Some(folder), None) => model.save(&folder.model(), tokenizer)?,
        (Some(folder), Some(_)) => model.save_merged(&folder.model(), tokenizer)?,
        (None, None) if is_divided => model.help_save()?,
        (None, Some(_)) if is_divided => model.help_save_merged()?,
        (None, _) => {}
    }
    Ok(Trained::Policy(Box::new(model)))
}

/// As [`save_policy`], of a reward model.
pub(super) fn save_reward(
    model: RewardModel,
    folder: Option<&RunFolder>,
    source: Option<&Path>,
    tokenizer: Option<&Path>,
) -> Result<Trained> {
    let root = model.resident_root()?;
    if let Some(folder) = folder
        && model.has_adapter()
    {
        model.save_adapter(&folder.adapter(), source.and_then(Path::to_str))?;
    }
    drop(root);
    match folder {
        Some(folder) => model.save(&folder.model(), tokenizer)?,
        None if model.is_divided() => model.help_save()?,
        None => {}
    }
    Ok(Trained::Reward(Box::new(model)))
}

#[cfg(all(test, feature = "faults", debug_assertions))]
#[path = "drive_tests.rs"]
mod tests;
