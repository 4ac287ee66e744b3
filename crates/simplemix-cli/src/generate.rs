//! `simplemix generate`: answers of a model to prompts.

use std::path::PathBuf;

use simplemix_model::Dtype;
use simplemix_rollout::{
    Endpoint, GenerateReport, GenerateSettings, Generator, GeneratorSettings, LocalSettings, MixPSettings, OnRefused,
    PromptSettings, SamplingConfig, ServerSettings, generate,
};

use crate::failure::{Fails, Failure, Result, failed};
use crate::progress::{Terminal, print};
use crate::reading::files;

/// Sample several answers of a model to every prompt
///
/// What is done is kept beside the output, in .NAME.partial: killed or stopped at any moment, the same command goes on
/// from there and the file is the same. Prompts come from files of preference pairs in any known format, or from files
/// with a column prompt, messages, question or instruction, and perhaps id, task, answer and reference.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
  simplemix generate --model ./smollm2 --prompts gsm8k.jsonl --samples 4 -o candidates.parquet\n  \
  simplemix generate --server http://localhost:8000/v1 --prompts uf.parquet --samples 8 --temperature 1 -o candidates.parquet")]
pub(crate) struct Args {
    #[command(flatten)]
    backend: Backend,
    #[command(flatten)]
    prompts: Prompts,
    #[command(flatten)]
    sampling: Sampling,
    /// File to write: .parquet or .arrow, one row an answer
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Replace an output, or unfinished work, of other arguments
    #[arg(long)]
    overwrite: bool,
    /// The account as JSON
    #[arg(long)]
    json: bool,
}

/// Who answers.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Model")]
pub(crate) struct Backend {
    /// Model folder, or its id on the hub
    #[arg(long, value_name = "DIR|ID", required_unless_present = "server", conflicts_with = "server")]
    model: Option<PathBuf>,
    /// Address of a server with OpenAI's interface: vLLM, SGLang, llama.cpp, Ollama, ...
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// DPO-Mix-P: the model before the first round. Half of a prompt's answers come from logits 1.5 of --model's less 0.5 of
    /// these, half from 0.5 and 0.5
    #[arg(long, value_name = "DIR|ID", requires = "model")]
    mix_p_reference: Option<PathBuf>,
    /// DPO-Mix-P: share of prompts whose answers are --model's own [default: 0]
    #[arg(long, value_name = "SHARE", requires = "mix_p_reference", allow_negative_numbers = true)]
    plain_share: Option<f64>,
    /// Name for the generator column [default: the folder's, or the server's model]
    #[arg(long, value_name = "NAME")]
    generator_name: Option<String>,
    /// Answers made together by a model in this process: memory grows with it
    #[arg(long, value_name = "ROWS", default_value_t = 64)]
    batch_rows: usize,
    /// Element type of the weights of a model in this process: auto, float32 or bfloat16
    #[arg(long, value_name = "TYPE", default_value = "auto")]
    dtype: String,
    #[command(flatten)]
    server_flags: ServerFlags,
}

/// How a server is asked.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Server")]
pub(crate) struct ServerFlags {
    /// Model to ask for [default: the only one that the server has]
    #[arg(long, value_name = "NAME", requires = "server")]
    server_model: Option<String>,
    /// Environment variable with the key, which is never written or shown
    #[arg(long, value_name = "VARIABLE", default_value = "OPENAI_API_KEY")]
    api_key_env: String,
    /// Which interface: chat for messages and completions for bare text (auto), or always one of them
    #[arg(long, value_name = "auto|chat|completions", default_value = "auto")]
    endpoint: String,
    /// Requests under way at once
    #[arg(long, value_name = "N", default_value_t = 32)]
    concurrency: usize,
    /// Seconds after which a request is given up and tried again
    #[arg(long, value_name = "SECONDS", default_value_t = 600.0)]
    timeout: f64,
    /// Times that a request is tried again
    #[arg(long, value_name = "N", default_value_t = 8)]
    retries: u32,
    /// What happens when the server refuses a prompt, such as one that is too long: stop, or skip and count it
    #[arg(long, value_name = "stop|skip", default_value = "stop")]
    on_refused: String,
    /// Ask for log-probabilities, which some servers have not got
    #[arg(long, num_args = 0..=1, default_value_t = true, default_missing_value = "true", value_name = "true|false", action = clap::ArgAction::Set)]
    logps: bool,
    /// Further fields of every request, as a JSON object; null takes one out
    #[arg(long, value_name = "JSON", value_parser = object)]
    extra: Option<serde_json::Map<String, serde_json::Value>>,
}

/// Which prompts.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Prompts")]
pub(crate) struct Prompts {
    /// Files, folders of shards, or patterns
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    prompts: Vec<PathBuf>,
    /// Only the first so many
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// System message before every prompt that has none
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Turn bare text into messages
    #[arg(long)]
    messages: bool,
}

/// How answers are drawn.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct Sampling {
    /// Answers to each prompt [default: 4]
    #[arg(long, value_name = "N")]
    samples: Option<usize>,
    /// Divides the logits; 0 takes the likeliest token [default: 0.7]
    #[arg(long, allow_negative_numbers = true)]
    temperature: Option<f64>,
    /// Draw from the fewest likeliest tokens that hold this share of the probability [default: 0.9]
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    top_p: Option<f64>,
    /// Draw from so many likeliest tokens; 0 keeps all [default: 0]
    #[arg(long, value_name = "N")]
    top_k: Option<usize>,
    /// Draw from tokens at least this share as likely as the likeliest [default: 0]
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    min_p: Option<f64>,
    /// Tokens after which an answer is cut [default: 2048]
    #[arg(long, value_name = "TOKENS")]
    max_new_tokens: Option<usize>,
    /// Everything drawn follows from it [default: 42]
    #[arg(long)]
    seed: Option<u64>,
}

