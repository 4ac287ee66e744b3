//! `simplemix eval judge`: verdicts on two models' responses, in the official annotation format.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use simplemix_eval::alpaca::{WinRate, read_annotations};
use simplemix_eval::judge::{AnnotateOptions, Judge, Summary, annotate, pair_outputs};
use simplemix_eval::{Error, read_outputs};

use crate::eval::judges::{ExactJudge, RewardJudge, ServerJudge};
use crate::failure::{Fails, Failure, Result};
use crate::generate::ServerFlags;
use crate::progress::{bar, print, warn};

/// Judge a model's responses against a baseline's, in the format of the official alpaca_eval package
///
/// A model behind a server gets AlpacaEval 2.0's question, and the verdict is the probability of its reply. The order
/// in which a judge sees two responses depends on the instruction, as in the official package. Finished verdicts are
/// kept beside the output: after a stop, the same command continues from there.
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
    /// Judge by known right answers: JSON with instruction (or question) and answer
    #[arg(long, value_name = "FILE")]
    answers: Option<PathBuf>,
    /// Name of the judge in the annotations [default: depends on the judge]
    #[arg(long, value_name = "NAME")]
    annotator: Option<String>,
    /// Seed of the order in which the judge sees two responses; the official package uses 0
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// File of annotations to write
    #[arg(short, long, value_name = "FILE", default_value = "annotations.json")]
    output: PathBuf,
    #[command(flatten)]
    server_flags: ServerFlags,
}

pub(crate) fn run(args: &Args) -> Result {
    let (baseline, model) = (read_outputs(&args.baseline).input()?, read_outputs(&args.outputs).input()?);
    let (pairs, unmatched) = pair_outputs(&baseline, &model);
    if pairs.is_empty() {
        let (outputs, baseline) = (args.outputs.display(), args.baseline.display());
        return Err(Failure::input(format!(
            "--outputs {outputs}: no instruction in common with --baseline {baseline}, expected some"
        )));
    }
    if unmatched.baseline + unmatched.model > 0 {
        warn(&format!(
            "left out: {} instructions without a response of the model, {} without one of the baseline",
            unmatched.baseline, unmatched.model
        ));
    }
    let stopped = crate::interrupt::flag()?;
    let (judge, concurrency) = judge(args, stopped.clone())?;
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
        judged => judged.run()?,
    };
    print_summary(args, judge.name(), &summary);
    for annotations in read_annotations(&args.output).run()? {
        let figures = WinRate::of(&annotations);
        print(&format!("  {}: win rate {:.2} ± {:.2}", annotations.model, figures.win_rate, figures.standard_error));
    }
    Ok(())
}

fn print_summary(args: &Args, judge: &str, summary: &Summary) {
    print(&format!("{}: {} verdicts of {judge}", args.output.display(), summary.comparisons));
    if summary.before > 0 {
        print(&format!("  {} of them kept from an earlier run", summary.before));
    }
    if summary.without > 0 {
        print(&format!("  {} without a preference", summary.without));
    }
    if summary.prompt_tokens > 0 {
        let Summary { prompt_tokens, completion_tokens, .. } = summary;
        print(&format!("  {prompt_tokens} tokens in questions, {completion_tokens} in replies"));
    }
}

/// Makes the judge, and gives the number of comparisons that it takes at once.
fn judge(args: &Args, stopped: Arc<AtomicBool>) -> Result<(Box<dyn Judge>, usize)> {
    let name = args.annotator.as_deref();
    if let Some(url) = &args.server {
        let settings = args.server_flags.settings(url);
        let concurrency = settings.concurrency;
        return Ok((Box::new(ServerJudge::new(settings, name, stopped)?), concurrency));
    }
    match (&args.reward_model, &args.answers) {
        (Some(folder), _) => {
            let folder = simplemix_model::hub::resolve(folder).input()?;
            Ok((Box::new(RewardJudge::load(&folder, name)?), 1))
        }
        (None, Some(path)) => Ok((Box::new(ExactJudge::read(path, name)?), 1)),
        (None, None) => Err(Failure::input("no judge is given, expected --server, --reward-model or --answers")),
    }
}
