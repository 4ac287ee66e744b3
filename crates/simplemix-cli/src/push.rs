//! `simplemix push`: the result of a run on the Hugging Face hub.

use std::path::{Path, PathBuf};

use simplemix_model::hub::{Push, PushTo};

use crate::failure::{Fails, Failure, Result};
use crate::lines::print;
use crate::progress::bar;

/// Push the model of a run to the Hugging Face hub
///
/// The token is HF_TOKEN, or that of `hf auth login`; HF_ENDPOINT names another hub. Repository and branch are made if they are not
/// there. The files are one commit, and those that the hub has are not sent again, so that the same command goes on after a failure.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
  simplemix push runs/first my-name/first\n  \
  simplemix push runs/lora my-name/lora --adapter --private\n  \
  simplemix push runs/pipeline/model my-name/mixed --revision v2")]
pub(crate) struct Args {
    /// Run or pipeline, whose folder `model` is pushed, or a model folder
    run: PathBuf,
    /// Repository: OWNER/NAME, or a name of the user's own
    repository: String,
    /// Push the run's adapter in place of the model that it is merged into
    #[arg(long)]
    adapter: bool,
    /// Branch, made if it is not there
    #[arg(long, value_name = "BRANCH", default_value = "main")]
    revision: String,
    /// Make the repository a private one, if it has to be made
    #[arg(long)]
    private: bool,
    /// Message of the commit
    #[arg(long, value_name = "TEXT", default_value = "Trained with simplemix")]
    message: String,
}

pub(crate) fn run(args: &Args) -> Result {
    let folder = folder(&args.run, args.adapter)?;
    let to = PushTo { repository: &args.repository, revision: &args.revision, private: args.private };
    let push = Push::open(to).input()?;
    let bar = bar("pushing", 0);
    let mut progress = |done: u64, total: u64| {
        bar.set_length(total);
        bar.set_position(done);
    };
    let pushed = push.push(&folder, &args.message, &mut progress).run();
    bar.finish_and_clear();
    print(&format!("pushed: {}", pushed?));
    Ok(())
}

/// The folder to push: of a run its `model` or `adapter`, or a model itself.
fn folder(run: &Path, adapter: bool) -> Result<PathBuf> {
    let (part, mark) = if adapter { ("adapter", "adapter_config.json") } else { ("model", "config.json") };
    let found = [run.join(part), run.to_owned()].into_iter().find(|folder| folder.join(mark).is_file());
    found.ok_or_else(|| {
        let run = run.display();
        Failure::input(format!("{run}: no {part} to push, expected a run with {part}/{mark}, or a folder with {mark}"))
    })
}
