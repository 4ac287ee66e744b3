//! `simplemix collect`: generate, score and pair in one command.

use simplemix_pipeline::peers;
use simplemix_rollout::{CollectSettings, Preset, SamplingConfig, collect_to_files, together};

use crate::failure::Result;
use crate::flags::{Output, flagged, on_terminal};
use crate::generate::{Backend, Prompts, Sampling};
use crate::pair::Rule;
use crate::progress::Terminal;
use crate::score::Scorers;
use crate::together::share;
use crate::{generate, pair, score};

/// Collect on-policy pairs: sample responses, score them, choose pairs
///
/// Does the work of generate, score and pair. Candidates and scores are written beside the pairs: for on.parquet to
/// on.candidates.parquet and on.scored.parquet. --tokenizer-as and --device hold for --model and
/// for reward models, --load-in for --model alone: reward models have `load_in` in a file of scorers. After a stop or a kill at any
/// moment, the same command continues there.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
  simplemix collect --model ./smollm2 --prompts gsm8k.jsonl --samples 4 --max-new-tokens 256 --scorer exact-answer -o on.parquet\n  \
  simplemix collect --model ./smollm2 --prompts gsm8k.jsonl --scorer exact-answer --processes 8 -o on.parquet\n  \
  simplemix collect --server http://localhost:8000/v1 --prompts uf.parquet --preset simpo --scorer reward-model:./armo -o on.parquet")]
pub(crate) struct Args {
    #[command(flatten)]
    backend: Backend,
    #[command(flatten)]
    prompts: Prompts,
    #[command(flatten)]
    sampling: Sampling,
    #[command(flatten)]
    scorers: Scorers,
    #[command(flatten)]
    rule: Rule,
    /// Name for the source column
    #[arg(long, value_name = "NAME", default_value = "on_policy")]
    source_name: String,
    #[command(flatten)]
    output: Output,
}

impl Args {
    /// Whether models run in this process.
    pub(crate) fn runs_models(&self) -> Result<bool> {
        Ok(self.backend.is_local() || self.scorers.has_reward_model()?)
    }
}

pub(crate) fn run(args: &Args) -> Result {
    args.backend.refuse_without_models(args.runs_models()?)?;
    let base = args.rule.preset.map_or_else(SamplingConfig::simplemix, Preset::sampling);
    let sampling = args.sampling.settings(base);
    let settings = CollectSettings {
        prompts: args.prompts.settings()?,
        select: args.rule.settings(sampling.seed)?,
        sampling,
        source: args.source_name.clone(),
        output: args.output.path.clone(),
        overwrite: args.output.overwrite,
    };
    settings.generate().check().map_err(flagged)?;
    let (candidates, scored) = (settings.generate().output, settings.score().output);
    let Backend { processes, device, .. } = args.backend;
    share(processes, device, Some(&settings.output), |processes, device| {
        let outputs = [("output", settings.output.as_path()), ("output", &candidates), ("output", &scored)];
        let _claims = processes.claim_files(&outputs)?;
        let date = Some(settings.template_date());
        let scorers = args.scorers.open(date.clone(), (args.backend.tokenizer_as(), None), device, processes)?;
        let generator = args.backend.open(date, device)?;
        let name = generator.name().to_owned();
        let work = |terminal: &mut Terminal| {
            let peers = peers(&processes.team());
            together(peers, Some(generator), scorers, terminal, |generator, scorers, watch| {
                collect_to_files(&settings, generator.expect("one was given"), scorers, watch)
            })
        };
        let Some(report) = on_terminal(work).map_err(flagged)? else { return Ok(()) };
        args.output.summary.print(&report, |report| {
            generate::say(&report.generate, &settings.generate(), &name);
            score::say(&report.score, &settings.score());
            pair::say(&report.pair, &settings.pair());
        })
    })
}
