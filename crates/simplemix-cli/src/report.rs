//! `simplemix report`: comparison of runs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use simplemix_eval::read_outputs;
use simplemix_eval::report::{PngFiles, Report, RunData, group, read_benchmarks, read_run, runs_of_sweep};

use crate::claims::claim_folder;
use crate::failure::{Fails, Failure, Result};
use crate::lines::{print, warn};
use crate::progress::bar;

/// Compare runs on one page with tables, differences, curves, bars and responses; also as Markdown, CSV and single plots
///
/// RUN is the folder of a training, of a pipeline or of a sweep, or a results file of lm-eval or lighteval. Runs that differ only in
/// their seed and output are one arm. The folder of a run, or its subfolder eval/, may also hold alpaca.json (from `simplemix eval
/// alpaca --json`), model_outputs.json (from `simplemix eval generate`) and results*.json (of lm-eval or lighteval).
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
  simplemix report runs/* -o comparison\n  \
  simplemix report runs/sweep runs/half-and-half --baseline half-and-half -o comparison\n  \
  simplemix report runs/dpo --results dpo=results_2026-11-30.json --results start=base.json -o comparison\n  \
  simplemix report runs/* --group on-policy=runs/on-1,runs/on-2 --group mixed=runs/mix-1,runs/mix-2 -o comparison\n  \
  simplemix report runs/dpo --outputs before=base/model_outputs.json --samples 10")]
pub(crate) struct Args {
    /// Folders of trainings, pipelines and sweeps, or results files, to compare
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// Folder to write report.html, report.md, arms.csv, runs.csv and plots/ into
    #[arg(short, long, value_name = "DIR", default_value = "report")]
    output: PathBuf,
    /// Put runs into one arm under a name; may be given several times
    #[arg(long, value_name = "NAME=RUN,RUN,..", value_parser = named)]
    group: Vec<(String, String)>,
    /// Arm that the others are compared with [default: the first]
    #[arg(long, value_name = "ARM")]
    baseline: Option<String>,
    /// Add a results file of lm-eval or lighteval to the run whose folder has this name, or as a run of this name; may be given
    /// several times
    #[arg(long, value_name = "NAME=FILE", value_parser = named)]
    results: Vec<(String, String)>,
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
    let paths = expanded(&args.runs)?;
    let groups = groups(args, &paths)?;
    let _claims = claim_folder(&args.output)?;
    let reading = bar("reading", paths.len() as u64);
    let read = |path: &PathBuf| {
        let run = read_run(path).input();
        reading.inc(1);
        run
    };
    let mut runs = paths.par_iter().map(read).collect::<Result<Vec<_>>>()?;
    reading.finish_and_clear();
    add_results(&mut runs, &args.results)?;
    let mut notices: Vec<String> = runs.iter().flat_map(|run| run.notices.clone()).collect();
    let mut outputs = Vec::new();
    for (name, path) in &args.outputs {
        outputs.push((name.clone(), read_outputs(Path::new(path), &mut notices).input()?));
    }
    notices.iter().for_each(|notice| warn(notice));
    let arms = group(&runs, &groups);
    let baseline = match &args.baseline {
        None => 0,
        Some(name) => arms.iter().position(|arm| arm.name == *name).ok_or_else(|| {
            let names: Vec<String> = arms.iter().map(|arm| format!("`{}`", arm.name)).collect();
            Failure::input(format!("--baseline `{name}`: no such arm, expected one of {}", names.join(", ")))
        })?,
    };
    let report = Report { title: args.title.clone(), runs, arms, outputs, samples: args.samples, baseline };
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

/// The runs, with those of a sweep in place of the sweep.
fn expanded(runs: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for run in runs {
        match runs_of_sweep(run).input()? {
            Some(of_sweep) => paths.extend(of_sweep),
            None if run.join("stages").is_dir() && !run.join("summary.json").is_file() => {
                return Err(Failure::input(format!(
                    "{}: the pipeline is not done, and has no summary.json; finish it by `simplemix run`, or report on its trainings, \
                     {}",
                    run.display(),
                    run.join("stages/train-*/run").display()
                )));
            }
            None => paths.push(run.clone()),
        }
    }
    Ok(paths)
}

/// Adds the scores of results files to the runs of their names, or as runs of their own.
fn add_results(runs: &mut Vec<RunData>, results: &[(String, String)]) -> Result {
    for (name, path) in results {
        let path = Path::new(path);
        let scores = read_benchmarks(path).input()?.scores;
        match runs.iter_mut().find(|run| run.name == *name) {
            Some(run) => run.benchmarks.extend(scores),
            None => runs.push(RunData {
                name: name.clone(),
                path: path.to_owned(),
                benchmarks: scores,
                ..RunData::default()
            }),
        }
    }
    Ok(())
}

/// Arm of each run that `--group` names, by the index of the run.
fn groups(args: &Args, runs: &[PathBuf]) -> Result<BTreeMap<usize, String>> {
    let mut groups = BTreeMap::new();
    let same = |a: &Path, b: &Path| {
        a == b || std::fs::canonicalize(a).ok().zip(std::fs::canonicalize(b).ok()).is_some_and(|(a, b)| a == b)
    };
    for (name, members) in &args.group {
        for member in members.split(',') {
            let Some(place) = runs.iter().position(|run| same(run, Path::new(member))) else {
                return Err(Failure::input(format!("--group {name}: `{member}` is not one of the runs")));
            };
            if let Some(other) = groups.insert(place, name.clone()) {
                return Err(Failure::input(format!("--group: `{member}` is in both {other} and {name}, expected one")));
            }
        }
    }
    Ok(groups)
}
