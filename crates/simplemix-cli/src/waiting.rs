//! How libtorch's threads wait for work.
//!
//! libgomp lets a thread that waits for the others of its team spin for milliseconds. On a machine with other work, those
//! threads use up the time that the scheduler grants to the process, and the one that is waited for gets no processor. Asleep,
//! they cost a few hundredths of the speed where the machine has nothing else to do; docs/training.md has the figures.

use std::os::unix::process::CommandExt;
use std::process::Command;

/// Variables by which users say themselves how threads wait, of libgomp and of Intel's and LLVM's libraries.
const SETTINGS: [&str; 3] = ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"];

/// Starts the program anew with threads that sleep while they wait, unless the environment says how they do.
///
/// libgomp reads the variable before `main`, so this process cannot set it for itself. To be called before the process has
/// other threads, files or locks; it does not return if it succeeds.
pub(crate) fn sleep_while_waiting() {
    if SETTINGS.iter().any(|name| std::env::var_os(name).is_some()) {
        return;
    }
    let mut arguments = std::env::args_os();
    let (Ok(program), Some(name)) = (std::env::current_exe(), arguments.next()) else { return };
    let error = Command::new(program).arg0(name).args(arguments).env(SETTINGS[0], "PASSIVE").exec();
    tracing::warn!("threads spin while they wait, because the program could not be started again: {error}");
}
