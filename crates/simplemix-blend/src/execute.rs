//! Execution of a mixture: plan it over the sources, gather its rows, write them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use arrow::array::{RecordBatch, StringArray};
use rayon::prelude::*;
use simplemix_data::{
    DrawnRows, EncodedRows, GroupEncoder, Pair, PairWriter, Policy, RowStore, Watch, WriteOptions, schema,
};
use simplemix_files::AtomicFile;
use simplemix_mix::prompts::{self, Crossed};
use simplemix_mix::{
    AGES_KEY, Achieved, Audit, BatchOrder, Mixture, MixtureConfig, Permutation, SHARES_KEY, Shares, SourceConfig,
    Weight,
};

use crate::drawn::part_rows;
use crate::error::{Error, Result};
use crate::inputs::{Find, here};
use crate::lengths::Lengths;
use crate::settings::{MixSettings, MixSource, SharedPrompts};
use crate::sources::{Sources, task_column};

/// Rows gathered at a time.
const CHUNK: usize = 4096;

/// Parts that each thread gathers and encodes before they are written, and the bytes that all of them should hold at most.
const PARTS_A_THREAD: usize = 2;
const TOGETHER: usize = 64 << 20;

/// A mixture over sources that are read, ready to be written.
pub struct Mixing {
    pub(crate) mixture: Mixture,
    pub(crate) sources: Sources,
    pub(crate) lengths: Lengths,
    ranks: usize,
    /// Names of the sources.
    names: Vec<String>,
    /// Ages of the pairs of sources that have one, by name.
    ages: BTreeMap<String, u32>,
    /// The source of each of the mixture's sources, which may be the rows of one task of a source.
    cells: Vec<usize>,
    rows: Rows,
}

/// Rows of the mixture.
enum Rows {
    /// Drawn by the mixture.
    Drawn,
    /// Given, since prompts decide their order.
    Fixed(Vec<(usize, u64)>),
    /// Pairs of a response of each of two rows.
    Crossed(Vec<Crossed>),
}

impl std::fmt::Debug for Mixing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mixing").field("mixture", &self.mixture).finish_non_exhaustive()
    }
}

impl Mixing {
    /// Reads the sources and plans the mixture; nothing is written but temporary files beside `output`.
    ///
    /// # Errors
    /// [`Error::Setting`], [`Error::Weights`] and [`Error::Mix`] for settings that do not fit each other or the sources,
    /// [`Error::Data`] and [`Error::EmptySource`] for sources that cannot be used.
    pub fn open(settings: &MixSettings, watch: &mut dyn Watch) -> Result<Self> {
        Self::open_with(settings, &here, watch)
    }

    /// [`Mixing::open`] with the files of each source as `find` finds them.
    ///
    /// # Errors
    /// As [`Mixing::open`]; errors of `find` as [`Error::Find`], or as they are if they are of this crate.
    pub fn open_with(settings: &MixSettings, find: Find<'_>, watch: &mut dyn Watch) -> Result<Self> {
        settings.check()?;
        let output = settings.output.as_deref().unwrap_or(Path::new("."));
        let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let lengths = lengths_of(settings)?;
        let sources = Sources::read(settings, &lengths, folder, find, watch)?;
        let mixing = Self::plan(settings, sources, lengths)?;
        let first = mixing.sources.stores.iter().filter_map(|store| store.batches().next());
        let first = first.collect::<simplemix_data::Result<Vec<_>>>()?;
        mixing.lengths.notices(&first)?.iter().for_each(|notice| watch.notice(notice));
        Ok(mixing)
    }

    /// Plans the mixture over pairs in memory, a list for each of the settings' sources. The paths of the sources are not
    /// read, and the pairs are taken as they are, with the source's name, but for those whose lengths differ too much.
    ///
    /// # Errors
    /// [`Error::Setting`], [`Error::Weights`] and [`Error::Mix`] for settings that do not fit each other or the pairs.
    pub fn of_pairs(settings: &MixSettings, pairs: &[&[Pair]]) -> Result<Self> {
        settings.check()?;
        if pairs.len() != settings.sources.len() {
            let expected = format!("{}, a list of pairs for each", pairs.len());
            return Err(Error::setting("source", format!("a list of {}", settings.sources.len()), expected));
        }
        let lengths = lengths_of(settings)?;
        Self::plan(settings, Sources::of_pairs(settings, &lengths, pairs)?, lengths)
    }

