//! Sources of which only the drawn rows are kept.
//!
//! The rows that a mixture draws follow from the numbers of usable rows. Where the files tell how many rows they have, the mixture is
//! planned over all of them, and one reading checks every row and keeps the drawn ones. If rows are found that cannot be used, the
//! rest is only counted, and a second reading keeps what the plan over the usable rows draws.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use rayon::prelude::*;
use simplemix_data::{DrawnRows, Draws, PairReader, ReadOptions, ReadReport, WriteOptions};
use simplemix_mix::{Mixture, Shares};

use crate::background::Reporter;
use crate::error::{Error, Result};
use crate::lengths::Lengths;
use crate::settings::{MixSettings, MixSource, SharedPrompts};
use crate::sources::{empty, refused};

/// Pairs of the mixture that are gathered together: those of a row group.
pub(crate) fn part_rows() -> usize {
    WriteOptions::default().row_group_rows
}

/// Drawn rows of every source, with the number of its usable rows and of those left out.
pub(crate) struct Drawn {
    pub(crate) rows: Vec<DrawnRows>,
    pub(crate) counts: Vec<u64>,
    pub(crate) refused: Vec<BTreeMap<String, u64>>,
}

/// Files of the sources, and how they are read.
pub(crate) struct Files<'a> {
    pub(crate) settings: &'a MixSettings,
    pub(crate) shards: &'a [Vec<PathBuf>],
    pub(crate) options: &'a ReadOptions,
    /// Bytes of rows in memory for each source.
    pub(crate) memory: usize,
    /// Folder of temporary files.
    pub(crate) folder: &'a Path,
}

/// Result of reading a source.
struct Reading {
    /// An error if they are not those that are drawn.
    rows: simplemix_data::Result<DrawnRows>,
    reports: Vec<ReadReport>,
}

/// How the numbers of usable rows are known over which the draws are planned.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Numbers {
    /// From the files' metadata: the draws are void once a row is left out.
    Declared,
    /// Counted by an earlier reading.
    Counted,
}

/// Whether the draws follow from the numbers of rows alone, and nothing else needs rows that are not drawn.
pub(crate) fn is_possible(settings: &MixSettings, lengths: &Lengths) -> bool {
    let counts_tokens = settings.shares == Shares::Tokens || settings.size_tokens.is_some();
    let filters = settings.max_length_difference.is_some() || !settings.max_length_difference_of_tasks.is_empty();
    let takes_any = settings.prompts == SharedPrompts::Any && settings.routing.is_none();
    takes_any && !counts_tokens && !filters && matches!(lengths, Lengths::Bytes)
}

impl Files<'_> {
    /// Reads the sources whose files declare these numbers of pairs; `None` if the mixture is too large for this way.
    pub(crate) fn read(&self, declared: &[u64], reporter: &Reporter<'_>) -> Result<Option<Drawn>> {
        // A mixture that cannot be planned is an error once the rows are counted.
        let planned = self.plan(declared).ok();
        let nothing = || Some(vec![Draws::default(); declared.len()]);
        let Some(draws) = planned.as_ref().map_or_else(nothing, draws_of) else { return Ok(None) };
        let first = self.readings(&draws, Numbers::Declared, reporter)?;
        let counts: Vec<u64> = first.iter().map(Reading::pairs).collect();
        let refused: Vec<BTreeMap<String, u64>> = first.iter().map(|reading| refused(&reading.reports)).collect();
        if let Some(number) = counts.iter().position(|count| *count == 0) {
            return Err(empty(&self.settings.sources[number].path, &refused[number]));
        }
        let readings = match planned {
            Some(_) if counts == declared => first,
            _ => {
                drop(first);
                let Some(draws) = draws_of(&self.plan(&counts)?) else { return Ok(None) };
                self.readings(&draws, Numbers::Counted, reporter)?
            }
        };
        let rows = readings.into_iter().map(|reading| reading.rows).collect::<simplemix_data::Result<_>>()?;
        Ok(Some(Drawn { rows, counts, refused }))
    }

    fn plan(&self, counts: &[u64]) -> Result<Mixture> {
        Ok(Mixture::new(self.settings.mixture(counts, &vec![None; counts.len()]))?)
    }

    fn readings(&self, draws: &[Draws], numbers: Numbers, reporter: &Reporter<'_>) -> Result<Vec<Reading>> {
        let sources = self.settings.sources.par_iter().zip(self.shards).zip(draws);
        let readings = sources.map_with(reporter.clone(), |reporter, ((source, files), draws)| {
            self.reading(source, files, draws, numbers, reporter)
        });
        readings.collect()
    }

    fn reading(
        &self,
        source: &MixSource,
        files: &[PathBuf],
        draws: &Draws,
        numbers: Numbers,
        reporter: &Reporter<'_>,
    ) -> Result<Reading> {
        let options = self.options.clone().with_source(&source.name);
        let (mut failed, reports) = (None, RefCell::new(Vec::new()));
        let batches = files.iter().flat_map(|file| shard(file, &options, (draws, numbers), &reports));
        let batches = batches.take_while(|_| !reporter.is_interrupted()).map_while(|batch| match batch {
            Ok(batch) => Some(Ok(batch)),
            Err(error) => {
                failed = Some(error);
                None
            }
        });
        let rows = DrawnRows::collect(batches, draws, part_rows(), self.memory, self.folder);
        match failed {
            _ if reporter.is_interrupted() => Err(Error::Interrupted),
            Some(error) => Err(error.into()),
            None => Ok(Reading { rows, reports: reports.into_inner() }),
        }
    }
}

impl Reading {
    fn pairs(&self) -> u64 {
        self.reports.iter().map(|report| report.pairs).sum()
    }
}

/// Rows and places of each source's draws; `None` if there are too many to number them.
fn draws_of(mixture: &Mixture) -> Option<Vec<Draws>> {
    let mut draws = vec![Vec::new(); mixture.config().sources.len()];
    for (place, draw) in mixture.iter().enumerate() {
        draws[draw.source].push((u32::try_from(draw.row).ok()?, u32::try_from(place).ok()?));
    }
    Some(draws.into_iter().map(Draws::new).collect())
}

/// Batches of a file's drawn rows; its report is added once they have been read.
fn shard<'a>(
    file: &'a Path,
    options: &'a ReadOptions,
    (draws, numbers): (&'a Draws, Numbers),
    reports: &'a RefCell<Vec<ReadReport>>,
) -> Box<dyn Iterator<Item = simplemix_data::Result<RecordBatch>> + 'a> {
    let mut reader = match PairReader::open(file, options) {
        Ok(reader) => reader,
        Err(error) => return Box::new(std::iter::once(Err(error))),
    };
    let before: u64 = reports.borrow().iter().map(|report| report.pairs).sum();
    let mut wanted = draws.wanted(before);
    reader.keep_only(move |number| wanted(before + number));
    let leaves_out = move |report: &ReadReport| numbers == Numbers::Declared && report.pairs != report.rows;
    let mut is_void = reports.borrow().iter().any(leaves_out);
    if is_void {
        reader.keep_only(|_| false);
    }
    Box::new(std::iter::from_fn(move || {
        let batch = reader.next();
        if batch.is_none() {
            reports.borrow_mut().push(reader.report().clone());
        } else if !is_void && leaves_out(reader.report()) {
            is_void = true;
            reader.keep_only(|_| false);
        }
        batch
    }))
}
