//! Execution of a plan's stages: one after the other, those of collecting on a second thread where they may run beside training.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use simplemix_data::{Metrics, Watch};

use crate::error::{Error, Result};
use crate::plan::Stage;
use crate::ranks::Ranks;
use crate::stage::Done;

/// Interval at which a thread that waits for a stage looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(50);

/// Whoever hears of each stage that is done: its position, its record, and whether an earlier run did it.
pub(crate) type Hears<'a> = dyn FnMut(usize, &Done, bool) + 'a;

/// Does all stages that are not done. Returns their records in the order of the stages.
///
/// `is_beside` marks the stages of the second thread. If one thread fails or is interrupted, the other one is, too; what each has done
/// is kept.
pub(crate) fn all(
    stages: &[Stage],
    is_beside: &[bool],
    ranks: Option<&mut (dyn Ranks + '_)>,
    watch: &mut dyn Watch,
    hears: &mut Hears<'_>,
) -> Result<Vec<Done>> {
    let board = Board::new(stages.len());
    let mut front = Front { board: &board, watch: RefCell::new(watch), hears: RefCell::new(hears) };
    let of_lane = |beside: bool| (0..stages.len()).filter(move |&at| is_beside[at] == beside);
    let (ahead, second) = if is_beside.contains(&true) {
        std::thread::scope(|scope| {
            let second = scope.spawn(|| {
                // A thread that panics or fails is not waited for.
                let mut guard = Stop { board: &board, is_whole: false };
                let ended = second_lane(stages, of_lane(true), &board);
                guard.is_whole = ended.is_ok();
                ended
            });
            let ahead = first_lane(stages, of_lane(false), ranks, &mut front);
            if ahead.is_err() {
                board.stop();
            }
            (ahead, second.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })
    } else {
        (first_lane(stages, of_lane(false), ranks, &mut front), Ok(()))
    };
    front.pass_on();
    match (ahead, second) {
        (Ok(()), Ok(())) => Ok(board.records()),
        // The other thread was interrupted because of it.
        (Err(error), _) if !error.is_interrupted() => Err(error),
        (_, Err(error)) | (Err(error), Ok(())) => Err(error),
    }
}

/// Stages on the calling thread.
fn first_lane(
    stages: &[Stage],
    positions: impl Iterator<Item = usize>,
    mut ranks: Option<&mut (dyn Ranks + '_)>,
    front: &mut Front<'_>,
) -> Result<()> {
    for at in positions {
        front.wait_for(&stages[at].after)?;
        let (done, was_done) = match stages[at].done() {
            Some(done) => (done, true),
            None => (stages[at].run(ranks.as_deref_mut(), front)?, false),
        };
        front.board.put(at, done, was_done);
        front.pass_on();
    }
    Ok(())
}

/// Stages on the second thread.
fn second_lane(stages: &[Stage], positions: impl Iterator<Item = usize>, board: &Board) -> Result<()> {
    for at in positions {
        while !board.wait_a_while(&stages[at].after) {
            if board.is_stopped() {
                return Err(Error::Interrupted);
            }
        }
        let (done, was_done) = match stages[at].done() {
            Some(done) => (done, true),
            None => (stages[at].run(None, &mut Far(board))?, false),
        };
        board.put(at, done, was_done);
    }
    Ok(())
}

/// State that the threads share.
struct Board {
    state: Mutex<State>,
    changed: Condvar,
    stop: AtomicBool,
}

#[derive(Default)]
struct State {
    records: Vec<Option<Done>>,
    /// Stages that nobody has heard of, and whether an earlier run did them.
    unheard: VecDeque<(usize, bool)>,
    /// Latest progress of the second thread.
    progress: Option<(String, u64, u64)>,
    /// Notices of the second thread.
    notices: Vec<String>,
}

/// Stops both threads when it is dropped, unless the work is whole.
struct Stop<'a> {
    board: &'a Board,
    is_whole: bool,
}

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        if !self.is_whole {
            self.board.stop();
        }
    }
}

impl Board {
    fn new(stages: usize) -> Self {
        let state = State { records: vec![None; stages], ..State::default() };
        Self { state: Mutex::new(state), changed: Condvar::new(), stop: AtomicBool::new(false) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, at: usize, done: Done, was_done: bool) {
        let mut state = self.state();
        state.records[at] = Some(done);
        state.unheard.push_back((at, was_done));
        self.changed.notify_all();
    }

    /// Whether all stages of `after` are done, for which it waits a little.
    fn wait_a_while(&self, after: &[usize]) -> bool {
        let lacks = |state: &State| after.iter().any(|&at| state.records[at].is_none());
        let waits = |state: &mut State| lacks(state) && !self.is_stopped();
        let waited = self.changed.wait_timeout_while(self.state(), LOOK, waits);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        !lacks(&state)
    }

    fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.changed.notify_all();
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    fn records(self) -> Vec<Done> {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        state.records.into_iter().flatten().collect()
    }
}

/// The observer, on its thread; it also hears of the second thread.
struct Front<'a> {
    board: &'a Board,
    watch: RefCell<&'a mut dyn Watch>,
    hears: RefCell<&'a mut Hears<'a>>,
}

impl Front<'_> {
    /// Tells what the second thread has told, and the stages that are done.
    fn pass_on(&self) {
        let (progress, notices, unheard) = {
            let mut state = self.board.state();
            let unheard: Vec<_> = std::mem::take(&mut state.unheard).into();
            let unheard: Vec<_> = unheard
                .into_iter()
                .filter_map(|(at, was_done)| Some((at, state.records[at].clone()?, was_done)))
                .collect();
            (state.progress.take(), std::mem::take(&mut state.notices), unheard)
        };
        let mut watch = self.watch.borrow_mut();
        notices.iter().for_each(|notice| watch.notice(notice));
        if let Some((stage, done, total)) = progress {
            watch.progress_beside(&stage, done, total);
        }
        for (at, done, was_done) in unheard {
            (self.hears.borrow_mut())(at, &done, was_done);
        }
    }

    /// Waits for the stages of `after`.
    fn wait_for(&self, after: &[usize]) -> Result<()> {
        while !self.board.wait_a_while(after) {
            self.pass_on();
            if self.is_interrupted() {
                return Err(Error::Interrupted);
            }
        }
        Ok(())
    }
}

impl Watch for Front<'_> {
    fn progress(&mut self, stage: &str, done: u64, total: u64) {
        self.pass_on();
        self.watch.borrow_mut().progress(stage, done, total);
    }

    fn metrics(&mut self, metrics: &Metrics<'_>) {
        self.pass_on();
        self.watch.borrow_mut().metrics(metrics);
    }

    fn notice(&mut self, text: &str) {
        self.watch.borrow_mut().notice(text);
    }

    fn is_interrupted(&self) -> bool {
        self.pass_on();
        let is_interrupted = self.watch.borrow().is_interrupted();
        if is_interrupted {
            self.board.stop();
        }
        is_interrupted || self.board.is_stopped()
    }
}

/// The second thread's end of the observer.
struct Far<'a>(&'a Board);

impl Watch for Far<'_> {
    fn progress(&mut self, stage: &str, done: u64, total: u64) {
        self.0.state().progress = Some((stage.to_owned(), done, total));
    }

    fn notice(&mut self, text: &str) {
        self.0.state().notices.push(text.to_owned());
    }

    fn is_interrupted(&self) -> bool {
        self.0.is_stopped()
    }
}
