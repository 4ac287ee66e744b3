//! SIMPLEMIX from end to end: collect on-policy pairs, mix them half and half with off-policy pairs, train, evaluate.
//!
//! ```text
//! cargo run --release --example mix_dpo             # SmolLM2-135M-Instruct, a few minutes
//! cargo run --release --example mix_dpo -- --fast   # a tiny random model, seconds
//! ```
//!
//! The settings are in `mix_dpo.toml` beside this file.

#![allow(clippy::print_stdout, reason = "a demo talks to its user")]

mod bars;
mod inputs;
#[expect(dead_code, reason = "the example of the comparison takes more of it")]
mod problems;
mod report;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde::Deserialize;
use simplemix::data::{Message, Pair, PairTokenizer, Text, TokenizeOptions, Watch};
use simplemix::mix::{Exhaustion, Weight};
use simplemix::model::{CausalLm, DeviceChoice};
use simplemix::pipeline::{MixSettings, MixSource, Mixing};
use simplemix::rollout::{DigitShare, ExactAnswer, Generator, LocalGenerator, Prompt, SamplingConfig, Scorer, collect};
use simplemix::train::{PairSet, Resume, Run, TrainConfig, Trained, peak_bytes};
use tch::Kind;

use crate::bars::Bars;

/// Mix on-policy and off-policy pairs, train with DPO, compare before and after
#[derive(Parser)]
struct Args {
    /// A tiny random model in place of a real one: seconds rather than minutes
    #[arg(long)]
    fast: bool,
    /// Model folder, or its id on the hub, in place of SmolLM2-135M-Instruct
    #[arg(long, value_name = "DIR|ID")]
    model: Option<PathBuf>,
    /// File of off-policy pairs in place of the demo's
    #[arg(long, value_name = "FILE")]
    off_policy: Option<PathBuf>,
    /// Settings in place of mix_dpo.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Run folder [default: the first free of runs/mix_dpo, runs/mix_dpo-2, ...]
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    prompts: PromptConfig,
    sampling: SamplingConfig,
    on_policy: OnPolicyConfig,
    off_policy: OffPolicyConfig,
    mix: MixConfig,
    train: TrainConfig,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PromptConfig {
    seed: u64,
    training: usize,
    held_out: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OnPolicyConfig {
    held_out: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OffPolicyConfig {
    max_tokens: usize,
    held_out: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MixConfig {
    off: Weight,
    on: Weight,
    total: u64,
    seed: u64,
}

/// Answers made together.
const BATCH_ROWS: usize = 96;

fn main() -> simplemix::Result<()> {
    Ok(run(&Args::parse())?)
}

fn run(args: &Args) -> Result<()> {
    let config: Config = read_config(args)?;
    let scratch = tempfile::tempdir()?;
    let input = match args.fast {
        true => inputs::tiny(scratch.path())?,
        false => inputs::real(args.model.as_deref(), args.off_policy.as_deref())?,
    };
    let output = args.output.clone().unwrap_or_else(free_folder);
    let scorer: &mut dyn Scorer = if args.fast { &mut DigitShare } else { &mut ExactAnswer };

    // 1. The model, and problems it is to get better at.
    println!("1. model      loading {}", input.name);
    let model = CausalLm::load(&input.model, Kind::Float, DeviceChoice::Auto.open()?)?;
    let options = TokenizeOptions { max_length: config.train.tokens.max_length, ..TokenizeOptions::default() };
    let tokenizer = PairTokenizer::from_dir(&input.model, options)?;
    println!("              {} weights", model.config().parameters());
    let mut prompts = prompts(&config.prompts);
    let held_out = prompts.split_off(config.prompts.training);
    let mut policy = LocalGenerator::new(&model, &tokenizer, &input.name, BATCH_ROWS);
    let mut bars = Bars::default();
    let before = answers(&mut policy, &held_out, &config.sampling, &mut bars)?;

    // 2. Pairs written by others.
    let (off, mut held_out_pairs) = off_policy(&input.pairs, &tokenizer, &config.off_policy)?;
    println!("2. off-policy {} pairs for training, {} held out", off.len(), held_out_pairs.len());

    // 3. Pairs from the model itself: several answers a problem, scored, best against worst.
    let progress = &mut |done: usize, total: usize| bars.progress("sampling", done as u64, total as u64);
    let collected = collect(&mut policy, scorer, &prompts, &config.sampling, "on", progress)?;
    bars.clear();
    let mut on = collected.selection.pairs.clone();
    held_out_pairs.extend(on.split_off(on.len() - config.on_policy.held_out.min(on.len() / 2)));
    println!(
        "3. on-policy  {} pairs of {} problems x {} answers; mean score by `{}` {:.3}",
        collected.selection.pairs.len(),
        prompts.len(),
        config.sampling.samples,
        scorer.name(),
        collected.mean_score()
    );
    for (reason, count) in &collected.selection.dropped {
        println!("              {count} of the problems dropped: {}", reason.name());
    }
    drop(model);

    // 4. Half and half.
    let mixture = mixed(&config.mix, &off, &on, &output, &mut bars)?;

    // 5. DPO with a frozen reference.
    let mut train = config.train.clone();
    train.model = Some(input.model.clone());
    train.output = Some(output.clone());
    let run = Run::with_pairs(train, &input.model, &mixture, &held_out_pairs)?;
    println!("5. training   {}; {} updates", run.train.summary(), run.settings().steps);
    let finished = run.start(Resume::No, &mut bars)?;
    bars.clear();

    // 6. The same questions again.
    let trained = finished.model.as_ref().and_then(Trained::policy).context("training was interrupted")?;
    let mut policy = LocalGenerator::new(trained, &tokenizer, &input.name, BATCH_ROWS);
    let after = answers(&mut policy, &held_out, &config.sampling, &mut bars)?;
    let right = |texts: &[String]| -> Vec<bool> {
        let pairs = texts.iter().zip(&held_out);
        pairs.map(|(text, prompt)| prompt.answer.as_ref().is_some_and(|answer| answer.is_stated_by(text))).collect()
    };
    println!("6. evaluation on {} held-out problems and {} held-out pairs\n", held_out.len(), held_out_pairs.len());
    let records = finished.records()?;
    println!("{}\n", report::report(&records, &right(&before), &right(&after)));
    println!("{}", report::verdict(&records));
    report::figure(&records, &output.join("mix_dpo.svg"))?;
    println!("model {}\nplot  {}", finished.folder.model().display(), output.join("mix_dpo.svg").display());
    if let Some(bytes) = peak_bytes() {
        println!("peak memory {:.1} GB", bytes as f64 / 1e9);
    }
    Ok(())
}

fn read_config(args: &Args) -> Result<Config> {
    let (name, text) = match (&args.config, args.fast) {
        (Some(path), _) => (
            path.display().to_string(),
            std::fs::read_to_string(path).with_context(|| format!("{}: cannot read", path.display()))?,
        ),
        (None, true) => ("fast.toml".into(), include_str!("fast.toml").to_owned()),
        (None, false) => ("mix_dpo.toml".into(), include_str!("mix_dpo.toml").to_owned()),
    };
    toml::from_str(&text).with_context(|| name)
}

fn free_folder() -> PathBuf {
    let first = PathBuf::from("runs/mix_dpo");
    let others = (2..).map(|n| PathBuf::from(format!("runs/mix_dpo-{n}")));
    std::iter::once(first.clone()).chain(others).find(|folder| !folder.exists()).unwrap_or(first)
}

fn prompts(config: &PromptConfig) -> Vec<Prompt> {
    problems::problems(config.seed, config.training + config.held_out)
        .into_iter()
        .map(|problem| {
            let prompt = Text::Messages(vec![Message::user(problem.question.as_str())]);
            Prompt::new(problem.question, prompt).with_task(problem.task).with_answer(problem.answer)
        })
        .collect()
}

/// The likeliest answer to each prompt.
fn answers(
    policy: &mut dyn Generator,
    prompts: &[Prompt],
    sampling: &SamplingConfig,
    bars: &mut Bars,
) -> Result<Vec<String>> {
    let greedy = SamplingConfig { samples: 1, temperature: 0.0, ..sampling.clone() };
    let progress = &mut |done: usize, total: usize| bars.progress("answering", done as u64, total as u64);
    let answers = policy.generate(prompts, &greedy, progress)?;
    bars.clear();
    Ok(answers.into_iter().flatten().map(|answer| answer.text.unwrap_or_default()).collect())
}

/// Pairs short enough to train on, and those held out.
fn off_policy(path: &Path, tokenizer: &PairTokenizer, config: &OffPolicyConfig) -> Result<(Vec<Pair>, Vec<Pair>)> {
    let mut pairs = inputs::off_policy(path)?;
    let sizes = PairSet::tokenize(&pairs, tokenizer)?;
    let short: std::collections::HashSet<usize> =
        sizes.table.pairs.iter().filter(|p| p.tokens <= config.max_tokens).map(|p| p.row).collect();
    let mut row = 0;
    pairs.retain(|_| {
        row += 1;
        short.contains(&(row - 1))
    });
    ensure!(
        pairs.len() > config.held_out,
        "{}: {} pairs of at most {} tokens",
        path.display(),
        pairs.len(),
        config.max_tokens
    );
    let held_out = pairs.split_off(pairs.len() - config.held_out);
    Ok((pairs, held_out))
}

/// Mixes both sources, writes the mixture as parquet and returns its pairs.
fn mixed(config: &MixConfig, off: &[Pair], on: &[Pair], output: &Path, bars: &mut Bars) -> Result<Vec<Pair>> {
    let settings = MixSettings {
        sources: vec![MixSource::new("off", "", config.off), MixSource::new("on", "", config.on)],
        size: Some(config.total),
        exhaustion: Exhaustion::FirstExhausted,
        seed: config.seed,
        ..MixSettings::default()
    };
    let mixing = Mixing::of_pairs(&settings, &[off, on])?;
    simplemix::files::create_dir_all(output)?;
    let path = output.join("mixture.parquet");
    let achieved = mixing.write(&path, bars)?;
    bars.clear();
    println!("4. mixture    {} of {} pairs asked for, in {}", achieved.pairs, config.total, path.display());
    for (source, written) in settings.sources.iter().zip(&achieved.sources) {
        let (name, asked, share, pairs) = (&source.name, source.weight, written.share, written.tally.pairs);
        let asked = asked.map_or_else(String::new, |weight| weight.to_string());
        println!("              {name:<4} asked {asked} achieved {share:.3}: {pairs} pairs");
    }
    Ok(mixing.pairs()?)
}
