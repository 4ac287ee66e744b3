//! `simplemix eval generate`: a model's answers to an evaluation set, in the official package's format.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use simplemix_data::Text;
use simplemix_eval::judge::read_asked;
use simplemix_eval::report::{Answer, write_outputs};
use simplemix_rollout::{CandidateReader, GenerateSettings, PromptSettings, SamplingConfig, generate};

use crate::failure::{Fails, Failure, Result, failed};
use crate::generate::Backend;
use crate::progress::{Terminal, print};
use crate::reading::files;

/// Answer the prompts of an evaluation set, and write model_outputs.json as the official alpaca_eval package reads it
///
/// Each prompt becomes a turn of the user. What is done is kept beside the output: killed or stopped at any moment, the
/// same command goes on from there.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
  simplemix eval generate --model runs/dpo/model --prompts alpaca_eval.json -o model_outputs.json\n  \
  simplemix eval generate --server http://localhost:8000/v1 --prompts alpaca_eval.json -o model_outputs.json")]
pub(crate) struct Args {
    #[command(flatten)]
    backend: Backend,
    /// Prompts: files with a column instruction, prompt, messages or question, and perhaps dataset
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    prompts: Vec<PathBuf>,
    /// Only the first so many
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// System message before every prompt
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Divides the logits; 0 takes the likeliest token
    #[arg(long, default_value_t = 0.7, allow_negative_numbers = true)]
    temperature: f64,
    /// Draw from the fewest likeliest tokens that hold this share of the probability
    #[arg(long, value_name = "SHARE", default_value_t = 1.0, allow_negative_numbers = true)]
    top_p: f64,
    /// Tokens after which an answer is cut
    #[arg(long, value_name = "TOKENS", default_value_t = 2048)]
    max_new_tokens: usize,
    /// Everything drawn follows from it
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// File to write
    #[arg(short, long, value_name = "FILE", default_value = "model_outputs.json")]
    output: PathBuf,
    /// Replace an output, or unfinished work, of other arguments
    #[arg(long)]
    overwrite: bool,
}

pub(crate) fn run(args: &Args) -> Result {
    if args.output.exists() && !args.overwrite {
        let output = args.output.display();
        return Err(Failure::input(format!("{output}: exists already; choose another name, or give --overwrite")));
    }
    let prompts = files(&args.prompts)?;
    let name = args.output.file_name().unwrap_or_default().to_string_lossy();
    let settings = GenerateSettings {
        prompts: PromptSettings {
            files: prompts.clone(),
            limit: args.limit,
            system: args.system.clone(),
            messages: true,
        },
        sampling: SamplingConfig {
            samples: 1,
            temperature: args.temperature,
            top_p: args.top_p,
            max_new_tokens: args.max_new_tokens,
            seed: args.seed,
            ..SamplingConfig::simplemix()
        },
        output: args.output.with_file_name(format!(".{name}.candidates.parquet")),
        overwrite: args.overwrite,
    };
    settings.check().input()?;
    let mut generator = args.backend.open()?;
    let mut terminal = Terminal::new()?;
    let report = generate(&settings, generator.as_mut(), &mut terminal);
    terminal.clear();
    let report = report.map_err(failed)?;
    let answers = answers(&settings.output, generator.name(), &datasets(&prompts))?;
    write_outputs(&args.output, &answers).run()?;
    std::fs::remove_file(&settings.output).run()?;
    let (output, mean) = (args.output.display(), report.tokens as f64 / report.candidates.max(1) as f64);
    print(&format!("{output}: {} answers of {}, {mean:.1} tokens each", answers.len(), generator.name()));
    print(&format!("  {} cut at the limit, {} prompts repeated and left out", report.cut, report.repeated));
    Ok(())
}

fn answers(candidates: &Path, generator: &str, datasets: &BTreeMap<String, String>) -> Result<Vec<Answer>> {
    let mut answers = Vec::new();
    for group in CandidateReader::open(candidates).run()? {
        let group = group.run()?;
        let instruction = asked(&group.prompt.prompt);
        let Some(row) = group.rows.into_iter().next() else { continue };
        answers.push(Answer {
            dataset: datasets.get(&instruction).cloned(),
            instruction,
            output: row.response,
            generator: generator.to_owned(),
        });
    }
    Ok(answers)
}

/// What the user asked last.
fn asked(prompt: &Text) -> String {
    match prompt {
        Text::Plain(text) => text.clone(),
        Text::Messages(turns) => {
            let last = turns.iter().rev().find(|turn| turn.role == "user");
            last.map(|turn| turn.content.clone()).unwrap_or_default()
        }
    }
}

/// The sets that instructions come from, where the files of prompts are JSON and say so.
fn datasets(prompts: &[PathBuf]) -> BTreeMap<String, String> {
    let all = prompts.iter().filter_map(|path| read_asked(path).ok()).flatten();
    all.filter_map(|asked| Some((asked.instruction, asked.dataset?))).collect()
}
