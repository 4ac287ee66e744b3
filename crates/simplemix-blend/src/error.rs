//! Why a mixture was not carried out, and whether its input is at fault.

use std::path::{Path, PathBuf};

/// Errors of mixtures of files.
///
/// [`is_input`](Error::is_input) tells a wrong setting or file, which the user mends, from work that failed on the way.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is missing, out of range, or does not go with another one.
    #[error("`{key}` is {found}, expected {expected}")]
    Setting {
        /// Key of the setting.
        key: String,
        /// Value that was found.
        found: String,
        /// Values that are allowed.
        expected: String,
    },
    /// Weights name a source that the mixture does not have, or one that has a weight already.
    #[error("weight of source `{name}`: {found}, expected {expected}")]
    Weights {
        /// Name of the source.
        name: String,
        /// Fault.
        found: &'static str,
        /// Values that are allowed.
        expected: String,
    },
    /// A source has no usable pair.
    #[error("{path}: no pair is left of its rows, refused: {refused}", path = path.display())]
    EmptySource {
        /// Path of the source.
        path: PathBuf,
        /// Rows left out, by reason.
        refused: String,
    },
    /// A batch of pairs lacks a canonical column.
    #[error("a batch has no column `{column}`, expected canonical pairs")]
    Column {
        /// Name of the column.
        column: &'static str,
    },
    /// A file is not a receipt of a mixture, or one of another version.
    #[error("{path}: not a receipt: {message}", path = path.display())]
    Receipt {
        /// Path of the file.
        path: PathBuf,
        /// Reason.
        message: String,
    },
    /// A source of a receipt has changed since.
    #[error("{path}: source `{name}` has changed: blake3 {found}, expected {expected}")]
    SourceChanged {
        /// Path of the source, as the receipt has it.
        path: String,
        /// Name of the source.
        name: String,
        /// Hash of the source now.
        found: String,
        /// Hash of the source in the receipt.
        expected: String,
    },
    /// A mixture made again differs from its receipt.
    #[error("{path}: {message}", path = path.display())]
    Differs {
        /// Path of the receipt.
        path: PathBuf,
        /// Difference.
        message: String,
    },
    /// The system refused an operation on a file or folder.
    #[error("{path}: {}", simplemix_files::failed_to(action), path = path.display())]
    Io {
        /// Path of the file or folder.
        path: PathBuf,
        /// Verb of the operation: `read` for input, others for output.
        action: &'static str,
        /// Reason from the system.
        source: std::io::Error,
    },
    /// The receipt, the shares or the ages cannot be written as JSON.
    #[error("cannot serialise {what}: {message}")]
    Serialise {
        /// Object.
        what: &'static str,
        /// Reason.
        message: String,
    },
    /// A file cannot be read, written or locked.
    #[error(transparent)]
    Files(#[from] simplemix_files::Error),
    /// Reading or writing pairs failed.
    #[error(transparent)]
    Data(#[from] simplemix_data::Error),
    /// The sources cannot be mixed as asked.
    #[error(transparent)]
    Mix(#[from] simplemix_mix::Error),
    /// The plot cannot be drawn.
    #[cfg(feature = "plot")]
    #[error(transparent)]
    Plot(#[from] simplemix_eval::Error),
    /// The caller's way to find files ([`Find`](crate::Find)) failed.
    #[error(transparent)]
    Find(Box<dyn std::error::Error + Send + Sync>),
    /// The observer stopped the work; no file is left of it.
    #[error("stopped; no file is left of it")]
    Interrupted,
}

/// Result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Whether settings or files that the user gave are at fault, and nothing was done yet.
    pub fn is_input(&self) -> bool {
        match self {
            Self::Setting { .. }
            | Self::Weights { .. }
            | Self::EmptySource { .. }
            | Self::Column { .. }
            | Self::Receipt { .. }
            | Self::SourceChanged { .. }
            | Self::Io { action: "read", .. }
            | Self::Mix(_)
            | Self::Find(_) => true,
            Self::Files(error) => error.is_input(),
            Self::Data(error) => error.is_input(),
            #[cfg(feature = "plot")]
            Self::Plot(_) => false,
            Self::Differs { .. } | Self::Io { .. } | Self::Serialise { .. } | Self::Interrupted => false,
        }
    }

    /// Whether the observer stopped the work.
    pub fn is_interrupted(&self) -> bool {
        matches!(self, Self::Interrupted)
    }

    pub(crate) fn setting(key: &str, found: impl ToString, expected: impl Into<String>) -> Self {
        Self::Setting { key: key.to_owned(), found: found.to_string(), expected: expected.into() }
    }

    pub(crate) fn serialise(what: &'static str) -> impl Fn(&dyn std::fmt::Display) -> Self {
        move |reason| Self::Serialise { what, message: reason.to_string() }
    }
}

/// Adds the path and the operation to an error of the system.
pub(crate) trait At<T> {
    fn at(self, path: &Path, action: &'static str) -> Result<T>;
}

impl<T> At<T> for std::io::Result<T> {
    fn at(self, path: &Path, action: &'static str) -> Result<T> {
        self.map_err(|source| Error::Io { path: path.to_owned(), action, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failing_to_write_is_no_fault_of_the_input() {
        let io = |action| Error::Io { path: PathBuf::from("f"), action, source: std::io::Error::other("full") };
        assert!(io("read").is_input() && !io("write").is_input());
        assert!(!Error::Interrupted.is_input() && Error::Interrupted.is_interrupted());
    }
}
