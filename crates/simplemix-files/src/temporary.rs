//! Hidden siblings in which files and folders are made, and what dead processes have left of them.
//!
//! A sibling of `NAME` is called `.NAME.simplemix-` and eight letters or digits. The sibling of a file is a file that its
//! process keeps locked. The sibling of a folder is a folder with a locked file `lock` and, beside that, `new` (the folder
//! being made), `old` (the one that it replaces, for a moment) or `gone` (one that is being deleted). A sibling whose lock
//! can be taken belongs to no living process.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tempfile::TempPath;

use crate::error::{At, Result};
use crate::own::{Making, Own};
use crate::system::{self, parent};

pub(crate) const MARK: &str = ".simplemix-";
const LETTERS: usize = 8;
pub(crate) const LOCK: &str = "lock";
const NEW: &str = "new";
const OLD: &str = "old";
const GONE: &str = "gone";

/// The file or folder that `path` means, behind a symbolic link if it is one.
pub(crate) fn target(path: &Path) -> io::Result<PathBuf> {
    if path.file_name().is_none() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it names no file or folder"));
    }
    // A link that leads nowhere is replaced itself.
    Ok(if path.is_symlink() { path.canonicalize().unwrap_or_else(|_| path.to_path_buf()) } else { path.to_path_buf() })
}

/// A new locked sibling of a file; deleted when dropped.
#[derive(Debug)]
pub(crate) struct Sibling {
    pub(crate) file: File,
    path: TempPath,
    _own: Own,
}

impl Sibling {
    /// Makes the sibling of `target`, empty.
    pub(crate) fn of(target: &Path) -> io::Result<Self> {
        Self::for_the_sake_of(target, target)
    }

    /// Makes the sibling of `target`, as an operation on `path`.
    pub(crate) fn for_the_sake_of(path: &Path, target: &Path) -> io::Result<Self> {
        system::create(path, || {
            loop {
                let made = builder(&prefix(target)).make_in(parent(target), |path| {
                    let mut making = Making::begin();
                    Ok((new_file(path)?, making.file(path)))
                })?;
                let ((file, own), path) = made.into_parts();
                if hold(&file)? {
                    return Ok(Self { file, path, _own: own });
                }
            }
        })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps it, since it has another name now.
    pub(crate) fn keep(self) -> io::Result<()> {
        self.path.keep().map(drop).map_err(|error| error.error)
    }
}

fn builder(prefix: &OsStr) -> tempfile::Builder<'_, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix).rand_bytes(LETTERS);
    builder
}

fn prefix(target: &Path) -> OsString {
    let mut prefix = OsString::from(".");
    prefix.push(target.file_name().unwrap_or_default());
    prefix.push(MARK);
    prefix
}

fn new_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).open(path)
}

/// Locks a file that was just made; false if a process that took it for a leftover was faster.
fn hold(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Ok(false),
        // On a file system without locks nobody takes it for a leftover.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(file.metadata()?.nlink() > 0),
    }
}

/// Another name for the content of a file that is about to be replaced; deleted when dropped.
#[derive(Debug)]
pub(crate) struct Kept {
    path: TempPath,
    _lock: File,
    _own: Own,
}

impl Kept {
    /// Links `target` under the name of a sibling, where the file system has links.
    pub(crate) fn of(target: &Path) -> io::Result<Self> {
        // Held, so that nobody takes the sibling for a leftover.
        let lock = File::open(target)?;
        let _ = lock.try_lock();
        let made = builder(&prefix(target)).make_in(parent(target), |path| {
            let mut making = Making::begin();
            fs::hard_link(target, path)?;
            Ok(making.file(path))
        })?;
        let (own, path) = made.into_parts();
        Ok(Self { path, _lock: lock, _own: own })
    }

    /// The other name.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// A new locked sibling of a folder; deleted when dropped.
#[derive(Debug)]
pub(crate) struct Workshop {
    folder: PathBuf,
    _lock: File,
    _own: Own,
}

impl Workshop {
    /// Makes the sibling of `target`, empty.
    pub(crate) fn beside(target: &Path) -> io::Result<Self> {
        system::create(target, || {
            loop {
                let made = builder(&prefix(target)).make_in(parent(target), |path| {
                    let mut making = Making::begin();
                    fs::create_dir(path)?;
                    Ok(making.folder(path, target))
                })?;
                let (own, made) = made.into_parts();
                let folder = made.keep().map_err(|error| error.error)?;
                match new_file(&folder.join(LOCK)) {
                    Ok(lock) if hold(&lock)? => return Ok(Self { folder, _lock: lock, _own: own }),
                    Ok(_) => {}
                    // A process that took it for a leftover has put its lock there, or has removed it.
                    Err(error) if [io::ErrorKind::AlreadyExists, io::ErrorKind::NotFound].contains(&error.kind()) => {}
                    Err(error) => {
                        fs::remove_dir(&folder)?;
                        return Err(error);
                    }
                }
            }
        })
    }

    /// Place of the folder being made.
    pub(crate) fn new_folder(&self) -> PathBuf {
        self.folder.join(NEW)
    }

    /// Place of the folder being replaced.
    pub(crate) fn old_folder(&self) -> PathBuf {
        self.folder.join(OLD)
    }

