//! Report of reading a file.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::format::Format;
use crate::pair::Form;
use crate::problem::Problems;
use crate::read::Container;

/// Report of reading a file: the detected format, and counts of rows and pairs.
#[derive(Debug, Clone, serde::Serialize)]
#[non_exhaustive]
pub struct ReadReport {
    /// The file.
    pub path: PathBuf,
    /// Container of the file.
    pub container: Container,
    /// Format of the rows.
    pub format: Format,
    /// Form of the pairs.
    pub form: Form,
    /// Number of rows read.
    pub rows: u64,
    /// Number of pairs read.
    pub pairs: u64,
    /// Rows that gave no pair, by reason.
    pub refused: Problems,
}

impl ReadReport {
    pub(crate) fn new(path: &Path, container: Container, format: Format, form: Form) -> Self {
        let path = path.to_path_buf();
        Self { path, container, format, form, rows: 0, pairs: 0, refused: Problems::default() }
    }
}

impl fmt::Display for ReadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, container, format, rows, pairs, refused, .. } = self;
        write!(f, "{path}: {container}, {format}: {rows} rows, {pairs} pairs", path = path.display())?;
        if refused.is_empty() { Ok(()) } else { write!(f, "; refused: {refused}") }
    }
}
