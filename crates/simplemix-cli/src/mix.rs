//! `simplemix mix`: one file out of several sources, in stated shares, with a receipt.

use std::path::PathBuf;

use simplemix_mix::{Exhaustion, Planned, RowOrder, Shares, SourceSpec};
use simplemix_pipeline::{MixReport, MixSettings, MixSource, mix, verify};

use crate::failure::{Failure, Result, read_toml};
use crate::progress::{Terminal, print};

/// Write one file of pairs from several sources, in stated shares
///
/// A weight is a share of the mixture's rows: off=0.5,on=0.5 takes as many pairs from each, however many they have.
/// Every prefix of the result holds the shares to within half a row for two sources; docs/mixing.md has the rest.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
  simplemix mix --source off=uf.parquet --source on=sampled.jsonl --weights off=0.5,on=0.5 --size 10000 --seed 1 -o mix.parquet\n  \
  simplemix mix --source off=uf.parquet:0.3 --source on=sampled.parquet:0.7 --seed 1 -o mix.parquet --report mix.json --plot mix.svg\n  \
  simplemix mix --source off=uf.parquet --source on=sampled.parquet --batch 64 --order batch-shuffled --size 10000 -o mix.parquet\n  \
  simplemix mix --config mix.toml -o mix.parquet\n  \
  simplemix mix --verify mix.json\n\n\
  mix.toml holds the same names with underscores, sources as [[source]] tables, and what flags cannot say:\n  \
  size = 10000\n  \
  [[source]]\n  \
  name = \"off\"\n  \
  path = \"uf.parquet\"\n  \
  weight = 0.5\n  \
  [schedule]                  # shares that change over the run\n  \
  curve = \"linear\"\n  \
  points = [{ at = 0, weights = [1, 0] }, { at = 1, weights = [0, 1] }]\n  \
  [routing.tasks.math]        # shares of each task\n  \
  off = 0.2\n  \
  on = 0.8")]
