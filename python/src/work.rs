//! Long work: off Python's lock, stopped by Ctrl-C, on threads that end with the call.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use pyo3::prelude::*;

use crate::failure::{Failure, Result};

/// Time between two looks for a signal.
const LOOK: Duration = Duration::from_millis(20);

/// The wish to stop, which work asks for at each safe point.
#[derive(Debug, Default)]
pub(crate) struct Stop(AtomicBool);

impl Stop {
    /// Fails once the work is to stop.
    pub(crate) fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) { Err(Failure::Interrupted(None)) } else { Ok(()) }
    }
}

/// Runs short work off Python's lock.
pub(crate) fn short<T: Send>(py: Python<'_>, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    py.detach(|| catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(broken(panic.as_ref()))))
}

/// Runs long work on a thread of its own, with a pool of rayon that ends with it: the global one would not survive a fork. Signals
/// are looked for meanwhile.
pub(crate) fn long<T: Send>(py: Python<'_>, work: impl FnOnce(&Stop) -> Result<T> + Send) -> Result<T> {
    let stop = Stop::default();
    py.detach(|| {
        std::thread::scope(|scope| {
            let (sender, done) = channel();
            let work_stop = &stop;
            scope.spawn(move || {
                let work = AssertUnwindSafe(|| match rayon::ThreadPoolBuilder::new().build() {
                    Ok(pool) => pool.install(|| work(work_stop)),
                    Err(error) => Err(Failure::of(&error)),
                });
                let result = catch_unwind(work).unwrap_or_else(|panic| Err(broken(panic.as_ref())));
                // The receiver waits until this has come.
                let _ = sender.send(result);
            });
            let mut raised = None;
            loop {
                match done.recv_timeout(LOOK) {
                    Ok(result) => return raised.map_or(result, |error| Err(Failure::Interrupted(Some(error)))),
                    Err(RecvTimeoutError::Disconnected) => return Err(Failure::Panic("a thread ended early".into())),
                    Err(RecvTimeoutError::Timeout) if raised.is_none() => {
                        if let Err(error) = Python::attach(|py| py.check_signals()) {
                            stop.0.store(true, Ordering::Relaxed);
                            raised = Some(error);
                        }
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                }
            }
        })
    })
}

/// Number of threads that work in pieces may use.
pub(crate) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// The results of `work` on each piece, in order, by as many threads as there are cores.
pub(crate) fn in_pieces<P: Send + Sync, T: Send>(
    pieces: &[P],
    work: impl Fn(&P) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let threads = threads().min(pieces.len());
    if threads < 2 {
        return pieces.iter().map(work).collect();
    }
    let next = std::sync::atomic::AtomicUsize::new(0);
    let done = std::thread::scope(|scope| {
        let run = || {
            let mut done = Vec::new();
            while let Some((number, piece)) = {
                let number = next.fetch_add(1, Ordering::Relaxed);
                pieces.get(number).map(|piece| (number, piece))
            } {
                let result = work(piece);
                let failed = result.is_err();
                done.push((number, result));
                if failed {
                    next.store(pieces.len(), Ordering::Relaxed);
                }
            }
            done
        };
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        let results = running.into_iter().map(|thread| thread.join().map_err(|panic| broken(panic.as_ref())));
        results.collect::<Result<Vec<_>>>()
    })?;
    let mut all: Vec<(usize, Result<T>)> = done.into_iter().flatten().collect();
    all.sort_unstable_by_key(|(number, _)| *number);
    all.into_iter().map(|(_, result)| result).collect()
}

fn broken(panic: &(dyn Any + Send)) -> Failure {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    Failure::Panic(text.unwrap_or("a panic without a text").to_owned())
}