    fn plan(settings: &MixSettings, sources: Sources, lengths: Lengths) -> Result<Self> {
        let tokens = match settings.shares == Shares::Tokens || settings.size_tokens.is_some() {
            true => sources.stores.iter().map(|store| total(&lengths, store).map(Some)).collect::<Result<Vec<_>>>()?,
            false => vec![None; sources.counts.len()],
        };
        let config = settings.mixture(&sources.counts, &tokens);
        let cells = (0..sources.counts.len()).collect();
        let (mixture, cells, rows) = match (settings.prompts, &settings.routing) {
            (SharedPrompts::Any, None) => (Mixture::new(config)?, cells, Rows::Drawn),
            (_, Some(routing)) => {
                let mut names = Vec::new();
                let numbers =
                    (0..sources.stores.len()).map(|i| sources.tasks(i, &mut names)).collect::<Result<Vec<_>>>()?;
                let named =
                    |numbers: &Vec<u32>| numbers.iter().map(|number| names[*number as usize].as_str()).collect();
                let of_rows: Vec<Vec<&str>> = numbers.iter().map(named).collect();
                let routed = routing.route(&config, &of_rows)?;
                let cells = routed.cells.iter().map(|(source, _)| *source).collect();
                (routed.mixture, cells, Rows::Drawn)
            }
            (SharedPrompts::Disjoint, None) => (disjoint(config, &sources)?, cells, Rows::Drawn),
            (paired, None) => {
                let (mixture, rows) = paired_rows(&config, &sources, paired)?;
                (mixture, cells, rows)
            }
        };
        let names = settings.sources.iter().map(|source| source.name.clone()).collect();
        let ages = ages(settings);
        Ok(Self { mixture, sources, lengths, ranks: settings.ranks, names, ages, cells, rows })
    }

    /// Shares of the pairs that were asked for, by source; `None` where each pair is made of two sources.
    fn asked(&self) -> Option<BTreeMap<&str, f64>> {
        if matches!(self.rows, Rows::Crossed(_)) {
            return None;
        }
        let (total, mut shares) = (self.mixture.len(), BTreeMap::new());
        for (cell, &source) in self.cells.iter().enumerate() {
            let share: &mut f64 = shares.entry(self.names[source].as_str()).or_default();
            *share += self.mixture.due(cell, total) / total.max(1) as f64;
        }
        Some(shares)
    }

    /// The mixture: its plan, promise and draws.
    pub fn mixture(&self) -> &Mixture {
        &self.mixture
    }

    /// The pairs of the mixture, in its order.
    ///
    /// # Errors
    /// [`Error::Data`] if a row cannot be gathered.
    pub fn pairs(&self) -> Result<Vec<Pair>> {
        let mut pairs = Vec::new();
        for part in self.parts(part_rows()) {
            for batch in self.take(part)?.batches {
                pairs.extend(schema::pairs_from_batch(&batch)?);
            }
        }
        Ok(pairs)
    }

    /// The positions of the mixture, in parts of as many that are gathered together.
    fn parts(&self, rows: usize) -> Vec<Range<usize>> {
        let total = self.mixture.len() as usize;
        (0..total).step_by(rows).map(|start| start..(start + rows).min(total)).collect()
    }

    /// Writes the mixture, and reports what it holds. Parquet and Arrow files also keep the shares that were asked for, under
    /// [`SHARES_KEY`]. Progress is reported as `mixing`, in pairs.
    ///
    /// # Errors
    /// [`Error::Data`] if the file cannot be written, [`Error::Interrupted`] if `watch` stops it; no file is left then.
    pub fn write(&self, output: &Path, watch: &mut dyn Watch) -> Result<Achieved> {
        let (file, achieved) = self.write_without_name(output, watch)?;
        file.commit()?;
        Ok(achieved)
    }

