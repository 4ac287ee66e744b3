//! State of a run, as its folder tells it.

use std::path::{Path, PathBuf};

use simplemix_files::{Claim, Holder};
use simplemix_pipeline::{RunState, SweepReport};

use super::metrics::Metrics;
use super::stages::{Stage, StageState, changed, of_pipeline, of_sweep};
use crate::failure::Result;

/// State of a run.
#[derive(Debug)]
pub(super) struct State<'a> {
    /// Folder that was asked for.
    pub(super) path: PathBuf,
    /// Stages of a pipeline, or runs of a sweep.
    pub(super) stages: Vec<Stage>,
    /// The training that goes on or was the last, with its folder.
    pub(super) training: Option<&'a Training>,
    /// Process that works on the whole.
    pub(super) holder: Option<Holder>,
    ended: bool,
}

/// A training, whose metrics are read on from look to look.
#[derive(Debug, Default)]
pub(super) struct Training {
    pub(super) folder: PathBuf,
    pub(super) metrics: Metrics,
    /// Updates of the whole run, where they can be told.
    pub(super) steps: Option<u64>,
    /// Process that trains; none if there is none.
    pub(super) holder: Option<Holder>,
    pub(super) is_finished: bool,
    /// Last line of each further process's log.
    pub(super) ranks: Vec<(String, String)>,
    /// Update of the newest checkpoint.
    pub(super) checkpoint: Option<u64>,
    pub(super) notices: Vec<String>,
}

impl<'a> State<'a> {
    /// Reads the state of the run in a folder; `training` holds what was read before.
    pub(super) fn read(path: &Path, training: &'a mut Training) -> Result<Self> {
        let (stages, folder, ended) = found(path);
        let training = match folder {
            None => None,
            Some(folder) => {
                training.read(&folder)?;
                Some(&*training)
            }
        };
        let ended = ended.unwrap_or_else(|| training.is_some_and(|training| training.is_finished));
        let holder = Claim::holder_of_folder(path).or_else(|| training.and_then(|training| training.holder.clone()));
        Ok(Self { path: path.to_owned(), stages, training, ended: ended && holder.is_none(), holder })
    }

    /// Whether there is nothing to see.
    pub(super) fn is_empty(&self) -> bool {
        self.stages.is_empty() && self.training.is_none()
    }

    /// Whether the run is done.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }
}

/// Stages or runs, the folder of the training to show, and whether the whole is done, where that does not follow from the training.
fn found(path: &Path) -> (Vec<Stage>, Option<PathBuf>, Option<bool>) {
    if path.join(METRICS).is_file() {
        return (Vec::new(), Some(path.to_owned()), None);
    }
    if path.join("runs").is_dir() {
        let runs = of_sweep(&path.join("runs"));
        let report = std::fs::read_to_string(path.join("sweep.json")).ok();
        let report: Option<SweepReport> = report.and_then(|text| serde_json::from_str(&text).ok());
        let ended = report.is_some_and(|report| report.runs.iter().all(|run| run.state != RunState::ToDo));
        let training = latest_training(&of_pipeline(&path.join("stages")));
        return (runs, training, Some(ended));
    }
    let stages = of_pipeline(&stages_folder(path));
    // The settings are written when a pipeline begins, the summary when it ends.
    let ended = match (changed(&path.join("summary.json")), changed(&path.join("pipeline.toml"))) {
        (Some(end), Some(begin)) => end >= begin && stages.iter().all(|stage| stage.state != StageState::Running),
        _ => false,
    };
    let training = latest_training(&stages);
    (stages, training, Some(ended))
}

const METRICS: &str = "metrics.jsonl";

/// Folder of a pipeline's stages, which its settings may name.
fn stages_folder(path: &Path) -> PathBuf {
    let settings = std::fs::read_to_string(path.join("pipeline.toml")).unwrap_or_default();
    let named =
        settings.parse::<toml::Table>().ok().and_then(|table| Some(PathBuf::from(table.get("stages")?.as_str()?)));
    named.unwrap_or_else(|| path.join("stages"))
}

/// The training that a process works on, or else the one whose metrics changed last.
fn latest_training(stages: &[Stage]) -> Option<PathBuf> {
    let runs =
        stages.iter().map(|stage| (stage, stage.folder.join("run"))).filter(|(_, run)| run.join(METRICS).is_file());
    runs.max_by_key(|(stage, run)| (stage.state == StageState::Running, changed(&run.join(METRICS))))
        .map(|(_, run)| run)
}

impl Training {
    fn read(&mut self, folder: &Path) -> Result {
        self.metrics.read(&folder.join(METRICS))?;
        self.folder = folder.to_owned();
        self.is_finished = folder.join("finished.json").is_file();
        self.holder = Holder::of(folder.join("run.lock"));
        self.steps = steps(folder, &self.metrics);
        self.ranks = ranks(folder);
        self.checkpoint = checkpoint(folder);
        let notices = std::fs::read_to_string(folder.join("notices.json")).unwrap_or_default();
        self.notices = serde_json::from_str(&notices).unwrap_or_default();
        Ok(())
    }

    /// Seconds until the last update, by the tokens of the updates so far and the speed of the last ones.
    pub(super) fn seconds_left(&self) -> Option<f64> {
        let left = self.steps?.saturating_sub(self.metrics.step) as f64;
        let tokens = self.metrics.last("num_tokens")? / self.metrics.step.max(1) as f64;
        let speed = self.metrics.recent("tokens_per_second", 10).filter(|speed| *speed > 0.0)?;
        Some(left * tokens / speed)
    }
}

/// Updates of the whole run: a setting, or what the epochs so far make likely.
fn steps(folder: &Path, metrics: &Metrics) -> Option<u64> {
    let config: toml::Table = std::fs::read_to_string(folder.join("config.toml")).ok()?.parse().ok()?;
    if let Some(steps) = config.get("max_steps").and_then(toml::Value::as_integer) {
        return u64::try_from(steps).ok();
    }
    let epochs = config.get("epochs")?;
    let epochs = epochs.as_float().or_else(|| epochs.as_integer().map(|whole| whole as f64))?;
    let (step, epoch) = metrics.curves.get("epoch")?.last().copied().filter(|(_, epoch)| *epoch > 0.0)?;
    Some((step * epochs / epoch).round() as u64)
}

/// Names of the other processes' logs with their last lines.
fn ranks(folder: &Path) -> Vec<(String, String)> {
    let entries = std::fs::read_dir(folder.join("processes")).into_iter().flatten().flatten();
    let mut found: Vec<(String, String)> = entries
        .filter_map(|entry| {
            let name = entry.file_name().to_string_lossy().strip_suffix(".log")?.to_owned();
            let text = std::fs::read_to_string(entry.path()).ok()?;
            Some((name, text.lines().last().unwrap_or_default().to_owned()))
        })
        .collect();
    found.sort_by_key(|(name, _)| (name.len(), name.clone()));
    found
}

fn checkpoint(folder: &Path) -> Option<u64> {
    let entries = std::fs::read_dir(folder.join("checkpoints")).into_iter().flatten().flatten();
    let step = |entry: std::fs::DirEntry| entry.file_name().to_string_lossy().strip_prefix("step-")?.parse().ok();
    entries.filter_map(step).max()
}
