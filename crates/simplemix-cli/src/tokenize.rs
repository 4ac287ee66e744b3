//! `simplemix tokenize`: tokenises pairs, into an Arrow IPC file.

use std::path::PathBuf;

use serde_json::{Value, json};
use simplemix_data::{
    Boundary, ChatTemplate, PairTokenizer, TokenSet, TokenizeOptions, TokenizedPair, TokenizedSet, Truncation,
    read_pairs_with_report,
};

use crate::claims::claim_optional;
use crate::failure::{Fails, Failure, Result, read_text};
use crate::flags::{Summary, check_apart, word};
use crate::lines::print;
use crate::progress::bar;
use crate::reading::{Reading, RefusalFlag, TokenizerFlag, files, tell_refused, token_notices};

/// Tokenise pairs as TRL does, and report what was cut or dropped and why
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
  simplemix tokenize mix.parquet --tokenizer ./smollm2 -o mix.tokens.arrow\n  \
  simplemix tokenize mix.parquet --tokenizer ./smollm2 --max-length 2048 --boundary strict\n\n\
  Without -o, nothing is written. The file is Arrow IPC: index, prompt, chosen, rejected (lists of ids), cut, shifted")]
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
    /// Maximum number of tokens of prompt and response together
    #[arg(long, value_name = "TOKENS", default_value_t = 1024)]
    max_length: usize,
    /// Handling of longer pairs: keep-start cuts off the end of the responses, drop leaves the pairs out
    #[arg(long, value_name = "keep-start|drop", default_value = "keep-start", value_parser = word::<Truncation>)]
    truncation: Truncation,
    /// Handling of prompts whose tokens change when a response follows: trl splits as TRL does, strict fails, drop leaves the
    /// pairs out
    #[arg(long, value_name = "trl|strict|drop", default_value = "trl", value_parser = word::<Boundary>)]
    boundary: Boundary,
    /// Chat template to use instead of the model folder's
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,
    #[command(flatten)]
    refusal: RefusalFlag,
    #[command(flatten)]
    reading_as: TokenizerFlag,
    #[command(flatten)]
    summary: Summary,
    #[command(flatten)]
    reading: Reading,
}

pub(crate) fn run(args: &Args) -> Result {
    if let Some(path) = args.output.as_deref().filter(|path| path.extension().is_none_or(|end| end != "arrow")) {
        return Err(Failure::input(format!("--output is {}, expected a name ending in .arrow", path.display())));
    }
    let _claims = claim_optional("output", args.output.as_deref())?;
    let options = TokenizeOptions {
        max_length: args.max_length,
        truncation: args.truncation,
        boundary: args.boundary,
        tokenizer_as: args.reading_as.tokenizer_as,
        on_refused: args.refusal.on_refused,
    };
    let mut tokenizer = PairTokenizer::from_dir(&args.tokenizer, options).input()?;
    if let Some(path) = &args.template {
        tokenizer = tokenizer.with_template(ChatTemplate::from_str(&read_text(path)?).input()?);
    }
    let files = files(&args.files)?;
    if let Some(path) = &args.output {
        check_apart(path, &files)?;
    }
    let bar = bar("reading", files.len() as u64);
    let reading = args.reading.options()?;
    let (mut pairs, mut reports) = (Vec::new(), Vec::new());
    for file in &files {
        let (found, report) = read_pairs_with_report(file, &reading).input()?;
        pairs.extend(found);
        reports.push(report);
        bar.inc(1);
    }
    if pairs.is_empty() {
        let reports: Vec<String> = reports.iter().map(ToString::to_string).collect();
        return Err(Failure::input(format!("no usable pairs: {}", reports.join("; "))));
    }
    reports.iter().for_each(tell_refused);
    bar.finish_and_clear();
    let set = tokenizer.encode_all(&pairs).input()?;
    let mut notices: Vec<String> =
        reports.iter().filter(|report| !report.is_plain()).map(ToString::to_string).collect();
    notices.extend(token_notices(&tokenizer, &pairs, set.rows())?);
    if let Some(path) = &args.output {
        set.write(path).run()?;
        // A file that cannot be read back must not be reported as written.
        TokenSet::open(path).run()?;
    }
    show(args, pairs.len(), &set, &notices)
}

fn show(args: &Args, pairs: usize, set: &TokenizedSet, notices: &[String]) -> Result {
    let tokens = |ids: fn(&TokenizedPair) -> usize| set.pairs.iter().map(|(_, pair)| ids(pair)).sum::<usize>();
    let (prompt, chosen) = (tokens(|pair| pair.prompt.len()), tokens(|pair| pair.chosen.len()));
    let rejected = tokens(|pair| pair.rejected.len());
    let kept = set.pairs.len();
    let dropped: serde_json::Map<String, Value> =
        set.dropped.iter().map(|(reason, count)| (reason.name().to_owned(), json!(count))).collect();
    let summary = json!({
        "pairs": pairs, "kept": kept, "dropped": dropped, "cut": set.cut, "shifted": set.shifted,
        "tokens": { "prompt": prompt, "chosen": chosen, "rejected": rejected }, "notices": notices,
    });
    args.summary.print(&summary, |_| {
        print(&format!("{kept} of {pairs} pairs: {prompt} prompt, {chosen} chosen, {rejected} rejected tokens"));
        for (reason, count) in &dropped {
            print(&format!("  dropped: {reason} {count}"));
        }
        print(&format!("  cut: {}; boundary moved: {}", set.cut, set.shifted));
        if let Some(path) = &args.output {
            print(&path.display().to_string());
        }
    })
}
