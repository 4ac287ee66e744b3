//! `metrics.jsonl` of a run that goes on: what was added since the last look.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::failure::{Fails, Failure, Result};

/// Metrics of a run, read as far as the file goes.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    path: PathBuf,
    read: u64,
    /// Points of each metric.
    pub(super) curves: BTreeMap<String, Vec<(f64, f64)>>,
    /// Last update.
    pub(super) step: u64,
}

/// Most bytes that are read at a time.
const CHUNK: u64 = 64 << 20;

impl Metrics {
    /// Reads the lines that were added to the file since the last call. A file that became shorter, as that of a run which was
    /// resumed from a checkpoint does, or another file is read anew.
    pub(super) fn read(&mut self, path: &Path) -> Result {
        let mut file =
            File::open(path).map_err(|error| Failure::input(format!("{}: cannot open: {error}", path.display())))?;
        let length = file.metadata().input()?.len();
        if self.path != path || length < self.read {
            *self = Self { path: path.to_owned(), ..Self::default() };
        }
        while self.read < length {
            file.seek(SeekFrom::Start(self.read)).input()?;
            let mut text = Vec::new();
            Read::by_ref(&mut file).take(CHUNK).read_to_end(&mut text).input()?;
            // The last line may not be whole yet.
            let Some(whole) = text.iter().rposition(|byte| *byte == b'\n') else { break };
            for line in text[..whole].split(|byte| *byte == b'\n') {
                if !self.add(line) {
                    // An update that is no later than the last one: the run was resumed between two looks.
                    *self = Self { path: path.to_owned(), ..Self::default() };
                    return self.read(path);
                }
            }
            self.read += whole as u64 + 1;
        }
        Ok(())
    }

    /// Adds a line; false if it is of an earlier update than the last.
    fn add(&mut self, line: &[u8]) -> bool {
        let Ok(values) = serde_json::from_slice::<BTreeMap<String, Option<f64>>>(line) else { return true };
        let Some(step) = values.get("step").copied().flatten() else { return true };
        if self.read > 0 && (step as u64) < self.step {
            return false;
        }
        self.step = step as u64;
        for (name, value) in values {
            if let Some(value) = value.filter(|_| name != "step") {
                self.curves.entry(name).or_default().push((step, value));
            }
        }
        true
    }

    /// The last value of a metric.
    pub(super) fn last(&self, name: &str) -> Option<f64> {
        self.curves.get(name)?.last().map(|(_, value)| *value)
    }

    /// Mean of the last `count` values of a metric.
    pub(super) fn recent(&self, name: &str, count: usize) -> Option<f64> {
        let points = self.curves.get(name)?;
        let tail = &points[points.len().saturating_sub(count)..];
        (!tail.is_empty()).then(|| tail.iter().map(|(_, value)| value).sum::<f64>() / tail.len() as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_once_and_a_resumed_run_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let mut metrics = Metrics::default();
        let line = |step: u32| format!("{{\"step\":{step},\"loss\":{},\"x\":null}}\n", f64::from(step) / 8.0);
        std::fs::write(&path, line(1) + &line(2) + "{\"step\":3,\"lo").unwrap();
        metrics.read(&path).unwrap();
        assert_eq!((metrics.step, metrics.curves["loss"].len(), metrics.last("loss")), (2, 2, Some(0.25)));
        std::fs::write(&path, line(1) + &line(2) + &line(3) + &line(4)).unwrap();
        metrics.read(&path).unwrap();
        assert_eq!((metrics.step, metrics.curves["loss"].len(), metrics.recent("loss", 2)), (4, 4, Some(0.4375)));
        std::fs::write(&path, line(1) + &line(2)).unwrap();
        metrics.read(&path).unwrap();
        assert_eq!((metrics.step, metrics.curves["loss"].len()), (2, 2), "shorter than before");
        std::fs::write(&path, line(1) + &line(2) + &line(2) + &line(1)).unwrap();
        metrics.read(&path).unwrap();
        assert!(!metrics.curves.contains_key("x"));
    }
}
