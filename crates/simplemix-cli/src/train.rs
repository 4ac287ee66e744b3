//! `simplemix train`: a run from a settings file and flags; flags win.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::ProgressBar;
use serde::Serialize;
use simplemix_train::{Outcome, Record, Run, Stage, TrainConfig, Watcher};

use crate::failure::{Fails, Failure, Result};
use crate::progress::{bar, print};

/// Train a model on preference pairs
///
/// Settings come from --config and from flags; flags win. The run folder gets the resolved settings, metrics.jsonl,
/// checkpoints and the trained model. Ctrl-C saves a checkpoint; --resume goes on from it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
  simplemix train --model ./smollm2 --train mix.parquet --output runs/first\n  \
  simplemix train --config run.toml --beta 0.05 --output runs/beta05\n  \
  simplemix train --config run.toml --dry-run\n  \
  simplemix train --config run.toml --resume\n\n\
  run.toml holds the same names with underscores: beta = 0.1, learning_rate = 1e-6, batch_size = 8")]
pub(crate) struct Args {
    /// Settings in TOML
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Go on with a run that was stopped: `auto` for the one in --output if there is any, or its folder
    #[arg(long, value_name = "auto|PATH", num_args = 0..=1, default_missing_value = "auto")]
    resume: Option<String>,
    /// Read and check everything, say what would be done and what memory it takes, and stop
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    settings: Settings,
}

/// Flags that are settings of the same name.
#[derive(Debug, clap::Args, Serialize)]
struct Settings {
    /// Model folder, or its id on the hub: the policy to train, and as it is now the reference
    #[arg(long, value_name = "DIR|ID")]
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<PathBuf>,
    /// Pairs to train on
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    train: Option<PathBuf>,
    /// Held-back pairs, scored during and after training
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    eval: Option<PathBuf>,
    /// Run folder to make
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<PathBuf>,
    /// Loss, by TRL's name [default: sigmoid, which is DPO]
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    loss: Option<String>,
    /// Strength of the pull towards the reference [default: 0.1]
    #[arg(long, allow_negative_numbers = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    beta: Option<f64>,
    /// Probability that a label is flipped, for losses that know it [default: 0]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    label_smoothing: Option<f64>,
    /// A further constant of the loss, such as simpo_gamma=1 or len_penalty=0.01
    #[arg(long = "loss-constant", value_name = "NAME=VALUE", value_parser = constant, allow_negative_numbers = true)]
    #[serde(serialize_with = "as_table", skip_serializing_if = "Vec::is_empty")]
    loss_constants: Vec<(String, f64)>,
    /// Peak learning rate [default: 1e-6]
    #[arg(long, value_name = "RATE", allow_negative_numbers = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    learning_rate: Option<f64>,
    /// Shape of the learning rate: linear, cosine or constant [default: linear]
    #[arg(long, value_name = "SHAPE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    schedule: Option<String>,
    /// Share of the updates over which the learning rate rises from 0 [default: 0]
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    warmup_ratio: Option<f64>,
    /// Pairs of an update [default: 8]
    #[arg(long, value_name = "PAIRS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    batch_size: Option<u64>,
    /// Passes over the pairs [default: 1]
    #[arg(long, allow_negative_numbers = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    epochs: Option<f64>,
    /// Updates; overrides --epochs
    #[arg(long, value_name = "UPDATES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_steps: Option<u64>,
    /// Gradient norm above which gradients are scaled down; 0 for none [default: 1]
    #[arg(long, value_name = "NORM", allow_negative_numbers = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_grad_norm: Option<f64>,
    /// Tokens of prompt and response; longer pairs are cut at their end [default: 1024]
    #[arg(long, value_name = "TOKENS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_length: Option<u64>,
    /// Tokens of a forward pass: memory grows with it, results do not change [default: 1024]
    #[arg(long, value_name = "TOKENS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    micro_batch_tokens: Option<u64>,
    /// Compute activations again in the backward pass: less memory, a third more time, the same results
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "true|false")]
    #[serde(skip_serializing_if = "Option::is_none")]
    activation_checkpointing: Option<bool>,
    /// Order of the pairs: `none` as they stand in the file, `seed` shuffled each epoch [default: none]
    #[arg(long, value_name = "none|seed")]
    #[serde(skip_serializing_if = "Option::is_none")]
    shuffle: Option<String>,
    /// Everything random follows from it [default: 42]
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    /// Updates between evaluations; 0 for after training only [default: 0]
    #[arg(long, value_name = "UPDATES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    eval_every_steps: Option<u64>,
    /// Updates between checkpoints; 0 for none [default: 0]
    #[arg(long, value_name = "UPDATES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    save_every_steps: Option<u64>,
}

/// `simpo_gamma=1`.
fn constant(text: &str) -> std::result::Result<(String, f64), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.parse().map_err(|_| format!("`{value}` is no number"))?))
}

fn as_table<S: serde::Serializer>(constants: &[(String, f64)], serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_map(constants.iter().map(|(name, value)| (name, value)))
}

