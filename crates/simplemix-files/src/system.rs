//! The operations that change the disk. Everything in the crate goes through these, so that a test can count them and
//! make any one of them fail.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::error::{At, Result};
#[cfg(all(feature = "faults", debug_assertions))]
use crate::faults::disk;

/// Kinds of operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Write,
    Sync,
    Rename,
    Remove,
}

/// Counts an operation, and fails in its place if a test says so. `tear` does a part of it, before the process is killed.
#[cfg(all(feature = "faults", debug_assertions))]
fn before(operation: Operation, path: &Path, tear: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
    crate::faults::before(operation, path, tear)
}

#[cfg(not(all(feature = "faults", debug_assertions)))]
#[inline]
fn before(_operation: Operation, _path: &Path, _tear: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
    Ok(())
}

/// For operations of which no part can be done.
fn whole() -> io::Result<()> {
    Ok(())
}

/// Without tests there is nobody to be told.
#[cfg(not(all(feature = "faults", debug_assertions)))]
mod disk {
    use std::fs::File;
    use std::path::Path;

    pub(super) struct Nothing;

    pub(super) fn writes(_: &File) {}
    pub(super) fn synced(_: &File) {}
    pub(super) fn made(_: &Path) {}
    pub(super) fn synced_folder(_: &Path) {}
    pub(super) fn replaces(_: &Path) -> Nothing {
        Nothing
    }
    pub(super) fn renamed(_: &Path, _: &Path, _: Nothing) {}
    pub(super) fn appeared(_: &Path, _: &Path) {}
    pub(super) fn exchanged(_: &Path, _: &Path) {}
}

/// Folder that holds `path`.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Opens or makes a file with `open`.
pub(crate) fn create<T>(path: &Path, open: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    before(Operation::Create, path, &mut whole)?;
    let is_new = path.symlink_metadata().is_err();
    let made = open()?;
    if is_new && path.is_file() {
        disk::made(path);
    }
    Ok(made)
}

/// Writes some bytes and returns how many.
pub(crate) fn write(mut file: &File, path: &Path, bytes: &[u8]) -> io::Result<usize> {
    disk::writes(file);
    let torn = &bytes[..bytes.len() / 2];
    if let Err(error) = before(Operation::Write, path, &mut || file.write_all(torn)) {
        // A disk that runs full takes a part.
        file.write_all(torn)?;
        return Err(error);
    }
    file.write(bytes)
}

/// Writes all bytes.
pub(crate) fn write_all(file: &File, path: &Path, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match write(file, path, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Sets a file's length.
pub(crate) fn set_len(file: &File, path: &Path, length: u64) -> io::Result<()> {
    disk::writes(file);
    before(Operation::Write, path, &mut whole)?;
    file.set_len(length)
}

/// Waits until a file is on disk.
pub(crate) fn sync(file: &File, path: &Path) -> io::Result<()> {
    before(Operation::Sync, path, &mut whole)?;
    file.sync_all()?;
    disk::synced(file);
    Ok(())
}

/// Waits until the names in `folder` are on disk, for the sake of `path`. File systems that look after that themselves
/// refuse, which is fine.
pub(crate) fn sync_folder(folder: &Path, path: &Path) -> io::Result<()> {
    before(Operation::Sync, path, &mut whole)?;
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        Err(error) if is_any(&error, &[Errno::INVAL, Errno::BADF, Errno::NOTSUP, Errno::ACCESS, Errno::PERM]) => {}
        result => result?,
    }
    disk::synced_folder(folder);
    Ok(())
}

/// Gives `from` the name `to`, in place of a file that has it, for the sake of `path`.
pub(crate) fn rename(from: &Path, to: &Path, path: &Path) -> io::Result<()> {
    before(Operation::Rename, path, &mut whole)?;
    let replaced = disk::replaces(to);
    fs::rename(from, to)?;
    disk::renamed(from, to, replaced);
    Ok(())
}

/// Gives `from` the name `to` if that is free; else the error's kind is `AlreadyExists`.
pub(crate) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    before(Operation::Rename, to, &mut whole)?;
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE).map_err(io::Error::from) {
        Err(error) if lacks_flags(&error) => {
            if to.symlink_metadata().is_ok() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            fs::rename(from, to)?;
        }
        result => result?,
    }
    disk::appeared(from, to);
    Ok(())
}

/// Exchanges two names in one step; false where the file system cannot.
pub(crate) fn exchange(one: &Path, other: &Path) -> io::Result<bool> {
    before(Operation::Rename, other, &mut whole)?;
    match exchange_names(one, other) {
        Err(error) if lacks_flags(&error) => return Ok(false),
        result => result?,
    }
    disk::exchanged(one, other);
    Ok(true)
}

pub(crate) fn exchange_names(one: &Path, other: &Path) -> io::Result<()> {
    Ok(renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?)
}

fn lacks_flags(error: &io::Error) -> bool {
    is_any(error, &[Errno::INVAL, Errno::NOSYS, Errno::NOTSUP])
}

fn is_any(error: &io::Error, known: &[Errno]) -> bool {
    Errno::from_io_error(error).is_some_and(|error| known.contains(&error))
}

/// Makes a folder and those above it, durably. Folders that are there already are left as they are.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io) if one cannot be made.
pub fn create_dir_all(folder: impl AsRef<Path>) -> Result<()> {
    create_all(folder.as_ref())
}

fn create_all(folder: &Path) -> Result<()> {
    let missing: Vec<PathBuf> =
        folder.ancestors().take_while(|f| !f.as_os_str().is_empty() && !f.is_dir()).map(Path::to_path_buf).collect();
    for folder in missing.iter().rev() {
        let made = create(folder, || fs::create_dir(folder));
        match made {
            // Another process was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(io::Error::from(io::ErrorKind::NotADirectory)).at(folder, "create");
            }
            made => made.at(folder, "create")?,
        }
        sync_folder(parent(folder), folder).at(folder, "sync")?;
    }
    Ok(())
}

/// Removes a file; one that is not there is no error.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io) if it cannot be removed.
pub fn remove_file(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    match before(Operation::Remove, path, &mut whole).and_then(|()| fs::remove_file(path)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.at(path, "remove"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a/b/c");
        create_dir_all(&folder).unwrap();
        create_dir_all(&folder).unwrap();
        assert!(folder.is_dir());
        fs::write(dir.path().join("file"), "").unwrap();
        let error = create_dir_all(dir.path().join("file/x")).unwrap_err().to_string();
        assert!(error.ends_with("file: writing failed (create): not a directory"), "{error}");
    }

    #[test]
    fn a_file_that_is_not_there_is_removed_already() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        fs::write(&path, "").unwrap();
        remove_file(&path).unwrap();
        remove_file(&path).unwrap();
        assert!(!path.exists());
    }
}
