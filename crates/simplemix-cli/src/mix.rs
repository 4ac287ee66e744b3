//! `simplemix mix`: one file out of several sources, in stated shares, with a receipt.

use std::path::PathBuf;

use simplemix_data::TokenizerAs;
use simplemix_mix::{Exhaustion, Planned, RowOrder, Shares, SourceSpec};
use simplemix_pipeline::{Error, MixReport, MixSettings, MixSource, mix, verify};
use simplemix_settings::{assignment, merge};

use crate::claims::claim_files;
use crate::failure::{Fails, Failure, Result, read_toml};
use crate::flags::{self, check_new};
use crate::lines::print;
use crate::progress::Terminal;

/// Mix several sources into one file of pairs, in given shares
///
/// A weight is a share of the mixture's pairs: off=0.5,on=0.5 takes the same number from both, whatever their sizes. With
/// two sources, every prefix of the file holds the shares to within half a pair; docs/mixing.md describes the other cases.
/// Settings come from --config, then from --set, then from flags; the later ones win.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
  simplemix mix --source off=uf.parquet --source on=sampled.jsonl --weights off=0.5,on=0.5 --size 10000 --seed 1 -o mix.parquet\n  \
  simplemix mix --source off=uf.parquet:0.3 --source on=sampled.parquet:0.7 --seed 1 -o mix.parquet --report mix.json --plot mix.svg\n  \
  simplemix mix --source off=uf.parquet --source on=sampled.parquet --batch 64 --order batch-shuffled --size 10000 -o mix.parquet\n  \
  simplemix mix --config mix.toml --set routing.tasks.math.on=0.8 -o mix.parquet\n  \
  simplemix mix --verify mix.json\n\n\
  mix.toml has the names of the flags with underscores, a [[source]] table for each source, and what no flag can say:\n  \
  size = 10000\n  \
  [[source]]\n  \
  name = \"off\"\n  \
  path = \"uf.parquet\"\n  \
  weight = 0.5\n  \
  [schedule]                  # shares that change over the mixture\n  \
  curve = \"linear\"\n  \
  points = [{ at = 0, weights = [1, 0] }, { at = 1, weights = [0, 1] }]\n  \
  [routing.tasks.math]        # shares of a task\n  \
  off = 0.2\n  \
  on = 0.8")]
