//! Reading a file of preference data as canonical batches or as [`Pair`]s, row group by row group.

mod container;
mod guard;
mod json;
mod options;
mod report;

pub use container::Container;
pub use options::{ExtraColumns, PolicyRule, ReadOptions, SourceRule};
pub use report::ReadReport;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{FieldRef, Schema, SchemaRef};

use crate::draft::Draft;
use crate::error::{Error, Result};
use crate::format::{Format, detect};
use crate::pair::{Form, Pair};
use crate::schema::{self, BatchBuilder};
use container::{Chunk, Chunks, Source};

/// Rows that the format is decided from.
const SAMPLE_ROWS: usize = 256;

/// A batch is closed when its texts reach this size, so that no column comes near Arrow's 2 GiB.
const BATCH_TEXT_BYTES: usize = 64 << 20;

/// Reads one file as canonical record batches (see [`crate::schema`]).
///
/// The container is told from the file's first bytes, the format from the types of its columns and a sample of its
/// rows. Memory is bounded by a batch and, for Parquet, the pages of one row group. Rows that give no usable pair are
/// left out and counted in the [report](PairReader::report).
///
/// # Examples
/// ```
/// use simplemix_data::{PairReader, ReadOptions};
/// # let dir = tempfile::tempdir()?;
/// let path = dir.path().join("sums.jsonl");
/// std::fs::write(&path, r#"{"prompt": "2 + 2?", "chosen": " 4", "rejected": " 5"}"#)?;
/// let mut reader = PairReader::open(&path, &ReadOptions::default())?;
/// let rows: usize = reader.by_ref().map(|batch| batch.map(|batch| batch.num_rows())).sum::<Result<_, _>>()?;
/// assert_eq!(rows, 1);
/// assert_eq!(reader.report().format.name(), "explicit-text");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct PairReader {
    path: PathBuf,
    chunks: Chunks,
    current: Option<(Chunk, usize)>,
    source: SourceRule,
    stem: String,
    policy: PolicyRule,
    extras: Vec<Extra>,
    schema: SchemaRef,
    report: ReadReport,
}

/// A column that is carried along: its name in the file, and its field in the output.
struct Extra {
    name: String,
    field: FieldRef,
}

impl std::fmt::Debug for PairReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PairReader").field("report", &self.report).finish_non_exhaustive()
    }
}

impl PairReader {
    /// Opens a file and decides its format; no pair is read yet.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be opened, [`Error::Empty`], [`Error::Container`], [`Error::Parquet`] and the
    /// like if it holds nothing readable, [`Error::ColumnType`] or [`Error::UnknownFormat`] if its columns are no
    /// preference data.
    pub fn open(path: impl AsRef<Path>, options: &ReadOptions) -> Result<Self> {
        let path = path.as_ref();
        let source = Source::open(path)?;
        let sample = source.sample(SAMPLE_ROWS)?;
        if sample.rows() == 0 {
            return Err(Error::Empty { path: path.to_path_buf(), what: "rows" });
        }
        let columns = sample.columns();
        let format = match options.format {
            Some(format) => format,
            None => detect(&columns, path)?,
        };
        for name in format.required() {
            if !sample.has_column(name) {
                return Err(Error::ColumnType {
                    path: path.to_path_buf(),
                    column: (*name).to_owned(),
                    found: "missing".to_owned(),
                    expected: format!("a column of the format {format}"),
                });
            }
        }
        let form = match options.form {
            Some(Form::Plain) | None => format.form(),
            Some(Form::Messages) => Form::Messages,
        };
        let extras = match options.extra_columns {
            ExtraColumns::Carry => extra_columns(&sample, format),
            ExtraColumns::Drop => Vec::new(),
        };
        let wanted = |name: &str| {
            format.consumes(name) || MODEL_COLUMNS.contains(&name) || extras.iter().any(|extra| extra.name == name)
        };
        let container = source.container();
        let chunks = source.chunks(&wanted, options.batch_rows.max(1))?;
        let fields: Vec<FieldRef> =
            schema::fields(form).into_iter().chain(extras.iter().map(|extra| extra.field.clone())).collect();
        Ok(Self {
            path: path.to_path_buf(),
            chunks,
            current: None,
            source: options.source.clone(),
            stem: stem(path),
            policy: options.policy,
            extras,
            schema: Arc::new(Schema::new(fields)),
            report: ReadReport::new(path, container, format, form),
        })
    }

    /// Schema of the batches: the canonical columns, then the carried ones.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// What was decided, and what has been read and refused so far; complete once the iterator has ended.
    pub fn report(&self) -> &ReadReport {
        &self.report
    }

    /// The next usable pairs, some thousand at most; `None` at the end. An alternative to iterating over batches.
    ///
    /// # Errors
    /// As the iterator: what can go wrong in the middle of a file.
    pub fn next_pairs(&mut self) -> Result<Option<Vec<Pair>>> {
        while let Some((chunk, start)) = self.next_chunk()? {
            let mut pairs = Vec::with_capacity(chunk.rows() - start);
            for row in start..chunk.rows() {
                if let Some(draft) = draft_of(&chunk, row, &self.source, self.policy, &mut self.report) {
                    pairs.push(draft.into_pair(self.source.fallback(&self.stem), self.policy.fallback()));
                }
            }
            if !pairs.is_empty() {
                return Ok(Some(pairs));
            }
        }
        Ok(None)
    }

