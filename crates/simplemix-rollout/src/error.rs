//! Why on-policy pairs could not be made.

/// Errors of generating, scoring and selecting.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is out of range.
    #[error("`{key}` is {found}, expected {expected}")]
    Setting {
        /// The setting.
        key: &'static str,
        /// Its value.
        found: String,
        /// What is allowed.
        expected: &'static str,
    },
    /// A scorer needs something that the prompt does not have.
    #[error("prompt `{id}`: no `{field}`, which scorer `{scorer}` needs")]
    Prompt {
        /// The prompt.
        id: String,
        /// What it lacks.
        field: &'static str,
        /// Who needs it.
        scorer: String,
    },
    /// A generator gave another number of answers than was asked for.
    #[error("generator `{generator}` gave {found}, expected {expected}")]
    Answers {
        /// Who.
        generator: String,
        /// What came.
        found: String,
        /// What was asked for.
        expected: String,
    },
    /// The chat template or the tokenizer refused a text.
    #[error(transparent)]
    Data(#[from] simplemix_data::Error),
    /// The local model failed.
    #[cfg(feature = "local")]
    #[error(transparent)]
    Model(#[from] simplemix_model::Error),
}

/// Results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
