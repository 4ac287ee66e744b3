//! Store of texts that all processes see: c10d's `TCPStore`.

use std::time::Duration;

use super::native;
use super::place::Place;
use crate::error::{Error, Result};

/// Time that an answer of the store may take.
const ANSWER: Duration = Duration::from_secs(10);

/// A store for processes on this machine, kept until it is dropped by the process that starts them.
#[derive(Debug)]
pub struct StoreKeeper {
    port: u16,
    _store: native::Store,
}

impl StoreKeeper {
    /// Keeps a store on a port that is free.
    ///
    /// # Errors
    /// [`Error::Torch`] if there is none.
    pub fn open() -> Result<Self> {
        let store = native::Store::open("127.0.0.1", 0, true, ANSWER)?;
        Ok(Self { port: store.port()?, _store: store })
    }

    /// Port of the store, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }
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
            let who = if place.is_kept_by_agent { "torchrun" } else { "rank 0" };
            let Error::Torch { text, .. } = &error else { return error };
            Error::Store { who, address: place.address.clone(), port: place.port, text: text.clone() }
        })?;
        // A start that follows a failed one must not meet what that left behind.
        let prefix = format!("simplemix/attempt_{}/", place.attempt);
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
