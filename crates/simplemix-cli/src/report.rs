//! `simplemix report`: runs side by side.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use simplemix_eval::report::{Report, group, read_outputs, read_run};

use crate::failure::{Fails, Failure, Result};
use crate::progress::{bar, print, warn};

/// Compare runs: one page with tables over seeds, curves, bars and answers; also as Markdown, CSV and single plots
///
/// Runs whose settings differ in nothing but the seed are one arm. A run's folder may also hold alpaca.json (written by
/// `simplemix eval alpaca --json`) and model_outputs.json, or have them in its folder eval/.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
  simplemix report runs/* -o comparison\n  \
  simplemix report runs/* --group on-policy=runs/on-1,runs/on-2 --group mixed=runs/mix-1,runs/mix-2 -o comparison\n  \
  simplemix report runs/dpo --outputs before=base/model_outputs.json --samples 10")]
pub(crate) struct Args {
    /// Folders of runs
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// Folder for report.html, report.md, arms.csv, runs.csv and plots/
    #[arg(short, long, value_name = "DIR", default_value = "report")]
    output: PathBuf,
    /// Runs that are one arm, by name; give it several times
    #[arg(long, value_name = "NAME=RUN,RUN,..", value_parser = named)]
    group: Vec<(String, String)>,
    /// Answers of a further model, shown beside those of the runs; give it several times
    #[arg(long, value_name = "NAME=FILE", value_parser = named)]
    outputs: Vec<(String, String)>,
    /// Prompts whose answers are shown
    #[arg(long, value_name = "N", default_value_t = 5)]
    samples: usize,
    /// Headline
    #[arg(long, value_name = "TEXT", default_value = "Comparison of runs")]
    title: String,
}

fn named(text: &str) -> std::result::Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=...")?;
    if name.is_empty() || value.is_empty() {
        return Err("expected a name and what it stands for".to_owned());
    }
    Ok((name.to_owned(), value.to_owned()))
}

pub(crate) fn run(args: &Args) -> Result {
    let groups = groups(args)?;
    let reading = bar("reading", args.runs.len() as u64);
    let read = |path: &PathBuf| {
        let run = read_run(path).input();
        reading.inc(1);
        run
    };
    let runs = args.runs.par_iter().map(read).collect::<Result<Vec<_>>>()?;
    reading.finish_and_clear();
    let answers = args.outputs.iter().map(|(name, path)| Ok((name.clone(), read_outputs(Path::new(path)).input()?)));
    let answers = answers.collect::<Result<_>>()?;
    let arms = group(&runs, &groups);
    let report = Report { title: args.title.clone(), runs, arms, answers, samples: args.samples };
    let written = report.write(&args.output).run()?;
    if written.without_png {
        warn("this system has no fonts, so the plots are SVG only");
    }
    let page = args.output.join("report.html");
    print(&format!("{}: {} runs in {} arms", page.display(), report.runs.len(), report.arms.len()));
    for arm in &report.arms {
        let names: Vec<&str> = arm.runs.iter().map(|run| report.runs[*run].name.as_str()).collect();
        print(&format!("  {}: {}", arm.name, names.join(", ")));
    }
    Ok(())
}

/// The arm of each run that `--group` names, by the run's place.
fn groups(args: &Args) -> Result<BTreeMap<usize, String>> {
    let mut groups = BTreeMap::new();
    let same = |a: &Path, b: &Path| {
        a == b || std::fs::canonicalize(a).ok().zip(std::fs::canonicalize(b).ok()).is_some_and(|(a, b)| a == b)
    };
    for (name, members) in &args.group {
        for member in members.split(',') {
            let Some(place) = args.runs.iter().position(|run| same(run, Path::new(member))) else {
                return Err(Failure::input(format!("--group {name}: `{member}` is not among the runs")));
            };
            if let Some(other) = groups.insert(place, name.clone()) {
                return Err(Failure::input(format!("--group: `{member}` is in {other} and in {name}")));
            }
        }
    }
    Ok(groups)
}
