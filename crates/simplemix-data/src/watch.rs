//! The observer of long work: progress, metrics, notices, and the wish to stop.
//!
//! It stands in this crate because collecting, training and pipelines all build on it, and none of them on another.

/// Observer of long work. Every method has a default, so an observer implements only what it shows.
///
/// Work that is interrupted keeps what is done, reports that it was interrupted, and continues from there when it is
/// started again.
pub trait Watch {
    /// Reports that `done` of `total` units of `stage` are done; `total` is 0 while it is unknown.
    fn progress(&mut self, stage: &str, done: u64, total: u64) {
        let _ = (stage, done, total);
    }

    /// Reports progress of work that goes on beside that of [`Watch::progress`]; shown in its place by default.
    fn progress_beside(&mut self, stage: &str, done: u64, total: u64) {
        self.progress(stage, done, total);
    }

    /// Reports the metrics of an update or of an evaluation.
    fn metrics(&mut self, metrics: &Metrics<'_>) {
        let _ = metrics;
    }

    /// Reports a fact that the user should read, such as rows that were left out and why.
    fn notice(&mut self, text: &str) {
        let _ = text;
    }

    /// Whether to stop at the next safe point. Asked often.
    fn is_interrupted(&self) -> bool {
        false
    }
}

/// Metrics of one update or evaluation.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Metrics<'a> {
    /// Updates done so far, this one included.
    pub step: u64,
    /// Updates of the whole run.
    pub steps: u64,
    /// Whether these are metrics of held-out pairs, not of the update's own.
    pub is_evaluation: bool,
    /// Names and values, in the order they are written to `metrics.jsonl`.
    pub values: &'a [(String, f64)],
}

impl<'a> Metrics<'a> {
    /// Metrics of the update `step` of `steps`.
    pub fn update(step: u64, steps: u64, values: &'a [(String, f64)]) -> Self {
        Self { step, steps, is_evaluation: false, values }
    }

    /// Metrics of an evaluation after `step` of `steps` updates.
    pub fn evaluation(step: u64, steps: u64, values: &'a [(String, f64)]) -> Self {
        Self { step, steps, is_evaluation: true, values }
    }

    /// The value called `name`, if there is one.
    ///
    /// ```
    /// use simplemix_data::Metrics;
    /// let values = [("loss".to_owned(), 0.5)];
    /// assert_eq!(Metrics::update(1, 10, &values).get("loss"), Some(0.5));
    /// ```
    pub fn get(&self, name: &str) -> Option<f64> {
        self.values.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
    }
}

/// An observer that ignores everything and never stops the work.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unwatched;

impl Watch for Unwatched {}