    fn next_chunk(&mut self) -> Result<Option<(Chunk, usize)>> {
        match self.current.take() {
            Some(current) => Ok(Some(current)),
            None => Ok(self.chunks.next().transpose()?.map(|chunk| (chunk, 0))),
        }
    }

    fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        while let Some((chunk, start)) = self.next_chunk()? {
            let mut builder = BatchBuilder::new(self.report.form);
            let mut taken = Vec::with_capacity(chunk.rows() - start);
            let mut row = start;
            while row < chunk.rows() && builder.text_bytes < BATCH_TEXT_BYTES {
                if let Some(draft) = draft_of(&chunk, row, &self.source, self.policy, &mut self.report) {
                    let id = draft.id();
                    if builder.append(&draft, self.source.fallback(&self.stem), self.policy.fallback(), &id) {
                        taken.push(row as u32);
                    }
                }
                row += 1;
            }
            let carried = self.carried(&chunk, taken)?;
            if row < chunk.rows() {
                self.current = Some((chunk, row));
            }
            if builder.rows > 0 {
                let mut columns = builder.finish_columns();
                columns.extend(carried);
                let batch = RecordBatch::try_new(self.schema.clone(), columns);
                return batch.map(Some).map_err(Error::arrow(&self.path));
            }
        }
        Ok(None)
    }

    fn carried(&self, chunk: &Chunk, rows: Vec<u32>) -> Result<Vec<arrow::array::ArrayRef>> {
        let rows = UInt32Array::from(rows);
        let column = |extra: &Extra| {
            let column = chunk.column(&extra.name).expect("carried columns are chosen from the file's own");
            take(column.as_ref(), &rows, None).map_err(Error::arrow(&self.path))
        };
        self.extras.iter().map(column).collect()
    }
}

impl Iterator for PairReader {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_batch().transpose()
    }
}

/// The checked draft in one row, or the reason there is none noted in the report.
fn draft_of<'a>(
    chunk: &'a Chunk,
    row: usize,
    source: &SourceRule,
    policy: PolicyRule,
    report: &mut ReadReport,
) -> Option<Draft<'a>> {
    report.rows += 1;
    let draft = chunk.row(row).and_then(|row| report.format.draft(row)).and_then(|draft| {
        let mut draft = draft.into_form(report.form);
        draft.check()?;
        if matches!(source, SourceRule::Always(_)) {
            draft.source = None;
        }
        if matches!(policy, PolicyRule::Always(_)) {
            draft.policy = None;
        }
        Ok(draft)
    });
    match draft {
        Ok(draft) => {
            report.pairs += 1;
            Some(draft)
        }
        Err(problem) => {
            report.refused.add(problem, report.rows - 1);
            None
        }
    }
}

/// Columns that say who wrote the responses; they are looked at even where they are not carried.
const MODEL_COLUMNS: [&str; 2] = ["chosen_model", "rejected_model"];

/// Columns that no canonical one takes up. A foreign `id` is carried as `original_id`.
fn extra_columns(sample: &Chunk, format: Format) -> Vec<Extra> {
    let own_ids = has_own_ids(sample, format);
    sample
        .arrow_fields()
        .iter()
        .filter(|field| !(format.consumes(field.name()) || own_ids && field.name() == "id"))
        .map(|field| {
            let name = field.name().clone();
            let renamed = if name == "id" { "original_id" } else { name.as_str() };
            Extra { field: Arc::new(field.as_ref().clone().with_name(renamed)), name }
        })
        .collect()
}

/// True if the `id` column holds our content hashes, as in files that were written here.
fn has_own_ids(sample: &Chunk, format: Format) -> bool {
    let own = |row: usize| {
        let cells = sample.row(row).ok()?;
        let draft = format.draft(cells).ok()?;
        Some(cells.get("id").as_str()? == draft.id())
    };
    (0..sample.rows()).find_map(own).unwrap_or(false)
}

fn stem(path: &Path) -> String {
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let end = name.find('.').filter(|&dot| dot > 0).unwrap_or(name.len());
    name[..end].to_owned()
}

/// All usable pairs of a file, in memory.
///
/// # Errors
/// As [`PairReader::open`] and its iterator.
pub fn read_pairs(path: impl AsRef<Path>, options: &ReadOptions) -> Result<Vec<Pair>> {
    Ok(read_pairs_with_report(path, options)?.0)
}

/// All usable pairs of a file, in memory, and the account of what was read and refused.
///
/// # Errors
/// As [`PairReader::open`] and its iterator.
pub fn read_pairs_with_report(path: impl AsRef<Path>, options: &ReadOptions) -> Result<(Vec<Pair>, ReadReport)> {
    let options = ReadOptions { extra_columns: ExtraColumns::Drop, ..options.clone() };
    let mut reader = PairReader::open(path, &options)?;
    let mut pairs = Vec::new();
    while let Some(more) = reader.next_pairs()? {
        pairs.extend(more);
    }
    Ok((pairs, reader.report))
}
