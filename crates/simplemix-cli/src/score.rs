//! `simplemix score`: what candidates are worth.

use std::path::PathBuf;

use serde::Deserialize;
use simplemix_rollout::{ScoreReport, ScoreSettings, ScorerSettings, Weighted, score};

use crate::failure::{Fails, Failure, Result, failed, read_toml};
use crate::progress::{Terminal, print};

/// Score candidates: by their right answer, a reward model, a judge, a program, rules, or a weighted sum of these
///
/// The file has the candidates' columns, each scorer's own score as score_NAME, and the weighted sum as score. What is
/// done is kept beside the output: killed or stopped at any moment, the same command goes on from there.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
  simplemix score --candidates candidates.parquet --scorer exact-answer -o scored.parquet\n  \
  simplemix score --candidates candidates.parquet --scorer reward-model:./reward -o scored.parquet\n  \
  simplemix score --candidates candidates.parquet --scorer 'command:python score.py' -o scored.parquet\n  \
  simplemix score --candidates candidates.parquet --scorer exact-answer --scorer '0.1*length:200' -o scored.parquet\n  \
  simplemix score --candidates candidates.parquet --scorers scorers.toml -o scored.parquet\n\n\
  scorers.toml holds all settings:\n  \
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
    /// Candidates: one row a response, with columns prompt and response
    #[arg(long, value_name = "FILE")]
    candidates: PathBuf,
    #[command(flatten)]
    scorers: Scorers,
    /// Score the reference responses too, as one more candidate each
    #[arg(long)]
    reference: bool,
    /// File to write: .parquet or .arrow
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Replace an output, or unfinished work, of other arguments
    #[arg(long)]
    overwrite: bool,
    /// The account as JSON
    #[arg(long)]
    json: bool,
}

/// By whom.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Scorers")]
pub(crate) struct Scorers {
    /// A scorer, perhaps with a weight before it: exact-answer, reward-model:DIR, command:COMMAND, judge:URL, length:MAX,
    /// digit-share; may be given several times
    #[arg(
        long = "scorer",
        value_name = "[WEIGHT*]KIND[:ARGUMENT]",
        required_unless_present = "file",
        allow_hyphen_values = true
    )]
    scorers: Vec<String>,
    /// Scorers with all their settings, in TOML
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
        for text in &self.scorers {
            all.push(text.parse().map_err(|error| Failure::input(format!("--scorer {text}: {error}")))?);
        }
        Ok(all)
    }

    /// Scorers that are ready. What is wrong with them is an error of the input.
    pub(crate) fn open(&self) -> Result<Vec<Weighted>> {
        self.settings()?.iter().map(|settings| settings.open().input()).collect()
    }
}

pub(crate) fn run(args: &Args) -> Result {
    let settings = ScoreSettings {
        candidates: args.candidates.clone(),
        output: args.output.clone(),
        reference: args.reference,
        overwrite: args.overwrite,
    };
    let mut scorers = args.scorers.open()?;
    let mut terminal = Terminal::new()?;
    let report = score(&settings, &mut scorers, &mut terminal);
    terminal.clear();
    let report = report.map_err(failed)?;
    if args.json {
        print(&serde_json::to_string(&report).run()?);
        return Ok(());
    }
    say(&report, &settings);
    Ok(())
}

/// What was scored, in words.
pub(crate) fn say(report: &ScoreReport, settings: &ScoreSettings) {
    let output = settings.output.display();
    print(&format!("{output}: {} responses to {} prompts", report.candidates, report.prompts));
    for (name, mean) in &report.means {
        let without = report.without.get(name).map(|count| format!(", {count} without")).unwrap_or_default();
        print(&format!("  {name:<22} mean {mean:.4}{without}"));
    }
}
