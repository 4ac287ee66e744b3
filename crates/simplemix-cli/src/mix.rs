//! `simplemix mix`: one parquet file out of several sources, in stated shares.

use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::compute::{concat_batches, interleave_record_batch};
use serde::Serialize;
use simplemix_data::read::ExtraColumns;
use simplemix_data::{Form, PairReader, PairWriter, ReadOptions, WriteOptions};
use simplemix_mix::{
    Exhaustion, Mixture, MixtureConfig, Planned, RowOrder, SourceConfig, SourceSpec, Weight, parse_weights,
};

use crate::failure::{Fails, Failure, Result};
use crate::progress::{bar, print};

/// Write one file of pairs from several sources, in stated shares
///
/// A weight is a share of the mixture's rows: off=0.5,on=0.5 takes as many pairs from each, however many they have.
/// Every prefix of the result holds the shares to within half a row for two sources.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
  simplemix mix --source off=uf.parquet --source on=sampled.jsonl --weights off=0.5,on=0.5 --size 10000 --seed 1 -o mix.parquet\n  \
  simplemix mix --source off=uf.parquet:0.3 --source on=sampled.parquet:0.7 --seed 1 -o mix.parquet --report mix.json")]
pub(crate) struct Args {
    /// A source: its name, its file and perhaps its weight
    #[arg(long = "source", value_name = "NAME=PATH[:WEIGHT]", required = true)]
    sources: Vec<SourceSpec>,
    /// Weights by name, where they are not given with the sources; equal without
    #[arg(long, value_name = "NAME=WEIGHT,...")]
    weights: Option<String>,
    /// Pairs of the mixture; without it, as many as no source has to repeat
    #[arg(long, value_name = "N")]
    size: Option<u64>,
    /// Everything random follows from it
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Passes over a source that are allowed; 1 refuses a mixture that would repeat rows
    #[arg(long, value_name = "EPOCHS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    repeat: u64,
    /// Take each source's rows in file order rather than shuffled
    #[arg(long)]
    file_order: bool,
    /// File to write: .parquet, .arrow or .jsonl
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Also write what was asked and achieved, as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// A source with all its pairs.
struct Loaded {
    name: String,
    batch: RecordBatch,
}

/// Asked and achieved, of one source.
#[derive(Debug, Serialize)]
struct Share {
    #[serde(flatten)]
    planned: Planned,
    asked: String,
    achieved: f64,
}

/// Rows gathered at a time.
const CHUNK: usize = 4096;

pub(crate) fn run(args: &Args) -> Result {
    let weights = weights(args)?;
    let sources = load(&args.sources)?;
    let mixture = Mixture::new(MixtureConfig {
        sources: sources
            .iter()
            .zip(weights)
            .map(|(source, weight)| SourceConfig {
                name: source.name.clone(),
                rows: source.batch.num_rows() as u64,
                weight,
            })
            .collect(),
        total: args.size,
        exhaustion: if args.repeat > 1 { Exhaustion::Repeat { epochs: args.repeat } } else { Exhaustion::Refuse },
        rows: if args.file_order { RowOrder::File } else { RowOrder::Shuffled },
        seed: args.seed,
    })
    .input()?;
    let written = write(&mixture, &sources, &args.output)?;
    let shares = shares(&mixture, &written);
    print(&format!("{}: {} pairs", args.output.display(), mixture.len()));
    for share in &shares {
        let Planned { name, available, rows, repeats, .. } = &share.planned;
        let repeated = if *repeats > 0 { format!(", {repeats} of them again") } else { String::new() };
        print(&format!(
            "  {name:<12} asked {:<8} achieved {:.4}   {rows} of {available} pairs{repeated}",
            share.asked, share.achieved
        ));
    }
    if let Some(path) = &args.report {
        let report = serde_json::json!({ "mixture": mixture.config(), "pairs": mixture.len(), "sources": shares });
        std::fs::write(path, format!("{report:#}\n")).run()?;
    }
    Ok(())
}

/// One weight a source: written with it, or under `--weights`, or equal for all.
fn weights(args: &Args) -> Result<Vec<Weight>> {
    let named = args.weights.as_deref().map(parse_weights).transpose().input()?.unwrap_or_default();
    if let Some((name, _)) = named.iter().find(|(name, _)| args.sources.iter().all(|s| s.name != *name)) {
        let known: Vec<&str> = args.sources.iter().map(|s| s.name.as_str()).collect();
        return Err(Failure::input(format!("--weights names `{name}`, expected one of the sources {known:?}")));
    }
    let given = args.sources.iter().filter(|s| s.weight.is_some()).count() + named.len();
    args.sources
        .iter()
        .map(|source| {
            let of_name = named.iter().find(|(name, _)| *name == source.name).map(|(_, weight)| *weight);
            match (source.weight, of_name) {
                (Some(_), Some(_)) => {
                    Err(Failure::input(format!("source `{}` has a weight with it and one in --weights", source.name)))
                }
                (Some(weight), None) | (None, Some(weight)) => Ok(weight),
                (None, None) if given == 0 => Ok(Weight::whole(1)),
                (None, None) => Err(Failure::input(format!("source `{}` has no weight, but others have", source.name))),
            }
        })
        .collect()
}

/// Reads the sources in one form: text becomes messages where any source has messages.
fn load(specs: &[SourceSpec]) -> Result<Vec<Loaded>> {
    let mut options = ReadOptions::default();
    // Sources differ in their further columns; a mixture has the canonical ones.
    options.extra_columns = ExtraColumns::Drop;
    let mut messages = false;
    for spec in specs {
        let reader = PairReader::open(&spec.path, &options).input()?;
        messages |= reader.report().form == Form::Messages;
    }
    options.form = messages.then_some(Form::Messages);
    let bar = bar("reading", specs.len() as u64);
    let mut loaded = Vec::new();
    for spec in specs {
        let mut reader = PairReader::open(&spec.path, &options.clone().with_source(&spec.name)).input()?;
        let batches = reader.by_ref().collect::<simplemix_data::Result<Vec<_>>>().input()?;
        if !reader.report().refused.is_empty() {
            tracing::warn!("{}", reader.report());
        }
        let batch = concat_batches(&reader.schema(), &batches).input()?;
        loaded.push(Loaded { name: spec.name.clone(), batch });
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(loaded)
}

/// Writes the mixture and counts the rows of each source.
fn write(mixture: &Mixture, sources: &[Loaded], output: &Path) -> Result<Vec<u64>> {
    let mut writer = PairWriter::create(output, &WriteOptions::default()).input()?;
    let batches: Vec<&RecordBatch> = sources.iter().map(|source| &source.batch).collect();
    let mut counts = vec![0; sources.len()];
    let bar = bar("mixing", mixture.len());
    let mut rows = mixture.iter().map(|draw| (draw.source, draw.row as usize)).peekable();
    while rows.peek().is_some() {
        let chunk: Vec<(usize, usize)> = rows.by_ref().take(CHUNK).collect();
        for (source, _) in &chunk {
            counts[*source] += 1;
        }
        writer.write_batch(&interleave_record_batch(&batches, &chunk).run()?).run()?;
        bar.inc(chunk.len() as u64);
    }
    writer.finish().run()?;
    bar.finish_and_clear();
    Ok(counts)
}

fn shares(mixture: &Mixture, written: &[u64]) -> Vec<Share> {
    let sources = mixture.config().sources.iter();
    mixture
        .plan()
        .into_iter()
        .zip(sources)
        .zip(written)
        .map(|((planned, source), &rows)| Share {
            planned,
            asked: source.weight.to_string(),
            achieved: rows as f64 / mixture.len() as f64,
        })
        .collect()
}
