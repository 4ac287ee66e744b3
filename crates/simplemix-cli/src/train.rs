//! `simplemix train`: settings of a file, of --set and of flags, to a run.

use std::path::{Path, PathBuf};

use clap::{ArgMatches, Command, FromArgMatches};
use simplemix_model::{device_name, hub};
use simplemix_settings::{Settings, assignment, merge, placed, toml_template};
use simplemix_train::{MemoryEstimate, MixSource, Outcome, Phases, Resume, Run, RunFolder, TrainConfig, from_trl};

use crate::claims::claim_folder;
use crate::closing::{Closing, how_to_go_on};
use crate::failure::{Fails, Failure, Result, read_text};
use crate::lines::{print, print_json, print_lines, warn};
use crate::progress::Terminal;
use crate::setting_flags::{self, Flag, Given, SWITCH, one, text};
use crate::together::{Logs, Processes, launch, rank_and_size};

/// Train a model on preference pairs
///
/// Defaults, then the settings of --config or --trl-config, then --set and flags: the later ones win. The run folder gets
/// the resolved settings, metrics, checkpoints and the trained model. Ctrl-C saves a checkpoint, from which --resume goes
/// on.
#[derive(Debug, clap::Args)]
#[command(args_override_self = true, after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    flags: SettingFlags,
    /// Settings in TOML
    #[arg(long, value_name = "FILE", help_heading = SETTINGS)]
    config: Option<PathBuf>,
    /// Settings of TRL or the alignment handbook in YAML, with TRL's defaults; prints the batch size and the keys that are ignored
    #[arg(long, value_name = "FILE", conflicts_with = "config", help_heading = SETTINGS)]
    trl_config: Option<PathBuf>,
    /// Any setting, such as optimizer.warmup_ratio=0.1; give it several times
    #[arg(long, value_name = "SECTION.KEY=VALUE", help_heading = SETTINGS)]
    set: Vec<String>,
    /// Print all settings with meanings and defaults, as a file for --config, and stop
    #[arg(long, help_heading = SETTINGS)]
    settings: bool,
    /// Resume a run that was stopped: `auto` for the run in --output if there is one, or a run folder, whose settings hold
    /// where no file of settings is given
    #[arg(long, value_name = "auto|PATH", num_args = 0..=1, default_missing_value = "auto", help_heading = RUN)]
    resume: Option<String>,
    /// Resume with other settings or data than the run began with; they are noted in notices.json
    #[arg(long, requires = "resume", help_heading = RUN)]
    resume_anyway: bool,
    /// Read and check everything, print what would be done and the memory it takes, and stop
    #[arg(long, help_heading = RUN)]
    dry_run: bool,
    /// Print what the run came to as JSON: model, report, the last loss, accuracy and margin, notices
    #[arg(long, conflicts_with_all = ["dry_run", "settings"], help_heading = RUN)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  simplemix train --model ./smollm2 --train mix.parquet --output runs/first
  simplemix train --model ./smollm2 --train mix.parquet --lora-rank 16 --set lora.targets='[\"q_proj\", \"v_proj\"]' --output runs/lora
  simplemix train --model ./smollm2 --mix on=on.parquet:1 --mix off=uf.parquet:1 --eval held-out.parquet --output runs/mixed
  simplemix train --settings > run.toml
  simplemix train --config run.toml --beta 0.05 --set optimizer.warmup_ratio=0.1 --output runs/beta05
  simplemix train --config run.toml --dry-run
  simplemix train --config run.toml --resume
  simplemix train --resume runs/first
  simplemix train --trl-config dpo.yaml --output runs/as-trl
  simplemix train --objective reward --model ./smollm2 --train pairs.parquet --output runs/reward

A flag stands for a key of the settings file: --beta for beta in [loss], --learning-rate for learning_rate in [optimizer]. \
docs/training.md has all keys.";

