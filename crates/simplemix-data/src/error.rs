//! The crate's one error type. Each variant is something a caller can tell apart; the fields are the facts.

use std::path::{Path, PathBuf};

use arrow::error::ArrowError;
use parquet::errors::ParquetError;

use crate::format::Format;

/// Error of reading, writing, rendering or tokenising preference pairs.
///
/// A row that is merely unusable is no error: it is refused and counted, see [`crate::Problem`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be opened, read or written.
    #[error("{path}: {}: {source}", simplemix_files::failed_to(action), path = path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Operation that failed, as a verb: `open`, `read`, `write`.
        action: &'static str,
        /// Error of the system.
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
        /// Description of a valid input.
        expected: &'static str,
    },
    /// A folder whose files, or folders, are different splits of a data set.
    #[error(
        "{folder}: holds {found}, expected files of one split; name one of them, such as {example}",
        folder = folder.display()
    )]
    Splits {
        /// The folder.
        folder: PathBuf,
        /// Splits or folders that were found.
        found: String,
        /// A path or pattern that names one of them.
        example: String,
    },
    /// A URL that is malformed, or that this build cannot read.
    #[error("{url}: {found}, expected {expected}")]
    Url {
        /// The URL, without credentials.
        url: String,
        /// Fault of the URL.
        found: String,
        /// Description of a valid input.
        expected: &'static str,
    },
    /// An object store failed or refused.
    #[error("{url}: {action} failed: {source}")]
    Remote {
        /// The URL, without credentials.
        url: String,
        /// Operation that failed, as a verb: `open`, `look up`, `list`, `read`.
        action: &'static str,
        /// Error of the store.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A setting is out of range.
    #[error("`{key}` is {found}, expected {expected}")]
    Setting {
        /// The setting.
        key: &'static str,
        /// The value.
        found: String,
        /// Values that are allowed.
        expected: &'static str,
    },
    /// The first bytes belong to no supported container.
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
    /// A Parquet file that is cut off, damaged or uses an unknown codec.
    #[error("{path}: cannot read as Parquet: {source}", path = path.display())]
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
    /// A Parquet or Arrow file, or a tokenizer, that is damaged in a way that makes its reader panic.
    #[error("{path}: damaged: {message}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Message of the reader.
        message: String,
    },
    /// A row that takes far more memory than its file has bytes.
    #[error("{path}: row {row} takes {found} bytes or more, expected at most {most} from a file of this size", path = path.display())]
    LongRow {
        /// The file.
        path: PathBuf,
        /// Number of the row, counted from 0.
        row: u64,
        /// Bytes that were counted.
        found: u64,
        /// Bytes that are read.
        most: u64,
    },
    /// Text that is not JSON.
    #[error("{path}: row {row} (byte {byte}): not JSON: {source}", path = path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Row, counted from 0.
        row: u64,
        /// Offset of the row in the uncompressed text.
        byte: u64,
        /// The cause, with line and column inside the row.
        source: serde_json::Error,
    },
    /// JSON of the wrong type, or JSON that ends too early.
    #[error("{path}: row {row} (byte {byte}): found {found}, expected {expected}", path = path.display())]
    JsonShape {
        /// The file.
        path: PathBuf,
        /// Row, counted from 0.
        row: u64,
        /// Offset in the uncompressed text.
        byte: u64,
        /// Value that was found.
        found: String,
        /// Value that was expected.
        expected: &'static str,
    },
    /// A column that a format needs is missing or has the wrong type.
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
    /// No known format of preference data has these columns.
    #[error("{path}: no preference format has these columns: {columns}; {hint}", path = path.display())]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// Columns with the kinds of their values, comma-separated.
        columns: String,
        /// Advice.
        hint: String,
    },
    /// A column looks like a part of the prompt, and the format that the file was recognised as does not read it.
    #[error(
        "{path}: column `{column}` looks like a part of the prompt, and the format {format} does not read it \
         (columns: {columns}); {advice}, or leave the column aside with --format {format}; `simplemix convert` takes these \
         flags",
        path = path.display()
    )]
    UnreadColumn {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// The format.
        format: Format,
        /// Columns with the kinds of their values, comma-separated.
        columns: String,
        /// Way to have the column read.
        advice: String,
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
        /// Row in the batch or list, counted from 0.
        row: usize,
        /// The column.
        column: &'static str,
        /// Value that was found.
        found: String,
        /// Value that was expected.
        expected: &'static str,
    },
    /// An output name with an unknown ending.
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
        /// Reason why it is needed, or way to make it.
        hint: &'static str,
    },
    /// A file of a model folder is malformed.
    #[error("{path}: {found}, expected {expected}", path = path.display())]
    ModelConfig {
        /// The file.
        path: PathBuf,
        /// Value that was found.
        found: String,
        /// Value that was expected.
        expected: &'static str,
    },
    /// `tokenizer.json` cannot be loaded, or a text cannot be encoded or decoded.
    #[error("{path}: {message}", path = path.display())]
    Tokenizer {
        /// The `tokenizer.json`.
        path: PathBuf,
        /// Message of the tokenizer.
        message: String,
    },
    /// A chat template does not parse, fails, or exceeds its budget.
    #[error("chat template {name}: {message}")]
    Template {
        /// Origin of the template.
        name: String,
        /// Message of the template engine, with the line.
        message: String,
    },
    /// A chat template refuses the conversation of a pair, or fails on it.
    #[error("{place}: chat template {name}: {message}; with `--on-refused skip` such rows are left out and counted")]
    Refused {
        /// File and row of the pair.
        place: String,
        /// Origin of the template.
        name: String,
        /// Words of the template, with the line.
        message: String,
    },
    /// The rows are conversations and the model folder has no chat template.
    #[error("{dir}: no chat template (chat_template.jinja, or `chat_template` in tokenizer_config.json), and the rows hold messages", dir = dir.display())]
    NoTemplate {
        /// The folder.
        dir: PathBuf,
    },
    /// The rows are plain text, to which an end-of-sequence token is appended, and the tokenizer has none.
    #[error("{path}: no `eos_token`, and plain-text responses need one at their end", path = path.display())]
    NoEos {
        /// The `tokenizer_config.json`.
        path: PathBuf,
    },
    /// The tokens of the prompt alone are not the first tokens of prompt and response together, see [`crate::Boundary`].
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
        /// Tokens of the prompt alone from that position, as text.
        alone: String,
        /// Tokens of prompt and response from that position, as text.
        joined: String,
    },
}

/// Result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Whether files, rows or settings that the caller gave are at fault, not a disk that refuses a change.
    pub fn is_input(&self) -> bool {
        match self {
            Self::Io { action, .. } => !["create", "write", "rename"].contains(action),
            Self::Files(error) => error.is_input(),
            _ => true,
        }
    }

    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.to_path_buf();
        move |source| Error::Io { path, action, source }
    }

    /// Error of an encoder while it writes `path`.
    pub(crate) fn writing<E>(path: &Path) -> impl FnOnce(E) -> Error
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let io = Self::io(path, "write");
        move |source| io(std::io::Error::other(source))
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
