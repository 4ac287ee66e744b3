//! `simplemix run`: collect, mix, train and evaluate as one, each stage done once.

mod estimate;
mod execute;
mod plan;
mod report;
mod settings;

use std::path::{Path, PathBuf};

use simplemix_eval::table;

use self::estimate::Estimator;
use self::plan::{Job, Plan, Stage};
use self::report::Results;
use self::settings::{PipelineConfig, needed};
use crate::failure::{Fails, Failure, Result};
use crate::progress::print;

/// Run all stages: collect on-policy pairs, mix them, train, evaluate
///
/// Every stage has a folder named by all that its result depends on, so a changed setting does again only what follows from
/// it, and arms that share --stages share what is equal in them. Stopped or killed at any moment, the same command goes on.
#[derive(Debug, clap::Args)]
#[command(
    args_override_self = true,
    after_help = "Examples:\n  \
  simplemix run --preset simplemix --model ./smollm2 --prompts gsm8k.jsonl --off-policy uf.parquet \\\n    \
    --scorer exact-answer --size 1000 --output runs/simplemix\n  \
  simplemix run pipeline.toml --dry-run\n  \
  simplemix run pipeline.toml --set train.beta=0.05 --set mix.on=0.3 --set mix.off=0.7 --output runs/beta05\n  \
  simplemix run --preset hypo --show > hypo.toml\n\n\
  pipeline.toml holds the keys that --show prints, and perhaps `preset = \"simplemix\"` or `preset = \"base.toml\"`, a file \
  beside it, to start from"
)]
pub(crate) struct Args {
    /// Settings in TOML, over those of the preset
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// A method of the paper: simplemix, off-policy, on-policy, hypo, dpo-mix-p or iterative; or a file of settings
    #[arg(long, value_name = "NAME")]
    preset: Option<String>,
    /// Model folder, or its id on the hub
    #[arg(long, value_name = "DIR|ID")]
    model: Option<PathBuf>,
    /// Prompts to answer: files, folders of shards, or patterns
    #[arg(long, value_name = "FILE", num_args = 1..)]
    prompts: Vec<PathBuf>,
    /// Pairs written by others
    #[arg(long, value_name = "FILE")]
    off_policy: Option<PathBuf>,
    /// What answers are worth, as in `simplemix score`; several times for a weighted sum
    #[arg(long, value_name = "[WEIGHT*]KIND[:ARGUMENT]")]
    scorer: Vec<simplemix_rollout::ScorerSettings>,
    /// Prompts that the model answers before and after, as in --prompts
    #[arg(long, value_name = "FILE", num_args = 1..)]
    eval_prompts: Vec<PathBuf>,
    /// Pairs of each round's mixture
    #[arg(long, value_name = "N")]
    size: Option<u64>,
    /// Everything random follows from it [default: 42]
    #[arg(long)]
    seed: Option<u64>,
    /// Folder for the report, the resolved settings and the result
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Folder of the stages' results, which arms may share [default: stages in the output]
    #[arg(long, value_name = "DIR")]
    stages: Option<PathBuf>,
    /// Any other setting, such as train.beta=0.05
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Say what would be done, with tokens, memory and time, and stop
    #[arg(long)]
    dry_run: bool,
    /// Print the resolved settings, to start a file of one's own from, and stop
    #[arg(long)]
    show: bool,
}

pub(crate) fn run(args: &Args) -> Result {
    let name = args.preset.as_deref();
    if args.show && args.file.is_none() && args.set.is_empty() && !name.is_some_and(|name| name.ends_with(".toml")) {
        // With its comments, which say where the values are from.
        print(settings::preset(needed("preset", name, "--preset NAME or a file, to show")?)?.trim_end());
        return Ok(());
    }
    let config = settings::resolve(args.preset.as_deref(), args.file.as_deref(), flags(args)?, &args.set)?;
    if args.show {
        print(toml::to_string(&config).run()?.trim_end());
        return Ok(());
    }
    let plan = Plan::new(&config)?;
    if args.dry_run {
        return describe(&config, &plan);
    }
    let output = needed("output", config.output.as_deref(), "a folder")?;
    std::fs::create_dir_all(output).map_err(|e| Failure::input(format!("{}: {e}", output.display())))?;
    execute::write_whole(&output.join("pipeline.toml"), &toml::to_string(&config).run()?)?;
    let mut all = Vec::new();
    for (at, stage) in plan.stages.iter().enumerate() {
        let head = format!("[{}/{}] {}", at + 1, plan.stages.len(), stage.name);
        let (done, how) = match stage.done() {
            Some(done) => (done, "done before".to_owned()),
            None => {
                let done = stage.run().inspect_err(|failure| {
                    if matches!(failure, Failure::Interrupted) {
                        print(&format!("{head}: stopped; the same command goes on"));
                    }
                })?;
                let how = format!("{:.1} s", done.seconds);
                (done, how)
            }
        };
        print(&format!("{head} ({how}): {}", report::words(&done.report)));
        all.push(done);
    }
    let results = Results { config: &config, plan: &plan, done: &all };
    let summary = results.summary()?;
    results.write(output, &summary)?;
    for line in summary["evaluation"].as_array().into_iter().flatten() {
        let task = line["task"].as_str().map(|task| format!(", {task}")).unwrap_or_default();
        print(&format!("{}{task}: {}", line["answers"].as_str().unwrap_or_default(), report::words(line)));
    }
    let model = plan.stages[plan.result].folder.join("run/model");
    print(&format!("model: {}", link_result(output, &model).display()));
    print(&format!("report: {}", output.join("report.html").display()));
    Ok(())
}

