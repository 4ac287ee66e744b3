//! The training loop: choose pairs, accumulate gradients, update, evaluate, save. Written against [`Learner`].
//!
//! Several processes share each batch: [`Trainer::accumulate`] deals the pairs and gathers what came of them, and from then on all
//! processes do the same.

use std::time::Instant;

use simplemix_torch::group::{Group, Traffic};

use crate::error::{Error, Result};
use crate::learner::Learner;
use crate::loop_settings::{LoopSettings, OnNonFinite};
use crate::memory::DEVICE_PEAK;
use crate::metrics::{Record, metrics};
use crate::observer::{NonFinite, Observer, Occasion};
use crate::order::Batches;
use crate::progress::Progress;
use crate::stats::PairStats;
use crate::table::PairTable;
use crate::team::Team;

/// Pairs of a run.
#[derive(Debug, Clone, Copy)]
pub struct Tables<'a> {
    /// Training set.
    pub train: &'a PairTable,
    /// Held-out sets, in the order of [`Learner::eval_sets`].
    pub eval: &'a [&'a PairTable],
}

/// End of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All updates are done.
    Finished,
    /// The evaluations stopped improving.
    StoppedEarly,
    /// The observer interrupted the run; a checkpoint was saved.
    Stopped,
    /// The run had finished before it was resumed; nothing was changed.
    FinishedBefore,
}

/// Runs updates from `progress` on until all are done, evaluations stop improving, or the observer interrupts.
///
/// # Errors
/// [`Error::NonFinite`] and [`Error::TooManySkipped`] before the optimiser has moved; [`Error::FirstLoss`] if the first
/// batch does not have the loss that it must have; errors of learner and observer.
pub fn train<L: Learner>(
    settings: &LoopSettings,
    tables: Tables<'_>,
    team: &Team,
    learner: &mut L,
    progress: &mut Progress,
    observer: &mut dyn Observer<L>,
) -> Result<Outcome> {
    let batches = settings.order.batches(settings.batch_size, tables.train.pairs.len() as u64);
    let before = Traffic::default();
    Trainer { settings, tables, team, before, stops: false, batches, learner, progress, observer }.run()
}

struct Trainer<'a, L> {
    settings: &'a LoopSettings,
    tables: Tables<'a>,
    team: &'a Team,
    /// Traffic between the processes before the update.
    before: Traffic,
    /// Whether a process was asked to stop.
    stops: bool,
    batches: Batches<'a>,
    learner: &'a mut L,
    progress: &'a mut Progress,
    observer: &'a mut dyn Observer<L>,
}

/// A batch after its forward and backward passes, before the optimiser moves.
struct Batch {
    pairs: Vec<usize>,
    /// Factor of each pair's loss.
    weight: f64,
    /// Statistics of the pairs; of the first ones only if one of them has a NaN loss.
    stats: Vec<PairStats>,
    loss: f64,
    /// Metrics of regularisers.
    extra: Vec<(&'static str, f64)>,
    grad_norm: f64,
}

impl<L: Learner> Trainer<'_, L> {
    fn run(&mut self) -> Result<Outcome> {
        while self.progress.step < self.settings.steps {
            if self.is_interrupted() {
                self.checkpoint(Occasion::Due)?;
                return Ok(Outcome::Stopped);
            }
            let record = self.update()?;
            self.observer.update(&record)?;
            let is_last = self.progress.step == self.settings.steps;
            let settings = self.settings;
            let is_eval_due =
                self.is_due(settings.eval_every_steps, settings.eval_every_epoch) || (is_last && settings.eval_at_end);
            let is_enough = is_eval_due && self.evaluate()?;
            if is_enough && !is_last {
                return Ok(Outcome::StoppedEarly);
            }
            if !is_last && self.is_due(settings.save_every_steps, settings.save_every_epoch) {
                self.checkpoint(Occasion::Due)?;
            }
        }
        Ok(Outcome::Finished)
    }

    /// Whether to stop before the next update; several processes have agreed on it in the last one.
    fn is_interrupted(&self) -> bool {
        if self.team.size() == 1 { self.observer.is_interrupted() } else { self.stops }
    }

    /// Whether something is due now that is done every so many steps, or after each epoch.
    fn is_due(&self, every: u64, every_epoch: bool) -> bool {
        let (step, settings) = (self.progress.step, self.settings);
        let updates = settings.order.updates(settings.batch_size, self.tables.train.pairs.len() as u64);
        (every > 0 && step.is_multiple_of(every)) || (every_epoch && step.is_multiple_of(updates))
    }

