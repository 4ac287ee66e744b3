//! `simplemix inspect`: what a file of preference pairs holds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use simplemix_data::{PairReader, ReadOptions, ReadReport};

use crate::failure::{Fails, Result};
use crate::progress::print;

/// Say what files of preference pairs hold: format, rows, sources, tasks, lengths, problems
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  simplemix inspect uf.parquet\n  simplemix inspect --json *.jsonl | jq .refused")]
pub(crate) struct Args {
    /// Parquet, Arrow IPC, JSONL or JSON files
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// One JSON object a file
    #[arg(long)]
    json: bool,
}

/// What was found in one file.
#[derive(Debug, Serialize)]
struct Findings {
    #[serde(flatten)]
    report: ReadReport,
    sources: BTreeMap<String, u64>,
    policies: BTreeMap<String, u64>,
    tasks: BTreeMap<String, u64>,
    chars: BTreeMap<&'static str, Quantiles>,
    score_margin: Option<Quantiles>,
}

/// Least, quarter points and greatest of some values.
#[derive(Debug, Clone, Copy, Serialize)]
struct Quantiles {
    min: f64,
    q25: f64,
    median: f64,
    q75: f64,
    max: f64,
}

pub(crate) fn run(args: &Args) -> Result {
    for file in &args.files {
        let found = findings(file)?;
        if args.json {
            print(&serde_json::to_string(&found).run()?);
        } else {
            show(&found);
        }
    }
    Ok(())
}

fn findings(file: &Path) -> Result<Findings> {
    let mut reader = PairReader::open(file, &ReadOptions::default()).input()?;
    let (mut sources, mut policies, mut tasks) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let mut lengths: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
    let mut margins = Vec::new();
    while let Some(pairs) = reader.next_pairs().input()? {
        for pair in pairs {
            for (name, text) in [("prompt", &pair.prompt), ("chosen", &pair.chosen), ("rejected", &pair.rejected)] {
                lengths.entry(name).or_default().push(text.chars() as f64);
            }
            margins.extend(pair.margin());
            *policies.entry(pair.policy.to_string()).or_default() += 1;
            *sources.entry(pair.source).or_default() += 1;
            if let Some(task) = pair.task {
                *tasks.entry(task).or_default() += 1;
            }
        }
    }
    let chars = lengths.into_iter().filter_map(|(name, values)| Some((name, quantiles(values)?))).collect();
    Ok(Findings { report: reader.report().clone(), sources, policies, tasks, chars, score_margin: quantiles(margins) })
}

fn quantiles(mut values: Vec<f64>) -> Option<Quantiles> {
    values.sort_unstable_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    let at = |share: f64| values[(share * last as f64).round() as usize];
    Some(Quantiles { min: at(0.0), q25: at(0.25), median: at(0.5), q75: at(0.75), max: at(1.0) })
}

fn show(found: &Findings) {
    print(&found.report.to_string());
    for (name, counts) in [("source", &found.sources), ("policy", &found.policies), ("task", &found.tasks)] {
        for (value, count) in counts {
            print(&format!("  {name:<9} {value:<24} {count:>9}"));
        }
    }
    print(&format!("  {:<9} {:<24} {:>9} {:>7} {:>7} {:>7} {:>7}", "", "", "min", "25 %", "50 %", "75 %", "max"));
    for (name, q) in &found.chars {
        print(&format!(
            "  {name:<9} {:<24} {:>9.0} {:>7.0} {:>7.0} {:>7.0} {:>7.0}",
            "characters", q.min, q.q25, q.median, q.q75, q.max
        ));
    }
    if let Some(q) = found.score_margin {
        print(&format!(
            "  {:<9} {:<24} {:>9.3} {:>7.3} {:>7.3} {:>7.3} {:>7.3}",
            "margin", "of scores", q.min, q.q25, q.median, q.q75, q.max
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_a_row_of_numbers() {
        let q = quantiles((0..=100).rev().map(f64::from).collect()).unwrap();
        assert_eq!([q.min, q.q25, q.median, q.q75, q.max], [0.0, 25.0, 50.0, 75.0, 100.0]);
        assert!(quantiles(Vec::new()).is_none());
    }
}
