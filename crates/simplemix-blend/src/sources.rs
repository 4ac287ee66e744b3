//! The sources of a mixture, read once and reachable by row.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use rayon::prelude::*;
use simplemix_data::schema::{self, Layout};
use simplemix_data::{DrawnRows, ExtraColumns, Form, Pair, PairReader, ReadOptions, ReadReport, RowStore, Watch};

use crate::background::{Reporter, watched};
use crate::difference::{self, Difference};
use crate::drawn::{self, Drawn};
use crate::error::{Error, Result};
use crate::inputs::{Find, found};
use crate::lengths::Lengths;
use crate::settings::{MixSettings, MixSource};

/// Pairs in memory that become one batch.
const BATCH_PAIRS: usize = 4096;

/// Rows of every source, and counts of rows left out.
pub(crate) struct Sources {
    /// Form and columns of all rows.
    pub(crate) layout: Layout,
    /// Rows of each source; none if only those that are drawn are kept.
    pub(crate) stores: Vec<RowStore>,
    pub(crate) drawn: Option<Vec<DrawnRows>>,
    /// Number of usable rows of each source.
    pub(crate) counts: Vec<u64>,
    /// Rows left out of each source, by reason.
    pub(crate) refused: Vec<BTreeMap<String, u64>>,
}

impl Sources {
    /// Reads the sources in one form: text becomes messages where any source has messages.
    pub(crate) fn read(
        settings: &MixSettings,
        lengths: &Lengths,
        folder: &Path,
        find: Find<'_>,
        watch: &mut dyn Watch,
    ) -> Result<Self> {
        let mut options = ReadOptions::default();
        // Sources differ in their further columns; a mixture has the canonical ones.
        options.extra_columns = ExtraColumns::Drop;
        let mut messages = settings.messages;
        let mut layout = Layout::from(Form::Messages);
        let (mut shards, mut plain, mut left_out) = (Vec::new(), Vec::new(), BTreeSet::new());
        let mut declared = drawn::is_possible(settings, lengths).then(Vec::new);
        for source in &settings.sources {
            let of_source = found(find, &source.path, watch)?;
            let mut pairs = Some(0);
            for file in &of_source {
                let reader = PairReader::open(file, &options)?;
                let has_messages = reader.report().form == Form::Messages;
                layout.add_all(reader.layout());
                left_out.extend(reader.left_out().iter().cloned());
                if declared.is_some() && pairs.is_some() {
                    pairs = reader.declared_pairs()?.zip(pairs).map(|(of_file, pairs)| pairs + of_file);
                }
                messages |= has_messages;
                if !has_messages && !plain.contains(&source.name.as_str()) {
                    plain.push(&source.name);
                }
            }
            declared = declared.zip(pairs).map(|(mut declared, pairs)| {
                declared.push(pairs);
                declared
            });
            shards.push(of_source);
        }
        if !left_out.is_empty() {
            let names = left_out.into_iter().collect::<Vec<_>>().join(", ");
            watch.notice(&format!("a mixture has the canonical columns only; left out: {names}"));
        }
        if messages && !settings.messages && !plain.is_empty() {
            let names = plain.join(", ");
            watch.notice(&format!("plain text becomes messages, since other sources have messages: {names}"));
        }
        options.form = messages.then_some(Form::Messages);
        let layout = layout.in_form(if messages { Form::Messages } else { Form::Plain });
        options.layout = Some(layout.clone());
        let memory = ((settings.memory as usize) << 20) / settings.sources.len();
        if let Some(declared) = declared {
            let files = drawn::Files { settings, shards: &shards, options: &options, memory, folder };
            let read = watched(watch, "reading", |reporter| files.read(&declared, reporter))?;
            if let Some(Drawn { rows, counts, refused }) = read {
                return Ok(Self { layout, stores: Vec::new(), drawn: Some(rows), counts, refused });
            }
        }
        let total = settings.sources.len() as u64;
        let done = AtomicU64::new(0);
        let difference = Difference::new(settings, lengths);
        let read = watched(watch, "reading", |reporter| {
            reporter.progress(0, total);
            let sources = settings.sources.par_iter().zip(shards);
            sources
                .map_with(reporter.clone(), |reporter, (source, files)| {
                    let read = read_source(source, &files, &options, &difference, (memory, folder), reporter);
                    reporter.progress(1 + done.fetch_add(1, Ordering::Relaxed), total);
                    read
                })
                .collect::<Result<Vec<_>>>()
        });
        let (stores, refused): (Vec<RowStore>, Vec<BTreeMap<String, u64>>) = read?.into_iter().unzip();
        let counts = stores.iter().map(RowStore::rows).collect();
        let sources = Self { layout, stores, drawn: None, counts, refused };
        sources.notices(settings, lengths)?.iter().for_each(|notice| watch.notice(notice));
        Ok(sources)
    }

