//! Threads that stand by between the short tasks of decoding.

use std::cell::RefCell;
use std::sync::{Mutex, PoisonError};

use fork_union::ThreadPool;

thread_local! {
    static TEAM: RefCell<Option<ThreadPool>> = const { RefCell::new(None) };
}

/// While it lives, threads stand by for [`for_all`] on this thread, and libtorch uses this thread alone.
///
/// A step of decoding has some hundred products of some tens of microseconds each: about the time that rayon takes to wake
/// a thread. These threads do not sleep between products, so they exist only while rows are decoded.
pub(crate) struct StandBy {
    threads: i32,
}

impl StandBy {
    pub(crate) fn new() -> Self {
        let threads = tch::get_num_threads();
        tch::set_num_threads(1);
        // Without a pool this thread does all the work.
        TEAM.set(usize::try_from(threads).ok().filter(|&n| n > 1).and_then(|n| ThreadPool::try_spawn(n).ok()));
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
    TEAM.with_borrow_mut(|team| match team {
        Some(team) if parts.len() > 1 => {
            let parts: Vec<Mutex<Option<T>>> = parts.into_iter().map(|part| Mutex::new(Some(part))).collect();
            let _ = team.for_n_dynamic(parts.len(), |prong| {
                let part = parts[prong.task_index].lock().unwrap_or_else(PoisonError::into_inner).take();
                work(part.expect("the pool runs every index once"));
            });
        }
        _ => parts.into_iter().for_each(work),
    });
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
        count();
    }
}
