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
    /// of which a kill or a loss of power left parts, which need not be text, is removed.
    pub(crate) fn open(output: &Path, judge: &str) -> Result<Self> {
        let unnamed = || std::io::Error::new(std::io::ErrorKind::InvalidInput, "it names no file");
        let name = output.file_name().ok_or_else(unnamed).at(output, "write")?.to_string_lossy();
        let path = output.with_file_name(format!(".{name}.partial"));
        let mut file = AppendFile::open_locked(&path)?;
        let mut bytes = Vec::new();
        let mut reader = file.reader();
        reader.read_to_end(&mut bytes).at(&path, "read")?;
        let (mut rows, mut whole) = (Vec::new(), 0);
        for (number, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
            let end = whole + line.len();
            match serde_json::from_slice(line) {
                Ok(row) if line.ends_with(b"\n") => rows.push(row),
                Err(e) if end < bytes.len() => {
                    return Err(Error::malformed(&path, format!("line {}: {e}", number + 1)));
                }
                _ => break,
            }
            whole = end;
        }
        file.truncate(whole as u64)?;
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

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn row(instruction: &str) -> Annotated {
        Annotated {
            instruction: instruction.to_owned(),
            output_1: "a".to_owned(),
            generator_1: "base".to_owned(),
            dataset: None,
            output_2: "b".to_owned(),
            generator_2: "model".to_owned(),
            annotator: "judge".to_owned(),
            preference: Some(1.5),
            prompt_tokens: 1,
            completion_tokens: 2,
            raw_completion: Value::Null,
        }
    }

    #[test]
    fn parts_of_a_last_line_are_removed_and_of_another_named() {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("a.json");
        let partial = dir.path().join(".a.json.partial");
        Journal::open(&output, "judge").unwrap().append(&row("é")).unwrap();
        let whole = std::fs::read(&partial).unwrap();
        let torn = whole.iter().position(|byte| *byte > 0x7f).unwrap();
        let zeros = [&vec![0; whole.len() / 2], &whole[whole.len() / 2..]].concat();
        for left in [&whole[..torn + 1], &zeros, &vec![0; whole.len()], b"{}\n"] {
            std::fs::OpenOptions::new().append(true).open(&partial).unwrap().write_all(left).unwrap();
            assert_eq!(Journal::open(&output, "judge").unwrap().take_rows(), [row("é")]);
            assert_eq!(std::fs::read(&partial).unwrap(), whole);
        }
        std::fs::write(&partial, [zeros, whole].concat()).unwrap();
        let error = Journal::open(&output, "judge").err().unwrap().to_string();
        assert!(error.contains("line 1: "), "{error}");
    }
}
