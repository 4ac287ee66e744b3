//! `simplemix eval preferences`: how well a model's implicit rewards order preference pairs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::json;
use simplemix_data::{Message, Pair, PairReader, PairTokenizer, Policy, Text, TokenizeOptions, schema};
use simplemix_eval::{
    Panel, PreferenceFigures, ScoredPair, Series, preference_figures, preference_groups, table, write_svg,
};
use simplemix_rollout::{Generator, LocalModel, LocalSettings, Prompt, SamplingConfig};
use simplemix_train::PairSet;

use crate::failure::{Fails, Failure, Result};
use crate::progress::{bar, print};
use crate::reading::Reading;
use crate::scoring::log_probabilities;

/// Accuracy, margin, length bias and calibration of a model on preference pairs, also per source and task
///
/// The reward of a response is beta times its log-ratio, model over reference. Without a reference it is beta times its
/// log-probability. A set of chosen and rejected answers by subset, such as RewardBench's, gives an accuracy for each.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
  simplemix eval preferences --model runs/dpo/model --reference ./smollm2 --data held_back.parquet\n  \
  simplemix eval preferences --model runs/dpo/model --reference ./smollm2 --data held_back.parquet --kl-prompts 100 --json")]
pub(crate) struct Args {
    /// Model folder, or its id on the hub
    #[arg(long, value_name = "DIR|ID")]
    model: PathBuf,
    /// The model before training [default: none; rewards are log-probabilities]
    #[arg(long, value_name = "DIR|ID")]
    reference: Option<PathBuf>,
    /// Pairs
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Factor of the rewards, as in training
    #[arg(long, default_value_t = 0.1)]
    beta: f64,
    /// Tokens of prompt and response; longer pairs are cut at their end
    #[arg(long, value_name = "TOKENS", default_value_t = 1024)]
    max_length: usize,
    /// Tokens of a forward pass: memory grows with it, results do not change
    #[arg(long, value_name = "TOKENS", default_value_t = 2048)]
    micro_batch_tokens: usize,
    /// Also estimate the divergence from the reference, on two answers of the model to each of so many prompts
    #[arg(long, value_name = "N", default_value_t = 0, requires = "reference")]
    kl_prompts: usize,
    /// Tokens of such an answer
    #[arg(long, value_name = "TOKENS", default_value_t = 256)]
    kl_tokens: usize,
    /// What such answers follow from
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Draw the reliability curve: an .svg file
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// All figures as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reading: Reading,
}

pub(crate) fn run(args: &Args) -> Result {
    if !(args.beta.is_finite() && args.beta > 0.0) {
        return Err(Failure::input(format!("--beta is {}, expected a number above 0", args.beta)));
    }
    let pairs = read(args)?;
    let model = simplemix_model::hub::resolve(&args.model).input()?;
    let reference = args.reference.as_deref().map(simplemix_model::hub::resolve).transpose().input()?;
    let options = TokenizeOptions { max_length: args.max_length, ..TokenizeOptions::default() };
    let tokenizer = PairTokenizer::from_dir(&model, options).input()?;
    let set = PairSet::tokenize(&pairs, &tokenizer).input()?;
    if set.is_empty() {
        return Err(Failure::input(format!("{}: {}", args.data.display(), set.summary())));
    }
    let scored = scored(&set, &pairs, &logps(args, &model, reference.as_deref(), &set)?);
    let kl = match &reference {
        Some(reference) if args.kl_prompts > 0 => Some(divergence(args, &model, reference, &pairs, &tokenizer)?),
        _ => None,
    };
    let all = preference_figures(&scored, args.beta);
    let groups = preference_groups(&scored, args.beta);
    if let Some(path) = &args.plot {
        write_svg(path, &[reliability(&all)]).run()?;
    }
    if args.json {
        let figures = json!({
            "data": args.data, "beta": args.beta, "reference": args.reference, "left_out": set.dropped, "cut": set.cut,
            "all": all, "groups": groups, "kl": kl.as_ref().map(|kl| json!({ "mean": kl.mean, "standard_error": kl.error,
            "per_token": kl.per_token, "answers": kl.answers })),
        });
        print(&serde_json::to_string_pretty(&figures).run()?);
        return Ok(());
    }
    say(args, &set, &all, &groups, kl.as_ref());
    Ok(())
}

fn read(args: &Args) -> Result<Vec<Pair>> {
    let reader = PairReader::open(&args.data, &args.reading.options()?).input()?;
    let mut pairs = Vec::new();
    for batch in reader {
        pairs.extend(schema::pairs_from_batch(&batch.input()?).input()?);
    }
    if pairs.is_empty() {
        return Err(Failure::input(format!("{}: no pair in it", args.data.display())));
    }
    Ok(pairs)
}

/// Log-probabilities under the model and the reference; zeros for none.
fn logps(args: &Args, model: &Path, reference: Option<&Path>, set: &PairSet) -> Result<[Vec<[f64; 2]>; 2]> {
    let policy = log_probabilities(model, set, args.micro_batch_tokens, "model")?;
    let reference = match reference {
        Some(reference) => log_probabilities(reference, set, args.micro_batch_tokens, "reference")?,
        None => vec![[0.0; 2]; policy.len()],
    };
    Ok([policy, reference])
}

fn scored(set: &PairSet, pairs: &[Pair], [policy, reference]: &[Vec<[f64; 2]>; 2]) -> Vec<ScoredPair> {
    let entries = set.table.pairs.iter().zip(policy.iter().zip(reference));
    let pair = |(entry, (policy, reference)): (&simplemix_train::PairEntry, (&[f64; 2], &[f64; 2]))| ScoredPair {
        source: pairs[entry.row].source.clone(),
        task: pairs[entry.row].task.clone(),
        policy: *policy,
        reference: *reference,
        tokens: entry.responses.map(|tokens| tokens as u64),
    };
    entries.map(pair).collect()
}