impl Backend {
    pub(crate) fn settings(&self) -> Result<GeneratorSettings> {
        if let Some(url) = &self.server {
            let mut settings = self.server_flags.settings(url)?;
            settings.model = self.server_flags.server_model.clone();
            settings.name = self.generator_name.clone();
            return Ok(GeneratorSettings::Server(settings));
        }
        let model = self.model.as_deref().unwrap_or_else(|| std::path::Path::new(""));
        let local = LocalSettings {
            name: self.generator_name.clone(),
            batch_rows: self.batch_rows,
            dtype: choice::<Dtype>("dtype", &self.dtype, "auto, float32 or bfloat16")?,
            ..LocalSettings::new(simplemix_model::hub::resolve(model).input()?)
        };
        Ok(match &self.mix_p_reference {
            None => GeneratorSettings::Local(local),
            Some(reference) => GeneratorSettings::MixP(MixPSettings {
                policy: local,
                reference: simplemix_model::hub::resolve(reference).input()?,
                plain_share: self.plain_share.unwrap_or(0.0),
            }),
        })
    }

    /// The model, ready to answer. What is wrong with it is an error of the input.
    pub(crate) fn open(&self) -> Result<Box<dyn Generator>> {
        let settings = self.settings()?;
        match settings.open() {
            Err(error @ simplemix_rollout::Error::Server { .. }) => Err(Failure::Run(error.into())),
            opened => opened.input(),
        }
    }
}

impl ServerFlags {
    pub(crate) fn settings(&self, url: &str) -> Result<ServerSettings> {
        Ok(ServerSettings {
            api_key_env: self.api_key_env.clone(),
            endpoint: choice::<Endpoint>("endpoint", &self.endpoint, "auto, chat or completions")?,
            concurrency: self.concurrency,
            timeout_secs: self.timeout,
            retries: self.retries,
            on_refused: choice::<OnRefused>("on-refused", &self.on_refused, "stop or skip")?,
            logps: self.logps,
            extra: self.extra.clone().unwrap_or_default(),
            ..ServerSettings::new(url)
        })
    }
}

impl ServerFlags {
    /// The server at `url` with the model that `--server-model` names.
    pub(crate) fn for_judge(&self, url: &str) -> Result<ServerSettings> {
        Ok(ServerSettings { model: self.server_model.clone(), ..self.settings(url)? })
    }
}

impl Prompts {
    pub(crate) fn settings(&self) -> Result<PromptSettings> {
        Ok(PromptSettings {
            files: files(&self.prompts)?,
            limit: self.limit,
            system: self.system.clone(),
            messages: self.messages,
        })
    }
}

impl Sampling {
    /// Flags over `base`.
    pub(crate) fn settings(&self, base: SamplingConfig) -> SamplingConfig {
        SamplingConfig {
            samples: self.samples.unwrap_or(base.samples),
            temperature: self.temperature.unwrap_or(base.temperature),
            top_p: self.top_p.unwrap_or(base.top_p),
            top_k: self.top_k.unwrap_or(base.top_k),
            min_p: self.min_p.unwrap_or(base.min_p),
            max_new_tokens: self.max_new_tokens.unwrap_or(base.max_new_tokens),
            seed: self.seed.unwrap_or(base.seed),
        }
    }
}

/// `{"top_k": 20}`.
fn object(text: &str) -> std::result::Result<serde_json::Map<String, serde_json::Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("no JSON object: {error}"))
}

/// A word of a flag as one of a list.
pub(crate) fn choice<T: serde::de::DeserializeOwned>(flag: &str, text: &str, expected: &str) -> Result<T> {
    serde_json::from_value(text.into())
        .map_err(|_| Failure::input(format!("--{flag} is `{text}`, expected {expected}")))
}

pub(crate) fn run(args: &Args) -> Result {
    let settings = GenerateSettings {
        prompts: args.prompts.settings()?,
        sampling: args.sampling.settings(SamplingConfig::simplemix()),
        output: args.output.clone(),
        overwrite: args.overwrite,
    };
    settings.check().input()?;
    let mut generator = args.backend.open()?;
    let mut terminal = Terminal::new()?;
    let report = generate(&settings, generator.as_mut(), &mut terminal);
    terminal.clear();
    let report = report.map_err(failed)?;
    if args.json {
        print(&serde_json::to_string(&report).run()?);
        return Ok(());
    }
    say(&report, &settings, generator.name());
    Ok(())
}

/// What was generated, in words.
pub(crate) fn say(report: &GenerateReport, settings: &GenerateSettings, generator: &str) {
    let output = settings.output.display();
    print(&format!("{output}: {} responses to {} prompts by {generator}", report.candidates, report.prompts));
    let mean = report.tokens as f64 / report.candidates.max(1) as f64;
    print(&format!("  {} tokens, {mean:.1} per response; {} cut at the limit", report.tokens, report.cut));
    for (count, what) in [
        (report.repeated, "rows repeat a prompt and were left out"),
        (report.refused, "responses refused by the server"),
    ] {
        if count > 0 {
            print(&format!("  {count} {what}"));
        }
    }
}
