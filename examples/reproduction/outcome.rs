//! What came of a run: scores of its answers to held-back prompts, and what it took.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use simplemix::eval::{Curves, read_curves, sigmoid};
use simplemix::rollout::CandidateReader;

use crate::data::{OPEN_ENDED, REASONING};
use crate::grid::Planned;

/// Of every so many held-back prompts one is for choosing settings; the others are for the tables.
const DEVELOPMENT: usize = 3;

/// An answer to a held-back prompt.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) task: String,
    /// By the task's scorer: 1 for a right answer, or the judge's reward.
    pub(crate) score: f64,
    /// What the tables are about, from 0 to 1: the score itself, or the probability that the judge prefers the answer to the
    /// first model's (Bradley and Terry).
    pub(crate) value: f64,
    pub(crate) tokens: f64,
    pub(crate) is_development: bool,
}

/// What came of a run, or of the model before training.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub(crate) arm: String,
    pub(crate) seed: u64,
    pub(crate) learning_rate: f64,
    pub(crate) beta: f64,
    /// By prompt.
    pub(crate) answers: BTreeMap<String, Answer>,
    /// Divergence from the first model by task, nats an answer.
    pub(crate) kl: BTreeMap<String, f64>,
    pub(crate) cost: Cost,
    /// Metrics of the last training.
    pub(crate) curves: Curves,
}

/// What a run took, whatever of it was shared with others.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cost {
    /// Tokens drawn: for pairs, and in updates.
    pub(crate) tokens: f64,
    pub(crate) updates: f64,
    pub(crate) pairs: f64,
    /// Seconds of collecting, mixing and training.
    pub(crate) seconds: f64,
}

impl Outcome {
    /// Reads what `simplemix run` left.
    pub(crate) fn read(run: &Planned) -> Result<Self> {
        let summary = summary(&run.output)?;
        let settings = run.output.join("pipeline.toml");
        let text = fs::read_to_string(&settings).with_context(|| format!("{}: cannot read", settings.display()))?;
        let settings: toml::Table = toml::from_str(&text).with_context(|| settings.display().to_string())?;
        let number = |key: &str| settings["train"].get(key).and_then(toml::Value::as_float).unwrap_or(f64::NAN);
        let stages = stages(&summary);
        let start = graded(&last(&stages, "grade-before")?.1, None)?;
        let answers = graded(&last(&stages, "grade-after")?.1, Some(&start))?;
        let divergence = &last(&stages, "divergence")?.2;
        let kl = [REASONING, OPEN_ENDED]
            .map(|task| (task.to_owned(), divergence["tasks"][task]["mean"].as_f64().unwrap_or(f64::NAN)));
        let (mut cost, mut curves) = (Cost::default(), Curves::new());
        for (name, folder, report, seconds) in &stages {
            let number = |key: &str| report[key].as_f64().unwrap_or_default();
            match name.split('-').next().unwrap_or_default() {
                "generate" => cost.tokens += number("tokens"),
                "train" => {
                    cost.updates += number("updates");
                    cost.pairs += number("pairs");
                    curves = read_curves(&folder.join("run/metrics.jsonl"))?;
                    let drawn = curves.get("completions/tokens").into_iter().flatten();
                    cost.tokens += drawn.map(|(_, tokens)| tokens).sum::<f64>();
                }
                "score" | "pair" | "mix" => {}
                _ => continue,
            }
            cost.seconds += seconds;
        }
        Ok(Self {
            arm: run.arm.clone(),
            seed: run.seed,
            learning_rate: number("learning_rate"),
            beta: number("beta"),
            answers,
            kl: kl.into(),
            cost,
            curves,
        })
    }

