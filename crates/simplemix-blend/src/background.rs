//! Work on another thread that reports to an observer on this one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use simplemix_data::Watch;

/// Interval at which the observer is asked whether to stop.
const POLL: Duration = Duration::from_millis(50);

/// The working thread's end.
#[derive(Clone)]
pub(crate) struct Reporter<'a> {
    sender: Sender<(u64, u64)>,
    stop: &'a AtomicBool,
}

impl Reporter<'_> {
    /// Reports that `done` of `total` units are done.
    pub(crate) fn progress(&self, done: u64, total: u64) {
        // The receiver exists until this end is dropped.
        let _ = self.sender.send((done, total));
    }

    /// Whether the observer wants the work to stop.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Runs `work` on another thread, reports its progress as `stage`, and passes on the wish to stop.
pub(crate) fn watched<T: Send>(watch: &mut dyn Watch, stage: &str, work: impl FnOnce(&Reporter<'_>) -> T + Send) -> T {
    let stop = AtomicBool::new(false);
    let (sender, progress) = channel();
    let reporter = Reporter { sender, stop: &stop };
    std::thread::scope(|scope| {
        let working = scope.spawn(move || work(&reporter));
        loop {
            match progress.recv_timeout(POLL) {
                Ok((done, total)) => watch.progress(stage, done, total),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            stop.store(watch.is_interrupted(), Ordering::Relaxed);
        }
        working.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Impatient(Vec<(u64, u64)>);

    impl Watch for Impatient {
        fn progress(&mut self, stage: &str, done: u64, total: u64) {
            assert_eq!(stage, "counting");
            self.0.push((done, total));
        }

        fn is_interrupted(&self) -> bool {
            self.0.len() >= 3
        }
    }

    #[test]
    fn progress_comes_to_the_observer_and_its_wish_to_the_work() {
        let mut watch = Impatient(Vec::new());
        let counted = watched(&mut watch, "counting", |reporter| {
            let mut count = 0;
            while !reporter.is_interrupted() {
                count += 1;
                reporter.progress(count.min(3), 3);
            }
            count
        });
        assert!(counted >= 3);
        assert_eq!(watch.0[..3], [(1, 3), (2, 3), (3, 3)]);
    }
}