    /// Facts about limits of lengths that the user should read.
    fn notices(&self, settings: &MixSettings, lengths: &Lengths) -> Result<Vec<String>> {
        let mut known = Vec::new();
        if !settings.max_length_difference_of_tasks.is_empty() {
            (0..self.stores.len()).try_for_each(|source| self.tasks(source, &mut known).map(drop))?;
        }
        Ok(difference::notices(settings, lengths.unit(), &self.refused, &known.into_iter().collect()))
    }

    /// Pairs in memory, a list for each source.
    pub(crate) fn of_pairs(settings: &MixSettings, lengths: &Lengths, pairs: &[&[Pair]]) -> Result<Self> {
        let is_plain = pairs.iter().flat_map(|pairs| pairs.iter()).all(|pair| pair.form() == Form::Plain);
        let mut layout = Layout::from(if is_plain { Form::Plain } else { Form::Messages });
        pairs.iter().for_each(|pairs| layout.add_all(&Layout::of_pairs(pairs)));
        let difference = Difference::new(settings, lengths);
        let store = |(source, pairs): (&MixSource, &&[Pair])| {
            let batches = pairs.chunks(BATCH_PAIRS).map(|pairs| {
                let mut pairs = pairs.to_vec();
                pairs.iter_mut().for_each(|pair| pair.source.clone_from(&source.name));
                schema::batch_in_layout(&pairs, &layout)
            });
            // In memory they are already.
            store(Path::new(&source.name), batches, &difference, BTreeMap::new, (usize::MAX, Path::new(".")))
        };
        let read = settings.sources.iter().zip(pairs).map(store).collect::<Result<Vec<_>>>()?;
        let (stores, refused): (Vec<RowStore>, Vec<BTreeMap<String, u64>>) = read.into_iter().unzip();
        let counts = stores.iter().map(RowStore::rows).collect();
        Ok(Self { stores, drawn: None, counts, refused, layout })
    }

    /// A number for each row's prompt; equal prompts have equal numbers.
    pub(crate) fn prompts(&self, source: usize) -> Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for batch in self.stores[source].batches() {
            let batch = batch?;
            let column = batch.column_by_name("prompt").ok_or(Error::Column { column: "prompt" })?;
            for row in 0..batch.num_rows() {
                let mut hasher = blake3::Hasher::new();
                for text in texts(column.as_ref(), row) {
                    // Lengths keep neighbouring texts apart.
                    hasher.update(&(text.len() as u64).to_le_bytes());
                    hasher.update(text.as_bytes());
                }
                let [a, b, c, d, e, f, g, h, ..] = *hasher.finalize().as_bytes();
                numbers.push(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
            }
        }
        Ok(numbers)
    }

    /// The task of each row of a source, as a number in `names`; rows without one have the empty name.
    pub(crate) fn tasks(&self, source: usize, names: &mut Vec<String>) -> Result<Vec<u32>> {
        let mut numbers: HashMap<String, u32> =
            (0..).zip(&*names).map(|(number, name)| (name.clone(), number)).collect();
        let mut of_rows = Vec::with_capacity(self.stores[source].rows() as usize);
        for batch in self.stores[source].batches() {
            for task in tasks(&batch?) {
                let task = task.unwrap_or_default();
                let number = numbers.get(task).copied().unwrap_or_else(|| {
                    names.push(task.to_owned());
                    numbers.insert(task.to_owned(), names.len() as u32 - 1);
                    names.len() as u32 - 1
                });
                of_rows.push(number);
            }
        }
        Ok(of_rows)
    }
}