pub(crate) struct Args {
    /// Settings in TOML; flags win
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A source: its name, its file (or a folder of shards, or a pattern) and perhaps its weight
    #[arg(long = "source", value_name = "NAME=PATH[:WEIGHT]")]
    sources: Vec<SourceSpec>,
    /// Weights by name, where they are not given with the sources; equal without
    #[arg(long, value_name = "NAME=WEIGHT,...")]
    weights: Option<String>,
    /// Pairs of the mixture; without it, as many as no source has to repeat
    #[arg(long, value_name = "N")]
    size: Option<u64>,
    /// Response tokens of the mixture, in place of --size
    #[arg(long, value_name = "N")]
    size_tokens: Option<u64>,
    /// What a weight is: a share of pairs in every prefix (exact) or on average (bernoulli), a number of pairs (quota),
    /// a share of response tokens (tokens) [default: exact]
    #[arg(long, value_name = "exact|bernoulli|bernoulli-replace|quota|tokens")]
    shares: Option<String>,
    /// Pairs of a training batch, each of which shall hold floor or ceil of every share
    #[arg(long, value_name = "N")]
    batch: Option<u64>,
    /// How a batch's pairs stand: interleaved, or batch-shuffled by key [default: interleaved]
    #[arg(long, value_name = "interleaved|batch-shuffled")]
    order: Option<String>,
    /// Ranks that the pairs will be dealt to in turn, for the report [default: 1]
    #[arg(long, value_name = "N")]
    ranks: Option<usize>,
    /// Prompts that several sources have: any, disjoint (each from one source), adjacent (both pairs of a prompt, one
    /// after the other), apart (never in one batch), crossed (one source's chosen response against the other's rejected
    /// one; the weights say which way round) [default: any]
    #[arg(long, value_name = "any|disjoint|adjacent|apart|crossed")]
    prompts: Option<String>,
    /// Everything random follows from it [default: 42]
    #[arg(long)]
    seed: Option<u64>,
    /// Passes over a source that are allowed; 1 refuses a mixture that would repeat rows [default: 1]
    #[arg(long, value_name = "EPOCHS", value_parser = clap::value_parser!(u64).range(1..))]
    repeat: Option<u64>,
    /// Where to end without --size: before the first source has to repeat, or when all have been gone through
    #[arg(long, value_name = "first-exhausted|all-exhausted", conflicts_with = "repeat")]
    until: Option<String>,
    /// Take each source's rows in file order rather than shuffled
    #[arg(long)]
    file_order: bool,
    /// Model folder whose tokenizer counts response tokens; without it lengths are in bytes
    #[arg(long, value_name = "DIR")]
    tokenizer: Option<PathBuf>,
    /// Megabytes of rows held in memory; what is beyond goes to a temporary file beside the output [default: 256]
    #[arg(long, value_name = "MB")]
    memory: Option<u64>,
    /// File to write: .parquet, .arrow or .jsonl
    #[arg(short, long, value_name = "FILE", required_unless_present_any = ["config", "verify"])]
    output: Option<PathBuf>,
    /// Also write a receipt: settings, files, what was asked and achieved, as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Also draw the sources' shares from the first pair to the last
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// Make the mixture of a receipt again and compare it, in place of writing one
    #[arg(long, value_name = "RECEIPT", exclusive = true)]
    verify: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result {
    let mut terminal = Terminal::new()?;
    if let Some(path) = &args.verify {
        let verified = verify(path, &mut terminal);
        terminal.clear();
        let verified = verified?;
        let output = verified.output.display();
        let file = match verified.is_there {
            true => format!("{output} is what was written then"),
            false => format!("{output} is gone, but can be made again"),
        };
        let (path, sources) = (path.display(), verified.sources);
        print(&format!("{path}: holds: {} pairs, {sources} sources unchanged, {file}", verified.pairs));
        return Ok(());
    }
    let report = mix(&resolve(args)?, &mut terminal);
    terminal.clear();
    say(&report?);
    Ok(())
}

fn say(report: &MixReport) {
    let achieved = &report.achieved;
    print(&format!("{}: {} pairs", report.output.display(), achieved.pairs));
    for (planned, source) in report.plan.iter().zip(&achieved.sources) {
        let Planned { name, available, rows, repeats, .. } = planned;
        let repeated = if *repeats > 0 { format!(", {repeats} of them again") } else { String::new() };
        print(&format!(
            "  {name:<12} asked {:.4}   achieved {:.4}   {rows} of {available} pairs{repeated}",
            source.asked, source.share
        ));
    }
    let within =
        report.promise.prefix.map_or("chance decides".to_owned(), |bound| format!("at most {bound:.3} promised"));
    print(&format!("  furthest from its share in any prefix: {:.3} pairs ({within})", achieved.prefix_discrepancy));
}

/// The settings of a call: flags over file over defaults.
fn resolve(args: &Args) -> Result<MixSettings> {
    let mut settings: MixSettings = args.config.as_deref().map_or(Ok(MixSettings::default()), read_toml)?;
    if !args.sources.is_empty() {
        settings.sources = args
            .sources
            .iter()
            .map(|spec| MixSource { name: spec.name.clone(), path: spec.path.clone().into(), weight: spec.weight })
            .collect();
    }
    if settings.sources.is_empty() {
        return Err(Failure::input("no source is given, expected --source NAME=PATH or [[source]] in --config"));
    }
    settings.size = args.size.or(settings.size);
    settings.size_tokens = args.size_tokens.or(settings.size_tokens);
    settings.seed = args.seed.unwrap_or(settings.seed);
    settings.batch = args.batch.or(settings.batch);
    settings.ranks = args.ranks.unwrap_or(settings.ranks);
    settings.memory = args.memory.unwrap_or(settings.memory);
    if let Some(text) = &args.shares {
        settings.shares = match text.as_str() {
            "bernoulli" => Shares::Bernoulli { replace: false },
            "bernoulli-replace" => Shares::Bernoulli { replace: true },
            _ => word("shares", text, "exact, bernoulli, bernoulli-replace, quota or tokens")?,
        };
    }
    if let Some(text) = &args.order {
        settings.order = word("order", text, "interleaved or batch-shuffled")?;
    }
    if let Some(text) = &args.prompts {
        settings.prompts = word("prompts", text, "any, disjoint, adjacent, apart or crossed")?;
    }
    if let Some(epochs) = args.repeat {
        settings.exhaustion = if epochs > 1 { Exhaustion::Repeat { epochs } } else { Exhaustion::Refuse };
    }
    if let Some(text) = &args.until {
        settings.exhaustion = word("until", text, "first-exhausted or all-exhausted")?;
    }
    if args.file_order {
        settings.rows = RowOrder::File;
    }
    for (setting, flag) in [
        (&mut settings.tokenizer, &args.tokenizer),
        (&mut settings.output, &args.output),
        (&mut settings.report, &args.report),
        (&mut settings.plot, &args.plot),
    ] {
        if flag.is_some() {
            setting.clone_from(flag);
        }
    }
    if let Some(text) = &args.weights {
        if let Some(source) = args.sources.iter().find(|source| source.weight.is_some()) {
            let name = &source.name;
            return Err(Failure::input(format!("source `{name}` has a weight with it and one in --weights")));
        }
        settings.set_weights(text).map_err(|error| Failure::input(format!("--weights: {error}")))?;
    }
    Ok(settings)
}

/// The value that a flag's word stands for, where a settings file would spell it as this type.
fn word<T: serde::de::DeserializeOwned>(flag: &str, text: &str, expected: &str) -> Result<T> {
    let value = serde_json::Value::String(text.replace('-', "_"));
    serde_json::from_value(value).map_err(|_| Failure::input(format!("--{flag} is `{text}`, expected {expected}")))
}

#[cfg(test)]
mod tests {
    use simplemix_pipeline::SharedPrompts;

    use super::*;

    #[test]
    fn words_of_flags_are_those_of_files() {
        assert_eq!(word::<SharedPrompts>("prompts", "disjoint", "").unwrap(), SharedPrompts::Disjoint);
        let error = word::<SharedPrompts>("prompts", "both", "any or disjoint").unwrap_err();
        assert_eq!(error.message().unwrap(), "--prompts is `both`, expected any or disjoint");
    }
}
