//! Journal of finished verdicts, a line each, beside the file that is being made.

use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use simplemix_files::AppendFile;

use crate::error::{At, Error, Result};

/// A row of the official `annotations.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Annotated {
    /// The instruction.
    pub(crate) instruction: String,
    /// The baseline's response.
    pub(crate) output_1: String,
    /// Name of the baseline.
    pub(crate) generator_1: String,
    /// Set that the instruction comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dataset: Option<String>,
    /// The model's response.
    pub(crate) output_2: String,
    /// Name of the model.
    pub(crate) generator_2: String,
    /// Name of the judge.
    pub(crate) annotator: String,
    /// Preference from 1 (the baseline) to 2 (the model); `None` without a verdict.
    pub(crate) preference: Option<f64>,
    /// Tokens of the question.
    pub(crate) prompt_tokens: u64,
    /// Tokens of the reply.
    pub(crate) completion_tokens: u64,
    /// The judge's reply.
    pub(crate) raw_completion: Value,
}

/// Journal of one output, locked against other processes.
pub(crate) struct Journal {
    file: AppendFile,
    rows: Vec<Annotated>,
}

impl Journal {
    /// Opens the journal of `output` and reads the verdicts in it, which must come from the same judge. A last line
    /// that was cut off is removed.
    pub(crate) fn open(output: &Path, judge: &str) -> Result<Self> {
        let unnamed = || std::io::Error::new(std::io::ErrorKind::InvalidInput, "it names no file");
        let name = output.file_name().ok_or_else(unnamed).at(output, "write")?.to_string_lossy();
        let path = output.with_file_name(format!(".{name}.partial"));
        let mut file = AppendFile::open_locked(&path)?;
        let mut text = String::new();
        let mut reader = file.reader();
        reader.read_to_string(&mut text).at(&path, "read")?;
        let (mut rows, mut whole) = (Vec::new(), 0);
        for (number, line) in text.split_inclusive('\n').enumerate() {
            if !line.ends_with('\n') {
                break;
            }
            let row = serde_json::from_str(line);
            rows.push(row.map_err(|e| Error::malformed(&path, format!("line {}: {e}", number + 1)))?);
            whole += line.len() as u64;
        }
        file.truncate(whole)?;
        check_judge(&path, &rows, judge)?;
        Ok(Self { file, rows })
    }

    /// Takes the verdicts that were there when the journal was opened.
    pub(crate) fn take_rows(&mut self) -> Vec<Annotated> {
        std::mem::take(&mut self.rows)
    }

    /// Adds a verdict, on disk when this returns.
    pub(crate) fn append(&mut self, row: &Annotated) -> Result<()> {
        let line = serde_json::to_string(row).expect("texts and numbers can always be written as JSON") + "\n";
        self.file.append(line.as_bytes())?;
        Ok(self.file.sync()?)
    }

    /// Deletes the journal, once the output is there.
    pub(crate) fn remove(self) -> Result<()> {
        Ok(self.file.remove()?)
    }
}

fn check_judge(path: &Path, rows: &[Annotated], judge: &str) -> Result<()> {
    match rows.iter().find(|row| row.annotator != judge) {
        None => Ok(()),
        Some(other) => {
            let found = &other.annotator;
            let text = format!("verdicts of `{found}`, expected those of `{judge}`; remove the file to start again");
            Err(Error::malformed(path, text))
        }
    }
}
