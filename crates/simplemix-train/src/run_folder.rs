//! The folder of a run: resolved settings, metrics, checkpoints, the resulting model.
//!
//! ```text
//! config.toml      settings as they were resolved
//! metrics.jsonl    one line an update or evaluation
//! checkpoints/     step-N/: weights, moments, progress
//! model/           the result, a Hugging Face folder
//! ```
//!
//! A checkpoint is written beside its place and renamed, so whatever has the name is whole.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use crate::error::{At, Error, Result};
use crate::learner::Learner;
use crate::metrics::Record;
use crate::progress::Progress;

const METRICS: &str = "metrics.jsonl";
const PROGRESS: &str = "progress.json";
/// Folders that are being written.
const PARTIAL: &[u8] = b".saving-";

/// A run's folder on disk.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
}

impl RunFolder {
    /// Makes the folder of a new run.
    ///
    /// # Errors
    /// [`Error::Io`] if it holds a run already or cannot be written.
    pub fn create(path: &Path) -> Result<Self> {
        if path.join(METRICS).exists() || path.join("model").exists() {
            let exists = std::io::Error::new(
                std::io::ErrorKind::AlreadyExists,
                "it holds a run already; resume it, or choose another folder",
            );
            return Err(exists).at(path, "start a run here");
        }
        std::fs::create_dir_all(path).at(path, "create")?;
        let folder = Self { path: path.to_owned() };
        folder.tidy()?;
        Ok(folder)
    }

    /// Opens the folder of a run that was stopped.
    ///
    /// # Errors
    /// [`Error::Io`] if there is none.
    pub fn open(path: &Path) -> Result<Self> {
        std::fs::metadata(path.join(METRICS)).at(path, "resume: no metrics.jsonl in it")?;
        let folder = Self { path: path.to_owned() };
        folder.tidy()?;
        Ok(folder)
    }

    /// Removes what a run that was killed had half written.
    fn tidy(&self) -> Result<()> {
        for folder in [self.path.clone(), self.path.join("checkpoints")] {
            let Ok(entries) = std::fs::read_dir(&folder) else { continue };
            for entry in entries {
                let path = entry.at(&folder, "read")?.path();
                let is_partial = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(PARTIAL));
                if is_partial && path.is_dir() {
                    std::fs::remove_dir_all(&path).at(&path, "remove")?;
                }
            }
        }
        Ok(())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the resulting model goes.
    pub fn model(&self) -> PathBuf {
        self.path.join("model")
    }

    /// Writes `text` under `name`, whole or not at all.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.path.join(name);
        let mut builder = tempfile::Builder::new();
        // Temporary files are private by default; a run's are as readable as any other.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let mut file = builder.tempfile_in(&self.path).at(&path, "write")?;
        file.write_all(text.as_bytes()).and_then(|()| file.as_file().sync_all()).at(&path, "write")?;
        file.persist(&path).map_err(|e| e.error).at(&path, "write")?;
        Ok(())
    }

    /// Opens `metrics.jsonl` for further lines, after those of the first `step` updates; later ones are cut off.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn metrics(&self, step: u64) -> Result<MetricsFile> {
        let path = self.path.join(METRICS);
        let kept = match File::open(&path) {
            Ok(file) => kept_bytes(file, step).at(&path, "read")?,
            Err(_) => 0,
        };
        let file = OpenOptions::new().create(true).append(true).open(&path).at(&path, "write")?;
        file.set_len(kept).at(&path, "write")?;
        Ok(MetricsFile { path, file })
    }

    /// Writes a checkpoint and removes all but the newest `keep` and the one of the best evaluation.
    ///
    /// # Errors
    /// [`Error::Io`] or what the learner reports; earlier checkpoints are then untouched.
    pub fn save_checkpoint(&self, learner: &impl Learner, progress: &Progress, keep: usize) -> Result<PathBuf> {
        let folder = self.path.join("checkpoints");
        std::fs::create_dir_all(&folder).at(&folder, "create")?;
        let place = folder.join(format!("step-{}", progress.step));
        let temporary = tempfile::Builder::new().prefix(".saving-").tempdir_in(&folder).at(&folder, "write")?;
        learner.save(temporary.path())?;
        let path = temporary.path().join(PROGRESS);
        let text = serde_json::json!(progress).to_string();
        std::fs::write(&path, text).and_then(|()| File::open(&path)?.sync_all()).at(&path, "write")?;
        if place.exists() {
            std::fs::remove_dir_all(&place).at(&place, "replace")?;
        }
        std::fs::rename(temporary.path(), &place).at(&place, "write")?;
        let _ = temporary.keep();
        let best = progress.best.map(|best| best.step);
        for step in outdated(&self.checkpoints()?, keep).iter().filter(|step| Some(**step) != best) {
            let old = folder.join(format!("step-{step}"));
            std::fs::remove_dir_all(&old).at(&old, "remove")?;
        }
        Ok(place)
    }

    /// Updates after which there is a checkpoint, in order.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn checkpoints(&self) -> Result<Vec<u64>> {
        let folder = self.path.join("checkpoints");
        let mut steps = Vec::new();
        if folder.is_dir() {
            for entry in std::fs::read_dir(&folder).at(&folder, "read")? {
                let name = entry.at(&folder, "read")?.file_name();
                steps.extend(name.to_str().and_then(|n| n.strip_prefix("step-")?.parse::<u64>().ok()));
            }
        }
        steps.sort_unstable();
        Ok(steps)
    }

    /// Folder of the checkpoint after `step` updates.
    pub fn checkpoint(&self, step: u64) -> PathBuf {
        self.path.join("checkpoints").join(format!("step-{step}"))
    }

    /// Takes up the newest checkpoint; none where there is none.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::State`] or what the learner reports.
    pub fn restore(&self, learner: &mut impl Learner) -> Result<Option<Progress>> {
        let Some(step) = self.checkpoints()?.pop() else {
            return Ok(None);
        };
        let folder = self.checkpoint(step);
        let path = folder.join(PROGRESS);
        let text = std::fs::read_to_string(&path).at(&path, "read")?;
        let progress = serde_json::from_str(&text)
            .map_err(|e| Error::Config { path, message: format!("not a checkpoint's progress: {e}") })?;
        learner.restore(&folder)?;
        Ok(Some(progress))
    }
}

