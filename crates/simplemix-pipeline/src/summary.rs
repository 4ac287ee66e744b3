//! Summary of a pipeline: the report of every stage, and scores before and after training.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use simplemix_eval::{Share, mcnemar};
use simplemix_rollout::{CandidateReader, SCORE};

use crate::error::{At, Error, Result};
use crate::plan::{Plan, SCORED, Stage};
use crate::report::{DivergenceReport, StageReport, in_words};
use crate::stage::Done;

/// Summary of a pipeline, as `summary.json` has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Summary {
    /// Folder of the resulting model.
    pub model: PathBuf,
    /// Scores of the responses to the evaluation's prompts: before training, then after each round; each over all
    /// prompts, then by task where there are several.
    pub evaluation: Vec<Evaluation>,
    /// Stages, in the order in which they were done.
    pub stages: Vec<StageSummary>,
}

/// Summary of a stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StageSummary {
    /// Name of the stage: `generate`, or `generate-2` in the second round.
    pub stage: String,
    /// Key of everything that the result depends on.
    pub key: String,
    /// Folder of the result.
    pub folder: PathBuf,
    /// Seconds of the call that finished it.
    pub seconds: f64,
    /// Report of the stage.
    pub report: StageReport,
}

/// Scores of a model's responses to the evaluation's prompts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Evaluation {
    /// Model: `before`, `after`, or `after-2` after the second round.
    #[serde(rename = "answers")]
    pub when: String,
    /// Task of the prompts; none for all prompts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// Number of prompts.
    pub prompts: u64,
    /// Mean score of the responses.
    pub mean_score: f64,
    /// 95 % interval of the mean score, where every score is 0 or 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_95: Option<[f64; 2]>,
    /// Mean length of a response in tokens, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean_tokens: Option<f64>,
    /// Prompts whose response scores higher than before training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub better: Option<u64>,
    /// Prompts whose response scores lower than before training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worse: Option<u64>,
    /// Probability of a split at least as uneven by chance: McNemar's test or, for other scores, the sign test.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p_value: Option<f64>,
    /// Divergence of the responses' distribution from the first model's, in nats a response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kl: Option<f64>,
    /// Standard error of the divergence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kl_standard_error: Option<f64>,
}

impl fmt::Display for Evaluation {
    /// The scores in one line, such as `after, sums: 12 prompts, mean score 0.5000`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let task = self.task.iter().map(|task| format!(", {task}")).collect::<String>();
        write!(f, "{}{task}: {}", self.when, in_words(self))
    }
}

impl StageSummary {
    /// Name of the stage without round: `generate`, `grade`.
    pub fn kind(&self) -> &str {
        self.stage.split('-').next().unwrap_or(&self.stage)
    }
}

impl Summary {
    /// File of the summary in the output of a pipeline.
    pub(crate) const FILE: &str = "summary.json";

    /// Reads the summary of a pipeline that is done from its output folder.
    ///
    /// # Errors
    /// [`Error::Io`] if there is none, [`Error::Config`] if it is of another version.
    pub fn read(output: &Path) -> Result<Self> {
        let path = output.join(Self::FILE);
        let text = simplemix_files::read_to_string(&path).at(&path, "read")?;
        serde_json::from_str(&text)
            .map_err(|error| Error::Config { place: path.display().to_string(), message: error.to_string() })
    }

    /// The last stage whose name begins with `name`.
    pub fn last(&self, name: &str) -> Option<&StageSummary> {
        self.stages.iter().rfind(|stage| stage.stage.starts_with(name))
    }

    pub(crate) fn new(plan: &Plan, done: &[Done]) -> Result<Self> {
        let stage = |(stage, done): (&Stage, &Done)| StageSummary {
            stage: stage.name.clone(),
            key: stage.key.clone(),
            folder: stage.folder.clone(),
            seconds: done.seconds,
            report: done.report.clone(),
        };
        Ok(Self {
            model: plan.model(),
            evaluation: evaluations(plan, done)?,
            stages: plan.stages.iter().zip(done).map(stage).collect(),
        })
    }
}

