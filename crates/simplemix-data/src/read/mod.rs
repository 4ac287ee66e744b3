//! Reading a file of preference data as canonical batches or as [`Pair`]s, row group by row group.

mod bounded;
mod container;
mod extra;
mod guard;
mod ipc;
mod json;
mod options;
mod regroup;
mod report;
mod rows;

pub use container::Container;
pub use options::{ExtraColumns, PolicyRule, ReadOptions, SourceRule};
pub use report::ReadReport;
pub use rows::{RowReader, metadata};

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{FieldRef, Schema, SchemaRef};

use crate::draft::Draft;
use crate::error::{Error, Result};
use crate::format::{RankedRule, Shape, detect};
use crate::pair::{Form, Pair};
use crate::schema::{self, BatchBuilder};
use container::{Chunk, Chunks, Source};
use extra::{Extra, extra_columns};
use regroup::{group, parse_json_text};

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
    rules: Rules,
    extras: Vec<Extra>,
    schema: SchemaRef,
    report: ReadReport,
}

/// What the options say about single rows.
struct Rules {
    source: SourceRule,
    stem: String,
    policy: PolicyRule,
    ranked: RankedRule,
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
        for (name, from) in &options.columns {
            if !sample.has_column(from) {
                return Err(Error::ColumnType {
                    path: path.to_path_buf(),
                    column: from.clone(),
                    found: "missing".to_owned(),
                    expected: format!("a column to read as `{name}`"),
                });
            }
        }
        let names = options.columns.clone();
        let rename = move |found: &str| names.iter().find(|(_, from)| *from == found).map(|(name, _)| name.clone());
        let sample = if options.columns.is_empty() { sample } else { sample.renamed(&rename) };
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
        let json_text = columns.json_text();
        let arranged = |chunks: Chunks| {
            let chunks = if json_text.is_empty() { chunks } else { parse_json_text(chunks, json_text.clone()) };
            match format.shape() {
                Shape::Row => chunks,
                Shape::Group(key) => group(chunks, key),
            }
        };
        let extras = match (options.extra_columns, arranged(Box::new(std::iter::once(Ok(sample)))).next()) {
            (ExtraColumns::Carry, Some(sample)) => extra_columns(&sample?, format),
            _ => Vec::new(),
        };
        let wanted = |name: &str| {
            let renamed = rename(name);
            let name = renamed.as_deref().unwrap_or(name);
            format.reads(name) || extras.iter().any(|extra| extra.name == name)
        };
        let container = source.container();
        let chunks = source.chunks(&wanted, options.batch_rows.max(1))?;
        let chunks: Chunks = match options.columns.is_empty() {
            true => chunks,
            false => Box::new(chunks.map(move |chunk| Ok(chunk?.renamed(&rename)))),
        };
        let chunks = arranged(chunks);
        let fields: Vec<FieldRef> =
            schema::fields(form).into_iter().chain(extras.iter().map(|extra| extra.field.clone())).collect();
        let rules = Rules {
            source: options.source.clone(),
            stem: stem(path),
            policy: options.policy.clone(),
            ranked: options.ranked,
        };
        Ok(Self {
            path: path.to_path_buf(),
            chunks,
            current: None,
            rules,
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
            let mut drafts = Vec::new();
            for row in start..chunk.rows() {
                self.rules.drafts(&chunk, row, &mut self.report, &mut drafts);
                pairs.extend(drafts.drain(..).map(Draft::into_pair));
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
            let mut drafts = Vec::new();
            let mut row = start;
            while row < chunk.rows() && builder.text_bytes < BATCH_TEXT_BYTES {
                self.rules.drafts(&chunk, row, &mut self.report, &mut drafts);
                for draft in drafts.drain(..) {
                    builder.append(&draft, &draft.id());
                    taken.push(row as u32);
                }
                row += 1;
            }
            drop(drafts);
            let column = |extra: &Extra| extra::carried(extra, &chunk, &taken, &self.path);
            let carried: Vec<ArrayRef> = self.extras.iter().map(column).collect::<Result<_>>()?;
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
}

impl Iterator for PairReader {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_batch().transpose()
    }
}

impl Rules {
    /// Puts the usable pairs of one row into `drafts`, and notes in the report what is wrong with the others.
    fn drafts<'a>(&'a self, chunk: &'a Chunk, row: usize, report: &mut ReadReport, drafts: &mut Vec<Draft<'a>>) {
        let number = report.rows;
        report.rows += u64::from(chunk.span(row));
        let found = chunk.row(row).and_then(|cells| report.format.drafts(cells, self.ranked, drafts));
        if let Err(problem) = found {
            drafts.clear();
            report.refused.add(problem, number);
            return;
        }
        drafts.retain_mut(|draft| {
            draft.set_form(report.form);
            let checked = draft.check();
            match checked {
                Ok(()) => self.settle(draft),
                Err(problem) => report.refused.add(problem, number),
            }
            checked.is_ok()
        });
        report.pairs += drafts.len() as u64;
    }

    /// Gives the pair its source and policy.
    fn settle<'a>(&'a self, draft: &mut Draft<'a>) {
        let named = if matches!(self.source, SourceRule::Always(_)) { None } else { draft.source.take() };
        draft.source = named.or_else(|| Some(self.source.fallback(&self.stem).into()));
        draft.policy = Some(self.policy.decide(draft.policy, draft.models));
    }
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