    /// The model before training, as any run of the comparison found it.
    pub(crate) fn start(run: &Planned) -> Result<Self> {
        let summary = summary(&run.output)?;
        let stages = stages(&summary);
        let folder = &last(&stages, "grade-before")?.1;
        let start = graded(folder, None)?;
        Ok(Self {
            arm: "start".to_owned(),
            seed: 0,
            learning_rate: f64::NAN,
            beta: f64::NAN,
            answers: graded(folder, Some(&start))?,
            kl: BTreeMap::new(),
            cost: Cost::default(),
            curves: Curves::new(),
        })
    }

    /// Mean value of a task's answers: those for choosing settings, or the others.
    fn mean(&self, task: &str, development: bool) -> f64 {
        mean(self.of(task, development).map(|answer| answer.value))
    }

    fn of(&self, task: &str, development: bool) -> impl Iterator<Item = &Answer> {
        self.answers.values().filter(move |answer| answer.task == task && answer.is_development == development)
    }

    /// What settings are chosen by: both tasks alike, on the development prompts.
    pub(crate) fn development(&self) -> f64 {
        (self.mean(REASONING, true) + self.mean(OPEN_ENDED, true)) / 2.0
    }

    /// Mean value of a task; of both alike without.
    pub(crate) fn value(&self, task: Option<&str>) -> f64 {
        match task {
            Some(task) => self.mean(task, false),
            None => (self.mean(REASONING, false) + self.mean(OPEN_ENDED, false)) / 2.0,
        }
    }

    /// Mean tokens of a task's answers.
    pub(crate) fn tokens(&self, task: &str) -> f64 {
        mean(self.of(task, false).map(|answer| answer.tokens))
    }

    /// Mean score of a task's answers, as its scorer gives it.
    pub(crate) fn score(&self, task: &str) -> f64 {
        mean(self.of(task, false).map(|answer| answer.score))
    }
}

pub(crate) fn mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let (mut sum, mut count) = (0.0, 0.0);
    for value in values {
        sum += value;
        count += 1.0;
    }
    sum / count
}

fn summary(output: &Path) -> Result<Value> {
    let path = output.join("summary.json");
    let text = fs::read_to_string(&path).with_context(|| format!("{}: the run is not done", path.display()))?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

/// Name, folder, report and seconds of a stage.
type Stage = (String, PathBuf, Value, f64);

fn stages(summary: &Value) -> Vec<Stage> {
    let of = |stage: &Value| {
        let text = |key: &str| stage[key].as_str().unwrap_or_default();
        (
            text("stage").to_owned(),
            text("folder").into(),
            stage["report"].clone(),
            stage["seconds"].as_f64().unwrap_or(0.0),
        )
    };
    summary["stages"].as_array().into_iter().flatten().map(of).collect()
}

fn last<'a>(stages: &'a [Stage], name: &str) -> Result<&'a Stage> {
    let found = stages.iter().rfind(|(stage, ..)| stage.starts_with(name));
    found.with_context(|| format!("the run has no stage `{name}`"))
}

/// Scored answers by prompt; against `start`, or against themselves.
fn graded(folder: &Path, start: Option<&BTreeMap<String, Answer>>) -> Result<BTreeMap<String, Answer>> {
    let mut answers = BTreeMap::new();
    // Every so many of each task, in the order of the file.
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for group in CandidateReader::open(&folder.join("scored.parquet"))? {
        let group = group?;
        let (Some(row), Some(task)) = (group.rows.first(), group.prompt.task.clone()) else { continue };
        let Some(score) = row.scores.get("score").copied().flatten() else { continue };
        let place = seen.entry(task.clone()).or_default();
        let before = start.and_then(|start| start.get(&group.prompt.id)).map_or(score, |answer| answer.score);
        let value = if task == OPEN_ENDED { sigmoid(score - before) } else { score };
        let is_development = place.is_multiple_of(DEVELOPMENT);
        *place += 1;
        let tokens = row.tokens.unwrap_or_default() as f64;
        answers.insert(group.prompt.id, Answer { task, score, value, tokens, is_development });
    }
    ensure!(!answers.is_empty(), "{}: no scored answer", folder.display());
    Ok(answers)
}
