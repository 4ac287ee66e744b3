//! Gradients that processes add up while a backward pass still runs, as PyTorch's DistributedDataParallel does (Li et al. 2020,
//! arXiv:2006.15704).
//!
//! Only the last pass of an update sends; passes before it add up here. All processes begin the buckets in one order: each when
//! the gradients of its parameters are final and the bucket before it is begun, and what is left at the end. Sums are those of
//! buckets that are begun at the end, bit by bit.
//!
//! Whether a gradient is final is known from how often a pass comes to its parameter, which the first update shows: once for most,
//! never for a head whose loss adds to `.grad` itself before the pass, and once for one that is the embedding too.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use simplemix_torch::group::{Group, Work};
use simplemix_torch::{Watched, watch_gradients};
use tch::Tensor;

use crate::buckets::Bucket;
use crate::error::{Error, Result};
use crate::team::Team;

const DOING: &str = "adding up gradients";

/// Sums of gradients under way.
#[derive(Debug)]
pub(crate) struct Sending {
    state: Arc<Mutex<State>>,
    /// Gone before the state that it tells.
    _watched: Watched,
}

/// Gradients that are added up in one call.
#[derive(Debug)]
pub(crate) struct Sum {
    pub(crate) gradients: Tensor,
    /// First entry and number of entries of this process's part, if it needs no more.
    pub(crate) part: Option<(i64, i64)>,
}

#[derive(Debug)]
struct State {
    group: Arc<Group>,
    sums: Vec<Sum>,
    /// Name and bucket of each parameter, in the buckets' order.
    parameters: Vec<(String, usize)>,
    /// Number of times that the last pass of an update comes to each parameter, once an update has shown it.
    expected: Option<Vec<u32>>,
    /// Number of times that it has come by now.
    seen: Vec<u32>,
    /// Whether the last pass runs.
    is_last: bool,
    /// Parameters of each bucket to which the pass is still to come.
    missing: Vec<usize>,
    /// Buckets that are begun, from the first.
    begun: Vec<Work>,
    failure: Option<Error>,
}

impl Sending {
    /// Sums of `buckets` of `parameters`; none for a process alone.
    pub(crate) fn new(parameters: &[(String, Tensor)], buckets: &[Bucket], team: &Team) -> Result<Option<Self>> {
        let Some(group) = team.shared_group() else { return Ok(None) };
        let place = |(bucket, number): (usize, usize)| (parameters[number].0.clone(), bucket);
        let places =
            || buckets.iter().enumerate().flat_map(|(at, bucket)| bucket.parameters().map(move |number| (at, number)));
        let leaves: Vec<&Tensor> = places().map(|(_, number)| &parameters[number].1).collect();
        let state = Arc::new(Mutex::new(State {
            group,
            sums: buckets.iter().map(|bucket| bucket.sum(team)).collect(),
            parameters: places().map(place).collect(),
            expected: None,
            seen: vec![0; leaves.len()],
            is_last: false,
            missing: Vec::new(),
            begun: Vec::new(),
            failure: None,
        }));
        let told = Arc::clone(&state);
        let watched = watch_gradients(&leaves, move |parameter| lock(&told).comes_to(parameter))?;
        Ok(Some(Self { state, _watched: watched }))
    }

    /// The next backward pass is the last one of the update.
    pub(crate) fn begin_last(&self) {
        lock(&self.state).begin_last();
    }

    /// Begins the buckets that are not begun.
    pub(crate) fn begin_rest(&self) -> Result<()> {
        lock(&self.state).begin_rest()
    }

    /// Begins the buckets that are not begun, and waits for all.
    pub(crate) fn finish(&self) -> Result<()> {
        self.begin_rest()?;
        self.wait()
    }

    /// Waits for the buckets that are begun.
    pub(crate) fn wait(&self) -> Result<()> {
        let begun = std::mem::take(&mut lock(&self.state).begun);
        begun.into_iter().try_for_each(|work| Ok(work.wait()?))
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn begin_last(&mut self) {
        self.is_last = true;
        self.seen.fill(0);
        self.missing = vec![0; self.sums.len()];
        for ((_, bucket), &times) in self.parameters.iter().zip(self.expected.iter().flatten()) {
            self.missing[*bucket] += usize::from(times > 0);
        }
    }

    /// Takes note of a parameter whose gradient a pass has added.
    fn comes_to(&mut self, parameter: usize) {
        if !self.is_last || self.failure.is_some() {
            return;
        }
        self.seen[parameter] += 1;
        let (times, Some(expected)) = (self.seen[parameter], &self.expected) else { return };
        let (name, bucket) = &self.parameters[parameter];
        if *bucket < self.begun.len() {
            self.failure = Some(Error::LateGradient { name: name.clone(), times, expected: expected[parameter] });
            return;
        }
        if times == expected[parameter] {
            self.missing[*bucket] -= 1;
        }
        self.begin_whole();
    }

    /// Begins the buckets whose gradients are final, up to the first one whose are not.
    fn begin_whole(&mut self) {
        while self.missing.get(self.begun.len()) == Some(&0) {
            match self.begin(self.begun.len()) {
                Ok(work) => self.begun.push(work),
                Err(error) => {
                    self.failure = Some(error);
                    return;
                }
            }
        }
    }

    fn begin(&self, bucket: usize) -> Result<Work> {
        let Sum { gradients, part } = &self.sums[bucket];
        Ok(match part {
            None => self.group.all_reduce(gradients, DOING)?,
            Some((first, count)) => {
                self.group.reduce_scatter(&gradients.narrow(0, *first, *count), gradients, DOING)?
            }
        })
    }

    fn begin_rest(&mut self) -> Result<()> {
        if self.is_last && self.expected.is_none() {
            self.expected = Some(self.seen.clone());
        }
        self.is_last = false;
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        for bucket in self.begun.len()..self.sums.len() {
            let work = self.begin(bucket)?;
            self.begun.push(work);
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "sending_tests.rs"]
mod tests;
