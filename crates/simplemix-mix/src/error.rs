//! Why a mixture was refused.

/// A wrong setting of a mixture.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no source.
    #[error("a mixture needs at least one source, found none")]
    NoSource,
    /// Two sources have one name.
    #[error("source `{name}` is named twice")]
    Twice {
        /// The name.
        name: String,
    },
    /// A source has no rows, though its weight is above zero.
    #[error("source `{name}` has no rows, but weight {weight}")]
    Empty {
        /// The source.
        name: String,
        /// Its weight.
        weight: String,
    },
    /// A weight is not a number that can be one.
    #[error("weight of `{name}` is `{found}`, expected a number from 0 such as 0.5, 3 or 1/3")]
    Weight {
        /// The source, or the text it stands in.
        name: String,
        /// What was written.
        found: String,
    },
    /// No source has a weight above zero.
    #[error("all weights are zero")]
    ZeroSum,
    /// The weights have no common denominator below the limit.
    #[error("weights need {found} rows until they repeat, expected at most {limit}; round them, such as {nearest}")]
    Period {
        /// Rows after which the order of sources repeats.
        found: u128,
        /// The limit.
        limit: u64,
        /// Rounded weights.
        nearest: String,
    },
    /// A setting is out of range or does not go with another.
    #[error("`{key}` is {found}, expected {expected}")]
    Setting {
        /// The setting.
        key: &'static str,
        /// Its value.
        found: String,
        /// What is allowed.
        expected: &'static str,
    },
    /// A source's tokens are needed, but not known.
    #[error("source `{name}` has no token count, which shares and budgets in tokens need")]
    Tokens {
        /// The source.
        name: String,
    },
    /// The rows given for a source are not as many as it has.
    #[error("{found} rows are given for source `{name}`, expected {expected}")]
    Rows {
        /// The source.
        name: String,
        /// Rows given.
        found: u64,
        /// Rows it has.
        expected: u64,
    },
    /// A weight was given for a source that is not there.
    #[error("weights name `{name}`, expected one of the sources {known}")]
    Unknown {
        /// The source.
        name: String,
        /// The sources.
        known: String,
    },
    /// A source would have to repeat rows more often than allowed.
    #[error("source `{name}` has {rows} rows, but {needed} are asked of it; ask for fewer, or allow {epochs} epochs")]
    Exhausted {
        /// The source.
        name: String,
        /// Rows it has.
        rows: u64,
        /// Rows asked of it.
        needed: u64,
        /// Passes over it that would do.
        epochs: u64,
    },
    /// The mixture would hold no row.
    #[error("the mixture is empty: total is 0")]
    EmptyTotal,
    /// A text is not of its short form.
    #[error("`{found}` is not of the form {expected}")]
    Form {
        /// The text.
        found: String,
        /// Its form.
        expected: &'static str,
    },
}

/// Results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
