//! `simplemix inspect`: a summary of files of preference pairs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use simplemix_data::{
    Finding, Findings, PairReader, PairTokenizer, ReadOptions, ReadReport, Spread, Summarizer, Summary, Text,
    TokenizeOptions, TokenizerAs, Validator,
};
use simplemix_rollout::PromptSettings;

use crate::failure::{Fails, Result};
use crate::flags::word;
use crate::lines::{print, print_json};
use crate::progress::{Bar, bar};
use crate::reading::{Reading, check_denied, deny, files};

/// Summarise files of preference pairs: format, rows, sources, tasks, lengths, scores, problems
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
  simplemix inspect uf.parquet\n  \
  simplemix inspect train.parquet test.parquet --deny shared-prompt,identical-sides\n  \
  simplemix inspect train.parquet test.parquet --similar\n  \
  simplemix inspect train.parquet --held-out prompts.jsonl --deny shared-prompt,similar-prompt\n  \
  simplemix inspect shards/ --tokenizer ./smollm2\n  \
  simplemix inspect --json *.jsonl | jq .refused\n\n\
  See docs/data.md for formats, problems and the fields of --json")]
pub(crate) struct Args {
    /// Files, folders of shards, or patterns
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Print one JSON object per file
    #[arg(long)]
    json: bool,
    /// Model folder; its tokenizer counts tokens
    #[arg(long, value_name = "DIR")]
    tokenizer: Option<PathBuf>,
    /// Reading of a tokenizer that transformers 5 builds anew by its class: as tokenizer.json has it, or as transformers does
    /// [default: file]
    #[arg(long, value_name = "file|transformers", requires = "tokenizer", value_parser = word::<TokenizerAs>)]
    tokenizer_as: Option<TokenizerAs>,
    /// Also find nearly equal prompts in different files; needs 0.7 kB of memory per prompt
    #[arg(long)]
    similar: bool,
    /// Held-out prompts or pairs; report every prompt that the other files share with them
    #[arg(long, value_name = "FILE", alias = "held-back")]
    held_out: Vec<PathBuf>,
    /// Fail if a file has one of these problems (comma-separated names, or any)
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    deny: Vec<String>,
    #[command(flatten)]
    reading: Reading,
}

/// Summary of one file.
#[derive(Debug, Serialize)]
struct Found {
    #[serde(flatten)]
    report: ReadReport,
    #[serde(flatten)]
    summary: Summary,
    /// Lengths in tokens.
    tokens: Option<BTreeMap<&'static str, Spread>>,
    findings: Findings,
    /// Facts about the tokens that the user should know.
    notices: Vec<String>,
}

/// Number of texts of each length.
type Counts = BTreeMap<usize, u64>;

pub(crate) fn run(args: &Args) -> Result {
    check_denied(&args.deny)?;
    let options = args.reading.options()?;
    let tokenizer = args
        .tokenizer
        .as_ref()
        .map(|dir| {
            let tokenizer_as = args.tokenizer_as.unwrap_or_default();
            let options = TokenizeOptions { max_length: usize::MAX, tokenizer_as, ..TokenizeOptions::default() };
            PairTokenizer::from_dir(dir, options)
        })
        .transpose()
        .input()?;
    let files = files(&args.files)?;
    let bar = bar("reading", 0);
    let (mut all, mut validator) = (Vec::new(), Validator::default());
    if args.similar || args.deny.iter().any(|name| name == Finding::SimilarPrompt.name()) {
        validator = validator.with_similar_prompts(0.8);
    }
    if let Some(tokenizer) = &tokenizer {
        let tokens = tokenizer.inner().get_added_tokens_decoder();
        let special = tokens.values().filter(|token| token.special).map(|token| token.content.clone());
        validator = validator.with_special_tokens(special.collect());
    }
    if !args.held_out.is_empty() {
        validator.file();
        for prompt in held_out(&args.held_out)? {
            validator.see_prompt(&prompt);
        }
    }
    for file in &files {
        validator.file();
        all.push(found(file, &options, tokenizer.as_ref(), &mut validator, &bar)?);
    }
    bar.finish_and_clear();
    let findings = validator.finish().into_iter().skip(usize::from(!args.held_out.is_empty()));
    for (found, findings) in all.iter_mut().zip(findings) {
        found.findings = findings;
        if args.json {
            print_json(&serde_json::to_string(&found).run()?);
        } else {
            show(found);
        }
    }
    all.iter().try_for_each(|found| deny(&args.deny, &found.report, &found.findings))
}

