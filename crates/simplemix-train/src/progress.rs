//! Progress of a run: everything that a checkpoint needs beside weights and optimiser state.

use serde::{Deserialize, Serialize};

use crate::adamw::Movement;
use crate::error::{Error, Result};
use crate::loop_settings::BestRule;
use crate::metrics::Record;

/// Progress of a run.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// Updates done.
    pub step: u64,
    /// Tokens trained on, as TRL counts them: the prompt is counted with each response.
    pub tokens: u64,
    /// Batches skipped.
    #[serde(default)]
    pub skipped: u64,
    /// Best evaluation so far.
    #[serde(default)]
    pub best: Option<Best>,
    /// Effect of the updates on the weights. Checkpoints of version 0.1 do not say.
    #[serde(default = "moved")]
    pub movement: Movement,
}

fn moved() -> Movement {
    Movement::Parameters
}

/// The best evaluation so far.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Updates done before the evaluation.
    pub step: u64,
    /// Value of the metric.
    pub value: f64,
    /// Evaluations since.
    pub since: u64,
}

impl Progress {
    /// Compares an evaluation with the best one so far and keeps the better. Returns whether the new one is better.
    ///
    /// # Errors
    /// [`Error::Setting`] if the evaluation has no such metric.
    pub(crate) fn compare(&mut self, rule: &BestRule, evaluation: &Record) -> Result<bool> {
        let value = evaluation.get(&rule.metric).ok_or_else(|| unknown_metric(&rule.metric, evaluation))?;
        let is_better = |best: Best| if rule.higher { value > best.value } else { value < best.value };
        let is_new = self.best.is_none_or(is_better);
        self.best = match self.best {
            Some(best) if !is_new => Some(Best { since: best.since + 1, ..best }),
            _ => Some(Best { step: self.step, value, since: 0 }),
        };
        Ok(is_new)
    }

    /// Whether the rule's patience is exhausted.
    pub(crate) fn is_stale(&self, rule: &BestRule) -> bool {
        let since = self.best.map_or(0, |best| best.since);
        rule.patience.is_some_and(|patience| since >= patience)
    }
}

fn unknown_metric(metric: &str, evaluation: &Record) -> Error {
    let names: Vec<&str> = evaluation.values.iter().map(|(name, _)| name.as_str()).collect();
    let hint = simplemix_settings::nearest(metric, &names).map_or(String::new(), |name| format!(" (`{name}`?)"));
    Error::setting("eval.best_metric", format!("{metric}{hint}"), "a metric of the evaluations")
}
