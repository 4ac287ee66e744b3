//! `simplemix generate`: responses of a model to prompts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use simplemix_data::TokenizerAs;
use simplemix_model::{Dtype, LoadIn};
use simplemix_pipeline::peers;
use simplemix_rollout::{
    Endpoint, Failures, GenerateReport, GenerateSettings, Generator, GeneratorSettings, LocalSettings, MixPSettings,
    ModelProcessors, OnRefused, PromptSettings, SamplingConfig, ServerSettings, generate, together,
};

use crate::failure::{Fails, Failure, Result};
use crate::flags::{DeviceFlag, Output, ProcessesFlag, PromptForm, flagged, on_terminal, with_default, word};
use crate::lines::print;
use crate::progress::Terminal;
use crate::reading::{TokenizerFlag, files};
use crate::together::{Processes, share};

/// Sample responses of a model to prompts
///
/// Finished responses are kept beside the output, in .NAME.partial: after a stop or a kill at any moment, the same command
/// continues there and writes the same file. Prompts come from files of preference pairs in any known format, or from files
/// with a column prompt, messages, question or instruction, and optionally id, task, answer and reference.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
  simplemix generate --model ./smollm2 --prompts gsm8k.jsonl --samples 4 -o candidates.parquet\n  \
  simplemix generate --model ./smollm2 --prompts uf.parquet --samples 4 --processes 8 -o candidates.parquet\n  \
  simplemix generate --server http://localhost:8000/v1 --prompts uf.parquet --samples 8 --temperature 1 -o candidates.parquet\n  \
  simplemix generate --server http://a:8000/v1 --server http://b:8000/v1 --prompts uf.parquet -o candidates.parquet")]
pub(crate) struct Args {
    #[command(flatten)]
    backend: Backend,
    #[command(flatten)]
    prompts: Prompts,
    #[command(flatten)]
    sampling: Sampling,
    #[command(flatten)]
    output: Output,
}

/// Model that responds.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Model")]
pub(crate) struct Backend {
    /// Model folder, or its id on the Hugging Face hub
    #[arg(long, value_name = "DIR|ID", required_unless_present = "server", conflicts_with = "server")]
    model: Option<PathBuf>,
    /// Address of a server with the OpenAI interface: vLLM, SGLang, llama.cpp, Ollama, ...; several that have one model share the
    /// requests
    #[arg(long, value_name = "URL")]
    server: Vec<String>,
    /// Sample as DPO-Mix-P does, with this model before the first round as the reference: half of the responses to a prompt
    /// come from 1.5 of --model's logits less 0.5 of the reference's, half from 0.5 of each
    #[arg(long, value_name = "DIR|ID", requires = "model")]
    mix_p_reference: Option<PathBuf>,
    /// Share of prompts whose responses all come from --model itself, with --mix-p-reference
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, requires = "mix_p_reference")]
    plain_share: f64,
    /// Name for the generator column [default: name of the run or of the folder, or of the server's model]
    #[arg(long, visible_alias = "name", value_name = "NAME")]
    generator_name: Option<String>,
    /// Batch size of local generation; a larger one needs more memory
    #[arg(long, conflicts_with = "server", value_name = "ROWS", default_value_t = LocalSettings::new("").batch_rows)]
    batch_rows: usize,
    /// Element type of the weights of a local model; auto is bfloat16 on a GPU, else float32
    #[arg(long, conflicts_with = "server", value_name = "auto|float32|bfloat16", default_value = "auto", value_parser = word::<Dtype>)]
    dtype: Dtype,
    /// Form in which a local model's linear layers are held: as they are, or in 8 or 4 bits, as training over such weights has them
    #[arg(long, conflicts_with = "server", value_name = "none|8bit|4bit", default_value = "none", value_parser = word::<LoadIn>)]
    load_in: LoadIn,
    #[command(flatten)]
    pub(crate) device: DeviceFlag,
    #[command(flatten)]
    pub(crate) processes: ProcessesFlag,
    /// Model to be trained, with --server: at the start the server's token ids of a prompt are compared with this model's
    #[arg(long, value_name = "DIR|ID", requires = "server", help_heading = "Server")]
    server_tokenizer: Option<PathBuf>,
    #[command(flatten)]
    reading_as: TokenizerFlag,
    #[command(flatten)]
    server_flags: ServerFlags,
}