/// Which of `steps` go when only the newest `keep` (at least one) stay.
fn outdated(steps: &[u64], keep: usize) -> &[u64] {
    &steps[..steps.len().saturating_sub(keep.max(1))]
}

/// Length of the lines up to the last of update `step`.
fn kept_bytes(file: File, step: u64) -> std::io::Result<u64> {
    #[derive(serde::Deserialize)]
    struct Line {
        step: u64,
    }
    let (mut reader, mut kept, mut line) = (BufReader::new(file), 0, String::new());
    loop {
        line.clear();
        let read = reader.read_line(&mut line)?;
        let whole = line.ends_with('\n');
        match serde_json::from_str::<Line>(&line) {
            Ok(parsed) if whole && parsed.step <= step => kept += read as u64,
            _ => return Ok(kept),
        }
    }
}

/// `metrics.jsonl`, open at its end.
#[derive(Debug)]
pub struct MetricsFile {
    path: PathBuf,
    file: File,
}

impl MetricsFile {
    /// Appends a line.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn append(&mut self, record: &Record) -> Result<()> {
        let line = serde_json::json!(record).to_string() + "\n";
        self.file.write_all(line.as_bytes()).at(&self.path, "write")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resumed_run_drops_the_lines_of_lost_updates() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(&dir.path().join("run")).unwrap();
        let mut metrics = folder.metrics(0).unwrap();
        for step in 1..=3 {
            metrics.append(&Record { step, values: vec![("loss".into(), 0.5)] }).unwrap();
        }
        // A line cut off by a crash goes too.
        metrics.file.write_all(br#"{"step":4,"lo"#).unwrap();
        let mut metrics = folder.metrics(2).unwrap();
        metrics.append(&Record { step: 3, values: Vec::new() }).unwrap();
        let text = std::fs::read_to_string(folder.path().join(METRICS)).unwrap();
        assert_eq!(text, "{\"step\":1,\"loss\":0.5}\n{\"step\":2,\"loss\":0.5}\n{\"step\":3}\n");
    }

    #[test]
    fn a_folder_with_a_run_is_not_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(dir.path()).unwrap();
        folder.metrics(0).unwrap();
        let error = RunFolder::create(dir.path()).unwrap_err();
        assert!(error.to_string().contains("cannot start a run here"), "{error}");
    }

    #[test]
    fn the_newest_checkpoints_stay() {
        assert_eq!(outdated(&[10, 20, 30], 2), [10]);
        assert_eq!(outdated(&[10, 20, 30], 0), [10, 20]);
        assert!(outdated(&[10], 3).is_empty());
    }
}
