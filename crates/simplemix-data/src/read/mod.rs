//! Readers of preference data, as canonical batches or as [`Pair`]s, one row group at a time.

mod bounded;
mod budget;
mod container;
mod extra;
mod footer;
mod ipc;
mod json;
mod json_row;
mod options;
mod page_header;
mod pieces;
mod plain;
mod regroup;
mod report;
mod rows;
mod survey;
mod thrift;

pub use bounded::{BoundedFile, BoundedReader};
pub use container::Container;
pub use options::{ExtraColumns, PolicyRule, ReadOptions, SourceRule};
pub use report::ReadReport;
pub use rows::{RowReader, read_metadata};

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{FieldRef, Schema, SchemaRef};

use crate::cell::Struct;
use crate::draft::Draft;
use crate::error::{Error, Result};
use crate::format::{
    Beside, Columns, Format, RankedRule, Shape, Unread, detect, has_media, is_media, template_inputs, unread_scores,
};
use crate::message::TemplateInputs;
use crate::pair::{Form, Origin, Pair};
use crate::problem::Problem;
use crate::schema::{self, BatchBuilder, Layout, REF_REWARDS};
use container::{Chunk, Chunks, Source, Texts, Wanted};
use extra::{Extra, extra_columns};
use regroup::{group, parse_json_text};

/// Rows of the sample from which the format is detected.
const SAMPLE_ROWS: usize = 256;

/// Rows decoded at a time to find the fields of turns.
const SURVEY_ROWS: usize = 1024;
/// Rows that are looked at for columns that hold only nulls so far.
const MOST_SAMPLE_ROWS: usize = 1 << 16;

/// Rows after which a batch of chosen rows is closed, and chunks that are passed for one.
const CHOSEN_ROWS: usize = 1024;
const CHOSEN_CHUNKS: usize = 64;

/// Bytes of text after which a batch is closed, far below Arrow's limit of 2 GiB per column.
const BATCH_TEXT_BYTES: usize = 64 << 20;

/// Reads one file as canonical record batches (see [`crate::schema`]).
///
/// The container is detected from the first bytes of the file, the format from the column types and a sample of rows.
/// Memory is bounded by a batch and, for Parquet, the pages of one row group. Rows that give no usable pair are left out
/// and counted in the [report](PairReader::report).
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
    unread: Arc<Unread>,
    extras: Vec<Extra>,
    /// Columns of the sample that are neither read nor carried.
    left_out: Vec<String>,
    layout: Layout,
    schema: SchemaRef,
    report: ReadReport,
    /// Number of pairs that were usable so far, of which `keep` may have left some out.
    usable: u64,
    keep: Option<Keep>,
}

/// Tells whether a pair becomes a row of a batch, by its number among the usable ones.
type Keep = Box<dyn FnMut(u64) -> bool + Send>;

/// Options that apply to single rows.
struct Rules {
    path: Arc<Path>,
    source: SourceRule,
    stem: String,
    policy: PolicyRule,
    ranked: RankedRule,
    /// Columns of the current chunk that must not say anything beside the pairs.
    watched: Vec<String>,
    /// Groups of columns that the current chunk may have.
    beside: Beside,
    /// Whether it may have media or inputs of the template.
    has_inputs: bool,
}

impl std::fmt::Debug for PairReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PairReader").field("report", &self.report).finish_non_exhaustive()
    }
}

impl PairReader {
    /// Opens a file and detects its format; no pair is read yet.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be opened, [`Error::Empty`], [`Error::Container`], [`Error::Parquet`] and the
    /// like if it holds nothing readable, [`Error::ColumnType`] or [`Error::UnknownFormat`] if its columns are not
    /// preference data.
    pub fn open(path: impl AsRef<Path>, options: &ReadOptions) -> Result<Self> {
        Self::open_at(path.as_ref(), options, true)
    }

