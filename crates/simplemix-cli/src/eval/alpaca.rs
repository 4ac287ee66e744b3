//! `simplemix eval alpaca`: figures of AlpacaEval 2.0 from annotations.

use std::path::PathBuf;

use simplemix_eval::alpaca::{
    Annotations, Bootstrap, Comparison, Entry, Instruction, Interval, LeaderboardOptions, LengthControl, compare,
    is_extreme_change, leaderboard, read_annotations, read_categories, read_weights,
};
use simplemix_eval::table;

use crate::eval::alpaca_inputs::length_control;
use crate::eval::alpaca_names::{Read, Renamed, keep_apart};
use crate::failure::{Fails, Failure, Result};
use crate::lines::{print_json, print_lines, warn};
use crate::reading::files;

/// Compute AlpacaEval 2.0 from a judge's annotations, with length-controlled win rates
///
/// Annotations are the official package's JSON, or Parquet with the columns preference, model, row, instruction_id,
/// len_1 and len_2. A file may hold several models; verdicts of several judges or against several baselines are kept apart.
/// Length-controlled win rates need a constant file of the official
/// package, df_gamed.csv; docs/evaluation.md explains where to get it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
  simplemix eval alpaca --annotations results/*/annotations.json\n  \
  simplemix eval alpaca --annotations verdicts.parquet --gamed df_gamed.csv --json\n  \
  simplemix eval alpaca --annotations a.json b.json --pairwise --by-category")]
pub(crate) struct Args {
    /// Annotations of a judge: the official package's JSON, or Parquet; both may be compressed by gzip
    #[arg(long, value_name = "FILE", num_args = 1.., required = true)]
    annotations: Vec<PathBuf>,
    /// Difficulty of each instruction, instruction_difficulty.csv [default: from --gamed, or the official package's
    /// cache]
    #[arg(long, value_name = "FILE")]
    difficulty: Option<PathBuf>,
    /// Verdicts on the baseline told to be verbose or concise, df_gamed.csv [default: the official package's cache]
    #[arg(long, value_name = "FILE")]
    gamed: Option<PathBuf>,
    /// Download df_gamed.csv from the Hugging Face hub if it is missing
    #[arg(long)]
    fetch: bool,
    /// Published weights of the regression by model, the official package's baseline_*.csv; other models are fitted
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Name of the baseline, for annotations that do not name it
    #[arg(long, value_name = "NAME", default_value = "gpt4_1106_preview")]
    baseline: String,
    /// Category of each instruction: CSV or JSON with category and instruction or instruction_id; implies --by-category
    #[arg(long, value_name = "FILE")]
    categories: Option<PathBuf>,
    /// Also print the figures of each category, by default the data sets of the annotations
    #[arg(long)]
    by_category: bool,
    /// Number of bootstrap replicates for 95 % intervals; 0 turns intervals off [default: 1000, or 0 with --json]
    #[arg(long, value_name = "N")]
    bootstrap: Option<u32>,
    /// Random seed of the bootstrap
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Also compare each pair of models on the instructions that both were judged on
    #[arg(long)]
    pairwise: bool,
    /// Print all figures as JSON, under the official leaderboard's column names
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result {
    let (mut models, renamed) = read(args)?;
    let control = length_control(args.gamed.as_deref(), args.difficulty.as_deref(), args.fetch)?;
    let mut weights = args.weights.as_deref().map(read_weights).transpose().input()?;
    if let Some(weights) = &mut weights {
        let own: Vec<_> = renamed.into_iter().filter_map(|name| Some((name.to, *weights.get(&name.from)?))).collect();
        weights.extend(own);
    }
    if let Some(path) = &args.categories {
        categorise(&mut models, path)?;
    }
    let replicates = args.bootstrap.unwrap_or(if args.json { 0 } else { 1000 });
    let options = LeaderboardOptions {
        length_control: control.as_ref(),
        weights: weights.as_ref(),
        bootstrap: (replicates > 0).then_some(Bootstrap { replicates, seed: args.seed }),
        by_category: args.by_category || args.categories.is_some(),
    };
    let entries = leaderboard(&models, &options);
    let notices: Vec<Vec<String>> = entries.iter().map(|entry| notices(&models, entry)).collect();
    notices.iter().flatten().for_each(|notice| warn(notice));
    let comparisons = if args.pairwise { comparisons(&models, &entries, control.as_ref()) } else { Vec::new() };
    if args.json {
        print_json(&json(&entries, &comparisons, notices).run()?);
    } else {
        print_lines(&leaderboard_table(&entries));
        if options.by_category {
            print_lines(&format!("\n{}", category_table(&entries)));
        }
        if args.pairwise {
            print_lines(&format!("\n{}", comparison_table(&comparisons)));
        }
    }
    without_verdicts(&entries)
}

/// Reads the models of all files; those with one name are named apart.
fn read(args: &Args) -> Result<(Vec<Annotations>, Vec<Renamed>)> {
    let mut all: Vec<Read> = Vec::new();
    for path in files(&args.annotations)? {
        for mut annotations in read_annotations(&path).input()? {
            annotations.baseline.get_or_insert_with(|| args.baseline.clone());
            all.push(Read { path: path.clone(), annotations });
        }
    }
    let renamed = keep_apart(&mut all)?;
    Ok((all.into_iter().map(|read| read.annotations).collect(), renamed))
}

/// Fails if a model has no verdict, whose win rate would be the mean of nothing.
fn without_verdicts(entries: &[Entry]) -> Result {
    let names: Vec<&str> =
        entries.iter().filter(|entry| entry.plain.n_total == 0).map(|entry| entry.model.as_str()).collect();
    match names.is_empty() {
        true => Ok(()),
        false => Err(Failure::Run(anyhow::anyhow!("no verdict on {}, expected some", names.join(", ")))),
    }
}

fn categorise(models: &mut [Annotations], path: &std::path::Path) -> Result {
    let mut notices = Vec::new();
    let categories = read_categories(path, &mut notices).input()?;
    notices.iter().for_each(|notice| warn(notice));
    let mut unknown = 0;
    for row in models.iter_mut().flat_map(|model| &mut model.rows) {
        let place = || Instruction::Number(row.row as i64);
        row.category = row.instruction.clone().or_else(|| Some(place())).and_then(|key| categories.get(&key).cloned());
        unknown += usize::from(row.category.is_none());
    }
    if unknown > 0 {
        warn(&format!("--categories {}: no category for the instructions of {unknown} rows", path.display()));
    }
    Ok(())
}

/// Unusual rows and figures of a model, in words.
fn notices(models: &[Annotations], entry: &Entry) -> Vec<String> {
    let mut notices = Vec::new();
    for model in models.iter().filter(|model| model.model == entry.model) {
        let clauses = model.findings().clauses();
        if !clauses.is_empty() {
            notices.push(format!("{}: {} rows, {}", model.model, model.rows.len(), clauses.join("; ")));
        }
    }
    notices.extend(entry.note.clone());
    let controlled = entry.length_controlled_winrate;
    if let Some(rate) = controlled.filter(|rate| is_extreme_change(entry.plain.win_rate, *rate)) {
        let (model, plain) = (&entry.model, entry.plain.win_rate);
        notices.push(format!(
            "{model}: length-controlled win rate {rate:.1} is far from the plain one, {plain:.1}; the fit may have failed"
        ));
    }
    notices
}

fn comparisons(models: &[Annotations], entries: &[Entry], control: Option<&LengthControl>) -> Vec<Comparison> {
    let of = |entry: &Entry| models.iter().find(|model| model.model == entry.model);
    let ordered: Vec<&Annotations> = entries.iter().filter_map(of).collect();
    let weights: Vec<_> = entries.iter().map(|entry| entry.glm_weights).collect();
    compare(&ordered, &weights, control.map_or(&[], LengthControl::difficulty))
}

fn json(entries: &[Entry], comparisons: &[Comparison], notices: Vec<Vec<String>>) -> serde_json::Result<String> {
    let mut rows = Vec::new();
    for (entry, notices) in entries.iter().zip(notices) {
        let mut row = serde_json::to_value(entry)?;
        let own: Vec<&Comparison> = comparisons.iter().filter(|c| c.model == entry.model).collect();
        if !own.is_empty() {
            row["pairwise"] = serde_json::to_value(own)?;
        }
        if !notices.is_empty() {
            row["notices"] = notices.into();
        }
        rows.push(row);
    }
    serde_json::to_string_pretty(&rows)
}

fn leaderboard_table(entries: &[Entry]) -> String {
    let headings =
        ["model", "LC win rate", "95 %", "win rate", "95 %", "s.e.", "wins", "losses", "draws", "verdicts", "length"];
    let row = |entry: &Entry| {
        let plain = &entry.plain;
        vec![
            entry.model.clone(),
            entry.length_controlled_winrate.map_or_else(|| "-".to_owned(), rate),
            entry.lc_interval.map_or_else(String::new, bounds),
            rate(plain.win_rate),
            entry.win_rate_interval.map_or_else(String::new, bounds),
            rate(plain.standard_error),
            plain.n_wins.to_string(),
            plain.n_wins_base.to_string(),
            plain.n_draws.to_string(),
            plain.n_total.to_string(),
            plain.avg_length.map_or_else(|| "-".to_owned(), |length| length.to_string()),
        ]
    };
    table(&headings, &entries.iter().map(row).collect::<Vec<_>>())
}

fn category_table(entries: &[Entry]) -> String {
    let rows = entries.iter().flat_map(|entry| {
        entry.categories.iter().map(|found| {
            let name = if found.category.is_empty() { "(none)" } else { &found.category };
            vec![
                format!("{}: {name}", entry.model),
                found.length_controlled_winrate.map_or_else(|| "-".to_owned(), rate),
                rate(found.win_rate),
                rate(found.standard_error),
                found.n.to_string(),
            ]
        })
    });
    table(&["model: category", "LC win rate", "win rate", "s.e.", "verdicts"], &rows.collect::<Vec<_>>())
}

fn comparison_table(comparisons: &[Comparison]) -> String {
    let row = |c: &Comparison| {
        vec![
            format!("{} - {}", c.model, c.other),
            if c.n == 0 { "-".to_owned() } else { format!("{:+.2}", c.difference) },
            rate(c.standard_error),
            if c.n < 2 { "-".to_owned() } else { format!("{:.4}", c.p_value) },
            if c.n < 2 { "-".to_owned() } else { format!("{:.4}", c.p_holm) },
            c.length_controlled_winrate.map_or_else(|| "-".to_owned(), rate),
            c.n.to_string(),
        ]
    };
    let headings = ["difference of win rates", "points", "s.e.", "p", "p (Holm)", "LC head to head", "shared"];
    table(&headings, &comparisons.iter().map(row).collect::<Vec<_>>())
}

fn rate(value: f64) -> String {
    if value.is_nan() { "-".to_owned() } else { format!("{value:.2}") }
}

fn bounds(interval: Interval) -> String {
    format!("{:.1} to {:.1}", interval.low, interval.high)
}
