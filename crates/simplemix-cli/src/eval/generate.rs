//! `simplemix eval generate`: a model's responses to an evaluation set, in the official package's format.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use simplemix_data::{RowReader, Text};
use simplemix_eval::{ModelOutput, write_outputs};
use simplemix_rollout::{CandidateReader, GenerateSettings, PromptSettings, SamplingConfig};

use crate::failure::{Fails, Failure, Result};
use crate::flags::{DeviceFlag, PromptForm, check_new, flagged};
use crate::generate::{Backend, Processors, sampled};
use crate::lines::print;
use crate::reading::files;
use crate::together::{Processes, share};

/// Generate a model's responses to an evaluation set, in the format of the official alpaca_eval package
///
/// Each prompt becomes a turn of the user. Finished responses are kept beside the output: after a stop, the same
/// command continues from there.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
  simplemix eval generate --model runs/dpo/model --prompts alpaca_eval.json -o model_outputs.json\n  \
  simplemix eval generate --server http://localhost:8000/v1 --prompts alpaca_eval.json -o model_outputs.json")]
pub(crate) struct Args {
    #[command(flatten)]
    backend: Backend,
    /// Files of prompts, with a column instruction, prompt, messages or question, and optionally dataset
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    prompts: Vec<PathBuf>,
    #[command(flatten)]
    form: PromptForm,
    /// Sampling temperature; 0 always takes the most likely token
    #[arg(long, default_value_t = 0.7)]
    temperature: f64,
    /// Sample only from the most likely tokens that together have this probability
    #[arg(long, value_name = "SHARE", default_value_t = 1.0)]
    top_p: f64,
    /// Most tokens of a response
    #[arg(long, value_name = "TOKENS", default_value_t = 2048)]
    max_new_tokens: usize,
    /// Random seed
    #[arg(long, default_value_t = 42)]
    seed: u64,
    #[command(flatten)]
    processors: Processors,
    /// File of responses to write
    #[arg(short, long, value_name = "FILE", default_value = "model_outputs.json")]
    output: PathBuf,
    /// Overwrite output, or an unfinished run, made with different arguments
    #[arg(long)]
    overwrite: bool,
}

impl Args {
    /// Whether models run in this process.
    pub(crate) fn runs_models(&self) -> bool {
        self.backend.is_local()
    }
}

pub(crate) fn run(args: &Args) -> Result {
    args.backend.refuse_without_models(args.runs_models())?;
    let Backend { processes, device, .. } = args.backend;
    share(processes, device, Some(&args.output), |processes, device| work(args, processes, device))
}

/// Work of one process.
fn work(args: &Args, processes: &Processes, device: DeviceFlag) -> Result {
    let _claims = processes.claim_files(&[("output", &args.output)])?;
    if processes.is_first() {
        check_new(&args.output, args.overwrite)?;
    }
    let prompts = files(&args.prompts)?;
    let file = args.output.file_name();
    let file = file.ok_or_else(|| Failure::input(format!("--output is {}, expected a file", args.output.display())))?;
    let settings = GenerateSettings {
        prompts: PromptSettings {
            files: prompts.clone(),
            limit: args.form.limit,
            system: args.form.system.clone(),
            messages: true,
        },
        sampling: args.processors.over(SamplingConfig {
            samples: 1,
            temperature: args.temperature,
            top_p: args.top_p,
            max_new_tokens: args.max_new_tokens,
            seed: args.seed,
            ..SamplingConfig::simplemix()
        }),
        output: args.output.with_file_name(format!(".{}.candidates.parquet", file.to_string_lossy())),
        overwrite: args.overwrite,
        share: None,
    };
    settings.check().map_err(flagged)?;
    let generator = args.backend.open_for(&settings.output, device)?;
    let name = generator.name().to_owned();
    let Some(report) = sampled(processes, &settings, generator)? else { return Ok(()) };
    let outputs = outputs(&settings.output, &name, &datasets(&prompts)?)?;
    write_outputs(&args.output, &outputs).run()?;
    simplemix_files::remove_file(&settings.output).run()?;
    let (output, mean) = (args.output.display(), report.tokens as f64 / report.candidates.max(1) as f64);
    print(&format!("{output}: {} responses of {}, {mean:.1} tokens each", outputs.len(), name));
    print(&format!("  {} cut at --max-new-tokens, {} repeated prompts left out", report.cut, report.repeated));
    if report.without_text + report.refused > 0 {
        let (empty, refused) = (report.without_text, report.refused);
        print(&format!("  {empty} without text, written as empty; {refused} refused by the server and left out"));
    }
    Ok(())
}

fn outputs(candidates: &Path, generator: &str, datasets: &BTreeMap<String, String>) -> Result<Vec<ModelOutput>> {
    let mut outputs = Vec::new();
    for group in CandidateReader::open(candidates).run()? {
        let group = group.run()?;
        let instruction = instruction(&group.prompt.prompt);
        let Some(row) = group.rows.into_iter().next() else { continue };
        outputs.push(ModelOutput {
            dataset: datasets.get(&instruction).cloned(),
            instruction,
            // A sample without text is an empty answer, as the official package counts it.
            output: row.response.unwrap_or_default(),
            generator: generator.to_owned(),
            score: None,
        });
    }
    Ok(outputs)
}

/// The last turn of the user.
fn instruction(prompt: &Text) -> String {
    match prompt {
        Text::Plain(text) => text.clone(),
        Text::Messages(turns) => {
            let last = turns.iter().rev().find(|turn| turn.role == "user");
            last.map(|turn| turn.content.clone()).unwrap_or_default()
        }
    }
}

/// Data set of each instruction, from files of prompts that name it.
fn datasets(prompts: &[PathBuf]) -> Result<BTreeMap<String, String>> {
    let mut datasets = BTreeMap::new();
    for path in prompts {
        let rows = RowReader::open(path).input()?;
        if !rows.columns().iter().any(|column| column == "dataset") {
            continue;
        }
        for row in rows {
            let row = row.input()?;
            let named = row.get("dataset").and_then(Value::as_str).zip(question(&row));
            datasets.extend(named.map(|(dataset, question)| (question, dataset.to_owned())));
        }
    }
    Ok(datasets)
}

/// The instruction of a row: text, or the last turn of the user.
fn question(row: &Map<String, Value>) -> Option<String> {
    let value = ["instruction", "question", "prompt", "messages"]
        .iter()
        .find_map(|key| row.get(*key).filter(|value| !value.is_null()))?;
    serde_json::from_value(value.clone()).ok().map(|text| instruction(&text))
}
