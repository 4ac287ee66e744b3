//! Many requests at the same time, on threads that wait for the server.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::error::{Error, Result};

/// Stack size of each thread. Memory is used only where the stack grows.
const STACK_BYTES: usize = 1 << 20;
/// Interval at which `stopped` is checked while no result arrives.
pub(super) const LOOK: Duration = Duration::from_millis(50);

/// Does `work` on `jobs`, at most `workers` at a time, and passes each result to `done` on the calling thread, in any order.
/// The second argument of `work` tells it when to give up waiting.
///
/// After the first error no further job is started. Results of running jobs are still passed on before the error is
/// returned, so that no finished work is lost. If `stopped` returns true, [`Error::Interrupted`] is returned at once and
/// results of running jobs are ignored.
pub(crate) fn in_parallel<J: Send + 'static, R: Send + 'static>(
    workers: usize,
    jobs: &mut dyn Iterator<Item = Result<J>>,
    work: impl Fn(J, &dyn Fn() -> bool) -> Result<R> + Send + Sync + 'static,
    stopped: &dyn Fn() -> bool,
    done: &mut dyn FnMut(R) -> Result<()>,
) -> Result<()> {
    let (to_workers, from_caller) = channel::<J>();
    let (to_caller, from_workers) = channel::<Result<R>>();
    let (from_caller, work, give_up) =
        (Arc::new(Mutex::new(from_caller)), Arc::new(work), Arc::new(AtomicBool::new(false)));
    // However this function ends, workers stop waiting.
    let _guard = GiveUp(give_up.clone());
    let (mut threads, mut running, mut failed) = (0, 0, None);
    let mut more = true;
    loop {
        while more && failed.is_none() && running < workers {
            match jobs.next() {
                Some(Ok(job)) => {
                    if threads == running {
                        let (from_caller, to_caller) = (from_caller.clone(), to_caller.clone());
                        let (work, give_up) = (work.clone(), give_up.clone());
                        start(move || serve(&from_caller, &to_caller, work.as_ref(), &give_up))?;
                        threads += 1;
                    }
                    // Sending cannot fail: this function holds the receiver.
                    let _ = to_workers.send(job);
                    running += 1;
                }
                Some(Err(error)) => failed = Some(error),
                None => more = false,
            }
        }
        if running == 0 {
            return failed.map_or(Ok(()), Err);
        }
        if stopped() {
            return Err(Error::Interrupted);
        }
        let result = match from_workers.recv_timeout(LOOK) {
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return Err(Error::Interrupted),
            Ok(result) => result,
        };
        running -= 1;
        if let Err(error) = result.and_then(&mut *done) {
            give_up.store(true, Ordering::Relaxed);
            // The first error is the cause; later ones may come from workers that gave up.
            failed.get_or_insert(error);
        }
    }
}

struct GiveUp(Arc<AtomicBool>);

impl Drop for GiveUp {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

pub(super) fn start(run: impl FnOnce() + Send + 'static) -> Result<()> {
    let builder = std::thread::Builder::new().name("simplemix-server".to_owned()).stack_size(STACK_BYTES);
    let failed = |error: std::io::Error| Error::Setting {
        key: "concurrency",
        found: format!("more than the system has threads for: {error}"),
        expected: "fewer requests at the same time",
    };
    builder.spawn(run).map(drop).map_err(failed)
}

fn serve<J, R>(
    jobs: &Mutex<Receiver<J>>,
    results: &Sender<Result<R>>,
    work: &(impl Fn(J, &dyn Fn() -> bool) -> Result<R> + ?Sized),
    give_up: &AtomicBool,
) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        if results.send(work(job, &|| give_up.load(Ordering::Relaxed))).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_job_is_done_once_and_never_too_many_at_a_time() {
        let (now, most) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(0)));
        let (now_too, most_too) = (now.clone(), most.clone());
        let work = move |job: usize, _: &dyn Fn() -> bool| {
            *now_too.lock().unwrap() += 1;
            let count = *now_too.lock().unwrap();
            let mut most = most_too.lock().unwrap();
            *most = count.max(*most);
            drop(most);
            std::thread::sleep(Duration::from_millis(job as u64 % 3));
            *now_too.lock().unwrap() -= 1;
            Ok(job)
        };
        let mut seen = Vec::new();
        in_parallel(4, &mut (0..100).map(Ok), work, &|| false, &mut |job| {
            seen.push(job);
            Ok(())
        })
        .unwrap();
        seen.sort_unstable();
        assert_eq!(seen, (0..100).collect::<Vec<_>>());
        assert!(*most.lock().unwrap() <= 4);
    }

    #[test]
    fn after_an_error_results_of_running_jobs_are_still_passed_on() {
        let work = |job: usize, _: &dyn Fn() -> bool| match job {
            3 => Err(Error::Interrupted),
            _ => {
                std::thread::sleep(Duration::from_millis(30));
                Ok(job)
            }
        };
        let mut seen = Vec::new();
        let ended = in_parallel(4, &mut (0..100).map(Ok), work, &|| false, &mut |job| {
            seen.push(job);
            Ok(())
        });
        assert!(ended.is_err());
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 2]);
    }

    #[test]
    fn stopping_does_not_wait_for_running_jobs() {
        let work = |job: usize, gives_up: &dyn Fn() -> bool| {
            while !gives_up() {
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(job)
        };
        let ended = in_parallel(2, &mut (0..100).map(Ok), work, &|| true, &mut |_| Ok(()));
        assert!(matches!(ended, Err(Error::Interrupted)));
    }
}
