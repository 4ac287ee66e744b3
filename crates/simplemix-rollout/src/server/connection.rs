//! Connections to a server, each lent to one request at a time.
//!
//! A connection comes back only after its reply was read, parsed and taken. After a failure it is closed, since what the
//! server still sends over it belongs to no request.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ureq::Agent;

/// Replies of a connection that are remembered.
const REMEMBERED: usize = 64;

/// Connections that no request uses.
#[derive(Debug)]
pub(super) struct Connections {
    timeout: Duration,
    idle: Mutex<VecDeque<Connection>>,
}

/// A connection, opened by its first request.
#[derive(Debug)]
pub(super) struct Connection {
    agent: Agent,
    /// Hashes of the last replies.
    replies: VecDeque<blake3::Hash>,
}

impl Connections {
    /// No connections so far; a request over one takes `timeout` at most.
    pub(super) fn new(timeout: Duration) -> Self {
        Self { timeout, idle: Mutex::default() }
    }

    /// The connection that has been idle for the longest, over which what came late is there and shows, or a new one.
    pub(super) fn take(&self) -> Connection {
        let idle = self.idle().pop_front();
        idle.unwrap_or_else(|| Connection { agent: agent(self.timeout), replies: VecDeque::new() })
    }

    /// Keeps a connection whose reply was taken.
    pub(super) fn give_back(&self, connection: Connection) {
        self.idle().push_back(connection);
    }

    fn idle(&self) -> MutexGuard<'_, VecDeque<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    pub(super) fn agent(&self) -> &Agent {
        &self.agent
    }

    /// Whether none of the last replies has this hash, which is remembered.
    pub(super) fn is_new(&mut self, reply: blake3::Hash) -> bool {
        if self.replies.contains(&reply) {
            return false;
        }
        self.replies.truncate(REMEMBERED - 1);
        self.replies.push_front(reply);
        true
    }
}

/// A client with one connection.
fn agent(timeout: Duration) -> Agent {
    Agent::config_builder()
        // The status is handled by the caller. Redirects are not followed, so that the key goes only to the given address.
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_global(Some(timeout))
        .max_idle_connections(1)
        .max_idle_connections_per_host(1)
        .user_agent(concat!("simplemix/", env!("CARGO_PKG_VERSION")))
        .build()
        .new_agent()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_replies_are_known() {
        let connections = Connections::new(Duration::from_secs(1));
        let mut connection = connections.take();
        let hash = |number: usize| blake3::hash(&number.to_le_bytes());
        assert!((0..REMEMBERED).all(|number| connection.is_new(hash(number))));
        assert!(!connection.is_new(hash(0)) && connection.is_new(hash(REMEMBERED)) && connection.is_new(hash(0)));
        connections.give_back(connection);
        assert!(!connections.take().is_new(hash(0)), "the connection that came back");
        assert!(connections.take().is_new(hash(0)), "a new connection");
    }
}
