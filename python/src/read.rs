//! Reading, summaries and conversion of files of pairs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use pyo3::prelude::*;
use serde::{Deserialize, Serialize};
use simplemix_data::{
    ExtraColumns, Facts, Filter, Findings, Form, Format, PairReader, PairWriter, Policy, PolicyRule, ReadOptions,
    ReadReport, Summarizer, Summary, Validator, WriteOptions,
};

use crate::columns::plain_type;
use crate::failure::{Failure, Result};
use crate::table::{Data, Table};
use crate::work::{self, Stop};

/// Options of reading, as the package passes them on.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Reading {
    format: Option<String>,
    columns: Option<BTreeMap<String, String>>,
    source: Option<String>,
    policy: Option<String>,
    our_models: Option<Vec<String>>,
    ranked: Option<String>,
    messages: bool,
    /// Whether only canonical columns are read.
    canonical: bool,
}

impl Reading {
    fn parse(text: &str) -> Result<Self> {
        serde_json::from_str(text).map_err(|error| Failure::settings("options of reading", &error))
    }

    fn options(&self) -> Result<ReadOptions> {
        let mut options = ReadOptions::default();
        if let Some(name) = &self.format {
            options.format = Some(
                name.parse::<Format>().map_err(|error| Failure::refused(format!("`format` is `{name}`: {error}")))?,
            );
        }
        options.columns = self.columns.clone().unwrap_or_default();
        if let Some(name) = &self.source {
            options = options.with_source(name);
        }
        match (self.policy.as_deref(), &self.our_models) {
            (None, None) => {}
            (None, Some(models)) => options.policy = PolicyRule::Models(models.clone()),
            (Some(_), Some(_)) => {
                return Err(Failure::refused("`policy` and `our_models` are both given, expected one of them"));
            }
            (Some("on"), _) => options = options.with_policy(Policy::On),
            (Some("off"), _) => options = options.with_policy(Policy::Off),
            (Some(other), _) => return Err(Failure::refused(format!("`policy` is `{other}`, expected on or off"))),
        }
        if let Some(rule) = &self.ranked {
            options.ranked =
                rule.parse().map_err(|error| Failure::refused(format!("`ranked` is `{rule}`, {error}")))?;
        }
        options.form = self.messages.then_some(Form::Messages);
        if self.canonical {
            options.extra_columns = ExtraColumns::Drop;
        }
        Ok(options)
    }
}

/// Files that paths, folders and patterns name.
fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        files.extend(simplemix_data::inputs(path)?);
    }
    Ok(files)
}

fn json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Failure::of(&error))
}

fn no_pairs(reports: &[ReadReport]) -> Failure {
    let reports: Vec<String> = reports.iter().map(ToString::to_string).collect();
    Failure::refused(format!("no usable pairs: {}", reports.join("; ")))
}

/// Reads pairs: the table, and as JSON the reports of the files and the names of columns that not all files have.
#[pyfunction]
pub(crate) fn read_pairs(py: Python<'_>, paths: Vec<PathBuf>, reading: &str) -> Result<(Table, String)> {
    let reading = Reading::parse(reading)?;
    work::long(py, |stop| {
        let files = files(&paths)?;
        let (options, left_out) = reading.options()?.alike(&files)?;
        let (mut batches, mut reports) = (Vec::new(), Vec::new());
        let mut columns = None;
        for file in &files {
            let mut reader = PairReader::open(file, &options)?;
            columns.get_or_insert_with(|| reader.schema());
            for batch in reader.by_ref() {
                stop.check()?;
                batches.push(plain(&batch?)?);
            }
            reports.push(reader.report().clone());
        }
        if batches.iter().all(|batch: &RecordBatch| batch.num_rows() == 0) {
            return Err(no_pairs(&reports));
        }
        let schema = batches[0].schema();
        let reports = json(&(reports, left_out))?;
        Ok((Data::new(schema, batches).into(), reports))
    })
}

/// The columns in types that `datasets` loads.
fn plain(batch: &RecordBatch) -> Result<RecordBatch> {
    let schema = batch.schema();
    let fields =
        schema.fields().iter().map(|field| field.as_ref().clone().with_data_type(plain_type(field.data_type())));
    let fields: Vec<_> = fields.collect();
    let columns =
        batch.columns().iter().zip(&fields).map(|(column, field)| crate::columns::in_type(column, field.data_type()));
    let columns = columns.collect::<Result<Vec<_>>>()?;
    Ok(RecordBatch::try_new(std::sync::Arc::new(arrow::datatypes::Schema::new(fields)), columns)?)
}

