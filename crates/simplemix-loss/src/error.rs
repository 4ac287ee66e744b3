//! Why a loss could not be computed.

use tch::TchError;

/// Errors of losses and of the fused output head.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting of a loss is out of its range, or is none of its settings.
    #[error("`{key}` is {found}, expected {expected}")]
    Setting {
        /// The setting.
        key: String,
        /// Its value.
        found: String,
        /// What is allowed.
        expected: String,
    },
    /// A tensor has not the shape or kind that the function takes.
    #[error("`{name}` is {found}, expected {expected}")]
    Shape {
        /// The argument.
        name: &'static str,
        /// Its shape or kind.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// An index points outside of what it selects from, such as a target outside the vocabulary.
    #[error("`{name}` holds {found}, expected indices from 0 to {last}")]
    Index {
        /// The argument.
        name: &'static str,
        /// The first value found outside.
        found: i64,
        /// The largest index allowed.
        last: i64,
    },
    /// A response has no scored position.
    #[error("response {response} of {responses} is empty: no position belongs to it")]
    EmptyResponse {
        /// Which one, counted from 0.
        response: i64,
        /// How many there are.
        responses: i64,
    },
    /// A number is NaN or infinite.
    #[error("`{name}` holds {found} at {index}, expected finite numbers")]
    NonFinite {
        /// The argument or result.
        name: &'static str,
        /// The first such number.
        found: f64,
        /// Where, counted from 0 in the flattened tensor.
        index: i64,
    },
    /// A loss needs something that was not given, such as a reference.
    #[error("`{loss}` needs `{name}`")]
    Missing {
        /// The loss.
        loss: String,
        /// What it needs.
        name: &'static str,
    },
    /// libtorch refused an operation.
    #[error("libtorch failed while {doing}")]
    Torch {
        /// What was being computed.
        doing: &'static str,
        /// libtorch's message.
        source: TchError,
    },
}

/// Results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Says what libtorch was doing when it failed.
pub(crate) trait Doing<T> {
    fn doing(self, doing: &'static str) -> Result<T>;
}

impl<T> Doing<T> for std::result::Result<T, TchError> {
    fn doing(self, doing: &'static str) -> Result<T> {
        self.map_err(|source| Error::Torch { doing, source })
    }
}
