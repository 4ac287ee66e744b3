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

/// A note of something temporary, until it is dropped.
#[derive(Debug)]
pub(crate) struct Own(PathBuf);

/// A time in which something temporary is made, or a lock is given back. A signal that ends the process waits for its end, so
/// that it finds what is made with its note, and no note of what is gone.
///
/// No [`Own`] may be dropped in it.
pub(crate) struct Making(MutexGuard<'static, BTreeMap<PathBuf, Option<PathBuf>>>);

impl Making {
    pub(crate) fn begin() -> Self {
        Self(all())
    }

    /// Notes a file.
    pub(crate) fn file(&mut self, path: &Path) -> Own {
        self.note(path, None)
    }

    /// Notes the sibling of the folder `target`.
    pub(crate) fn folder(&mut self, path: &Path, target: &Path) -> Own {
        self.note(path, std::path::absolute(target).ok())
    }

    fn note(&mut self, path: &Path, target: Option<PathBuf>) -> Own {
        // The process may change its folder.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        self.0.insert(path.clone(), target);
        Own(path)
    }

    /// Takes the note away.
    pub(crate) fn gone(&mut self, own: &Own) {
        self.0.remove(&own.0);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Lock;
    use crate::temporary::{Kept, Sibling, Workshop};

    #[test]
    fn nothing_is_made_while_a_signal_clears_up_and_all_that_was_made_is_noted() {
        let dir = tempfile::tempdir().unwrap();
        let [file, folder, lock] = ["file", "folder", "lock"].map(|name| dir.path().join(name));
        fs::write(&file, "x").unwrap();
        let names = || fs::read_dir(dir.path()).unwrap().count();
        // As a signal does.
        let clearing = Making::begin();
        std::thread::scope(|scope| {
            let making = [
                scope.spawn(|| drop(Sibling::of(&file).map(std::mem::forget))),
                scope.spawn(|| drop(Kept::of(&file).map(std::mem::forget))),
                scope.spawn(|| drop(Workshop::beside(&folder).map(std::mem::forget))),
                scope.spawn(|| drop(Lock::acquire(&lock).map(std::mem::forget))),
            ];
            // Whoever does not wait is done within this time, on any machine that is not stopped.
            std::thread::sleep(std::time::Duration::from_millis(100));
            assert_eq!(names(), 1, "something was made beside `file`");
            assert!(making.iter().all(|thread| !thread.is_finished()));
            drop(clearing);
        });
        assert_eq!(names(), 5);
        let noted = all().keys().filter(|path| path.starts_with(dir.path())).count();
        assert_eq!(noted, 4);
    }
}