    /// Without `as_batches`, only [`PairReader::next_pairs`] may be used.
    fn open_at(path: &Path, options: &ReadOptions, as_batches: bool) -> Result<Self> {
        let source = Source::open(path)?;
        let names = Renaming(options.columns.clone());
        let sample = named_sample(&source, path, &names)?;
        let columns = columns_of(&source, &sample, &names)?;
        let format = options.format.map_or_else(|| detect(&columns, path), Ok)?;
        for name in format.required() {
            require(&sample, path, name, || format!("a column of the format {format}"))?;
        }
        let form = match options.form {
            Some(Form::Plain) | None => format.form(),
            Some(Form::Messages) => Form::Messages,
        };
        let arrangement = Arrangement { json_text: columns.json_text(), shape: format.shape() };
        let mut layout = Layout::from(form);
        if as_batches && matches!(format.shape(), Shape::Row) {
            layout.ref_rewards = match &options.layout {
                Some(given) => given.ref_rewards,
                None => has_ref_rewards(&source, &sample, &names)?,
            };
        }
        if form == Form::Messages && as_batches && matches!(format.shape(), Shape::Row) {
            match &options.layout {
                Some(given) => layout.add_all(given),
                None => layout.add_all(&layout_of(&source, &sample, &names, &arrangement, format)?),
            }
        }
        let sample = arrangement.sample(sample)?;
        let unread = Arc::new(match options.format {
            None => Unread::find(format, &columns, sample.usable(), path)?,
            Some(_) => Unread::default(),
        });
        let mut extras = match options.extra_columns {
            ExtraColumns::Carry => {
                let rest = source.container().is_json().then(|| unread_values(&source, format, &names)).transpose()?;
                extra_columns(&sample, format, rest)?
            }
            ExtraColumns::Drop => Vec::new(),
        };
        if let Some(carried) = &options.carried {
            extras.retain(|extra| carried.contains(extra.field.name()));
            extras.sort_by_key(|extra| carried.iter().position(|name| name == extra.field.name()));
        }
        extras.retain(|extra| form == Form::Plain || !TemplateInputs::COLUMNS.contains(&extra.name.as_str()));
        let mut left_out = if matches!(format.shape(), Shape::Row) { sample.names() } else { Vec::new() };
        left_out.retain(|name| {
            let for_template = form == Form::Messages && TemplateInputs::COLUMNS.contains(&name.as_str());
            let is_canonical = for_template || schema::COLUMNS.contains(&name.as_str());
            !is_canonical && !format.reads(name) && !extras.iter().any(|extra| extra.name == *name)
        });
        let container = source.container();
        let carried: Vec<String> = extras.iter().map(|extra| extra.name.clone()).collect();
        let (new_names, watching) = (names.clone(), unread.clone());
        let wanted: Wanted = Arc::new(move |name| {
            let name = new_names.new_name(name).unwrap_or(name);
            let for_template = form == Form::Messages && TemplateInputs::COLUMNS.contains(&name);
            let is_carried = carried.iter().any(|carried| carried == name);
            format.reads(name) || for_template || is_media(name) || watching.watches(name) || is_carried
        });
        // Columns that are carried must have the types of the file; for the others views do.
        let texts = if extras.is_empty() { Texts::Views } else { Texts::Declared };
        let chunks = source.chunks_with(&wanted, options.batch_rows.max(1), texts)?;
        let chunks = arrangement.apply(names.apply(chunks));
        let fields: Vec<FieldRef> =
            schema::fields(&layout).into_iter().chain(extras.iter().map(|extra| extra.field.clone())).collect();
        let rules = Rules {
            path: path.into(),
            source: options.source.clone(),
            stem: stem(path),
            policy: options.policy.clone(),
            ranked: options.ranked,
            watched: Vec::new(),
            beside: Beside::ANY,
            has_inputs: true,
        };
        Ok(Self {
            path: path.to_path_buf(),
            chunks,
            current: None,
            rules,
            unread,
            extras,
            left_out,
            layout,
            schema: Arc::new(Schema::new(fields)),
            report: ReadReport::new(path, container, format, form),
            usable: 0,
            keep: None,
        })
    }

    /// Number of pairs of the file if every row gives a usable one; `None` if the file does not tell its number of rows, as JSON, or
    /// rows of its format give any number of pairs.
    ///
    /// # Errors
    /// [`Error::Parquet`] or [`Error::Io`] if the file's metadata cannot be read.
    pub fn declared_pairs(&self) -> Result<Option<u64>> {
        let format = self.report.format;
        match format.gives_one_pair() && matches!(format.shape(), Shape::Row) {
            true => Source::open(&self.path)?.declared_rows(),
            false => Ok(None),
        }
    }

    /// From here on only pairs that `keep` chooses become rows of batches; the others are checked and counted, and not normalised
    /// any further. It is asked for each usable pair in order, by the number of usable pairs before it in the file. Batches may be empty then.
    pub fn keep_only(&mut self, keep: impl FnMut(u64) -> bool + Send + 'static) {
        self.keep = Some(Box::new(keep));
    }