/// Rows of a source that are kept, and counts of rows left out, by reason; `refused` counts those that `batches` left out.
fn store(
    path: &Path,
    batches: impl Iterator<Item = simplemix_data::Result<RecordBatch>>,
    difference: &Difference<'_>,
    refused: impl FnOnce() -> BTreeMap<String, u64>,
    (memory, folder): (usize, &Path),
) -> Result<(RowStore, BTreeMap<String, u64>)> {
    let (mut left_out, mut failed) = (0, None);
    let kept = batches.map_while(|batch| match batch.map(|batch| difference.filter(batch)) {
        Ok(Ok((batch, beyond))) => {
            left_out += beyond;
            Some(Ok(batch))
        }
        Ok(Err(error)) => {
            failed = Some(error);
            None
        }
        Err(error) => Some(Err(error)),
    });
    let store = RowStore::collect(kept, memory, folder)?;
    if let Some(error) = failed {
        return Err(error);
    }
    let mut refused = refused();
    if left_out > 0 {
        refused.insert(difference::REASON.to_owned(), left_out);
    }
    if store.rows() == 0 {
        return Err(empty(path, &refused));
    }
    Ok((store, refused))
}

/// Error of a source without usable rows.
pub(crate) fn empty(path: &Path, refused: &BTreeMap<String, u64>) -> Error {
    let refused: Vec<String> = refused.iter().map(|(why, rows)| format!("{rows} {why}")).collect();
    let refused = if refused.is_empty() { "none: it has no rows".to_owned() } else { refused.join(", ") };
    Error::EmptySource { path: path.to_path_buf(), refused }
}

/// All rows of a source, and counts of rows left out, by reason.
fn read_source(
    source: &MixSource,
    files: &[PathBuf],
    options: &ReadOptions,
    difference: &Difference<'_>,
    place: (usize, &Path),
    reporter: &Reporter<'_>,
) -> Result<(RowStore, BTreeMap<String, u64>)> {
    let options = options.clone().with_source(&source.name);
    let reports = RefCell::new(Vec::new());
    let batches = files.iter().flat_map(|file| shard(file, &options, &reports));
    let batches = batches.take_while(|_| !reporter.is_interrupted());
    let read = store(&source.path, batches, difference, || refused(&reports.borrow()), place);
    if reporter.is_interrupted() {
        return Err(Error::Interrupted);
    }
    read
}

/// Counts of rows that readers have left out, by reason.
pub(crate) fn refused(reports: &[ReadReport]) -> BTreeMap<String, u64> {
    let mut refused: BTreeMap<String, u64> = BTreeMap::new();
    for report in reports {
        if !report.is_plain() {
            tracing::warn!("{report}");
        }
        for (why, rows) in report.refused.iter() {
            *refused.entry(why.name().to_owned()).or_default() += rows.count;
        }
    }
    refused
}

/// Batches of a file; its report is added once they have been read.
fn shard<'a>(
    file: &'a Path,
    options: &'a ReadOptions,
    reports: &'a RefCell<Vec<ReadReport>>,
) -> Box<dyn Iterator<Item = simplemix_data::Result<RecordBatch>> + 'a> {
    let mut reader = match PairReader::open(file, options) {
        Ok(reader) => reader,
        Err(error) => return Box::new(std::iter::once(Err(error))),
    };
    Box::new(std::iter::from_fn(move || {
        let batch = reader.next();
        if batch.is_none() {
            reports.borrow_mut().push(reader.report().clone());
        }
        batch
    }))
}

/// The column of tasks, if there is one.
pub(crate) fn task_column(batch: &RecordBatch) -> Option<&StringArray> {
    batch.column_by_name("task").and_then(|column| column.as_string_opt::<i32>())
}

/// The tasks of a batch's rows.
pub(crate) fn tasks(batch: &RecordBatch) -> Vec<Option<&str>> {
    match task_column(batch) {
        Some(tasks) => tasks.iter().collect(),
        None => vec![None; batch.num_rows()],
    }
}

/// The texts of a row of a canonical column: one text, or role and content of each turn.
pub(crate) fn texts(column: &dyn Array, row: usize) -> Vec<&str> {
    if let Some(plain) = column.as_string_opt::<i32>() {
        return vec![plain.value(row)];
    }
    let Some(turns) = column.as_list_opt::<i32>() else { return Vec::new() };
    let offsets = turns.value_offsets();
    let Some(fields) = turns.values().as_struct_opt() else { return Vec::new() };
    (offsets[row] as usize..offsets[row + 1] as usize)
        .flat_map(|turn| fields.columns().iter().map(move |field| (field, turn)))
        .filter_map(|(field, turn)| field.as_string_opt::<i32>().filter(|f| f.is_valid(turn)).map(|f| f.value(turn)))
        .collect()
}
