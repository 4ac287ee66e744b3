//! Lines on the two standard streams. A pipe that is closed ends them quietly; any other failure to write the result is
//! kept for the end of the command.

use std::io::{ErrorKind, Write};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::failure::{Failure, Result};

/// Whether nobody reads standard output any more, or it cannot be written.
static IS_CLOSED: AtomicBool = AtomicBool::new(false);

/// The failure to write the result.
static FAILED: Mutex<Option<std::io::Error>> = Mutex::new(None);

/// A line of the command's result.
pub(crate) fn print(line: &str) {
    print_bytes(format!("{line}\n").as_bytes());
}

/// A part of the command's result as it is.
pub(crate) fn print_bytes(bytes: &[u8]) {
    if is_closed() {
        return;
    }
    let mut stream = std::io::stdout().lock();
    if let Err(error) = stream.write_all(bytes).and_then(|()| stream.flush()) {
        IS_CLOSED.store(true, Ordering::SeqCst);
        if error.kind() != ErrorKind::BrokenPipe {
            *FAILED.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        }
    }
}

/// A line beside the result. Where it cannot be written, there is no place to say so.
pub(crate) fn warn(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Whether further lines of the result would reach nobody.
pub(crate) fn is_closed() -> bool {
    IS_CLOSED.load(Ordering::SeqCst)
}

/// Fails if a line of the result could not be written, except into a closed pipe.
pub(crate) fn written() -> Result {
    match FAILED.lock().unwrap_or_else(PoisonError::into_inner).take() {
        None => Ok(()),
        Some(error) => Err(Failure::Run(anyhow::anyhow!("standard output: cannot write: {error}"))),
    }
}