/// Settings of a server.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Server")]
pub(crate) struct ServerFlags {
    /// Name of the model on the server [default: the only one there]
    #[arg(long, value_name = "NAME", requires = "server")]
    server_model: Option<String>,
    /// Environment variable with the API key, which is never written or shown
    #[arg(long, requires = "server", value_name = "VARIABLE", default_value_t = ServerSettings::new("").api_key_env)]
    api_key_env: String,
    /// Interface of the server; auto is chat for messages and completions for plain text
    #[arg(long, requires = "server", value_name = "auto|chat|completions", default_value = "auto", value_parser = word::<Endpoint>)]
    endpoint: Endpoint,
    /// Number of requests at the same time, to each server
    #[arg(long, requires = "server", value_name = "N", default_value_t = ServerSettings::new("").concurrency)]
    concurrency: usize,
    /// Time limit of a request in seconds, after which it is tried again
    #[arg(long, requires = "server", value_name = "SECONDS", default_value_t = ServerSettings::new("").timeout_secs)]
    timeout: f64,
    /// Number of further attempts after a request failed
    #[arg(long, requires = "server", value_name = "N", default_value_t = ServerSettings::new("").retries)]
    retries: u32,
    /// Reaction to a prompt that the server refuses, such as one that is too long: stop, or skip and count it
    #[arg(long, requires = "server", value_name = "stop|skip", default_value = "stop", value_parser = word::<OnRefused>)]
    on_refused: OnRefused,
    /// Ask the server for log-probabilities, which some servers do not have
    #[arg(
        long,
        requires = "server",
        num_args = 0..=1,
        default_value_t = true,
        default_missing_value = "true",
        value_name = "true|false",
        action = clap::ArgAction::Set
    )]
    logps: bool,
    /// Further fields of every request, as a JSON object; null removes a field
    #[arg(long, requires = "server", value_name = "JSON", value_parser = object)]
    extra: Option<serde_json::Map<String, serde_json::Value>>,
}

/// Prompts to respond to.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Prompts")]
pub(crate) struct Prompts {
    /// Files of prompts or of pairs, folders of shards, or patterns
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    prompts: Vec<PathBuf>,
    #[command(flatten)]
    form: PromptForm,
    /// Turn plain text into messages
    #[arg(long)]
    messages: bool,
}

/// Settings of sampling. Defaults depend on the preset, so clap does not know them.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct Sampling {
    #[arg(long, value_name = "N", help = sampling_help("Number of responses to each prompt", |s| s.samples.to_string()))]
    samples: Option<usize>,
    #[arg(
        long,
        help = sampling_help("Divisor of the logits; 0 takes the most likely token", |s| s.temperature.to_string())
    )]
    temperature: Option<f64>,
    #[arg(
        long,
        value_name = "SHARE",
        help = sampling_help(
            "Sample from the smallest set of most likely tokens with this share of the probability",
            |s| s.top_p.to_string()
        )
    )]
    top_p: Option<f64>,
    #[arg(
        long,
        value_name = "N",
        help = sampling_help("Sample from the N most likely tokens; 0 keeps all", |s| s.top_k.to_string())
    )]
    top_k: Option<usize>,
    #[arg(
        long,
        value_name = "SHARE",
        help = sampling_help(
            "Sample from tokens at least this share as likely as the most likely one",
            |s| s.min_p.to_string()
        )
    )]
    min_p: Option<f64>,
    #[arg(
        long,
        value_name = "TOKENS",
        help = sampling_help("Longest response, in tokens", |s| s.max_new_tokens.to_string())
    )]
    max_new_tokens: Option<usize>,
    #[arg(long, help = sampling_help("Random seed", |s| s.seed.to_string()))]
    seed: Option<u64>,
    #[command(flatten)]
    processors: Processors,
}

/// Processors of logits. Defaults are those of the model's generation_config.json.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct Processors {
    /// Whether the repetition penalty, forbidden repeats and suppressed tokens in the generation_config.json of a local model
    /// hold, as in transformers, or none; a server is sent every setting in either case [default: model]
    #[arg(long, value_name = "model|none", value_parser = word::<ModelProcessors>)]
    generation_config: Option<ModelProcessors>,
    /// Make tokens that are there already less likely by this factor; 1 for none [default: the model's; 1 for a server]
    #[arg(long, value_name = "FACTOR")]
    repetition_penalty: Option<f64>,
    /// Sample no sequence of N tokens twice; 0 for no limit. Not for servers [default: the model's]
    #[arg(long, value_name = "N")]
    no_repeat_ngram_size: Option<usize>,
    /// Never sample these token ids. Not for servers [default: the model's]
    #[arg(long, value_name = "ID,ID,..", value_delimiter = ',')]
    suppress_tokens: Option<Vec<u32>>,
    /// Begin no response with these token ids. Not for servers [default: the model's]
    #[arg(long, value_name = "ID,ID,..", value_delimiter = ',')]
    begin_suppress_tokens: Option<Vec<u32>>,
    /// Shortest response, in tokens [default: the model's]
    #[arg(long, value_name = "TOKENS")]
    min_new_tokens: Option<usize>,
}

