//! Files of verdicts, in any of their formats.

use std::path::Path;

use crate::alpaca::annotation::Annotations;
use crate::alpaca::{read_json, read_parquet};
use crate::error::{Error, Result};
use crate::json::read_bytes;
use crate::outputs::name_of;

/// Reads the verdicts of a file, one [`Annotations`] for each model, judge and baseline, in the order of the file.
///
/// The official package writes JSON: an array of objects, or an object a line, with `preference`, `instruction`,
/// `output_1`, `output_2`, `generator_1`, `generator_2`, `annotator` and `dataset`. Parquet needs the column `preference`,
/// and may have `model`, `annotator`, `baseline`, `row`, `instruction_id` or `instruction`, `len_1` and `len_2` or
/// `output_1` and `output_2`. A `category` goes before the `dataset`. Both may be compressed by gzip. If a file does not name the model, the name of
/// the file does. Rows that are no objects, or no text, are left out and counted, see [`Annotations::refused`].
///
/// # Errors
/// [`Error::Io`], [`Error::Data`], or [`Error::Malformed`] that names row or column.
///
/// # Examples
/// ```
/// use simplemix_eval::alpaca::{WinRate, read_annotations};
///
/// # let dir = tempfile::tempdir()?;
/// let path = dir.path().join("mine.json");
/// std::fs::write(&path, r#"[{"preference": 2.0}, {"preference": 1.5}]"#)?;
/// let models = read_annotations(&path)?;
/// assert_eq!(models[0].model, "mine");
/// assert_eq!(WinRate::of(&models[0]).win_rate, 75.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn read_annotations(path: &Path) -> Result<Vec<Annotations>> {
    let bytes = read_bytes(path)?;
    let name = name_of(path, "annotations");
    let mut models = if bytes.starts_with(b"PAR1") {
        read_parquet::read(path, bytes, &name)?
    } else {
        read_json::read(path, &name)?
    };
    if models.is_empty() {
        return Err(Error::malformed(path, "no annotation in it, expected at least one"));
    }
    for model in &mut models {
        model.rows.sort_by_key(|row| row.row);
    }
    Ok(models)
}