const DATA: &str = "Model and data";
const METHOD: &str = "Objective";
const OPTIMISATION: &str = "Optimisation";
const ADAPTER: &str = "Adapter";
const SAVING: &str = "Evaluation and checkpoints";
const SETTINGS: &str = "Settings";
const RUN: &str = "Run";

const fn flag(name: &'static str, path: &'static str, value: &'static str, heading: &'static str) -> Flag {
    Flag { name, path, value, heading, read: one, hint: "" }
}

const fn path(name: &'static str, path: &'static str, value: &'static str, heading: &'static str) -> Flag {
    Flag { name, path, value, heading, read: text, hint: "" }
}

/// Flags of the settings that people type; `--set` does for the others.
const FLAGS: &[Flag] = &[
    path("model", "model", "DIR|ID", DATA),
    path("train", "train", "FILE", DATA),
    Flag { read: sources, hint: "; repeat the flag for each source", ..path("mix", "mix", "NAME=FILE:WEIGHT", DATA) },
    Flag {
        read: files,
        hint: "; for several files, repeat the flag with a name for each",
        ..path("eval", "eval.files", "[NAME=]FILE", DATA)
    },
    flag("messages", "tokens.messages", SWITCH, DATA),
    flag("tokenizer-as", "tokens.tokenizer_as", "", DATA),
    flag("on-refused", "tokens.on_refused", "", DATA),
    path("output", "output", "DIR", DATA),
    path("objective", "objective", "WHAT", METHOD),
    Flag { read: names, ..path("loss", "loss.name", "NAME[,NAME...]", METHOD) },
    flag("beta", "loss.beta", "BETA", METHOD),
    path("reference-model", "reference.model", "DIR|ID", METHOD),
    flag("learning-rate", "optimizer.learning_rate", "RATE", OPTIMISATION),
    flag("batch-size", "batch.batch_size", "PAIRS", OPTIMISATION),
    flag("epochs", "epochs", "EPOCHS", OPTIMISATION),
    flag("max-steps", "max_steps", "UPDATES", OPTIMISATION),
    flag("max-length", "tokens.max_length", "TOKENS", OPTIMISATION),
    path("shuffle", "batch.shuffle", "ORDER", OPTIMISATION),
    flag("seed", "seed", "SEED", OPTIMISATION),
    path("dtype", "dtype", "TYPE", OPTIMISATION),
    path("load-in", "quantization.load_in", "FORM", ADAPTER),
    path("device", "device", "DEVICE", OPTIMISATION),
    flag("processes", "parallel.processes", "N", RUN),
    flag("lora-rank", "lora.rank", "RANK", ADAPTER),
    flag("lora-alpha", "lora.alpha", "ALPHA", ADAPTER),
    flag("lora-dropout", "lora.dropout", "SHARE", ADAPTER),
    path("adapter", "lora.adapter", "DIR", ADAPTER),
    flag("eval-every-steps", "eval.eval_every_steps", "UPDATES", SAVING),
    flag("save-every-steps", "checkpoint.save_every_steps", "UPDATES", SAVING),
];

/// Flags of [`FLAGS`] that were given.
#[derive(Debug)]
struct SettingFlags(Vec<Given>);

impl FromArgMatches for SettingFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self(setting_flags::given(matches, FLAGS)))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0 = setting_flags::given(matches, FLAGS);
        Ok(())
    }
}

