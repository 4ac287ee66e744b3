//! Reasons to refuse a mixture.

use crate::weight::Weight;

/// A wrong setting of a mixture, a weight or a source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no source.
    #[error("a mixture needs at least one source, found none")]
    NoSource,
    /// Two sources have the same name.
    #[error("source `{name}` is named twice")]
    Twice {
        /// The name.
        name: String,
    },
    /// A source without rows has a weight above 0.
    #[error("source `{name}` has no rows, expected some, since its weight is {weight}")]
    Empty {
        /// Name of the source.
        name: String,
        /// Weight of the source.
        weight: Weight,
    },
    /// A weight cannot be read, or is not one that the shares allow.
    #[error("weight of source `{name}` is `{found}`, expected {expected}")]
    Weight {
        /// Name of the source.
        name: String,
        /// The weight as it is written.
        found: String,
        /// The values that are allowed.
        expected: &'static str,
    },
    /// A text is not a fraction.
    #[error("`{found}` is not a number >= 0 such as 0.5, 3 or 1/3")]
    Fraction {
        /// The text.
        found: String,
    },
    /// No source has a weight above 0.
    #[error("all weights are 0, expected one above 0")]
    ZeroSum,
    /// The weights have no common denominator below the limit.
    #[error(
        "the weights repeat only after {found} pairs, expected at most {limit}; round the weights, such as {nearest}"
    )]
    Period {
        /// Pairs after which the order of the sources repeats.
        found: u128,
        /// The limit.
        limit: u64,
        /// Rounded weights that would do.
        nearest: String,
    },
    /// A setting is out of range or does not go with another.
    #[error("`{key}` is {found}, expected {expected}")]
    Setting {
        /// Key of the setting, a field of [`MixtureConfig`](crate::MixtureConfig) or
        /// [`SourceConfig`](crate::SourceConfig), `routing`, or the parameter of a function. A program with other names
        /// for its settings, such as flags, can look its own name up under this key.
        key: &'static str,
        /// The value, or what is wrong with it.
        found: String,
        /// The values that are allowed.
        expected: &'static str,
    },
    /// The number of tokens in a source is needed, but not known.
    #[error("source `{name}` has no token count, which shares and sizes in tokens need")]
    Tokens {
        /// Name of the source.
        name: String,
    },
    /// The number of rows given for a source is not the number in its settings.
    #[error("{found} rows are given for source `{name}`, expected {expected}")]
    Rows {
        /// Name of the source.
        name: String,
        /// Rows given.
        found: u64,
        /// Rows in the settings.
        expected: u64,
    },
    /// Weights name a source that does not exist.
    #[error("weights name `{name}`, expected one of the sources {known}")]
    Unknown {
        /// The name.
        name: String,
        /// Names of the sources.
        known: String,
    },
    /// A source would have to repeat its rows more often than [`exhaustion`](crate::MixtureConfig::exhaustion) allows.
    #[error(
        "source `{name}` has {rows} rows, but the mixture needs {needed}; make it smaller, or allow {epochs} epochs"
    )]
    Exhausted {
        /// Name of the source.
        name: String,
        /// Rows of the source.
        rows: u64,
        /// Rows that the mixture needs.
        needed: u64,
        /// Passes over the source that would be enough.
        epochs: u64,
    },
    /// A text is not in the short form of a source or of weights.
    #[error("`{found}` is not of the form {expected}")]
    Form {
        /// The text.
        found: String,
        /// The form.
        expected: &'static str,
    },
}

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn setting(key: &'static str, found: impl Into<String>, expected: &'static str) -> Self {
        Self::Setting { key, found: found.into(), expected }
    }
}
