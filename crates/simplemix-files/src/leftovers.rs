//! Everything that killed processes have left below a folder: hidden siblings and lock files.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{At, Result};
use crate::lock;
use crate::temporary::{self, LOCK, MARK};

/// Something temporary that no living process owns.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leftover {
    /// File or folder.
    pub path: PathBuf,
    /// Bytes of it and of everything inside.
    pub bytes: u64,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// A hidden sibling of this file or folder.
    Sibling { target: PathBuf, is_folder: bool },
    /// A lock file.
    Lock,
}

/// Finds what killed processes have left in `folder` and everywhere below; symbolic links are not followed. Nothing is
/// changed. Each folder that cannot be listed is passed to `unread`.
///
/// Journals of unfinished work (`.NAME.partial`) are no leftovers: the same command continues them.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io) if `folder` itself cannot be listed.
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir()?;
/// std::fs::write(dir.path().join(".out.parquet.simplemix-0aB9xyzw"), [0; 100])?;
/// std::fs::write(dir.path().join("notes.txt"), "mine")?;
/// let found = simplemix_files::leftovers(dir.path(), &mut |error| panic!("{error}"))?;
/// assert_eq!((found.len(), found[0].bytes), (1, 100));
/// assert!(found[0].remove()?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn leftovers(folder: impl AsRef<Path>, unread: &mut dyn FnMut(crate::Error)) -> Result<Vec<Leftover>> {
    let mut found = Vec::new();
    search(folder.as_ref(), &mut found, unread)?;
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn search(folder: &Path, found: &mut Vec<Leftover>, unread: &mut dyn FnMut(crate::Error)) -> Result<()> {
    for entry in fs::read_dir(folder).at(folder, "list")? {
        let entry = entry.at(folder, "list")?;
        let (path, Ok(kind)) = (entry.path(), entry.file_type()) else { continue };
        if let Some(target) = temporary::name_of_target(&entry.file_name()).filter(|_| kind.is_dir() || kind.is_file())
        {
            let (target, is_folder) = (folder.join(target), kind.is_dir());
            if is_free(&if is_folder { path.join(LOCK) } else { path.clone() }) {
                found.push(Leftover { bytes: size(&path), path, kind: Kind::Sibling { target, is_folder } });
            }
        } else if kind.is_dir() {
            search(&path, found, unread).unwrap_or_else(&mut *unread);
        } else if kind.is_file() && is_lock(&path) && is_free(&path) {
            found.push(Leftover { bytes: size(&path), path, kind: Kind::Lock });
        }
    }
    Ok(())
}

/// Whether a file is a lock of this crate: by its name, or by its ending and the process that it names.
fn is_lock(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    let is_marked = name.starts_with(b".") && name.ends_with(format!("{MARK}{LOCK}").as_bytes());
    is_marked || (name.ends_with(b".lock") && lock::holder(path).is_some())
}

/// Whether no process holds the lock of a file. On a file system without locks nobody can tell.
fn is_free(path: &Path) -> bool {
    match File::open(path) {
        Ok(file) => file.try_lock().is_ok(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

fn size(path: &Path) -> u64 {
    let Ok(found) = path.symlink_metadata() else { return 0 };
    match found.is_dir() {
        true => fs::read_dir(path).into_iter().flatten().flatten().map(|entry| size(&entry.path())).sum(),
        false => found.len(),
    }
}

impl Leftover {
    /// Folder whose replacement was cut off between two renames: the leftover holds the old one, which
    /// [`Leftover::remove`] puts back.
    pub fn puts_back(&self) -> Option<&Path> {
        match &self.kind {
            Kind::Sibling { target, is_folder: true } if temporary::holds_old(&self.path, target) => Some(target),
            _ => None,
        }
    }

    /// Removes it, unless a process has taken it in the meantime; whether it is gone.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if it cannot be removed.
    pub fn remove(&self) -> Result<bool> {
        let removed = match &self.kind {
            Kind::Sibling { target, is_folder } => temporary::remove_if_dead(&self.path, target, *is_folder),
            // Taken and given back, which removes the file.
            Kind::Lock => match lock::Lock::acquire(&self.path) {
                Ok(lock) => {
                    drop(lock);
                    Ok(!self.path.exists())
                }
                Err(crate::Error::Locked { .. }) => Ok(false),
                Err(error) => return Err(error),
            },
        };
        match removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            removed => removed.at(&self.path, "remove"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::temporary::tests::names;
    use crate::{AppendFile, AtomicFile, AtomicFolder, Claim, Lock};

    fn found(folder: &Path) -> Vec<String> {
        let found = leftovers(folder, &mut |error| panic!("{error}")).unwrap();
        found.iter().map(|left| left.path.strip_prefix(folder).unwrap().display().to_string()).collect()
    }

    #[test]
    fn only_what_no_process_owns_is_found_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("deep/er")).unwrap();
        let text = "process 4000000\nhost far\ncommand gone\n";
        for (name, text) in [
            ("deep/er/.out.simplemix-deadbeef", "half"),
            (".out.simplemix-lock", ""),
            ("deep/.simplemix-lock", text),
            ("deep/run.lock", text),
            ("deep/.lock", text),
            // Not ours, or work that goes on.
            ("Cargo.lock", "[[package]]"),
            ("empty.lock", ""),
            (".out.partial", "{}"),
            (".out.simplemix-notes", "mine"),
            ("out.simplemix-deadbeef", "mine"),
        ] {
            fs::write(at(name), text).unwrap();
        }
        fs::create_dir_all(at("deep/.model.simplemix-deadf00d/new")).unwrap();
        fs::write(at("deep/.model.simplemix-deadf00d/new/weights"), [0; 10]).unwrap();
        std::os::unix::fs::symlink(at("deep"), at("link")).unwrap();
        let _living = (
            AtomicFile::create(at("living")).unwrap(),
            AtomicFolder::create(at("deep/living")).unwrap(),
            Claim::file(at("claimed")).unwrap(),
            Lock::acquire(at("deep/living.lock")).unwrap(),
            AppendFile::open_locked(at("deep/journal")).unwrap(),
        );
        let expected = [
            ".out.simplemix-lock",
            "deep/.lock",
            "deep/.model.simplemix-deadf00d",
            "deep/.simplemix-lock",
            "deep/er/.out.simplemix-deadbeef",
            "deep/run.lock",
        ];
        assert_eq!(found(dir.path()), expected);
        let before = names(dir.path());
        for left in leftovers(dir.path(), &mut |error| panic!("{error}")).unwrap() {
            assert!(left.remove().unwrap(), "{left:?}");
        }
        assert_eq!(found(dir.path()), [""; 0]);
        assert_eq!(names(dir.path()).len(), before.len() - 1);
        assert!(at("Cargo.lock").exists() && at("empty.lock").exists() && at(".out.simplemix-notes").exists());
    }

    #[test]
    fn a_folder_that_was_moved_aside_is_put_back() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join(".a.simplemix-deadf00d/old")).unwrap();
        let found = leftovers(dir.path(), &mut |error| panic!("{error}")).unwrap();
        assert_eq!(found[0].puts_back(), Some(dir.path().join("a").as_path()));
        found[0].remove().unwrap();
        assert_eq!(names(dir.path()), ["a"]);
    }
}