impl Processors {
    /// Flags over `base`.
    pub(crate) fn over(&self, base: SamplingConfig) -> SamplingConfig {
        SamplingConfig {
            generation_config: self.generation_config.unwrap_or(base.generation_config),
            repetition_penalty: self.repetition_penalty.or(base.repetition_penalty),
            no_repeat_ngram_size: self.no_repeat_ngram_size.or(base.no_repeat_ngram_size),
            suppress_tokens: self.suppress_tokens.clone().or(base.suppress_tokens),
            begin_suppress_tokens: self.begin_suppress_tokens.clone().or(base.begin_suppress_tokens),
            min_new_tokens: self.min_new_tokens.or(base.min_new_tokens),
            ..base
        }
    }
}

/// Help text with SIMPLEMIX's setting as the default.
fn sampling_help(help: &str, default: fn(SamplingConfig) -> String) -> String {
    with_default(help, default(SamplingConfig::simplemix()))
}

impl Backend {
    /// Settings of the model, which runs on `device` if it is in this process.
    fn settings(&self, device: DeviceFlag) -> Result<GeneratorSettings> {
        if !self.server.is_empty() {
            let tokenizer = self.server_tokenizer.as_deref().map(resolve).transpose()?;
            let name = self.generator_name.clone();
            let of = |url: &String| {
                let (name, tokenizer) = (name.clone(), tokenizer.clone());
                ServerSettings { name, tokenizer, ..self.server_flags.settings(url) }
            };
            return Ok(GeneratorSettings::Server(self.server.iter().map(of).collect::<Vec<_>>().into()));
        }
        let model = self.model.as_deref().expect("clap requires --model without --server");
        let local = LocalSettings {
            name: self.generator_name.clone(),
            batch_rows: self.batch_rows,
            dtype: self.dtype,
            load_in: self.load_in,
            device: device.choice(),
            tokenizer_as: self.reading_as.tokenizer_as,
            ..LocalSettings::new(resolve(model)?)
        };
        Ok(match &self.mix_p_reference {
            None => GeneratorSettings::Local(local),
            Some(reference) => GeneratorSettings::MixP(MixPSettings {
                policy: local,
                reference: resolve(reference)?,
                plain_share: self.plain_share,
            }),
        })
    }

    /// Loads the model onto `device`, for responses that go to `output`. An error is one of the input, except a server's.
    pub(crate) fn open_for(&self, output: &Path, device: DeviceFlag) -> Result<Box<dyn Generator>> {
        opened(self.settings(device)?.open_for(output))
    }

    /// Loads the model onto `device`; its chat template sees `date`. Errors are as above.
    pub(crate) fn open(&self, date: Option<String>, device: DeviceFlag) -> Result<Box<dyn Generator>> {
        opened(self.settings(device)?.with_date(date).open())
    }

    /// Refuses flags that are for a model in this process where there is none.
    pub(crate) fn refuse_without_models(&self, has_models: bool) -> Result {
        self.device.refuse_without_models(has_models)?;
        self.processes.refuse_without_models(has_models)
    }

    /// Whether the model runs in this process.
    pub(crate) fn is_local(&self) -> bool {
        self.server.is_empty()
    }

    /// Reading of the tokenizer.
    pub(crate) fn tokenizer_as(&self) -> Option<TokenizerAs> {
        Some(self.reading_as.tokenizer_as).filter(|given| *given != TokenizerAs::default())
    }
}

/// The generator, or a failure whose kind depends on what failed.
fn opened(opened: simplemix_rollout::Result<Box<dyn Generator>>) -> Result<Box<dyn Generator>> {
    match opened {
        Err(error @ (simplemix_rollout::Error::Server { .. } | simplemix_rollout::Error::Servers { .. })) => {
            Err(Failure::Run(error.into()))
        }
        Err(error @ simplemix_rollout::Error::Setting { .. }) => Err(flagged(error)),
        opened => opened.input(),
    }
}

fn resolve(model: &Path) -> Result<PathBuf> {
    simplemix_model::hub::resolve(model).input()
}

impl ServerFlags {
    /// Settings of the server at `url`.
    pub(crate) fn settings(&self, url: &str) -> ServerSettings {
        ServerSettings {
            model: self.server_model.clone(),
            api_key_env: self.api_key_env.clone(),
            endpoint: self.endpoint,
            concurrency: self.concurrency,
            timeout_secs: self.timeout,
            retries: self.retries,
            on_refused: self.on_refused,
            logps: self.logps,
            extra: self.extra.clone().unwrap_or_default(),
            ..ServerSettings::new(url)
        }
    }
}

