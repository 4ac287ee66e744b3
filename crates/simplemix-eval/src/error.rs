//! Reasons why something cannot be evaluated.

use std::path::{Path, PathBuf};

/// A file that cannot be used, or a figure that cannot be computed or drawn.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read.
    #[error("{path}: {}", simplemix_files::failed_to(action), path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Operation that failed, as a verb.
        action: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error(transparent)]
    File(#[from] simplemix_files::Error),
    /// A file of rows cannot be read.
    #[error(transparent)]
    Data(#[from] simplemix_data::Error),
    /// The content of a file is not what it should be.
    #[error("{path}: {message}", path = path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Place in the file, what was found and what was expected.
        message: String,
    },
    /// A length-controlled win rate cannot be computed.
    #[error("{model}: no length-controlled win rate: {reason}")]
    LengthControl {
        /// Name of the model.
        model: String,
        /// The reason.
        reason: String,
    },
    /// The solver of the logistic regression found no minimum.
    #[error("logistic regression at C = {c}: no minimum within {iterations} iterations")]
    NotConverged {
        /// Weight of the data against the penalty.
        c: f64,
        /// Iterations done.
        iterations: usize,
    },
    /// A judge failed.
    #[error("{judge}: no verdict on comparison {row}")]
    Judge {
        /// Name of the judge.
        judge: String,
        /// Index of the comparison.
        row: usize,
        /// The judge's reason.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A judge gave no verdict on any comparison.
    #[error("{judge}: no verdict in {comparisons} comparisons; the first reply is {reply}")]
    NoVerdict {
        /// Name of the judge.
        judge: String,
        /// Number of comparisons.
        comparisons: usize,
        /// The judge's first reply, as it is kept in the annotations.
        reply: String,
    },
    /// The caller stopped the work; finished verdicts are kept.
    #[error("stopped; the same call continues from here")]
    Stopped,
    /// A plot has no finite point (feature `plot`).
    #[cfg(feature = "plot")]
    #[error("plot `{title}` has no finite point to draw")]
    EmptyPlot {
        /// Title of the plot.
        title: String,
    },
    /// A plot cannot be drawn (feature `plot`).
    #[cfg(feature = "plot")]
    #[error("cannot draw: {reason}")]
    Draw {
        /// The reason.
        reason: String,
    },
}

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn malformed(path: &Path, message: impl std::fmt::Display) -> Self {
        Self::Malformed { path: path.to_owned(), message: message.to_string() }
    }
}

/// Adds path and action to an error of the system.
pub(crate) trait At<T> {
    fn at(self, path: &Path, action: &'static str) -> Result<T>;
}

impl<T> At<T> for std::io::Result<T> {
    fn at(self, path: &Path, action: &'static str) -> Result<T> {
        self.map_err(|source| Error::Io { path: path.to_owned(), action, source })
    }
}
