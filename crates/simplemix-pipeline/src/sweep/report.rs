//! Report of a sweep, as `sweep.json` has it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::record::RunState;
use super::verdict::Configuration;

/// Outcome of a sweep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SweepReport {
    /// Program that wrote it.
    pub tool: String,
    /// Metric by which the best is found, with `highest:` or `lowest:` before it.
    pub best_by: String,
    /// Values that are compared, the best first.
    pub configurations: Vec<Configuration>,
    /// Sentence about the best values, if they are not told apart from the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
    /// All runs, in the order in which they are done.
    pub runs: Vec<RunReport>,
    /// Seconds of all runs, by their records.
    pub seconds: f64,
    /// Bytes on disk, shared stages once.
    pub disk_bytes: u64,
}

/// Outcome of a run of a sweep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RunReport {
    /// Name of the run.
    pub name: String,
    /// Names and values of the keys that vary.
    pub values: BTreeMap<String, String>,
    /// Output folder of the run's pipeline.
    pub folder: PathBuf,
    /// Outcome.
    #[serde(flatten)]
    pub state: RunState,
    /// Value of the metric by which the best is found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// Seconds of the run, without what it shares with earlier ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// Folder of the resulting model, if it was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<PathBuf>,
}

impl SweepReport {
    /// Runs that failed.
    pub fn failed(&self) -> impl Iterator<Item = &RunReport> {
        self.runs.iter().filter(|run| matches!(run.state, RunState::Failed { .. }))
    }

    /// Runs that are done.
    pub fn done(&self) -> usize {
        self.runs.iter().filter(|run| matches!(run.state, RunState::Done { .. })).count()
    }
}
