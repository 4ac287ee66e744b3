//! `simplemix pair`: on-policy pairs from scored candidates.

use std::path::PathBuf;

use simplemix_rollout::{PairReport, PairSettings, Preset, Select, SelectSettings, pair};

use crate::claims::claim_files;
use crate::failure::{Failure, Result};
use crate::flags::{Output, flagged, on_terminal, word};
use crate::lines::print;

/// Choose preference pairs among scored candidates, and count the prompts without a pair by reason
///
/// The output has the canonical columns with policy on (see --policy-generators), and prompt_id, temperature, candidates (number of responses a pair
/// was chosen from), reference (side that is the reference response, if one is), tokens and log-probabilities of both sides.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
  simplemix pair --candidates scored.parquet -o on.parquet\n  \
  simplemix pair --candidates scored.parquet --select all-gaps --min-gap 2 -o on.parquet\n  \
  simplemix pair --candidates scored.parquet --preset dno --min-gap 1 -o on.parquet\n  \
  simplemix pair --candidates pool.parquet --select delta --chosen-generators Qwen3-32B --rejected-generators Qwen3-0.6B -o delta.parquet")]
pub(crate) struct Args {
    /// File of scored candidates
    #[arg(long, value_name = "FILE")]
    candidates: PathBuf,
    #[command(flatten)]
    rule: Rule,
    /// Random seed, for --select mix-r [default: 42]
    #[arg(long)]
    seed: Option<u64>,
    /// Column of scores to choose by
    #[arg(long, value_name = "COLUMN", default_value = "score")]
    by: String,
    /// Name for the source column
    #[arg(long, value_name = "NAME", default_value = "on_policy")]
    source_name: String,
    /// Names of the model in training in the column generator, for candidates of several models: a pair is on-policy if it wrote
    /// both sides [default: every pair is on-policy, but for --select delta]
    #[arg(long, value_name = "GENERATOR,...", value_delimiter = ',')]
    policy_generators: Option<Vec<String>>,
    #[command(flatten)]
    output: Output,
}

/// Rule by which pairs are chosen.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Pairs")]
pub(crate) struct Rule {
    /// Rule of a paper, which other flags change: simplemix and simpo (best against worst), rs-dpo (every gap that is large
    /// enough), dno (large gaps, the reference as a teacher), dpo-mix-r (one pair, drawn by its gap)
    #[arg(long, value_name = "simplemix|simpo|rs-dpo|dno|dpo-mix-r")]
    pub(crate) preset: Option<Preset>,
    /// Rule by which pairs of a prompt are chosen: best-worst (one pair), max-min-gap (the largest gap within the bounds),
    /// all-gaps (every pair within the bounds), threshold (good against bad responses in turn), dno (as all-gaps, with the
    /// reference on the chosen side only), mix-r (one pair within the bounds, drawn by its gap), delta (by the models that wrote
    /// the responses, without scores) [default: best-worst]
    #[arg(
        long,
        value_name = "best-worst|max-min-gap|all-gaps|threshold|dno|mix-r|delta",
        value_parser = word::<Select>
    )]
    select: Option<Select>,
    /// Let the reference response take part as one more response; it must have a score
    #[arg(long)]
    reference: bool,
    /// Smallest gap between the scores of a pair [default: any gap > 0]
    #[arg(long, value_name = "GAP")]
    min_gap: Option<f64>,
    /// Largest gap between the scores of a pair [default: no limit]
    #[arg(long, value_name = "GAP")]
    max_gap: Option<f64>,
    /// Score from which a response is good, for --select threshold
    #[arg(long, value_name = "SCORE")]
    threshold: Option<f64>,
    /// Largest number of pairs of a prompt [default: no limit]
    #[arg(long, value_name = "N")]
    max_pairs: Option<u64>,
    /// Leave out responses that did not end by themselves: cut at the limit of new tokens, filtered, or of unknown end
    #[arg(long)]
    finished: bool,
    /// Factor that turns a gap into log-odds, for --select mix-r; training needs the same
    #[arg(long, value_name = "SCALE")]
    reward_margin_scale: Option<f64>,
    /// Share of prompts whose pair --select mix-r draws uniformly [default: as in theory, by weights]
    #[arg(long, value_name = "SHARE")]
    uniform_share: Option<f64>,
    /// Models whose responses are chosen, for --select delta
    #[arg(long, value_name = "GENERATOR,...", value_delimiter = ',')]
    chosen_generators: Vec<String>,
    /// Models whose responses are rejected, for --select delta
    #[arg(long, value_name = "GENERATOR,...", value_delimiter = ',')]
    rejected_generators: Vec<String>,
}

