//! Exit codes: 2 for input that cannot be used, 1 for a run that failed later, 130 for one that was interrupted.

use std::fmt::Display;
use std::path::Path;
use std::process::ExitCode;

use crate::fault;
use crate::lines::warn;
use crate::out_of_memory;

/// Reason to end the program early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Flags, settings or files are wrong; nothing was written.
    Input(anyhow::Error),
    /// Work failed after it had begun.
    Run(anyhow::Error),
    /// The user stopped the work; it was saved, and the same command continues.
    Interrupted,
    /// A process that this one has started has said what failed, and ended with this code.
    Told(i32),
}

pub(crate) type Result<T = (), E = Failure> = std::result::Result<T, E>;

impl Failure {
    pub(crate) fn input(message: impl Display) -> Self {
        Self::Input(anyhow::anyhow!("{message}"))
    }

    pub(crate) fn code(&self) -> ExitCode {
        ExitCode::from(u8::try_from(self.number()).unwrap_or(1))
    }

    /// Number of the exit code.
    pub(crate) fn number(&self) -> i32 {
        match self {
            Self::Input(_) if !self.is_out_of_memory() => 2,
            Self::Input(_) | Self::Run(_) => 1,
            Self::Interrupted => 130,
            Self::Told(code) => *code,
        }
    }

    /// Whether memory ran out, which is no fault of the input even where it happened before the work.
    fn is_out_of_memory(&self) -> bool {
        self.message().is_some_and(|message| out_of_memory::is_line(&message))
    }

    /// The error and its causes in one line; a cause that the text before it contains is left out.
    pub(crate) fn message(&self) -> Option<String> {
        let (Self::Input(error) | Self::Run(error)) = self else {
            return None;
        };
        let mut text = error.to_string();
        for cause in error.chain().skip(1).map(ToString::to_string) {
            if !text.contains(&cause) {
                text.push_str(": ");
                text.push_str(&cause);
            }
        }
        Some(fault::plain(&text))
    }
}

/// The kind of failure that an error of collecting is.
pub(crate) fn failed(error: simplemix_rollout::Error) -> Failure {
    simplemix_pipeline::Error::from(error).into()
}

impl From<simplemix_model::gguf::GgufError> for Failure {
    fn from(error: simplemix_model::gguf::GgufError) -> Self {
        match error.is_input() {
            true => Self::Input(error.into()),
            false => Self::Run(error.into()),
        }
    }
}

impl From<simplemix_pipeline::Error> for Failure {
    fn from(error: simplemix_pipeline::Error) -> Self {
        if error.is_interrupted() {
            warn("stopped; what is done is kept, and the same command continues from there");
            Self::Interrupted
        } else {
            let is_input = error.is_input();
            let error = error.into();
            if is_input && !is_disk_failure(&error) { Self::Input(error) } else { Self::Run(error) }
        }
    }
}

/// Text of a file that the user names.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    simplemix_files::read_to_string(path).map_err(|e| Failure::input(format!("{}: cannot read: {e}", path.display())))
}

/// Settings of a file that the user names; the error names all keys that cannot be used, with their lines.
pub(crate) fn read_toml<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let text = read_text(path)?;
    let table: toml::Table = text
        .parse()
        .map_err(|e: toml::de::Error| Failure::input(format!("{}: {}", path.display(), e.to_string().trim_end())))?;
    simplemix_settings::read(table).map_err(|error| Failure::input(simplemix_settings::placed(path, &text, &error)))
}

/// Turns an error into a failure of one kind.
pub(crate) trait Fails<T> {
    fn input(self) -> Result<T>;
    fn run(self) -> Result<T>;
}

impl<T, E: Into<anyhow::Error>> Fails<T> for std::result::Result<T, E> {
    fn input(self) -> Result<T> {
        self.map_err(|error| {
            let error = error.into();
            if is_disk_failure(&error) { Failure::Run(error) } else { Failure::Input(error) }
        })
    }

    fn run(self) -> Result<T> {
        self.map_err(|error| Failure::Run(error.into()))
    }
}

/// Whether the disk failed or is full, which no other input would change.
fn is_disk_failure(error: &anyhow::Error) -> bool {
    use std::io::{Error, ErrorKind};
    const EIO: i32 = 5;
    let failed = |error: &Error| {
        use ErrorKind::{FileTooLarge, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge | ReadOnlyFilesystem)
            || error.raw_os_error() == Some(EIO)
    };
    error.chain().filter_map(|cause| cause.downcast_ref::<Error>()).any(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_ran_out_while_a_model_was_loaded_is_a_failure_and_no_wrong_request() {
        let text = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.15 GiB of which 1.20 GiB is free.";
        let of = |text: &str| {
            let torch =
                simplemix_model::Error::Torch { doing: "loading", source: tch::TchError::Torch(text.to_owned()) };
            let loaded: std::result::Result<(), _> = Err(torch);
            let failure = loaded.input().unwrap_err();
            (failure.code(), failure.message().unwrap())
        };
        let (code, message) = of(text);
        assert_eq!(code, ExitCode::from(1));
        assert!(message.starts_with("out of memory on cuda:0: 2.00 GiB were asked for"), "{message}");
        assert_eq!(of("a wrong shape").0, ExitCode::from(2));
    }
}
