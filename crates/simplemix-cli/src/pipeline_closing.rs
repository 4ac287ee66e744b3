//! The end of a pipeline as JSON.

use std::path::PathBuf;

use serde::Serialize;
use serde_json::{Map, Value};
use simplemix_pipeline::{Evaluation, Finished, Pipeline, Summary};

use crate::failure::{Fails, Result};

/// Facts about a pipeline that is done.
#[derive(Debug, Serialize)]
pub(crate) struct PipelineClosing {
    output: PathBuf,
    /// Folder of the resulting model.
    model: PathBuf,
    /// Page about the pipeline.
    report: PathBuf,
    stages: Vec<StageClosing>,
    evaluation: Vec<Evaluation>,
    /// Everything that the user was told during this call.
    notices: Vec<String>,
}

/// Facts about a stage that is done.
#[derive(Debug, Serialize)]
pub(crate) struct StageClosing {
    stage: String,
    /// `done` by this call, or `reused` from an earlier one.
    state: &'static str,
    /// Seconds of the call that did it.
    seconds: f64,
    outputs: Vec<PathBuf>,
    /// Figures of the stage: numbers of rows and reasons, means, shares, metrics.
    counts: Map<String, Value>,
    /// Everything that the user was told about it, also in an earlier call.
    notices: Vec<String>,
}

impl StageClosing {
    pub(crate) fn of(finished: &Finished<'_>) -> Result<Self> {
        let mut counts = match serde_json::to_value(&finished.done.report).run()? {
            Value::Object(fields) => fields,
            _ => Map::new(),
        };
        let notices = match counts.remove("notices") {
            Some(Value::Array(notices)) => notices.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            _ => Vec::new(),
        };
        counts.remove("kind");
        Ok(Self {
            stage: finished.stage.name.clone(),
            state: if finished.was_done { "reused" } else { "done" },
            seconds: finished.done.seconds,
            outputs: finished.stage.outputs(),
            counts,
            notices,
        })
    }
}

impl PipelineClosing {
    pub(crate) fn of(pipeline: &Pipeline, summary: Summary, stages: Vec<StageClosing>, notices: &[String]) -> Self {
        Self {
            output: pipeline.output().to_owned(),
            model: summary.model,
            report: pipeline.output().join("report.html"),
            stages,
            evaluation: summary.evaluation,
            notices: notices.to_vec(),
        }
    }
}
