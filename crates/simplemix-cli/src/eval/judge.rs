//! `simplemix eval judge`: verdicts on two models' responses, in the official annotation format.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use simplemix_eval::alpaca::{WinRate, read_annotations};
use simplemix_eval::judge::{AnnotateOptions, Judge, OutputPair, Summary, annotate, pair_outputs};
use simplemix_eval::{Error, ModelOutput, read_outputs};

use crate::claims::claim_files;
use crate::eval::judges::{ExactJudge, RewardJudge, ServerJudge};
use crate::failure::{Fails, Failure, Result};
use crate::flags::DeviceFlag;
use crate::generate::{ServerFlags, say_failed};
use crate::lines::{print, print_json, warn};
use crate::progress::bar;

/// Judge a model's responses against a baseline's, in the format of the official alpaca_eval package
///
/// A model behind a server gets AlpacaEval 2.0's question, and the verdict is the probability of its reply. The order
/// in which a judge sees two responses depends on the instruction, as in the official package, and equal responses are a
/// draw without a question. Finished verdicts are kept beside the output: after a stop, the same command continues there.
#[derive(Debug, clap::Args)]
#[command(
    group = clap::ArgGroup::new("judge").required(true).args(["server", "reward_model", "answers"]),
    after_help = "Examples:\n  \
  simplemix eval judge --outputs model_outputs.json --baseline gpt4_turbo.json --server https://api.openai.com/v1 \\\n    \
    --server-model gpt-4-1106-preview -o annotations.json\n  \
  simplemix eval judge --outputs a.json --baseline b.json --reward-model runs/reward/model -o annotations.json\n  \
  simplemix eval judge --outputs a.json --baseline b.json --answers gsm8k.jsonl -o annotations.json"
)]
pub(crate) struct Args {
    /// Responses of the model, in the format of model_outputs.json
    #[arg(long, value_name = "FILE")]
    outputs: PathBuf,
    /// Responses of the baseline, in the format of model_outputs.json
    #[arg(long, value_name = "FILE")]
    baseline: PathBuf,
    /// Judge by a model behind a server with OpenAI's interface
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// Judge by a reward model: a folder, or an id on the hub
    #[arg(long, value_name = "DIR|ID")]
    reward_model: Option<PathBuf>,
    /// Judge by known right answers: JSON with instruction (or question) and answer, a text, a number, or a list of them of which
    /// any is right
    #[arg(long, value_name = "FILE")]
    answers: Option<PathBuf>,
    /// Name of the judge in the annotations [default: depends on the judge]
    #[arg(long, value_name = "NAME")]
    annotator: Option<String>,
    /// Name of the model in the annotations [default: the generator that --outputs names, or else the file's name]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Most tokens of a reply of --server; a judge that thinks before it replies needs more
    #[arg(long, value_name = "TOKENS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: u32,
    /// Seed of the order in which the judge sees two responses; the official package uses 0
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// File of annotations to write
    #[arg(short, long, value_name = "FILE", default_value = "annotations.json")]
    output: PathBuf,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceFlag,
    #[command(flatten)]
    server_flags: ServerFlags,
}

impl Args {
    /// Whether models run in this process.
    pub(crate) fn runs_models(&self) -> bool {
        self.reward_model.is_some()
    }
}

pub(crate) fn run(args: &Args) -> Result {
    args.device.refuse_without_models(args.runs_models())?;
    let _claims = claim_files(&[("output", &args.output)])?;
    let (pairs, mut notices) = pairs(args)?;
    let stopped = crate::interrupt::flag();
    let (judge, concurrency) = judge(args, stopped.clone(), &mut notices)?;
    notices.iter().for_each(|notice| warn(notice));
    let options = AnnotateOptions { output: args.output.clone(), concurrency, seed: args.seed };
    let bar = bar("judging", pairs.len() as u64);
    let judged = annotate(&pairs, judge.as_ref(), &options, &mut |done| {
        bar.set_position(done as u64);
        !stopped.load(Ordering::SeqCst)
    });
    bar.finish_and_clear();
    let summary = match judged {
        Err(Error::Stopped) => return Err(Failure::Interrupted),
        Err(_) if stopped.load(Ordering::SeqCst) => return Err(Failure::Interrupted),
        Err(error @ (Error::Malformed { .. } | Error::File(simplemix_files::Error::Locked { .. }))) => {
            return Err(Failure::Input(error.into()));
        }
        Err(error @ Error::NoVerdict { .. }) => return Err(no_verdict(args, &error)),
        judged => judged.run()?,
    };
    let models = read_annotations(&args.output).run()?;
    let figures: Vec<(&str, WinRate)> = models.iter().map(|of| (of.model.as_str(), WinRate::of(of))).collect();
    if args.json {
        let figures: Vec<_> =
            figures.iter().map(|(model, figures)| json!({"model": model, "figures": figures})).collect();
        let all = json!({
            "output": args.output, "annotator": judge.name(), "summary": summary, "models": figures, "notices": notices,
        });
        print_json(&all.to_string());
        return Ok(());
    }
    print_summary(args, judge.name(), &summary);
    for (model, WinRate { win_rate, standard_error, .. }) in figures {
        let error = if standard_error.is_nan() { String::new() } else { format!(" ± {standard_error:.2}") };
        print(&format!("  {model}: win rate {win_rate:.2}{error}"));
    }
    Ok(())
}

