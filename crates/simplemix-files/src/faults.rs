//! Faults for tests: every operation on the disk that goes through this crate is counted, and the Nth fails.
//!
//! Built with the feature `faults` and debug assertions only, so never into a release.
//!
//! Inside a test, [`on_this_thread`] counts the operations of the thread. For another program, environment variables
//! count those of the whole process:
//!
//! | variable | effect |
//! | --- | --- |
//! | `SIMPLEMIX_FAULT=N` | operation N, counted from 1, fails |
//! | `SIMPLEMIX_FAULT=abort:N` | the process aborts in place of operation N, as if it was killed |
//! | `SIMPLEMIX_FAULT=torn:N` | the same, but if operation N is a write, half of it is done |
//! | `SIMPLEMIX_FAULT=powerloss:N` | the same as `abort:N`, and the disk loses what was not synced by then |
//! | `SIMPLEMIX_FAULT=powerloss:N:WAY` | the same, in one of eight ways, from 0 |
//! | `SIMPLEMIX_FAULT=stall:N:SECONDS` | operation N takes so much longer, and is done |
//! | `SIMPLEMIX_FAULT_LOG=FILE` | appends a line to FILE for each operation: `write /path/of/the/file` |
//!
//! A write or creation fails as on a full disk (`ENOSPC`; a write has written half of its bytes by then), everything else
//! as on a broken one (`EIO`). Only the Nth operation fails: those after it work, so that an error which is swallowed
//! shows.
//!
//! At a loss of power, bytes of a file after its last sync are cut off, cut in half, zero, or zero for their first half;
//! also those of files that got their name without a sync. In ways 0 to 3, renames whose folder was not synced are taken
//! back, and files that were made in it are gone; in ways 4 to 7 they stay. Without a way, N chooses it.
//!
//! # Examples
//! ```
//! use simplemix_files::{faults, write};
//!
//! # let dir = tempfile::tempdir()?;
//! let path = dir.path().join("numbers.txt");
//! let faults = faults::on_this_thread(None);
//! write(&path, b"1")?;
//! let operations = faults.operations();
//! drop(faults);
//! for operation in 1..=operations {
//!     let _faults = faults::on_this_thread(Some(operation));
//!     assert!(write(&path, b"2").is_err());
//!     let found = std::fs::read(&path)?;
//!     assert!(found == b"1" || found == b"2");
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::cell::Cell;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::io::Errno;

use crate::system::Operation;

pub(crate) mod disk;

thread_local! {
    /// Operations of a test on this thread, and the one that fails; none where there is no test.
    static TEST: Cell<Option<(u64, Option<u64>)>> = const { Cell::new(None) };
}

/// Operations of the process outside of such tests.
static OPERATIONS: AtomicU64 = AtomicU64::new(0);

/// Fault at an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Error,
    Abort,
    Torn,
    PowerLoss,
    Stall,
}

struct Environment {
    fault: Fault,
    at: Option<u64>,
    /// How power is lost, or for how many seconds the disk stalls.
    way: Option<u64>,
    log: Option<std::path::PathBuf>,
}

static ENVIRONMENT: LazyLock<Environment> = LazyLock::new(|| {
    let text = std::env::var("SIMPLEMIX_FAULT").unwrap_or_default();
    let (fault, number) = match text.split_once(':') {
        Some(("abort", number)) => (Fault::Abort, number),
        Some(("torn", number)) => (Fault::Torn, number),
        Some(("powerloss", number)) => (Fault::PowerLoss, number),
        Some(("stall", number)) => (Fault::Stall, number),
        _ => (Fault::Error, text.as_str()),
    };
    let (number, way) = number.split_once(':').map_or((number, None), |(number, way)| (number, way.parse().ok()));
    Environment { fault, at: number.parse().ok(), way, log: std::env::var_os("SIMPLEMIX_FAULT_LOG").map(Into::into) }
});

/// Counts the operations of this thread from 1, and makes the one numbered `fail_at` fail, until the result is dropped.
#[must_use]
pub fn on_this_thread(fail_at: Option<u64>) -> Faults {
    TEST.set(Some((0, fail_at)));
    Faults(())
}

/// A test's count of operations, see [`on_this_thread`].
#[derive(Debug)]
pub struct Faults(());

impl Faults {
    /// Number of operations so far.
    pub fn operations(&self) -> u64 {
        TEST.get().map_or(0, |(count, _)| count)
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        TEST.set(None);
    }
}

/// Number of operations of this process so far, without those of [`on_this_thread`].
pub fn operations() -> u64 {
    OPERATIONS.load(Ordering::SeqCst)
}

pub(crate) fn before(operation: Operation, path: &Path, tear: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
    if let Some((count, fail_at)) = TEST.get() {
        TEST.set(Some((count + 1, fail_at)));
        return if fail_at == Some(count + 1) { Err(error(operation)) } else { Ok(()) };
    }
    let environment = &*ENVIRONMENT;
    if let Some(log) = &environment.log {
        let name = format!("{operation:?}").to_lowercase();
        let mut file = OpenOptions::new().create(true).append(true).open(log)?;
        file.write_all(format!("{name} {}\n", path.display()).as_bytes())?;
    }
    let number = OPERATIONS.fetch_add(1, Ordering::SeqCst) + 1;
    if environment.at != Some(number) {
        return Ok(());
    }
    match environment.fault {
        Fault::Error => return Err(error(operation)),
        Fault::Stall => {
            std::thread::sleep(Duration::from_secs(environment.way.unwrap_or(1)));
            return Ok(());
        }
        Fault::Abort => {}
        Fault::Torn => tear()?,
        Fault::PowerLoss => disk::lose_power(environment.way.unwrap_or(number)),
    }
    std::process::abort()
}

fn error(operation: Operation) -> io::Error {
    match operation {
        Operation::Create | Operation::Write => Errno::NOSPC.into(),
        Operation::Sync | Operation::Rename | Operation::Remove => Errno::IO.into(),
    }
}
