//! Signs of life of the processes of a group, from which follows who has failed.
//!
//! Each rank tells the store twice a second that it lives and what it does, and looks whether another has failed. A rank that
//! fails leaves the reason there and ends; the others stop at once, wherever they wait. Where a connection breaks or nothing
//! comes, the rank is named whose signs have stopped, or that has not come to what the others wait for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::native;
use super::place::Place;
use super::store::{AGENT, Store};
use crate::error::{Error, Result};

/// Time between two signs of life.
const BEAT: Duration = Duration::from_millis(500);
/// Time that a rank may give no sign before its end is presumed where a connection has broken.
const SILENCE: Duration = Duration::from_millis(1800);
/// Time from which work under way is looked at closely, or a quarter of the limit if that is less.
const SLOW: Duration = Duration::from_secs(3);
/// Time that the keeper of the store waits for the others before it takes the store away.
const FAREWELL: Duration = Duration::from_secs(3);

/// Knowledge of the other processes of a group.
#[derive(Debug)]
pub(super) struct Fellows {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    place: Place,
    limit: Duration,
    state: Mutex<State>,
    changed: Condvar,
    ends: AtomicBool,
    groups: Mutex<Vec<Arc<native::Group>>>,
}

#[derive(Debug, Default)]
struct State {
    doing: Doing,
    failure: Option<Failure>,
    /// Whether work of this rank has failed, and the reason is looked for.
    is_broken: bool,
    /// Time from which this rank waits for what others have to tell.
    waiting: Option<Instant>,
}

/// Occupation of a rank.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Doing {
    /// Number of work that the group was given by this rank.
    given: u64,
    /// Whether it may take any time.
    is_slow: bool,
    text: String,
}

/// The first failure that a rank has learnt of.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Failure {
    /// A rank has failed, ended or not come.
    Rank { rank: usize, found: String },
    /// The store does not answer.
    Store { who: &'static str, text: String },
}

/// A rank's sign of life as another one sees it.
#[derive(Debug, Clone)]
struct Sign {
    text: String,
    since: Instant,
    doing: Doing,
    doing_since: Instant,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Failure {
    fn to_error(&self, place: &Place) -> Error {
        match self.clone() {
            Self::Rank { rank, found } => Error::Rank { rank, found },
            Self::Store { who, text } => Error::Store { who, address: place.address.clone(), port: place.port, text },
        }
    }
}

impl Doing {
    fn to_text(&self, beat: u64) -> String {
        format!("{beat}\t{}\t{}\t{}", self.given, u8::from(self.is_slow), self.text)
    }