/// Responses of the two files to the same instructions, and what there is to say about them.
fn pairs(args: &Args) -> Result<(Vec<OutputPair>, Vec<String>)> {
    let mut notices = Vec::new();
    let mut read = |flag: &str, path: &Path| one_model(flag, path, read_outputs(path, &mut notices).input()?);
    let (baseline, mut model) = (read("--baseline", &args.baseline)?, read("--outputs", &args.outputs)?);
    if let Some(name) = &args.name {
        model.iter_mut().for_each(|output| output.generator.clone_from(name));
    }
    let (pairs, unmatched) = pair_outputs(&baseline, &model);
    let (outputs, baseline) = (args.outputs.display(), args.baseline.display());
    let Some(first) = pairs.first() else {
        return Err(Failure::input(format!(
            "--outputs {outputs}: no instruction in common with --baseline {baseline}, expected some"
        )));
    };
    if first.generators[0] == first.generators[1] && !pairs.iter().all(OutputPair::is_draw) {
        let name = &first.generators[0];
        return Err(Failure::input(format!(
            "--outputs {outputs} and --baseline {baseline} have other responses but one name, `{name}`; give --name"
        )));
    }
    if unmatched.baseline + unmatched.model > 0 {
        notices.push(format!(
            "left out: {} instructions without a response of the model, {} without one of the baseline",
            unmatched.baseline, unmatched.model
        ));
    }
    if unmatched.repeated > 0 {
        let count = unmatched.repeated;
        notices.push(format!("left out: {count} responses to an instruction that has one already"));
    }
    Ok((pairs, notices))
}

/// Refuses responses of several models in one file, of which only the first would be judged.
fn one_model(flag: &str, path: &Path, outputs: Vec<ModelOutput>) -> Result<Vec<ModelOutput>> {
    let names: BTreeSet<&str> = outputs.iter().map(|output| output.generator.as_str()).collect();
    if names.len() > 1 {
        let names = names.into_iter().collect::<Vec<_>>().join(", ");
        return Err(Failure::input(format!(
            "{flag} {}: responses of several models, {names}; expected those of one",
            path.display()
        )));
    }
    Ok(outputs)
}

/// The failure of a judge that said nothing of use, with what would help.
fn no_verdict(args: &Args, error: &Error) -> Failure {
    let hint = match (&args.server, &args.answers) {
        (Some(_), _) => {
            format!(", expected m or M; a judge that thinks first needs more than --max-tokens {}", args.max_tokens)
        }
        (_, Some(path)) => format!("; expected --answers {} to have some of the instructions", path.display()),
        _ => String::new(),
    };
    Failure::Run(anyhow::anyhow!("{error}{hint}"))
}

fn print_summary(args: &Args, judge: &str, summary: &Summary) {
    print(&format!("{}: {} verdicts of {judge}", args.output.display(), summary.comparisons));
    if summary.before > 0 {
        print(&format!("  {} of them kept from an earlier run", summary.before));
    }
    if summary.equal > 0 {
        print(&format!("  {} draws of equal responses, without a question", summary.equal));
    }
    if summary.without > 0 {
        print(&format!("  {} without a preference", summary.without));
    }
    if summary.prompt_tokens > 0 {
        let Summary { prompt_tokens, completion_tokens, .. } = summary;
        print(&format!("  {prompt_tokens} tokens in questions, {completion_tokens} in replies"));
    }
    say_failed(&summary.failed);
}

/// Makes the judge, and gives the number of comparisons that it takes at once.
fn judge(args: &Args, stopped: Arc<AtomicBool>, notices: &mut Vec<String>) -> Result<(Box<dyn Judge>, usize)> {
    let name = args.annotator.as_deref();
    if let Some(url) = &args.server {
        let settings = args.server_flags.settings(url);
        let concurrency = settings.concurrency;
        let limit = args.max_tokens as usize;
        return Ok((Box::new(ServerJudge::new(settings, name, limit, stopped)?), concurrency));
    }
    match (&args.reward_model, &args.answers) {
        (Some(folder), _) => {
            let folder = simplemix_model::hub::resolve(folder).input()?;
            Ok((Box::new(RewardJudge::load(&folder, args.device.choice(), name)?), 1))
        }
        (None, Some(path)) => Ok((Box::new(ExactJudge::read(path, name, notices)?), 1)),
        (None, None) => Err(Failure::input("no judge is given, expected --server, --reward-model or --answers")),
    }
}