/// Summary of one file.
#[derive(Debug, Serialize)]
struct Found {
    #[serde(flatten)]
    report: ReadReport,
    #[serde(flatten)]
    summary: Summary,
    findings: Findings,
    /// The report as the command line prints it.
    text: String,
}

/// Summaries of files, as JSON.
#[pyfunction]
pub(crate) fn inspect(py: Python<'_>, paths: Vec<PathBuf>, reading: &str, similar: bool) -> Result<String> {
    let reading = Reading::parse(reading)?;
    work::long(py, |stop| {
        let options = reading.options()?;
        let mut validator = Validator::default();
        if similar {
            validator = validator.with_similar_prompts(0.8);
        }
        let mut all = Vec::new();
        for file in files(&paths)? {
            validator.file();
            all.push(found(&file, &options, &mut validator, stop)?);
        }
        for (found, findings) in all.iter_mut().zip(validator.finish()) {
            found.findings = findings;
        }
        json(&all)
    })
}

fn found(file: &Path, options: &ReadOptions, validator: &mut Validator, stop: &Stop) -> Result<Found> {
    let mut reader = PairReader::open(file, options)?;
    let mut summarizer = Summarizer::default();
    while let Some(pairs) = reader.next_pairs()? {
        stop.check()?;
        for pair in pairs {
            validator.see(&pair);
            summarizer.see(&pair);
        }
    }
    Ok(Found {
        text: reader.report().to_string(),
        report: reader.report().clone(),
        summary: summarizer.finish(),
        findings: Findings::new(),
    })
}

/// Account of a conversion.
#[derive(Debug, Serialize)]
struct Converted {
    pairs: u64,
    reports: Vec<ReadReport>,
    /// Pairs that the filter left out, by reason.
    left_out: BTreeMap<String, u64>,
    /// Columns that not all files have.
    columns_left_out: Vec<String>,
}

/// Writes all pairs of some files that pass a filter to one file, and says what it did, as JSON.
#[pyfunction]
pub(crate) fn convert(
    py: Python<'_>,
    paths: Vec<PathBuf>,
    output: PathBuf,
    overwrite: bool,
    filter: &str,
    reading: &str,
) -> Result<String> {
    let reading = Reading::parse(reading)?;
    let filter: Filter = serde_json::from_str(filter).map_err(|error| Failure::settings("filter", &error))?;
    work::long(py, |stop| {
        let files = files(&paths)?;
        if let Some(file) = files.iter().find(|file| simplemix_files::is_same_file(file, &output)) {
            return Err(Failure::refused(format!(
                "`output` is {}, which is read, expected another file",
                file.display()
            )));
        }
        if output.exists() && !overwrite {
            return Err(Failure::refused(format!("{} exists; give overwrite=True to write it anew", output.display())));
        }
        let (options, columns_left_out) = reading.options()?.alike(&files)?;
        let mut left_out = BTreeMap::new();
        let mut wanted = None;
        if !filter.is_empty() {
            let mut selector = filter.selector()?;
            for file in &files {
                let mut reader = PairReader::open(file, &options)?;
                while let Some(pairs) = reader.next_pairs()? {
                    stop.check()?;
                    pairs.iter().for_each(|pair| selector.see(&Facts::of(pair)));
                }
            }
            let selection = selector.finish();
            for (reason, count) in &selection.left {
                left_out.insert(json(reason)?.trim_matches('"').to_owned(), *count);
            }
            if selection.rows.is_empty() {
                let left: Vec<String> = left_out.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
                return Err(Failure::refused(format!("no pair passes the filter: {}", left.join(", "))));
            }
            wanted = Some(selection.rows.into_iter().peekable());
        }
        let mut writer = PairWriter::create(&output, &WriteOptions::default())?;
        let (mut reports, mut number) = (Vec::new(), 0u64);
        for file in &files {
            let mut reader = PairReader::open(file, &options)?;
            for batch in reader.by_ref() {
                stop.check()?;
                let batch = batch?;
                let rows = number..number + batch.num_rows() as u64;
                number = rows.end;
                let Some(wanted) = &mut wanted else {
                    writer.write_batch(&batch)?;
                    continue;
                };
                let kept = std::iter::from_fn(|| wanted.next_if(|row| *row < rows.end));
                let kept = UInt32Array::from_iter_values(kept.map(|row| (row - rows.start) as u32));
                if !kept.is_empty() {
                    writer.write_batch(&take_record_batch(&batch, &kept)?)?;
                }
            }
            reports.push(reader.report().clone());
        }
        if number == 0 {
            return Err(no_pairs(&reports));
        }
        let pairs = writer.finish()?;
        json(&Converted { pairs, reports, left_out, columns_left_out })
    })
}
