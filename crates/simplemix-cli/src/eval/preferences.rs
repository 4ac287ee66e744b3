//! `simplemix eval preferences`: figures of a model's implicit rewards on preference pairs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::json;
use simplemix_data::{Pair, PairTokenizer, TokenizeOptions, read_pairs_with_report};
use simplemix_eval::plot::{Panel, Series, write_svg};
use simplemix_eval::{PreferenceFigures, ScoredPair, preference_figures, preference_groups, table};
use simplemix_pipeline::{
    Divergence, DivergenceSettings, ScoringOptions, log_probabilities_together, log_ratios_together,
};
use simplemix_rollout::Prompt;
use simplemix_settings::OrAuto;
use simplemix_train::{PairEntry, PairSet, ReferenceLogps, Sides};

use crate::failure::{Fails, Failure, Result};
use crate::flags::{DeviceFlag, LoadInFlag, ProcessesFlag, tokens};
use crate::lines::{print, print_json, print_lines};
use crate::progress::Terminal;
use crate::reading::{Reading, RefusalFlag, TokenizerFlag, named, tell_refused, token_notices};
use crate::together::{Processes, share};

/// Measure accuracy, margin, length bias and calibration of a model on preference pairs, also by source and task
///
/// The reward of a response is beta times the log-ratio of model over reference, or beta times the log-probability
/// without a reference. Data with a source or task for each subset, such as RewardBench, gives the accuracy of each
/// subset.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
  simplemix eval preferences --model runs/dpo/model --reference ./smollm2 --data held_out.parquet\n  \
  simplemix eval preferences --model runs/dpo/model --reference ./smollm2 --data held_out.parquet --kl-prompts 100 --json\n  \
  simplemix eval preferences --model runs/dpo/model --reference ./smollm2 --data held_out.parquet --processes 8")]
pub(crate) struct Args {
    /// Model to measure: a folder, or an id on the hub
    #[arg(long, value_name = "DIR|ID")]
    model: PathBuf,
    /// Reference model, such as the model before training [default: none; rewards are log-probabilities]
    #[arg(long, value_name = "DIR|ID")]
    reference: Option<PathBuf>,
    /// File of preference pairs, folder of shards, or pattern
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Scale of the rewards, as in training
    #[arg(long, default_value_t = 0.1)]
    beta: f64,
    /// Most tokens of prompt and response; longer ones are cut at the end
    #[arg(long, value_name = "TOKENS", default_value_t = 1024)]
    max_length: usize,
    /// Tokens in a forward pass; more need more memory and do not change the results; auto is 2048 on a CPU, 16384 on a GPU
    #[arg(long, value_name = "auto|TOKENS", default_value_t = OrAuto::Auto, value_parser = tokens)]
    micro_batch_tokens: OrAuto<usize>,
    /// Also estimate the KL divergence from the reference, on two sampled responses to each of N prompts
    #[arg(long, value_name = "N", default_value_t = 0, requires = "reference")]
    kl_prompts: usize,
    /// Most tokens of a response sampled for --kl-prompts
    #[arg(long, value_name = "TOKENS", default_value_t = 256)]
    kl_tokens: usize,
    /// Random seed of the responses sampled for --kl-prompts
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Draw the reliability curve into an .svg file
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Print all figures as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    load_in: LoadInFlag,
    #[command(flatten)]
    device: DeviceFlag,
    #[command(flatten)]
    processes: ProcessesFlag,
    #[command(flatten)]
    refusal: RefusalFlag,
    #[command(flatten)]
    reading_as: TokenizerFlag,
    #[command(flatten)]
    reading: Reading,
}

pub(crate) fn run(args: &Args) -> Result {
    if !(args.beta.is_finite() && args.beta > 0.0) {
        return Err(Failure::input(format!("--beta is {}, expected a number above 0", args.beta)));
    }
    share(args.processes, args.device, args.plot.as_deref(), |processes, device| {
        let (micro_batch_tokens, load_in) = (args.micro_batch_tokens, args.load_in.load_in);
        let scoring = ScoringOptions { device: device.choice(), micro_batch_tokens, load_in };
        work(args, &Place { processes, scoring })
    })
}

/// The processes, and the device of this one.
struct Place<'a> {
    processes: &'a Processes,
    scoring: ScoringOptions,
}

/// Work of one process.
fn work(args: &Args, place: &Place<'_>) -> Result {
    let plot = args.plot.as_deref().map(|plot| ("plot", plot));
    let _claims = place.processes.claim_files(plot.as_slice())?;
    let pairs = read(args)?;
    let model = simplemix_model::hub::resolve(&args.model).input()?;
    let reference = args.reference.as_deref().map(simplemix_model::hub::resolve).transpose().input()?;
    let tokenizer_as = args.reading_as.tokenizer_as;
    let on_refused = args.refusal.on_refused;
    let options =
        TokenizeOptions { max_length: args.max_length, tokenizer_as, on_refused, ..TokenizeOptions::default() };
    let tokenizer = PairTokenizer::from_dir(&model, options).input()?;
    let set = PairSet::tokenize(&pairs, &tokenizer).input()?;
    let mut notices = token_notices(&tokenizer, &pairs, set.token_rows())?;
    if set.is_empty() {
        return Err(Failure::input(format!("--data {}: {}, expected some", args.data.display(), set.summary())));
    }
    let logps = logps(place, &model, reference.as_deref(), &set, &mut notices)?;
    let scored = scored(&set, &pairs, &logps);
    let kl = match &reference {
        Some(reference) if args.kl_prompts > 0 => Some(divergence(args, place, &model, reference, &pairs)?),
        _ => None,
    };
    if !place.processes.is_first() {
        return Ok(());
    }
    let all = preference_figures(&scored, args.beta);
    let groups = preference_groups(&scored, args.beta);
    if let Some(path) = &args.plot {
        write_svg(path, &[reliability(&all)]).run()?;
    }
    if args.json {
        let figures = json!({
            "data": args.data, "beta": args.beta, "reference": args.reference, "left_out": set.dropped, "cut": set.cut,
            "all": all, "groups": groups, "kl": kl, "notices": notices,
        });
        print_json(&serde_json::to_string_pretty(&figures).run()?);
        return Ok(());
    }
    print_figures(args, &set, &all, &groups, kl.as_ref());
    Ok(())
}

