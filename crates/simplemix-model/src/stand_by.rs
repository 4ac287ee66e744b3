//! Threads that stand by between the short tasks of decoding.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

thread_local! {
    static TEAM: RefCell<Option<Team>> = const { RefCell::new(None) };
}

/// While it lives, threads stand by for [`for_all`] on this thread, and libtorch uses this thread alone.
///
/// A step of decoding has some hundred products of some tens of microseconds each: about the time that rayon takes to wake
/// a thread. These threads do not sleep between products, so they exist only while rows are decoded. They yield to whatever
/// else the machine has to do, and no task waits for a thread that has not begun a part of it.
pub(crate) struct StandBy {
    threads: i32,
}

impl StandBy {
    pub(crate) fn new() -> Self {
        let threads = tch::get_num_threads();
        tch::set_num_threads(1);
        // Without a team this thread does all the work.
        TEAM.set(usize::try_from(threads).ok().filter(|&n| n > 1).and_then(|n| Team::start(n - 1).ok()));
        Self { threads }
    }
}

impl Drop for StandBy {
    fn drop(&mut self) {
        TEAM.take();
        tch::set_num_threads(self.threads);
    }
}

/// Runs `work` once on every part, on this thread and those that stand by for it.
pub(crate) fn for_all<T: Send>(parts: Vec<T>, work: impl Fn(T) + Sync) {
    TEAM.with_borrow(|team| match team {
        Some(team) if parts.len() > 1 => {
            let parts: Vec<Mutex<Option<T>>> = parts.into_iter().map(|part| Mutex::new(Some(part))).collect();
            let next = AtomicUsize::new(0);
            team.run(&|| {
                while let Some(part) = parts.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Some(part) = locked(part).take() {
                        work(part);
                    }
                }
            });
        }
        _ => parts.into_iter().for_each(work),
    });
}

/// A job that any number of threads may run at once: each takes parts until none are left.
type Job<'a> = &'a (dyn Fn() + Sync + 'a);

/// Threads with their work.
#[derive(Debug)]
struct Team {
    desk: Arc<Desk>,
    threads: Vec<JoinHandle<()>>,
}

/// Place where threads look for work.
#[derive(Default)]
struct Desk {
    job: Mutex<Option<Job<'static>>>,
    /// Number of jobs so far.
    jobs: AtomicU64,
    /// Threads inside of the job. One enters with the lock of `job` only.
    inside: AtomicUsize,
    has_panicked: AtomicBool,
    is_over: AtomicBool,
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").field("jobs", &self.jobs).field("inside", &self.inside).finish_non_exhaustive()
    }
}

impl Team {
    fn start(threads: usize) -> std::io::Result<Self> {
        let mut team = Self { desk: Arc::default(), threads: Vec::new() };
        for _ in 0..threads {
            let desk = team.desk.clone();
            team.threads.push(std::thread::Builder::new().name("decode".to_owned()).spawn(move || desk.stand_by())?);
        }
        Ok(team)
    }

    /// Runs `job` on this thread, and on others that come in time.
    fn run(&self, job: Job<'_>) {
        #[expect(unsafe_code, reason = "threads that outlive the job run it")]
        // SAFETY: no thread has the reference once `Open` is dropped, which happens before this function ends in any way:
        // threads copy it with the lock held and are then counted as inside, and `Open` takes it away and waits for them.
        let lasting = unsafe { std::mem::transmute::<Job<'_>, Job<'static>>(job) };
        *locked(&self.desk.job) = Some(lasting);
        let open = Open(&self.desk);
        self.desk.jobs.fetch_add(1, Ordering::Release);
        job();
        drop(open);
        assert!(!self.desk.has_panicked.swap(false, Ordering::Relaxed), "a thread panicked in its part");
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.desk.is_over.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            // Panics inside of jobs are caught and told to the job's owner.
            let _ = thread.join();
        }
    }
}

/// A job at the desk; taken away again at the end.
struct Open<'a>(&'a Desk);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        *locked(&self.0.job) = None;
        wait_for(|| self.0.inside.load(Ordering::Acquire) == 0);
    }
}

impl Desk {
    /// Does jobs until the team is over.
    fn stand_by(&self) {
        let mut seen = 0;
        loop {
            wait_for(|| self.jobs.load(Ordering::Acquire) != seen || self.is_over.load(Ordering::Acquire));
            if self.is_over.load(Ordering::Acquire) {
                return;
            }
            seen = self.jobs.load(Ordering::Acquire);
            let Some(job) = self.enter() else { continue };
            if catch_unwind(AssertUnwindSafe(job)).is_err() {
                self.has_panicked.store(true, Ordering::Relaxed);
            }
            self.inside.fetch_sub(1, Ordering::Release);
        }
    }

    fn enter(&self) -> Option<Job<'static>> {
        let job = locked(&self.job);
        if job.is_some() {
            self.inside.fetch_add(1, Ordering::Relaxed);
        }
        *job
    }
}

/// Rounds of waiting before a thread lets others have the processor: about as long as the work between two products.
const ROUNDS: usize = 300;

fn wait_for(is_so: impl Fn() -> bool) {
    for _ in 0..ROUNDS {
        if is_so() {
            return;
        }
        std::hint::spin_loop();
    }
    while !is_so() {
        std::thread::yield_now();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_worked_on_once() {
        let count = || {
            let mut numbers = vec![0u32; 1000];
            for_all(numbers.iter_mut().enumerate().collect(), |(i, number)| *number += i as u32);
            assert!(numbers.iter().enumerate().all(|(i, number)| *number == i as u32));
        };
        count();
        let _standing_by = StandBy::new();
        (0..1000).for_each(|_| count());
    }

    #[test]
    fn several_threads_work_at_once() {
        let team = Team::start(3).unwrap();
        for _ in 0..50 {
            let arrived = AtomicUsize::new(0);
            // Nobody leaves before all four are there.
            team.run(&|| {
                arrived.fetch_add(1, Ordering::Relaxed);
                wait_for(|| arrived.load(Ordering::Relaxed) >= 4);
            });
            assert_eq!(arrived.into_inner(), 4);
        }
    }

    #[test]
    fn a_panic_in_a_part_reaches_the_one_who_asked() {
        let team = Team::start(1).unwrap();
        let owner = std::thread::current().id();
        let arrived = AtomicUsize::new(0);
        let run = || {
            team.run(&|| {
                arrived.fetch_add(1, Ordering::Relaxed);
                wait_for(|| arrived.load(Ordering::Relaxed) >= 2);
                assert_eq!(std::thread::current().id(), owner, "only the owner's part ends well");
            });
        };
        assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
    }
}
