//! `simplemix advise`: what the literature looks at before mixing, measured on a model, prompts and pairs of one's own.

use std::path::PathBuf;

use clap::builder::RangedU64ValueParser;
use simplemix_eval::table;
use simplemix_pipeline::{Advice, AdviseSettings, advise};
use simplemix_rollout::{SamplingConfig, ScorerSettings};
use simplemix_settings::OrAuto;

use crate::claims::claim_folder;
use crate::failure::{Fails, Result};
use crate::flags::{DeviceFlag, LoadInFlag, tokens};
use crate::lines::{print, print_json, print_lines};
use crate::progress::Terminal;

/// Measure what the literature looks at before mixing: rightness, reward gaps, distance of each source, lengths, stage
///
/// Samples responses of the model, scores them and the off-policy responses to the same prompts, and measures the likelihood
/// of both under the model. Each reading says what its source says of such a value, and names the source; where the
/// literature names no threshold, it says so. After Ctrl-C or a kill, the same command continues.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
  simplemix advise --model ./smollm2 --prompts gsm8k.jsonl --off-policy pairs.parquet --scorer exact-answer --output runs/advice\n  \
  simplemix advise --model ./smollm2 --off-policy uf.parquet --scorer reward-model:./armo --limit 256 --json > advice.json")]
pub(crate) struct Args {
    /// Policy: a model folder, or an id on the hub
    #[arg(long, value_name = "DIR|ID")]
    model: PathBuf,
    /// Off-policy pairs: file, folder of shards, or pattern
    #[arg(long, value_name = "FILE")]
    off_policy: PathBuf,
    /// Prompts: files, folders of shards, or patterns [default: those of the off-policy pairs]
    #[arg(long, value_name = "FILE", num_args = 1..)]
    prompts: Vec<PathBuf>,
    /// Turn plain prompts into messages for the chat template
    #[arg(long)]
    messages: bool,
    /// Scorer of the responses, as in `simplemix score`; several of them give a weighted sum
    #[arg(long, value_name = "[WEIGHT*]KIND[:ARGUMENT]", required = true)]
    scorer: Vec<ScorerSettings>,
    /// Use the first N prompts, and measure the likelihood of the first N off-policy pairs
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = RangedU64ValueParser::<u64>::new().range(1..))]
    limit: u64,
    /// Responses to each prompt, at least 2
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = RangedU64ValueParser::<usize>::new().range(2..=1024))]
    samples: usize,
    /// Sampling temperature
    #[arg(long, default_value_t = 0.7)]
    temperature: f64,
    /// Sample only from the most likely tokens that together have this probability
    #[arg(long, value_name = "SHARE", default_value_t = 0.9)]
    top_p: f64,
    /// Most tokens of a response
    #[arg(long, value_name = "TOKENS", default_value_t = 256)]
    max_new_tokens: usize,
    /// Longest prompt and response together, in tokens; longer ones are cut at their end
    #[arg(long, value_name = "TOKENS", default_value_t = 1024)]
    max_length: usize,
    /// Random seed
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Batch size of sampling; a larger one needs more memory
    #[arg(long, value_name = "ROWS", default_value_t = 64)]
    batch_rows: usize,
    /// Tokens of a forward pass; more need more memory, and results do not change; auto is 2048 on a CPU, 16384 on a GPU
    #[arg(long, value_name = "auto|TOKENS", default_value_t = OrAuto::Auto, value_parser = tokens)]
    micro_batch_tokens: OrAuto<usize>,
    #[command(flatten)]
    load_in: LoadInFlag,
    #[command(flatten)]
    device: DeviceFlag,
    /// Folder to write: advice.html, advice.json, and what a later call continues from
    #[arg(short, long, value_name = "DIR", default_value = "advice")]
    output: PathBuf,
    /// Print the readings as one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result {
    let _claims = claim_folder(&args.output)?;
    let mut terminal = Terminal::new();
    terminal.keep_results_for_json(args.json);
    let advice = advise(&settings(args), &mut terminal);
    terminal.clear();
    let advice = advice?;
    if args.json {
        print_json(&serde_json::to_string(&advice).run()?);
        return Ok(());
    }
    say(&advice);
    print(&format!("page: {}", args.output.join("advice.html").display()));
    Ok(())
}

fn settings(args: &Args) -> AdviseSettings {
    AdviseSettings {
        prompts: args.prompts.clone(),
        messages: args.messages,
        limit: args.limit,
        sampling: SamplingConfig {
            samples: args.samples,
            temperature: args.temperature,
            top_p: args.top_p,
            max_new_tokens: args.max_new_tokens,
            seed: args.seed,
            ..SamplingConfig::simplemix()
        },
        scorer: args.scorer.clone(),
        device: args.device.choice(),
        load_in: args.load_in.load_in,
        batch_rows: args.batch_rows,
        max_length: args.max_length,
        micro_batch_tokens: args.micro_batch_tokens,
        ..AdviseSettings::new(&args.model, &args.off_policy, &args.output)
    }
}

/// The readings for people.
fn say(advice: &Advice) {
    print(&format!(
        "{}: {} prompts with {} responses each, {} off-policy pairs; {} of the prompts have one",
        advice.model, advice.prompts, advice.samples, advice.off_policy_pairs, advice.matched_prompts
    ));
    for reading in &advice.readings {
        let rows: Vec<Vec<String>> =
            reading.figures.iter().map(|figure| vec![format!("  {}", figure.name), figure.to_string()]).collect();
        print_lines(&format!("\n{}", reading.name));
        print_lines(table(&[], &rows).trim_start_matches('\n'));
        print_lines(&format!("  {}\n  [{}]", reading.says, reading.source));
    }
    if advice.matched_prompts == 0 {
        print("\nNo off-policy pair has one of the prompts: their responses are not compared with the model's own");
    }
}