    /// [`Mixing::write`] to a file that has no name yet.
    pub(crate) fn write_without_name(&self, output: &Path, watch: &mut dyn Watch) -> Result<(AtomicFile, Achieved)> {
        let mut writer = PairWriter::create(output, &WriteOptions::default())?;
        if let Some(shares) = self.asked() {
            let text = serde_json::to_string(&shares).map_err(|error| Error::serialise("the shares")(&error))?;
            writer.add_metadata(SHARES_KEY, text);
        }
        if !self.ages.is_empty() {
            let text = serde_json::to_string(&self.ages).map_err(|error| Error::serialise("the ages")(&error))?;
            writer.add_metadata(AGES_KEY, text);
        }
        let encoder = writer.encoder(&schema::schema(self.sources.layout.clone()))?;
        let parts: Vec<(usize, Range<usize>)> = self.parts(encoder.group_rows()).into_iter().enumerate().collect();
        let mut audit = Audit::new(&self.mixture, self.ranks);
        // Some parts are gathered and encoded together, each by a thread, then written in their order.
        let (mut rest, mut together) = (&parts[..], 1);
        while !rest.is_empty() {
            if watch.is_interrupted() {
                return Err(Error::Interrupted);
            }
            let (some, after) = rest.split_at(together.min(rest.len()));
            rest = after;
            let made = |(number, part): &(usize, Range<usize>)| self.encoded(&encoder, *number, part.clone());
            let mut largest = 1;
            for (encoded, seen) in some.par_iter().map(made).collect::<Result<Vec<_>>>()? {
                largest = largest.max(seen.bytes);
                let tasks = seen.tasks.iter().flat_map(|tasks| tasks.iter());
                let tasks = tasks.chain(std::iter::repeat(None));
                for ((cell, length), task) in seen.cells.iter().zip(&seen.lengths).zip(tasks) {
                    audit.see(*cell, task, *length);
                }
                writer.write_encoded(encoded)?;
            }
            together = (TOGETHER / largest).clamp(1, PARTS_A_THREAD * rayon::current_num_threads());
            watch.progress("mixing", some.last().map_or(0, |(_, part)| part.end as u64), self.mixture.len());
        }
        Ok((writer.finish_without_name()?.0, audit.finish()))
    }

    /// A part of the mixture, encoded for its file.
    fn encoded(&self, encoder: &GroupEncoder, number: usize, part: Range<usize>) -> Result<(EncodedRows, Seen)> {
        let Taken { cells, batches } = self.take(part)?;
        let mut lengths = Vec::with_capacity(cells.len());
        for batch in &batches {
            lengths.extend(self.lengths.of(batch)?);
        }
        let tasks = batches.iter().filter_map(task_column).cloned().collect();
        let bytes = batches.iter().map(RecordBatch::get_array_memory_size).sum();
        Ok((encoder.encode(number, batches)?, Seen { cells, lengths, tasks, bytes }))
    }

    /// Rows of the mixture: where they come from, and their columns.
    fn take(&self, part: Range<usize>) -> Result<Taken> {
        if let (Rows::Drawn, Some(drawn)) = (&self.rows, &self.sources.drawn) {
            let draws = self.mixture.iter_from(part.start as u64).take(part.len());
            let cells = draws.map(|draw| draw.source).collect();
            return Ok(Taken { cells, batches: DrawnRows::gather(drawn, part, part_rows())? });
        }
        let mut taken = Taken { cells: Vec::with_capacity(part.len()), batches: Vec::new() };
        for start in part.clone().step_by(CHUNK) {
            let rows = start..(start + CHUNK).min(part.end);
            let (cells, batch) = self.take_stored(rows)?;
            taken.cells.extend(cells);
            taken.batches.push(batch);
        }
        Ok(taken)
    }