impl clap::Args for SettingFlags {
    fn augment_args(command: Command) -> Command {
        setting_flags::add(command, FLAGS, TrainConfig::SECTIONS)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// Sources, each as `on=pairs.parquet:0.5`.
fn sources(values: &[String]) -> Result<toml::Value, String> {
    let source = |text: &String| {
        let refuse = |problem: &str| format!("is `{text}`, {problem}");
        let spec = text.parse::<simplemix_mix::SourceSpec>().map_err(|error| refuse(&error.to_string()))?;
        let weight = spec.weight.ok_or_else(|| refuse("expected NAME=FILE:WEIGHT, with a weight"))?;
        let source = MixSource { name: spec.name, path: spec.path.into(), weight };
        toml::Value::try_from(source).map_err(|error| refuse(&error.to_string()))
    };
    values.iter().map(source).collect::<Result<Vec<_>, _>>().map(Into::into)
}

/// A file, or files by name.
fn files(values: &[String]) -> Result<toml::Value, String> {
    if let [file] = values
        && (!file.contains('=') || Path::new(file).exists())
    {
        return Ok(file.as_str().into());
    }
    let named = |file: &String| match file.split_once('=') {
        Some((name, path)) => Ok((name.to_owned(), toml::Value::from(path))),
        None => Err(format!("is `{file}`, expected NAME=FILE: several files need names")),
    };
    Ok(values.iter().map(named).collect::<Result<toml::Table, _>>()?.into())
}

/// A name, or several separated by commas.
fn names(values: &[String]) -> Result<toml::Value, String> {
    let text = values.last().map_or("", String::as_str);
    match text.contains(',') {
        true => Ok(text.split(',').map(|name| toml::Value::from(name.trim())).collect::<Vec<_>>().into()),
        false => Ok(text.into()),
    }
}

/// Replacement of a flag of version 0.1.
pub(crate) fn gone(flag: &str) -> Option<String> {
    setting_flags::gone(flag, TrainConfig::SECTIONS)
}

pub(crate) fn run(args: &Args) -> Result {
    if args.settings {
        print_lines(toml_template(TrainConfig::SECTIONS).trim_end());
        return Ok(());
    }
    let mut config = resolve(args)?;
    if let Some(folder) = args.resume.as_deref().filter(|resume| *resume != "auto") {
        config.output = Some(PathBuf::from(folder));
    }
    if args.dry_run {
        return if has_pairs(&config) { train(args, config, &Processes::default()) } else { plan(args, config) };
    }
    match Processes::join(&config.parallel, &mut config.device, Logs::In(config.output.as_deref()))? {
        Some(processes) => {
            // Memory is planned for as many as a launcher has started, and the run folder tells them.
            config.parallel.processes = processes.count();
            processes.work(|processes| train(args, config, processes))
        }
        None => launch(config.parallel.processes, Logs::In(config.output.as_deref())),
    }
}

/// Work of one process.
fn train(args: &Args, mut config: TrainConfig, processes: &Processes) -> Result {
    let _claims = match &config.output {
        Some(output) if !args.dry_run && processes.is_first() => Some(claim_folder(output)?),
        _ => None,
    };
    let started = config.output.as_ref().is_some_and(|output| RunFolder::is_started(output));
    processes.agree("whether --output holds a run", &started.to_string())?;
    let is_resumed = match args.resume.as_deref() {
        None => false,
        Some("auto") => started,
        Some(folder) if !started => {
            return Err(Failure::input(format!("{folder}: no run to resume, expected metrics.jsonl in it")));
        }
        Some(_) => true,
    };
    if started && !is_resumed {
        let output = config.output.unwrap_or_default();
        return Err(Failure::input(format!(
            "{}: holds a run already; choose another --output, or --resume it",
            output.display()
        )));
    }
    let folder = if args.dry_run { hub::resolve_without_weights } else { hub::resolve };
    config.model = config.model.as_deref().map(folder).transpose().input()?;
    let reference = &mut config.reference.model;
    *reference = reference.as_deref().map(folder).transpose().input()?;
    processes.does_at_length("reading pairs");
    let prepare = if args.dry_run { Run::plan } else { Run::prepare };
    let mut run = prepare(config).map_err(|error| match error {
        simplemix_train::Error::Setting(error) => refused(&error, args),
        other => Failure::Input(other.into()),
    })?;
    if args.dry_run {
        describe(args, &run);
        let memory = run.memory_estimate().input()?;
        estimate(run.config(), &memory);
        return Ok(());
    }
    run = run.with_team(processes.team()).load().input()?;
    describe(args, &run);
    let mut terminal = Terminal::new();
    terminal.keep_results_for_json(args.json);
    let resume = match (is_resumed, args.resume_anyway) {
        (false, _) => Resume::No,
        (true, false) => Resume::Yes,
        (true, true) => Resume::Anyway,
    };
    processes.begin_log()?;
    let finished = run.start(resume, &mut terminal).map_err(|error| match error {
        simplemix_train::Error::Differs { .. } => Failure::Input(error.into()),
        simplemix_train::Error::Files(error) if error.is_input() => Failure::Input(error.into()),
        // Before training begins; later it is another error.
        simplemix_train::Error::Model(error @ simplemix_model::Error::Push { .. }) => Failure::Input(error.into()),
        other => Failure::Run(other.into()),
    })?;
    terminal.clear();
    if finished.outcome == Outcome::Stopped {
        say(args, &how_to_go_on(finished.folder.path()));
        return Err(Failure::Interrupted);
    }
    let closing = Closing::of(&finished)?;
    match args.json {
        true => print_json(&serde_json::to_string(&closing).run()?),
        false => closing.print(),
    }
    Ok(())
}

/// Prints a line that is no part of the JSON.
fn say(args: &Args, line: &str) {
    if args.json { warn(line) } else { print(line) }
}

/// Defaults, then a file, then --set and flags, merged as one table. Each is checked alone first, so that an error names
/// what the user wrote.
fn resolve(args: &Args) -> Result<TrainConfig> {
    let resumed =
        args.resume.as_deref().filter(|folder| *folder != "auto").map(|folder| Path::new(folder).join("config.toml"));
    let mut table = match (&args.config, &args.trl_config, resumed) {
        (Some(path), ..) => read_settings(path)?,
        (None, Some(path), _) => read_trl(args, path)?,
        (None, None, Some(path)) if path.is_file() => read_resumed(&path)?,
        (None, None, _) => toml::Table::new(),
    };
    let own = named(args);
    if own.train.is_some() || !own.mix.is_empty() {
        // Data that a flag names takes the place of the sets of a file.
        table.remove("data");
    }
    for text in &args.set {
        let own = assignment(text).and_then(|own| check(&own).map(|()| own)).input()?;
        merge(&mut table, own);
    }
    for given in &args.flags.0 {
        check(&given.table().map_err(Failure::input)?).map_err(|error| refused(&error, args))?;
        given.set_in(&mut table).map_err(Failure::input)?;
    }
    TrainConfig::from_table(table).input()
}

fn check(table: &toml::Table) -> simplemix_settings::Result {
    TrainConfig::from_table(table.clone())?.check_ranges()
}

fn refused(error: &simplemix_settings::Error, args: &Args) -> Failure {
    Failure::input(setting_flags::message(error, &args.flags.0))
}

/// Settings of a run that goes on, with the number of processes that a launcher has started in place of its own.
fn read_resumed(path: &Path) -> Result<toml::Table> {
    let mut table = read_settings(path)?;
    if let (Some(_), Some(parallel)) = (rank_and_size()?, table.get_mut("parallel").and_then(toml::Value::as_table_mut))
    {
        parallel.remove("processes");
    }
    Ok(table)
}

fn read_settings(path: &Path) -> Result<toml::Table> {
    let text = read_text(path)?;
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        Failure::input(format!("{}: {}", path.display(), error.to_string().trim_end()))
    })?;
    check(&table).map_err(|error| Failure::input(placed(path, &text, &error)))?;
    Ok(table)
}

