//! `simplemix pool`: responses of several models in one file.

use std::path::PathBuf;

use simplemix_rollout::{PoolMember, PoolReport, PoolSettings, Quota, pool};

use crate::claims::claim_files;
use crate::failure::Result;
use crate::flags::{Output, flagged, on_terminal};
use crate::lines::print;

/// Bring the responses of several models together, prompt by prompt, and draw some of each
///
/// Files of candidates, one or several a model, become one file, which `score` and `pair` take. With --take each prompt keeps a
/// number of responses of some models: the models in an order that is new for each prompt, one response of each in turn. A
/// prompt with fewer is left out and counted.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
  simplemix pool --candidates strong=32b.parquet --candidates weak=0.6b.parquet -o pool.parquet\n  \
  simplemix pool --candidates a.parquet --candidates b.parquet --candidates c.parquet --candidates d.parquet \
    --take 2:Qwen3-0.6B,Qwen3-1.7B --take 2:Qwen3-14B,Qwen3-32B -o pool.parquet")]
pub(crate) struct Args {
    /// File of candidates; a name before it is that of the model that wrote them, in place of the column generator. Repeat the
    /// flag for each file
    #[arg(long, value_name = "[GENERATOR=]FILE", required = true)]
    candidates: Vec<PoolMember>,
    /// Number of responses that each prompt keeps of some models; repeat the flag for several groups of models [default: all]
    #[arg(long, value_name = "N:GENERATOR,...")]
    take: Vec<Quota>,
    /// Random seed of the draw
    #[arg(long, default_value_t = 42)]
    seed: u64,
    #[command(flatten)]
    output: Output,
}

pub(crate) fn run(args: &Args) -> Result {
    let settings = PoolSettings {
        take: args.take.clone(),
        seed: args.seed,
        overwrite: args.output.overwrite,
        ..PoolSettings::new(args.candidates.clone(), PathBuf::from(&args.output.path))
    };
    let _claims = claim_files(&[("output", &settings.output)])?;
    let report = on_terminal(|terminal| pool(&settings, terminal)).map_err(flagged)?;
    args.output.summary.print(&report, |report| say(report, &settings))
}

fn say(report: &PoolReport, settings: &PoolSettings) {
    let PoolReport { prompts, kept, responses, .. } = report;
    print(&format!("{}: {responses} responses to {kept} of {prompts} prompts", settings.output.display()));
    for (name, count) in &report.by_generator {
        let name = if name.is_empty() { "models without a name" } else { name };
        print(&format!("  {count} by {name}"));
    }
    for (quota, count) in &report.short {
        print(&format!("  {count} prompts left out: fewer responses than {quota} asks for"));
    }
    for (count, what) in [
        (report.without_text, "responses left out without text, or that are references"),
        (report.not_drawn, "responses not drawn"),
        (report.unreadable, "rows left out that are no objects, or no text"),
    ] {
        if count > 0 {
            print(&format!("  {count} {what}"));
        }
    }
}
