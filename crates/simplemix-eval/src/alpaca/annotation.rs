//! Verdicts of a judge about one model's answers against a baseline's.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use crate::alpaca::{read_json, read_parquet};
use crate::error::{At, Error, Result};

/// What an answer was given to: its text, or its number where a file has only that.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Instruction {
    /// The number of the instruction.
    Number(i64),
    /// Its text.
    Text(String),
}

/// One verdict.
#[derive(Debug, Clone, PartialEq)]
pub struct Annotation {
    /// Place in the model's list of verdicts. The official package looks the instruction's difficulty up under it.
    pub row: usize,
    /// What was asked; none where the file does not say.
    pub instruction: Option<Instruction>,
    /// The verdict as it stands in the file; none where it is missing or not a number.
    pub preference: Option<f64>,
    /// Characters of the baseline's answer and of the model's; none where the file has neither answer nor length.
    pub lengths: Option<[u64; 2]>,
    /// What kind of instruction it is, or the data set that it comes from.
    pub category: Option<String>,
}

impl Annotation {
    /// The verdict with 0, an old sign of a draw, as 1.5.
    pub(crate) fn verdict(&self) -> Option<f64> {
        self.preference.map(|p| if p == 0.0 { 1.5 } else { p })
    }

    /// The verdict from 0 (the baseline wins) to 1 (the model wins); none where it is not one.
    pub fn outcome(&self) -> Option<f64> {
        self.verdict().filter(|p| (1.0..=2.0).contains(p)).map(|p| p - 1.0)
    }
}

/// All verdicts about one model.
#[derive(Debug, Clone, PartialEq)]
pub struct Annotations {
    /// Whose answers were judged.
    pub model: String,
    /// Whose answers they were compared with; none where the file does not say.
    pub baseline: Option<String>,
    /// Verdicts in the order of `row`.
    pub rows: Vec<Annotation>,
}

/// What is unusual about a model's verdicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Findings {
    /// Rows without a verdict. The official package leaves them out of the plain figures.
    pub missing: usize,
    /// Rows whose verdict is neither 0 nor from 1 to 2; left out likewise.
    pub out_of_range: usize,
    /// Rows about an instruction that an earlier row is about. The official package counts them all.
    pub duplicates: usize,
    /// Rows whose instruction's number is not among those of AlpacaEval, 0 to 804.
    pub unknown: usize,
}

impl Annotations {
    /// Counts what is unusual.
    pub fn findings(&self) -> Findings {
        let mut findings = Findings::default();
        let mut seen = BTreeSet::new();
        for row in &self.rows {
            match row.preference {
                None => findings.missing += 1,
                Some(_) if row.outcome().is_none() => findings.out_of_range += 1,
                Some(_) => {}
            }
            if let Some(instruction) = &row.instruction {
                findings.duplicates += usize::from(!seen.insert(instruction));
                let is_unknown = matches!(instruction, Instruction::Number(n) if !(0..805).contains(n));
                findings.unknown += usize::from(is_unknown);
            }
        }
        findings
    }

    /// Whether the model is the baseline itself.
    pub fn is_baseline(&self) -> bool {
        self.baseline.as_ref() == Some(&self.model)
    }
}

impl Findings {
    /// One clause for each finding; nothing where all is usual.
    pub fn clauses(&self) -> Vec<String> {
        let clause = |count: usize, what: &str| (count > 0).then(|| format!("{count} {what}"));
        [
            clause(self.missing, "without a verdict, left out"),
            clause(self.out_of_range, "with a verdict outside 1 to 2, left out"),
            clause(self.duplicates, "about an instruction that came before, counted as the official package does"),
            clause(self.unknown, "with an instruction's number outside 0 to 804"),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// Reads the verdicts of a file, one [`Annotations`] a model, in the file's order.
///
/// Official annotations are JSON (an array of objects, or an object a line) with `preference`, `instruction`, `output_1`,
/// `output_2`, `generator_1`, `generator_2` and `dataset`. Parquet has `preference`, and may have `model`, `row`,
/// `instruction_id` or `instruction`, `len_1` and `len_2` or `output_1` and `output_2`, `category` or `dataset`. Either
/// may be compressed by gzip. A file that does not name its model is named after itself.
///
/// # Errors
/// [`Error::Io`] or [`Error::Malformed`] with row or column.
pub fn read_annotations(path: &Path) -> Result<Vec<Annotations>> {
    let bytes = read_bytes(path)?;
    let name = model_of(path);
    let mut models = if bytes.starts_with(b"PAR1") {
        read_parquet::read(path, bytes, &name)?
    } else {
        read_json::read(path, &bytes, &name)?
    };
    if models.is_empty() {
        return Err(Error::malformed(path, "no annotation in it"));
    }
    for model in &mut models {
        model.rows.sort_by_key(|row| row.row);
    }
    Ok(models)
}

/// The bytes of a file, unpacked where they are gzip's.
pub(crate) fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    BufReader::new(File::open(path).at(path, "open")?).read_to_end(&mut bytes).at(path, "read")?;
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut unpacked = Vec::new();
        flate2::read::MultiGzDecoder::new(bytes.as_slice()).read_to_end(&mut unpacked).at(path, "unpack")?;
        return Ok(unpacked);
    }
    Ok(bytes)
}

/// The name of a file that says no more; official files are all `annotations.json`, in a folder named for the model.
fn model_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.split('.').next().unwrap_or_default().to_owned();
    let folder = path.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    if stem == "annotations" { folder.unwrap_or(stem) } else { stem }
}
