//! Why on-policy pairs could not be made.

use std::path::{Path, PathBuf};

/// Errors of generating, scoring and selecting.
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
    /// A scorer needs something that the prompt does not have.
    #[error("prompt `{id}`: no `{field}`, which scorer `{scorer}` needs")]
    Prompt {
        /// The prompt.
        id: String,
        /// What it lacks.
        field: &'static str,
        /// Who needs it.
        scorer: String,
    },
    /// A generator gave another number of answers than was asked for.
    #[error("generator `{generator}` gave {found}, expected {expected}")]
    Answers {
        /// Who.
        generator: String,
        /// What came.
        found: String,
        /// What was asked for.
        expected: String,
    },
    /// A scorer gave something else than a number for each response.
    #[error("scorer `{scorer}`, prompt `{id}`: {found}, expected {expected}")]
    Scores {
        /// Who.
        scorer: String,
        /// The prompt.
        id: String,
        /// What came.
        found: String,
        /// What was expected.
        expected: String,
    },
    /// A row of a file of prompts or candidates cannot be used.
    #[error("{path}: row {row}: {found}, expected {expected}", path = path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// Row, counted from 0.
        row: u64,
        /// What was found.
        found: String,
        /// What was expected.
        expected: String,
    },
    /// A file has none of the columns that are needed.
    #[error("{path}: columns {found}, expected {expected}", path = path.display())]
    Columns {
        /// The file.
        path: PathBuf,
        /// The columns, comma-separated.
        found: String,
        /// What is needed.
        expected: &'static str,
    },
    /// The output is there, made with other arguments or by something else.
    #[error("{path}: there already, and not made with these arguments; choose another output, or overwrite it", path = path.display())]
    Exists {
        /// The output.
        path: PathBuf,
    },
    /// Work that was broken off lies beside the output, begun with other arguments.
    #[error(
        "{path}: unfinished work with other arguments; go on with those, remove the file, or overwrite it",
        path = path.display()
    )]
    OtherWork {
        /// The journal.
        path: PathBuf,
    },
    /// Another process is at the same work.
    #[error("{path}: in use by another process, expected to be the only one at this output", path = path.display())]
    Busy {
        /// The journal.
        path: PathBuf,
    },
    /// A file could not be read or written.
    #[error("{path}: {action} failed: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried, as a verb.
        action: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A table could not be put together.
    #[error("{path}: cannot build a batch: {source}", path = path.display())]
    Arrow {
        /// The output.
        path: PathBuf,
        /// The cause.
        source: arrow::error::ArrowError,
    },
    /// An external scorer could not be run, or failed.
    #[error("command `{command}`: {found}, expected {expected}")]
    Command {
        /// The command.
        command: String,
        /// What happened.
        found: String,
        /// What was expected.
        expected: &'static str,
    },
    /// A server refused, failed for good, or answered what cannot be understood.
    #[error("{url}: {found}{}", if *attempts > 1 { format!(" ({attempts} attempts)") } else { String::new() })]
    Server {
        /// The address, without user, password and query.
        url: String,
        /// The status of its answer, where there was one.
        status: Option<u16>,
        /// What it said, or what happened; keys are taken out.
        found: String,
        /// How often it was asked.
        attempts: u32,
    },
    /// The caller asked to stop; what is done is kept.
    #[error("stopped; what is done is kept")]
    Interrupted,
    /// The chat template, the tokenizer or a file of data failed.
    #[error(transparent)]
    Data(#[from] simplemix_data::Error),
    /// The local model failed.
    #[cfg(feature = "local")]
    #[error(transparent)]
    Model(#[from] simplemix_model::Error),
}

/// Results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Adds the file and what was tried.
pub(crate) trait At<T> {
    fn at(self, path: &Path, action: &'static str) -> Result<T>;
}

impl<T> At<T> for std::io::Result<T> {
    fn at(self, path: &Path, action: &'static str) -> Result<T> {
        self.map_err(|source| Error::Io { path: path.to_path_buf(), action, source })
    }
}
