//! Errors about settings.

use std::fmt;

/// A setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A value has the wrong type, is out of range, or does not fit another setting.
    #[error("`{key}` is {found}, expected {expected}")]
    Value {
        /// Path of the key, such as `optimizer.learning_rate`.
        key: String,
        /// The value.
        found: String,
        /// Allowed values.
        expected: String,
    },
    /// No setting has this name.
    #[error("unknown key `{key}`{}", did_you_mean(.meant))]
    Unknown {
        /// Path of the key.
        key: String,
        /// The path of a known key that resembles it.
        meant: Option<String>,
    },
    /// Settings have names of an older version.
    #[error("{}", moves(.0))]
    Moved(Vec<Moved>),
    /// A command-line assignment cannot be read.
    #[error("--set is `{text}`, {problem}")]
    Assignment {
        /// The argument.
        text: String,
        /// Reason, with what was expected.
        problem: String,
    },
    /// A key cannot be used, in the reader's words.
    #[error("`{key}`: {problem}")]
    Key {
        /// Path of the key.
        key: String,
        /// Reason, with what was expected.
        problem: String,
    },
    /// Several settings cannot be used.
    #[error("{}", several(.0))]
    Several(Vec<Self>),
    /// A table cannot be read for a reason that concerns no single key.
    #[error("{0}")]
    Table(String),
}

/// Results of this crate.
pub type Result<T = (), E = Error> = std::result::Result<T, E>;

/// A key that has another name now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// The key as it was written.
    pub old: String,
    /// Path of the key that replaced it.
    pub new: String,
}

impl Error {
    /// An error about the value of `key`.
    pub fn value(key: impl Into<String>, found: impl fmt::Display, expected: impl Into<String>) -> Self {
        Self::Value { key: key.into(), found: found.to_string(), expected: expected.into() }
    }

    /// One error out of all that were found.
    pub(crate) fn all(mut errors: Vec<Self>) -> Self {
        if errors.len() == 1 { errors.remove(0) } else { Self::Several(errors) }
    }

    /// The errors that this one is made of.
    pub fn each(&self) -> &[Self] {
        match self {
            Self::Several(errors) => errors,
            single => std::slice::from_ref(single),
        }
    }

    /// The error with `section.` before every key.
    ///
    /// ```
    /// use simplemix_settings::Error;
    /// let error = Error::value("loss.beta", -1, "a number above 0").under("train");
    /// assert_eq!(error.to_string(), "`train.loss.beta` is -1, expected a number above 0");
    /// ```
    #[must_use]
    pub fn under(self, section: &str) -> Self {
        let path = |key: String| join(section, &key);
        match self {
            Self::Value { key, found, expected } => Self::Value { key: path(key), found, expected },
            Self::Unknown { key, meant } => Self::Unknown { key: path(key), meant: meant.map(path) },
            Self::Moved(moves) => {
                Self::Moved(moves.into_iter().map(|m| Moved { old: path(m.old), new: path(m.new) }).collect())
            }
            Self::Table(problem) => Self::Table(format!("[{section}]: {problem}")),
            Self::Key { key, problem } => Self::Key { key: path(key), problem },
            Self::Several(errors) => Self::Several(errors.into_iter().map(|error| error.under(section)).collect()),
            other @ Self::Assignment { .. } => other,
        }
    }

    /// The key that the error is about, if it is a single one.
    pub fn key(&self) -> Option<&str> {
        match self {
            Self::Value { key, .. } | Self::Unknown { key, .. } | Self::Key { key, .. } => Some(key),
            _ => None,
        }
    }
}

/// `section.key`, or the key alone at the top level.
pub(crate) fn join(section: &str, key: &str) -> String {
    if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") }
}

fn did_you_mean(meant: &Option<String>) -> String {
    meant.as_ref().map_or(String::new(), |name| format!("; did you mean `{name}`?"))
}

fn several(errors: &[Error]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn moves(moves: &[Moved]) -> String {
    moves.iter().map(|moved| format!("`{}` is now `{}`", moved.old, moved.new)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_moves_are_listed_together() {
        let moved = |old: &str, new: &str| Moved { old: old.to_owned(), new: new.to_owned() };
        let error = Error::Moved(vec![moved("beta", "loss.beta"), moved("lora_rank", "lora.rank")]).under("train");
        let expected = "`train.beta` is now `train.loss.beta`, `train.lora_rank` is now `train.lora.rank`";
        assert_eq!(error.to_string(), expected);
    }
}