    fn checkpoint(&mut self, occasion: Occasion) -> Result<()> {
        self.observer.checkpoint(self.learner, self.progress, occasion)
    }

    /// Makes one update, or skips its batch.
    fn update(&mut self) -> Result<Record> {
        #[expect(clippy::disallowed_methods, reason = "throughput is reported, nothing is decided by it")]
        let started = Instant::now();
        self.before = self.team.group().map_or_else(|| Ok(Traffic::default()), Group::traffic)?;
        let batch = self.accumulate()?;
        if let Some((what, found)) = batch.nonfinite() {
            return self.skip(&batch, what, found);
        }
        let rate = self.settings.rate(self.progress.step);
        // PyTorch's clip_grad_norm_ has the same small constant.
        let scale = (self.settings.max_grad_norm / (batch.grad_norm + 1e-6)).min(1.0);
        self.learner.trainee_mut().update(rate, scale)?;
        self.progress.movement = self.progress.movement.max(self.learner.trainee().movement());
        self.progress.step += 1;
        self.progress.tokens += self.trl_tokens(&batch) as u64;
        self.record(&batch, rate, started.elapsed().as_secs_f64())
    }

    /// Accumulates the gradients of the next batch.
    fn accumulate(&mut self) -> Result<Batch> {
        let step = self.progress.step;
        let pairs = self.batches.at(step);
        let weight = self.learner.weight(&pairs);
        self.learner.begin(step)?;
        let own = self.micro_batches(&pairs, weight)?;
        if self.sends_early() {
            // Before anything else that processes do together, so that all do it in one order.
            self.learner.trainee().begin_sum()?;
        }
        let rows = own.into_iter().map(PairStats::to_row).collect();
        let stops = self.observer.is_interrupted();
        let (rows, stops) = self.team.gather_and_ask(pairs.len(), rows, stops, "gathering the losses of an update")?;
        self.stops = stops;
        let stats: Vec<PairStats> = rows.into_iter().map(PairStats::of_row).collect();
        let loss = stats.iter().map(|pair| pair.loss).sum::<f64>() * weight;
        let mut batch = Batch { pairs, weight, stats, loss, extra: Vec::new(), grad_norm: 0.0 };
        if loss.is_finite() {
            if step == 0
                && let Some(first) = self.learner.first_loss()?
            {
                first.check(self.tables.train, &batch.pairs, &batch.stats)?;
            }
            batch.extra = self.learner.regularise(step, &batch.pairs)?;
            self.learner.trainee().sum_gradients()?;
            batch.grad_norm = self.learner.trainee().gradient_norm()?;
        }
        Ok(batch)
    }

    /// Whether gradients go to the other processes while the last pass of an update runs: not where later passes add to them, nor where
    /// the processes exchange weights during passes, which all must do in one order.
    fn sends_early(&self) -> bool {
        !self.learner.regularises() && !self.learner.passes_together()
    }

    /// Runs this process's share of `pairs` in micro-batches; stops after the first one with a NaN or infinite loss, unless the
    /// processes pass together.
    fn micro_batches(&mut self, pairs: &[usize], weight: f64) -> Result<Vec<PairStats>> {
        let (table, budget, together) =
            (self.tables.train, self.settings.micro_batch_tokens, self.learner.passes_together());
        let share = self.team.share(pairs);
        let parts = table.micro_batches(&share, budget)?;
        let all = if together { table.most_micro_batches(self.team, pairs, budget)? } else { parts.len() };
        let mut stats = Vec::with_capacity(share.len());
        for number in 0..all {
            self.team.does(&format!("update {}, micro-batch {} of {all}", self.progress.step + 1, number + 1));
            if number + 1 == all && self.sends_early() {
                self.learner.trainee().begin_last_pass();
            }
            match parts.get(number) {
                Some(part) => stats.extend(self.learner.accumulate(part, weight)?),
                None => self.learner.idle()?,
            }
            if !together && stats.iter().any(|pair: &PairStats| !pair.loss.is_finite()) {
                break;
            }
        }
        Ok(stats)
    }

