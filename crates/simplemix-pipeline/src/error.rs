//! Why a mixture or a pipeline stopped, and whether its input is at fault.

use std::path::{Path, PathBuf};

/// Errors of mixing and of pipelines.
///
/// [`is_input`](Error::is_input) tells a wrong setting or file, which the user mends, from work that failed on the way;
/// [`is_interrupted`](Error::is_interrupted) tells work that was stopped and continues when it is started again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is missing, out of range, or does not go with another one.
    #[error("`{key}` is {found}, expected {expected}")]
    Setting {
        /// Key of the setting.
        key: String,
        /// Value that was found.
        found: String,
        /// Values that are allowed.
        expected: String,
    },
    /// A declared setting is unknown, out of range, or has another name now.
    #[error(transparent)]
    Settings(#[from] simplemix_settings::Error),
    /// Settings cannot be read: a TOML error, an unknown key, or a value of the wrong type.
    #[error("{place}: {message}")]
    Config {
        /// File or section.
        place: String,
        /// Line, key, and reason.
        message: String,
    },
    /// No response could be scored for an estimate of the divergence.
    #[error("divergence: no response could be scored; {summary}")]
    NoRatio {
        /// Count of the pairs, and of those left out.
        summary: String,
    },
    /// The system refused an operation on a file or folder.
    #[error("{path}: {}", simplemix_files::failed_to(action), path = path.display())]
    Io {
        /// Path of the file or folder.
        path: PathBuf,
        /// Verb of the operation: `read` for input, others for output.
        action: &'static str,
        /// Reason from the system.
        source: std::io::Error,
    },
    /// The result of a stage cannot be written as JSON or TOML.
    #[error("cannot serialise {what}: {message}")]
    Serialise {
        /// Object.
        what: &'static str,
        /// Reason.
        message: String,
    },
    /// A file cannot be read, written or locked.
    #[error(transparent)]
    Files(#[from] simplemix_files::Error),
    /// Reading or writing pairs failed.
    #[error(transparent)]
    Data(#[from] simplemix_data::Error),
    /// The sources cannot be mixed as asked.
    #[error(transparent)]
    Mix(#[from] simplemix_mix::Error),
    /// A mixture cannot be carried out, for a reason that concerns mixtures alone.
    #[error(transparent)]
    Blend(simplemix_blend::Error),
    /// A model cannot be found or loaded.
    #[error(transparent)]
    Model(#[from] simplemix_model::Error),
    /// Generating, scoring or pairing failed.
    #[error(transparent)]
    Rollout(#[from] simplemix_rollout::Error),
    /// Training cannot start: a setting, a file or the model is at fault.
    #[error(transparent)]
    Prepare(simplemix_train::Error),
    /// Training failed on the way.
    #[error(transparent)]
    Train(#[from] simplemix_train::Error),
    /// Metrics cannot be read, or a figure cannot be drawn.
    #[error(transparent)]
    Eval(#[from] simplemix_eval::Error),
    /// A stage failed in the processes that shared it.
    #[error("{stage}: {message}")]
    Ranks {
        /// Name of the stage.
        stage: String,
        /// Failure of the first process, or its end.
        message: String,
        /// Whether settings or input files are at fault.
        is_input: bool,
    },
    /// A run of a sweep cannot be planned.
    #[error("run with {values}: {source}")]
    InRun {
        /// Values of the keys that vary.
        values: String,
        /// Fault.
        source: Box<Error>,
    },
    /// The observer stopped the work; what is done is kept.
    #[error("stopped; what is done is kept, and the same call continues from there")]
    Interrupted,
}

/// Result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Whether settings or files that the user gave are at fault, and nothing was done yet.
    pub fn is_input(&self) -> bool {
        match self {
            Self::Setting { .. }
            | Self::Settings(_)
            | Self::Config { .. }
            | Self::NoRatio { .. }
            | Self::Io { action: "read", .. }
            | Self::Mix(_)
            | Self::Model(_)
            | Self::Prepare(_) => true,
            Self::Ranks { is_input, .. } => *is_input,
            Self::InRun { source, .. } => source.is_input(),
            Self::Files(error) => error.is_input(),
            Self::Data(error) => error.is_input(),
            Self::Blend(error) => error.is_input(),
            Self::Rollout(error) => error.is_input(),
            Self::Io { .. } | Self::Serialise { .. } | Self::Train(_) | Self::Eval(_) | Self::Interrupted => false,
        }
    }

    /// Whether the observer stopped the work, which continues from there when it is started again.
    pub fn is_interrupted(&self) -> bool {
        matches!(self, Self::Interrupted | Self::Rollout(simplemix_rollout::Error::Interrupted))
    }

    pub(crate) fn setting(key: &str, found: impl ToString, expected: impl Into<String>) -> Self {
        Self::Setting { key: key.to_owned(), found: found.to_string(), expected: expected.into() }
    }

    pub(crate) fn serialise(what: &'static str) -> impl Fn(&dyn std::fmt::Display) -> Self {
        move |reason| Self::Serialise { what, message: reason.to_string() }
    }
}

/// Reasons that other stages have too become those of this enum, and errors of [`crate::files`] come back as they were.
impl From<simplemix_blend::Error> for Error {
    fn from(error: simplemix_blend::Error) -> Self {
        use simplemix_blend::Error as Blend;
        match error {
            Blend::Setting { key, found, expected } => Self::Setting { key, found, expected },
            Blend::Io { path, action, source } => Self::Io { path, action, source },
            Blend::Serialise { what, message } => Self::Serialise { what, message },
            Blend::Files(error) => Self::Files(error),
            Blend::Data(error) => Self::Data(error),
            Blend::Mix(error) => Self::Mix(error),
            Blend::Plot(error) => Self::Eval(error),
            Blend::Interrupted => Self::Interrupted,
            Blend::Find(error) => match error.downcast::<Self>() {
                Ok(error) => *error,
                Err(error) => Self::Blend(Blend::Find(error)),
            },
            other => Self::Blend(other),
        }
    }
}

/// An error of settings that do not fit their types.
pub(crate) fn invalid(place: &str, error: &toml::de::Error) -> Error {
    Error::Config { place: place.to_owned(), message: error.to_string().trim_end().to_owned() }
}

/// Adds the path and the operation to an error of the system.
pub(crate) trait At<T> {
    fn at(self, path: &Path, action: &'static str) -> Result<T>;
}

impl<T> At<T> for std::io::Result<T> {
    fn at(self, path: &Path, action: &'static str) -> Result<T> {
        self.map_err(|source| Error::Io { path: path.to_owned(), action, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failing_to_write_is_no_fault_of_the_input() {
        let io = |action| Error::Io { path: PathBuf::from("f"), action, source: std::io::Error::other("full") };
        assert!(io("read").is_input() && !io("write").is_input());
        let data = |action| simplemix_data::Error::Io {
            path: PathBuf::from("f"),
            action,
            source: std::io::Error::other("full"),
        };
        assert!(Error::from(data("open")).is_input());
        assert!(!Error::from(simplemix_rollout::Error::Data(data("rename"))).is_input());
        assert!(Error::from(simplemix_rollout::Error::Interrupted).is_interrupted());
    }
}
