//! Errors of calls into libtorch.

use crate::choice::DeviceChoice;

/// Why a call did nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tensor has another shape, kind, device or number than the function takes.
    #[error("`{name}` is {found}, expected {expected}")]
    Argument {
        /// Name of the argument.
        name: &'static str,
        /// Value found.
        found: String,
        /// Values allowed.
        expected: String,
    },
    /// The chosen device cannot be used.
    #[error("`device` is `{asked}`, {found}; {advice}")]
    Device {
        /// The choice.
        asked: DeviceChoice,
        /// The reason.
        found: String,
        /// Advice.
        advice: String,
    },
    /// libtorch refused a call.
    #[error("libtorch failed while {doing}: {text}")]
    Torch {
        /// Work that failed, as in `running backward`.
        doing: &'static str,
        /// Message of libtorch, without its stack.
        text: String,
    },
    /// Another process of a group has failed, has ended, or does not come.
    #[error("rank {rank} {found}")]
    Rank {
        /// Number of the process.
        rank: usize,
        /// Facts that are known of it.
        found: String,
    },
    /// The store, through which the processes of a group find each other, does not answer.
    #[error(
        "the store at {address}:{port}, which {who} keeps, does not answer: {text}; see that MASTER_ADDR and MASTER_PORT are the same \
         for all processes and reachable from each machine, and that the port is free"
    )]
    Store {
        /// Process that keeps it.
        who: &'static str,
        /// Name or address of its machine.
        address: String,
        /// Port.
        port: u16,
        /// Message of c10d.
        text: String,
    },
    /// Processes of a group differ in what has to be the same for all.
    #[error(
        "{what} is `{other}` for rank {rank} and `{own}` for rank {own_rank}; it has to be the same for all processes"
    )]
    Differs {
        /// Thing that differs.
        what: String,
        /// Higher one of two ranks that differ; one of them is this process.
        rank: usize,
        /// Value there.
        other: String,
        /// Lower one.
        own_rank: usize,
        /// Value there.
        own: String,
    },
    /// The reader or writer of a file failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn argument(name: &'static str, found: impl ToString, expected: impl ToString) -> Self {
        Self::Argument { name, found: found.to_string(), expected: expected.to_string() }
    }
}

impl From<tch::TchError> for Error {
    fn from(error: tch::TchError) -> Self {
        let text = error.to_string();
        Self::Torch { doing: "calling it", text: text.split("\nException raised from").next().unwrap_or("").to_owned() }
    }
}
