//! Ctrl-C, SIGTERM and SIGHUP. Work that can be saved asks a flag; other work ends at once, and leaves no temporary file.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use nix::sys::signal::{SigSet, Signal, raise};

use crate::failure::{Fails, Result};
use crate::lines::warn;

static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// The flag. From the first call on, a signal sets it and does not end the program.
pub(crate) fn flag() -> Arc<AtomicBool> {
    FLAG.get_or_init(Arc::default).clone()
}

/// Hands signals to a thread that waits for them. To be called before there are other threads, which inherit what is blocked;
/// other programs that are started do not.
pub(crate) fn handle_signals() -> Result {
    // `nohup` lets programs live on when their terminal is closed, and a shell its jobs in the background at Ctrl-C.
    // Slurm warns of a job's end by SIGUSR1, where it is asked to.
    let all = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGUSR1];
    let handled: SigSet = all.into_iter().filter(|signal| !is_ignored(*signal)).collect();
    let mut blocked = handled;
    // A file beyond the limit of the shell's `ulimit -f` is then an error of writing.
    blocked.add(Signal::SIGXFSZ);
    blocked.thread_block().run()?;
    std::thread::spawn(move || {
        while let Ok(signal) = handled.wait() {
            match FLAG.get() {
                Some(flag) => flag.store(true, Ordering::SeqCst),
                None => end(handled, signal),
            }
        }
    });
    Ok(())
}

/// Ends the program by the signal, as if it was not handled.
fn end(handled: SigSet, signal: Signal) {
    simplemix_files::remove_temporaries();
    warn("stopped");
    // The signal ends the program before either returns.
    let _ = handled.thread_unblock().and_then(|()| raise(signal));
    std::process::abort();
}

/// Whether the program was started with a signal ignored; where the system does not tell, it was not.
fn is_ignored(signal: Signal) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal as i32 - 1) & 1 == 1)
}
