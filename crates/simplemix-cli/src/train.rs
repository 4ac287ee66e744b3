//! `simplemix train`: a run from a settings file and flags; flags win.

use std::path::PathBuf;

use serde::Serialize;
use simplemix_train::{MixSource, Outcome, Run, TrainConfig, from_trl};

use crate::failure::{Fails, Failure, Result, read_text};
use crate::progress::{Terminal, print};

/// Train a model on preference pairs
///
/// Settings come from --config and from flags; flags win. The run folder gets the resolved settings, metrics.jsonl,
/// checkpoints and the trained model. Ctrl-C saves a checkpoint; --resume goes on from it.
#[derive(Debug, clap::Args)]
#[command(
    args_override_self = true,
    after_help = "Examples:\n  \
  simplemix train --model ./smollm2 --train mix.parquet --output runs/first\n  \
  simplemix train --config run.toml --beta 0.05 --output runs/beta05\n  \
  simplemix train --config run.toml --dry-run\n  \
  simplemix train --config run.toml --resume\n  \
  simplemix train --model ./smollm2 --mix on=on.parquet:1 --mix off=uf.parquet:1 --lora-rank 16 --output runs/lora\n  \
  simplemix train --trl-config dpo.yaml --output runs/as-trl\n  \
  simplemix train --objective reward --model ./smollm2 --train pairs.parquet --output runs/reward\n\n\
  run.toml holds the same names with underscores: beta = 0.1, learning_rate = 1e-6, batch_size = 8"
)]
pub(crate) struct Args {
    /// Settings in TOML
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Settings of TRL in YAML, with TRL's defaults; what has no meaning here is listed
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    trl_config: Option<PathBuf>,
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
    /// A source to draw pairs from in place of --train, every batch in the sources' shares; give it several times
    #[arg(long, value_name = "NAME=FILE:WEIGHT", value_parser = source)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mix: Vec<MixSource>,
    /// Held-back pairs, scored during and after training; NAME=FILE several times for several sets
    #[arg(long, value_name = "[NAME=]FILE")]
    #[serde(serialize_with = "as_eval", skip_serializing_if = "Vec::is_empty")]
    eval: Vec<String>,
    /// What is learnt: preference, sft (the chosen responses) or reward (a reward model) [default: preference]
    #[arg(long, value_name = "WHAT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    objective: Option<String>,
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
    /// Factor of a pair's score difference in the label of the loss soft_label [default: 1]
    #[arg(long, value_name = "FACTOR", allow_negative_numbers = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    reward_margin_scale: Option<f64>,
    /// Weight of what a response has more of than the other one: LD-DPO [default: none]
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    ld_alpha: Option<f64>,
    /// Where the reference's log-probs come from: cached, computed or on_the_fly [default: cached]
    #[arg(long, value_name = "HOW")]
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
    /// A reference other than the model before training
    #[arg(long, value_name = "DIR|ID")]
    #[serde(skip_serializing_if = "Option::is_none")]
    reference_model: Option<PathBuf>,
    /// Updates after which the reference moves towards the policy: TR-DPO; 0 for never [default: 0]
    #[arg(long, value_name = "UPDATES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    sync_reference_every: Option<u64>,
    /// HyPO: weight of the KL divergence to the reference, from answers that the policy writes in every update, such as
    /// 1e-3 [default: 0, none]
    #[arg(long, value_name = "WEIGHT", allow_negative_numbers = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    hypo_lambda: Option<f64>,
    /// HyPO: answers to each prompt [default: 2]
    #[arg(long, value_name = "COUNT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    hypo_samples: Option<u64>,
    /// HyPO: prompts that are answered in an update, 0 for those of all its pairs [default: 0]
    #[arg(long, value_name = "COUNT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    hypo_prompts: Option<u64>,
    /// HyPO: tokens after which an answer is cut [default: 128]
    #[arg(long, value_name = "TOKENS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    hypo_max_new_tokens: Option<u64>,
    /// HyPO: bound of an answer's log-ratio in the gradient, nats [default: none]
    #[arg(long, value_name = "NATS", allow_negative_numbers = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    hypo_clip: Option<f64>,
    /// Rank of a LoRA adapter that is trained in place of all weights [default: 0, none]
    #[arg(long, value_name = "RANK")]
    #[serde(skip_serializing_if = "Option::is_none")]
    lora_rank: Option<i64>,
    /// Its scale is this over the rank [default: 32]
    #[arg(long, value_name = "ALPHA", allow_negative_numbers = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    lora_alpha: Option<f64>,
    /// Share of its inputs dropped in training [default: 0]
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    lora_dropout: Option<f64>,
    /// Linear layers it changes, such as q_proj,v_proj [default: all]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    lora_targets: Vec<String>,
    /// A peft adapter to go on training
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    adapter: Option<PathBuf>,
    /// Parameters that stay as they are, by pattern, such as 'model.layers.[0-9].*'
    #[arg(long, value_name = "PATTERNS", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    freeze: Vec<String>,
    /// Element type of the weights: auto, float32 or bfloat16 [default: auto, bfloat16 on a GPU]
    #[arg(long, value_name = "TYPE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    dtype: Option<String>,
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
    /// Keep token ids on disk, so that another run on the same pairs starts at once [default: true]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "true|false")]
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_tokens: Option<bool>,
    /// Tokens of a forward pass: memory grows with it, results do not change [default: 1024]
    #[arg(long, value_name = "TOKENS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    micro_batch_tokens: Option<u64>,
    /// Compute activations again in the backward pass: less memory, a third more time, the same results
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "true|false")]
    #[serde(skip_serializing_if = "Option::is_none")]
    activation_checkpointing: Option<bool>,
    /// Send the prompt of a pair through the network once for both responses; results do not change [default: true]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "true|false")]
    #[serde(skip_serializing_if = "Option::is_none")]
    share_prompts: Option<bool>,
    /// What becomes of a batch whose loss or gradient is not a number: stop or skip [default: stop]
    #[arg(long, value_name = "stop|skip")]
    #[serde(skip_serializing_if = "Option::is_none")]
    on_nonfinite: Option<String>,
    /// Order of the pairs: `none` as they stand in the file, `seed` shuffled each epoch, `trl` as TRL's [default: none]
    #[arg(long, value_name = "none|seed|trl")]
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
    /// Checkpoints kept, beside the best one [default: 2]
    #[arg(long, value_name = "COUNT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    keep_checkpoints: Option<u64>,
    /// Metric by which the best checkpoint becomes the result, such as eval_loss or eval_rewards/accuracies
    #[arg(long, value_name = "METRIC")]
    #[serde(skip_serializing_if = "Option::is_none")]
    best_metric: Option<String>,
    /// Evaluations without a better one after which the run stops
    #[arg(long, value_name = "COUNT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    early_stopping_patience: Option<u64>,
}

