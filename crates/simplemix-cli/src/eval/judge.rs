//! `simplemix eval judge`: which of two models' answers are better, in the official annotation format.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use simplemix_eval::Error;
use simplemix_eval::alpaca::{WinRate, read_annotations};
use simplemix_eval::judge::{AnnotateOptions, Judge, annotate, comparisons};
use simplemix_eval::report::read_outputs;

use crate::eval::judges::{ExactJudge, RewardJudge, ServerJudge};
use crate::failure::{Fails, Failure, Result};
use crate::generate::ServerFlags;
use crate::progress::{bar, print, warn};

/// Judge a model's answers against a baseline's: annotations.json as the official alpaca_eval package writes it
///
/// A server's model is asked AlpacaEval 2.0's question, and the verdict is the probability of its answer's token. The
/// order of the answers follows from the instruction as in the official package. Every verdict is kept at once: killed or
/// stopped at any moment, the same command goes on from there.
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
    /// The model's answers, model_outputs.json
    #[arg(long, value_name = "FILE")]
    outputs: PathBuf,
    /// The answers to compare with, in the same format
    #[arg(long, value_name = "FILE")]
    baseline: PathBuf,
    /// Address of a judge with OpenAI's interface
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// Folder of a reward model that judges
    #[arg(long, value_name = "DIR")]
    reward_model: Option<PathBuf>,
    /// Right answers that judge: JSON with instruction (or question) and answer
    #[arg(long, value_name = "FILE")]
    answers: Option<PathBuf>,
    /// Name of the judge in the annotations
    #[arg(long, value_name = "NAME")]
    annotator: Option<String>,
    /// What the order of the answers follows from; the official package's is 0
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// File to write
    #[arg(short, long, value_name = "FILE", default_value = "annotations.json")]
    output: PathBuf,
    #[command(flatten)]
    server_flags: ServerFlags,
}

pub(crate) fn run(args: &Args) -> Result {
    let (baseline, model) = (read_outputs(&args.baseline).input()?, read_outputs(&args.outputs).input()?);
    let (compared, unmatched) = comparisons(&baseline, &model);
    if compared.is_empty() {
        let (outputs, baseline) = (args.outputs.display(), args.baseline.display());
        return Err(Failure::input(format!("{outputs}: no instruction of {baseline} in it")));
    }
    if unmatched.baseline + unmatched.model > 0 {
        warn(&format!(
            "{} instructions of the baseline have no answer of the model, {} of the model none of the baseline",
            unmatched.baseline, unmatched.model
        ));
    }
    let stopped = Arc::new(AtomicBool::new(false));
    let flag = stopped.clone();
    ctrlc::set_handler(move || flag.store(true, Ordering::SeqCst)).run()?;
    let (judge, concurrency) = judge(args, stopped.clone())?;
    let options = AnnotateOptions { output: args.output.clone(), concurrency, seed: args.seed };
    let bar = bar("judging", compared.len() as u64);
    let judged = annotate(&compared, judge.as_ref(), &options, &mut |done| {
        bar.set_position(done as u64);
        !stopped.load(Ordering::SeqCst)
    });
    bar.finish_and_clear();
    let summary = match judged {
        Err(Error::Stopped) => return Err(Failure::Interrupted),
        Err(_) if stopped.load(Ordering::SeqCst) => return Err(Failure::Interrupted),
        Err(error @ Error::Malformed { .. }) => return Err(Failure::Input(error.into())),
        judged => judged.run()?,
    };
    let output = args.output.display();
    print(&format!("{output}: {} verdicts of {}", summary.comparisons, judge.name()));
    if summary.before > 0 {
        print(&format!("  {} of them were there already", summary.before));
    }
    if summary.without > 0 {
        print(&format!("  {} without a preference", summary.without));
    }
    if summary.prompt_tokens > 0 {
        print(&format!("  {} tokens asked, {} answered", summary.prompt_tokens, summary.completion_tokens));
    }
    for annotations in read_annotations(&args.output).run()? {
        let figures = WinRate::of(&annotations);
        print(&format!("  {}: win rate {:.2} ± {:.2}", annotations.model, figures.win_rate, figures.standard_error));
    }
    Ok(())
}

/// The judge, and how many comparisons it takes at once.
fn judge(args: &Args, stopped: Arc<AtomicBool>) -> Result<(Box<dyn Judge>, usize)> {
    let name = args.annotator.as_deref();
    if let Some(url) = &args.server {
        let settings = args.server_flags.for_judge(url)?;
        let concurrency = settings.concurrency;
        return Ok((Box::new(ServerJudge::new(settings, name, stopped)?), concurrency));
    }
    match (&args.reward_model, &args.answers) {
        (Some(folder), _) => {
            let folder = simplemix_model::hub::resolve(folder).input()?;
            Ok((Box::new(RewardJudge::load(&folder, name)?), 1))
        }
        (None, Some(path)) => Ok((Box::new(ExactJudge::read(path, name)?), 1)),
        (None, None) => Err(Failure::input("no judge: give --server, --reward-model or --answers")),
    }
}
