//! The output folder of a pipeline, as far as a comparison needs it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;
use simplemix_data::RowReader;

use crate::curves::read_curves;
use crate::error::{At, Error, Result};
use crate::outputs::ModelOutput;
use crate::report::run_data::{RunData, settings};

/// Summary of a pipeline that is done.
pub(crate) const SUMMARY: &str = "summary.json";
const SETTINGS: &str = "pipeline.toml";
/// Scored responses, in the folder of a stage that grades.
const SCORED: &str = "scored.parquet";

/// Scores of a pipeline's last model on held-out prompts.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct HeldOutScore {
    /// Task of the prompts; none for all prompts.
    pub task: Option<String>,
    /// Mean score after training.
    pub after: f64,
    /// Mean score before training.
    pub before: Option<f64>,
    /// Mean length of a response in tokens.
    pub tokens: Option<f64>,
    /// Divergence from the first model in nats a response.
    pub kl: Option<f64>,
}

#[derive(Deserialize)]
struct Summary {
    #[serde(default)]
    evaluation: Vec<Line>,
    stages: Vec<Stage>,
}

#[derive(Deserialize)]
struct Line {
    answers: String,
    task: Option<String>,
    mean_score: f64,
    mean_tokens: Option<f64>,
    kl: Option<f64>,
}

#[derive(Deserialize)]
struct Stage {
    stage: String,
    folder: PathBuf,
    report: Value,
}

/// Reads settings, curves of the last training, and scored responses of the last model. The name is left empty.
pub(crate) fn read(output: &Path) -> Result<RunData> {
    let path = output.join(SUMMARY);
    let text = simplemix_files::read_to_string(&path).at(&path, "read")?;
    let summary: Summary = serde_json::from_str(&text).map_err(|error| Error::malformed(&path, error))?;
    let file = output.join(SETTINGS);
    let settings = if file.is_file() { settings(&file)? } else { BTreeMap::new() };
    let is_training = |stage: &&Stage| stage.report["kind"] == "train" && stage.stage.starts_with("train");
    let training = summary.stages.iter().rfind(is_training);
    let curves = training.map(|stage| read_curves(&folder_of(stage, output).join("run/metrics.jsonl")));
    let notices = summary.stages.iter().flat_map(|stage| stage.report["notices"].as_array().into_iter().flatten());
    let notices = notices.filter_map(Value::as_str).map(|text| format!("{}: {text}", output.display())).collect();
    let last = summary.evaluation.last().map(|line| line.answers.clone());
    let graded = last.as_ref().and_then(|last| summary.stages.iter().find(|s| s.stage == format!("grade-{last}")));
    let outputs = graded.map_or(Ok(Vec::new()), |stage| responses(&folder_of(stage, output).join(SCORED)))?;
    Ok(RunData {
        settings,
        curves: curves.transpose()?.unwrap_or_default(),
        scores: scores(&summary.evaluation),
        outputs,
        notices,
        ..RunData::default()
    })
}

/// Folder of a stage. The summary names it as the pipeline did, which may have run in another folder, or have moved since.
fn folder_of(stage: &Stage, output: &Path) -> PathBuf {
    let moved = stage.folder.file_name().map(|name| output.join("stages").join(name));
    moved.filter(|folder| folder.is_dir()).unwrap_or_else(|| stage.folder.clone())
}

fn scores(lines: &[Line]) -> Vec<HeldOutScore> {
    let Some(last) = lines.last().filter(|line| line.answers != "before") else { return Vec::new() };
    let before = |task: &Option<String>| lines.iter().find(|line| line.answers == "before" && line.task == *task);
    let score = |line: &Line| HeldOutScore {
        task: line.task.clone(),
        after: line.mean_score,
        before: before(&line.task).map(|line| line.mean_score),
        tokens: line.mean_tokens,
        kl: line.kl,
    };
    lines.iter().filter(|line| line.answers == last.answers).map(score).collect()
}

/// Responses with their scores, in the order of the prompts.
fn responses(path: &Path) -> Result<Vec<ModelOutput>> {
    let mut outputs = Vec::new();
    for row in RowReader::open(path)? {
        let row = row?;
        let (Some(prompt), Some(response)) = (row.get("prompt").and_then(plain), row["response"].as_str()) else {
            continue;
        };
        outputs.push(ModelOutput {
            instruction: prompt,
            output: response.to_owned(),
            generator: String::new(),
            dataset: row.get("task").and_then(Value::as_str).map(str::to_owned),
            score: row.get("score").and_then(Value::as_f64),
        });
    }
    Ok(outputs)
}

/// A prompt as text: of messages, the contents with their roles, unless there is one message alone.
fn plain(prompt: &Value) -> Option<String> {
    match prompt {
        Value::String(text) => Some(text.clone()),
        Value::Array(turns) => {
            let content = |turn: &Value| turn["content"].as_str().map(str::to_owned);
            if let [turn] = turns.as_slice() {
                return content(turn);
            }
            let said = |turn: &Value| Some(format!("{}: {}", turn["role"].as_str()?, content(turn)?));
            Some(turns.iter().filter_map(said).collect::<Vec<_>>().join("\n"))
        }
        _ => None,
    }
}

/// Folders of the runs of a sweep that are done, if `path` is the output of a sweep.
///
/// # Errors
/// [`Error::Malformed`] if its `sweep.json` cannot be read, or no run is done.
pub fn runs_of_sweep(path: &Path) -> Result<Option<Vec<PathBuf>>> {
    let file = path.join("sweep.json");
    if !file.is_file() {
        return Ok(None);
    }
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(path.join("runs")).at(path, "read")? {
        let folder = entry.at(path, "read")?.path();
        if folder.join(SUMMARY).is_file() {
            folders.push(folder);
        }
    }
    folders.sort();
    match folders.is_empty() {
        true => Err(Error::malformed(&file, "no run of the sweep is done, expected at least one to report on")),
        false => Ok(Some(folders)),
    }
}
