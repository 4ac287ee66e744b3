//! Outputs that are checked, and kept from other processes, before work begins.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::lock::{Holder, Lock};
use crate::system::parent;
use crate::temporary::{self, LOCK, MARK, Sibling};

/// An output of this process, until it is dropped.
///
/// Making one finds out whether the output can be made, removes what killed processes have left of it, and holds a
/// [`Lock`]: of a file `NAME`, and of a folder that is put in place as a whole, it is `.NAME.simplemix-lock` beside it; of a
/// folder that is filled in place, `.simplemix-lock` inside. Symbolic links and other spellings of a path lead to one lock.
///
/// # Examples
/// ```
/// use simplemix_files::{Claim, Error};
///
/// # let dir = tempfile::tempdir()?;
/// let output = dir.path().join("out.parquet");
/// let claim = Claim::file(&output)?;
/// assert!(matches!(Claim::file(dir.path().join(".").join("out.parquet")), Err(Error::Locked { .. })));
/// drop(claim);
/// assert!(matches!(Claim::file(dir.path()), Err(Error::Unwritable { .. })));
/// assert!(matches!(Claim::file(dir.path().join("no/folder")), Err(Error::Unwritable { .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Claim {
    // In this order: a folder is not empty while it holds the lock.
    lock: Lock,
    _made: Made,
}

impl Claim {
    /// Claims a file in a folder that exists.
    ///
    /// # Errors
    /// [`Error::Unwritable`] if nothing can be made there, or there is something else than a regular file;
    /// [`Error::Locked`] if another process has claimed it.
    pub fn file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let target = target(path)?;
        check_kind(path, &target)?;
        check_parent(path, &target)?;
        Self::beside(path, &target, Made::default())
    }

    /// Claims a folder that is put in place as a whole, and makes the folders above it.
    ///
    /// # Errors
    /// As [`Claim::file`]; [`Error::Exists`] if there is something of this name.
    pub fn new_folder(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let target = target(path)?;
        if target.symlink_metadata().is_ok() {
            return Err(Error::Exists { path: path.to_path_buf() });
        }
        let made = Made::folder(parent(&target)).map_err(unwritable(path))?;
        Self::beside(path, &target, made)
    }

    /// Claims a folder that is filled in place, and makes it and those above it. Those that are still empty when the claim is
    /// dropped are removed.
    ///
    /// # Errors
    /// As [`Claim::file`].
    pub fn folder(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        check_folder(path, path)?;
        let made = Made::folder(path).map_err(unwritable(path))?;
        let lock = lock(path, &path.join(format!("{MARK}{LOCK}")))?;
        temporary::remove_leftovers(path)?;
        let claim = Self { lock, _made: made };
        probe(path, &path.join("probe"))?;
        Ok(claim)
    }

    /// The process that has claimed a folder to fill it in place, as far as can be told without claiming it; see [`Holder::of`].
    pub fn holder_of_folder(path: impl AsRef<Path>) -> Option<Holder> {
        Holder::of(path.as_ref().join(format!("{MARK}{LOCK}")))
    }

    fn beside(path: &Path, target: &Path, made: Made) -> Result<Self> {
        let lock = lock(path, &target.with_file_name(hidden(target, LOCK)))?;
        temporary::remove_leftovers_of(target);
        let claim = Self { lock, _made: made };
        probe(path, target)?;
        Ok(claim)
    }

    /// Process on another machine that may hold the output too: the file system knows no locks, and a lock file names it.
    pub fn doubt(&self) -> Option<&Holder> {
        self.lock.doubt()
    }
}

/// The folders that a claim has made, from the lowest; removed when dropped if they are empty.
#[derive(Debug, Default)]
struct Made(Vec<PathBuf>);

impl Made {
    /// Makes a folder and those above it.
    fn folder(folder: &Path) -> io::Result<Self> {
        let is_missing = |f: &&Path| !f.as_os_str().is_empty() && f.symlink_metadata().is_err();
        let mut made = Self(Vec::new());
        let missing: Vec<&Path> = folder.ancestors().take_while(is_missing).collect();
        for folder in missing.into_iter().rev() {
            made.0.insert(0, folder.to_path_buf());
            match crate::create_dir_all(folder) {
                Ok(()) => {}
                Err(Error::Io { source, .. }) => return Err(source),
                Err(error) => return Err(io::Error::other(error.to_string())),
            }
        }
        match fs::metadata(folder)?.is_dir() {
            true => Ok(made),
            false => Err(io::ErrorKind::NotADirectory.into()),
        }
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for folder in &self.0 {
            // One that is in use by now stays.
            let _ = fs::remove_dir(folder);
        }
    }
}

fn unwritable<E: std::fmt::Display>(path: &Path) -> impl Fn(E) -> Error {
    move |reason| Error::Unwritable { path: path.to_path_buf(), reason: reason.to_string() }
}

fn target(path: &Path) -> Result<PathBuf> {
    temporary::target(path).map_err(unwritable(path))
}

