//! Store of texts that all processes see: c10d's `TCPStore`.

use std::time::Duration;

use super::native;
use super::place::Place;
use crate::error::{Error, Result};

/// Time that an answer of the store may take.
const ANSWER: Duration = Duration::from_secs(10);

/// Keeper of a store that no rank keeps.
pub(super) const AGENT: &str = "the launcher (torchrun, or simplemix with --processes)";

/// A store for processes on this machine, kept until it is dropped by the process that starts them.
#[derive(Debug)]
pub struct StoreKeeper {
    port: u16,
    store: native::Store,
}

impl StoreKeeper {
    /// Keeps a store on a port that is free.
    ///
    /// # Errors
    /// [`Error::Torch`] if there is none.
    pub fn open() -> Result<Self> {
        let store = native::Store::open("127.0.0.1", 0, true, ANSWER)?;
        Ok(Self { port: store.port()?, store })
    }

    /// Port of the store, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Place of one of `size` processes on this machine, which meet in this store.
    pub fn place(&self, rank: usize, size: usize) -> Place {
        Place {
            rank,
            size,
            local_rank: rank,
            local_size: size,
            address: "127.0.0.1".to_owned(),
            port: self.port,
            is_kept_by_agent: true,
            attempt: 0,
        }
    }

    /// Tells all processes that one of them has ended, unless a failure was told before.
    ///
    /// # Errors
    /// [`Error::Torch`] if the store does not answer.
    pub fn tell_end(&self, rank: usize, found: &str) -> Result<()> {
        let store = self.store.under(&prefix(0), ANSWER)?;
        if store.add(FAILURES, 1)? == 1 {
            store.set(FAILURE, failure(rank, found).as_bytes())?;
        }
        Ok(())
    }
}

/// Key under which failures are counted, and key of the first one.
const FAILURES: &str = "failures";
const FAILURE: &str = "failure";

fn failure(rank: usize, found: &str) -> String {
    format!("{rank}\t{found}")
}

/// Keys of one start of the processes; a start that follows a failed one must not meet what that left behind.
fn prefix(attempt: u64) -> String {
    format!("simplemix/attempt_{attempt}/")
}

/// A connection to the store under the prefix of one start of the processes.
#[derive(Debug)]
pub(super) struct Store {
    store: native::Store,
    root: native::Store,
    prefix: String,
}

impl Store {
    /// Keeps the store or connects to it, within `limit`.
    pub(super) fn open(place: &Place, limit: Duration) -> Result<Self> {
        let root = native::Store::open(&place.address, place.port, place.keeps_store(), limit).map_err(|error| {
            let who = if place.is_kept_by_agent { AGENT } else { "rank 0" };
            let Error::Torch { text, .. } = &error else { return error };
            Error::Store { who, address: place.address.clone(), port: place.port, text: text.clone() }
        })?;
        let prefix = prefix(place.attempt);
        Ok(Self { store: root.under(&prefix, limit)?, root, prefix })
    }

    /// A connection of its own, which answers while another waits.
    pub(super) fn again(&self) -> Result<Self> {
        let root = self.root.under("", ANSWER)?;
        Ok(Self { store: root.under(&self.prefix, ANSWER)?, root, prefix: self.prefix.clone() })
    }

    pub(super) fn native(&self) -> &native::Store {
        &self.store
    }

    pub(super) fn set(&self, key: &str, value: &str) -> Result<()> {
        self.store.set(key, value.as_bytes())
    }

    /// The value of a key that will come.
    pub(super) fn get(&self, key: &str) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.store.get(key)?).into_owned())
    }

    /// The value of a key, if it is there.
    pub(super) fn find(&self, key: &str) -> Result<Option<String>> {
        if self.store.has(key)? { self.get(key).map(Some) } else { Ok(None) }
    }

    /// Tells the failure of a rank, if it is the first one.
    pub(super) fn tell_failure(&self, rank: usize, found: &str) -> Result<()> {
        if self.store.add(FAILURES, 1)? == 1 {
            self.set(FAILURE, &failure(rank, found))?;
        }
        Ok(())
    }

    /// The failure that was told, and its rank.
    pub(super) fn told_failure(&self) -> Result<Option<(usize, String)>> {
        let told = self.find(FAILURE)?;
        Ok(told.map(|told| {
            let (rank, found) = told.split_once('\t').unwrap_or(("0", told.as_str()));
            (rank.parse().unwrap_or(0), found.to_owned())
        }))
    }

    pub(super) fn set_bytes(&self, key: &str, value: &[u8]) -> Result<()> {
        self.store.set(key, value)
    }

    pub(super) fn get_bytes(&self, key: &str) -> Result<Vec<u8>> {
        self.store.get(key)
    }

    pub(super) fn add(&self, key: &str, number: i64) -> Result<i64> {
        self.store.add(key, number)
    }
}
