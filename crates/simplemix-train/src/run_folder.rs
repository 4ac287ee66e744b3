//! The folder of a run: resolved settings, metrics, checkpoints, the resulting model.
//!
//! ```text
//! config.toml      settings as they were resolved
//! identity.json    what the updates follow from, compared when the run is resumed
//! notices.json     facts that the user should read, if there are any
//! metrics.jsonl    one line an update or evaluation
//! checkpoints/     step-N/: weights, optimiser state, progress, checksums.json
//! model/           the result, a Hugging Face folder
//! finished.json    updates of the run, once all of the result is written
//! run.lock         held by the process that trains
//! ```
//!
//! Files and checkpoints are written by simplemix-files: what has its final name is whole and on disk. Older checkpoints
//! are deleted only after that.

use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use simplemix_files::secret::storable;
use simplemix_files::{AppendFile, AtomicFolder, Lock, create_dir_all, remove_folder, remove_leftovers};

use crate::error::{At, Error, Result};
use crate::learner::Learner;
use crate::metrics::Record;
use crate::progress::Progress;

const METRICS: &str = "metrics.jsonl";
const CHECKPOINTS: &str = "checkpoints";
const PROGRESS: &str = "progress.json";
const FINISHED: &str = "finished.json";
const NOTICES: &str = "notices.json";

/// A run's folder on disk.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
}

impl RunFolder {
    /// Whether a run was started in the folder `path`, so that it can be resumed.
    pub fn is_started(path: &Path) -> bool {
        path.join(METRICS).exists()
    }

    /// Metrics of the run, a line for every update and evaluation.
    pub fn metrics_file(&self) -> PathBuf {
        self.path.join(METRICS)
    }