pub(crate) struct Args {
    /// Read settings from a TOML file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Add a source: its name, its file (or a folder of shards, or a pattern), and optionally its weight
    #[arg(long = "source", value_name = "NAME=PATH[:WEIGHT]")]
    sources: Vec<SourceSpec>,
    /// Weights of the sources by name [default: equal weights]
    #[arg(long, value_name = "NAME=WEIGHT,...")]
    weights: Option<String>,
    /// Number of pairs in the mixture [default: as many as fit before a source has to repeat]
    #[arg(long, value_name = "N")]
    size: Option<u64>,
    /// Number of response tokens in the mixture, in place of --size
    #[arg(long, value_name = "N")]
    size_tokens: Option<u64>,
    /// How to read weights: exact (share of every prefix), bernoulli (share on average), bernoulli-replace (rows may also
    /// repeat), quota (number of pairs), tokens (share of response tokens) [default: exact]
    #[arg(long, value_name = "exact|bernoulli|bernoulli-replace|quota|tokens")]
    shares: Option<String>,
    /// Batch size; every batch then holds each source's share, rounded up or down
    #[arg(long, value_name = "N")]
    batch: Option<u64>,
    /// Order of pairs within a batch: interleaved (every prefix holds the shares) or batch-shuffled [default: interleaved]
    #[arg(long, value_name = "interleaved|batch-shuffled")]
    order: Option<String>,
    /// Number of training processes that take pairs in turn, to report what each of them gets [default: 1]
    #[arg(long, value_name = "N")]
    ranks: Option<usize>,
    /// Prompts that several sources have: any (no rule), disjoint (each from one source), adjacent (both pairs of a prompt
    /// in a row), apart (both pairs half of the mixture apart), crossed (one source's chosen response with the other's
    /// rejected one, the weights saying how often each is chosen) [default: any]
    #[arg(long, value_name = "any|disjoint|adjacent|apart|crossed")]
    prompts: Option<String>,
    /// Random seed [default: 42]
    #[arg(long)]
    seed: Option<u64>,
    /// Maximum number of passes over a source; 1 refuses a mixture that would repeat rows [default: 1]
    #[arg(long, value_name = "EPOCHS", value_parser = clap::value_parser!(u64).range(1..))]
    repeat: Option<u64>,
    /// End of a mixture without --size: first-exhausted (before the first source repeats) or all-exhausted (when every
    /// source has been used up)
    #[arg(long, value_name = "first-exhausted|all-exhausted", conflicts_with_all = ["repeat", "size", "size_tokens"])]
    until: Option<String>,
    /// Convert bare text to messages; done in any case if another source has messages
    #[arg(long)]
    messages: bool,
    /// Take the rows of each source in the order of its file, not shuffled
    #[arg(long)]
    file_order: bool,
    /// Count response tokens with the tokenizer of this model folder [default: lengths are in bytes]
    #[arg(long, value_name = "DIR")]
    tokenizer: Option<PathBuf>,
    /// Reading of a tokenizer that transformers 5 builds anew by its class: as tokenizer.json has it, or as transformers does
    /// [default: file]
    #[arg(long, value_name = "file|transformers", value_parser = flags::word::<TokenizerAs>)]
    tokenizer_as: Option<TokenizerAs>,
    /// Leave out pairs whose responses differ by more tokens than this (bytes without --tokenizer); for single tasks
    /// --set max_length_difference_of_tasks.chat=100 [default: no limit]
    #[arg(long, value_name = "N")]
    max_length_difference: Option<u64>,
    /// Megabytes of rows to hold in memory; rows beyond go to a temporary file beside the output [default: 256]
    #[arg(long, value_name = "MB")]
    memory: Option<u64>,
    /// File to write: .parquet, .arrow or .jsonl
    #[arg(short, long, value_name = "FILE", required_unless_present_any = ["config", "set", "verify"])]
    output: Option<PathBuf>,
    /// Overwrite the output if it exists
    #[arg(long)]
    overwrite: bool,
    /// Also write a receipt as JSON: settings, hashes of the files, shares asked for and achieved
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Also plot the sources' shares from the first pair to the last
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// Set any key of the settings file, such as routing.tasks.math.on=0.8; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Make the mixture of a receipt again and compare it with the receipt; no file is written
    #[arg(long, value_name = "RECEIPT", exclusive = true)]
    verify: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result {
    // Nothing can be saved of a mixture that is stopped.
    let mut terminal = Terminal::passive();
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
    let settings = resolve(args)?;
    let outputs = [("output", &settings.output), ("report", &settings.report), ("plot", &settings.plot)];
    let outputs: Vec<_> = outputs.into_iter().filter_map(|(flag, path)| Some((flag, path.as_deref()?))).collect();
    let _claims = claim_files(&outputs)?;
    if let Some(output) = &settings.output {
        check_new(output, args.overwrite)?;
    }
    let report = mix(&settings, &mut terminal);
    terminal.clear();
    say(&report.map_err(|error| flagged(error, args))?);
    Ok(())
}

/// The error, with the flag in place of the key where the user wrote flags.
fn flagged(error: Error, args: &Args) -> Failure {
    let (key, found, expected) = match &error {
        Error::Setting { key, found, expected } => (key.as_str(), found.as_str(), expected.as_str()),
        Error::Mix(simplemix_mix::Error::Setting { key, found, expected }) => (*key, found.as_str(), *expected),
        Error::Mix(exhausted @ simplemix_mix::Error::Exhausted { epochs, .. }) => {
            return Failure::input(format!("{exhausted}, with --size or --repeat {epochs}"));
        }
        _ => return error.into(),
    };
    // A key that is in no file can only have come from a flag, or be missing among the flags.
    let flags = args.flags();
    let flag = flags.iter().find(|(of, _, given)| *of == key && (*given || args.config.is_none()));
    flag.map_or_else(
        || Failure::input(&error),
        |(_, flag, _)| Failure::input(format!("{flag} is {found}, expected {expected}")),
    )
}

impl Args {
    /// Keys of settings, their flags, and whether these were given.
    fn flags(&self) -> [(&'static str, &'static str, bool); 15] {
        let ends = if self.until.is_some() { "--until" } else { "--repeat" };
        [
            ("source", "--source", !self.sources.is_empty()),
            ("size", "--size", self.size.is_some()),
            ("size_tokens", "--size-tokens", self.size_tokens.is_some()),
            ("shares", "--shares", self.shares.is_some()),
            ("batch", "--batch", self.batch.is_some()),
            ("order", "--order", self.order.is_some()),
            ("ranks", "--ranks", self.ranks.is_some()),
            ("prompts", "--prompts", self.prompts.is_some()),
            ("exhaustion", ends, self.until.is_some() || self.repeat.is_some()),
            ("output", "--output", self.output.is_some()),
            ("report", "--report", self.report.is_some()),
            ("plot", "--plot", self.plot.is_some()),
            ("tokenizer", "--tokenizer", self.tokenizer.is_some()),
            ("max_length_difference", "--max-length-difference", self.max_length_difference.is_some()),
            ("tokenizer_as", "--tokenizer-as", self.tokenizer_as.is_some()),
        ]
    }
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

/// Settings of a call: defaults, then the file, then --set, then flags.
fn resolve(args: &Args) -> Result<MixSettings> {
    let mut table = toml::Table::new();
    if let Some(path) = &args.config {
        // As settings first, so that an error names the line.
        read_toml::<MixSettings>(path)?;
        table = read_toml(path)?;
    }
    for text in &args.set {
        merge(&mut table, assignment(text).input()?);
    }
    let mut settings: MixSettings = toml::Value::Table(table)
        .try_into()
        .map_err(|error: toml::de::Error| Failure::input(format!("--set: {}", error.to_string().trim_end())))?;
    if !args.sources.is_empty() {
        let source = |spec: &SourceSpec| MixSource {
            age: None,
            name: spec.name.clone(),
            path: spec.path.clone().into(),
            weight: spec.weight,
        };
        settings.sources = args.sources.iter().map(source).collect();
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
    settings.tokenizer_as = args.tokenizer_as.unwrap_or(settings.tokenizer_as);
    settings.max_length_difference = args.max_length_difference.or(settings.max_length_difference);
    settings.messages |= args.messages;
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
            return Err(Failure::input(format!("source `{name}` has a weight in --source and one in --weights")));
        }
        settings.set_weights(text).map_err(|error| Failure::input(format!("--weights: {error}")))?;
    }
    Ok(settings)
}

/// The value that a flag's word stands for in a settings file.
fn word<T: serde::de::DeserializeOwned>(flag: &str, text: &str, expected: &str) -> Result<T> {
    flags::word(text).map_err(|_| Failure::input(format!("--{flag} is `{text}`, expected {expected}")))
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
