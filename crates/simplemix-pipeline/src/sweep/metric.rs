//! Metric by which the best run of a sweep is found.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};
use simplemix_train::EvalFiles;

use crate::error::{Error, Result};
use crate::report::StageReport;
use crate::settings::PipelineSettings;
use crate::summary::Summary;

/// Name of the mean score of the evaluation's responses; `score:TASK` is that of a task.
pub(super) const SCORE: &str = "score";

/// Accuracy of the implicit rewards on held-out pairs.
const ACCURACY: &str = "eval_rewards/accuracies";

/// A metric, and whether a lower value is better.
///
/// # Examples
/// ```
/// use simplemix_pipeline::BestBy;
/// let loss: BestBy = "eval_loss".parse()?;
/// assert!(loss.is_lowest);
/// let other: BestBy = "highest:eval_length".parse()?;
/// assert_eq!((other.metric.as_str(), other.is_lowest), ("eval_length", false));
/// # Ok::<(), simplemix_pipeline::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BestBy {
    /// Name of the metric.
    pub metric: String,
    /// Whether the lowest value is the best.
    pub is_lowest: bool,
}

impl FromStr for BestBy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (is_lowest, metric) = match text.split_once(':') {
            Some(("lowest", metric)) => (true, metric),
            Some(("highest", metric)) => (false, metric),
            _ => (direction(text)?, text),
        };
        Ok(Self { metric: metric.to_owned(), is_lowest })
    }
}

/// Whether the lowest value of a metric with this name is the best.
fn direction(metric: &str) -> Result<bool> {
    let end = metric.rsplit(['/', '_']).next().unwrap_or(metric);
    match end {
        _ if metric == SCORE || metric.starts_with("score:") => Ok(false),
        "loss" => Ok(true),
        "accuracies" | "accuracy" | "margins" | "margin" => Ok(false),
        _ => {
            let expected = format!("`lowest:{metric}` or `highest:{metric}`: its name does not say what is better");
            Err(Error::setting("sweep.best_by", format!("`{metric}`"), expected))
        }
    }
}

impl fmt::Display for BestBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", if self.is_lowest { "lowest" } else { "highest" }, self.metric)
    }
}

impl Serialize for BestBy {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl BestBy {
    /// The metric of a pipeline that nothing else was said for: the evaluation's score, else the accuracy on held-out pairs.
    pub(super) fn of(settings: &PipelineSettings) -> Result<Self> {
        let metric = match (&settings.evaluate.prompts, &settings.train.eval.files) {
            (Some(_), _) => SCORE,
            (None, Some(EvalFiles::One(_))) => ACCURACY,
            (None, Some(_)) => {
                let expected =
                    "the metric of one of the files in `train.eval.files`, such as eval_NAME_rewards/accuracies";
                return Err(Error::setting("sweep.best_by", "not set", expected));
            }
            (None, None) => {
                let expected = "a metric; or something held out: `evaluate.prompts`, or `train.eval.files`";
                return Err(Error::setting("sweep.best_by", "not set", expected));
            }
        };
        metric.parse()
    }

    /// Task whose responses are scored, if the metric is a score.
    pub(super) fn task(&self) -> Option<Option<&str>> {
        match self.metric.strip_prefix(SCORE)? {
            "" => Some(None),
            rest => rest.strip_prefix(':').map(Some),
        }
    }
}

/// Metrics of a run: those of its last training, and the mean scores after it.
pub(super) fn metrics(summary: &Summary) -> BTreeMap<String, f64> {
    let mut metrics = BTreeMap::new();
    if let Some(StageReport::Train(train)) = summary.last("train").map(|stage| &stage.report) {
        metrics.extend(train.last.clone());
    }
    let Some(last) = summary.evaluation.last() else { return metrics };
    for line in summary.evaluation.iter().filter(|line| line.when == last.when && line.when != "before") {
        let name = |what: &str| line.task.as_ref().map_or(what.to_owned(), |task| format!("{what}:{task}"));
        metrics.insert(name(SCORE), line.mean_score);
        metrics.extend(line.mean_tokens.map(|tokens| (name("tokens"), tokens)));
        metrics.extend(line.kl.map(|kl| (name("divergence"), kl)));
    }
    metrics
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_is_better_or_are_asked_to() {
        let of = |text: &str| text.parse::<BestBy>().map(|best_by| best_by.to_string());
        assert_eq!(of("score:sums").unwrap(), "highest:score:sums");
        assert_eq!(of("eval_loss").unwrap(), "lowest:eval_loss");
        assert_eq!(of("eval_rewards/accuracies").unwrap(), "highest:eval_rewards/accuracies");
        assert_eq!(of("lowest:divergence").unwrap(), "lowest:divergence");
        let error = of("divergence").unwrap_err().to_string();
        assert!(error.contains("`lowest:divergence` or `highest:divergence`"), "{error}");
        let tasks = ["score", "score:a", "eval_loss"].map(|text| text.parse::<BestBy>().unwrap());
        assert_eq!(tasks.each_ref().map(BestBy::task), [Some(None), Some(Some("a")), None]);
    }

    #[test]
    fn something_must_be_held_out() {
        let mut settings = PipelineSettings::default();
        assert!(BestBy::of(&settings).unwrap_err().to_string().contains("`evaluate.prompts`, or `train.eval.files`"));
        settings.train.eval.files = Some(EvalFiles::One("held.jsonl".into()));
        assert_eq!(BestBy::of(&settings).unwrap().metric, ACCURACY);
        settings.evaluate.prompts = Some(simplemix_rollout::PromptSettings::default());
        assert_eq!(BestBy::of(&settings).unwrap().metric, SCORE);
    }
}
