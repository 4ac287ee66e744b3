//! `simplemix report`: comparison of runs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use simplemix_eval::read_outputs;
use simplemix_eval::report::{PngFiles, Report, group, read_run};

use crate::claims::claim_folder;
use crate::failure::{Fails, Failure, Result};
use crate::lines::{print, warn};
use crate::progress::bar;

/// Compare runs on one page with tables, curves, bars and responses; also as Markdown, CSV and single plots
///
/// Runs that differ only in their seed and output are one arm. The folder of a run, or its subfolder eval/, may also
/// hold alpaca.json (from `simplemix eval alpaca --json`) and model_outputs.json (from `simplemix eval generate`).
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
  simplemix report runs/* -o comparison\n  \
  simplemix report runs/* --group on-policy=runs/on-1,runs/on-2 --group mixed=runs/mix-1,runs/mix-2 -o comparison\n  \
  simplemix report runs/dpo --outputs before=base/model_outputs.json --samples 10")]
pub(crate) struct Args {
    /// Folders of the runs to compare
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// Folder to write report.html, report.md, arms.csv, runs.csv and plots/ into
    #[arg(short, long, value_name = "DIR", default_value = "report")]
    output: PathBuf,
    /// Put runs into one arm under a name; may be given several times
    #[arg(long, value_name = "NAME=RUN,RUN,..", value_parser = named)]
    group: Vec<(String, String)>,
    /// Also show the responses of another model under a name, in the format of model_outputs.json; may be given several
    /// times
    #[arg(long, value_name = "NAME=FILE", value_parser = named)]
    outputs: Vec<(String, String)>,
    /// Number of prompts whose responses are shown
    #[arg(long, value_name = "N", default_value_t = 5)]
    samples: usize,
    /// Title of the page
    #[arg(long, value_name = "TEXT", default_value = "Comparison of runs")]
    title: String,
}

fn named(text: &str) -> std::result::Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=...")?;
    if name.is_empty() || value.is_empty() {
        return Err("expected NAME=..., with text on both sides".to_owned());
    }
    Ok((name.to_owned(), value.to_owned()))
}

pub(crate) fn run(args: &Args) -> Result {
    let groups = groups(args)?;
    let _claims = claim_folder(&args.output)?;
    let reading = bar("reading", args.runs.len() as u64);
    let read = |path: &PathBuf| {
        let run = read_run(path).input();
        reading.inc(1);
        run
    };
    let runs = args.runs.par_iter().map(read).collect::<Result<Vec<_>>>()?;
    reading.finish_and_clear();
    let mut notices: Vec<String> = runs.iter().flat_map(|run| run.notices.clone()).collect();
    let mut outputs = Vec::new();
    for (name, path) in &args.outputs {
        outputs.push((name.clone(), read_outputs(Path::new(path), &mut notices).input()?));
    }
    notices.iter().for_each(|notice| warn(notice));
    let arms = group(&runs, &groups);
    let report = Report { title: args.title.clone(), runs, arms, outputs, samples: args.samples };
    let written = report.write(&args.output).run()?;
    match written.png {
        PngFiles::NoFonts => warn("this system has no fonts, so the plots are SVG only"),
        PngFiles::NotBuilt => warn("this build draws SVG only; build it with `--features png` for PNG too"),
        _ => {}
    }
    let page = args.output.join("report.html");
    print(&format!("{}: {} runs in {} arms", page.display(), report.runs.len(), report.arms.len()));
    for arm in &report.arms {
        let names: Vec<&str> = arm.runs.iter().map(|run| report.runs[*run].name.as_str()).collect();
        print(&format!("  {}: {}", arm.name, names.join(", ")));
    }
    Ok(())
}

/// Arm of each run that `--group` names, by the index of the run.
fn groups(args: &Args) -> Result<BTreeMap<usize, String>> {
    let mut groups = BTreeMap::new();
    let same = |a: &Path, b: &Path| {
        a == b || std::fs::canonicalize(a).ok().zip(std::fs::canonicalize(b).ok()).is_some_and(|(a, b)| a == b)
    };
    for (name, members) in &args.group {
        for member in members.split(',') {
            let Some(place) = args.runs.iter().position(|run| same(run, Path::new(member))) else {
                return Err(Failure::input(format!("--group {name}: `{member}` is not one of the runs")));
            };
            if let Some(other) = groups.insert(place, name.clone()) {
                return Err(Failure::input(format!("--group: `{member}` is in both {other} and {name}, expected one")));
            }
        }
    }
    Ok(groups)
}
