//! `simplemix inspect`: a summary of files of preference pairs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use simplemix_data::{
    Finding, Findings, PairReader, PairTokenizer, ReadOptions, ReadReport, Text, TokenizeOptions, TokenizerAs,
    Validator,
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
    sources: BTreeMap<String, u64>,
    policies: BTreeMap<String, u64>,
    tasks: BTreeMap<String, u64>,
    generators: BTreeMap<String, u64>,
    chars: BTreeMap<&'static str, Spread>,
    tokens: Option<BTreeMap<&'static str, Spread>>,
    score_chosen: Option<Spread>,
    score_rejected: Option<Spread>,
    score_margin: Option<Spread>,
    findings: Findings,
    /// Facts about the tokens that the user should know.
    notices: Vec<String>,
}

/// Number of texts of each length.
type Counts = BTreeMap<usize, u64>;

/// Minimum, quartiles and maximum of some values, and a histogram of ten equal bins between.
#[derive(Debug, Clone, Serialize)]
struct Spread {
    min: f64,
    q25: f64,
    median: f64,
    q75: f64,
    max: f64,
    histogram: [u64; 10],
}

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
    let mut counts: [BTreeMap<String, u64>; 4] = Default::default();
    let mut lengths: BTreeMap<(&str, &'static str), Counts> = BTreeMap::new();
    let mut scores: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
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
                    *lengths.entry(("tokens", name)).or_default().entry(ids.len()).or_default() += 1;
                }
            }
        }
        for pair in pairs {
            validator.see(&pair);
            for (name, text) in [("prompt", &pair.prompt), ("chosen", &pair.chosen), ("rejected", &pair.rejected)] {
                *lengths.entry(("chars", name)).or_default().entry(text.chars()).or_default() += 1;
            }
            for (name, score) in
                [("chosen", pair.score_chosen), ("rejected", pair.score_rejected), ("margin", pair.margin())]
            {
                scores.entry(name).or_default().extend(score);
            }
            let names = [Some(pair.source), Some(pair.policy.to_string()), pair.task, pair.generator];
            for (count, name) in counts.iter_mut().zip(names) {
                if let Some(name) = name {
                    *count.entry(name).or_default() += 1;
                }
            }
        }
    }
    let [sources, policies, tasks, generators] = counts;
    let of = |group: &'static str| -> BTreeMap<&'static str, Spread> {
        let of_group = lengths.iter().filter(|((of, _), _)| *of == group);
        of_group.filter_map(|((_, name), counts)| Some((*name, Spread::of_counts(counts)?))).collect()
    };
    let mut of_scores = |name| scores.remove(name).and_then(Spread::of_values);
    let (chars, tokens) = (of("chars"), of("tokens"));
    Ok(Found {
        report: reader.report().clone(),
        sources,
        policies,
        tasks,
        generators,
        chars,
        tokens: tokenizer.map(|_| tokens),
        score_chosen: of_scores("chosen"),
        score_rejected: of_scores("rejected"),
        score_margin: of_scores("margin"),
        findings: Findings::new(),
        notices,
    })
}

impl Spread {
    fn of_values(mut values: Vec<f64>) -> Option<Self> {
        values.sort_unstable_by(f64::total_cmp);
        Self::new(values.len() as u64, |place| values[place as usize], values.iter().map(|value| (*value, 1)))
    }

    fn of_counts(counts: &Counts) -> Option<Self> {
        let at = |place: u64| {
            let mut before = 0;
            let reached = |count: &u64| {
                before += count;
                before > place
            };
            let length = counts.keys().zip(counts.values().map(reached)).find(|(_, reached)| *reached);
            length.map_or(0.0, |(length, _)| *length as f64)
        };
        Self::new(counts.values().sum(), at, counts.iter().map(|(length, count)| (*length as f64, *count)))
    }

    /// The spread of `total` sorted values, of which `at` gives the one at a place.
    fn new(total: u64, mut at: impl FnMut(u64) -> f64, counted: impl Iterator<Item = (f64, u64)>) -> Option<Self> {
        let last = total.checked_sub(1)?;
        let [min, q25, median, q75, max] =
            [0.0, 0.25, 0.5, 0.75, 1.0].map(|share: f64| at((share * last as f64).round() as u64));
        let mut histogram = [0; 10];
        for (value, count) in counted {
            let place = if max > min { (value - min) / (max - min) * 10.0 } else { 0.0 };
            histogram[(place as usize).min(9)] += count;
        }
        Some(Self { min, q25, median, q75, max, histogram })
    }
}

fn show(found: &Found) {
    print(&found.report.to_string());
    let counts = [
        ("source", &found.sources),
        ("policy", &found.policies),
        ("task", &found.tasks),
        ("generator", &found.generators),
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
    let lengths = found.chars.iter().map(|(name, spread)| (*name, "characters", 0, spread));
    let tokens = found.tokens.iter().flatten().map(|(name, spread)| (*name, "tokens", 0, spread));
    let scores =
        [("chosen", &found.score_chosen), ("rejected", &found.score_rejected), ("margin", &found.score_margin)];
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
    fn spreads_have_quartiles_and_bins() {
        let counts: Counts = (0..=100).map(|length| (length, 1)).collect();
        for s in [Spread::of_values((0..=100).rev().map(f64::from).collect()), Spread::of_counts(&counts)] {
            let s = s.unwrap();
            assert_eq!([s.min, s.q25, s.median, s.q75, s.max], [0.0, 25.0, 50.0, 75.0, 100.0]);
            assert_eq!(s.histogram, [10, 10, 10, 10, 10, 10, 10, 10, 10, 11]);
        }
        let s = Spread::of_counts(&[(2, 3), (7, 1)].into()).unwrap();
        assert_eq!([s.min, s.q25, s.median, s.q75, s.max], [2.0, 2.0, 2.0, 2.0, 7.0]);
        assert_eq!((s.histogram[0], s.histogram[9]), (3, 1));
        assert!(Spread::of_values(Vec::new()).is_none() && Spread::of_counts(&Counts::new()).is_none());
        assert_eq!(bars(&[0, 1, 80, 40, 0, 0, 0, 0, 0, 0]), " ▁█▄      ");
        assert_eq!(Spread::of_values(vec![3.0, 3.0]).unwrap().histogram[0], 2);
    }
}
