//! Reasons for which attempts fail, as they are counted.

use std::fmt;

/// Reason for which an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// A status other than success.
    Status(u16),
    /// No whole reply within the time limit.
    Timeout,
    /// The connection could not be made, or broke.
    Connection,
    /// More bytes than a reply may have.
    TooLarge,
    /// An error as the body of a reply, with the status that it names.
    InReply(Option<u16>),
    /// A reply with several responses, or with none.
    Count,
    /// A second copy of a reply to another request.
    Repeated,
    /// A body that is no reply.
    Unreadable,
}

impl Reason {
    /// Reason for which there is no whole reply.
    pub(super) fn of_transport(error: &ureq::Error) -> Self {
        match error {
            ureq::Error::Timeout(_) => Self::Timeout,
            ureq::Error::BodyExceedsLimit(_) => Self::TooLarge,
            _ => Self::Connection,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "status {status}"),
            Self::Timeout => f.write_str("timeout"),
            Self::Connection => f.write_str("connection"),
            Self::TooLarge => f.write_str("reply too large"),
            Self::InReply(Some(status)) => write!(f, "error {status} in the reply"),
            Self::InReply(None) => f.write_str("error in the reply"),
            Self::Count => f.write_str("wrong number of responses"),
            Self::Repeated => f.write_str("repeated reply"),
            Self::Unreadable => f.write_str("unreadable reply"),
        }
    }
}
