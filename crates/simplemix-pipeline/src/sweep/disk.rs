//! Disk space of a sweep, and the models that it does without.

use std::path::{Path, PathBuf};

use simplemix_files::remove_folder;

use crate::error::Result;
use crate::plan::{Job, Stage};

/// Parts of a training's folder that go when its model is not kept; metrics, settings and report stay.
const LARGE: [&str; 3] = ["model", "checkpoints", "adapter"];

/// Bytes of the files below a folder; links are not followed, and what cannot be read counts nothing.
pub(super) fn bytes_below(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let size = |entry: std::fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => bytes_below(&entry.path()),
        Ok(kind) if kind.is_file() => entry.metadata().map_or(0, |found| found.len()),
        _ => 0,
    };
    entries.filter_map(std::result::Result::ok).map(size).sum()
}

/// Removes the model and the checkpoints of a training. The stage counts as not done from then on, so that whoever needs its model
/// trains it again.
pub(super) fn remove_model(stage: &Stage) -> Result<()> {
    let Job::Train(config) = &stage.job else { return Ok(()) };
    let Some(run) = config.output.as_deref().filter(|run| run.join("model").is_dir()) else { return Ok(()) };
    stage.undo()?;
    let large: Vec<PathBuf> = LARGE.iter().map(|name| run.join(name)).filter(|path| path.is_dir()).collect();
    Ok(large.iter().try_for_each(remove_folder)?)
}

/// Removes a link that leads nowhere.
pub(super) fn remove_dead_link(link: &Path) -> Result<()> {
    match link.is_symlink() && !link.exists() {
        true => Ok(simplemix_files::remove_file(link)?),
        false => Ok(()),
    }
}
