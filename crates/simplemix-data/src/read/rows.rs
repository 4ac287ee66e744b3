//! Readers of tables that hold no pairs, and of the metadata of files.

use std::collections::BTreeMap;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use arrow::ipc::reader::FileReader;
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::format::detect;
use crate::guard::guarded;
use crate::problem::Problems;
use crate::read::bounded::BoundedFile;
use crate::read::container::{Chunk, Chunks, Container, Source, all};
use crate::read::ipc::check_file;

/// Rows of the sample from which columns are found.
const SAMPLE_ROWS: usize = 256;
/// Rows decoded at a time.
const CHUNK_ROWS: usize = 1024;

/// Reads the rows of any container as JSON objects. Memory is bounded by a chunk of rows. A row that is no object, or not
/// text, is left out and counted, see [`RowReader::refused`].
///
/// # Examples
/// ```
/// use simplemix_data::RowReader;
/// # let dir = tempfile::tempdir()?;
/// let path = dir.path().join("questions.jsonl");
/// std::fs::write(&path, r#"{"prompt": "2 + 2?", "answer": "4"}"#)?;
/// let mut reader = RowReader::open(&path)?;
/// assert_eq!(reader.columns(), ["prompt", "answer"]);
/// assert_eq!(reader.next().unwrap()?["answer"], "4");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct RowReader {
    path: PathBuf,
    columns: Vec<String>,
    holds_pairs: bool,
    chunks: Chunks,
    current: Option<(Chunk, usize)>,
    /// Rows read so far.
    rows: u64,
    refused: Problems,
}

impl std::fmt::Debug for RowReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RowReader").field("path", &self.path).field("rows", &self.rows).finish_non_exhaustive()
    }
}

impl RowReader {
    /// Opens a file and reads a sample of its rows.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be opened, [`Error::Empty`], [`Error::Container`], [`Error::Parquet`] and the like
    /// if it holds nothing readable.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_at(path.as_ref())
    }

    fn open_at(path: &Path) -> Result<Self> {
        let source = Source::open(path)?;
        let sample = source.sample(SAMPLE_ROWS)?;
        let holds_pairs = detect(&sample.columns(), path).is_ok();
        let chunks = source.chunks(&all(), CHUNK_ROWS)?;
        let (columns, refused) = (sample.names(), Problems::default());
        Ok(Self { path: path.to_path_buf(), columns, holds_pairs, chunks, current: None, rows: 0, refused })
    }

    /// Names of the columns; for JSON, those of the first rows.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// Whether [`crate::PairReader`] recognises the file.
    pub fn holds_pairs(&self) -> bool {
        self.holds_pairs
    }

    /// Number of the row that was returned last, counted from 0 in the file.
    pub fn row(&self) -> u64 {
        self.rows.saturating_sub(1)
    }

    /// Rows that were left out so far, by reason.
    pub fn refused(&self) -> &Problems {
        &self.refused
    }
}

impl Iterator for RowReader {
    type Item = Result<Map<String, Value>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((chunk, at)) = self.current.as_mut().filter(|(chunk, at)| *at < chunk.rows()) {
                let row = chunk.row(*at).map(|cells| cells.to_json());
                *at += 1;
                self.rows += 1;
                match row {
                    Ok(row) => return Some(Ok(row)),
                    Err(problem) => self.refused.add(problem, self.rows - 1),
                }
                continue;
            }
            match self.chunks.next()? {
                Ok(chunk) => self.current = Some((chunk, 0)),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// Reads the metadata that [`crate::TableWriter::add_metadata`] stored in a Parquet or Arrow IPC file; empty for other
/// containers.
///
/// # Errors
/// [`Error::Io`] if the file cannot be opened, [`Error::Empty`], [`Error::Container`], [`Error::Parquet`] and the like if
/// it is damaged.
pub fn read_metadata(path: impl AsRef<Path>) -> Result<BTreeMap<String, String>> {
    metadata_at(path.as_ref())
}

fn metadata_at(path: &Path) -> Result<BTreeMap<String, String>> {
    let container = Source::open(path)?.container();
    let open = || simplemix_files::open(path).map_err(Error::io(path, "open"));
    match container {
        Container::Parquet => guarded(path, || {
            let loaded = BoundedFile::new(open()?).metadata().map_err(Error::parquet(path))?;
            let pairs = loaded.metadata().file_metadata().key_value_metadata().into_iter().flatten();
            Ok(pairs.filter_map(|pair| Some((pair.key.clone(), pair.value.clone()?))).collect())
        }),
        Container::ArrowFile => guarded(path, || {
            let mut file = BufReader::new(open()?);
            check_file(&mut file).map_err(Error::arrow(path))?;
            let reader = FileReader::try_new(BufReader::new(open()?), None).map_err(Error::arrow(path))?;
            Ok(reader.custom_metadata().clone().into_iter().collect())
        }),
        _ => Ok(BTreeMap::new()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, RecordBatch, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;
    use crate::{TableWriter, WriteOptions};

    #[test]
    fn a_table_and_its_metadata_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let fields = vec![Field::new("n", DataType::Int64, false), Field::new("t", DataType::Utf8, true)];
        let columns: Vec<arrow::array::ArrayRef> =
            vec![Arc::new(Int64Array::from(vec![1, 2])), Arc::new(StringArray::from(vec![Some("a"), None]))];
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
        for (name, keeps) in [("t.parquet", true), ("t.arrow", true), ("t.jsonl", false)] {
            let path = dir.path().join(name);
            let mut writer = TableWriter::create(&path, &WriteOptions::default()).unwrap();
            writer.write_batch(&batch).unwrap();
            writer.add_metadata("remark", "made by a test");
            assert_eq!(writer.finish().unwrap(), 2);
            let reader = RowReader::open(&path).unwrap();
            assert_eq!((reader.columns(), reader.holds_pairs()), (&["n".to_owned(), "t".to_owned()][..], false));
            let rows: Vec<Value> = reader.map(|row| Value::Object(row.unwrap())).collect();
            assert_eq!(rows, [serde_json::json!({"n": 1, "t": "a"}), serde_json::json!({"n": 2, "t": null})]);
            let remark = read_metadata(&path).unwrap().remove("remark");
            assert_eq!(remark, keeps.then(|| "made by a test".to_owned()), "{name}");
        }
    }
}
