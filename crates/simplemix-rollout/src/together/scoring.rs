//! Batches of a scorer dealt to all processes.

use std::rc::Rc;

use simplemix_data::Watch;

use super::{Done, Order, Part, Peers, parts};
use crate::error::{Error, Result};
use crate::journal::json;
use crate::score::Weighted;
use crate::scorer::{Group, ScoreSink, Scorer};

/// A scorer whose batches are dealt to all processes, if it has batches.
pub(super) fn shared_scorer((number, mut weighted): (usize, Weighted), peers: &Rc<dyn Peers>) -> Weighted {
    if weighted.scorer.batched().is_none() {
        return weighted;
    }
    Weighted { scorer: Box::new(SharedScorer { inner: weighted.scorer, peers: Rc::clone(peers), number }), ..weighted }
}

struct SharedScorer {
    inner: Box<dyn Scorer>,
    peers: Rc<dyn Peers>,
    number: usize,
}

impl Scorer for SharedScorer {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn fingerprint(&self) -> String {
        self.inner.fingerprint()
    }

    fn template_date(&self) -> Option<String> {
        self.inner.template_date()
    }

    fn score(&mut self, groups: &[Group], sink: &mut dyn ScoreSink) -> Result<()> {
        self.peers.told(&json(&Order::Score { scorer: self.number, groups: groups.to_vec() }))?;
        let own = scored(self.inner.as_mut(), groups, (self.peers.as_ref(), Above::Sink(&mut *sink)))?;
        let mut scores = vec![None; groups.iter().map(|group| group.responses.len()).sum()];
        parts(self.peers.as_ref(), &own, |part| {
            part.into_iter().for_each(|(number, score)| scores[number] = score);
            Ok(())
        })?;
        sink.keep(by_group(groups, scores))
    }
}

/// Scores of all responses, each group's with its index.
pub(crate) fn by_group(groups: &[Group], scores: Vec<Option<f64>>) -> Vec<(usize, Vec<Option<f64>>)> {
    let mut scores = scores.into_iter();
    groups.iter().map(|group| scores.by_ref().take(group.responses.len()).collect()).enumerate().collect()
}

/// Number of a response among those of all groups, and its score; JSON has no NaN, which is none in the file as well.
pub(super) type Numbered = (usize, Option<f64>);

/// Scores of this process's batches.
pub(super) fn scored<'a>(
    scorer: &mut dyn Scorer,
    groups: &[Group],
    (peers, above): (&'a dyn Peers, Above<'a>),
) -> Result<Done<Numbered>> {
    let part = Part { first: peers.rank(), of: peers.size() };
    let batched = scorer.batched().expect("an order is for a scorer with batches");
    match batched.score_part(groups, part, &mut Own { peers, batches: 0, above }) {
        Ok(scores) => Ok(Some(scores.into_iter().map(|(number, score)| (number, Some(score))).collect())),
        Err(Error::Interrupted) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Signs of life while this process scores.
struct Own<'a> {
    peers: &'a dyn Peers,
    batches: u64,
    above: Above<'a>,
}

/// Who else hears of the scores of a process.
pub(super) enum Above<'a> {
    /// The receiver of all scores, in the first process.
    Sink(&'a mut dyn ScoreSink),
    /// Whoever may interrupt another process.
    Watch(&'a dyn Watch),
}

impl ScoreSink for Own<'_> {
    fn keep(&mut self, _: Vec<(usize, Vec<Option<f64>>)>) -> Result<()> {
        Ok(())
    }

    fn pending(&mut self) {
        self.batches += 1;
        self.peers.does(&format!("scoring: {} batches done", self.batches));
    }

    fn notice(&mut self, text: &str) {
        if let Above::Sink(sink) = &mut self.above {
            sink.notice(text);
        }
    }

    fn is_interrupted(&self) -> bool {
        match &self.above {
            Above::Sink(sink) => sink.is_interrupted(),
            Above::Watch(watch) => watch.is_interrupted(),
        }
    }
}
