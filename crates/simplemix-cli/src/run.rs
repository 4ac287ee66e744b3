//! `simplemix run`: collect, mix, train and evaluate as one, each stage done once.

use std::path::{Path, PathBuf};

use simplemix_eval::table;
use simplemix_model::{DeviceChoice, device_name};
use simplemix_pipeline::{Error, Finished, Job, Pipeline, PipelineSettings, Stage};
use simplemix_settings::{assignment, merge};
use simplemix_torch::group::Place;
use tch::Device;

use crate::claims::{Claims, claim_folder};
use crate::failure::{Fails, Failure, Result};
use crate::lines::{print, print_json, print_lines};
use crate::off_policy_flags::{self, OffPolicyFlag};
use crate::pipeline_closing::{PipelineClosing, StageClosing};
use crate::pool_flags::PoolFlag;
use crate::progress::{Terminal, print_during_work};
use crate::stage::StageProcesses;
use crate::together::check_devices;
use crate::unused;

/// Run a whole pipeline: collect on-policy pairs, mix, train, evaluate
///
/// A stage is done once: its folder is named by a hash of everything that its result depends on. A changed setting repeats
/// only the stages that depend on it, and pipelines with the same --stages share what is equal in them. After Ctrl-C or a
/// kill, the same command continues. Settings come from the preset, the file, --set and flags; the later ones win.
#[derive(Debug, clap::Args)]
#[command(
    args_override_self = true,
    after_help = "Examples:\n  \
  simplemix run --preset simplemix --model ./smollm2 --prompts gsm8k.jsonl --off-policy uf.parquet \\\n    \
    --scorer exact-answer --size 1000 --output runs/simplemix\n  \
  simplemix run pipeline.toml --dry-run\n  \
  simplemix run pipeline.toml --processes 8\n  \
  simplemix run --preset off-policy --model ./smollm2 --off-policy chat=uf.parquet:0.7 --off-policy math=orca.parquet:0.3 \
    --size 10000 --output runs/off\n  \
  simplemix run pipeline.toml --set train.loss.beta=0.05 --set mix.on=0.3 --set mix.off=0.7 --output runs/beta05\n  \
  simplemix run --preset delta --model ./tulu3-sft --prompts prompts.jsonl --pool strong=./qwen2.5-3b --pool weak=./qwen2.5-1.5b \
    --output runs/delta\n  \
  simplemix run --preset hypo --show > hypo.toml\n\n\
  pipeline.toml has the keys that --show prints. Its key `preset` names the settings to start from: one of the presets, or \
  the path of a TOML file relative to this one"
)]
pub(crate) struct Args {
    /// Read settings from a TOML file, on top of those of the preset
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Start from the settings of a method (simplemix, off-policy, on-policy, hypo, dpo-mix-p, dpo-mix-r, iterative, semi-online, delta,
    /// delta-judged) or of a published recipe (tulu3, olmo2, olmo3-instruct, olmo3-think, smollm3, small); or from those of a TOML
    /// file
    #[arg(long, value_name = "NAME")]
    pub(crate) preset: Option<String>,
    /// Model to train: a folder, or its id on the Hugging Face hub
    #[arg(long, value_name = "DIR|ID")]
    model: Option<PathBuf>,
    /// Prompts to sample responses to: files, folders of shards, or patterns
    #[arg(long, value_name = "FILE", num_args = 1..)]
    prompts: Vec<PathBuf>,
    /// Off-policy pairs: a file, or several of them, each with its name and perhaps its weight within the off-policy share; repeat
    /// the flag for each
    #[arg(long, value_name = "FILE|NAME=FILE[:WEIGHT]")]
    off_policy: Vec<OffPolicyFlag>,
    /// Server with the OpenAI interface that has --model and samples in place of this process; several share the requests. With
    /// several rounds it needs [collect.weights], by which it gets the weights of each
    #[arg(long, value_name = "URL")]
    server: Vec<String>,
    /// Name of the model on the server [default: the only one there]
    #[arg(long, value_name = "NAME", requires = "server")]
    server_model: Option<String>,
    /// Scorer of the responses, as in `simplemix score`; several of them give a weighted sum
    #[arg(long, value_name = "[WEIGHT*]KIND[:ARGUMENT]")]
    scorer: Vec<simplemix_rollout::ScorerSettings>,
    /// Another model whose responses to the prompts stand beside the policy's, with its name and perhaps its group: a folder or id
    /// of a model, the URL of a server, or a file of candidates. Quotas are `collect.pool.take`, such as 2:weak; repeat the flag
    /// for each model
    #[arg(long, value_name = "[GROUP:]NAME=MODEL")]
    pool: Vec<PoolFlag>,
    /// Prompts for an evaluation of the model before and after training: files, folders of shards, or patterns
    #[arg(long, value_name = "FILE", num_args = 1..)]
    eval_prompts: Vec<PathBuf>,
    /// Number of pairs in the mixture of each round
    #[arg(long, value_name = "N")]
    size: Option<u64>,
    /// Device for the models of all stages; auto is the first GPU, else the CPU, and refuses a GPU that libtorch cannot use
    /// [default: auto]
    #[arg(long, value_name = "auto|cpu|cuda|cuda:N")]
    device: Option<DeviceChoice>,
    /// Processes on this machine that share each stage that runs a model, one a device [default: 1]
    #[arg(long, value_name = "N")]
    processes: Option<usize>,
    /// Random seed [default: 42]
    #[arg(long)]
    seed: Option<u64>,
    /// Folder to write: the report, the resolved settings and a link to the resulting model
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Folder of the stages' results, which several pipelines may share [default: stages in the output]
    #[arg(long, value_name = "DIR")]
    stages: Option<PathBuf>,
    /// Set any key of the settings file, such as train.loss.beta=0.05; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Print the stages with upper bounds of their tokens, memory and time, and stop
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print every key of the resolved settings as TOML, to start a file from, and stop
    #[arg(long)]
    pub(crate) show: bool,
    /// Print what the pipeline came to as one JSON object: each stage with its state, seconds, outputs, counts and notices, the
    /// evaluation, and the notices of this call
    #[arg(long, conflicts_with_all = ["dry_run", "show"])]
    pub(crate) json: bool,
}

pub(crate) fn run(args: &Args) -> Result {
    if args.show {
        print_lines(shown(args)?.trim_end());
        return Ok(());
    }
    refuse_many("run")?;
    let settings = settings(args)?;
    unused::refuse(&settings, &given(args), &args.set)?;
    let parallel = settings.parallel;
    if parallel.processes > 1 && !args.dry_run {
        check_devices(parallel.processes, settings.device)?;
    }
    let _claims = match &settings.output {
        Some(output) if !args.dry_run => Some(claim(output, settings.stages.as_deref())?),
        _ => None,
    };
    let mut terminal = Terminal::new();
    terminal.keep_results_for_json(args.json);
    if args.dry_run {
        let pipeline = Pipeline::look(settings, &mut terminal)?;
        terminal.clear();
        return describe(&pipeline);
    }
    let pipeline = Pipeline::open(settings, &mut terminal)?;
    terminal.clear();
    let stages = pipeline.stages().len();
    let head = |position: usize, name: &str| format!("[{}/{stages}] {name}", position + 1);
    let (mut is_done, mut closings) = (vec![false; stages], Vec::new());
    let tell = &mut |finished: &Finished<'_>| {
        let Finished { position, stage, done, was_done, .. } = finished;
        is_done[*position] = true;
        let how = if *was_done { "done before".to_owned() } else { format!("{:.1} s", done.seconds) };
        print_during_work(&format!("{} ({how}): {}", head(*position, &stage.name), done.report), args.json);
        closings.push((*position, StageClosing::of(finished)));
    };
    let summary = match parallel.processes {
        1 => pipeline.run_each(&mut terminal, tell),
        _ => pipeline.run_with(&mut StageProcesses(parallel), &mut terminal, tell),
    };
    terminal.clear();
    let summary = summary.inspect_err(|error| {
        let next = is_done.iter().position(|is_done| !is_done).filter(|_| error.is_interrupted());
        if let Some(next) = next {
            let name = &pipeline.stages()[next].name;
            print_during_work(&format!("{}: stopped; the same command continues", head(next, name)), args.json);
        }
    });
    let summary = summary.map_err(hinted)?;
    if args.json {
        // Those of collecting may be done beside others.
        closings.sort_by_key(|(position, _)| *position);
        let stages = closings.into_iter().map(|(_, closing)| closing).collect::<Result<Vec<_>>>()?;
        let closing = PipelineClosing::of(&pipeline, summary, stages, terminal.notices());
        print_json(&serde_json::to_string(&closing).run()?);
        return Ok(());
    }
    for evaluation in &summary.evaluation {
        print(&evaluation.to_string());
    }
    let link = pipeline.output().join("model");
    print(&format!("model: {}", if link.exists() { link } else { summary.model }.display()));
    print(&format!("report: {}", pipeline.output().join("report.html").display()));
    Ok(())
}

