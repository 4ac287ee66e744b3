//! Stages of a pipeline and runs of a sweep, by their folders.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::Value;
use simplemix_files::{Claim, Holder};

/// A stage, or a run of a sweep.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Stage {
    pub(super) name: String,
    pub(super) folder: PathBuf,
    pub(super) state: StageState,
    changed: Option<SystemTime>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum StageState {
    /// Done, in this number of seconds of its last call.
    Done(Option<f64>),
    /// A process works on it.
    Running,
    /// Begun, and no process works on it.
    Stopped,
}

/// Stages of a pipeline, those that are done first in the order in which they were done. None if there is no such folder.
pub(super) fn of_pipeline(stages: &Path) -> Vec<Stage> {
    let mut found: Vec<Stage> = folders(stages).into_iter().map(stage).collect();
    found.sort_by_key(|stage| (!matches!(stage.state, StageState::Done(_)), stage.changed, stage.name.clone()));
    found
}

fn stage(folder: PathBuf) -> Stage {
    let record = folder.join("stage.json");
    let done: Option<Value> = fs::read_to_string(&record).ok().and_then(|text| serde_json::from_str(&text).ok());
    let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    // Folders are named NAME-KEY.
    let short = name.rsplit_once('-').map_or(name.as_str(), |(name, _)| name).to_owned();
    match done {
        Some(done) => Stage {
            name: done["stage"].as_str().map_or(short, str::to_owned),
            state: StageState::Done(done["seconds"].as_f64()),
            changed: changed(&record),
            folder,
        },
        None => {
            let state = match Holder::of(folder.join(".lock")) {
                Some(_) => StageState::Running,
                None => StageState::Stopped,
            };
            Stage { name: short, state, changed: changed(&folder), folder }
        }
    }
}

/// Runs of a sweep, by name.
pub(super) fn of_sweep(runs: &Path) -> Vec<Stage> {
    let run = |folder: PathBuf| {
        let record: Option<Value> =
            fs::read_to_string(folder.join("run.json")).ok().and_then(|text| serde_json::from_str(&text).ok());
        let state = match &record {
            Some(record) if record["state"] == "done" => StageState::Done(record["seconds"].as_f64()),
            None if Claim::holder_of_folder(&folder).is_some() => StageState::Running,
            _ => StageState::Stopped,
        };
        let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Stage { name, state, changed: changed(&folder), folder }
    };
    let mut found: Vec<Stage> = folders(runs).into_iter().map(run).collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn folders(parent: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// Time of the last change of a file or folder.
pub(super) fn changed(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|found| found.modified()).ok()
}
