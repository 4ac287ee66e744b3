//! Results of a run: scores of its responses to held-out prompts, and its cost.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use simplemix::eval::{Curves, mean, read_curves, sigmoid};
use simplemix::pipeline::{PipelineSettings, SCORED, StageReport, StageSummary, Summary};
use simplemix::rollout::{CandidateReader, Finish, SCORE};

use crate::data::{OPEN_ENDED, REASONING};
use crate::grid::Planned;

/// One of this many held-out prompts is for choosing settings; the others are for the tables.
const DEVELOPMENT: usize = 3;

/// An answer to a held-out prompt.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) task: String,
    /// By the task's scorer: 1 for a right answer, or the judge's reward.
    pub(crate) score: f64,
    /// Value in the tables, from 0 to 1: the score itself, or the probability that the judge prefers the response to the
    /// first model's (Bradley and Terry).
    pub(crate) value: f64,
    pub(crate) tokens: f64,
    pub(crate) is_development: bool,
}

/// Results of a run, or of the model before training.
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

/// Cost of a run, including work that it shared with others.
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
    /// Reads the output of a pipeline.
    pub(crate) fn read(run: &Planned) -> Result<Self> {
        let summary = Summary::read(&run.output)?;
        let train = PipelineSettings::read(&run.output.join("pipeline.toml"))?.train;
        let start = graded(&last(&summary, "grade-before")?.folder, None)?;
        let answers = graded(&last(&summary, "grade-after")?.folder, Some(&start))?;
        let StageReport::Divergence(divergence) = &last(&summary, "divergence")?.report else {
            bail!("{}: the stage `divergence` has another report", run.output.display());
        };
        let kl = |task: &str| divergence.tasks.get(task).map_or(f64::NAN, |divergence| divergence.mean);
        let (mut cost, mut curves) = (Cost::default(), Curves::new());
        for stage in &summary.stages {
            match (stage.kind(), &stage.report) {
                ("generate", StageReport::Generate(report)) => cost.tokens += report.tokens as f64,
                ("train", StageReport::Train(report)) => {
                    cost.updates += report.updates as f64;
                    cost.pairs += report.pairs as f64;
                    curves = read_curves(&stage.folder.join("run/metrics.jsonl"))?;
                    let drawn = curves.get("completions/tokens").into_iter().flatten();
                    cost.tokens += drawn.map(|(_, tokens)| tokens).sum::<f64>();
                }
                ("score" | "pair" | "mix", _) => {}
                _ => continue,
            }
            cost.seconds += stage.seconds;
        }
        Ok(Self {
            arm: run.arm.clone(),
            seed: run.seed,
            learning_rate: train.optimizer.learning_rate,
            beta: train.loss.beta,
            answers,
            kl: [REASONING, OPEN_ENDED].map(|task| (task.to_owned(), kl(task))).into(),
            cost,
            curves,
        })
    }

    /// The model before training, as any run of the comparison found it.
    pub(crate) fn start(run: &Planned) -> Result<Self> {
        let summary = Summary::read(&run.output)?;
        Ok(Self {
            arm: "start".to_owned(),
            seed: 0,
            learning_rate: f64::NAN,
            beta: f64::NAN,
            answers: graded(&last(&summary, "grade-before")?.folder, None)?,
            kl: BTreeMap::new(),
            cost: Cost::default(),
            curves: Curves::new(),
        })
    }

    /// Mean over a task's answers: those for choosing settings, or the others.
    fn over(&self, task: &str, development: bool, of: impl Fn(&Answer) -> f64) -> f64 {
        let asked = |answer: &&Answer| answer.task == task && answer.is_development == development;
        mean(&self.answers.values().filter(asked).map(of).collect::<Vec<_>>())
    }

    /// Mean value of both tasks alike.
    fn both(&self, development: bool) -> f64 {
        [REASONING, OPEN_ENDED].map(|task| self.over(task, development, |answer| answer.value)).iter().sum::<f64>()
            / 2.0
    }

    /// The figure by which settings are chosen: both tasks alike, on the development prompts.
    pub(crate) fn development(&self) -> f64 {
        self.both(true)
    }

    /// Mean value of a task; of both alike without.
    pub(crate) fn value(&self, task: Option<&str>) -> f64 {
        match task {
            Some(task) => self.over(task, false, |answer| answer.value),
            None => self.both(false),
        }
    }

    /// Mean tokens of a task's answers.
    pub(crate) fn tokens(&self, task: &str) -> f64 {
        self.over(task, false, |answer| answer.tokens)
    }

    /// Mean score of a task's answers, as its scorer gives it.
    pub(crate) fn score(&self, task: &str) -> f64 {
        self.over(task, false, |answer| answer.score)
    }
}

fn last<'a>(summary: &'a Summary, name: &str) -> Result<&'a StageSummary> {
    summary.last(name).with_context(|| format!("the run has no stage `{name}`"))
}

/// Counts of the model's own responses to the prompts of a kind.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Drawn {
    pub(crate) prompts: u32,
    /// Prompts whose responses differ in score, so that there is a better one and a worse one.
    pub(crate) differing: u32,
    pub(crate) answers: u32,
    /// Responses that were cut at the limit of new tokens.
    pub(crate) cut: u32,
    /// Right responses, among those to prompts that have a right answer.
    pub(crate) right: u32,
}

/// Adds what a run collected, by kinds of prompts.
pub(crate) fn add_drawn(run: &Planned, kinds: &mut BTreeMap<String, Drawn>) -> Result<()> {
    for stage in Summary::read(&run.output)?.stages.iter().filter(|stage| stage.kind() == "score") {
        for group in CandidateReader::open(&stage.folder.join(SCORED))? {
            let group = group?;
            let scores: Vec<f64> =
                group.rows.iter().filter_map(|row| row.scores.get(SCORE).copied().flatten()).collect();
            // `arithmetic-0012`, `word-problem-0189`, `gsm8k-7-human`, `open-0010`.
            let kind = group.prompt.id.trim_end_matches("-human").trim_end_matches(|c: char| c.is_ascii_digit());
            let drawn = kinds.entry(kind.trim_end_matches('-').to_owned()).or_default();
            drawn.prompts += 1;
            drawn.differing += u32::from(scores.windows(2).any(|two| two[0] != two[1]));
            drawn.answers += group.rows.len() as u32;
            drawn.cut += group.rows.iter().filter(|row| row.finish == Some(Finish::Length)).count() as u32;
            if group.prompt.answer.is_some() {
                drawn.right += scores.iter().filter(|score| **score == 1.0).count() as u32;
            }
        }
    }
    Ok(())
}

/// Scored responses by prompt, compared with those of `start` or, without it, with themselves.
fn graded(folder: &Path, start: Option<&BTreeMap<String, Answer>>) -> Result<BTreeMap<String, Answer>> {
    let mut answers = BTreeMap::new();
    // Every third response of each task, in the order of the file.
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for group in CandidateReader::open(&folder.join(SCORED))? {
        let group = group?;
        let (Some(row), Some(task)) = (group.rows.first(), group.prompt.task.clone()) else { continue };
        let Some(score) = row.scores.get(SCORE).copied().flatten() else { continue };
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