/// `on=pairs.parquet:0.5`.
fn source(text: &str) -> std::result::Result<MixSource, String> {
    let spec: simplemix_mix::SourceSpec = text.parse().map_err(|error: simplemix_mix::Error| error.to_string())?;
    let weight = spec.weight.ok_or("expected NAME=FILE:WEIGHT, with a weight")?;
    Ok(MixSource { name: spec.name, path: spec.path.into(), weight })
}

/// A file, or files by name.
fn as_eval<S: serde::Serializer>(files: &[String], serializer: S) -> std::result::Result<S::Ok, S::Error> {
    match files {
        [file] if !file.contains('=') || PathBuf::from(file).exists() => serializer.serialize_str(file),
        files => serializer.collect_map(files.iter().map(|file| file.split_once('=').unwrap_or(("", file)))),
    }
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
    config.reference_model =
        config.reference_model.as_deref().map(simplemix_model::hub::resolve).transpose().input()?;
    let run = Run::prepare(config).input()?;
    describe(&run);
    if args.dry_run {
        return estimate(&run);
    }
    let mut terminal = Terminal::new()?;
    let finished = run.start(resume, &mut terminal).run()?;
    terminal.clear();
    match finished.outcome {
        Outcome::Finished | Outcome::StoppedEarly => {
            if finished.outcome == Outcome::StoppedEarly {
                print("stopped early: the evaluations had stopped getting better");
            }
            print(&format!("model: {}", finished.folder.model().display()));
            print(&format!("report: {}", finished.folder.path().join("report.html").display()));
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
    let path = args.config.as_ref().or(args.trl_config.as_ref()).cloned().unwrap_or_else(|| PathBuf::from("flags"));
    let mut table = match (&args.config, &args.trl_config) {
        (Some(path), _) => {
            let text = read_text(path)?;
            // The file alone first, so that its errors point into it.
            TrainConfig::from_toml(&text, path).input()?;
            text.parse().input()?
        }
        (None, Some(path)) => {
            let (table, unused) = from_trl(&read_text(path)?, path).input()?;
            if !unused.is_empty() {
                print(&format!("{}: without meaning here: {}", path.display(), unused.join(", ")));
            }
            table
        }
        (None, None) => toml::Table::new(),
    };
    table.extend(toml::Table::try_from(&args.settings).input()?);
    TrainConfig::from_toml(&table.to_string(), &path).input()
}

fn describe(run: &Run) {
    print(&format!("train: {}", run.train.summary()));
    for (source, pairs, share) in run.train.shares() {
        print(&format!("  {source:<12} {pairs:>7} pairs  {share:.4}"));
    }
    for (name, set) in &run.eval {
        print(&format!("eval:  {}{}{}", name, if name.is_empty() { "" } else { ": " }, set.summary()));
    }
    let (trained, all) = (run.trained_parameters(), run.parameters());
    let share = if trained == all { String::new() } else { format!(" of {all}") };
    print(&format!(
        "{trained}{share} weights trained, {} updates of {} pairs",
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