    /// [`Mixing::take`] out of stores of all rows.
    fn take_stored(&self, part: Range<usize>) -> Result<(Vec<usize>, RecordBatch)> {
        let gather = |rows: &[(usize, u64)]| RowStore::gather(&self.sources.stores, rows);
        let cells = |rows: &[(usize, u64)]| rows.iter().map(|(cell, _)| *cell).collect();
        Ok(match &self.rows {
            Rows::Drawn => {
                let draws = self.mixture.iter_from(part.start as u64).take(part.len());
                let chunk: Vec<(usize, u64)> = draws.map(|draw| (draw.source, draw.row)).collect();
                let rows: Vec<(usize, u64)> = chunk.iter().map(|&(cell, row)| (self.cells[cell], row)).collect();
                (cells(&chunk), gather(&rows)?)
            }
            Rows::Fixed(rows) => (cells(&rows[part.clone()]), gather(&rows[part])?),
            Rows::Crossed(pairs) => {
                let pairs = &pairs[part];
                (pairs.iter().map(|pair| pair.chosen.0).collect(), self.cross(pairs)?)
            }
        })
    }
}

/// Rows of a part of the mixture.
struct Taken {
    /// The mixture's source of each row.
    cells: Vec<usize>,
    batches: Vec<RecordBatch>,
}

/// Facts about the rows of a part, for the audit.
struct Seen {
    cells: Vec<usize>,
    lengths: Vec<u64>,
    /// Tasks of all rows, if the rows have such a column.
    tasks: Vec<StringArray>,
    /// Bytes of the rows.
    bytes: usize,
}

impl Mixing {
    /// Pairs of one source's chosen response and the other's rejected one; their source is `off>on` or the like.
    fn cross(&self, crossed: &[Crossed]) -> Result<RecordBatch> {
        let taken = |rows: Vec<(usize, u64)>| -> Result<Vec<Pair>> {
            let batch = RowStore::gather(&self.sources.stores, &rows)?;
            Ok(schema::pairs_from_batch(&batch)?)
        };
        let chosen = taken(crossed.iter().map(|pair| pair.chosen).collect())?;
        let rejected = taken(crossed.iter().map(|pair| pair.rejected).collect())?;
        let cross = |(good, bad): (Pair, Pair)| {
            let source = format!("{}>{}", good.source, bad.source);
            // On-policy only if both responses are.
            let policy = if good.policy == bad.policy { good.policy } else { Policy::Off };
            let mut pair = Pair::new(good.prompt, good.chosen, bad.rejected, source, policy).with_inputs(good.inputs);
            (pair.task, pair.score_chosen, pair.score_rejected) = (good.task, good.score_chosen, bad.score_rejected);
            pair.ref_rewards = if good.ref_rewards.is_empty() { bad.ref_rewards } else { good.ref_rewards };
            pair.generator = good.generator.filter(|generator| Some(generator) == bad.generator.as_ref());
            pair
        };
        let pairs: Vec<Pair> = chosen.into_iter().zip(rejected).map(cross).collect();
        Ok(schema::batch_in_layout(&pairs, &self.sources.layout)?)
    }
}

/// Ages by the name of the source; a pair of two sources is as old as the older response.
fn ages(settings: &MixSettings) -> BTreeMap<String, u32> {
    let aged = |source: &MixSource| Some((source.name.clone(), source.age?));
    let own: Vec<(String, u32)> = settings.sources.iter().filter_map(aged).collect();
    if settings.prompts != SharedPrompts::Crossed {
        return own.into_iter().collect();
    }
    let crossed = |(name, age): &(String, u32)| {
        let others = settings.sources.iter().filter(|other| other.name != *name);
        let pairs = others.flat_map(|other| {
            let age = other.age.map_or(*age, |other| other.max(*age));
            [format!("{name}>{}", other.name), format!("{}>{name}", other.name)].map(|name| (name, age))
        });
        pairs.collect::<Vec<_>>()
    };
    own.iter().flat_map(crossed).collect()
}

fn lengths_of(settings: &MixSettings) -> Result<Lengths> {
    Lengths::new(settings.tokenizer.as_deref(), settings.tokenizer_as)
}

/// Length of all of a source's responses.
fn total(lengths: &Lengths, store: &RowStore) -> Result<u64> {
    store.batches().map(|batch| Ok(lengths.of(&batch?)?.into_iter().sum::<u64>())).sum()
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
    let mut mixture = Mixture::new(MixtureConfig { sources: shrunk.collect(), ..config.clone() })?;
    for (source, kept) in kept.into_iter().enumerate() {
        mixture = mixture.with_rows(source, kept)?;
    }
    Ok(mixture)
}