    /// Schema of the batches: the canonical columns, then the carried ones.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// Form of the texts, and what the rows have beside role and content of turns.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The detected format, and the rows read and refused so far; complete once the iterator has ended.
    pub fn report(&self) -> &ReadReport {
        &self.report
    }

    /// Columns that are neither read nor carried, such as further columns with [`ExtraColumns::Drop`]; for JSON, those of the
    /// first rows.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// Reads the next usable pairs, those of one chunk of rows; `None` at the end. An alternative to iterating over batches.
    ///
    /// # Errors
    /// Errors in the middle of a file, as the iterator yields them.
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
            None => {
                let Some(chunk) = self.chunks.next().transpose()? else { return Ok(None) };
                self.rules.watched = chunk.names();
                let names = || self.rules.watched.iter().map(String::as_str);
                self.rules.beside = Beside::of_names(names());
                self.rules.has_inputs = names().any(|name| TemplateInputs::COLUMNS.contains(&name) || is_media(name));
                self.rules.watched.retain(|name| self.unread.watches(name));
                Ok(Some((chunk, 0)))
            }
        }
    }

    fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        let mut builder = BatchBuilder::new(&self.layout);
        let mut passed = 0;
        while let Some((chunk, start)) = self.next_chunk()? {
            let (row, taken) = self.append(&chunk, start, &mut builder);
            let column = |extra: &Extra| extra::carried(extra, &chunk, &taken, &self.path);
            let carried: Vec<ArrayRef> = self.extras.iter().map(column).collect::<Result<_>>()?;
            if row < chunk.rows() {
                self.current = Some((chunk, row));
            }
            passed += 1;
            let is_chosen = self.keep.is_some();
            // Few chosen rows of many chunks are one batch.
            let is_short = is_chosen && carried.is_empty() && self.current.is_none() && builder.rows < CHOSEN_ROWS;
            if !(is_short && passed < CHOSEN_CHUNKS) && (builder.rows > 0 || is_chosen) {
                return self.batch(builder, carried).map(Some);
            }
        }
        if builder.rows > 0 { self.batch(builder, Vec::new()).map(Some) } else { Ok(None) }
    }

    /// Adds the pairs of a chunk's rows from `start` on; returns the row after them, and the rows of the pairs.
    fn append(&mut self, chunk: &Chunk, start: usize, builder: &mut BatchBuilder) -> (usize, Vec<u32>) {
        let mut taken = Vec::with_capacity(chunk.rows() - start);
        let mut drafts = Vec::new();
        let mut row = start;
        while row < chunk.rows() && builder.text_bytes < BATCH_TEXT_BYTES {
            self.rules.drafts(chunk, row, &mut self.report, &mut drafts);
            for draft in drafts.drain(..) {
                if !self.layout.fits(&draft) || !builder.accepts(&draft) {
                    self.report.pairs -= 1;
                    self.report.refused.add(Problem::LateField, self.report.rows - 1);
                    continue;
                }
                let number = self.usable;
                self.usable += 1;
                if self.keep.as_mut().is_none_or(|keep| keep(number)) {
                    builder.append(&draft, &draft.id());
                    taken.push(row as u32);
                }
            }
            row += 1;
        }
        (row, taken)
    }

    fn batch(&self, mut builder: BatchBuilder, carried: Vec<ArrayRef>) -> Result<RecordBatch> {
        let mut columns = builder.finish_columns();
        columns.extend(carried);
        RecordBatch::try_new(self.schema.clone(), columns).map_err(Error::arrow(&self.path))
    }
}

impl Iterator for PairReader {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_batch().transpose()
    }
}

