//! Files that grow: journals, metrics, events.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{At, Error, Result};
use crate::lock::Lock;
use crate::system;

/// A file open at its end, for one writer at a time.
///
/// # Examples
/// ```
/// use simplemix_files::AppendFile;
///
/// # let dir = tempfile::tempdir()?;
/// let path = dir.path().join("metrics.jsonl");
/// let mut file = AppendFile::open(&path)?;
/// file.append(b"{\"step\":1}\n")?;
/// file.append(b"{\"step\":2}\n")?;
/// file.truncate(11)?;
/// file.sync()?;
/// assert_eq!(std::fs::read_to_string(&path)?, "{\"step\":1}\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct AppendFile {
    path: PathBuf,
    file: File,
    length: u64,
    /// Whether bytes of an append that failed follow after `length`.
    torn: bool,
    /// Whether the file's name is on disk.
    named: AtomicBool,
    _lock: Option<Lock>,
}

impl AppendFile {
    /// Opens a file, made if it is not there.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_at(path.as_ref())
    }

    fn open_at(path: &Path) -> Result<Self> {
        let open = || OpenOptions::new().read(true).append(true).create(true).open(path);
        let file = system::create(path, open).at(path, "create")?;
        let found = file.metadata().at(path, "read")?;
        crate::input::check(found.file_type()).at(path, "read")?;
        let length = found.len();
        // Nobody knows whether an earlier process waited for the name of one that is there.
        let named = AtomicBool::new(false);
        Ok(Self { path: path.to_path_buf(), file, length, torn: false, named, _lock: None })
    }

    /// Like [`AppendFile::open`], holding the [`Lock`] of the file `NAME.lock` beside it.
    ///
    /// # Errors
    /// [`Error::Locked`] if another process has opened it so, [`Error::Io`].
    pub fn open_locked(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_locked_at(path.as_ref())
    }

    fn open_locked_at(path: &Path) -> Result<Self> {
        let mut name = path.as_os_str().to_owned();
        name.push(".lock");
        let lock = Lock::acquire(Path::new(&name)).map_err(|error| match error {
            Error::Locked { holder, .. } => Error::Locked { path: path.to_path_buf(), holder },
            error => error,
        })?;
        Ok(Self { _lock: Some(lock), ..Self::open(path)? })
    }

    /// The file's name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether it holds no bytes.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The file, to read from; seeking in it does not change where [`AppendFile::append`] writes.
    pub fn reader(&self) -> &File {
        &self.file
    }

    /// Adds `bytes` at the end. If that fails, what was written of them is cut off again, at the latest by the next call.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        if self.torn {
            self.truncate(self.length)?;
        }
        if let Err(error) = system::write_all(&self.file, &self.path, bytes) {
            self.torn = self.file.set_len(self.length).is_err();
            return Err(error).at(&self.path, "write");
        }
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Keeps the first `length` bytes only.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn truncate(&mut self, length: u64) -> Result<()> {
        let length = length.min(self.length);
        system::set_len(&self.file, &self.path, length).at(&self.path, "write")?;
        (self.length, self.torn) = (length, false);
        Ok(())
    }

    /// Waits until everything is on disk, the file's name too.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn sync(&self) -> Result<()> {
        system::sync(&self.file, &self.path).at(&self.path, "sync")?;
        if !self.named.load(Ordering::Relaxed) {
            system::sync_folder(system::parent(&self.path), &self.path).at(&self.path, "sync")?;
            self.named.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Deletes the file.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn remove(self) -> Result<()> {
        system::remove_file(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appends_go_to_the_end_whatever_is_read() {
        use std::io::{Read, Seek, SeekFrom};
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j");
        AppendFile::open(&path).unwrap().append(b"one ").unwrap();
        let mut file = AppendFile::open(&path).unwrap();
        let mut text = String::new();
        file.reader().seek(SeekFrom::Start(1)).unwrap();
        file.reader().read_to_string(&mut text).unwrap();
        file.reader().seek(SeekFrom::Start(0)).unwrap();
        file.append(b"two").unwrap();
        assert_eq!((text.as_str(), file.len()), ("ne ", 7));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one two");
        file.remove().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_locked_file_is_open_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j");
        let file = AppendFile::open_locked(&path).unwrap();
        let error = AppendFile::open_locked(&path).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}: in use by ", path.display())), "{error}");
        drop(file);
        AppendFile::open_locked(&path).unwrap().remove().unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
