//! `simplemix sweep`: one pipeline with many values of some of its keys.

use clap::builder::RangedU64ValueParser;
use simplemix_eval::html::number;
use simplemix_eval::table;
use simplemix_pipeline::{
    Axis, BestBy, Configuration, Finished, Keep, RunReport, RunState, Sweep, SweepEvent, SweepReport, SweepSettings,
};

use crate::failure::{Fails, Failure, Result};
use crate::flags::word;
use crate::lines::{print, print_json, print_lines, warn};
use crate::progress::{Terminal, print_during_work};
use crate::run::{self, duration};
use crate::stage::StageProcesses;
use crate::together::check_devices;
use crate::unused;

/// Run a pipeline with many values of some keys, on shared stages, and compare the results in one report
///
/// Every combination of the values is a run. What does not depend on a value is done once, so that on-policy pairs are
/// collected once for each seed. Runs come in an order in which the first ones say most: the middle of all values, then
/// those that differ from it in one key; one seed after the other. A run that fails is a row of the report, and the command
/// ends with code 1. After Ctrl-C or a kill, the same command continues, and tries again what failed.
#[derive(Debug, clap::Args)]
#[command(
    args_override_self = true,
    mut_arg("output", |arg| arg.help("Folder to write: report.html, sweep.json, sweep.toml, and a folder for each run")),
    mut_arg("stages", |arg| arg.help("Folder of the stages' results, which other pipelines may share; models then stay [default: stages in the output]")),
    mut_arg("dry_run", |arg| arg.help("Print the runs with upper bounds of their time and disk space, shared stages once, and stop")),
    mut_arg("show", |arg| arg.help("Print every key of the resolved settings as TOML, with those of the sweep, and stop")),
    mut_arg("json", |arg| arg.help("Print what the sweep came to as one JSON object, as sweep.json has it").long_help(None)),
    after_help = "Examples:\n  \
  simplemix sweep --preset simplemix --model ./smollm2 --prompts gsm8k.jsonl --off-policy uf.parquet --scorer exact-answer \
--eval-prompts held.jsonl --vary size=1000,2000,4000 --vary learning_rate=1e-7,5e-7 --output runs/sweep\n  \
  simplemix sweep pipeline.toml --vary share=0,0.5,1 --vary seed=1,2,3 --max-hours 8 --output runs/shares --dry-run\n  \
  simplemix sweep pipeline.toml --vary train.loss.name=sigmoid,ipo --set train.eval.files=held.parquet \
--best-by eval_rewards/accuracies --output runs/losses\n\n\
  pipeline.toml may have a section [sweep] with the keys vary (a table of lists), best_by, max_runs, max_hours, \
  max_disk_gb and keep. Short names of keys: size, learning_rate, beta, share (of on-policy pairs) and seed"
)]
#[group(skip)]
pub(crate) struct Args {
    #[command(flatten)]
    pipeline: run::Args,
    /// Values of a key of the settings, such as beta=0.05,0.1 or train.loss.name=sigmoid,ipo; repeatable
    #[arg(long, value_name = "KEY=VALUE,..", value_parser = axis, help_heading = "Sweep")]
    vary: Vec<Axis>,
    /// Metric for the best run: score, score:TASK, or one of training such as eval_loss; lowest:NAME or highest:NAME where the
    /// name does not say what is better [default: score with --eval-prompts, else eval_rewards/accuracies]
    #[arg(long, value_name = "METRIC", value_parser = best_by, help_heading = "Sweep")]
    best_by: Option<BestBy>,
    /// Do at most N runs
    #[arg(
        long,
        value_name = "N",
        value_parser = RangedU64ValueParser::<usize>::new().range(1..),
        help_heading = "Sweep"
    )]
    max_runs: Option<usize>,
    /// Begin no run that would end after N hours of work in all; one that has begun is done
    #[arg(long, value_name = "N", help_heading = "Sweep")]
    max_hours: Option<f64>,
    /// Begin no run with which the sweep could take more than N GB on disk
    #[arg(long, value_name = "N", help_heading = "Sweep")]
    max_disk_gb: Option<f64>,
    /// Models that stay: those of the best values, or all [default: best; all with --stages]
    #[arg(long, value_name = "best|all", value_parser = word::<Keep>, help_heading = "Sweep")]
    keep: Option<Keep>,
}