/// Holds the lock of the output `path`.
fn lock(path: &Path, lock: &Path) -> Result<Lock> {
    Lock::acquire(lock).map_err(|error| match error {
        Error::Locked { holder, .. } => Error::Locked { path: path.to_path_buf(), holder },
        Error::Io { source, .. } => unwritable(path)(source),
        error => error,
    })
}

/// Makes a file as it will be made beside `target`, whose name is longer.
fn probe(path: &Path, target: &Path) -> Result<()> {
    let name = target.with_file_name(hidden(target, "probe"));
    Sibling::for_the_sake_of(&name, target).map(drop).map_err(unwritable(path))
}

/// The name `.NAME.simplemix-PART`.
fn hidden(target: &Path, part: &str) -> OsString {
    let mut name = OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(MARK);
    name.push(part);
    name
}

/// Refuses an output that is there as something else than a regular file.
pub(crate) fn check_kind(path: &Path, target: &Path) -> Result<()> {
    let Ok(found) = fs::metadata(target) else { return Ok(()) };
    let kind = found.file_type();
    let name = match kind {
        _ if kind.is_file() => return Ok(()),
        _ if kind.is_dir() => "folder",
        _ if kind.is_fifo() => "pipe",
        _ if kind.is_socket() => "socket",
        _ => "device",
    };
    Err(unwritable(path)(format!("it is a {name}, expected a file")))
}

/// Refuses an output that is there as something else than a folder.
pub(crate) fn check_folder(path: &Path, target: &Path) -> Result<()> {
    match fs::metadata(target) {
        Ok(found) if !found.is_dir() => Err(unwritable(path)("it is a file, expected a folder")),
        _ => Ok(()),
    }
}

fn check_parent(path: &Path, target: &Path) -> Result<()> {
    let folder = parent(target);
    match fs::metadata(folder) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(unwritable(path)(format!("{} is a file, expected a folder", folder.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(unwritable(path)(format!("there is no folder {}", folder.display())))
        }
        Err(error) => Err(unwritable(path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::temporary::tests::names;

    fn refused(claim: Result<Claim>) -> String {
        let error = claim.unwrap_err();
        assert!(error.is_input());
        error.to_string()
    }

    #[test]
    fn what_cannot_be_made_is_refused_before_work() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "x").unwrap();
        fs::create_dir(at("folder")).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
        for (claim, reason) in [
            (Claim::file(at("folder")), "it is a folder, expected a file"),
            (Claim::file(at("pipe")), "it is a pipe, expected a file"),
            (Claim::file("/dev/null"), "it is a device, expected a file"),
            (Claim::file(at("none/out")), "there is no folder "),
            (Claim::file(at("file/out")), "is a file, expected a folder"),
            (Claim::file(at(&"x".repeat(250))), "name too long"),
            (Claim::folder(at("file")), "it is a file, expected a folder"),
            (Claim::folder(at("file/run")), "Not a directory"),
            (Claim::new_folder(at("file/model")), "Not a directory"),
            (Claim::new_folder(at("folder")), "exists already"),
            (Claim::file(".."), "it names no file or folder"),
        ] {
            let said = refused(claim);
            assert!(said.to_lowercase().contains(&reason.to_lowercase()), "{said}, expected {reason}");
        }
        assert_eq!(names(dir.path()), ["file", "folder", "pipe"]);
    }

    #[test]
    fn one_lock_for_all_spellings_of_a_path() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("real/run")).unwrap();
        fs::write(at("real/out"), "x").unwrap();
        symlink(at("real"), at("link")).unwrap();
        symlink(at("real/out"), at("out-link")).unwrap();
        symlink(at("real/run"), at("run-link")).unwrap();
        let claims = [Claim::file(at("real/out")).unwrap(), Claim::folder(at("real/run")).unwrap()];
        for other in [at("link/out"), at("out-link"), at("real/../real/./out")] {
            assert!(refused(Claim::file(&other)).starts_with(&format!("{}: in use by process ", other.display())));
        }
        for other in [at("link/run"), at("run-link"), at("real/../real/run/")] {
            assert!(refused(Claim::folder(other)).contains(": in use by process "));
        }
        drop(claims);
        Claim::file(at("out-link")).unwrap();
        Claim::folder(at("run-link")).unwrap();
        assert!(names(&at("real")) == ["out", "run"] && names(&at("real/run")).is_empty());
    }

    #[test]
    fn folders_that_stay_empty_are_taken_away_and_leftovers_too() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        drop(Claim::folder(at("a/b/c")).unwrap());
        drop(Claim::new_folder(at("d/model")).unwrap());
        assert!(names(dir.path()).is_empty());
        let claim = Claim::folder(at("a/b")).unwrap();
        fs::write(at("a/b/file"), "").unwrap();
        drop(claim);
        assert_eq!(names(&at("a/b")), ["file"]);
        fs::write(at(".out.simplemix-deadbeef"), "x").unwrap();
        fs::write(at(".out.simplemix-lock"), "process 4000000\nhost far\ncommand gone\n").unwrap();
        drop(Claim::file(at("out")).unwrap());
        assert_eq!(names(dir.path()), ["a"]);
    }
}