    /// Place of a folder being deleted.
    pub(crate) fn gone_folder(&self) -> PathBuf {
        self.folder.join(GONE)
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        // The next writer of the same name tries again.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Removes hidden siblings in `folder` that killed processes have left, whatever they were to become, and puts back a
/// folder whose replacement was cut off between two renames. Siblings of living processes stay, and so does what cannot
/// be removed.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io) if the folder cannot be listed.
pub fn remove_leftovers(folder: impl AsRef<Path>) -> Result<()> {
    let folder = folder.as_ref();
    each_sibling(folder, &|_| true).at(folder, "list")
}

/// Removes those of one file or folder. A folder that cannot be listed has none that could be removed.
pub(crate) fn remove_leftovers_of(target: &Path) {
    let _ = each_sibling(parent(target), &|name| Some(name) == target.file_name());
}

fn each_sibling(folder: &Path, wanted: &dyn Fn(&OsStr) -> bool) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if let Some(name) = name_of_target(&entry.file_name()).filter(|name| wanted(name)) {
            // The next call tries again.
            let _ = remove_if_dead(&entry.path(), &folder.join(name), entry.file_type()?.is_dir());
        }
    }
    Ok(())
}

/// `NAME` of `.NAME.simplemix-XXXXXXXX`.
pub(crate) fn name_of_target(sibling: &OsStr) -> Option<OsString> {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let bytes = sibling.as_bytes().strip_prefix(b".")?;
    let (front, letters) = bytes.split_at_checked(bytes.len().checked_sub(LETTERS)?)?;
    let name = front.strip_suffix(MARK.as_bytes()).filter(|name| !name.is_empty())?;
    letters.iter().all(u8::is_ascii_alphanumeric).then(|| OsString::from_vec(name.to_vec()))
}

/// Removes a sibling of no living process; false if there is one.
pub(crate) fn remove_if_dead(sibling: &Path, target: &Path, is_folder: bool) -> io::Result<bool> {
    let lock_path = if is_folder { sibling.join(LOCK) } else { sibling.to_path_buf() };
    // A folder without a lock file was left a moment after it was made; its maker, if it lives, sees the file.
    let lock = OpenOptions::new().read(true).write(true).create(is_folder).truncate(false).open(lock_path)?;
    if lock.try_lock().is_err() {
        return Ok(false);
    }
    if is_folder { remove_workshop(sibling, target) } else { fs::remove_file(sibling) }.map(|()| true)
}

/// Removes the sibling of a folder, and puts a folder back that was moved aside and has no successor.
pub(crate) fn remove_workshop(sibling: &Path, target: &Path) -> io::Result<()> {
    if holds_old(sibling, target) {
        fs::rename(sibling.join(OLD), target)?;
    }
    fs::remove_dir_all(sibling)
}

/// Whether a sibling holds the old folder, and no other has its name.
pub(crate) fn holds_old(sibling: &Path, target: &Path) -> bool {
    sibling.join(OLD).is_dir() && target.symlink_metadata().is_err()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Names in a folder, hidden ones too, in order.
    pub(crate) fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn names_of_siblings_are_known() {
        let name = |text: &str| name_of_target(OsStr::new(text)).map(|name| name.into_string().unwrap());
        assert_eq!(name(".a.parquet.simplemix-0aB9xyzw"), Some("a.parquet".into()));
        assert_eq!(name("..x.simplemix-0aB9xyzw"), Some(".x".into()));
        assert_eq!(name(".a.simplemix-0aB9xyz"), None);
        assert_eq!(name(".a.simplemix-0aB9xyz-"), None);
        assert_eq!(name("a.simplemix-0aB9xyzw"), None);
        assert_eq!(name(".simplemix-0aB9xyzw"), None);
        assert_eq!(name(".a"), None);
    }

    #[test]
    fn what_the_dead_leave_is_removed_and_what_the_living_hold_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a");
        let living = (Sibling::of(&target).unwrap(), Workshop::beside(&target).unwrap());
        let before = names(dir.path());
        fs::write(dir.path().join(".a.simplemix-deadbeef"), "x").unwrap();
        fs::create_dir_all(dir.path().join(".a.simplemix-deadf00d/new")).unwrap();
        fs::write(dir.path().join(".a.simplemix-deadf00d/lock"), "").unwrap();
        fs::create_dir(dir.path().join(".a.simplemix-deadcafe")).unwrap();
        fs::write(dir.path().join(".b.simplemix-deadbeef"), "x").unwrap();
        remove_leftovers_of(&target);
        assert_eq!(names(dir.path()).len(), before.len() + 1, "that of `b` stays");
        remove_leftovers(dir.path()).unwrap();
        assert_eq!(names(dir.path()), before);
        drop(living);
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn a_folder_that_was_moved_aside_is_put_back_if_its_successor_never_came() {
        let dir = tempfile::tempdir().unwrap();
        let sibling = dir.path().join(".a.simplemix-deadf00d");
        fs::create_dir_all(sibling.join("old")).unwrap();
        fs::write(sibling.join("old/file"), "kept").unwrap();
        fs::create_dir_all(sibling.join("new")).unwrap();
        remove_leftovers(dir.path()).unwrap();
        assert_eq!(names(dir.path()), ["a"]);
        assert_eq!(fs::read_to_string(dir.path().join("a/file")).unwrap(), "kept");
        // With a successor, it goes.
        fs::create_dir_all(sibling.join("old")).unwrap();
        remove_leftovers(dir.path()).unwrap();
        assert_eq!(names(dir.path()), ["a"]);
        assert_eq!(names(&dir.path().join("a")), ["file"]);
    }
}