impl Rule {
    /// Settings of selection; `seed` is used by the rule `mix-r` only.
    pub(crate) fn settings(&self, seed: u64) -> Result<SelectSettings> {
        let base = self.preset.map_or_else(SelectSettings::default, Preset::select);
        let select = self.select.unwrap_or(base.select);
        let settings = SelectSettings {
            select,
            reference: self.reference || base.reference,
            min_gap: self.min_gap.unwrap_or(base.min_gap),
            max_gap: self.max_gap.or(base.max_gap),
            threshold: self.threshold.or(base.threshold),
            max_pairs: self.max_pairs.or(base.max_pairs),
            finished: self.finished || base.finished,
            reward_margin_scale: self.reward_margin_scale.or(base.reward_margin_scale),
            uniform_share: self.uniform_share.or(base.uniform_share),
            seed: if select == Select::MixR { seed } else { 0 },
            chosen_generators: self.chosen_generators.clone(),
            rejected_generators: self.rejected_generators.clone(),
        };
        settings.check().map_err(flagged)?;
        let gives_one = matches!(select, Select::BestWorst | Select::MaxMinGap | Select::MixR);
        match self.max_pairs.filter(|_| gives_one) {
            Some(most) => Err(Failure::input(format!(
                "--max-pairs is {most}, expected none: the rule gives one pair for each prompt"
            ))),
            None => Ok(settings),
        }
    }
}

pub(crate) fn run(args: &Args) -> Result {
    let select = args.rule.settings(args.seed.unwrap_or(42))?;
    if let Some(seed) = args.seed.filter(|_| select.select != Select::MixR) {
        return Err(Failure::input(format!("--seed is {seed}, expected none: only --select mix-r draws pairs")));
    }
    let settings = PairSettings {
        select,
        by: args.by.clone(),
        source: args.source_name.clone(),
        policy_generators: args.policy_generators.clone(),
        overwrite: args.output.overwrite,
        ..PairSettings::new(&args.candidates, &args.output.path)
    };
    let _claims = claim_files(&[("output", &settings.output)])?;
    let report = on_terminal(|terminal| pair(&settings, terminal)).map_err(flagged)?;
    args.output.summary.print(&report, |report| say(report, &settings))
}

/// Prints the summary of pairing.
pub(crate) fn say(report: &PairReport, settings: &PairSettings) {
    let output = settings.output.display();
    let PairReport { prompts, paired, pairs, mean_gap, .. } = report;
    let gap = mean_gap.map(|gap| format!("; mean gap {gap:.3}")).unwrap_or_default();
    print(&format!("{output}: {pairs} pairs from {paired} of {prompts} prompts{gap}"));
    if report.with_reference > 0 {
        print(&format!("  {} pairs with a reference response", report.with_reference));
    }
    if report.without_text > 0 {
        print(&format!("  {} responses without text left out", report.without_text));
    }
    if report.unfinished > 0 {
        print(&format!(
            "  {} responses left out that did not end by themselves, or whose end is unknown",
            report.unfinished
        ));
    }
    if report.of_other_generators > 0 {
        print(&format!("  {} responses left out of models that neither side names", report.of_other_generators));
    }
    if report.unreadable > 0 {
        print(&format!("  {} rows left out that are no objects, or no text", report.unreadable));
    }
    for (reason, count) in &report.dropped {
        print(&format!("  {count} prompts dropped: {}", reason.name()));
    }
}