/// Flags that are settings.
fn flags(args: &Args) -> Result<toml::Table> {
    let mut table = toml::Table::new();
    let text = |path: &Path| toml::Value::from(path.to_string_lossy().into_owned());
    for (key, path) in
        [("model", &args.model), ("off_policy", &args.off_policy), ("output", &args.output), ("stages", &args.stages)]
    {
        if let Some(path) = path {
            table.insert(key.to_owned(), text(path));
        }
    }
    if let Some(seed) = args.seed {
        table.insert("seed".to_owned(), toml::Value::try_from(seed).input()?);
    }
    let files = |paths: &[PathBuf]| toml::Value::Array(paths.iter().map(|path| text(path)).collect());
    if !args.prompts.is_empty() {
        settings::merge(&mut table, nested(["prompts", "files"], files(&args.prompts)));
    }
    if !args.eval_prompts.is_empty() {
        let prompts = nested(["prompts", "files"], files(&args.eval_prompts));
        table.insert("evaluate".to_owned(), prompts.into());
    }
    if let Some(size) = args.size {
        settings::merge(&mut table, nested(["mix", "size"], toml::Value::try_from(size).input()?));
    }
    if !args.scorer.is_empty() {
        settings::merge(&mut table, nested(["collect", "scorer"], toml::Value::try_from(&args.scorer).input()?));
    }
    Ok(table)
}

/// A table with one value in a table.
fn nested([section, key]: [&str; 2], value: toml::Value) -> toml::Table {
    let inner = toml::Table::from_iter([(key.to_owned(), value)]);
    toml::Table::from_iter([(section.to_owned(), inner.into())])
}

/// The plan as a table: what is there, and what the rest will take at most.
fn describe(config: &PipelineConfig, plan: &Plan) -> Result {
    let model = simplemix_model::hub::resolve(needed("model", config.model.as_deref(), "a model folder")?).input()?;
    let estimator = Estimator::new(&model, config.mix_settings()?.size)?;
    let (mut rows, mut total) = (Vec::new(), 0.0);
    for stage in &plan.stages {
        let state = match (stage.done().is_some(), stage.is_begun()) {
            (true, _) => "done",
            (false, true) => "to go on with",
            (false, false) => "to do",
        };
        let estimate = if stage.done().is_some() { estimate::Estimate::default() } else { estimator.of(stage) };
        total += estimate.seconds.unwrap_or_default();
        let cell = |value: Option<f64>, scale: f64, unit: &str| {
            value.map_or(String::new(), |value| format!("{:.1} {unit}", value / scale))
        };
        rows.push(vec![
            stage.name.clone(),
            state.to_owned(),
            cell(estimate.tokens, 1e6, "M"),
            cell(estimate.memory, 1e9, "GB"),
            estimate.seconds.map_or(String::new(), duration),
            folder_name(stage),
        ]);
    }
    print(&table(&["stage", "state", "tokens", "memory", "time", "folder"], &rows));
    print(&format!(
        "at most {} in all; answers that end early and pairs that are short take less. Nothing was written",
        duration(total)
    ));
    Ok(())
}

fn folder_name(stage: &Stage) -> String {
    let folder = stage.folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match &stage.job {
        Job::Train(_) => format!("{folder}/run"),
        _ => folder,
    }
}

/// Seconds as people say them.
fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 90.0 => format!("{s:.0} s"),
        s if s < 5400.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

/// `model` in the output, as a link to the result where links can be made; else where it is.
fn link_result(output: &Path, model: &Path) -> PathBuf {
    let link = output.join("model");
    #[cfg(unix)]
    {
        let target = model.canonicalize().unwrap_or_else(|_| model.to_path_buf());
        let is_ours = link.symlink_metadata().map_or(true, |found| found.file_type().is_symlink());
        let _ = if is_ours { std::fs::remove_file(&link) } else { Ok(()) };
        if is_ours && std::os::unix::fs::symlink(target, &link).is_ok() {
            return link;
        }
    }
    model.to_path_buf()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_at_a_glance() {
        assert_eq!([12.0, 600.0, 9000.0].map(duration), ["12 s", "10 min", "2.5 h"]);
    }
}
