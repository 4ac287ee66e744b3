//! Errors of training.

use std::path::PathBuf;

use tch::Tensor;

/// Error that stops a run or keeps it from starting.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is unknown, out of range, or in conflict with another one.
    #[error(transparent)]
    Setting(#[from] simplemix_settings::Error),
    /// A settings file is not valid.
    #[error("{path}: {message}")]
    Config {
        /// The file.
        path: PathBuf,
        /// Reason, with the key.
        message: String,
    },
    /// A setting of a file cannot be used.
    #[error("{place}: {source}")]
    SettingIn {
        /// The file, with the line if that is known.
        place: String,
        /// The setting and the reason.
        source: Box<simplemix_settings::Error>,
    },
    /// A data set of the hub cannot be followed.
    #[error("{path}: {problem}")]
    HubData {
        /// The data set as it was asked for.
        path: String,
        /// Problem, with what was expected.
        problem: String,
    },
    /// A data file has no pair to train on.
    #[error("{path}: no pair to train on: {reason}")]
    Empty {
        /// The data file.
        path: PathBuf,
        /// Counts of the rows by what happened to them.
        reason: String,
    },
    /// A pair has no scores, which the loss needs for its soft label.
    #[error("row {row}: `score_chosen` or `score_rejected` is missing; the loss `{loss}` needs both")]
    NoScores {
        /// Row of the data file.
        row: usize,
        /// The loss.
        loss: String,
    },
    /// A pair has no rewards of the reference, among which the loss ranks those of its responses.
    #[error(
        "row {row}: `ref_rewards` is missing; the loss `{loss}` needs the scores of the reference's samples for each prompt, as \
         `simplemix generate`, `score` and `pair` write them"
    )]
    NoReferenceRewards {
        /// Row of the data file.
        row: usize,
        /// The loss.
        loss: String,
    },
    /// A pattern of parameter names is invalid or matches nothing.
    #[error("`{key}`: the pattern `{pattern}` {problem}")]
    Pattern {
        /// The setting.
        key: &'static str,
        /// The pattern.
        pattern: String,
        /// Problem with the pattern.
        problem: String,
    },
    /// A parameter cannot be trained.
    #[error("parameter `{name}` is {found}, expected a contiguous tensor of floats")]
    Parameter {
        /// The parameter.
        name: String,
        /// Kind of its elements.
        found: String,
    },
    /// A checkpoint belongs to another run.
    #[error("checkpoint: `{name}` is {found}, expected {expected}")]
    State {
        /// Part of the checkpoint.
        name: String,
        /// Value in the checkpoint.
        found: String,
        /// Value that the run needs.
        expected: String,
    },
    /// The loss or a gradient is NaN or infinite; the optimiser has not moved.
    #[error("step {step}: {what} is {found}; no weight was changed; rows of the batch: {pairs:?}")]
    NonFinite {
        /// Number of the update, counted from one.
        step: u64,
        /// Name of the number: `loss`, `grad_norm`, or a metric of a regulariser such as `kl`.
        what: &'static str,
        /// Value of the number.
        found: f64,
        /// Rows of the batch's pairs.
        pairs: Vec<usize>,
    },
    /// More batches than allowed had a NaN or infinite loss or gradient.
    #[error("step {step}: {skipped} batches had a NaN or infinite loss or gradient, `batch.max_skipped` is {most}")]
    TooManySkipped {
        /// Number of the update, counted from one.
        step: u64,
        /// Number of such batches.
        skipped: u64,
        /// Number of batches that may be skipped.
        most: u64,
    },
    /// Every checkpoint of a run to resume is damaged.
    #[error(
        "{path}: no checkpoint is whole: {damage}; put them back from a copy, or start the run anew with another output"
    )]
    NoWholeCheckpoint {
        /// The run's folder.
        path: PathBuf,
        /// First damage of each checkpoint, newest first.
        damage: String,
    },
    /// Settings or data of a resumed run are not those that it was started with.
    #[error(
        "{path}: the run was started with other settings or data: {differences}; put them back, choose another output, or \
         go on all the same with --resume-anyway"
    )]
    Differs {
        /// The run's folder.
        path: PathBuf,
        /// Each difference: the value that was and the one that is.
        differences: String,
    },
    /// All updates are done, and no trained weight differs from its first value.
    #[error(
        "no weight has changed in {updates} updates, so there is nothing to save; raise `optimizer.learning_rate`, or see \
         `grad_norm` and `skipped` in metrics.jsonl"
    )]
    NothingTrained {
        /// Updates of the run.
        updates: u64,
    },
    /// The start-up check failed: a response is more or less likely under the policy than under the reference.
    #[error(
        "pair {row} of the training set: log-probabilities under policy and reference differ by {found:.3} nats a token, \
         expected at most {tolerance}: they must be one model before the first update"
    )]
    FirstLogps {
        /// Index of the pair among the pairs that were read.
        row: usize,
        /// Difference, nats a token.
        found: f64,
        /// Largest difference that rounding explains.
        tolerance: f64,
    },
    /// The start-up check failed: the first batch does not have the loss that it must have.
    #[error(
        "the mean loss of the first batch is {found:.4}, expected {expected:.4} within {tolerance:.1e}: policy and reference \
         must agree before the first update"
    )]
    FirstLoss {
        /// Mean loss.
        found: f64,
        /// Mean loss if policy and reference are the same: ln 2 = 0.6931 for DPO.
        expected: f64,
        /// Largest difference that rounding explains.
        tolerance: f64,
    },
    /// A pair has tokens, or a length, that the model cannot compute.
    #[error("pair {row} of {set}: {source}")]
    Unfit {
        /// Name of the set of pairs.
        set: String,
        /// Index of the pair among the pairs that were read.
        row: usize,
        /// The limit that it exceeds.
        source: Box<simplemix_model::Error>,
    },
    /// A folder for a new run holds a run.
    #[error("{path}: holds a run; resume it, or choose another folder")]
    RunExists {
        /// The folder.
        path: PathBuf,
    },
    /// Another process does not see what the first one writes to the run folder.
    #[error(
        "{path}: rank {rank} does not see what rank 0 has written here; the run folder has to be one that all processes share, such \
         as on a network's file system"
    )]
    NotShared {
        /// The folder.
        path: PathBuf,
        /// Number of the process.
        rank: usize,
    },
    /// A folder holds no run to resume.
    #[error("{path}: no run to resume, expected metrics.jsonl in it")]
    NoRun {
        /// The folder.
        path: PathBuf,
    },
    /// Writing a file or folder failed, or another process writes it.
    #[error(transparent)]
    Files(#[from] simplemix_files::Error),
    /// Reading a file failed.
    #[error("{path}: {}", simplemix_files::failed_to(action))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Action that failed, as a verb.
        action: &'static str,
        /// Reason given by the system.
        source: std::io::Error,
    },
    /// The report of a finished run could not be made.
    #[cfg(feature = "report")]
    #[error(transparent)]
    Report(#[from] simplemix_eval::Error),
    /// The data could not be read.
    #[error(transparent)]
    Data(#[from] simplemix_data::Error),
    /// The sources could not be mixed as asked.
    #[error(transparent)]
    Mix(#[from] simplemix_mix::Error),
    /// A backward pass came to a parameter again after its gradient had gone to the other processes.
    #[error(
        "the gradient of `{name}` was added to {times} times by the last backward pass of an update, expected {expected}: it had gone \
         to the other processes by then, so that their sum would lack a part; please report this"
    )]
    LateGradient {
        /// Name of the parameter.
        name: String,
        /// Number of times that the pass has come to it.
        times: u32,
        /// Number of times that the first update has shown.
        expected: u32,
    },
    /// A run is whole, and its result could not be pushed to the hub.
    #[error("{source}; the run is whole, and `simplemix push {} {repository}{flags}` pushes it again", path.display())]
    NotPushed {
        /// The run's folder.
        path: PathBuf,
        /// The repository.
        repository: String,
        /// Further flags of the command.
        flags: String,
        /// Answer of the hub.
        source: Box<simplemix_model::Error>,
    },
    /// The model could not be loaded, run or saved.
    #[error(transparent)]
    Model(#[from] simplemix_model::Error),
    /// The loss could not be computed.
    #[error(transparent)]
    Loss(#[from] simplemix_loss::Error),
    /// libtorch failed.
    #[error(transparent)]
    Torch(#[from] simplemix_torch::Error),
}

impl Error {
    /// Error about the value of a setting.
    pub(crate) fn setting(key: &str, found: impl std::fmt::Display, expected: impl Into<String>) -> Self {
        Self::Setting(simplemix_settings::Error::value(key, found, expected))
    }

    /// Error of a tensor that a checkpoint lacks or holds in another shape than `expected`.
    pub(crate) fn misshapen(name: &str, found: Option<&Tensor>, expected: &[i64]) -> Self {
        Self::State {
            name: name.to_owned(),
            found: found.map_or("absent".to_owned(), |tensor| format!("{:?}", tensor.size())),
            expected: format!("{expected:?}"),
        }
    }
}

/// Result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Adds the path to an IO error.
pub(crate) trait At<T> {
    fn at(self, path: &std::path::Path, action: &'static str) -> Result<T>;
}

impl<T> At<T> for std::io::Result<T> {
    fn at(self, path: &std::path::Path, action: &'static str) -> Result<T> {
        self.map_err(|source| Error::Io { path: path.to_owned(), action, source })
    }
}
