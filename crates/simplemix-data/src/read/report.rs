//! What was decided about a file, and what came of its rows.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::format::Format;
use crate::pair::Form;
use crate::problem::Problems;
use crate::read::Container;

/// What was decided about a file, and what came of its rows.
#[derive(Debug, Clone, serde::Serialize)]
#[non_exhaustive]
pub struct ReadReport {
    /// The file.
    pub path: PathBuf,
    /// The container its bytes are in.
    pub container: Container,
    /// The format its rows are in.
    pub format: Format,
    /// The form of the pairs.
    pub form: Form,
    /// Rows looked at.
    pub rows: u64,
    /// Pairs they gave.
    pub pairs: u64,
    /// Rows that gave none, by reason.
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
