//! `simplemix compare`: the responses of two models to the same prompts, side by side.

use std::path::{Path, PathBuf};

use serde_json::json;
use simplemix_data::Watch;
use simplemix_model::{Dtype, hub, model_name};
use simplemix_rollout::{
    Candidate, CandidateSink, Generator, GeneratorSettings, Job, LocalSettings, Prompt, Sampled, SamplingConfig,
};

use crate::failure::{Fails, Failure, Result, failed};
use crate::flags::{DeviceFlag, LoadInFlag, flagged, word};
use crate::generate::{Processors, Prompts};
use crate::layout::Layout;
use crate::lines::{self, is_closed, print, print_laid};
use crate::progress::Terminal;
use crate::show::said;

/// Show the responses of two models to the same prompts side by side
///
/// Each model takes its most likely tokens, unless --temperature is above 0. The models are loaded one after the other.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
  simplemix compare ./smollm2 runs/dpo/model --prompts prompts.jsonl --limit 10 --messages\n  \
  simplemix compare runs/a/model runs/b/model --prompts held-out.parquet --limit 50 --json > compared.jsonl")]
pub(crate) struct Args {
    /// First model: a folder, or an id on the hub
    #[arg(value_name = "A")]
    first: PathBuf,
    /// Second model: a folder, or an id on the hub
    #[arg(value_name = "B")]
    second: PathBuf,
    #[command(flatten)]
    prompts: Prompts,
    /// Sampling temperature; 0 always takes the most likely token
    #[arg(long, default_value_t = 0.0)]
    temperature: f64,
    /// Sample only from the most likely tokens that together have this probability
    #[arg(long, value_name = "SHARE", default_value_t = 1.0)]
    top_p: f64,
    /// Most tokens of a response
    #[arg(long, value_name = "TOKENS", default_value_t = 256)]
    max_new_tokens: usize,
    /// Random seed, for a temperature above 0
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Batch size; a larger one needs more memory
    #[arg(long, value_name = "ROWS", default_value_t = LocalSettings::new("").batch_rows)]
    batch_rows: usize,
    /// Element type of the weights; auto is bfloat16 on a GPU, else float32
    #[arg(long, value_name = "auto|float32|bfloat16", default_value = "auto", value_parser = word::<Dtype>)]
    dtype: Dtype,
    #[command(flatten)]
    load_in: LoadInFlag,
    #[command(flatten)]
    device: DeviceFlag,
    #[command(flatten)]
    processors: Processors,
    /// Show long responses in full on a terminal too
    #[arg(long)]
    full: bool,
    /// Print one JSON object per prompt
    #[arg(long)]
    json: bool,
}

/// The responses of a model, in the order of the prompts.
struct Side {
    name: String,
    candidates: Vec<Candidate>,
}

pub(crate) fn run(args: &Args) -> Result {
    let sampling = args.processors.over(SamplingConfig {
        samples: 1,
        temperature: args.temperature,
        top_p: args.top_p,
        max_new_tokens: args.max_new_tokens,
        seed: args.seed,
        ..SamplingConfig::simplemix()
    });
    sampling.check().map_err(flagged)?;
    let prompts = args.prompts.settings()?.prompts().map_err(flagged)?;
    if prompts.is_empty() {
        return Err(Failure::input("--prompts: no prompt in the files, expected some"));
    }
    let folders = [hub::resolve(&args.first).input()?, hub::resolve(&args.second).input()?];
    let names = names([&args.first, &args.second], &folders);
    let mut sides = Vec::new();
    for (folder, name) in folders.into_iter().zip(names) {
        let settings = LocalSettings {
            name: Some(name.clone()),
            batch_rows: args.batch_rows,
            dtype: args.dtype,
            load_in: args.load_in.load_in,
            device: args.device.choice(),
            ..LocalSettings::new(folder)
        };
        sides.push(Side { candidates: responses(settings, &prompts, &sampling)?, name });
    }
    let [first, second] = &sides[..] else { unreachable!("two models were asked") };
    match args.json {
        true => print_json(&prompts, [first, second])?,
        false => print_columns(args, &prompts, [first, second]),
    }
    Ok(())
}