/// Flags that some settings have no use for, and whether they were given.
pub(crate) fn given(args: &Args) -> [(&'static str, bool); 5] {
    [
        ("--prompts", !args.prompts.is_empty()),
        ("--scorer", !args.scorer.is_empty()),
        ("--off-policy", !args.off_policy.is_empty()),
        ("--server", !args.server.is_empty()),
        ("--pool", !args.pool.is_empty()),
    ]
}

/// Refuses to be one of several processes that torchrun or Slurm has started: one drives a pipeline.
pub(crate) fn refuse_many(command: &str) -> Result {
    match Place::from_environment().input()? {
        Some(place) if place.size > 1 => Err(Failure::input(format!(
            "`simplemix {command}` was started as {} processes, by torchrun, Slurm or what sets the same variables (RANK, WORLD_SIZE); start \
             it once, with --processes N: it starts the processes of each stage on its machine",
            place.size
        ))),
        _ => Ok(()),
    }
}

/// Claims the output. A folder of stages may be shared, so it is only tried out; each stage has a lock.
pub(crate) fn claim(output: &Path, stages: Option<&Path>) -> Result<Claims> {
    let claims = claim_folder(output)?;
    if let Some(stages) = stages {
        simplemix_files::open_dir(stages).input()?;
    }
    Ok(claims)
}

/// Reason for times that are not told.
pub(crate) const UNTIMED: &str = "times are not known: `train.memory.device_tflops` says how fast the GPU is";

/// Prints the device of a plan.
pub(crate) fn say_device(settings: &PipelineSettings, device: Option<Device>) {
    let processes = settings.parallel.processes;
    match (settings.train.memory.device_gb, device) {
        (Some(gigabytes), _) => {
            print(&format!("device: {processes} x a GPU of {gigabytes} GB (train.memory.device_gb)"))
        }
        (None, Some(device)) => print(&format!("device: {}", device_name(device))),
        (None, None) => {}
    }
}

/// The failure, with the flags that help where a source is too small.
fn hinted(error: Error) -> Failure {
    match &error {
        Error::Mix(simplemix_mix::Error::Exhausted { epochs, .. }) => Failure::input(format!(
            "{error}, with --size or --set 'mix.exhaustion={{ repeat = {{ epochs = {epochs} }} }}'"
        )),
        _ => error.into(),
    }
}

/// The settings of a call: preset, file, --set, flags.
fn settings(args: &Args) -> Result<PipelineSettings> {
    let resolved = PipelineSettings::resolve(args.preset.as_deref(), args.file.as_deref(), over(args)?);
    resolved.map_err(|error| of_preset(args, error))
}

/// The settings of --set and of flags.
pub(crate) fn over(args: &Args) -> Result<toml::Table> {
    let mut over = toml::Table::new();
    for text in &args.set {
        merge(&mut over, assignment(text).input()?);
    }
    merge(&mut over, flags(args)?);
    Ok(over)
}

/// The failure to resolve settings, with the flag in place of the key `preset`.
pub(crate) fn of_preset(args: &Args, error: Error) -> Failure {
    match error {
        Error::Setting { key, found, expected } if key == "preset" && args.preset.is_some() => {
            Failure::input(format!("--preset is {found}, expected {expected}"))
        }
        error => error.into(),
    }
}

/// The text of --show: every key of the resolved settings, with a preset's comments on where its values come from.
fn shown(args: &Args) -> Result<String> {
    let settings = settings(args)?;
    settings.check()?;
    let preset = args.preset.as_deref().filter(|name| !name.ends_with(".toml"));
    Ok(settings.to_full_toml(preset)?)
}

/// The settings that flags stand for.
fn flags(args: &Args) -> Result<toml::Table> {
    let mut table = toml::Table::new();
    let text = |path: &Path| toml::Value::from(path.to_string_lossy().into_owned());
    for (key, path) in [("model", &args.model), ("output", &args.output), ("stages", &args.stages)] {
        if let Some(path) = path {
            table.insert(key.to_owned(), text(path));
        }
    }
    if let Some(sources) = off_policy_flags::value(&args.off_policy)? {
        table.insert("off_policy".to_owned(), sources);
    }
    if let Some(device) = args.device {
        table.insert("device".to_owned(), device.to_string().into());
    }
    if let Some(processes) = args.processes {
        merge(&mut table, nested(["parallel", "processes"], toml::Value::try_from(processes).input()?));
    }
    if let Some(seed) = args.seed {
        table.insert("seed".to_owned(), toml::Value::try_from(seed).input()?);
    }
    let files = |paths: &[PathBuf]| toml::Value::Array(paths.iter().map(|path| text(path)).collect());
    if !args.prompts.is_empty() {
        merge(&mut table, nested(["prompts", "files"], files(&args.prompts)));
    }
    if !args.eval_prompts.is_empty() {
        let prompts = nested(["prompts", "files"], files(&args.eval_prompts));
        table.insert("evaluate".to_owned(), prompts.into());
    }
    if let Some(size) = args.size {
        merge(&mut table, nested(["mix", "size"], toml::Value::try_from(size).input()?));
    }
    let url = match args.server.as_slice() {
        [] => None,
        [url] => Some(toml::Value::from(url.clone())),
        urls => Some(urls.to_vec().into()),
    };
    if let Some(url) = url {
        let model = args.server_model.clone().map(|model| ("model".to_owned(), model.into()));
        let server = toml::Table::from_iter([("url".to_owned(), url)].into_iter().chain(model));
        merge(&mut table, nested(["collect", "server"], server.into()));
    }
    if !args.pool.is_empty() {
        let models = args.pool.iter().map(PoolFlag::table).collect();
        let pool = nested(["pool", "model"], toml::Value::Array(models));
        merge(&mut table, toml::Table::from_iter([("collect".to_owned(), pool.into())]));
    }
    if !args.scorer.is_empty() {
        merge(&mut table, nested(["collect", "scorer"], toml::Value::try_from(&args.scorer).input()?));
    }
    Ok(table)
}

/// A table with one value in a table.
fn nested([section, key]: [&str; 2], value: toml::Value) -> toml::Table {
    let inner = toml::Table::from_iter([(key.to_owned(), value)]);
    toml::Table::from_iter([(section.to_owned(), inner.into())])
}

/// The plan as a table: stages that are done, and upper bounds for the others.
fn describe(pipeline: &Pipeline) -> Result {
    let (mut rows, mut total, mut is_timed, mut large) = (Vec::new(), 0.0, true, Vec::new());
    for (stage, estimate) in pipeline.stages().iter().zip(pipeline.estimate()?) {
        let state = match (stage.done().is_some(), stage.is_begun()) {
            (true, _) => "done",
            (false, true) => "begun",
            (false, false) => "to do",
        };
        total += estimate.seconds.unwrap_or_default();
        is_timed &= estimate.tokens.is_none() || estimate.seconds.is_some();
        let device = pipeline.settings().train.memory.device_gb.unwrap_or(f64::INFINITY);
        large.extend(estimate.memory.map(|bytes| (&stage.name, bytes / 1e9)).filter(|(_, needed)| *needed > device));
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
    let processes = pipeline.settings().parallel.processes;
    say_device(pipeline.settings(), Some(pipeline.device()));
    print_lines(&table(&["stage", "state", "tokens", "memory", "time", "folder"], &rows));
    for (name, needed) in large {
        print(&format!("{name} needs {needed:.1} GB: more than the device has"));
    }
    let beside = pipeline.stages().iter().zip(pipeline.beside()).filter(|(_, is_beside)| *is_beside);
    let beside: Vec<&str> = beside.map(|(stage, _)| stage.name.as_str()).collect();
    if !beside.is_empty() {
        print(&format!("beside training, so that the whole takes less than the sum: {}", beside.join(", ")));
    }
    if processes > 1 {
        let times = if pipeline.device().is_cuda() { "their speeds are added up" } else { "times are those of one" };
        print(&format!("{processes} processes: memory is that of each, {times}"));
    }
    let time = match (total > 0.0, is_timed) {
        (_, true) => format!("at most {} in all; short responses and pairs take less", duration(total)),
        (true, false) => format!("at most {} for the stages with a time, more for the others", duration(total)),
        (false, false) => UNTIMED.to_owned(),
    };
    print(&format!("{time}. Nothing was written"));
    Ok(())
}

fn folder_name(stage: &Stage) -> String {
    let folder = stage.folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match &stage.job {
        Job::Train(_) => format!("{folder}/run"),
        _ => folder,
    }
}

/// A duration in words.
pub(crate) fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 90.0 => format!("{s:.0} s"),
        s if s < 5400.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_at_a_glance() {
        assert_eq!([12.0, 600.0, 9000.0].map(duration), ["12 s", "10 min", "2.5 h"]);
    }
}