/// Prompts in files of prompts or pairs.
fn held_out(paths: &[PathBuf]) -> Result<Vec<Text>> {
    let settings = PromptSettings { files: files(paths)?, ..PromptSettings::default() };
    let (prompts, notices) = settings.prompts_and_notices().input()?;
    notices.iter().for_each(|notice| tracing::warn!("{notice}"));
    Ok(prompts.into_iter().map(|prompt| prompt.prompt).collect())
}

fn found(
    file: &Path,
    options: &ReadOptions,
    tokenizer: Option<&PairTokenizer>,
    validator: &mut Validator,
    bar: &Bar,
) -> Result<Found> {
    let mut reader = PairReader::open(file, options).input()?;
    let mut summarizer = Summarizer::default();
    let mut lengths: BTreeMap<&'static str, Counts> = BTreeMap::new();
    let mut notices: Vec<String> = tokenizer.map(|it| it.folder_notices().to_vec()).unwrap_or_default();
    let mut looked_at_tokens = false;
    while let Some(pairs) = reader.next_pairs().input()? {
        bar.inc(pairs.len() as u64);
        if let Some(tokenizer) = tokenizer {
            if !std::mem::replace(&mut looked_at_tokens, true) {
                notices.extend(tokenizer.reading_notice(&pairs).input()?);
            }
            for (_, pair) in tokenizer.encode_all(&pairs).input()?.pairs {
                for (name, ids) in [("prompt", &pair.prompt), ("chosen", &pair.chosen), ("rejected", &pair.rejected)] {
                    *lengths.entry(name).or_default().entry(ids.len()).or_default() += 1;
                }
            }
        }
        for pair in pairs {
            validator.see(&pair);
            summarizer.see(&pair);
        }
    }
    let tokens = lengths.iter().filter_map(|(name, counts)| Some((*name, Spread::of_counts(counts)?))).collect();
    Ok(Found {
        report: reader.report().clone(),
        summary: summarizer.finish(),
        tokens: tokenizer.map(|_| tokens),
        findings: Findings::new(),
        notices,
    })
}

fn show(found: &Found) {
    print(&found.report.to_string());
    let counts = [
        ("source", &found.summary.sources),
        ("policy", &found.summary.policies),
        ("task", &found.summary.tasks),
        ("generator", &found.summary.generators),
    ];
    for (name, counts) in counts {
        const SHOWN: usize = 12;
        for (value, count) in counts.iter().take(SHOWN) {
            print(&format!("  {name:<10} {value:<24} {count:>9}"));
        }
        if counts.len() > SHOWN {
            print(&format!("  {name:<10} {:<24}", format!("and {} more", counts.len() - SHOWN)));
        }
    }
    print(&format!(
        "  {:<10} {:<12} {:>9} {:>9} {:>9} {:>9} {:>9}  min to max",
        "", "", "min", "25 %", "50 %", "75 %", "max"
    ));
    let lengths = found.summary.chars.iter().map(|(name, spread)| (*name, "characters", 0, spread));
    let tokens = found.tokens.iter().flatten().map(|(name, spread)| (*name, "tokens", 0, spread));
    let of = &found.summary;
    let scores = [("chosen", &of.score_chosen), ("rejected", &of.score_rejected), ("margin", &of.score_margin)];
    let scores = scores.into_iter().filter_map(|(name, spread)| Some((name, "score", 3, spread.as_ref()?)));
    for (name, unit, digits, s) in lengths.chain(tokens).chain(scores) {
        let [min, q25, median, q75, max] = [s.min, s.q25, s.median, s.q75, s.max].map(|x| format!("{x:.digits$}"));
        let bars = bars(&s.histogram);
        print(&format!("  {name:<10} {unit:<12} {min:>9} {q25:>9} {median:>9} {q75:>9} {max:>9}  {bars}"));
    }
    for notice in &found.notices {
        print(&format!("  note: {notice}"));
    }
    for (finding, rows) in &found.findings {
        print(&format!("  found: {finding} {}, first in rows {:?}", rows.count, rows.first_rows));
    }
}

/// Bar chart of a histogram; the largest bin has the full height.
fn bars(histogram: &[u64; 10]) -> String {
    const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = histogram.iter().copied().max().unwrap_or(0).max(1);
    histogram.iter().map(|&count| BARS[(count * 8).div_ceil(most) as usize]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_high_as_their_share_of_the_highest() {
        assert_eq!(bars(&[0, 1, 80, 40, 0, 0, 0, 0, 0, 0]), " ▁█▄      ");
        assert_eq!(bars(&[0; 10]), "          ");
    }
}