fn evaluations(plan: &Plan, done: &[Done]) -> Result<Vec<Evaluation>> {
    let grades = plan.grades.iter().map(|&at| Grades::read(&plan.stages[at])).collect::<Result<Vec<_>>>()?;
    let mut evaluations = Vec::new();
    for (round, grade) in grades.iter().enumerate() {
        // With one task only, the line over all prompts says it.
        let tasks = Some(grade.tasks()).filter(|tasks| tasks.len() > 1).unwrap_or_default();
        let divergence = round.checked_sub(1).and_then(|round| plan.divergences.get(round));
        let divergence: Option<&DivergenceReport> = divergence.and_then(|&stage| match &done[stage].report {
            StageReport::Divergence(report) => Some(report),
            _ => None,
        });
        for task in std::iter::once(None).chain(tasks.into_iter().map(Some)) {
            let divergence = divergence.and_then(|report| report.of(task));
            evaluations.push(Evaluation {
                kl: divergence.map(|divergence| divergence.mean),
                kl_standard_error: divergence.map(|divergence| divergence.standard_error),
                ..grade.evaluation(&grades[0], task)
            });
        }
    }
    Ok(evaluations)
}

/// Scores of the evaluation's responses, by prompt.
pub(crate) struct Grades {
    name: String,
    responses: BTreeMap<String, Graded>,
}

/// A scored response.
pub(crate) struct Graded {
    task: Option<String>,
    pub(crate) score: f64,
    tokens: Option<i64>,
}

impl Grades {
    /// The scores that a stage has written.
    pub(crate) fn read(stage: &Stage) -> Result<Self> {
        let mut responses = BTreeMap::new();
        for group in CandidateReader::open(&stage.folder.join(SCORED))? {
            let group = group?;
            let Some(row) = group.rows.first() else { continue };
            if let Some(score) = row.scores.get(SCORE).copied().flatten() {
                let graded = Graded { task: group.prompt.task.clone(), score, tokens: row.tokens };
                responses.insert(group.prompt.id, graded);
            }
        }
        Ok(Self { name: stage.name.trim_start_matches("grade-").to_owned(), responses })
    }

    fn tasks(&self) -> BTreeSet<&str> {
        self.responses.values().filter_map(|graded| graded.task.as_deref()).collect()
    }

    /// Responses to the prompts of a task, or to all.
    pub(crate) fn of(&self, task: Option<&str>) -> impl Iterator<Item = (&String, &Graded)> {
        self.responses.iter().filter(move |(_, graded)| task.is_none() || graded.task.as_deref() == task)
    }

    /// Whether every response is right or wrong.
    fn is_binary(&self, task: Option<&str>) -> bool {
        self.of(task).all(|(_, graded)| graded.score == 0.0 || graded.score == 1.0)
    }

    /// Mean score and length in a task, or over all, and a comparison with the scores of `before`.
    fn evaluation(&self, before: &Self, task: Option<&str>) -> Evaluation {
        let count = self.of(task).count();
        let interval = || {
            let (low, high) = Share::of(self.of(task).map(|(_, graded)| graded.score == 1.0)).interval(1.96);
            [low, high]
        };
        let tokens: Vec<i64> = self.of(task).filter_map(|(_, graded)| graded.tokens).collect();
        let evaluation = Evaluation {
            when: self.name.clone(),
            task: task.map(str::to_owned),
            prompts: count as u64,
            mean_score: self.of(task).map(|(_, graded)| graded.score).sum::<f64>() / count.max(1) as f64,
            interval_95: (self.is_binary(task) && before.is_binary(task)).then(interval),
            mean_tokens: (!tokens.is_empty()).then(|| tokens.iter().sum::<i64>() as f64 / tokens.len() as f64),
            ..Evaluation::default()
        };
        if std::ptr::eq(self, before) {
            return evaluation;
        }
        let both = || {
            let with_before = |(id, after): (&String, &Graded)| Some((before.responses.get(id)?.score, after.score));
            self.of(task).filter_map(with_before)
        };
        let better = both().filter(|(before, after)| after > before).count() as u64;
        let worse = both().filter(|(before, after)| after < before).count() as u64;
        // For scores that are not 0 or 1 this is the sign test, which is the same sum.
        let p_value = Some(mcnemar(better, worse));
        Evaluation { better: Some(better), worse: Some(worse), p_value, ..evaluation }
    }
}
