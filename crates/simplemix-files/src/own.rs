//! Everything temporary that this process has on disk, so that a signal that ends it leaves nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::temporary::remove_workshop;

/// Temporary files, with none, and folders, with the folder that they are to become.
static ALL: Mutex<BTreeMap<PathBuf, Option<PathBuf>>> = Mutex::new(BTreeMap::new());

fn all() -> MutexGuard<'static, BTreeMap<PathBuf, Option<PathBuf>>> {
    ALL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes something temporary until it is dropped.
#[derive(Debug)]
pub(crate) struct Own(PathBuf);

impl Own {
    /// Notes a file.
    pub(crate) fn file(path: &Path) -> Self {
        Self::new(path, None)
    }

    /// Notes the sibling of the folder `target`.
    pub(crate) fn folder(path: &Path, target: &Path) -> Self {
        Self::new(path, std::path::absolute(target).ok())
    }

    fn new(path: &Path, target: Option<PathBuf>) -> Self {
        // The process may change its folder.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        all().insert(path.clone(), target);
        Self(path)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        all().remove(&self.0);
    }
}

/// Removes the temporary files and folders and the lock files of this process, which is to end now: from here on, threads
/// that begin or end a file wait for ever.
///
/// For the handler of a signal, in a thread of its own.
pub fn remove_temporaries() {
    let all = all();
    for (path, target) in all.iter() {
        // A file that cannot be removed now is removed by the next writer of the same name.
        let _ = match target {
            Some(target) => remove_workshop(path, target),
            None => fs::remove_file(path),
        };
    }
    std::mem::forget(all);
}
