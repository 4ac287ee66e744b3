//! `simplemix score`: scores of candidates.

use std::path::PathBuf;

use serde::Deserialize;
use simplemix_data::TokenizerAs;
use simplemix_model::{DeviceChoice, LoadIn};
use simplemix_pipeline::peers;
use simplemix_rollout::{ScoreReport, ScoreSettings, ScorerKind, ScorerSettings, Weighted, score, together};

use crate::failure::{Fails, Failure, Result, failed, read_toml};
use crate::flags::{DeviceFlag, Output, ProcessesFlag, on_terminal, word};
use crate::generate::say_failed;
use crate::lines::print;
use crate::progress::Terminal;
use crate::together::{Processes, share};

/// Score candidates by their right answers, a reward model, a judge, a program, rules, or a weighted sum of these
///
/// The output has the columns of the candidates, the score of each scorer as score_NAME, and the weighted sum as score.
/// Finished scores are kept beside the output: after a stop or a kill at any moment, the same command continues there.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
  simplemix score --candidates candidates.parquet --scorer exact-answer -o scored.parquet\n  \
  simplemix score --candidates candidates.parquet --scorer reward-model:./reward -o scored.parquet\n  \
  simplemix score --candidates candidates.parquet --scorer reward-model:./reward --processes 8 -o scored.parquet\n  \
  simplemix score --candidates candidates.parquet --scorer 'command:python score.py' -o scored.parquet\n  \
  simplemix score --candidates candidates.parquet --scorer exact-answer --scorer '0.1*length:200' -o scored.parquet\n  \
  simplemix score --candidates candidates.parquet --scorers scorers.toml -o scored.parquet\n\n\
  scorers.toml can hold all settings:\n  \
  [[scorer]]\n  \
  kind = \"judge\"\n  \
  weight = 1.0\n  \
  mode = \"pairwise\"\n  \
  server = { url = \"http://localhost:8000/v1\" }\n  \
  [[scorer]]\n  \
  kind = \"format\"\n  \
  weight = 0.2\n  \
  contains = [\"####\"]")]
pub(crate) struct Args {
    /// File of candidates: one row per response, with columns prompt and response
    #[arg(long, value_name = "FILE")]
    candidates: PathBuf,
    #[command(flatten)]
    scorers: Scorers,
    /// Also score the reference response of each prompt, as one more response
    #[arg(long)]
    reference: bool,
    /// Reading of a reward model's tokenizer that transformers 5 builds anew by its class: as tokenizer.json has it, or as
    /// transformers does [default: file]
    #[arg(long, value_name = "file|transformers", value_parser = word::<TokenizerAs>)]
    tokenizer_as: Option<TokenizerAs>,
    /// Form in which the linear layers of reward models are held: as they are, or in 8 or 4 bits; in a file of scorers each has its own,
    /// `load_in`
    #[arg(long, value_name = "none|8bit|4bit", value_parser = word::<LoadIn>)]
    load_in: Option<LoadIn>,
    #[command(flatten)]
    device: DeviceFlag,
    #[command(flatten)]
    processes: ProcessesFlag,
    #[command(flatten)]
    output: Output,
}

/// Scorers of a weighted sum.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Scorers")]
pub(crate) struct Scorers {
    /// Scorer, optionally with a weight before it: exact-answer, reward-model:DIR, command:COMMAND, judge:URL, length:WORDS
    /// or digit-share; repeat the flag for a weighted sum
    #[arg(
        long = "scorer",
        value_name = "[WEIGHT*]KIND[:ARGUMENT]",
        required_unless_present = "file",
        allow_hyphen_values = true
    )]
    scorers: Vec<ScorerSettings>,
    /// TOML file with scorers and all their settings
    #[arg(long = "scorers", value_name = "FILE", id = "file")]
    file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScorerFile {
    scorer: Vec<ScorerSettings>,
}

