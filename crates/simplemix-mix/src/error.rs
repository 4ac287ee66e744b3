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
    #[error("weights need {found} rows until they repeat, expected at most {limit}; round them")]
    Period {
        /// Rows after which the order of sources repeats.
        found: u128,
        /// The limit.
        limit: u64,
    },
    /// A weight was given for a source that is not there, or the other way round.
    #[error("no weight for source `{name}`; weights were given for {known}")]
    Unknown {
        /// The source.
        name: String,
        /// Names that were given.
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
