//! Why a GGUF file could not be imported or exported.

use std::path::PathBuf;

/// Errors of the importer and the exporter.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GgufError {
    /// Reading or writing failed.
    #[error("{path}: {}", simplemix_files::failed_to(action))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Action as a verb.
        action: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file is not GGUF, cut off or damaged.
    #[error("{path}: byte {offset}: {found}, expected {expected}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// The bytes found.
        found: String,
        /// The bytes expected.
        expected: String,
    },
    /// The model or its tokenizer is of a kind that is not read.
    #[error("{path}: `{key}` is {found}, expected {expected}")]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// Metadata key or tensor.
        key: String,
        /// The value found.
        found: String,
        /// The values that can be read.
        expected: String,
    },
    /// The tensors are not those of the model that the metadata describes.
    #[error("{path}: tensors do not fit the metadata: {problems}")]
    Tensors {
        /// The file.
        path: PathBuf,
        /// Tensors that are missing, left over or of a wrong shape.
        problems: String,
    },
    /// The model folder cannot be read.
    #[error(transparent)]
    Model(#[from] Box<crate::Error>),
    /// The output could not be written, or exists already.
    #[error(transparent)]
    Files(#[from] simplemix_files::Error),
}

impl From<crate::Error> for GgufError {
    fn from(error: crate::Error) -> Self {
        Self::Model(Box::new(error))
    }
}

impl GgufError {
    /// Whether the file, or the name of the output, is at fault, not a disk that refuses what is written.
    pub fn is_input(&self) -> bool {
        match self {
            Self::Io { action, .. } => ["read", "map"].contains(action),
            Self::Files(error) => error.is_input(),
            Self::Damaged { .. } | Self::Unsupported { .. } | Self::Tensors { .. } | Self::Model(_) => true,
        }
    }
}

/// Results of the importer.
pub(super) type Result<T> = std::result::Result<T, GgufError>;
