//! Why a loss could not be computed.

use tch::TchError;

/// Errors of losses and of the fused output head.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting of a loss is out of its range.
    #[error("`{key}` is {found}, expected {expected}")]
    Setting {
        /// The setting.
        key: &'static str,
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
