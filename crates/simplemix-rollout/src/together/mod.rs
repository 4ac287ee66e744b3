//! Sampling and scoring that several processes share.
//!
//! The first process does what one does alone: it reads prompts and candidates, keeps the journal and writes the output. Where a
//! model has work it tells the others, and each does its part: of responses whole groups, of scores whole batches, which are those
//! of one process. So the bytes of a file do not depend on the number of processes, a journal that three have begun goes on with
//! one, and what was under way when a process was killed is done again. A file for each process would have to be merged, and would
//! tie unfinished work to their number.

mod sampling;
mod scoring;
#[cfg(test)]
mod tests;

use std::rc::Rc;

use serde::{Deserialize, Serialize};
use simplemix_data::Watch;

use self::sampling::{SharedGenerator, sampled};
pub(crate) use self::scoring::by_group;
use self::scoring::{scored, shared_scorer};
use crate::error::{Error, Result};
use crate::generator::{Generator, Job, SamplingConfig};
use crate::journal::json;
use crate::score::Weighted;
use crate::scorer::Group;

/// The processes of this work, each of which has the same generator and scorers.
pub trait Peers {
    /// Number of this process, from 0.
    fn rank(&self) -> usize;

    /// Number of processes.
    fn size(&self) -> usize;

    /// Text of the first process, for which all others wait.
    ///
    /// # Errors
    /// [`Error::Process`] if another process has failed.
    fn told(&self, text: &str) -> Result<String>;

    /// Texts of all processes, in their order.
    ///
    /// # Errors
    /// [`Error::Process`] if another process has failed.
    fn texts(&self, own: &str) -> Result<Vec<String>>;

    /// Sees that `value` is the same for all.
    ///
    /// # Errors
    /// [`Error::Process`] with what differs.
    fn agree(&self, what: &str, value: &str) -> Result<()>;

    /// Tells the others what this process does, which may take any time.
    fn does(&self, text: &str);
}

/// Part of some work that a process does: every `of`-th batch from the batch `first`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// First batch of the process.
    pub first: usize,
    /// Number of processes.
    pub of: usize,
}

impl Part {
    /// All of the work.
    pub const WHOLE: Self = Self { first: 0, of: 1 };

    /// The process's own of all batches.
    pub fn own<T>(self, batches: impl IntoIterator<Item = T>) -> impl Iterator<Item = T> {
        batches.into_iter().skip(self.first).step_by(self.of)
    }
}

/// Request of the first process to all.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Order {
    /// Responses to a group of prompts by each process.
    Sample { sampling: SamplingConfig, groups: Vec<Vec<Job>> },
    /// Scores of a scorer, each process its batches.
    Score { scorer: usize, groups: Vec<Group> },
    /// No more: the work is done, or was interrupted.
    End { is_interrupted: bool },
}

/// Results of a process for an order; none if it was interrupted.
type Done<T> = Option<Vec<T>>;

/// Does work with a generator and scorers, which the processes of `peers` share, or alone without peers. In the first process
/// `first` does the work and gives its result; the others do their parts of it until it is done.
///
/// # Errors
/// Those of `first`; [`Error::Interrupted`] if any process was interrupted; [`Error::Process`] if another one has failed, or has
/// another model.
pub fn together<R>(
    peers: Option<Rc<dyn Peers>>,
    generator: Option<Box<dyn Generator>>,
    scorers: Vec<Weighted>,
    watch: &mut dyn Watch,
    first: impl FnOnce(Option<&mut dyn Generator>, &mut [Weighted], &mut dyn Watch) -> Result<R>,
) -> Result<Option<R>> {
    let (mut generator, mut scorers) = (generator, scorers);
    let Some(peers) = peers.filter(|peers| peers.size() > 1) else {
        let generator: Option<&mut dyn Generator> = match &mut generator {
            Some(generator) => Some(generator.as_mut()),
            None => None,
        };
        return first(generator, &mut scorers, watch).map(Some);
    };
    agree(peers.as_ref(), generator.as_deref(), &scorers)?;
    if peers.rank() > 0 {
        serve(peers.as_ref(), generator, &mut scorers, watch)?;
        return Ok(None);
    }
    peers.does("reading");
    let mut shared = generator.map(|inner| SharedGenerator::new(inner, &peers));
    let mut scorers: Vec<Weighted> = scorers.into_iter().enumerate().map(|each| shared_scorer(each, &peers)).collect();
    let generator: Option<&mut dyn Generator> = match &mut shared {
        Some(shared) => Some(shared),
        None => None,
    };
    let result = first(generator, &mut scorers, watch);
    // The others hear of another failure as this process ends.
    if matches!(result, Ok(_) | Err(Error::Interrupted)) {
        peers.told(&json(&Order::End { is_interrupted: result.is_err() }))?;
    }
    result.map(Some)
}

/// Sees that all processes have the same models.
fn agree(peers: &dyn Peers, generator: Option<&dyn Generator>, scorers: &[Weighted]) -> Result<()> {
    if let Some(generator) = generator {
        peers.agree("the generator", &generator.fingerprint())?;
    }
    for (number, weighted) in scorers.iter().enumerate() {
        let what = format!("scorer {} ({})", number + 1, weighted.scorer.name());
        peers.agree(&what, &weighted.scorer.fingerprint())?;
    }
    Ok(())
}

/// Does this process's parts until the first process has no more.
fn serve(
    peers: &dyn Peers,
    mut generator: Option<Box<dyn Generator>>,
    scorers: &mut [Weighted],
    watch: &dyn Watch,
) -> Result<()> {
    loop {
        let order = peers.told("")?;
        let done = match serde_json::from_str(&order).expect("the first process writes an order") {
            Order::End { is_interrupted: false } => return Ok(()),
            Order::End { is_interrupted: true } => return Err(Error::Interrupted),
            Order::Sample { sampling, groups } => {
                let generator = generator.as_mut().expect("all processes have the same generator");
                let group = groups.into_iter().nth(peers.rank()).unwrap_or_default();
                let above = sampling::Above::Watch(watch);
                json(&sampled(generator.as_mut(), group, &sampling, (peers, above))?)
            }
            Order::Score { scorer, groups } => {
                let above = scoring::Above::Watch(watch);
                json(&scored(scorers[scorer].scorer.as_mut(), &groups, (peers, above))?)
            }
        };
        peers.texts(&done)?;
    }
}

/// Parts of all processes; an error if one was interrupted, after what the others have is given to `keep`.
fn parts<T: serde::de::DeserializeOwned>(
    peers: &dyn Peers,
    own: &Done<T>,
    mut keep: impl FnMut(Vec<T>) -> Result<()>,
) -> Result<()>
where
    Done<T>: Serialize,
{
    let texts = peers.texts(&json(own))?;
    peers.does("keeping what is done");
    let mut is_whole = true;
    for text in texts {
        match serde_json::from_str::<Done<T>>(&text).expect("every process writes its part") {
            Some(part) if !part.is_empty() => keep(part)?,
            Some(_) => {}
            None => is_whole = false,
        }
    }
    if is_whole { Ok(()) } else { Err(Error::Interrupted) }
}
