//! `simplemix convert`: converts files of any known schema to one canonical file, with filters.

use std::path::PathBuf;

use simplemix_data::{Facts, Filter, Left, PairReader, PairWriter, ReadOptions, Selection, WriteOptions};

use crate::claims::claim_files;
use crate::failure::{Fails, Failure, Result, read_toml};
use crate::flags::{check_apart, check_new};
use crate::lines::print;
use crate::progress::bar;
use crate::reading::{Reading, files};

/// Convert files of pairs in any known schema to one canonical file, which TRL and `datasets` read directly
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
  simplemix convert uf.jsonl.gz -o uf.parquet\n  \
  simplemix convert 'shards/*.parquet' more/ -o all.parquet --distinct --margin-min 0.5\n  \
  simplemix convert odd.parquet --map columns.toml --source-name odd --policy off -o odd.jsonl\n  \
  simplemix convert ultrafeedback.parquet --ranked all:1 --filter filter.toml -o pairs.parquet\n\n\
  filter.toml has the same names with underscores, and more:\n  \
  margin_top = 0.5            # the half of the pairs with the largest margins\n  \
  score_sum_top = 0.8\n  \
  not_tasks = [\"chat\"]")]
pub(crate) struct Args {
    /// Files, folders of shards, or patterns
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// File to write: .parquet, .arrow, .jsonl, .jsonl.gz or .jsonl.zst
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Overwrite the output if it exists
    #[arg(long)]
    overwrite: bool,
    /// Rows per Parquet row group [default: 8192]
    #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u64).range(1..))]
    row_group: Option<u64>,
    #[command(flatten)]
    filters: Filters,
    #[command(flatten)]
    reading: Reading,
}

/// Rules for the pairs to keep.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Filters")]
struct Filters {
    /// TOML file of rules; flags take precedence
    #[arg(long, value_name = "FILE")]
    filter: Option<PathBuf>,
    /// Keep pairs whose margin (score of chosen minus rejected) is at least GAP
    #[arg(long, value_name = "GAP")]
    margin_min: Option<f64>,
    /// Keep pairs whose margin (score of chosen minus rejected) is at most GAP
    #[arg(long, value_name = "GAP")]
    margin_max: Option<f64>,
    /// Keep pairs whose chosen response has at least this score
    #[arg(long, value_name = "SCORE")]
    chosen_score_min: Option<f64>,
    /// Keep pairs whose longer response has at most TIMES the characters of the shorter one
    #[arg(long, value_name = "TIMES")]
    length_ratio_max: Option<f64>,
    /// Keep only the first of pairs with equal texts
    #[arg(long)]
    distinct: bool,
    /// Keep only pairs of these tasks (comma-separated)
    #[arg(long = "task", value_name = "NAME", value_delimiter = ',')]
    tasks: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result {
    let filter = args.filters.rules()?;
    let _claims = claim_files(&[("output", &args.output)])?;
    check_new(&args.output, args.overwrite)?;
    let mut write = WriteOptions::default();
    write.row_group_rows = args.row_group.map_or(write.row_group_rows, |rows| rows as usize);
    let mut writer = PairWriter::create(&args.output, &write).input()?;
    let files = files(&args.files)?;
    check_apart(&args.output, &files)?;
    let options = args.reading.options_for(&files)?;
    let selection = if filter.is_empty() { None } else { Some(select(&files, &options, &filter)?) };
    let mut wanted = selection.as_ref().map(|selection| selection.rows.iter().copied().peekable());
    let (bar, mut number) = (bar("converting", 0), 0u64);
    let mut reports = Vec::new();
    for file in &files {
        let mut reader = PairReader::open(file, &options).input()?;
        for batch in reader.by_ref() {
            let batch = batch.run()?;
            let rows = number..number + batch.num_rows() as u64;
            number = rows.end;
            bar.set_position(number);
            let Some(wanted) = &mut wanted else {
                writer.write_batch(&batch).run()?;
                continue;
            };
            let kept: Vec<u32> = std::iter::from_fn(|| wanted.next_if(|row| *row < rows.end))
                .map(|row| (row - rows.start) as u32)
                .collect();
            if !kept.is_empty() {
                let kept = arrow::compute::take_record_batch(&batch, &arrow::array::UInt32Array::from(kept)).run()?;
                writer.write_batch(&kept).run()?;
            }
        }
        reports.push(reader.report().clone());
    }
    bar.finish_and_clear();
    if reports.iter().all(|report| report.pairs == 0) {
        let reports: Vec<String> = reports.iter().map(ToString::to_string).collect();
        return Err(Failure::input(format!("no usable pairs: {}", reports.join("; "))));
    }
    if selection.as_ref().is_some_and(|selection| selection.rows.is_empty()) {
        let left: Vec<String> = selection.iter().flat_map(|selection| &selection.left).map(left_out).collect();
        return Err(Failure::input(format!("no pair passes the filters: {}", left.join(", "))));
    }
    let written = writer.finish().run()?;
    for report in &reports {
        print(&report.to_string());
    }
    for left in selection.iter().flat_map(|selection| &selection.left) {
        print(&format!("  left out: {}", left_out(left)));
    }
    print(&format!("{}: {written} pairs", args.output.display()));
    Ok(())
}

/// Reason for leaving pairs out, and their number.
fn left_out((reason, count): (&Left, &u64)) -> String {
    let name = serde_json::to_string(reason).expect("a reason has a name");
    format!("{} {count}", name.trim_matches('"'))
}

/// Reads all files once to apply the rules.
fn select(files: &[PathBuf], options: &ReadOptions, filter: &Filter) -> Result<Selection> {
    let bar = bar("filtering", 0);
    let mut selector = filter.selector().input()?;
    for file in files {
        let mut reader = PairReader::open(file, options).input()?;
        while let Some(pairs) = reader.next_pairs().input()? {
            bar.inc(pairs.len() as u64);
            pairs.iter().for_each(|pair| selector.see(&Facts::of(pair)));
        }
    }
    bar.finish_and_clear();
    Ok(selector.finish())
}

impl Filters {
    fn rules(&self) -> Result<Filter> {
        let mut filter = match &self.filter {
            None => Filter::default(),
            Some(path) => read_toml(path)?,
        };
        filter.margin_min = self.margin_min.or(filter.margin_min);
        filter.margin_max = self.margin_max.or(filter.margin_max);
        filter.chosen_score_min = self.chosen_score_min.or(filter.chosen_score_min);
        filter.length_ratio_max = self.length_ratio_max.or(filter.length_ratio_max);
        filter.distinct |= self.distinct;
        if !self.tasks.is_empty() {
            filter.tasks = Some(self.tasks.clone());
        }
        Ok(filter)
    }
}
