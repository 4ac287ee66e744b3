//! Failures of a call, and the Python exceptions that they become.

use pyo3::exceptions::{PyKeyboardInterrupt, PyRuntimeError, PyValueError};
use pyo3::prelude::*;

pyo3::create_exception!(
    simplemix,
    Error,
    PyValueError,
    "Settings, data or files that cannot be used. The message says what is wrong, where, what was found and what was expected."
);

/// Failure of a call.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Input that cannot be used, or a file that cannot be read or written.
    Refused(String),
    /// Ctrl-C, or another signal whose handler raised.
    Interrupted(Option<PyErr>),
    /// A promise of ours that was broken.
    Panic(String),
    /// An exception that Python code raised.
    Python(PyErr),
}

pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    pub(crate) fn refused(text: impl Into<String>) -> Self {
        Self::Refused(text.into())
    }

    /// A library's error, with its causes.
    pub(crate) fn of(error: &dyn std::error::Error) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let more = error.to_string();
            if !text.ends_with(&more) {
                text = format!("{text}: {more}");
            }
            cause = error.source();
        }
        Self::Refused(text)
    }

    /// An error of reading settings, without the place in a text that the user has not seen.
    pub(crate) fn settings(what: &str, error: &serde_json::Error) -> Self {
        let text = error.to_string();
        let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
        Self::Refused(format!("{what}: {text}"))
    }
}

macro_rules! from_errors {
    ($($error:ty),*) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::of(&error)
            }
        })*
    };
}

from_errors!(simplemix_mix::Error, simplemix_data::Error, simplemix_eval::Error, arrow::error::ArrowError);

impl From<simplemix_blend::Error> for Failure {
    fn from(error: simplemix_blend::Error) -> Self {
        if error.is_interrupted() { Self::Interrupted(None) } else { Self::of(&error) }
    }
}

impl From<PyErr> for Failure {
    fn from(error: PyErr) -> Self {
        Self::Python(error)
    }
}

impl From<Failure> for PyErr {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(text) => Error::new_err(text),
            Failure::Interrupted(Some(error)) | Failure::Python(error) => error,
            Failure::Interrupted(None) => PyKeyboardInterrupt::new_err(()),
            Failure::Panic(text) => {
                PyRuntimeError::new_err(format!("simplemix broke a promise of its own, please report this: {text}"))
            }
        }
    }
}
