//! `simplemix tokenize`: pairs to token ids, in a file that is mapped rather than read.

use std::path::PathBuf;

use serde_json::{Value, json};
use simplemix_data::{Boundary, ChatTemplate, PairTokenizer, TokenSet, TokenizeOptions, Truncation, read_pairs};

use crate::failure::{Fails, Failure, Result, read_text};
use crate::progress::{bar, print};
use crate::reading::{Reading, files};

/// Turn pairs into token ids, as TRL prepares them, and say what was cut or dropped and why
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
  simplemix tokenize mix.parquet --tokenizer ./smollm2 -o mix.tokens.arrow\n  \
  simplemix tokenize mix.parquet --tokenizer ./smollm2 --max-length 2048 --boundary strict\n\n\
  Without -o nothing is written. The file is Arrow IPC: index, prompt, chosen, rejected (lists of ids), cut, shifted")]
pub(crate) struct Args {
    /// Files, folders of shards, or patterns
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Model folder with tokenizer and chat template
    #[arg(long, value_name = "DIR")]
    tokenizer: PathBuf,
    /// File to write, ending in .arrow
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Tokens of prompt and response together
    #[arg(long, value_name = "TOKENS", default_value_t = 1024)]
    max_length: usize,
    /// Longer pairs: keep-start cuts the responses' ends, drop leaves them out
    #[arg(long, value_name = "keep-start|drop", default_value = "keep-start")]
    truncation: String,
    /// Where a prompt's tokens change once a response follows: trl slices as TRL does, strict stops, drop leaves out
    #[arg(long, value_name = "trl|strict|drop", default_value = "trl")]
    boundary: String,
    /// Chat template in place of the folder's
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,
    /// The account as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reading: Reading,
}

pub(crate) fn run(args: &Args) -> Result {
    if let Some(path) = args.output.as_deref().filter(|path| path.extension().is_none_or(|end| end != "arrow")) {
        return Err(Failure::input(format!("--output is {}, expected a name ending in .arrow", path.display())));
    }
    let options = TokenizeOptions {
        max_length: args.max_length,
        truncation: choice::<Truncation>("truncation", &args.truncation, "keep-start or drop")?,
        boundary: choice::<Boundary>("boundary", &args.boundary, "trl, strict or drop")?,
    };
    let mut tokenizer = PairTokenizer::from_dir(&args.tokenizer, options).input()?;
    if let Some(path) = &args.template {
        tokenizer = tokenizer.with_template(ChatTemplate::from_str(&read_text(path)?).input()?);
    }
    let files = files(&args.files)?;
    let bar = bar("tokenising", files.len() as u64);
    let reading = args.reading.options()?;
    let mut pairs = Vec::new();
    for file in &files {
        pairs.extend(read_pairs(file, &reading).input()?);
        bar.inc(1);
    }
    let set = match &args.output {
        Some(path) => tokenizer.write_token_set(&pairs, path).input()?,
        None => tokenizer.encode_all(&pairs).input()?,
    };
    bar.finish_and_clear();
    if let Some(path) = &args.output {
        // What was written is what will be found.
        TokenSet::open(path).run()?;
    }
    let tokens =
        |of: fn(&simplemix_data::TokenizedPair) -> usize| set.pairs.iter().map(|(_, pair)| of(pair)).sum::<usize>();
    let counts =
        [tokens(|pair| pair.prompt.len()), tokens(|pair| pair.chosen.len()), tokens(|pair| pair.rejected.len())];
    let dropped: serde_json::Map<String, Value> =
        set.dropped.iter().map(|(reason, count)| (reason.name().to_owned(), json!(count))).collect();
    if args.json {
        let [prompt, chosen, rejected] = counts;
        print(&json!({
            "pairs": pairs.len(), "kept": set.pairs.len(), "dropped": dropped, "cut": set.cut, "shifted": set.shifted,
            "tokens": { "prompt": prompt, "chosen": chosen, "rejected": rejected },
        }).to_string());
        return Ok(());
    }
    let [prompt, chosen, rejected] = counts;
    print(&format!(
        "{} of {} pairs: {prompt} prompt, {chosen} chosen, {rejected} rejected tokens",
        set.pairs.len(),
        pairs.len()
    ));
    for (reason, count) in &dropped {
        print(&format!("  dropped: {reason} {count}"));
    }
    print(&format!("  cut: {}; boundary moved: {}", set.cut, set.shifted));
    if let Some(path) = &args.output {
        print(&path.display().to_string());
    }
    Ok(())
}

fn choice<T: serde::de::DeserializeOwned>(flag: &str, text: &str, expected: &str) -> Result<T> {
    serde_json::from_value(Value::String(text.to_owned()))
        .map_err(|_| Failure::input(format!("--{flag} is `{text}`, expected {expected}")))
}