impl Rules {
    /// Puts the usable pairs of one row into `drafts`, and counts the problems of the others in the report.
    fn drafts<'a>(&'a self, chunk: &'a Chunk, row: usize, report: &mut ReadReport, drafts: &mut Vec<Draft<'a>>) {
        let number = report.rows;
        report.rows += u64::from(chunk.span(row));
        let found = chunk.row(row).and_then(|cells| {
            report.format.drafts(cells, self.ranked, self.beside, drafts)?;
            Unread::check(&self.watched, cells, drafts)?;
            report.unread_scores += unread_scores(cells, self.beside);
            if self.has_inputs { beside_texts(cells, report.form) } else { Ok(TemplateInputs::default()) }
        });
        let inputs = match found {
            Ok(inputs) => inputs,
            Err(problem) => {
                drafts.clear();
                report.refused.add(problem, number);
                return;
            }
        };
        drafts.retain_mut(|draft| {
            draft.set_form(report.form);
            draft.inputs.clone_from(&inputs);
            draft.origin = Origin::new(&self.path, number);
            report.note_turns(draft);
            let checked = draft.check();
            match checked {
                Ok(()) => self.settle(draft),
                Err(problem) => report.refused.add(problem, number),
            }
            checked.is_ok()
        });
        report.pairs += drafts.len() as u64;
    }

    /// Sets source and policy of the pair.
    fn settle<'a>(&'a self, draft: &mut Draft<'a>) {
        let named = if matches!(self.source, SourceRule::Always(_)) { None } else { draft.source.take() };
        draft.source = named.or_else(|| Some(self.source.fallback(&self.stem).into()));
        draft.policy = Some(self.policy.decide(draft.policy, draft.models));
    }
}

/// Fields of turns and template inputs of a file of messages.
fn layout_of(
    source: &Source,
    sample: &Chunk,
    names: &Renaming,
    arrangement: &Arrangement,
    format: Format,
) -> Result<Layout> {
    let mut layout = Layout::from(Form::Messages);
    let reads = |name: &str| format.consumes(name);
    survey::add_types(&mut layout, sample, &reads);
    if !arrangement.json_text.is_empty() || source.container().is_json() && survey::may_have_more(source)? {
        let new_names = names.clone();
        let wanted: Wanted = Arc::new(move |name| {
            let name = new_names.new_name(name).unwrap_or(name);
            format.consumes(name) || TemplateInputs::COLUMNS.contains(&name)
        });
        let chunks = names.clone().apply(source.chunks(&wanted, SURVEY_ROWS)?);
        survey::add_rows(&mut layout, arrangement.apply(chunks), &reads)?;
    }
    Ok(layout)
}

/// Whether a file has the column of reference rewards; JSON may have it in later rows alone.
fn has_ref_rewards(source: &Source, sample: &Chunk, names: &Renaming) -> Result<bool> {
    if sample.has_column(REF_REWARDS) {
        return Ok(true);
    }
    let name = names.0.get(REF_REWARDS).map_or(REF_REWARDS, String::as_str);
    Ok(source.container().is_json() && survey::may_have(source, &[name])?)
}

/// Inputs of the chat template that a row holds beside the texts; rows with images or the like are refused.
fn beside_texts(row: Struct<'_>, form: Form) -> Result<TemplateInputs, Problem> {
    if has_media(row) {
        return Err(Problem::Images);
    }
    match form {
        Form::Plain => Ok(TemplateInputs::default()),
        Form::Messages => template_inputs(row).map_err(|_| Problem::TemplateInputs),
    }
}

/// Kinds of the columns. Where the sample shows nulls only, further rows are looked at.
fn columns_of(source: &Source, sample: &Chunk, names: &Renaming) -> Result<Columns> {
    let mut columns = sample.columns();
    let open = |columns: &Columns| {
        let matters = |name: &String| Format::ALL.iter().any(|format| format.reads(name));
        columns.undecided().into_iter().filter(matters).collect::<Vec<String>>()
    };
    let (undecided, new_names) = (open(&columns), names.clone());
    if undecided.is_empty() {
        return Ok(columns);
    }
    let wanted: Wanted =
        Arc::new(move |name| undecided.iter().any(|open| open == new_names.new_name(name).unwrap_or(name)));
    let mut rows = 0;
    for chunk in names.clone().apply(source.chunks(&wanted, SAMPLE_ROWS)?) {
        let chunk = chunk?;
        rows += chunk.rows();
        columns.extend(chunk.columns());
        if rows >= MOST_SAMPLE_ROWS || open(&columns).is_empty() {
            break;
        }
    }
    Ok(columns)
}

/// All rows of a file without the columns that `format` reads.
fn unread_values(source: &Source, format: Format, names: &Renaming) -> Result<Chunks> {
    let new_names = names.clone();
    let wanted: Wanted = Arc::new(move |name| !format.consumes(new_names.new_name(name).unwrap_or(name)));
    Ok(names.clone().apply(source.chunks(&wanted, SAMPLE_ROWS)?))
}

