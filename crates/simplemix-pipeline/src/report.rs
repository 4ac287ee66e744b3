//! Reports of stages, as `stage.json` and `summary.json` have them.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use simplemix_eval::html::number;
use simplemix_mix::Achieved;
#[cfg(feature = "server")]
use simplemix_rollout::{Evidence, YardstickReport};
use simplemix_rollout::{GenerateReport, PairReport, PoolReport, ScoreReport};

use crate::divergence::Divergence;

/// Report of a stage that is done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum StageReport {
    /// Responses were sampled.
    Generate(Box<GenerateReport>),
    /// Responses of several models were brought together.
    Pool(PoolReport),
    /// Responses were scored.
    Score(ScoreReport),
    /// Scored responses were paired.
    Pair(PairReport),
    /// Pairs were mixed.
    Mix(Achieved),
    /// A policy or a reward model was trained.
    Train(TrainReport),
    /// The divergence of a model from the first one was estimated.
    Divergence(DivergenceReport),
    /// Responses were made by which the weights of a server are told.
    #[cfg(feature = "server")]
    Yardstick(YardstickReport),
}

/// Report of a training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainReport {
    /// Pairs of the training set.
    pub pairs: u64,
    /// Updates of the whole run, however often it was stopped.
    pub updates: u64,
    /// Metrics at the end, by name: of training the mean over the last tenth, of evaluations the last value.
    pub last: BTreeMap<String, f64>,
    /// Facts about the run that its user should read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<String>,
}

/// Report of an estimate of the divergence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DivergenceReport {
    /// Estimate over the prompts of all tasks.
    #[serde(flatten)]
    pub all: Divergence,
    /// Estimates by task.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tasks: BTreeMap<String, Divergence>,
}

impl DivergenceReport {
    /// The estimate for a task, or over all.
    pub(crate) fn of(&self, task: Option<&str>) -> Option<&Divergence> {
        task.map_or(Some(&self.all), |task| self.tasks.get(task))
    }
}

impl StageReport {
    /// The numbers of the report, such as `48 candidates` and `12 prompts`.
    pub(crate) fn figures(&self) -> Vec<String> {
        #[cfg_attr(not(feature = "server"), expect(unused_mut, reason = "servers add to them"))]
        let mut figures = parts(self);
        #[cfg(feature = "server")]
        if let Self::Generate(report) = self
            && let Some(served) = &report.served
        {
            figures.push(evidence(served.evidence).to_owned());
        }
        figures
    }
}

impl fmt::Display for StageReport {
    /// The numbers of the report in one line, such as `48 candidates, 12 prompts`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.figures().join(", "))
    }
}

/// Knowledge about the weights of a server, in words.
#[cfg(feature = "server")]
fn evidence(evidence: Evidence) -> &'static str {
    match evidence {
        Evidence::NotVerified => "weights not verified",
        Evidence::Same => "weights verified",
        Evidence::LogProbabilities => "weights verified, not those of the round before",
        Evidence::Texts => "weights verified by texts, not those of the round before",
        Evidence::NotTold => "weights not told from those of the round before",
    }
}

/// The numbers of a report in one line; those that are 0 are left out.
pub(crate) fn in_words(report: &impl Serialize) -> String {
    parts(report).join(", ")
}

fn parts(report: &impl Serialize) -> Vec<String> {
    let mut parts = Vec::new();
    // A report that is no JSON has no numbers to show.
    gather("", &serde_json::to_value(report).unwrap_or_default(), &mut parts);
    parts
}

fn gather(name: &str, value: &Value, parts: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                // Means, counts by reason: the inner names say enough.
                gather(&key.replace('_', " "), value, parts);
            }
        }
        Value::Array(sources) => {
            for source in sources {
                if let (Some(name), Some(share)) = (source["name"].as_str(), source["share"].as_f64()) {
                    parts.push(format!("{name} {share:.4}"));
                }
            }
        }
        Value::Number(count) if count.as_f64() == Some(0.0) => {}
        Value::Number(count) if count.is_u64() => parts.push(format!("{count} {name}")),
        Value::Number(x) => parts.push(format!("{name} {}", number(x.as_f64().unwrap_or(f64::NAN)))),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_read_back_and_fit_in_a_line() {
        let divergence = |mean| Divergence { mean, standard_error: 0.25, per_token: 0.5, answers: 2 };
        let report = StageReport::Divergence(DivergenceReport {
            all: divergence(1.5),
            tasks: [("sums".to_owned(), divergence(0.5))].into(),
        });
        let text = serde_json::to_string(&report).unwrap();
        assert!(text.starts_with(r#"{"kind":"divergence","mean":1.5,"#), "{text}");
        assert_eq!(serde_json::from_str::<StageReport>(&text).unwrap(), report);
        let train = TrainReport { pairs: 8, updates: 0, last: [("loss".to_owned(), 0.5)].into(), notices: Vec::new() };
        assert_eq!(StageReport::Train(train).to_string(), "8 pairs, loss 0.5000");
    }
}
