//! Carrying a mixture out: plan it over the sources, gather its rows, write them.

use std::path::Path;

use simplemix_data::{PairWriter, RowStore, WriteOptions};
use simplemix_mix::{Achieved, Audit, BatchOrder, Mixture, MixtureConfig, Shares, SourceConfig, Weight, prompts};

use super::lengths::Lengths;
use super::settings::{Prompts, Settings};
use super::sources::{Sources, tasks};
use crate::failure::{Fails, Failure, Result};
use crate::progress::bar;

/// Rows gathered at a time.
const CHUNK: usize = 4096;

/// A mixture with the rows that it takes.
pub(super) struct Plan {
    pub(super) mixture: Mixture,
    pub(super) sources: Sources,
    pub(super) lengths: Lengths,
    ranks: usize,
    /// Source of each of the mixture's sources, which may be cells of a source.
    cells: Vec<usize>,
    /// Rows of both sources in turn, where prompts decide their order.
    fixed: Option<Vec<(usize, u64)>>,
}

impl Plan {
    /// Reads the sources and checks the mixture; nothing is written but temporary files.
    pub(super) fn new(settings: &Settings) -> Result<Self> {
        let output = settings.output.as_deref().unwrap_or(Path::new("."));
        let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if settings.ranks == 0 {
            return Err(Failure::input("`ranks` is 0, expected at least 1"));
        }
        let lengths = Lengths::new(settings.tokenizer.as_deref())?;
        let sources = Sources::read(settings, folder)?;
        let tokens = match settings.shares == Shares::Tokens || settings.size_tokens.is_some() {
            true => sources.stores.iter().map(|store| total(&lengths, store).map(Some)).collect::<Result<Vec<_>>>()?,
            false => vec![None; sources.stores.len()],
        };
        let config = settings.mixture(&sources.rows(), &tokens);
        let cells = (0..sources.stores.len()).collect();
        let (mixture, cells, fixed) = match (settings.prompts, &settings.routing) {
            (Prompts::Any, None) => (Mixture::new(config).input()?, cells, None),
            (Prompts::Any, Some(routing)) => {
                let of_rows: Vec<Vec<&str>> = (0..sources.stores.len()).map(|i| sources.tasks(i)).collect();
                let routed = routing.route(&config, &of_rows).input()?;
                let cells = routed.cells.iter().map(|(source, _)| *source).collect();
                (routed.mixture, cells, None)
            }
            (_, Some(_)) => return Err(Failure::input("`prompts` is given beside [routing], expected one of the two")),
            (Prompts::Disjoint, None) => (disjoint(config, &sources)?, cells, None),
            (paired, None) => {
                let (mixture, rows) = paired_rows(&config, &sources, paired)?;
                (mixture, cells, Some(rows))
            }
        };
        Ok(Self { mixture, sources, lengths, ranks: settings.ranks, cells, fixed })
    }

    /// Writes the mixture and says what it holds.
    pub(super) fn write(&self, output: &Path) -> Result<Achieved> {
        let mut writer = PairWriter::create(output, &WriteOptions::default()).input()?;
        let mut audit = Audit::new(&self.mixture, self.ranks);
        let total = self.mixture.len();
        let bar = bar("mixing", total);
        let mut draws = self.mixture.iter().map(|draw| (draw.source, draw.row));
        let mut fixed = self.fixed.iter().flatten().copied();
        let mut left = total as usize;
        while left > 0 {
            let size = CHUNK.min(left);
            let chunk: Vec<(usize, u64)> = match &self.fixed {
                Some(_) => fixed.by_ref().take(size).collect(),
                None => draws.by_ref().take(size).collect(),
            };
            let rows: Vec<(usize, u64)> = chunk.iter().map(|&(cell, row)| (self.cells[cell], row)).collect();
            let batch = RowStore::gather(&self.sources.stores, &rows).run()?;
            let lengths = self.lengths.of(&batch)?;
            for ((&(cell, _), task), length) in chunk.iter().zip(tasks(&batch)).zip(lengths) {
                audit.see(cell, task, length);
            }
            writer.write_batch(&batch).run()?;
            bar.inc(size as u64);
            left -= size;
        }
        writer.finish().run()?;
        bar.finish_and_clear();
        Ok(audit.finish())
    }
}

/// Length of all of a source's responses.
fn total(lengths: &Lengths, store: &RowStore) -> Result<u64> {
    store.batches().iter().map(|batch| Ok(lengths.of(batch)?.into_iter().sum::<u64>())).sum()
}

/// The mixture over the rows that each source keeps when no prompt comes from two.
fn disjoint(config: MixtureConfig, sources: &Sources) -> Result<Mixture> {
    let of_rows = (0..sources.stores.len()).map(|i| sources.prompts(i)).collect::<Result<Vec<_>>>()?;
    let slices: Vec<&[u64]> = of_rows.iter().map(Vec::as_slice).collect();
    let weights: Vec<Weight> = config.sources.iter().map(|source| source.weight).collect();
    let kept = prompts::disjoint(&slices, &weights, config.seed);
    let shrunk = config.sources.iter().zip(&kept).map(|(source, kept)| {
        let tokens =
            source.tokens.map(|n| (u128::from(n) * kept.len() as u128 / u128::from(source.rows.max(1))) as u64);
        SourceConfig { rows: kept.len() as u64, tokens, ..source.clone() }
    });
    let mut mixture = Mixture::new(MixtureConfig { sources: shrunk.collect(), ..config.clone() }).input()?;
    for (source, kept) in kept.into_iter().enumerate() {
        mixture = mixture.with_rows(source, kept).input()?;
    }
    Ok(mixture)
}

/// The rows of prompts that both sources have, in the order asked for, and a mixture with as many rows of each.
fn paired_rows(config: &MixtureConfig, sources: &Sources, order: Prompts) -> Result<(Mixture, Vec<(usize, u64)>)> {
    let refuse = |text: &str| Err(Failure::input(text));
    let [a, b] = &config.sources[..] else {
        return refuse("`prompts` pairs the rows of two sources, expected two");
    };
    let plain = config.shares == Shares::Exact && config.order == BatchOrder::Interleaved && config.schedule.is_none();
    if a.weight != b.weight || !plain {
        return refuse("`prompts` takes a row of each source in turn, expected equal weights and no other order");
    }
    let pairs = prompts::paired(&sources.prompts(0)?, &sources.prompts(1)?);
    if pairs.is_empty() {
        return refuse("the sources have no prompt in common, expected some");
    }
    let most = 2 * pairs.len() as u64;
    let total = config.total.unwrap_or(most);
    if total > most {
        return Err(Failure::input(format!(
            "`size` is {total}, expected at most {most}: prompts in both sources, twice"
        )));
    }
    let rows: Vec<(usize, u64)> = match order {
        Prompts::Adjacent => prompts::adjacent(&pairs, config.seed).take(total as usize).collect(),
        _ => {
            // Fewer prompts rather than a part of them all, so that both pairs of each are there.
            let order = simplemix_mix::Permutation::new(pairs.len() as u64, config.seed, 1);
            let some: Vec<_> = (0..total.div_ceil(2)).map(|i| pairs[order.at(i) as usize]).collect();
            prompts::apart(&some, config.seed).take(total as usize).collect()
        }
    };
    let sized = |source: &SourceConfig| SourceConfig { rows: total.div_ceil(2), ..source.clone() };
    let sources = vec![sized(a), sized(b)];
    Ok((Mixture::new(MixtureConfig { sources, total: Some(total), ..config.clone() }).input()?, rows))
}
