//! The user's cache folder.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::system;
use crate::temporary::Sibling;

/// The folder for everything that can be made or fetched again: `$SIMPLEMIX_CACHE`, else `simplemix` in the user's cache
/// folder, which is `$XDG_CACHE_HOME` where that is an absolute path, else `~/Library/Caches` on macOS and `~/.cache`
/// everywhere else. It need not exist yet.
///
/// # Errors
/// [`Error::NoCacheFolder`] if none of the variables is set.
pub fn cache_dir() -> Result<PathBuf> {
    find(std::env::consts::OS, |name| std::env::var_os(name).filter(|value| !value.is_empty()))
        .ok_or(Error::NoCacheFolder)
}

/// The folder `part` of [`cache_dir`].
///
/// # Errors
/// See [`cache_dir`].
pub fn cache_dir_for(part: &str) -> Result<PathBuf> {
    Ok(cache_dir()?.join(part))
}

/// Makes a folder, and tries whether files can be made in it.
///
/// # Errors
/// [`Error::Cache`] for a folder in [`cache_dir`], which says how to move that; [`Error::Unwritable`] for another.
pub fn open_dir(folder: impl AsRef<Path>) -> Result<()> {
    let folder = folder.as_ref();
    let reason = match system::create_dir_all(folder) {
        Ok(()) => Sibling::of(&folder.join("probe")).map(drop).map_err(|error| error.to_string()),
        Err(Error::Io { source, .. }) => Err(source.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let path = folder.to_path_buf();
    reason.map_err(|reason| match cache_dir() {
        Ok(cache) if folder.starts_with(&cache) => Error::Cache { path, reason },
        _ => Error::Unwritable { path, reason },
    })
}

fn find(system: &str, variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    if let Some(folder) = variable("SIMPLEMIX_CACHE") {
        return std::path::absolute(folder).ok();
    }
    let home = || variable("HOME").map(PathBuf::from);
    let base = match variable("XDG_CACHE_HOME").map(PathBuf::from).filter(|folder| folder.is_absolute()) {
        Some(folder) => folder,
        None if system == "macos" => home()?.join("Library/Caches"),
        None => home()?.join(".cache"),
    };
    Some(base.join("simplemix"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(system: &str, variables: &[(&str, &str)]) -> Option<PathBuf> {
        find(system, |name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value)))
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        open_dir(dir.path().join("a/b")).unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        let error = open_dir(dir.path().join("file/tokens")).unwrap_err();
        assert!(error.is_input() && error.to_string().contains("file/tokens: cannot be written: not a dir"), "{error}");
        assert_eq!(std::fs::read_dir(dir.path().join("a/b")).unwrap().count(), 0);
    }

    // The cases of xtask/src/cache.rs, which has a copy without dependencies.
    #[test]
    fn cache_folder_follows_the_platform() {
        let home = ("HOME", "/home/u");
        let xdg = ("XDG_CACHE_HOME", "/x");
        assert_eq!(folder("linux", &[home]), Some("/home/u/.cache/simplemix".into()));
        assert_eq!(folder("macos", &[home]), Some("/home/u/Library/Caches/simplemix".into()));
        assert_eq!(folder("linux", &[home, xdg]), Some("/x/simplemix".into()));
        assert_eq!(folder("macos", &[home, xdg]), Some("/x/simplemix".into()));
        assert_eq!(folder("linux", &[home, ("XDG_CACHE_HOME", "x")]), Some("/home/u/.cache/simplemix".into()));
        assert_eq!(folder("linux", &[home, xdg, ("SIMPLEMIX_CACHE", "/c")]), Some("/c".into()));
        assert_eq!(folder("linux", &[]), None);
    }
}
