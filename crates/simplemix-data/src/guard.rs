//! Turns panics of the Parquet and Arrow readers and of the tokenizer on damaged files into errors.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Runs `read`, and returns [`Error::Damaged`] if it panics.
pub(crate) fn guarded<T>(path: &Path, read: impl FnOnce() -> Result<T>) -> Result<T> {
    // State that a panic leaves inconsistent is owned by `read` or, in `Guarded`, never used again.
    let damaged = |message| Err(Error::Damaged { path: path.to_path_buf(), message });
    simplemix_files::guarded(read).unwrap_or_else(damaged)
}

/// An iterator that ends with [`Error::Damaged`] if the inner one panics, and after any error.
pub(crate) struct Guarded<I> {
    inner: Option<I>,
    path: PathBuf,
}

impl<I> Guarded<I> {
    pub(crate) fn new(inner: I, path: &Path) -> Self {
        Self { inner: Some(inner), path: path.to_path_buf() }
    }
}

impl<T, I: Iterator<Item = Result<T>>> Iterator for Guarded<I> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut inner = self.inner.take()?;
        match guarded(&self.path, || Ok((inner.next().transpose()?, inner))) {
            Ok((item, inner)) => {
                self.inner = Some(inner);
                item.map(Ok)
            }
            Err(error) => Some(Err(error)),
        }
    }
}