/// Settings that --set and flags name. A value that cannot be read is refused later.
fn named(args: &Args) -> TrainConfig {
    let mut table = toml::Table::new();
    args.set.iter().filter_map(|text| assignment(text).ok()).for_each(|own| merge(&mut table, own));
    for given in &args.flags.0 {
        let _ = given.set_in(&mut table);
    }
    TrainConfig::from_table(table).unwrap_or_default()
}

/// Settings of a file of TRL. The objective, whose defaults it has, and the devices, whose pairs are a batch, are those of flags and
/// launcher.
fn read_trl(args: &Args, path: &Path) -> Result<toml::Table> {
    let named = named(args);
    let asked = named.parallel.processes;
    let place = rank_and_size()?;
    let devices = place.map_or(asked, |(_, size)| size);
    // The first of several processes speaks; the one that starts them leaves it to them.
    let speaks = place.map_or(asked == 1, |(rank, _)| rank == 0);
    let recipe = from_trl(&read_text(path)?, path, named.objective, devices as u64).input()?;
    for remark in recipe.remarks.iter().filter(|_| speaks) {
        say(args, &format!("{}: {remark}", path.display()));
    }
    if speaks && !recipe.ignored.is_empty() {
        say(args, &format!("{}: keys without effect on the result: {}", path.display(), recipe.ignored.join(", ")));
    }
    check(&recipe.settings).map_err(|error| Failure::input(format!("{}: {error}", path.display())))?;
    Ok(recipe.settings)
}