impl Prompts {
    pub(crate) fn settings(&self) -> Result<PromptSettings> {
        Ok(PromptSettings {
            files: files(&self.prompts)?,
            limit: self.form.limit,
            system: self.form.system.clone(),
            messages: self.messages,
        })
    }
}

impl Sampling {
    /// Flags over `base`.
    pub(crate) fn settings(&self, base: SamplingConfig) -> SamplingConfig {
        self.processors.over(SamplingConfig {
            samples: self.samples.unwrap_or(base.samples),
            temperature: self.temperature.unwrap_or(base.temperature),
            top_p: self.top_p.unwrap_or(base.top_p),
            top_k: self.top_k.unwrap_or(base.top_k),
            min_p: self.min_p.unwrap_or(base.min_p),
            max_new_tokens: self.max_new_tokens.unwrap_or(base.max_new_tokens),
            seed: self.seed.unwrap_or(base.seed),
            ..base
        })
    }
}

/// Parses a JSON object, such as `{"top_k": 20}`.
fn object(text: &str) -> Result<serde_json::Map<String, serde_json::Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("not a JSON object: {error}"))
}

impl Args {
    /// Whether models run in this process.
    pub(crate) fn runs_models(&self) -> bool {
        self.backend.is_local()
    }
}

pub(crate) fn run(args: &Args) -> Result {
    let settings = GenerateSettings {
        prompts: args.prompts.settings()?,
        sampling: args.sampling.settings(SamplingConfig::simplemix()),
        output: args.output.path.clone(),
        overwrite: args.output.overwrite,
        share: None,
    };
    settings.check().map_err(flagged)?;
    args.backend.refuse_without_models(args.runs_models())?;
    let Backend { processes, device, .. } = args.backend;
    share(processes, device, Some(&settings.output), |processes, device| {
        let _claims = processes.claim_files(&[("output", &settings.output)])?;
        let generator = args.backend.open_for(&settings.output, device)?;
        let name = generator.name().to_owned();
        match sampled(processes, &settings, generator)? {
            Some(report) => args.output.summary.print(&report, |report| say(report, &settings, &name)),
            None => Ok(()),
        }
    })
}

/// Samples in all processes; the report is that of the first.
pub(crate) fn sampled(
    processes: &Processes,
    settings: &GenerateSettings,
    generator: Box<dyn Generator>,
) -> Result<Option<GenerateReport>> {
    let work = |terminal: &mut Terminal| {
        together(peers(&processes.team()), Some(generator), Vec::new(), terminal, |generator, _, watch| {
            generate(settings, generator.expect("one was given"), watch)
        })
    };
    on_terminal(work).map_err(flagged)
}

/// Prints the summary of generating.
pub(crate) fn say(report: &GenerateReport, settings: &GenerateSettings, generator: &str) {
    let output = settings.output.display();
    print(&format!("{output}: {} responses to {} prompts by {generator}", report.candidates, report.prompts));
    let mean = report.tokens as f64 / report.candidates.max(1) as f64;
    print(&format!("  {} tokens, {mean:.1} per response; {} cut at the limit", report.tokens, report.cut));
    if report.without_tokens > 0 {
        print(&format!("  tokens of {} responses are not known", report.without_tokens));
    }
    if report.finish.keys().any(|word| !["stop", "length"].contains(&word.as_str())) {
        print(&format!("  ended: {}", counts(&report.finish)));
    }
    if report.without_text > 0 {
        print(&format!("  {} responses without text, which stay out of pairs", report.without_text));
    }
    if report.repeated > 0 {
        print(&format!("  {} rows repeat a prompt and were left out", report.repeated));
    }
    if report.refused > 0 {
        print(&format!("  {} responses refused by the server", report.refused));
    }
    for (server, count) in &report.servers {
        print(&format!("  {count} responses by {server}"));
    }
    say_failed(&report.failed);
}

/// Prints how many attempts to ask a server failed, and why.
pub(crate) fn say_failed(failed: &Failures) {
    if !failed.is_empty() {
        print(&format!("  {} attempts failed: {}", failed.values().sum::<u64>(), counts(failed)));
    }
}

/// `12 length, 3 stop`
fn counts(numbers: &BTreeMap<String, u64>) -> String {
    numbers.iter().map(|(word, count)| format!("{count} {word}")).collect::<Vec<_>>().join(", ")
}
