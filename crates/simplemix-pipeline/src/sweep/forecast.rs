//! Expected time and disk space of a sweep.

use std::collections::BTreeSet;
use std::path::Path;

use super::record::Record;
use super::{Keep, Sweep, keys};
use crate::error::Result;
use crate::estimate::Estimate;
use crate::pipeline::Pipeline;
use crate::plan::Stage;

/// Expected cost of a sweep: upper bounds, as those of its pipelines.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Forecast {
    /// Runs, in the order in which they are done.
    pub runs: Vec<RunForecast>,
    /// Seconds of the runs that fit the budget.
    pub seconds: f64,
    /// Bytes of their models and checkpoints at the most, and of what is on disk already.
    pub disk_bytes: f64,
}

/// Expected cost of a run.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RunForecast {
    /// Whether an earlier call has done it.
    pub is_done: bool,
    /// Reason for which it is left out.
    pub left_out: Option<String>,
    /// Stages that no earlier run and no earlier call does.
    pub stages: usize,
    /// Seconds of these stages.
    pub seconds: f64,
    /// Bytes of models and checkpoints that the run writes.
    pub disk_bytes: f64,
}

/// The forecast of what is not done; a stage counts for the first run that has it.
pub(super) fn forecast(sweep: &Sweep) -> Result<Forecast> {
    let mut known: BTreeSet<&Path> = BTreeSet::new();
    let used = sweep.disk_bytes() as f64;
    let (mut runs, mut seconds, mut disk_bytes, mut begun) = (Vec::new(), 0.0, used, 0);
    for (at, pipeline) in sweep.pipelines.iter().enumerate() {
        let is_done = Record::done(&sweep.runs[at].folder, &keys(pipeline)).is_some();
        let mut run = RunForecast { is_done, left_out: None, stages: 0, seconds: 0.0, disk_bytes: 0.0 };
        if is_done {
            begun += 1;
            runs.push(run);
            continue;
        }
        let estimates = pipeline.estimate()?;
        let new = |(stage, _): &(&Stage, &Estimate)| !known.contains(stage.folder.as_path()) && stage.done().is_none();
        for (_, estimate) in pipeline.stages().iter().zip(&estimates).filter(new) {
            run.stages += 1;
            run.seconds += estimate.seconds.unwrap_or_default();
            run.disk_bytes += estimate.disk.unwrap_or_default();
        }
        run.left_out = reason(sweep, at, begun, seconds + run.seconds, disk_bytes + run.disk_bytes);
        if run.left_out.is_none() {
            begun += 1;
            seconds += run.seconds;
            // The largest of the models that do not stay is on disk beside the best.
            disk_bytes = match sweep.kept() {
                Keep::All => disk_bytes + run.disk_bytes,
                Keep::Best => disk_bytes.max(used + 2.0 * run.disk_bytes),
            };
            known.extend(pipeline.stages().iter().map(|stage| stage.folder.as_path()));
        }
        runs.push(run);
    }
    Ok(Forecast { runs, seconds, disk_bytes })
}

/// Reason to leave a run out, by what it and those before it are expected to take.
fn reason(sweep: &Sweep, at: usize, begun: usize, seconds: f64, disk_bytes: f64) -> Option<String> {
    let settings = &sweep.settings;
    if let Some(same) = sweep.same_as[at] {
        return Some(format!("same as {}", sweep.runs[same].name));
    }
    let is_over = |most: Option<f64>, value: f64| most.is_some_and(|most| value > most);
    match () {
        () if settings.max_runs.is_some_and(|most| begun >= most) => Some("max_runs".to_owned()),
        () if begun > 0 && is_over(settings.max_hours, seconds / 3600.0) => {
            Some("max_hours, by this estimate".to_owned())
        }
        () if is_over(settings.max_disk_gb, disk_bytes / 1e9) => Some("max_disk_gb, by this estimate".to_owned()),
        () => None,
    }
}

/// Bytes of models and checkpoints that a pipeline may still write.
pub(super) fn disk(pipeline: &Pipeline) -> Result<f64> {
    Ok(pipeline.estimate()?.iter().filter_map(|estimate| estimate.disk).sum())
}