    /// Leaves out a batch, if the settings allow it.
    fn skip(&mut self, batch: &Batch, what: &'static str, found: f64) -> Result<Record> {
        let step = self.progress.step + 1;
        let losses = batch.stats.iter().map(|pair| pair.loss.is_finite().then_some(pair.loss)).collect();
        self.observer.nonfinite(&NonFinite { step, what, pairs: batch.pairs.clone(), losses })?;
        let skipped = self.progress.skipped + 1;
        match self.settings.on_nonfinite {
            OnNonFinite::Stop => {
                let rows = batch.pairs.iter().map(|&pair| self.tables.train.pairs[pair].row).collect();
                Err(Error::NonFinite { step, what, found, pairs: rows })
            }
            OnNonFinite::Skip { most } if skipped > most => Err(Error::TooManySkipped { step, skipped, most }),
            OnNonFinite::Skip { .. } => {
                self.learner.trainee_mut().discard()?;
                (self.progress.step, self.progress.skipped) = (step, skipped);
                Ok(Record { step, values: vec![("skipped".to_owned(), skipped as f64)] })
            }
        }
    }

    /// Tokens of the batch as TRL's trainer counts them.
    fn trl_tokens(&self, batch: &Batch) -> usize {
        let set = self.learner.metrics();
        batch.pairs.iter().map(|&pair| set.tokens(&self.tables.train.pairs[pair])).sum()
    }

    /// Metrics of the update that was just made.
    fn record(&self, batch: &Batch, rate: f64, seconds: f64) -> Result<Record> {
        let (settings, table, step) = (self.settings, self.tables.train, self.progress.step);
        let tokens: usize = batch.pairs.iter().map(|&pair| table.pairs[pair].tokens).sum();
        let values = metrics(self.learner.metrics(), "", table, &batch.pairs, &batch.stats, batch.weight);
        let mut record = Record { step, values };
        for &(name, value) in &batch.extra {
            record.push(name, value);
        }
        record.push("grad_norm", batch.grad_norm);
        record.push("learning_rate", rate);
        record.push("epoch", settings.order.epochs(step, settings.batch_size, table.pairs.len() as u64));
        record.push("num_tokens", self.progress.tokens as f64);
        record.push("tokens_per_second", tokens as f64 / seconds);
        record.push("pairs_per_second", batch.pairs.len() as f64 / seconds);
        if let Some(group) = self.team.group() {
            let traffic = group.traffic()?;
            record.push("processes/seconds_waited", (traffic.waited - self.before.waited).as_secs_f64());
            record.push("processes/sent_gb", (traffic.bytes - self.before.bytes) as f64 / 1e9);
        }
        if let Some(bytes) = crate::memory::peak_bytes() {
            record.push("peak_memory_gb", bytes as f64 / 1e9);
        }
        if let Some(bytes) = self.learner.trainee().device_peak_bytes()? {
            record.push(DEVICE_PEAK, bytes as f64 / 1e9);
        }
        Ok(record)
    }

    /// Scores the held-out sets and saves a checkpoint of the best. Returns whether evaluations stopped improving.
    fn evaluate(&mut self) -> Result<bool> {
        let Some(record) = self.score_eval_sets()? else { return Ok(false) };
        self.observer.evaluation(&record)?;
        let Some(rule) = &self.settings.best else { return Ok(false) };
        if self.progress.compare(rule, &record)? {
            self.checkpoint(Occasion::Best)?;
        }
        Ok(self.progress.is_stale(rule))
    }

    /// Metrics of the held-out sets, each behind `eval_` and the set's name; none without pairs.
    fn score_eval_sets(&mut self) -> Result<Option<Record>> {
        let mut record = Record { step: self.progress.step, values: Vec::new() };
        for (set, (name, table)) in self.learner.eval_sets().into_iter().zip(self.tables.eval).enumerate() {
            let observer = &mut *self.observer;
            let stats = self.learner.evaluate(set, &mut |done, total| observer.evaluating(done, total))?;
            if stats.is_empty() {
                continue;
            }
            let all: Vec<usize> = (0..stats.len()).collect();
            let prefix = if name.is_empty() { "eval_".to_owned() } else { format!("eval_{name}_") };
            let weight = self.learner.eval_weight(set, &all);
            record.values.extend(metrics(self.learner.metrics(), &prefix, table, &all, &stats, weight));
        }
        Ok((!record.values.is_empty()).then_some(record))
    }
}

impl Batch {
    /// Name and value of the first number that is NaN or infinite.
    fn nonfinite(&self) -> Option<(&'static str, f64)> {
        let numbers = std::iter::once(("loss", self.loss)).chain(self.extra.iter().copied());
        numbers.chain([("grad_norm", self.grad_norm)]).find(|(_, value)| !value.is_finite())
    }
}

#[cfg(test)]
#[path = "trainer_tests.rs"]
mod tests;