/// Names of the two models; paths where the names are the same.
fn names(given: [&Path; 2], folders: &[PathBuf; 2]) -> [String; 2] {
    let names = [model_name(&folders[0]), model_name(&folders[1])];
    if names[0] == names[1] { given.map(|path| path.display().to_string()) } else { names }
}

fn responses(settings: LocalSettings, prompts: &[Prompt], sampling: &SamplingConfig) -> Result<Vec<Candidate>> {
    let mut generator: Box<dyn Generator> = match GeneratorSettings::Local(settings).open() {
        Err(error @ simplemix_rollout::Error::Setting { .. }) => return Err(flagged(error)),
        opened => opened.input()?,
    };
    prompts.iter().try_for_each(|prompt| generator.check(prompt, sampling)).map_err(flagged)?;
    let mut jobs = prompts
        .iter()
        .enumerate()
        .map(|(index, prompt)| Ok(Job { index: index as u64, prompt: prompt.clone(), samples: vec![0] }));
    let mut sink = Sink {
        name: generator.name().to_owned(),
        candidates: vec![None; prompts.len()],
        terminal: Terminal::passive(),
    };
    let sampled = generator.sample(&mut jobs, sampling, &mut sink);
    sink.terminal.clear();
    sampled.map_err(failed)?;
    let missing = || Failure::Run(anyhow::anyhow!("{}: a prompt is without a response", sink.name));
    sink.candidates.into_iter().map(|candidate| candidate.ok_or_else(missing)).collect()
}

/// Keeps the responses in the order of their prompts, and shows how far the model is.
struct Sink {
    name: String,
    candidates: Vec<Option<Candidate>>,
    terminal: Terminal,
}

impl Sink {
    fn show(&mut self, pending: usize) {
        let done = self.candidates.iter().flatten().count() + pending;
        self.terminal.progress(&self.name, done as u64, self.candidates.len() as u64);
    }
}

impl CandidateSink for Sink {
    fn keep(&mut self, sampled: Vec<Sampled>) -> simplemix_rollout::Result<()> {
        for Sampled { index, candidate, .. } in sampled {
            self.candidates[index as usize] = candidate;
        }
        self.show(0);
        Ok(())
    }

    fn pending(&mut self, count: usize) {
        self.show(count);
    }

    fn notice(&mut self, text: &str) {
        self.terminal.notice(text);
    }
}

fn print_json(prompts: &[Prompt], sides: [&Side; 2]) -> Result {
    for (at, prompt) in prompts.iter().enumerate() {
        let candidates = sides.map(|side| &side.candidates[at]);
        let response = |(side, found): (&Side, &Candidate)| json!({"model": side.name, "text": found.text, "tokens": found.tokens, "finish": found.finish});
        let row = json!({
            "prompt_id": prompt.id,
            "prompt": prompt.prompt,
            "equal": candidates[0].text == candidates[1].text,
            "responses": sides.into_iter().zip(candidates).map(response).collect::<Vec<_>>(),
        });
        lines::print_json(&serde_json::to_string(&row).run()?);
        if is_closed() {
            break;
        }
    }
    Ok(())
}

fn print_columns(args: &Args, prompts: &[Prompt], sides: [&Side; 2]) {
    let layout = Layout::of_stdout(args.full);
    let mut equal = 0;
    for (at, prompt) in prompts.iter().enumerate() {
        let texts = sides.map(|side| side.candidates[at].text.clone().unwrap_or_else(|| "(no text)".to_owned()));
        equal += usize::from(texts[0] == texts[1]);
        print_laid(&layout.heading(&format!("prompt {at}")));
        print_laid(&layout.text(&said(&prompt.prompt)));
        print_laid(&layout.headings([&sides[0].name, &sides[1].name]));
        print_laid(&layout.columns([&texts[0], &texts[1]]));
        print("");
        if is_closed() {
            return;
        }
    }
    let mean = |side: &Side| {
        let tokens: usize = side.candidates.iter().map(|candidate| candidate.tokens).sum();
        format!("{:.1} tokens of {}", tokens as f64 / prompts.len() as f64, side.name)
    };
    print(&format!(
        "{} prompts, {equal} with equal responses; mean response {} and {}",
        prompts.len(),
        mean(sides[0]),
        mean(sides[1])
    ));
}
