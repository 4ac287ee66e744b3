//! Errors of this crate.

use std::path::{Path, PathBuf};

/// Errors of generating, scoring and pairing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is out of range.
    #[error("`{key}` is {found}, expected {expected}")]
    Setting {
        /// Key of the setting.
        key: &'static str,
        /// Value found.
        found: String,
        /// Values allowed.
        expected: &'static str,
    },
    /// A scorer needs a field that the prompt does not have.
    #[error("prompt `{id}` has no `{field}`, which scorer `{scorer}` needs")]
    Prompt {
        /// Id of the prompt.
        id: String,
        /// Missing field.
        field: &'static str,
        /// Name of the scorer.
        scorer: String,
    },
    /// A prompt has tokens, or a length, that the local model cannot compute.
    #[cfg(feature = "local")]
    #[error("prompt `{id}`: {source}")]
    Unfit {
        /// Id of the prompt.
        id: String,
        /// The limit that it exceeds.
        source: Box<simplemix_model::Error>,
    },
    /// A generator sampled fewer responses than it was asked for.
    #[error(
        "generator `{generator}` sampled {found} responses, expected {expected}: {}{samples} to each of {prompts} prompts",
        if *expected == *samples as u64 * prompts { "" } else { "up to " }
    )]
    Responses {
        /// Name of the generator.
        generator: String,
        /// Responses sampled.
        found: u64,
        /// Responses asked for.
        expected: u64,
        /// Responses to each prompt.
        samples: usize,
        /// Prompts.
        prompts: u64,
    },
    /// No prompt has a response with text.
    #[error("generator `{generator}`: no response with text to any of {prompts} prompts: {found}; {advice}")]
    NoText {
        /// Name of the generator.
        generator: String,
        /// Prompts.
        prompts: u64,
        /// Number of responses by what became of them.
        found: String,
        /// Advice.
        advice: &'static str,
    },
    /// No response has a score of a scorer.
    #[error("{column}: no score for any of {responses} responses, expected some{advice}")]
    NoScores {
        /// Column of the scores.
        column: String,
        /// Responses that the scorer saw.
        responses: u64,
        /// Advice.
        advice: &'static str,
    },
    /// A model that settings name has written none of the responses.
    #[error("{path}: no response by `{absent}`, expected one of the models of column `generator`: {found}", path = path.display())]
    Generator {
        /// Path of the file of candidates.
        path: PathBuf,
        /// Name of the model.
        absent: String,
        /// Models that there are.
        found: String,
    },
    /// Files of candidates that do not belong together.
    #[error("{path}: {found}, expected {expected}", path = path.display())]
    Apart {
        /// Path of the file.
        path: PathBuf,
        /// Facts about it.
        found: String,
        /// Facts that fit the other files.
        expected: &'static str,
    },
    /// No prompt has the responses that were asked for.
    #[error("no prompt of {prompts} has the responses that were asked for: {short}")]
    NoPool {
        /// Prompts read.
        prompts: u64,
        /// Prompts without enough responses, by reason.
        short: String,
    },
    /// No pair could be made of the responses.
    #[error("{path}: no pair of {prompts} prompts, dropped: {dropped}", path = path.display())]
    NoPairs {
        /// Path of the file of candidates.
        path: PathBuf,
        /// Prompts read.
        prompts: u64,
        /// Prompts without a pair, by reason.
        dropped: String,
    },
    /// A scorer did not return one score for each response.
    #[error("scorer `{scorer}` gave {found} scores to prompt `{id}`, expected {expected}, one for each response")]
    Scores {
        /// Name of the scorer.
        scorer: String,
        /// Id of the prompt.
        id: String,
        /// Scores returned.
        found: usize,
        /// Responses to the prompt.
        expected: usize,
    },
    /// A row of a file of prompts or candidates cannot be used.
    #[error("{path}: row {row}: {found}, expected {expected}", path = path.display())]
    Row {
        /// Path of the file.
        path: PathBuf,
        /// Row, counted from 0.
        row: u64,
        /// Content found.
        found: String,
        /// Content expected.
        expected: String,
    },
    /// A file lacks a column.
    #[error("{path}: columns {found}, expected {expected}", path = path.display())]
    Columns {
        /// Path of the file.
        path: PathBuf,
        /// Columns found, comma-separated.
        found: String,
        /// Columns needed.
        expected: &'static str,
    },
    /// No row of a file holds a prompt.
    #[error("{path}: no prompts: {}", refused.strip_prefix(&format!("{}: ", path.display())).unwrap_or(refused), path = path.display())]
    NoPrompts {
        /// Path of the first file.
        path: PathBuf,
        /// Rows without a prompt, by reason.
        refused: String,
    },
    /// The output exists and was made with other settings, or by another program.
    #[error(
        "{path}: exists, and is not known to be made with these settings; choose another output, or overwrite it",
        path = path.display()
    )]
    Exists {
        /// Path of the output.
        path: PathBuf,
    },
    /// Unfinished work with other settings lies beside the output.
    #[error(
        "{path}: unfinished work with other settings; continue it with those settings, remove the file, or overwrite it",
        path = path.display()
    )]
    OtherWork {
        /// Path of the journal.
        path: PathBuf,
    },
    /// A journal could not be read.
    #[error("{path}: {}: {source}", simplemix_files::failed_to(action), path = path.display())]
    Io {
        /// Path of the file.
        path: PathBuf,
        /// Operation that failed, as a verb.
        action: &'static str,
        /// Error of the system.
        source: std::io::Error,
    },
    /// A table could not be built.
    #[error("{path}: cannot build a batch of rows: {source}", path = path.display())]
    Arrow {
        /// Path of the output.
        path: PathBuf,
        /// Cause.
        source: arrow::error::ArrowError,
    },
    /// An external scorer could not be run, or failed.
    #[error("command `{command}`: {found}, expected {expected}")]
    Command {
        /// Command line.
        command: String,
        /// The reply or the failure.
        found: String,
        /// The reply that was expected.
        expected: &'static str,
    },
    /// All servers that share some work have failed.
    #[error(
        "all {} servers have failed: {}; the same command, also with other servers that have the model, continues",
        failures.len(),
        failures.join("; ")
    )]
    Servers {
        /// Address and last failure of each.
        failures: Vec<String>,
    },
    /// A server refused a request, kept failing, or sent a reply that cannot be read.
    #[error("{url}: {found}{}", if *attempts > 1 { format!(" ({attempts} attempts)") } else { String::new() })]
    Server {
        /// Address, without user, password and query.
        url: String,
        /// Status code of the reply, if there was one.
        status: Option<u16>,
        /// Text of the reply, or what happened; without API keys.
        found: String,
        /// Number of attempts.
        attempts: u32,
    },
    /// A server that was started here has ended, or does not answer in time.
    #[error("server `{command}` {found}; its log is {log}{}", last_words(tail), log = log.display())]
    ServerProcess {
        /// Command line.
        command: String,
        /// Failure.
        found: String,
        /// File of what the server has said.
        log: PathBuf,
        /// Last lines of it.
        tail: String,
    },
    /// A server did not take the weights of a round, or responds by other ones.
    #[error("{url}: {found}, expected {expected}")]
    Weights {
        /// Address of the server.
        url: String,
        /// Fact about the server.
        found: String,
        /// Weights, names or numbers that were expected, and what to do.
        expected: String,
    },
    /// The caller asked to stop; finished work is kept.
    #[error("stopped; finished work is kept")]
    Interrupted,
    /// Another process that shares the work has failed, or has another model.
    #[error("{0}")]
    Process(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A file could not be written or hashed, or another process works on the same output.
    #[error(transparent)]
    Files(#[from] simplemix_files::Error),
    /// The chat template, the tokenizer or a data file failed.
    #[error(transparent)]
    Data(#[from] simplemix_data::Error),
    /// The local model failed.
    #[cfg(feature = "local")]
    #[error(transparent)]
    Model(#[from] simplemix_model::Error),
}

/// Results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// [`Error::Generator`] for a model that is none of those that are `known`.
    pub(crate) fn without_responses<'a>(
        path: PathBuf,
        absent: &str,
        known: impl IntoIterator<Item = &'a String>,
    ) -> Self {
        let known: Vec<String> = known.into_iter().map(|name| format!("`{name}`")).collect();
        let found = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        Self::Generator { path, absent: absent.to_owned(), found }
    }

    /// Whether settings or input files are at fault, as opposed to a failure of the model, a server or the disk.
    pub fn is_input(&self) -> bool {
        match self {
            Self::Setting { .. }
            | Self::Prompt { .. }
            | Self::Row { .. }
            | Self::Columns { .. }
            | Self::NoPrompts { .. }
            | Self::Generator { .. }
            | Self::Apart { .. }
            | Self::Exists { .. }
            | Self::OtherWork { .. } => true,
            #[cfg(feature = "local")]
            Self::Unfit { .. } => true,
            Self::Files(error) => error.is_input(),
            Self::Data(error) => error.is_input(),
            Self::Responses { .. }
            | Self::NoText { .. }
            | Self::NoScores { .. }
            | Self::NoPairs { .. }
            | Self::NoPool { .. }
            | Self::Scores { .. }
            | Self::Io { .. }
            | Self::Arrow { .. }
            | Self::Command { .. }
            | Self::Server { .. }
            | Self::Servers { .. }
            | Self::ServerProcess { .. }
            | Self::Weights { .. }
            | Self::Process(_)
            | Self::Interrupted => false,
            #[cfg(feature = "local")]
            Self::Model(error) => error.is_request(),
        }
    }
}

/// The last lines of a log, to follow its path.
fn last_words(tail: &str) -> String {
    if tail.is_empty() { ", and is empty".to_owned() } else { format!(", which ends with\n{tail}") }
}

/// Adds the path and the operation to an IO error.
pub(crate) trait At<T> {
    fn at(self, path: &Path, action: &'static str) -> Result<T>;
}

impl<T> At<T> for std::io::Result<T> {
    fn at(self, path: &Path, action: &'static str) -> Result<T> {
        self.map_err(|source| Error::Io { path: path.to_path_buf(), action, source })
    }
}