fn describe(args: &Args, run: &Run) {
    say(args, &format!("train: {}", run.train.summary()));
    for (source, pairs, share) in run.train.shares() {
        say(args, &format!("  {source:<12} {pairs:>7} pairs  {share:.4}"));
    }
    for (name, set) in &run.eval {
        say(args, &format!("eval:  {}{}{}", name, if name.is_empty() { "" } else { ": " }, set.summary()));
    }
    let (trained, all) = (run.trained_parameters(), run.parameters());
    let share = if trained == all { String::new() } else { format!(" of {all}") };
    let (settings, pairs) = (run.settings(), run.pairs_per_epoch());
    let (size, rest) = (settings.batch_size as u64, pairs % settings.batch_size as u64);
    let last = match (pairs < size, rest) {
        (true, _) | (_, 0) => String::new(),
        _ => format!(", the last of an epoch of {rest}"),
    };
    say(
        args,
        &format!("{trained}{share} weights trained, {} updates of {} pairs{last}", settings.steps, size.min(pairs)),
    );
    if let Some(class) = run.part_of() {
        say(args, &format!("weights are those of the text part of a `{class}` model; the others stay as they are"));
    }
    let (device, kind) = (device_name(run.device()), run.config().dtype.word());
    let (tokens, logits) = (settings.micro_batch_tokens, run.logits_bytes() as f64 / f64::from(1 << 20));
    say(args, &format!("on {device} in {kind}, passes of at most {tokens} tokens, at most {logits:.0} MiB of logits"));
}

/// Whether the settings name pairs to train on.
fn has_pairs(config: &TrainConfig) -> bool {
    config.train.is_some() || !config.mix.is_empty() || !config.data.sets.is_empty()
}

/// Prints the memory of a run that has no pairs yet, from the model's config.json alone.
fn plan(args: &Args, mut config: TrainConfig) -> Result {
    config.model = config.model.as_deref().map(hub::resolve_without_weights).transpose().input()?;
    let memory = config.memory_plan().map_err(|error| match error {
        simplemix_train::Error::Setting(error) => refused(&error, args),
        other => Failure::Input(other.into()),
    })?;
    let length = config.tokens.max_length;
    print(&format!(
        "no pairs are given (`train`, `mix`, `data.sets`): each is taken to have {length} tokens a response with its prompt"
    ));
    estimate(&config, &memory);
    Ok(())
}

