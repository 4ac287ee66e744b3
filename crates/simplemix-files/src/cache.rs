//! The user's cache folder.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::error::{Error, Result};

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
