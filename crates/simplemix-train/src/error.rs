//! What can stop a training run.

use std::path::PathBuf;

/// Why a run could not start or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is out of range.
    #[error("`{key}` is {found}, expected {expected}")]
    Setting {
        /// The setting.
        key: &'static str,
        /// Its value.
        found: String,
        /// What is allowed.
        expected: &'static str,
    },
    /// A settings file is not valid.
    #[error("{path}: {message}")]
    Config {
        /// The file.
        path: PathBuf,
        /// Where and why, with the key.
        message: String,
    },
    /// There is nothing to train on.
    #[error("{path}: no pair to train on: {reason}")]
    Empty {
        /// The data file.
        path: PathBuf,
        /// What became of its rows.
        reason: String,
    },
    /// A loss of soft labels has no score to make one of.
    #[error("row {row}: no `score_chosen` and `score_rejected`, which the loss `{loss}` needs")]
    NoScores {
        /// Row of the data file.
        row: usize,
        /// The loss.
        loss: String,
    },
    /// A pattern of parameter names does not do what it is there for.
    #[error("`{key}`: the pattern `{pattern}` {problem}")]
    Pattern {
        /// The setting.
        key: &'static str,
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The connection between processes that train together broke.
    #[error("training over several processes: {0}")]
    Collective(String),
    /// A parameter cannot be trained as it is.
    #[error("parameter `{name}` is {found}, expected contiguous floats")]
    Parameter {
        /// The parameter.
        name: String,
        /// Its kind.
        found: String,
    },
    /// A checkpoint does not belong to this run.
    #[error("checkpoint: `{name}` is {found}, expected {expected}")]
    State {
        /// Which part.
        name: String,
        /// What the checkpoint holds.
        found: String,
        /// What the run needs.
        expected: String,
    },
    /// The loss or a gradient is not a number; the optimiser has not moved.
    #[error("step {step}: {what} is {found}; no weight was changed. Pairs of the batch: {pairs:?}")]
    NonFinite {
        /// The update, counted from one.
        step: u64,
        /// `loss`, `grad_norm`, or what a learner reports beside them, as `kl`.
        what: &'static str,
        /// Its value.
        found: f64,
        /// Row numbers of the batch's pairs.
        pairs: Vec<usize>,
    },
    /// More batches than allowed were skipped since their loss or gradient was not a number.
    #[error("step {step}: {skipped} batches had a loss or gradient that is not a number, `max_skipped` is {most}")]
    TooManySkipped {
        /// The update, counted from one.
        step: u64,
        /// Batches skipped.
        skipped: u64,
        /// What is allowed.
        most: u64,
    },
    /// The start-up check of the loss failed: policy and reference differ before the first update.
    #[error(
        "the first batch has a loss of {found}, expected {expected:.4} within {tolerance}: policy and reference differ"
    )]
    NotLnTwo {
        /// The measured loss of a pair.
        found: f64,
        /// What it is where policy and reference are one: ln 2 = 0.6931 for DPO.
        expected: f64,
        /// How far off it may be.
        tolerance: f64,
    },
    /// Reading or writing a file failed.
    #[error("{path}: cannot {action}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried, as a verb.
        action: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The data could not be read.
    #[error(transparent)]
    Data(#[from] simplemix_data::Error),
    /// The sources could not be mixed as asked.
    #[error(transparent)]
    Mix(#[from] simplemix_mix::Error),
    /// The model could not be loaded, run or saved.
    #[error(transparent)]
    Model(#[from] simplemix_model::Error),
    /// The loss could not be computed.
    #[error(transparent)]
    Loss(#[from] simplemix_loss::Error),
}

/// Results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Says which file an IO error belongs to.
pub(crate) trait At<T> {
    fn at(self, path: &std::path::Path, action: &'static str) -> Result<T>;
}

impl<T> At<T> for std::io::Result<T> {
    fn at(self, path: &std::path::Path, action: &'static str) -> Result<T> {
        self.map_err(|source| Error::Io { path: path.to_owned(), action, source })
    }
}