pub(crate) fn run(args: &Args) -> Result {
    let mut config = resolve(args)?;
    if let Some(folder) = args.resume.as_deref().filter(|resume| *resume != "auto") {
        config.output = Some(PathBuf::from(folder));
    }
    let started = config.output.as_ref().is_some_and(|output| output.join("metrics.jsonl").exists());
    let resume = match args.resume.as_deref() {
        None => false,
        Some("auto") => started,
        Some(folder) if !started => {
            return Err(Failure::input(format!("{folder}: no run to resume, expected metrics.jsonl in it")));
        }
        Some(_) => true,
    };
    if started && !resume {
        let output = config.output.unwrap_or_default();
        return Err(Failure::input(format!(
            "{}: holds a run already; choose another --output, or --resume it",
            output.display()
        )));
    }
    config.model = config.model.as_deref().map(simplemix_model::hub::resolve).transpose().input()?;
    let run = Run::prepare(config).input()?;
    describe(&run);
    if args.dry_run {
        return estimate(&run);
    }
    let mut screen = Screen::new()?;
    let finished = run.start(resume, &mut screen).run()?;
    screen.bar.finish_and_clear();
    match finished.outcome {
        Outcome::Finished => {
            print(&format!("model: {}", finished.folder.model().display()));
            Ok(())
        }
        Outcome::Stopped => {
            print(&format!("stopped; go on with --resume {}", finished.folder.path().display()));
            Err(Failure::Interrupted)
        }
    }
}

/// Defaults, then the file, then flags: merged as one table and checked once.
fn resolve(args: &Args) -> Result<TrainConfig> {
    let path = args.config.clone().unwrap_or_else(|| PathBuf::from("flags"));
    let text = match &args.config {
        Some(path) => std::fs::read_to_string(path)
            .map_err(|error| Failure::input(format!("{}: cannot read: {error}", path.display())))?,
        None => String::new(),
    };
    // The file alone first, so that its errors point into it.
    TrainConfig::from_toml(&text, &path).input()?;
    let mut table: toml::Table = text.parse().input()?;
    table.extend(toml::Table::try_from(&args.settings).input()?);
    TrainConfig::from_toml(&table.to_string(), &path).input()
}

fn describe(run: &Run) {
    print(&format!("train: {}", run.train.summary()));
    for (source, pairs, share) in run.train.shares() {
        print(&format!("  {source:<12} {pairs:>7} pairs  {share:.4}"));
    }
    if !run.eval.is_empty() {
        print(&format!("eval:  {}", run.eval.summary()));
    }
    print(&format!(
        "{} weights trained, {} updates of {} pairs",
        run.parameters(),
        run.settings().steps,
        run.settings().batch_size
    ));
}

/// What the run will take, so that settings can be chosen before hours are spent.
fn estimate(run: &Run) -> Result {
    let memory = run.memory_estimate().input()?;
    let gigabytes = |bytes: u64| bytes as f64 / 1e9;
    print(&format!("expected peak memory {:.2} GB", gigabytes(memory.total())));
    let activations = format!("activations of {} tokens", memory.micro_batch_tokens);
    for (what, bytes) in [
        ("weights", memory.weights),
        ("gradients", memory.gradients),
        ("optimizer", memory.optimizer),
        (activations.as_str(), memory.activations),
        ("logits", memory.logits),
        ("libraries", memory.program),
    ] {
        print(&format!("  {what:<28} {:>6.2} GB", gigabytes(bytes)));
    }
    print("nothing was written; leave out --dry-run to train");
    Ok(())
}

/// The terminal: a bar for each stage, a line for each evaluation, Ctrl-C.
struct Screen {
    bar: ProgressBar,
    stage: Option<Stage>,
    interrupted: Arc<AtomicBool>,
}

impl Screen {
    fn new() -> Result<Self> {
        let interrupted = Arc::new(AtomicBool::new(false));
        let flag = interrupted.clone();
        ctrlc::set_handler(move || flag.store(true, Ordering::SeqCst)).run()?;
        Ok(Self { bar: ProgressBar::hidden(), stage: None, interrupted })
    }
}

impl Watcher for Screen {
    fn stage(&mut self, stage: Stage, done: usize, total: usize) {
        if self.stage != Some(stage) {
            self.bar.finish_and_clear();
            let name = match stage {
                Stage::Reference => "reference",
                Stage::Evaluation => "evaluating",
            };
            self.bar = bar(name, total as u64);
            self.stage = Some(stage);
        }
        self.bar.set_position(done as u64);
    }

    fn step(&mut self, record: &Record, steps: u64) {
        if self.stage.take().is_some() || self.bar.length() != Some(steps) {
            self.bar.finish_and_clear();
            self.bar = bar("training", steps);
        }
        let value = |name| record.get(name).unwrap_or(f64::NAN);
        self.bar.set_position(record.step);
        self.bar.set_message(format!(
            "loss {:.4} margin {:+.3} accuracy {:.2} {:.0} tok/s",
            value("loss"),
            value("rewards/margins"),
            value("rewards/accuracies"),
            value("tokens_per_second")
        ));
    }

    fn evaluated(&mut self, record: &Record) {
        self.bar.finish_and_clear();
        self.stage = None;
        self.bar = ProgressBar::hidden();
        let value = |name| record.get(name).unwrap_or(f64::NAN);
        print(&format!(
            "step {:>6}: eval loss {:.4}, accuracy {:.3}, margin {:+.4}",
            record.step,
            value("eval_loss"),
            value("eval_rewards/accuracies"),
            value("eval_rewards/margins")
        ));
    }

    fn interrupted(&self) -> bool {
        self.interrupted.load(Ordering::SeqCst)
    }
}