    fn of_text(text: &str) -> Self {
        let mut parts = text.splitn(4, '\t').skip(1);
        let given = parts.next().and_then(|given| given.parse().ok()).unwrap_or(0);
        let is_slow = parts.next() == Some("1");
        Self { given, is_slow, text: parts.next().unwrap_or_default().to_owned() }
    }
}

impl Fellows {
    /// Gives signs of life from now on.
    pub(super) fn begin(place: &Place, store: &Store, limit: Duration) -> Result<Self> {
        let shared = Arc::new(Shared {
            place: place.clone(),
            limit,
            state: Mutex::new(State {
                doing: Doing { text: "starting".to_owned(), ..Doing::default() },
                ..State::default()
            }),
            changed: Condvar::new(),
            ends: AtomicBool::new(false),
            groups: Mutex::new(Vec::new()),
        });
        let (store, watched) = (store.again()?, Arc::clone(&shared));
        let thread = std::thread::Builder::new().name("signs-of-life".to_owned());
        let thread = thread.spawn(move || Watch::new(&watched, store).run())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    pub(super) fn limit(&self) -> Duration {
        self.shared.limit
    }

    /// A group to be ended at a failure.
    pub(super) fn add(&self, group: &Arc<native::Group>) {
        lock(&self.shared.groups).push(Arc::clone(group));
    }

    /// Tells what this rank does from now on, and whether it may take any time.
    pub(super) fn does(&self, text: &str, is_slow: bool) {
        let mut state = lock(&self.shared.state);
        state.doing.text = text.to_owned();
        state.doing.is_slow = is_slow;
    }

    /// Counts work that the group is given, and returns its number; whoever has given less is behind. Work that may take any time
    /// still may, such as a file whose tensors are gathered one after the other.
    pub(super) fn gives(&self, text: &str) -> u64 {
        let mut state = lock(&self.shared.state);
        state.doing.given += 1;
        state.doing.text = text.to_owned();
        state.doing.given
    }

    /// Says whether this rank waits for what others have to tell.
    pub(super) fn waits(&self, waits: bool) {
        lock(&self.shared.state).waiting = waits.then(super::now);
    }

    /// An error if a failure of a rank is known by now.
    pub(super) fn check(&self) -> Result<()> {
        let failure = lock(&self.shared.state).failure.clone();
        failure.map_or(Ok(()), |failure| Err(failure.to_error(&self.shared.place)))
    }

    /// The failure behind `error`, for which the signs of all are looked at for a while.
    pub(super) fn blame(&self, error: Error) -> Error {
        let end = super::now() + SILENCE * 3;
        let mut state = lock(&self.shared.state);
        state.is_broken = true;
        loop {
            if let Some(failure) = &state.failure {
                return failure.to_error(&self.shared.place);
            }
            let Some(left) = end.checked_duration_since(super::now()) else { return error };
            let waited = self.shared.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Tells all others that this rank fails, and why: for a reason of its own, or for another rank, which is named then.
    pub(super) fn fail(&self, store: &Store, reason: &str) {
        let (rank, found) = match lock(&self.shared.state).failure.clone() {
            Some(Failure::Rank { rank, found }) => (rank, found),
            _ => (self.shared.place.rank, format!("failed: {reason}")),
        };
        // Nobody else is left to tell where the store does not answer.
        let _ = store.tell_failure(rank, &found);
        if self.shared.place.keeps_store() {
            // This rank's own thread hears it too.
            let all = self.shared.place.size as i64;
            wait_until(FAREWELL, || store.add("heard", 0).map_or(true, |heard| heard >= all));
        }
    }

    /// Waits until all others are done with the store, which ends with the process that keeps it.
    pub(super) fn leave(&self, store: &Store) -> Result<()> {
        store.add("left", 1)?;
        if self.shared.place.keeps_store() {
            let all = self.shared.place.size as i64;
            wait_until(self.shared.limit, || store.add("left", 0).map_or(true, |left| left >= all));
        }
        Ok(())
    }
}

impl Drop for Fellows {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A thread that panicked has nothing more to say.
            let _ = thread.join();
        }
    }
}

fn wait_until(limit: Duration, mut is_done: impl FnMut() -> bool) {
    let end = super::now() + limit;
    while !is_done() && super::now() < end {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The thread that gives signs of life and looks for those of others.
struct Watch<'a> {
    shared: &'a Shared,
    /// Time from which work under way is looked at closely, and time from then on until it is too late.
    slow: Duration,
    patience: Duration,
    store: Store,
    beat: u64,
    signs: Vec<Option<Sign>>,
    /// Time from which the store has not answered.
    silent: Option<Instant>,
    /// Time from which a group has an error.
    broken: Option<Instant>,
}

impl<'a> Watch<'a> {
    fn new(shared: &'a Shared, store: Store) -> Self {
        let slow = SLOW.min(shared.limit / 4);
        let (patience, signs) = (shared.limit - slow, vec![None; shared.place.size]);
        Self { shared, slow, patience, store, beat: 0, signs, silent: None, broken: None }
    }

    fn run(mut self) {
        while !self.shared.ends.load(Ordering::Relaxed) {
            let found = self.look();
            if let Some(failure) = self.judge(found) {
                self.end_all(failure);
                return;
            }
            std::thread::park_timeout(BEAT);
        }
    }

    /// Gives a sign and looks for a failure.
    fn look(&mut self) -> Result<Option<Failure>> {
        self.beat += 1;
        let (doing, is_broken) = {
            let state = lock(&self.shared.state);
            (state.doing.clone(), state.is_broken)
        };
        self.store.set(&format!("sign/{}", self.shared.place.rank), &doing.to_text(self.beat))?;
        if let Some((rank, found)) = self.store.told_failure()? {
            self.store.add("heard", 1)?;
            return Ok(Some(Failure::Rank { rank, found }));
        }
        let pending = match self.pending() {
            Ok(pending) => pending,
            Err(error) => return self.behind(&error),
        };
        if !is_broken && pending < self.slow {
            // Signs that were seen before would look old.
            self.signs.fill(None);
            return Ok(None);
        }
        self.read_signs()?;
        Ok(if is_broken { self.silent_rank(SILENCE) } else { self.late_rank(&doing, pending) })
    }

    /// The failure behind an error of a group that none of its calls has met, as of a GPU's connection: another rank's end, else this
    /// rank's own.
    fn behind(&mut self, error: &Error) -> Result<Option<Failure>> {
        let since = *self.broken.get_or_insert_with(super::now);
        self.read_signs()?;
        if let Some(failure) = self.silent_rank(SILENCE) {
            return Ok(Some(failure));
        }
        if since.elapsed() < SILENCE * 3 {
            return Ok(None);
        }
        let (rank, found) = (self.shared.place.rank, format!("failed: {error}"));
        self.store.tell_failure(rank, &found)?;
        Ok(Some(Failure::Rank { rank, found }))
    }

    fn pending(&self) -> Result<Duration> {
        let told = lock(&self.shared.state).waiting.map_or(Duration::ZERO, |since| since.elapsed());
        let groups = lock(&self.shared.groups).clone();
        groups.iter().try_fold(told, |most, group| Ok(most.max(group.pending()?)))
    }

    fn read_signs(&mut self) -> Result<()> {
        for (rank, known) in self.signs.iter_mut().enumerate().filter(|(rank, _)| *rank != self.shared.place.rank) {
            let text = self.store.find(&format!("sign/{rank}"))?.unwrap_or_default();
            let (doing, now) = (Doing::of_text(&text), super::now());
            *known = Some(match known.take() {
                Some(sign) if sign.text == text => sign,
                Some(sign) if sign.doing == doing => Sign { text, since: now, ..sign },
                _ => Sign { text, since: now, doing, doing_since: now },
            });
        }
        Ok(())
    }

    fn known_signs(&self) -> impl Iterator<Item = (usize, &Sign)> {
        self.signs.iter().enumerate().filter_map(|(rank, sign)| Some((rank, sign.as_ref()?)))
    }

    /// A rank without a sign for so long.
    fn silent_rank(&self, silence: Duration) -> Option<Failure> {
        let (rank, sign) = self.known_signs().find(|(_, sign)| sign.since.elapsed() >= silence)?;
        let found = match sign.text.is_empty() {
            true => "has given no sign of life".to_owned(),
            false => format!(
                "has ended, was killed or stands still: no sign of life for {}; the last said: {}",
                seconds(sign.since.elapsed()),
                sign.doing.text
            ),
        };
        Some(Failure::Rank { rank, found })
    }

    /// A rank for which this one has waited too long, and which has done nothing new meanwhile.
    fn late_rank(&self, own: &Doing, pending: Duration) -> Option<Failure> {
        if let Some(failure) = self.silent_rank(self.patience.max(SILENCE)) {
            return Some(failure);
        }
        let behind = |(_, sign): &(usize, &Sign)| sign.doing.given < own.given;
        let (rank, sign) = self.known_signs().filter(behind).min_by_key(|(_, sign)| sign.doing.given)?;
        if sign.doing.is_slow || sign.doing_since.elapsed() < self.patience {
            return None;
        }
        let found = format!(
            "lives, and has not come to what rank {} has waited for {} ({}); it is at: {}",
            self.shared.place.rank,
            seconds(pending),
            own.text,
            sign.doing.text
        );
        Some(Failure::Rank { rank, found })
    }

    /// The failure that follows from what was seen, or from that nothing could be.
    fn judge(&mut self, found: Result<Option<Failure>>) -> Option<Failure> {
        let error = match found {
            Ok(found) => {
                self.silent = None;
                return found;
            }
            Err(error) => error,
        };
        let since = *self.silent.get_or_insert_with(super::now);
        let is_broken = lock(&self.shared.state).is_broken;
        // A store that is gone does not come back; one that does not answer in time may.
        let Error::Torch { text, .. } = error else { return None };
        let is_late = text.contains("imed out") || text.contains("timeout");
        if is_late && !is_broken && since.elapsed() < self.shared.limit {
            return None;
        }
        Some(match self.shared.place.is_kept_by_agent {
            true => Failure::Store { who: AGENT, text },
            false => {
                let found = format!("has ended, was killed or stands still: the store, which it keeps, says: {text}");
                Failure::Rank { rank: 0, found }
            }
        })
    }

    /// Ends all groups.
    fn end_all(&self, failure: Failure) {
        lock(&self.shared.state).failure.get_or_insert(failure);
        self.shared.changed.notify_all();
        for group in &*lock(&self.shared.groups) {
            // It has failed already.
            let _ = group.abort();
        }
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.0} s", time.as_secs_f64())
}
