//! Record of a run, `run.json` in its folder, by which a sweep that is started again finds what was done.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use simplemix_files::secret::storable;

use crate::error::{Error, Result};

/// Outcome of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum RunState {
    /// Done, with the metrics of its last training and evaluation.
    Done {
        /// Metrics by name.
        metrics: BTreeMap<String, f64>,
    },
    /// Stopped by an error.
    Failed {
        /// The error and its causes.
        message: String,
        /// Whether settings or files of the user are at fault.
        is_input: bool,
    },
    /// Not done, for a reason.
    LeftOut {
        /// Reason.
        reason: String,
    },
    /// Not begun yet.
    ToDo,
}

/// Record of a run that was begun.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Keys of the run's stages, which everything in the run follows from.
    pub(super) keys: Vec<String>,
    /// Seconds of the call that ended the run.
    pub(super) seconds: f64,
    #[serde(flatten)]
    pub(super) state: RunState,
}

const FILE: &str = "run.json";

impl Record {
    /// The record of a run that is done with these keys.
    pub(super) fn done(folder: &Path, keys: &[String]) -> Option<Self> {
        let text = simplemix_files::read_to_string(folder.join(FILE)).ok()?;
        let record: Self = serde_json::from_str(&text).ok()?;
        (record.keys == keys && matches!(record.state, RunState::Done { .. })).then_some(record)
    }

    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).map_err(|error| Error::serialise("a run")(&error))?;
        simplemix_files::create_dir_all(folder)?;
        Ok(simplemix_files::write(folder.join(FILE), storable(&(text + "\n")))?)
    }
}

/// An error and its causes in one line.
pub(super) fn said(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let said = inner.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_found_again_by_its_keys_only_if_it_is_done() {
        let dir = tempfile::tempdir().unwrap();
        let keys = vec!["a".to_owned(), "b".to_owned()];
        let done = RunState::Done { metrics: [("score".to_owned(), 0.5)].into() };
        let record = Record { keys: keys.clone(), seconds: 2.0, state: done };
        record.write(dir.path()).unwrap();
        assert_eq!(Record::done(dir.path(), &keys), Some(record.clone()));
        assert_eq!(Record::done(dir.path(), &keys[..1]), None);
        let failed = RunState::Failed { message: "no".to_owned(), is_input: true };
        Record { state: failed, ..record }.write(dir.path()).unwrap();
        assert_eq!(Record::done(dir.path(), &keys), None);
    }
}
