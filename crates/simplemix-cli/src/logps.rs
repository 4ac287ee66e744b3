//! `simplemix logps`: log-probabilities of pairs under a model, as further columns of the pairs.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use simplemix_data::{PairReader, PairTokenizer, PairWriter, TokenizeOptions, WriteOptions, schema};
use simplemix_pipeline::{ScoringOptions, log_probabilities_together};
use simplemix_settings::OrAuto;
use simplemix_train::{PairSet, Sides};

use crate::failure::{Fails, Failure, Result};
use crate::flags::{DeviceFlag, LoadInFlag, ProcessesFlag, check_apart, tokens};
use crate::lines::print;
use crate::progress::Terminal;
use crate::reading::{Reading, RefusalFlag, TokenizerFlag, named, tell_refused, token_notices};
use crate::together::{Processes, share};

/// Compute the summed log-probability of both responses of every pair under a model, in nats
///
/// The output has the pairs unchanged and two further columns with TRL's names, ref_chosen_logps and ref_rejected_logps.
/// They are empty for pairs that training would leave out.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
  simplemix logps --model ./smollm2 --data mix.parquet -o mix.logps.parquet\n  \
  simplemix logps --model ./smollm2 --data mix.parquet -o mix.logps.jsonl --max-length 2048\n  \
  simplemix logps --model ./smollm2 --data mix.parquet --processes 8 -o mix.logps.parquet")]
pub(crate) struct Args {
    /// Model folder, or its id on the Hugging Face hub
    #[arg(long, value_name = "DIR|ID")]
    model: PathBuf,
    /// File of pairs, folder of shards, or pattern
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Output file, in the format of its ending: .parquet, .arrow or .jsonl
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Longest prompt and response together, in tokens; longer ones are cut at their end
    #[arg(long, value_name = "TOKENS", default_value_t = 1024)]
    max_length: usize,
    /// Tokens of a forward pass; more need more memory, and results do not change; auto is 2048 on a CPU, 16384 on a GPU
    #[arg(long, value_name = "auto|TOKENS", default_value_t = OrAuto::Auto, value_parser = tokens)]
    micro_batch_tokens: OrAuto<usize>,
    #[command(flatten)]
    load_in: LoadInFlag,
    #[command(flatten)]
    device: DeviceFlag,
    #[command(flatten)]
    processes: ProcessesFlag,
    #[command(flatten)]
    refusal: RefusalFlag,
    #[command(flatten)]
    reading_as: TokenizerFlag,
    #[command(flatten)]
    reading: Reading,
}

/// Columns with the names of TRL.
const COLUMNS: [&str; 2] = ["ref_chosen_logps", "ref_rejected_logps"];

pub(crate) fn run(args: &Args) -> Result {
    share(args.processes, args.device, Some(&args.output), |processes, device| work(args, processes, device))
}

/// Work of one process.
fn work(args: &Args, processes: &Processes, device: DeviceFlag) -> Result {
    let _claims = processes.claim_files(&[("output", &args.output)])?;
    let create = || PairWriter::create(&args.output, &WriteOptions::default()).input();
    let writer = processes.is_first().then(create).transpose()?;
    let files = named(&args.data)?;
    check_apart(&args.output, &files)?;
    let model = simplemix_model::hub::resolve(&args.model).input()?;
    let tokenizer_as = args.reading_as.tokenizer_as;
    let on_refused = args.refusal.on_refused;
    let options =
        TokenizeOptions { max_length: args.max_length, tokenizer_as, on_refused, ..TokenizeOptions::default() };
    let tokenizer = PairTokenizer::from_dir(&model, options).input()?;
    let reading = args.reading.options_for(&files)?;
    let (mut batches, mut pairs) = (Vec::new(), Vec::new());
    for file in &files {
        let mut reader = PairReader::open(file, &reading).input()?;
        if let Some(name) = COLUMNS.into_iter().find(|name| reader.schema().field_with_name(name).is_ok()) {
            let file = file.display();
            return Err(Failure::input(format!("{file}: has a column `{name}`, expected pairs without it")));
        }
        for batch in reader.by_ref() {
            batches.push(batch.input()?);
        }
        tell_refused(reader.report());
    }
    for batch in &batches {
        pairs.extend(schema::pairs_from_batch(batch).input()?);
    }
    if pairs.is_empty() {
        return Err(Failure::input(format!("{}: no pairs, expected at least one", args.data.display())));
    }
    let set = PairSet::tokenize(&pairs, &tokenizer).input()?;
    if set.is_empty() {
        return Err(Failure::input(format!("{}: {}, expected some", args.data.display(), set.summary())));
    }
    token_notices(&tokenizer, &pairs, set.token_rows())?;
    let mut terminal = Terminal::passive();
    let (micro_batch_tokens, load_in) = (args.micro_batch_tokens, args.load_in.load_in);
    let scoring = ScoringOptions { device: device.choice(), micro_batch_tokens, load_in };
    let logps = log_probabilities_together(&processes.team(), &model, &set, scoring, "scoring", &mut terminal)?;
    terminal.clear();
    let Some(mut writer) = writer else { return Ok(()) };

    let mut by_row: Vec<[Option<f64>; 2]> = vec![[None; 2]; pairs.len()];
    for (entry, logps) in set.table.pairs.iter().zip(&logps) {
        by_row[entry.row] = logps.map(Some).into();
    }
    let mut rows = by_row.into_iter();
    for batch in &batches {
        let logps: Vec<[Option<f64>; 2]> = rows.by_ref().take(batch.num_rows()).collect();
        writer.write_batch(&with_columns(batch, &logps).run()?).run()?;
    }
    let written = writer.finish().run()?;
    let mean = |side: fn(&Sides<f64>) -> f64| logps.iter().map(side).sum::<f64>() / logps.len() as f64;
    let (chosen, rejected) = (mean(|pair| pair.chosen), mean(|pair| pair.rejected));
    print(&format!("{}: {written} pairs; {}", args.output.display(), set.summary()));
    print(&format!("  mean log-probability {chosen:.2} chosen, {rejected:.2} rejected"));
    Ok(())
}

fn with_columns(
    batch: &RecordBatch,
    logps: &[[Option<f64>; 2]],
) -> std::result::Result<RecordBatch, arrow::error::ArrowError> {
    let mut fields = batch.schema().fields().to_vec();
    let mut columns = batch.columns().to_vec();
    for (side, name) in COLUMNS.into_iter().enumerate() {
        fields.push(Arc::new(Field::new(name, DataType::Float64, true)));
        let values: Float64Array = logps.iter().map(|pair| pair[side]).collect();
        columns.push(Arc::new(values) as ArrayRef);
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}
