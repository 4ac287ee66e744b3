//! Groups of prompts dealt to all processes.

use std::rc::Rc;

use simplemix_data::Watch;

use super::{Done, Order, Peers, parts};
use crate::error::{Error, Result};
use crate::generator::{CandidateSink, Generator, Job, Prompt, Sampled, SamplingConfig};
use crate::groups::in_groups;
use crate::journal::json;

/// A generator whose groups of prompts are dealt to all processes.
pub(super) struct SharedGenerator {
    inner: Box<dyn Generator>,
    peers: Rc<dyn Peers>,
    /// Whether the first groups are done, after which there is nothing more to tell the user.
    is_begun: bool,
}

impl SharedGenerator {
    pub(super) fn new(inner: Box<dyn Generator>, peers: &Rc<dyn Peers>) -> Self {
        Self { inner, peers: Rc::clone(peers), is_begun: false }
    }

    /// Has each process sample a group.
    fn round(
        &mut self,
        groups: Vec<Vec<Job>>,
        batch_rows: usize,
        sampling: &SamplingConfig,
        sink: &mut dyn CandidateSink,
    ) -> Result<()> {
        let size = self.peers.size();
        let is_first = !std::mem::replace(&mut self.is_begun, true);
        let total = groups.iter().flatten().map(|job| job.samples.len()).sum::<usize>();
        if is_first && groups.len() < size && total.div_ceil(batch_rows) > groups.len() {
            tracing::warn!(
                "{} of {size} processes have nothing to sample: they take groups of four batches in turn, and there are {}; a \
                 smaller batch size makes more groups",
                size - groups.len(),
                groups.len()
            );
        }
        let (processes, own) = (groups.len(), groups.first().cloned().unwrap_or_default());
        self.peers.told(&json(&Order::Sample { sampling: sampling.clone(), groups }))?;
        let above = Above::Sink { sink: &mut *sink, processes, total, tells: is_first };
        let own = sampled(self.inner.as_mut(), own, sampling, (self.peers.as_ref(), above))?;
        parts(self.peers.as_ref(), &own, |part| sink.keep(part))
    }
}

impl Generator for SharedGenerator {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn fingerprint(&self) -> String {
        self.inner.fingerprint()
    }

    fn template_date(&self) -> Option<String> {
        self.inner.template_date()
    }

    fn remark(&self) -> Option<String> {
        self.inner.remark()
    }

    fn check(&self, prompt: &Prompt, sampling: &SamplingConfig) -> Result<()> {
        self.inner.check(prompt, sampling)
    }

    fn sample(
        &mut self,
        jobs: &mut dyn Iterator<Item = Result<Job>>,
        sampling: &SamplingConfig,
        sink: &mut dyn CandidateSink,
    ) -> Result<()> {
        let Some(batch_rows) = self.inner.batch_rows() else { return self.inner.sample(jobs, sampling, sink) };
        let (size, mut waiting) = (self.peers.size(), Vec::new());
        in_groups(jobs, batch_rows, sampling.samples, &mut |group| {
            waiting.push(group.to_vec());
            if waiting.len() < size {
                Ok(())
            } else {
                self.round(std::mem::take(&mut waiting), batch_rows, sampling, sink)
            }
        })?;
        if waiting.is_empty() { Ok(()) } else { self.round(waiting, batch_rows, sampling, sink) }
    }
}

/// Receiver of what this process samples, which gives signs of life.
struct Own<'a> {
    sampled: Vec<Sampled>,
    peers: &'a dyn Peers,
    steps: u64,
    above: Above<'a>,
}

/// Who else hears of the samples of a process.
pub(super) enum Above<'a> {
    /// The receiver of all samples, in the first process: `processes` sample `total` responses, and it is told what the user should
    /// read if it `tells`.
    Sink { sink: &'a mut dyn CandidateSink, processes: usize, total: usize, tells: bool },
    /// Whoever may interrupt another process.
    Watch(&'a dyn Watch),
}

/// Responses to a group of prompts.
pub(super) fn sampled<'a>(
    generator: &mut dyn Generator,
    group: Vec<Job>,
    sampling: &SamplingConfig,
    (peers, above): (&'a dyn Peers, Above<'a>),
) -> Result<Done<Sampled>> {
    let mut own = Own { sampled: Vec::new(), peers, steps: 0, above };
    if group.is_empty() {
        return Ok(Some(own.sampled));
    }
    match generator.sample(&mut group.into_iter().map(Ok), sampling, &mut own) {
        Ok(()) => Ok(Some(own.sampled)),
        Err(Error::Interrupted) => Ok(None),
        Err(error) => Err(error),
    }
}

impl CandidateSink for Own<'_> {
    fn keep(&mut self, sampled: Vec<Sampled>) -> Result<()> {
        self.sampled.extend(sampled);
        Ok(())
    }

    fn pending(&mut self, count: usize) {
        self.steps += 1;
        self.peers.does(&format!("sampling: {count} responses done, {} steps", self.steps));
        if let Above::Sink { sink, processes, total, .. } = &mut self.above {
            sink.pending((count * *processes).min(*total));
        }
    }

    fn notice(&mut self, text: &str) {
        // Those of the first groups are those of one process; the other processes' are about the same model.
        if let Above::Sink { sink, tells: true, .. } = &mut self.above {
            sink.notice(text);
        }
    }

    fn is_interrupted(&self) -> bool {
        match &self.above {
            Above::Sink { sink, .. } => sink.is_interrupted(),
            Above::Watch(watch) => watch.is_interrupted(),
        }
    }
}