fn axis(text: &str) -> std::result::Result<Axis, String> {
    Axis::parse(text).map_err(|error| error.to_string())
}

fn best_by(text: &str) -> std::result::Result<BestBy, String> {
    text.parse().map_err(|error: simplemix_pipeline::Error| error.to_string())
}

pub(crate) fn run(args: &Args) -> Result {
    let of_run = &args.pipeline;
    let (table, settings) = settings(args)?;
    if of_run.show {
        return show(args, table, &settings);
    }
    run::refuse_many("sweep")?;
    let mut terminal = Terminal::new();
    terminal.keep_results_for_json(of_run.json);
    let open = if of_run.dry_run { Sweep::look } else { Sweep::open };
    let sweep = open(table, settings, &mut terminal)?;
    terminal.clear();
    refuse_unused(args, &sweep)?;
    let parallel = sweep.base().parallel;
    if parallel.processes > 1 && !of_run.dry_run {
        check_devices(parallel.processes, sweep.base().device)?;
    }
    if of_run.dry_run {
        return describe(&sweep);
    }
    let _claims = run::claim(sweep.output(), sweep.base().stages.as_deref())?;
    let tell = &mut |event: &SweepEvent<'_>| tell(event, sweep.runs().len(), of_run.json);
    let report = match parallel.processes {
        1 => sweep.run(None, &mut terminal, tell),
        _ => sweep.run(Some(&mut StageProcesses(parallel)), &mut terminal, tell),
    };
    terminal.clear();
    let report = report?;
    match of_run.json {
        true => print_json(&serde_json::to_string(&report).run()?),
        false => say(&report, &sweep),
    }
    match report.failed().count() {
        0 => Ok(()),
        failed => Err(Failure::Run(anyhow::anyhow!(
            "{failed} of {} runs failed; the same command tries them again",
            report.runs.len()
        ))),
    }
}

/// Settings of the pipeline as a table, and of the sweep: preset, file, --set, flags.
fn settings(args: &Args) -> Result<(toml::Table, SweepSettings)> {
    let of_run = &args.pipeline;
    let resolved = SweepSettings::resolve(of_run.preset.as_deref(), of_run.file.as_deref(), run::over(of_run)?);
    let (table, mut settings) = resolved.map_err(|error| run::of_preset(of_run, error))?;
    for (at, axis) in args.vary.iter().enumerate() {
        if args.vary[..at].iter().any(|other| other.key() == axis.key()) {
            return Err(Failure::input(format!("--vary: `{}` is given twice, expected each key once", axis.key())));
        }
        settings.set_axis(axis.clone());
    }
    settings.best_by = args.best_by.clone().or(settings.best_by);
    settings.max_runs = args.max_runs.or(settings.max_runs);
    settings.max_hours = args.max_hours.or(settings.max_hours);
    settings.max_disk_gb = args.max_disk_gb.or(settings.max_disk_gb);
    settings.keep = args.keep.or(settings.keep);
    Ok((table, settings))
}

/// The text of --show.
fn show(args: &Args, table: toml::Table, settings: &SweepSettings) -> Result {
    let base = simplemix_pipeline::PipelineSettings::resolve(None, None, table)?;
    let preset = args.pipeline.preset.as_deref().filter(|name| !name.ends_with(".toml"));
    print_lines(base.to_full_toml(preset)?.trim_end());
    print_lines(&format!("\n{}", settings.to_toml()?.trim_end()));
    Ok(())
}

/// Refuses flags that no run has a use for.
fn refuse_unused(args: &Args, sweep: &Sweep) -> Result {
    let of_run = &args.pipeline;
    let refuse = |at: usize| unused::refuse(sweep.pipelines()[at].settings(), &run::given(of_run), &of_run.set);
    let mut refused = (0..sweep.pipelines().len()).map(refuse);
    match refused.clone().all(|refused| refused.is_err()) {
        true => refused.next().unwrap_or(Ok(())),
        false => Ok(()),
    }
}

