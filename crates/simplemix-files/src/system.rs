//! The operations that change the disk. Everything in the crate goes through these, so that a test can count them and
//! make any one of them fail.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::error::{At, Result};

/// Kinds of operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Write,
    Sync,
    Rename,
    Remove,
}

/// Counts an operation, and fails in its place if a test says so.
#[cfg(all(feature = "faults", debug_assertions))]
fn before(operation: Operation, path: &Path) -> io::Result<()> {
    crate::faults::before(operation, path)
}

#[cfg(not(all(feature = "faults", debug_assertions)))]
#[inline]
fn before(_operation: Operation, _path: &Path) -> io::Result<()> {
    Ok(())
}

/// Folder that holds `path`.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Opens or makes a file with `open`.
pub(crate) fn create<T>(path: &Path, open: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    before(Operation::Create, path)?;
    open()
}

/// Writes some bytes and returns how many.
pub(crate) fn write(mut file: &File, path: &Path, bytes: &[u8]) -> io::Result<usize> {
    if let Err(error) = before(Operation::Write, path) {
        // A disk that runs full takes a part.
        file.write_all(&bytes[..bytes.len() / 2])?;
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
    before(Operation::Write, path)?;
    file.set_len(length)
}

/// Waits until a file is on disk.
pub(crate) fn sync(file: &File, path: &Path) -> io::Result<()> {
    before(Operation::Sync, path)?;
    file.sync_all()
}

/// Waits until the names in `folder` are on disk, for the sake of `path`. File systems that look after that themselves
/// refuse, which is fine.
pub(crate) fn sync_folder(folder: &Path, path: &Path) -> io::Result<()> {
    before(Operation::Sync, path)?;
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        Err(error) if is_any(&error, &[Errno::INVAL, Errno::BADF, Errno::NOTSUP, Errno::ACCESS, Errno::PERM]) => Ok(()),
        result => result,
    }
}

/// Renames a file or folder with `rename`.
pub(crate) fn rename<T, E: From<io::Error>>(path: &Path, rename: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    before(Operation::Rename, path)?;
    rename()
}

/// Gives `from` the name `to` if that is free; else the error's kind is `AlreadyExists`.
pub(crate) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    before(Operation::Rename, to)?;
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE).map_err(io::Error::from) {
        Err(error) if lacks_flags(&error) => {
            if to.symlink_metadata().is_ok() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            fs::rename(from, to)
        }
        result => result,
    }
}

/// Exchanges two names in one step; false where the file system cannot.
pub(crate) fn exchange(one: &Path, other: &Path) -> io::Result<bool> {
    before(Operation::Rename, other)?;
    match renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).map_err(io::Error::from) {
        Err(error) if lacks_flags(&error) => Ok(false),
        result => result.map(|()| true),
    }
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
    match before(Operation::Remove, path).and_then(|()| fs::remove_file(path)) {
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
        assert!(error.contains("file: cannot create: "), "{error}");
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
