//! The user's cache folder: where it is, one set-up at a time, and nothing half-written in it.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Temporary folders carry this prefix, so that the next set-up finds those of one cut off.
const PARTIAL: &str = ".partial-";

/// The cache folder, held by this process alone until dropped.
pub(crate) struct Cache {
    root: PathBuf,
    /// The system releases the lock when the process ends, however it ends.
    _lock: File,
}

/// `$SIMPLEMIX_CACHE`, else `simplemix` in the user's cache folder.
pub(crate) fn folder() -> Result<PathBuf> {
    folder_from(env::consts::OS, |name| env::var_os(name).filter(|value| !value.is_empty()))
        .context("neither HOME nor SIMPLEMIX_CACHE is set: no folder for downloads")
}

fn folder_from(os: &str, var: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    if let Some(folder) = var("SIMPLEMIX_CACHE") {
        // Pip and the compiler run in other folders, so a relative path would lose its meaning.
        return std::path::absolute(folder).ok();
    }
    let home = var("HOME").map(PathBuf::from);
    let base = match (os, var("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute())) {
        (_, Some(base)) => base,
        ("macos", None) => home?.join("Library").join("Caches"),
        (_, None) => home?.join(".cache"),
    };
    Some(base.join("simplemix"))
}

impl Cache {
    /// Opens the cache, waits for another set-up to end, and removes what one cut off has left.
    pub(crate) fn open() -> Result<Self> {
        let root = folder()?;
        fs::create_dir_all(&root).with_context(|| format!("cannot make {}", root.display()))?;
        let path = root.join("lock");
        let lock = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                crate::say(format_args!("waiting for another set-up that holds {}", path.display()));
                lock.lock().with_context(|| format!("cannot lock {}", path.display()))?;
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        let cache = Self { root, _lock: lock };
        cache.remove_partial()?;
        Ok(cache)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A new temporary folder beside the final ones; it is removed when dropped.
    pub(crate) fn partial(&self, name: &str) -> Result<Partial> {
        let path = self.root.join(format!("{PARTIAL}{name}"));
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Partial { path })
    }

    fn remove_partial(&self) -> Result<()> {
        let entries = fs::read_dir(&self.root).with_context(|| format!("cannot read {}", self.root.display()))?;
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().starts_with(PARTIAL) {
                let path = entry.path();
                fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
            }
        }
        Ok(())
    }
}

/// A temporary folder on the cache's disk.
pub(crate) struct Partial {
    path: PathBuf,
}

impl Partial {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A folder inside, made if need be.
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // The next set-up removes what is left now.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Moves a finished file or folder to its final name, in place of what is there.
pub(crate) fn publish(from: &Path, to: &Path) -> Result<()> {
    if to.is_dir() {
        fs::remove_dir_all(to).with_context(|| format!("cannot remove {}", to.display()))?;
    }
    fs::rename(from, to).with_context(|| format!("cannot write {}", to.display()))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::path::PathBuf;

    use super::folder_from;

    fn folder(os: &str, vars: &[(&str, &str)]) -> Option<PathBuf> {
        folder_from(os, |name| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value)))
    }

    #[test]
    fn cache_folder_follows_the_platform() {
        let home = ("HOME", "/home/u");
        let xdg = ("XDG_CACHE_HOME", "/x");
        assert_eq!(folder("linux", &[home]), Some("/home/u/.cache/simplemix".into()));
        assert_eq!(folder("macos", &[home]), Some("/home/u/Library/Caches/simplemix".into()));
        assert_eq!(folder("linux", &[home, xdg]), Some("/x/simplemix".into()));
        assert_eq!(folder("linux", &[home, ("XDG_CACHE_HOME", "x")]), Some("/home/u/.cache/simplemix".into()));
        assert_eq!(folder("linux", &[home, xdg, ("SIMPLEMIX_CACHE", "/c")]), Some("/c".into()));
        assert_eq!(folder("linux", &[]), None);
    }
}