/// The rows of prompts that both sources have, in the order asked for, and a mixture with as many rows of each.
fn paired_rows(config: &MixtureConfig, sources: &Sources, order: SharedPrompts) -> Result<(Mixture, Rows)> {
    let refuse = |found: &str, expected: &str| Err(Error::setting("prompts", found, expected));
    let [a, b] = &config.sources[..] else {
        return refuse(&format!("set, with {} sources", config.sources.len()), "two sources, whose rows it pairs");
    };
    let plain = config.shares == Shares::Exact && config.order == BatchOrder::Interleaved && config.schedule.is_none();
    if !plain || (a.weight != b.weight && order != SharedPrompts::Crossed) {
        let expected = "equal weights, exact shares and no other order: it takes a row of each source in turn";
        return refuse("set, with weights or an order", expected);
    }
    let (of_a, of_b) = (sources.prompts(0)?, sources.prompts(1)?);
    let pairs = prompts::paired(&of_a, &of_b);
    if pairs.is_empty() {
        return refuse("set, but the sources have no prompt in common", "sources that share prompts");
    }
    let most = if order == SharedPrompts::Crossed { pairs.len() as u64 } else { 2 * pairs.len() as u64 };
    let total = config.size.unwrap_or(most);
    if total > most {
        return Err(Error::setting("size", total, format!("at most {most}, the pairs that share their prompts")));
    }
    let shuffled = |count: u64, of: u64| {
        let order = Permutation::new(of, config.seed, 1);
        (0..count).map(move |i| order.at(i) as usize)
    };
    let rows = match order {
        SharedPrompts::Adjacent => Rows::Fixed(prompts::adjacent(&pairs, config.seed).take(total as usize).collect()),
        SharedPrompts::Crossed => {
            let all = prompts::crossed(&of_a, &of_b, [a.weight, b.weight], config.seed);
            Rows::Crossed(shuffled(total, most).map(|i| all[i]).collect())
        }
        _ => {
            // Fewer prompts rather than a part of all of them, so that both pairs of each are there.
            let some: Vec<_> = shuffled(total.div_ceil(2), most / 2).map(|i| pairs[i]).collect();
            Rows::Fixed(prompts::apart(&some, config.seed).take(total as usize).collect())
        }
    };
    // The rows are decided; the mixture only names and counts them.
    let given = |source: usize| match &rows {
        Rows::Crossed(pairs) => pairs.iter().filter(|pair| pair.chosen.0 == source).count() as u64,
        Rows::Fixed(rows) => rows.iter().filter(|row| row.0 == source).count() as u64,
        Rows::Drawn => 0,
    };
    let sized = |i: usize, source: &SourceConfig| SourceConfig {
        rows: given(i),
        weight: Weight::whole(given(i)),
        ..source.clone()
    };
    let sources = vec![sized(0, a), sized(1, b)];
    Ok((Mixture::new(MixtureConfig { sources, size: Some(total), ..config.clone() })?, rows))
}

#[cfg(test)]
mod tests {
    use simplemix_data::{Message, Text, Unwatched};
    use simplemix_mix::Weight;

    use super::*;

    fn pairs(source: &str, count: usize) -> Vec<Pair> {
        let text = |text: String| Text::from(text.as_str());
        let pair =
            |i: usize| Pair::new(text(format!("{i}?")), text(format!(" {i}")), text(" no".into()), source, Policy::Off);
        (0..count).map(pair).collect()
    }

    /// A source of weight 1 over a file of these pairs.
    fn written(folder: &Path, name: &str, pairs: &[Pair]) -> MixSource {
        let path = folder.join(format!("{name}.parquet"));
        let mut writer = PairWriter::create(&path, &WriteOptions::default()).unwrap();
        writer.write_pairs(pairs).unwrap();
        writer.finish().unwrap();
        MixSource::new(name, path, Weight::whole(1))
    }