impl Scorers {
    pub(crate) fn settings(&self) -> Result<Vec<ScorerSettings>> {
        let mut all = match &self.file {
            Some(path) => read_toml::<ScorerFile>(path)?.scorer,
            None => Vec::new(),
        };
        all.extend(self.scorers.iter().cloned());
        Ok(all)
    }

    /// Loads the scorers. A reward model's chat template sees `date`, unless its settings say another one, and its tokenizer is
    /// read as `tokenizer_as` says and its weights held as `load_in` does, where these are given. It runs on `device`, unless its settings
    /// name one. An error is one of the input.
    pub(crate) fn open(
        &self,
        date: Option<String>,
        (tokenizer_as, load_in): (Option<TokenizerAs>, Option<LoadIn>),
        device: DeviceFlag,
        processes: &Processes,
    ) -> Result<Vec<Weighted>> {
        let opened = |mut settings: ScorerSettings| {
            if let ScorerKind::RewardModel(reward) = &mut settings.kind {
                reward.tokenizer_as = tokenizer_as.unwrap_or(reward.tokenizer_as);
                reward.load_in = load_in.unwrap_or(reward.load_in);
                if reward.device != DeviceChoice::Auto {
                    reward.device = processes.own(reward.device)?;
                }
            }
            settings.with_date(date.clone()).with_device(device.choice()).open().input()
        };
        self.settings()?.into_iter().map(opened).collect()
    }

    pub(crate) fn has_reward_model(&self) -> Result<bool> {
        Ok(self.settings()?.iter().any(|scorer| matches!(scorer.kind, ScorerKind::RewardModel(_))))
    }
}

impl Args {
    /// Whether models run in this process.
    pub(crate) fn runs_models(&self) -> Result<bool> {
        self.scorers.has_reward_model()
    }
}

pub(crate) fn run(args: &Args) -> Result {
    let settings = ScoreSettings {
        candidates: args.candidates.clone(),
        output: args.output.path.clone(),
        reference: args.reference,
        overwrite: args.output.overwrite,
    };
    let has_models = args.runs_models()?;
    for (flag, is_given, what) in [
        ("--tokenizer-as", args.tokenizer_as.is_some(), "has a tokenizer"),
        ("--load-in", args.load_in.is_some(), "is a model in this process"),
    ] {
        if is_given && !has_models {
            return Err(Failure::input(format!("{flag} is given, but no scorer {what}, expected reward-model:DIR")));
        }
    }
    args.device.refuse_without_models(has_models)?;
    args.processes.refuse_without_models(has_models)?;
    share(args.processes, args.device, Some(&settings.output), |processes, device| {
        let _claims = processes.claim_files(&[("output", &settings.output)])?;
        let given = (args.tokenizer_as, args.load_in);
        let scorers = args.scorers.open(settings.template_date(), given, device, processes)?;
        let work = |terminal: &mut Terminal| {
            let peers = peers(&processes.team());
            together(peers, None, scorers, terminal, |_, scorers, watch| score(&settings, scorers, watch))
        };
        match on_terminal(work).map_err(failed)? {
            Some(report) => args.output.summary.print(&report, |report| say(report, &settings)),
            None => Ok(()),
        }
    })
}

/// Prints the summary of scoring.
pub(crate) fn say(report: &ScoreReport, settings: &ScoreSettings) {
    let output = settings.output.display();
    print(&format!("{output}: {} responses to {} prompts", report.candidates, report.prompts));
    if report.without_text > 0 {
        print(&format!("  {} more without text, which no scorer sees", report.without_text));
    }
    if report.unreadable > 0 {
        print(&format!("  {} rows left out that are no objects, or no text", report.unreadable));
    }
    for (name, mean) in &report.means {
        let without = report.without.get(name).map(|count| format!(", {count} without")).unwrap_or_default();
        print(&format!("  {name:<22} mean {mean:.4}{without}"));
    }
    say_failed(&report.failed);
}
