//! `simplemix collect`: generate, score and pair in one.

use std::path::PathBuf;

use simplemix_rollout::{CollectSettings, Preset, SamplingConfig, collect_to_files};

use crate::failure::{Fails, Result, failed};
use crate::generate::{Backend, Prompts, Sampling};
use crate::pair::Rule;
use crate::progress::{Terminal, print};
use crate::score::Scorers;

use crate::{generate, pair, score};

/// Collect on-policy pairs: sample answers, score them, pair them
///
/// The same as generate, score and pair, with candidates and scores in files beside the pairs: of on.parquet in
/// on.candidates.parquet and on.scored.parquet. Killed or stopped at any moment, the same command goes on from there.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
  simplemix collect --model ./smollm2 --prompts gsm8k.jsonl --samples 4 --max-new-tokens 256 --scorer exact-answer -o on.parquet\n  \
  simplemix collect --server http://localhost:8000/v1 --prompts uf.parquet --preset simpo --scorer reward-model:./armo -o on.parquet")]
pub(crate) struct Args {
    #[command(flatten)]
    backend: Backend,
    #[command(flatten)]
    prompts: Prompts,
    #[command(flatten)]
    sampling: Sampling,
    #[command(flatten)]
    scorers: Scorers,
    #[command(flatten)]
    rule: Rule,
    /// Name of the pairs' source
    #[arg(long, value_name = "NAME", default_value = "on_policy")]
    source_name: String,
    /// File of pairs to write: .parquet, .arrow or .jsonl
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Replace outputs, or unfinished work, of other arguments
    #[arg(long)]
    overwrite: bool,
    /// The account as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result {
    let base = args.rule.preset.map_or_else(SamplingConfig::simplemix, Preset::sampling);
    let sampling = args.sampling.settings(base);
    let settings = CollectSettings {
        prompts: args.prompts.settings()?,
        sampling,
        select: args.rule.settings(sampling.seed)?,
        source: args.source_name.clone(),
        output: args.output.clone(),
        overwrite: args.overwrite,
    };
    settings.generate().check().input()?;
    let mut scorers = args.scorers.open()?;
    let mut generator = args.backend.open()?;
    let mut terminal = Terminal::new()?;
    let report = collect_to_files(&settings, generator.as_mut(), &mut scorers, &mut terminal);
    terminal.clear();
    let report = report.map_err(failed)?;
    if args.json {
        print(&serde_json::to_string(&report).run()?);
        return Ok(());
    }
    generate::say(&report.generate, &settings.generate(), generator.name());
    score::say(&report.score, &settings.score());
    pair::say(&report.pair, &settings.pair());
    Ok(())
}
