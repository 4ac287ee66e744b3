//! What can be wrong with what this crate reads.

use std::path::{Path, PathBuf};

/// Why annotations, tables or runs cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read or written.
    #[error("{path}: cannot {action}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{path}: {message}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where in it, what was found, what was expected.
        message: String,
    },
    /// A length-controlled win rate cannot be computed.
    #[error("{model}: no length-controlled win rate: {reason}")]
    LengthControl {
        /// The model.
        model: String,
        /// Why.
        reason: String,
    },
    /// The solver did not arrive.
    #[error("logistic regression at C = {c}: no minimum within {iterations} iterations")]
    NotConverged {
        /// Weight of the data against the penalty.
        c: f64,
        /// Iterations done.
        iterations: usize,
    },
    /// A judge failed.
    #[error("{judge}: no verdict about comparison {row}")]
    Judge {
        /// The judge.
        judge: String,
        /// Place of the comparison.
        row: usize,
        /// What it says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The caller wanted to stop; what was done is kept.
    #[error("stopped; the same call goes on from here")]
    Stopped,
    /// A figure cannot be drawn.
    #[error(transparent)]
    Plot(#[from] crate::plot::PlotError),
}

/// What this crate's readers return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A file that is not what it should be.
    pub(crate) fn malformed(path: &Path, message: impl std::fmt::Display) -> Self {
        Self::Malformed { path: path.to_owned(), message: message.to_string() }
    }
}

/// Names the file of an input or output error.
pub(crate) trait At<T> {
    fn at(self, path: &Path, action: &'static str) -> Result<T>;
}

impl<T> At<T> for std::io::Result<T> {
    fn at(self, path: &Path, action: &'static str) -> Result<T> {
        self.map_err(|source| Error::Io { path: path.to_owned(), action, source })
    }
}