fn read(args: &Args) -> Result<Vec<Pair>> {
    let options = args.reading.options()?;
    let mut pairs = Vec::new();
    for file in named(&args.data)? {
        let (found, report) = read_pairs_with_report(&file, &options).input()?;
        tell_refused(&report);
        pairs.extend(found);
    }
    if pairs.is_empty() {
        return Err(Failure::input(format!("--data {}: no pair in it, expected some", args.data.display())));
    }
    Ok(pairs)
}

/// Log-probabilities under the model and the reference; zeros without a reference. `notices` gets what the user was told.
fn logps(
    place: &Place<'_>,
    model: &Path,
    reference: Option<&Path>,
    set: &PairSet,
    notices: &mut Vec<String>,
) -> Result<[ReferenceLogps; 2]> {
    let mut terminal = Terminal::passive();
    let mut logps = |model: &Path, name: &str| -> Result<ReferenceLogps> {
        Ok(log_probabilities_together(&place.processes.team(), model, set, place.scoring, name, &mut terminal)?)
    };
    let policy = logps(model, "model")?;
    let reference = match reference {
        Some(reference) => logps(reference, "reference")?,
        None => vec![Sides::default(); policy.len()],
    };
    terminal.clear();
    notices.extend_from_slice(terminal.notices());
    Ok([policy, reference])
}

fn scored(set: &PairSet, pairs: &[Pair], [policy, reference]: &[ReferenceLogps; 2]) -> Vec<ScoredPair> {
    let entries = set.table.pairs.iter().zip(policy.iter().zip(reference));
    let pair = |(entry, (policy, reference)): (&PairEntry, (&Sides<f64>, &Sides<f64>))| ScoredPair {
        source: pairs[entry.row].source.clone(),
        task: pairs[entry.row].task.clone(),
        policy: (*policy).into(),
        reference: (*reference).into(),
        tokens: entry.responses.map(|tokens| tokens as u64).into(),
    };
    entries.map(pair).collect()
}

/// Estimates the divergence of the model from the reference on the first prompts of the pairs.
fn divergence(args: &Args, place: &Place<'_>, model: &Path, reference: &Path, pairs: &[Pair]) -> Result<Divergence> {
    let mut prompts: Vec<Prompt> = Vec::new();
    for pair in pairs {
        if prompts.len() < args.kl_prompts && !prompts.iter().any(|known| known.prompt == pair.prompt) {
            prompts.push(Prompt::new(&pair.id, pair.prompt.clone()));
        }
    }
    let settings = DivergenceSettings {
        model: model.to_owned(),
        reference: reference.to_owned(),
        max_new_tokens: args.kl_tokens,
        max_length: args.max_length,
        scoring: place.scoring,
        seed: args.seed,
        tokenizer_as: args.reading_as.tokenizer_as,
        template_date: None,
    };
    let mut terminal = Terminal::passive();
    let ratios = log_ratios_together(&place.processes.team(), &settings, &prompts, &mut terminal)?;
    terminal.clear();
    Ok(Divergence::of(&ratios))
}

fn reliability(figures: &PreferenceFigures) -> Panel {
    let bins = &figures.calibration.bins;
    Panel {
        title: format!("Reliability, ECE {:.3}", figures.calibration.ece),
        x: "confidence".to_owned(),
        series: vec![
            Series {
                name: "accuracy".to_owned(),
                points: bins.iter().map(|bin| (bin.confidence, bin.accuracy)).collect(),
            },
            Series { name: "perfect calibration".to_owned(), points: vec![(0.5, 0.5), (1.0, 1.0)] },
        ],
        smooth: false,
        baseline: None,
    }
}

fn print_figures(
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
    print_lines(&table(&headings, &rows));
    print(&format!("mean log-probability {:.2} chosen, {:.2} rejected", all.logps[0], all.logps[1]));
    print(&format!("correlation of margin and difference in length {}", number(all.length.correlation)));
    print("reliability:");
    for bin in &all.calibration.bins {
        print(&format!("  confidence {:.3}: accuracy {:.3} on {} pairs", bin.confidence, bin.accuracy, bin.pairs));
    }
    if let Some(kl) = kl {
        let Divergence { mean, standard_error: error, per_token, answers } = kl;
        print(&format!(
            "divergence from the reference {mean:.3} ± {error:.3} nats an answer, {per_token:.5} a token, on {answers} answers"
        ));
    }
}