/// Lines about what happens.
fn tell(event: &SweepEvent<'_>, runs: usize, is_json: bool) {
    match event {
        SweepEvent::Begins { position, run, stages, .. } => {
            print_during_work(&format!("[{}/{runs}] {}: {stages} stages", position + 1, run.name), is_json);
        }
        SweepEvent::Stage(Finished { stage, done, was_done: false, .. }) => {
            print_during_work(&format!("  {} ({:.1} s): {}", stage.name, done.seconds, done.report), is_json);
        }
        SweepEvent::Ended { position, run, was_done, .. } => {
            let head = format!("[{}/{runs}] {}", position + 1, run.name);
            match &run.state {
                RunState::Failed { message, .. } => warn(&format!("{head} failed: {message}")),
                RunState::Done { .. } if *was_done => {
                    print_during_work(&format!("{head}: done before{}", value(run)), is_json);
                }
                RunState::LeftOut { reason } => print_during_work(&format!("{head}: left out: {reason}"), is_json),
                _ => print_during_work(&format!("{head}: done{}", value(run)), is_json),
            }
        }
        _ => {}
    }
}

fn value(run: &RunReport) -> String {
    run.value.map_or(String::new(), |value| format!(", {}", number(value)))
}

/// The result for people.
fn say(report: &SweepReport, sweep: &Sweep) {
    let cells = |found: &Configuration| {
        let mut row: Vec<String> =
            vec![found.values.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")];
        let bounds = found.interval_95.map_or(String::new(), |bounds| bounds.map(number).join(" to "));
        row.extend([found.runs.len().to_string(), number(found.mean), bounds]);
        row
    };
    let rows: Vec<Vec<String>> = report.configurations.iter().map(cells).collect();
    if !rows.is_empty() {
        print_lines(&table(&["values", "runs", &report.best_by, "95 %"], &rows));
    }
    if let Some(warning) = &report.warning {
        warn(&format!("note: {warning}"));
    }
    let best = report.configurations.first().map(|best| best.runs.as_slice()).unwrap_or_default();
    for run in report.runs.iter().filter(|run| best.contains(&run.name)) {
        match &run.model {
            Some(model) => print(&format!("best model: {}", model.display())),
            None => print(&format!(
                "best model: removed earlier; `simplemix run {}/pipeline.toml` makes it again",
                run.folder.display()
            )),
        }
    }
    let kept = match sweep.kept() {
        Keep::Best => "models of the other runs are removed, their reports stay (--keep all keeps them)",
        Keep::All => "all models are kept",
    };
    print(&format!("{:.2} GB on disk; {kept}", report.disk_bytes as f64 / 1e9));
    print(&format!("report: {}", sweep.output().join("report.html").display()));
}

/// The runs as a table, with upper bounds.
fn describe(sweep: &Sweep) -> Result {
    let forecast = sweep.forecast()?;
    let memory = &sweep.base().train.memory;
    let is_timed = memory.device_gb.is_none() || memory.device_tflops.is_some();
    let time = |seconds: f64| if is_timed { duration(seconds) } else { "-".to_owned() };
    let rows: Vec<Vec<String>> = (sweep.runs().iter().zip(&forecast.runs))
        .map(|(run, expected)| {
            let state = match (&expected.left_out, expected.is_done) {
                (_, true) => "done".to_owned(),
                (Some(reason), _) => format!("left out: {reason}"),
                (None, false) => "to do".to_owned(),
            };
            let disk = format!("{:.2} GB", expected.disk_bytes / 1e9);
            vec![run.name.clone(), state, expected.stages.to_string(), time(expected.seconds), disk]
        })
        .collect();
    run::say_device(sweep.base(), sweep.pipelines().first().map(simplemix_pipeline::Pipeline::device));
    print(&format!("best by: {}", sweep.best_by()));
    print_lines(&table(&["run", "state", "new stages", "time", "models and checkpoints"], &rows));
    let kept = match sweep.kept() {
        Keep::Best => "models that are not the best are removed on the way",
        Keep::All => "all models are kept",
    };
    print(&format!("at most {:.2} GB on disk for models and checkpoints; {kept}", forecast.disk_bytes / 1e9));
    let count = forecast.runs.iter().filter(|run| run.left_out.is_none() && !run.is_done).count();
    print(&match is_timed {
        true => format!(
            "runs to do: {count}, at most {} in all; short responses and pairs take less. Nothing was written",
            duration(forecast.seconds)
        ),
        false => format!("runs to do: {count}; {}. Nothing was written", run::UNTIMED),
    });
    Ok(())
}