    /// Creates the folder of a new run.
    ///
    /// # Errors
    /// [`Error::RunExists`] if the folder holds a run; [`Error::Files`] if it cannot be created.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        if Self::is_started(path) || path.join("model").exists() {
            return Err(Error::RunExists { path: path.to_owned() });
        }
        create_dir_all(path)?;
        Ok(Self { path: path.to_owned() })
    }

    /// Opens the folder of a run that was stopped.
    ///
    /// # Errors
    /// [`Error::NoRun`] if the folder holds no run.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        if !Self::is_started(path) {
            return Err(Error::NoRun { path: path.to_owned() });
        }
        Ok(Self { path: path.to_owned() })
    }

    /// The folder of a run that another process of the team has made or opened.
    pub(crate) fn beside(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Keeps other processes from training in the folder until the result is dropped, and removes unfinished files of a
    /// process that was killed.
    ///
    /// # Errors
    /// [`Error::Files`] if another process trains in it.
    pub(crate) fn lock(&self) -> Result<Lock> {
        let lock = Lock::acquire(self.path.join("run.lock"))?;
        for folder in [self.path.clone(), self.path.join(CHECKPOINTS)].iter().filter(|folder| folder.is_dir()) {
            remove_leftovers(folder)?;
        }
        Ok(lock)
    }

    /// Path of the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Path of the resulting model.
    pub fn model(&self) -> PathBuf {
        self.path.join("model")
    }

    /// Path of the trained adapter, where one is trained.
    pub fn adapter(&self) -> PathBuf {
        self.path.join("adapter")
    }

    /// Writes `text` under `name`, whole or not at all.
    ///
    /// # Errors
    /// [`Error::Files`].
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<()> {
        Ok(simplemix_files::write(self.path.join(name), storable(text))?)
    }

    /// Facts about the run that its user should read.
    ///
    /// # Errors
    /// [`Error::Io`] if `notices.json` cannot be read.
    pub fn notices(&self) -> Result<Vec<String>> {
        Ok(self.read_json(NOTICES)?.unwrap_or_default())
    }

    /// The JSON of the file `name`; `None` if there is no such file.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read or holds something else.
    pub(crate) fn read_json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let path = self.path.join(name);
        match simplemix_files::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            text => serde_json::from_str(&text.at(&path, "read")?).map_err(std::io::Error::from).at(&path, "read"),
        }
    }

    /// Adds a notice, unless it is kept already.
    ///
    /// # Errors
    /// Errors of [`RunFolder::notices`]; [`Error::Files`].
    pub(crate) fn add_notice(&self, text: &str) -> Result<()> {
        let mut notices = self.notices()?;
        if !notices.iter().any(|kept| kept == text) {
            notices.push(text.to_owned());
            self.write(NOTICES, &format!("{:#}\n", serde_json::json!(notices)))?;
        }
        Ok(())
    }

    /// Marks the run as finished after `steps` updates.
    ///
    /// # Errors
    /// [`Error::Files`].
    pub(crate) fn finish(&self, steps: u64) -> Result<()> {
        self.write(FINISHED, &format!("{}\n", serde_json::json!({ "steps": steps })))
    }

    /// Updates of the run, if it is finished and its model is there.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn finished(&self) -> Result<Option<u64>> {
        if !self.model().is_dir() {
            return Ok(None);
        }
        let mark: Option<serde_json::Value> = self.read_json(FINISHED)?;
        Ok(mark.and_then(|mark| mark["steps"].as_u64()))
    }

    /// Takes the mark of [`RunFolder::finish`] away.
    ///
    /// # Errors
    /// [`Error::Files`].
    pub(crate) fn unfinish(&self) -> Result<()> {
        Ok(simplemix_files::remove_file(self.path.join(FINISHED))?)
    }

    /// Opens `metrics.jsonl` after the lines of the first `step` updates; later lines are cut off.
    ///
    /// # Errors
    /// [`Error::Files`] and [`Error::Io`].
    pub(crate) fn metrics(&self, step: u64) -> Result<MetricsFile> {
        let path = self.metrics_file();
        let mut file = AppendFile::open(&path)?;
        let kept = kept_bytes(file.reader(), step).at(&path, "read")?;
        file.truncate(kept)?;
        Ok(MetricsFile { file })
    }

    /// Lines of `metrics.jsonl` from a byte on.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn records(&self, first_byte: u64) -> Result<Vec<Record>> {
        let path = self.metrics_file();
        let mut file = std::fs::File::open(&path).at(&path, "read")?;
        file.seek(SeekFrom::Start(first_byte)).at(&path, "read")?;
        let lines = serde_json::Deserializer::from_reader(BufReader::new(file)).into_iter();
        lines.map(|line| line.map_err(std::io::Error::from).at(&path, "read")).collect()
    }

    /// Saves a checkpoint, then deletes all but the newest `keep` and the one of the best evaluation.
    ///
    /// # Errors
    /// [`Error::Files`] and errors of the learner. Earlier checkpoints are untouched until the new one is on disk.
    pub(crate) fn save_checkpoint(&self, learner: &impl Learner, progress: &Progress, keep: usize) -> Result<()> {
        create_dir_all(self.path.join(CHECKPOINTS))?;
        let checkpoint = AtomicFolder::create(self.checkpoint(progress.step))?;
        learner.save(checkpoint.path())?;
        checkpoint.write(PROGRESS, serde_json::json!(progress).to_string())?;
        checkpoint.write_checksums()?;
        checkpoint.commit()?;
        self.delete_outdated(progress, keep)
    }

    /// Deletes all checkpoints but the newest `keep` and the one of the best evaluation.
    fn delete_outdated(&self, progress: &Progress, keep: usize) -> Result<()> {
        let best = progress.best.map(|best| best.step);
        for step in outdated(&self.checkpoints()?, keep).iter().filter(|step| Some(**step) != best) {
            remove_folder(self.checkpoint(*step))?;
        }
        Ok(())
    }

    /// Numbers of updates after which there is a checkpoint, in order.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn checkpoints(&self) -> Result<Vec<u64>> {
        let folder = self.path.join(CHECKPOINTS);
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
        self.path.join(CHECKPOINTS).join(format!("step-{step}"))
    }

    /// Restores the newest whole checkpoint, if there is one, and deletes those that a stopped run should have deleted.
    /// Newer ones that are damaged are kept under the name `step-N.damaged` and passed to `notice`.
    ///
    /// # Errors
    /// [`Error::NoWholeCheckpoint`], [`Error::Io`], [`Error::State`] and errors of the learner.
    pub(crate) fn restore(
        &self,
        learner: &mut impl Learner,
        keep: usize,
        notice: &mut dyn FnMut(&str) -> Result<()>,
    ) -> Result<Option<Progress>> {
        let mut damaged = Vec::new();
        for step in self.checkpoints()?.into_iter().rev() {
            match self.check(step) {
                Ok(()) => {
                    let progress = self.restore_step(learner, step)?;
                    for (step, damage) in damaged {
                        self.set_aside(step)?;
                        notice(&format!(
                            "{damage}; the checkpoint is kept as step-{step}.damaged, and the run goes on after update {}",
                            progress.step
                        ))?;
                    }
                    self.delete_outdated(&progress, keep)?;
                    return Ok(Some(progress));
                }
                Err(Error::Files(damage @ simplemix_files::Error::Damaged { .. })) => damaged.push((step, damage)),
                Err(error) => return Err(error),
            }
        }
        if damaged.is_empty() {
            return Ok(None);
        }
        let damage: Vec<String> = damaged.into_iter().map(|(_, damage)| damage.to_string()).collect();
        Err(Error::NoWholeCheckpoint { path: self.path.clone(), damage: damage.join("; ") })
    }

    /// Compares a checkpoint with its checksums. One of version 0.1 has none, and passes.
    ///
    /// # Errors
    /// [`Error::Files`] if it is damaged.
    pub(crate) fn check(&self, step: u64) -> Result<()> {
        simplemix_files::check_folder(self.checkpoint(step))?;
        Ok(())
    }

    /// Restores the checkpoint after `step` updates.
    ///
    /// # Errors
    /// As [`RunFolder::restore`].
    pub(crate) fn restore_step(&self, learner: &mut impl Learner, step: u64) -> Result<Progress> {
        let folder = self.checkpoint(step);
        let path = folder.join(PROGRESS);
        let text = simplemix_files::read_to_string(&path).at(&path, "read")?;
        let progress = serde_json::from_str(&text)
            .map_err(|e| Error::Config { path, message: format!("not the progress of a checkpoint: {e}") })?;
        learner.restore(&folder)?;
        Ok(progress)
    }

    fn set_aside(&self, step: u64) -> Result<()> {
        let aside = self.path.join(CHECKPOINTS).join(format!("step-{step}.damaged"));
        remove_folder(&aside)?;
        Ok(simplemix_files::rename_folder(self.checkpoint(step), aside)?)
    }
}

