//! Failures between a model folder and its numbers.

use std::path::PathBuf;

use tch::TchError;

/// Why a model could not be read, run or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file that a model folder must have is not there.
    #[error(
        "{folder}: no `{file}` here; expected a Hugging Face model folder (config.json, tokenizer.json, *.safetensors)"
    )]
    MissingFile {
        /// The folder that was given.
        folder: PathBuf,
        /// The file that it lacks.
        file: &'static str,
    },
    /// A path that was given as a model is something else.
    #[error("{path}: {found}; {advice}")]
    NotAModel {
        /// The path.
        path: PathBuf,
        /// The thing that is there.
        found: String,
        /// The way to a model.
        advice: String,
    },
    /// Reading or writing a file failed.
    #[error("{path}: {}", simplemix_files::failed_to(action))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Action as a verb: `read`, `write`, `map`.
        action: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A JSON file of the folder is not what it should be.
    #[error("{path}: not valid: {source}")]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why the parser stopped.
        source: serde_json::Error,
    },
    /// `config.json` asks for something that this crate does not compute.
    #[error("{path}: `{key}` is {found}, expected {expected}")]
    Config {
        /// The file.
        path: PathBuf,
        /// The key in it.
        key: String,
        /// The value found.
        found: String,
        /// The supported values.
        expected: String,
    },
    /// A safetensors file is damaged or cut off.
    #[error("{path}: not a readable safetensors file: {reason}")]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// Contradiction between the header and the file's contents.
        reason: String,
    },
    /// The tensors in the files are not those that `config.json` describes.
    #[error("{folder}: the weights do not fit config.json: {problems}")]
    Weights {
        /// The model folder.
        folder: PathBuf,
        /// Every missing, unexpected or misshapen tensor.
        problems: String,
    },
    /// The folder of a multimodal model no longer holds the parts that a saved model is to have from it.
    #[error(
        "{folder}: the parts of the model beside its text are to be copied from here, and cannot be: {reason}; put the folder back \
         as it was when it was loaded, and try again"
    )]
    Gone {
        /// The model folder.
        folder: PathBuf,
        /// The thing that is missing.
        reason: String,
    },
    /// The input of a forward pass is out of range.
    #[error("{what} is {found}, expected {expected}")]
    Input {
        /// Name of the value.
        what: &'static str,
        /// The value given.
        found: String,
        /// The allowed values.
        expected: String,
    },
    /// There is no such folder, and the hub did not give such a model.
    #[error("{id}: no such folder, and not to be had from the Hugging Face hub: {reason}")]
    Hub {
        /// The model asked for.
        id: String,
        /// Message of the hub's client.
        reason: String,
    },
    /// Nothing could be pushed to the hub.
    #[error("{repository}: cannot be pushed to the Hugging Face hub: {reason}")]
    Push {
        /// The repository.
        repository: String,
        /// Answer of the hub, or what is missing.
        reason: String,
    },
    /// A file or folder could not be written, or exists already.
    #[error(transparent)]
    Files(#[from] simplemix_files::Error),
    /// libtorch refused a call that tch lacks.
    #[error(transparent)]
    Native(#[from] simplemix_torch::Error),
    /// libtorch refused an operation.
    #[error("libtorch failed while {doing}")]
    Torch {
        /// The computation.
        doing: &'static str,
        /// libtorch's message.
        source: TchError,
    },
}

/// Results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Whether tokens, lengths or the device that were asked for are at fault, as opposed to files or a failure.
    pub fn is_request(&self) -> bool {
        matches!(self, Self::Input { .. } | Self::Native(simplemix_torch::Error::Device { .. }))
    }
}

/// Says what libtorch was doing when it failed.
pub(crate) trait Doing<T> {
    /// Wraps libtorch's error with what was being done.
    fn doing(self, doing: &'static str) -> Result<T>;
}

impl<T> Doing<T> for std::result::Result<T, TchError> {
    fn doing(self, doing: &'static str) -> Result<T> {
        self.map_err(|source| Error::Torch { doing, source })
    }
}

/// Says which file an IO error belongs to.
pub(crate) trait At<T> {
    /// Wraps an IO error with its path and what was tried.
    fn at(self, path: &std::path::Path, action: &'static str) -> Result<T>;
}

impl<T> At<T> for std::io::Result<T> {
    fn at(self, path: &std::path::Path, action: &'static str) -> Result<T> {
        self.map_err(|source| Error::Io { path: path.to_owned(), action, source })
    }
}
