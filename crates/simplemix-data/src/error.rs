//! The crate's one error type. Each variant is something a caller can tell apart; its fields are the facts.

use std::path::{Path, PathBuf};

use arrow::error::ArrowError;
use parquet::errors::ParquetError;

/// What can go wrong while reading, writing, rendering or tokenising preference pairs.
///
/// Rows that are merely unusable are not errors: they are refused and counted, see [`crate::Problem`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be opened, read or written.
    #[error("{path}: {action} failed: {source}", path = path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried, as a verb: `open`, `read`, `write`, `rename`.
        action: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// An output, a cached copy or a lock could not be written.
    #[error(transparent)]
    Files(#[from] simplemix_files::Error),
    /// The file holds no bytes, or no rows.
    #[error("{path}: the file holds no {what}, expected preference pairs", path = path.display())]
    Empty {
        /// The file.
        path: PathBuf,
        /// `bytes` or `rows`.
        what: &'static str,
    },
    /// A folder or pattern names no file.
    #[error("{path}: nothing to read, expected {expected}", path = path.display())]
    NoInput {
        /// The folder or pattern.
        path: PathBuf,
        /// What would do.
        expected: &'static str,
    },
    /// A URL that is not understood, or that this build cannot read.
    #[error("{url}: {found}, expected {expected}")]
    Url {
        /// The URL, without a password.
        url: String,
        /// What is wrong with it.
        found: String,
        /// What would do.
        expected: &'static str,
    },
    /// A store of objects failed or refused.
    #[error("{url}: {action} failed: {source}")]
    Remote {
        /// The URL, without a password.
        url: String,
        /// What was tried, as a verb: `open`, `look up`, `list`, `read`.
        action: &'static str,
        /// The store's answer.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
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
    /// The first bytes belong to no container that is read here.
    #[error(
        "{path}: starts with {found}, expected Parquet, Arrow IPC, JSON lines or a JSON array (the last two also gzip or zstd)",
        path = path.display()
    )]
    Container {
        /// The file.
        path: PathBuf,
        /// The first bytes, escaped.
        found: String,
    },
    /// A Parquet file that is cut off, damaged, uses an unknown codec or cannot be written.
    #[error("{path}: cannot read or write as Parquet: {source}", path = path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: ParquetError,
    },
    /// An Arrow IPC file or stream that is cut off or damaged, or a batch that does not fit its schema.
    #[error("{path}: cannot read or write as Arrow: {source}", path = path.display())]
    Arrow {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: ArrowError,
    },
    /// A Parquet or Arrow file that is damaged in a way that its reader does not foresee.
    #[error("{path}: damaged: {message}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The reader's own words.
        message: String,
    },
    /// Text that is not JSON.
    #[error("{path}: row {row} (byte {byte}): not JSON: {source}", path = path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Row, counted from 0.
        row: u64,
        /// Where the row starts in the uncompressed text, counted from 0.
        byte: u64,
        /// The cause, with its line and column inside the row.
        source: serde_json::Error,
    },
    /// A JSON text of the wrong kind, or one that ends too early.
    #[error("{path}: row {row} (byte {byte}): found {found}, expected {expected}", path = path.display())]
    JsonShape {
        /// The file.
        path: PathBuf,
        /// Row, counted from 0.
        row: u64,
        /// Where in the uncompressed text, counted from 0.
        byte: u64,
        /// What stood there.
        found: String,
        /// What was expected.
        expected: &'static str,
    },
    /// A column that a format needs holds values of a type it cannot have.
    #[error("{path}: column `{column}` is {found}, expected {expected}", path = path.display())]
    ColumnType {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// The type that was found.
        found: String,
        /// The types that are accepted.
        expected: String,
    },
    /// No known family of preference data has these columns.
    #[error("{path}: no preference format has these columns: {columns}; {hint}", path = path.display())]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// Each column with the kind of its values, comma-separated.
        columns: String,
        /// What could be done about it.
        hint: String,
    },
    /// A record batch that is not canonical (see [`crate::schema`]).
    #[error("column `{column}` is {found}, expected {expected}")]
    Schema {
        /// The column.
        column: String,
        /// The type that was found, or `missing`.
        found: String,
        /// The type of the canonical schema.
        expected: String,
    },
    /// A value that the canonical schema does not allow.
    #[error("row {row}: column `{column}` is {found}, expected {expected}")]
    Value {
        /// Row, counted from 0 in the batch or list at hand.
        row: usize,
        /// The column.
        column: &'static str,
        /// What was found.
        found: String,
        /// What was expected.
        expected: &'static str,
    },
    /// An output name whose ending says no format that is written here.
    #[error("{path}: ends in {found}, expected .parquet, .arrow, .jsonl, .jsonl.gz or .jsonl.zst", path = path.display())]
    Extension {
        /// The file.
        path: PathBuf,
        /// The ending, or `nothing`.
        found: String,
    },
    /// A model folder lacks a file.
    #[error("{dir}: no {file} in this model folder; {hint}", dir = dir.display())]
    ModelFile {
        /// The folder.
        dir: PathBuf,
        /// The file that was looked for.
        file: &'static str,
        /// Why it is needed or how it is made.
        hint: &'static str,
    },
    /// A file of a model folder cannot be understood.
    #[error("{path}: {found}, expected {expected}", path = path.display())]
    ModelConfig {
        /// The file.
        path: PathBuf,
        /// What was found.
        found: String,
        /// What was expected.
        expected: &'static str,
    },
    /// `tokenizer.json` cannot be loaded, or a text cannot be encoded or decoded.
    #[error("{path}: {message}", path = path.display())]
    Tokenizer {
        /// The `tokenizer.json`.
        path: PathBuf,
        /// The tokenizer's own words.
        message: String,
    },
    /// A chat template does not parse, fails, or spends more than its budget.
    #[error("chat template {name}: {message}")]
    Template {
        /// Where the template came from.
        name: String,
        /// The engine's words, with the line.
        message: String,
    },
    /// Conversational rows need a chat template and the model folder has none.
    #[error("{dir}: no chat template (chat_template.jinja, or `chat_template` in tokenizer_config.json), and the rows hold messages", dir = dir.display())]
    NoTemplate {
        /// The folder.
        dir: PathBuf,
    },
    /// Plain-text rows get an end-of-sequence token appended and the tokenizer names none.
    #[error("{path}: no `eos_token`, and plain-text responses need one at their end", path = path.display())]
    NoEos {
        /// The `tokenizer_config.json`.
        path: PathBuf,
    },
    /// The tokens of the prompt alone are not the first tokens of prompt and response together.
    #[error(
        "pair {id}, {side}: the prompt's tokens change when the response follows: at position {position} of {prompt_tokens} \
         the prompt alone has {alone}, with the response it has {joined}; end the prompt at a token boundary, \
         or choose the `trl` or `drop` rule"
    )]
    Boundary {
        /// The pair's id.
        id: String,
        /// `chosen` or `rejected`.
        side: &'static str,
        /// First position that differs.
        position: usize,
        /// Length of the prompt in tokens.
        prompt_tokens: usize,
        /// Tokens of the prompt alone from there, as text.
        alone: String,
        /// Tokens of prompt and response from there, as text.
        joined: String,
    },
}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.to_path_buf();
        move |source| Error::Io { path, action, source }
    }

    pub(crate) fn parquet(path: &Path) -> impl FnOnce(ParquetError) -> Error {
        let path = path.to_path_buf();
        move |source| Error::Parquet { path, source }
    }

    pub(crate) fn arrow(path: &Path) -> impl FnOnce(ArrowError) -> Error {
        let path = path.to_path_buf();
        move |source| Error::Arrow { path, source }
    }
}
