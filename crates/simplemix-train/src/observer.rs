//! The loop's view of its surroundings: records to write, checkpoints to save, the wish to stop.

use serde::Serialize;

use crate::error::Result;
use crate::learner::Learner;
use crate::metrics::Record;
use crate::progress::Progress;

/// Observer of the loop, which writes, shows and interrupts. An error of an observer stops the run.
pub trait Observer<L: Learner> {
    /// Records an update.
    ///
    /// # Errors
    /// Failures to write.
    fn update(&mut self, record: &Record) -> Result<()>;

    /// Records an evaluation of the held-out sets.
    ///
    /// # Errors
    /// Failures to write.
    fn evaluation(&mut self, record: &Record) -> Result<()>;

    /// Reports that `done` of `total` pairs of a held-out set are scored.
    fn evaluating(&mut self, done: usize, total: usize) {
        let _ = (done, total);
    }

    /// Saves a checkpoint.
    ///
    /// # Errors
    /// Failures to write.
    fn checkpoint(&mut self, learner: &L, progress: &Progress, occasion: Occasion) -> Result<()>;

    /// Records a batch that is skipped or stops the run.
    ///
    /// # Errors
    /// Failures to write.
    fn nonfinite(&mut self, report: &NonFinite) -> Result<()> {
        let _ = report;
        Ok(())
    }

    /// Whether to stop before the next update.
    fn is_interrupted(&self) -> bool {
        false
    }
}

/// Reason for a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// The interval has passed, or the run is being stopped.
    Due,
    /// The evaluation is the best so far.
    Best,
}

/// A batch whose loss or gradient is NaN or infinite.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NonFinite {
    /// Number of the update, counted from one.
    pub step: u64,
    /// Name of the number: `loss`, `grad_norm`, or a metric of a regulariser such as `kl`.
    pub what: &'static str,
    /// Numbers of the batch's pairs.
    pub pairs: Vec<usize>,
    /// Losses of the pairs whose forward pass was done; `None` for NaN and infinity.
    pub losses: Vec<Option<f64>>,
}