    /// Files whose turns have different fields, one of them text.
    #[test]
    fn calls_are_mixed_with_plain_turns_and_text() {
        let dir = tempfile::tempdir().unwrap();
        let turn = |message: Message| Text::Messages(vec![message]);
        let call = Message::assistant("").with_field("tool_calls", serde_json::json!([{"function": {"name": "die"}}]));
        let mut calling =
            Pair::new(turn(Message::user("?")), turn(call), turn(Message::assistant("4")), "on", Policy::On);
        calling.inputs.tools = Some(serde_json::json!([{"type": "function"}]));
        let calling = calling.clone().with_inputs(calling.inputs);
        let thought = Message::assistant("x").with_field("reasoning_content", "y");
        let thinking =
            Pair::new(turn(Message::user("!")), turn(thought), turn(Message::assistant("4")), "on", Policy::On);
        let source = |name: &str, pairs: &[Pair]| written(dir.path(), name, pairs);
        let sources = vec![
            source("calling", std::slice::from_ref(&calling)),
            source("thinking", std::slice::from_ref(&thinking)),
            source("text", &pairs("text", 1)),
        ];
        let settings = MixSettings { sources, size: Some(3), ..MixSettings::default() };
        let path = dir.path().join("mixture.parquet");
        Mixing::open(&settings, &mut Unwatched).unwrap().write(&path, &mut Unwatched).unwrap();
        let mixed = simplemix_data::read_pairs(&path, &simplemix_data::ReadOptions::default()).unwrap();
        let found = |pair: &Pair| mixed.iter().any(|mixed| mixed.id == pair.id && mixed.chosen == pair.chosen);
        assert!(mixed.len() == 3 && found(&calling) && found(&thinking));
        assert_eq!(mixed.iter().filter(|pair| pair.inputs.tools.is_some()).count(), 1);
    }

    /// A mixture of n pairs is the first n of one of 2n, also where prompts decide which rows are taken; `apart` depends on the size.
    #[test]
    fn a_smaller_mixture_is_the_beginning_of_a_larger_one() {
        let (off, on) = (pairs("off", 60), pairs("on", 60));
        let sources = || ["off", "on"].map(|name| MixSource::new(name, name, Weight::whole(1))).to_vec();
        let of = |prompts: SharedPrompts, size: u64| {
            let settings =
                MixSettings { sources: sources(), size: Some(size), prompts, seed: 5, ..MixSettings::default() };
            Mixing::of_pairs(&settings, &[&off, &on]).unwrap().pairs().unwrap()
        };
        use SharedPrompts::{Adjacent, Any, Apart, Crossed, Disjoint};
        for prompts in [Any, Disjoint, Adjacent, Crossed] {
            let whole = of(prompts, 40);
            for size in [1, 2, 10, 20] {
                assert_eq!(of(prompts, size), whole[..size as usize], "{prompts:?} {size}");
            }
        }
        assert_ne!(of(Apart, 20), of(Apart, 40)[..20]);
    }

    /// Both ways give the same rows.
    #[test]
    fn pairs_in_memory_mix_as_those_of_files() {
        let dir = tempfile::tempdir().unwrap();
        let (off, on) = (pairs("off", 30), pairs("on", 20));
        let source = |name: &str, pairs: &[Pair]| written(dir.path(), name, pairs);
        let sources = vec![source("off", &off), source("on", &on)];
        let settings = MixSettings { sources, size: Some(40), seed: 5, ..MixSettings::default() };
        let of_files = Mixing::open(&settings, &mut Unwatched).unwrap().pairs().unwrap();
        let in_memory = Mixing::of_pairs(&settings, &[&off, &on]).unwrap();
        assert_eq!(in_memory.pairs().unwrap(), of_files);
        assert_eq!(of_files.iter().filter(|pair| pair.source == "on").count(), 20);
        let path = dir.path().join("mixture.parquet");
        assert_eq!(in_memory.write(&path, &mut Unwatched).unwrap().pairs, 40);
        assert_eq!(simplemix_data::read_metadata(&path).unwrap()[SHARES_KEY], r#"{"off":0.5,"on":0.5}"#);
        assert_eq!(simplemix_data::read_pairs(&path, &simplemix_data::ReadOptions::default()).unwrap(), of_files);
        let error = Mixing::of_pairs(&settings, &[&off]).unwrap_err();
        assert_eq!(error.to_string(), "`source` is a list of 2, expected 1, a list of pairs for each");
    }
}