/// Checkpoints to delete so that only the newest `keep` (at least one) stay.
fn outdated(steps: &[u64], keep: usize) -> &[u64] {
    &steps[..steps.len().saturating_sub(keep.max(1))]
}

/// Length of the lines up to the last one of update `step`.
fn kept_bytes(file: impl Read, step: u64) -> std::io::Result<u64> {
    #[derive(serde::Deserialize)]
    struct Line {
        step: u64,
    }
    let (mut reader, mut kept, mut line) = (BufReader::new(file), 0, Vec::new());
    loop {
        line.clear();
        // A loss of power may leave bytes that are no text.
        let read = reader.read_until(b'\n', &mut line)?;
        let is_whole = line.ends_with(b"\n");
        match serde_json::from_slice::<Line>(&line) {
            Ok(parsed) if is_whole && parsed.step <= step => kept += read as u64,
            _ => return Ok(kept),
        }
    }
}

/// `metrics.jsonl`, open at its end.
#[derive(Debug)]
pub(crate) struct MetricsFile {
    file: AppendFile,
}

impl MetricsFile {
    /// Length in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.file.len()
    }

    /// Appends a line.
    ///
    /// # Errors
    /// [`Error::Files`].
    pub(crate) fn append(&mut self, record: &Record) -> Result<()> {
        let line = serde_json::json!(record).to_string() + "\n";
        Ok(self.file.append(line.as_bytes())?)
    }

    /// Waits until all lines are on disk.
    ///
    /// # Errors
    /// [`Error::Files`].
    pub(crate) fn sync(&self) -> Result<()> {
        Ok(self.file.sync()?)
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
        metrics.file.append(b"{\"step\":4,\"lo\xff").unwrap();
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
        assert!(error.to_string().ends_with("holds a run; resume it, or choose another folder"), "{error}");
        let _lock = folder.lock().unwrap();
        let error = RunFolder::open(dir.path()).unwrap().lock().unwrap_err();
        assert!(error.to_string().contains("run.lock: in use by process "), "{error}");
    }

    #[test]
    fn the_newest_checkpoints_stay() {
        assert_eq!(outdated(&[10, 20, 30], 2), [10]);
        assert_eq!(outdated(&[10, 20, 30], 0), [10, 20]);
        assert!(outdated(&[10], 3).is_empty());
    }
}