/// Reads the first rows of a file and renames their columns.
fn named_sample(source: &Source, path: &Path, names: &Renaming) -> Result<Chunk> {
    let sample = source.sample(SAMPLE_ROWS)?;
    if sample.rows() == 0 {
        return Err(Error::Empty { path: path.to_path_buf(), what: "rows" });
    }
    for (name, from) in &names.0 {
        require(&sample, path, from, || format!("a column to read as `{name}`"))?;
    }
    Ok(names.rename(sample))
}

/// Fails unless the sample has the column.
fn require(sample: &Chunk, path: &Path, column: &str, expected: impl FnOnce() -> String) -> Result<()> {
    if sample.has_column(column) {
        return Ok(());
    }
    Err(Error::ColumnType {
        path: path.to_path_buf(),
        column: column.to_owned(),
        found: "missing".to_owned(),
        expected: expected(),
    })
}

/// Columns to read under other names: new name -> name in the file.
#[derive(Clone)]
struct Renaming(BTreeMap<String, String>);

impl Renaming {
    fn new_name(&self, found: &str) -> Option<&str> {
        self.0.iter().find(|(_, from)| *from == found).map(|(name, _)| name.as_str())
    }

    fn rename(&self, chunk: Chunk) -> Chunk {
        if self.0.is_empty() { chunk } else { chunk.renamed(&|found| self.new_name(found).map(str::to_owned)) }
    }

    fn apply(self, chunks: Chunks) -> Chunks {
        if self.0.is_empty() { chunks } else { Box::new(chunks.map(move |chunk| Ok(self.rename(chunk?)))) }
    }
}

/// Rearrangement of rows before a format parses them.
struct Arrangement {
    /// Columns that hold turns as JSON text.
    json_text: Vec<String>,
    shape: Shape,
}

impl Arrangement {
    fn apply(&self, chunks: Chunks) -> Chunks {
        let chunks = if self.json_text.is_empty() { chunks } else { parse_json_text(chunks, self.json_text.clone()) };
        match self.shape {
            Shape::Row => chunks,
            Shape::Group(key) => group(chunks, key),
        }
    }

    /// The rearranged sample.
    fn sample(&self, sample: Chunk) -> Result<Chunk> {
        self.apply(Box::new(std::iter::once(Ok(sample)))).next().unwrap_or_else(|| Ok(Chunk::Json(Vec::new())))
    }
}

/// The files among several that have rows, or all of them if none has; a shard without rows is nothing to read. A file that
/// cannot be read stays, for the error of whoever reads it.
pub(crate) fn with_rows(files: Vec<PathBuf>) -> Vec<PathBuf> {
    if files.len() < 2 {
        return files;
    }
    let is_empty = |file: &PathBuf| match Source::open(file) {
        Ok(source) => source.has_no_rows().unwrap_or(false),
        Err(error) => matches!(error, Error::Empty { what: "rows", .. }),
    };
    let full: Vec<PathBuf> = files.iter().filter(|file| !is_empty(file)).cloned().collect();
    if full.is_empty() { files } else { full }
}

fn stem(path: &Path) -> String {
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let end = name.find('.').filter(|&dot| dot > 0).unwrap_or(name.len());
    name[..end].to_owned()
}

/// Reads all usable pairs of a file into memory.
///
/// # Errors
/// See [`PairReader::open`] and [`PairReader::next_pairs`].
pub fn read_pairs(path: impl AsRef<Path>, options: &ReadOptions) -> Result<Vec<Pair>> {
    Ok(read_pairs_with_report(path, options)?.0)
}

/// Reads all usable pairs of a file into memory, and returns the report with them.
///
/// # Errors
/// See [`PairReader::open`] and [`PairReader::next_pairs`].
pub fn read_pairs_with_report(path: impl AsRef<Path>, options: &ReadOptions) -> Result<(Vec<Pair>, ReadReport)> {
    read_all(path.as_ref(), options)
}

fn read_all(path: &Path, options: &ReadOptions) -> Result<(Vec<Pair>, ReadReport)> {
    let options = ReadOptions { extra_columns: ExtraColumns::Drop, ..options.clone() };
    let mut reader = PairReader::open_at(path, &options, false)?;
    let mut pairs = Vec::new();
    while let Some(more) = reader.next_pairs()? {
        pairs.extend(more);
    }
    Ok((pairs, reader.report))
}