/// Prints the estimated memory of each process of a run, so that settings can be chosen before hours are spent.
fn estimate(config: &TrainConfig, memory: &MemoryEstimate) {
    let gigabytes = |bytes: u64| bytes as f64 / 1e9;
    let (processes, shard) = (config.parallel.processes, config.parallel.shard.word());
    let each = match processes {
        1 => String::new(),
        _ => format!(" on each of {processes} devices, `parallel.shard` {shard}"),
    };
    let total = gigabytes(memory.total());
    let room = match config.memory.device_gb {
        Some(room) if total > room => format!(": more than the {room} GB of the device"),
        Some(room) => format!(" of {room} GB"),
        None => String::new(),
    };
    print(&format!("expected peak memory {total:.2} GB{each}{room}"));
    let Phases { passes, update } = memory.phases;
    let passes_of = format!("passes of {} tokens", memory.micro_batch_tokens);
    let line = |what: &str, bytes: u64| print(&format!("  {what:<28} {:>6.2} GB", gigabytes(bytes)));
    line("program and data", memory.program);
    line("weights", memory.weights);
    if memory.peaks_at_loading() {
        line("loading", memory.loading);
    } else {
        line("gradients", memory.gradients);
        line("optimizer", memory.optimizer);
        match passes + memory.gathered >= update {
            true => line(&passes_of, passes),
            false => line("update", update),
        }
        if memory.gathered > 0 && passes + memory.gathered >= update {
            line("gathered layers", memory.gathered);
        }
    }
    print("nothing was written; leave out --dry-run to train");
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        args: Args,
    }

    fn resolved(flags: &[&str]) -> Result<TrainConfig> {
        let args = std::iter::once("train").chain(flags.iter().copied());
        resolve(&Program::try_parse_from(args).unwrap().args)
    }

    fn refused(flags: &[&str]) -> String {
        resolved(flags).unwrap_err().message().unwrap()
    }

    #[test]
    fn flags_and_set_win_over_the_file_and_the_file_over_defaults() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.toml");
        let text =
            "seed = 7\n[loss]\nname = 'ipo'\nbeta = 0.3\n[batch]\nbatch_size = 2\n[eval.files]\nold = 'o.jsonl'\n";
        std::fs::write(&path, text).unwrap();
        let flags = ["--config", path.to_str().unwrap(), "--set", "loss.beta=0.5", "--batch-size", "4"];
        let config = resolved(&[&flags[..], &["--eval", "a=a.jsonl", "--eval", "b=b.jsonl"]].concat()).unwrap();
        assert_eq!((config.seed, config.loss.name.as_slice()), (7, &["ipo".to_owned()][..]));
        assert_eq!((config.loss.beta, config.batch.batch_size), (0.5, 4));
        assert_eq!(config.optimizer, TrainConfig::default().optimizer);
        let names: Vec<String> = config.eval.files.unwrap().all().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["a", "b"]);
        std::fs::write(&path, "[loss]\n\nbeta = -1\n").unwrap();
        let expected = format!("{}:3: `loss.beta` is -1, expected a number above 0", path.display());
        assert_eq!(refused(&["--config", path.to_str().unwrap()]), expected);
    }

    #[test]
    fn flags_with_several_values_are_read() {
        let config = resolved(&["--loss", "sigmoid,sft", "--mix", "on=a.jsonl:1", "--mix", "off=b.jsonl:1/3"]).unwrap();
        assert_eq!(config.loss.name.as_slice(), ["sigmoid", "sft"]);
        assert_eq!(config.mix.iter().map(|source| source.name.as_str()).collect::<Vec<_>>(), ["on", "off"]);
        let last = resolved(&["--beta", "1", "--beta", "2", "--output", "2026"]).unwrap();
        assert_eq!((last.loss.beta, last.output), (2.0, Some(PathBuf::from("2026"))));
        assert!(refused(&["--mix", "a.jsonl"]).starts_with("--mix is `a.jsonl`, "));
        assert!(
            refused(&["--eval", "a.jsonl", "--eval", "b=b.jsonl"]).starts_with("--eval is `a.jsonl`, expected NAME=")
        );
    }

    #[test]
    fn flags_that_are_gone_say_what_replaced_them() {
        assert_eq!(gone("--hypo-clip").unwrap(), "--hypo-clip is now --set hypo.clip=VALUE");
        assert_eq!(gone("--freeze").unwrap(), "--freeze is now --set optimizer.freeze='[\"VALUE\"]'");
        assert_eq!(gone("--no-such-flag"), None);
    }
}
