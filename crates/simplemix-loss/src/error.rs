//! Errors of losses and of the fused output head.

use tch::TchError;

/// Why a loss could not be computed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting of a loss is unknown or out of range.
    #[error("`{key}` is {found}, expected {expected}")]
    Setting {
        /// Name of the setting.
        key: String,
        /// Value found.
        found: String,
        /// Values allowed.
        expected: String,
    },
    /// A number of the settings is out of range.
    #[error(transparent)]
    Range(#[from] simplemix_settings::Error),
    /// A tensor has another shape, kind or range than the function takes.
    #[error("`{name}` is {found}, expected {expected}")]
    Shape {
        /// Name of the argument.
        name: &'static str,
        /// Shape, kind or range found.
        found: String,
        /// Shape, kind or range expected.
        expected: String,
    },
    /// An index points outside of the tensor that it selects from, such as a target outside the vocabulary.
    #[error("`{name}` holds {found}, expected indices from 0 to {last}")]
    Index {
        /// Name of the argument.
        name: &'static str,
        /// First index that is outside.
        found: i64,
        /// Largest index allowed.
        last: i64,
    },
    /// A response has no scored position.
    #[error("response {response} of {responses} is empty, expected at least one scored position")]
    EmptyResponse {
        /// Number of the response, counted from 0.
        response: i64,
        /// Number of responses.
        responses: i64,
    },
    /// A number is NaN or infinite.
    #[error("`{name}` holds {found} at index {index}, expected finite numbers")]
    NonFinite {
        /// Name of the argument or result.
        name: &'static str,
        /// First value that is not finite.
        found: f64,
        /// Index in the flattened tensor, counted from 0.
        index: i64,
    },
    /// A loss needs an input that was not given, such as a reference.
    #[error("the loss `{loss}` needs {need}")]
    Missing {
        /// Name of the loss.
        loss: String,
        /// Missing input, such as `a reference`.
        need: &'static str,
    },
    /// libtorch refused a call that tch lacks.
    #[error(transparent)]
    Native(#[from] simplemix_torch::Error),
    /// libtorch refused an operation.
    #[error("libtorch failed while {doing}")]
    Torch {
        /// Operation that failed, as in `allocating logits`.
        doing: &'static str,
        /// Message of libtorch.
        source: TchError,
    },
}

/// Results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Adds the name of the operation to an error of libtorch.
pub(crate) trait Doing<T> {
    fn doing(self, doing: &'static str) -> Result<T>;
}

impl<T> Doing<T> for std::result::Result<T, TchError> {
    fn doing(self, doing: &'static str) -> Result<T> {
        self.map_err(|source| Error::Torch { doing, source })
    }
}
