//! The crate's one error type.

use std::io;
use std::path::{Path, PathBuf};

use crate::lock::Holder;

/// A file operation that failed. Each variant is something that a caller can tell apart.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system refused an operation.
    #[error("{path}: {}: {source}", failed_to(action), path = path.display())]
    Io {
        /// File or folder, under its final name.
        path: PathBuf,
        /// Operation that failed, as a verb: `create`, `write`, `sync`, `rename`, `read`, `lock`, `remove`.
        action: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// A file or folder of this name exists, and was not to be replaced.
    #[error("{path}: exists already", path = path.display())]
    Exists {
        /// The name that is taken.
        path: PathBuf,
    },
    /// An output that cannot be made, as is known before any work.
    #[error("{path}: cannot be written: {reason}; choose another place for it, or mend this one", path = path.display())]
    Unwritable {
        /// The output.
        path: PathBuf,
        /// The system's answer, or what is there already.
        reason: String,
    },
    /// The cache folder cannot be written.
    #[error(
        "{path}: cannot be written: {reason}; it is in the cache folder: mend it, or set the environment variable \
         SIMPLEMIX_CACHE to another folder",
        path = path.display()
    )]
    Cache {
        /// The folder.
        path: PathBuf,
        /// The system's answer.
        reason: String,
    },
    /// Another process, or another part of this one, holds the lock.
    #[error("{path}: in use by {}", holder.as_ref().map_or_else(|| "another process".to_owned(), ToString::to_string), path = path.display())]
    Locked {
        /// The lock file, or the file that is locked.
        path: PathBuf,
        /// Process that holds it, if it could be read.
        holder: Option<Box<Holder>>,
    },
    /// A file differs from the checksum that was kept of it.
    #[error("{path}: damaged: {problem}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Difference from what was written.
        problem: String,
    },
    /// A model folder without weights.
    #[error("{path}: no *.safetensors in it, expected a model folder with weights", path = path.display())]
    NoWeights {
        /// The folder.
        path: PathBuf,
    },
    /// No environment variable says where the user's cache folder is.
    #[error("no cache folder: neither SIMPLEMIX_CACHE nor HOME is set")]
    NoCacheFolder,
}

impl Error {
    /// Whether the names that the caller gave are at fault, not a disk that refuses a change to work that has begun.
    ///
    /// ```
    /// use simplemix_files::{create_dir_all, hash_file};
    /// assert!(hash_file("no/such/file").unwrap_err().is_input());
    /// assert!(!create_dir_all("/proc/none").unwrap_err().is_input());
    /// ```
    pub fn is_input(&self) -> bool {
        match self {
            Self::Io { action, .. } => *action == "read",
            Self::Damaged { .. } => false,
            _ => true,
        }
    }
}

/// Words for an operation of the system that failed, as verb: `cannot read`, or `writing failed (sync)`.
pub fn failed_to(action: &str) -> String {
    match action {
        "create" | "write" | "sync" | "rename" | "remove" | "lock" | "set permissions" => {
            format!("writing failed ({action})")
        }
        _ => format!("cannot {action}"),
    }
}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Adds path and action to an error of the system.
pub(crate) trait At<T> {
    fn at(self, path: &Path, action: &'static str) -> Result<T>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, path: &Path, action: &'static str) -> Result<T> {
        self.map_err(|source| Error::Io { path: path.to_path_buf(), action, source })
    }
}