/// An estimate of the divergence of the model from its reference.
struct Divergence {
    /// Nats an answer.
    mean: f64,
    /// Standard error of the mean.
    error: f64,
    /// Nats a token.
    per_token: f64,
    answers: usize,
}

/// The mean log-ratio of the model's own answers, two to a prompt, scored as pairs are.
fn divergence(
    args: &Args,
    model: &Path,
    reference: &Path,
    pairs: &[Pair],
    tokenizer: &PairTokenizer,
) -> Result<Divergence> {
    let sampled = {
        let mut local = LocalModel::load(&LocalSettings::new(model)).input()?;
        let mut prompts: Vec<Prompt> = Vec::new();
        for pair in pairs {
            if prompts.len() < args.kl_prompts && !prompts.iter().any(|known| known.prompt == pair.prompt) {
                prompts.push(Prompt::new(&pair.id, pair.prompt.clone()));
            }
        }
        let sampling = SamplingConfig {
            samples: 2,
            temperature: 1.0,
            top_p: 1.0,
            max_new_tokens: args.kl_tokens,
            seed: args.seed,
            ..SamplingConfig::simplemix()
        };
        let bar = bar("sampling", 2 * prompts.len() as u64);
        let answers = local.generate(&prompts, &sampling, &mut |done, _| bar.set_position(done as u64)).run()?;
        bar.finish_and_clear();
        let response = |prompt: &Text, text: &str| match prompt {
            Text::Plain(_) => Text::Plain(text.to_owned()),
            Text::Messages(_) => Text::Messages(vec![Message::assistant(text)]),
        };
        let pair = |(prompt, answers): (&Prompt, &Vec<simplemix_rollout::Candidate>)| {
            let [a, b] = [0, 1].map(|side| response(&prompt.prompt, &answers[side].text));
            Pair::new(prompt.prompt.clone(), a, b, "sampled", Policy::On)
        };
        prompts.iter().zip(&answers).map(pair).collect::<Vec<_>>()
    };
    let set = PairSet::tokenize(&sampled, tokenizer).input()?;
    let [policy, reference] = logps(args, model, Some(reference), &set)?;
    let ratios: Vec<f64> = policy.iter().zip(&reference).flat_map(|(p, r)| [p[0] - r[0], p[1] - r[1]]).collect();
    if ratios.is_empty() {
        return Err(Failure::input(format!("--kl-prompts: no answer could be scored; {}", set.summary())));
    }
    let (count, sum) = (ratios.len() as f64, ratios.iter().sum::<f64>());
    let tokens: usize = set.table.pairs.iter().flat_map(|entry| entry.responses).sum();
    let spread = ratios.iter().map(|ratio| (ratio - sum / count).powi(2)).sum::<f64>() / (count - 1.0);
    Ok(Divergence {
        mean: sum / count,
        error: (spread / count).sqrt(),
        per_token: sum / tokens.max(1) as f64,
        answers: ratios.len(),
    })
}

fn reliability(figures: &PreferenceFigures) -> Panel {
    let bins = &figures.calibration.bins;
    Panel {
        title: format!("Reliability, ECE {:.3}", figures.calibration.ece),
        x: "confidence".to_owned(),
        series: vec![
            Series {
                name: "right".to_owned(),
                points: bins.iter().map(|bin| (bin.confidence, bin.accuracy)).collect(),
            },
            Series { name: "as it should be".to_owned(), points: vec![(0.5, 0.5), (1.0, 1.0)] },
        ],
        smooth: false,
        baseline: None,
    }
}

fn say(
    args: &Args,
    set: &PairSet,
    all: &PreferenceFigures,
    groups: &BTreeMap<String, PreferenceFigures>,
    kl: Option<&Divergence>,
) {
    print(&format!("{}: {}", args.data.display(), set.summary()));
    let number = |value: f64| if value.is_nan() { "-".to_owned() } else { format!("{value:.4}") };
    let row = |(name, found): (&str, &PreferenceFigures)| {
        vec![
            name.to_owned(),
            found.pairs.to_string(),
            number(found.accuracy),
            format!("{:.3} to {:.3}", found.accuracy_interval[0], found.accuracy_interval[1]),
            number(found.margin),
            number(found.loss),
            number(found.calibration.ece),
            number(found.length.chosen_longer),
            number(found.length.longer_preferred),
        ]
    };
    let several = groups.iter().filter(|_| groups.len() > 1).map(|(name, found)| (name.as_str(), found));
    let rows: Vec<Vec<String>> = std::iter::once(("all", all)).chain(several).map(row).collect();
    let headings = ["", "pairs", "accuracy", "95 %", "margin", "loss", "ECE", "chosen longer", "longer preferred"];
    print(&table(&headings, &rows));
    print(&format!("mean log-probability {:.2} chosen, {:.2} rejected", all.logps[0], all.logps[1]));
    print(&format!("margin against difference in length: correlation {}", number(all.length.correlation)));
    print("reliability of the preferred side:");
    for bin in &all.calibration.bins {
        print(&format!("  confidence {:.3}: right {:.3} of {} pairs", bin.confidence, bin.accuracy, bin.pairs));
    }
    if let Some(kl) = kl {
        let Divergence { mean, error, per_token, answers } = kl;
        print(&format!(
            "divergence from the reference {mean:.3} ± {error:.3} nats an answer, {per_token:.5} a token, on {answers} answers"
        ));
    }
}
