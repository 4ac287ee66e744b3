//! The loop: which pairs next, gradients in parts, one update, metrics, checkpoints. Written against [`Learner`].

use std::time::Instant;

use crate::error::{Error, Result};
use crate::learner::{Learner, PairStats};
use crate::metrics::{Record, preference_metrics};
use crate::order::Order;
use crate::schedule::Schedule;
use crate::table::PairTable;

/// What the loop needs to know, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct LoopSettings {
    /// Updates of the whole run.
    pub steps: u64,
    /// Pairs of an update.
    pub batch_size: usize,
    /// Tokens of a forward pass, the prompt of a pair counted once.
    pub micro_batch_tokens: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Its shape after warm-up.
    pub schedule: Schedule,
    /// Updates over which it rises from zero.
    pub warmup_steps: u64,
    /// Global gradient norm above which gradients are scaled down; infinite for none.
    pub max_grad_norm: f64,
    /// Updates between evaluations; 0 evaluates after the last only.
    pub eval_every_steps: u64,
    /// Updates between checkpoints; 0 writes none but on interruption.
    pub save_every_steps: u64,
    /// In which order pairs are taken.
    pub order: Order,
}

/// Where a run stands; all that a checkpoint needs beside weights and moments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Progress {
    /// Updates done.
    pub step: u64,
    /// Tokens trained on.
    pub tokens: u64,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All updates are done.
    Finished,
    /// The observer asked it to stop; a checkpoint was written.
    Stopped,
}

/// Sees a run from outside: writes, shows, interrupts.
pub trait Observer<L: Learner> {
    /// An update is done.
    ///
    /// # Errors
    /// What it could not write; stops the run.
    fn step(&mut self, record: &Record) -> Result<()>;

    /// The held-back set was scored.
    ///
    /// # Errors
    /// What it could not write; stops the run.
    fn evaluated(&mut self, record: &Record) -> Result<()>;

    /// `done` of `total` held-back pairs are scored.
    fn evaluating(&mut self, done: usize, total: usize);

    /// It is time to write a checkpoint.
    ///
    /// # Errors
    /// What it could not write; stops the run.
    fn checkpoint(&mut self, learner: &L, progress: &Progress) -> Result<()>;

    /// Whether to stop before the next update.
    fn interrupted(&self) -> bool;
}

/// Runs updates from `progress` on until all are done or the observer interrupts.
///
/// # Errors
/// [`Error::NonFinite`] before the optimiser has moved; [`Error::NotLnTwo`] if the start-up check fails; whatever
/// learner and observer report.
pub fn train<L: Learner>(
    settings: &LoopSettings,
    train_set: &PairTable,
    eval_set: &PairTable,
    learner: &mut L,
    mut progress: Progress,
    observer: &mut dyn Observer<L>,
) -> Result<Outcome> {
    while progress.step < settings.steps {
        if observer.interrupted() {
            observer.checkpoint(learner, &progress)?;
            return Ok(Outcome::Stopped);
        }
        let record = update(settings, train_set, learner, &mut progress)?;
        observer.step(&record)?;
        let last = progress.step == settings.steps;
        if last || due(progress.step, settings.eval_every_steps) {
            evaluate(eval_set, learner, &progress, observer)?;
        }
        if !last && due(progress.step, settings.save_every_steps) {
            observer.checkpoint(learner, &progress)?;
        }
    }
    Ok(Outcome::Finished)
}

fn due(step: u64, every: u64) -> bool {
    every > 0 && step.is_multiple_of(every)
}

/// One update and its metrics.
fn update<L: Learner>(
    settings: &LoopSettings,
    table: &PairTable,
    learner: &mut L,
    progress: &mut Progress,
) -> Result<Record> {
    #[expect(clippy::disallowed_methods, reason = "throughput is reported, nothing is decided by it")]
    let started = Instant::now();
    let batch = settings.order.batch(progress.step, settings.batch_size, table.pairs.len() as u64);
    let mut stats = Vec::with_capacity(batch.len());
    for part in table.micro_batches(&batch, settings.micro_batch_tokens)? {
        stats.extend(learner.accumulate(part, 1.0 / batch.len() as f64)?);
    }
    let loss = stats.iter().map(|s| s.loss).sum::<f64>() / stats.len() as f64;
    let rows = || batch.iter().map(|&pair| table.pairs[pair].row).collect();
    let step = progress.step + 1;
    let finite = |what, found: f64| match found.is_finite() {
        true => Ok(found),
        false => Err(Error::NonFinite { step, what, found, pairs: rows() }),
    };
    finite("loss", loss)?;
    if progress.step == 0 {
        check_first(learner.first_loss(), &stats)?;
    }
    let norm = finite("grad_norm", learner.gradient_norm())?;
    let rate = settings.learning_rate * settings.schedule.factor(progress.step, settings.steps, settings.warmup_steps);
    // PyTorch's clip_grad_norm_ has the same small constant.
    learner.update(rate, (settings.max_grad_norm / (norm + 1e-6)).min(1.0));

    let tokens: usize = batch.iter().map(|&pair| table.pairs[pair].tokens).sum();
    *progress = Progress { step, tokens: progress.tokens + tokens as u64 };
    let seconds = started.elapsed().as_secs_f64();
    let mut record = Record { step, values: preference_metrics("", table, &batch, &stats) };
    record.push("grad_norm", norm);
    record.push("learning_rate", rate);
    record.push("epoch", (step * settings.batch_size as u64) as f64 / table.pairs.len() as f64);
    record.push("num_tokens", progress.tokens as f64);
    record.push("tokens_per_second", tokens as f64 / seconds);
    record.push("pairs_per_second", batch.len() as f64 / seconds);
    if let Some(bytes) = crate::memory::peak_bytes() {
        record.push("peak_memory_gb", bytes as f64 / 1e9);
    }
    Ok(record)
}

/// Before the first update policy and reference agree, so the loss is known; anything else is a fault in the set-up.
fn check_first(expected: Option<(f64, f64)>, stats: &[PairStats]) -> Result<()> {
    match expected {
        Some((loss, tolerance)) => stats
            .iter()
            .find(|pair| (pair.loss - loss).abs() > tolerance)
            .map_or(Ok(()), |pair| Err(Error::NotLnTwo { found: pair.loss, tolerance })),
        None => Ok(()),
    }
}

/// Scores the held-back set.
///
/// # Errors
/// Whatever learner and observer report.
pub fn evaluate<L: Learner>(
    table: &PairTable,
    learner: &mut L,
    progress: &Progress,
    observer: &mut dyn Observer<L>,
) -> Result<Option<Record>> {
    let stats = learner.evaluate(&mut |done, total| observer.evaluating(done, total))?;
    if stats.is_empty() {
        return Ok(None);
    }
    let all: Vec<usize> = (0..stats.len()).collect();
    let record = Record { step: progress.step, values: preference_metrics("eval_", table, &all, &stats) };
    observer.evaluated(&record)?;
    Ok(Some(record))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::PairEntry;
    use std::path::Path;

    /// Learns one number: the loss of pair `p` is `(w - p)^2`.
    struct Fake {
        weight: f64,
        gradient: f64,
        seen: Vec<usize>,
    }

    impl Learner for Fake {
        fn accumulate(&mut self, pairs: &[usize], weight: f64) -> Result<Vec<PairStats>> {
            self.seen.extend(pairs);
            Ok(pairs
                .iter()
                .map(|&p| {
                    let off = self.weight - p as f64;
                    self.gradient += weight * 2.0 * off;
                    PairStats { loss: off * off, ..PairStats::default() }
                })
                .collect())
        }

        fn gradient_norm(&self) -> f64 {
            self.gradient.abs()
        }

        fn update(&mut self, learning_rate: f64, scale: f64) {
            self.weight -= learning_rate * scale * self.gradient;
            self.gradient = 0.0;
        }

        fn evaluate(&mut self, _: &mut dyn FnMut(usize, usize)) -> Result<Vec<PairStats>> {
            Ok(vec![PairStats { loss: self.weight, ..PairStats::default() }; 4])
        }

        fn save(&self, _: &Path) -> Result<()> {
            Ok(())
        }

        fn restore(&mut self, _: &Path) -> Result<()> {
            Ok(())
        }
    }

    #[derive(Default)]
    struct Watch {
        records: Vec<Record>,
        evaluations: Vec<u64>,
        checkpoints: Vec<(u64, f64)>,
        stop_after: Option<usize>,
    }

    impl Observer<Fake> for Watch {
        fn step(&mut self, record: &Record) -> Result<()> {
            self.records.push(record.clone());
            Ok(())
        }

        fn evaluated(&mut self, record: &Record) -> Result<()> {
            self.evaluations.push(record.step);
            Ok(())
        }

        fn evaluating(&mut self, _: usize, _: usize) {}

        fn checkpoint(&mut self, learner: &Fake, progress: &Progress) -> Result<()> {
            self.checkpoints.push((progress.step, learner.weight));
            Ok(())
        }

        fn interrupted(&self) -> bool {
            self.stop_after == Some(self.records.len())
        }
    }

    fn settings() -> LoopSettings {
        LoopSettings {
            steps: 6,
            batch_size: 2,
            micro_batch_tokens: 10,
            learning_rate: 0.1,
            schedule: Schedule::Constant,
            warmup_steps: 0,
            max_grad_norm: f64::INFINITY,
            eval_every_steps: 4,
            save_every_steps: 3,
            order: Order::File,
        }
    }

    fn table() -> PairTable {
        let pairs = (0..4).map(|row| PairEntry { row, tokens: 6, source: 0 }).collect();
        PairTable { sources: vec!["a".into()], pairs }
    }

    fn fake() -> Fake {
        Fake { weight: 9.0, gradient: 0.0, seen: Vec::new() }
    }

    #[test]
    fn the_split_into_parts_changes_nothing() {
        let run = |budget| {
            let (mut learner, mut watch) = (fake(), Watch::default());
            let settings = LoopSettings { micro_batch_tokens: budget, ..settings() };
            train(&settings, &table(), &table(), &mut learner, Progress::default(), &mut watch).unwrap();
            (learner.weight, learner.seen)
        };
        assert_eq!(run(1), run(1000));
        assert_eq!(run(1).1, [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3]);
    }

    #[test]
    fn evaluations_and_checkpoints_come_when_due() {
        let mut watch = Watch::default();
        train(&settings(), &table(), &table(), &mut fake(), Progress::default(), &mut watch).unwrap();
        assert_eq!(watch.evaluations, [4, 6]);
        assert_eq!(watch.checkpoints.iter().map(|c| c.0).collect::<Vec<_>>(), [3]);
        assert_eq!(watch.records[5].get("num_tokens"), Some(72.0));
        assert_eq!(watch.records[5].get("epoch"), Some(3.0));
    }

    #[test]
    fn a_stopped_run_goes_on_where_it_stopped() {
        let (mut whole, mut watch) = (fake(), Watch::default());
        train(&settings(), &table(), &table(), &mut whole, Progress::default(), &mut watch).unwrap();

        let (mut cut, mut watch) = (fake(), Watch { stop_after: Some(2), ..Watch::default() });
        let outcome = train(&settings(), &table(), &table(), &mut cut, Progress::default(), &mut watch).unwrap();
        assert_eq!(outcome, Outcome::Stopped);
        assert_eq!(watch.checkpoints, [(2, cut.weight)]);
        let progress = Progress { step: 2, tokens: 24 };
        let outcome = train(&settings(), &table(), &table(), &mut cut, progress, &mut Watch::default()).unwrap();
        assert_eq!(outcome, Outcome::Finished);
        assert_eq!(cut.weight, whole.weight);
    }

    #[test]
    fn a_loss_that_is_no_number_stops_before_the_update() {
        let mut learner = Fake { weight: f64::NAN, ..fake() };
        let error = train(&settings(), &table(), &table(), &mut learner, Progress::default(), &mut Watch::default())
            .unwrap_err();
        assert!(matches!(&error, Error::NonFinite { step: 1, what: "loss", pairs, .. } if pairs == &[0, 1]), "{error}");
    }

    #[test]
    fn gradients_are_clipped_by_their_norm() {
        let (mut learner, mut watch) = (fake(), Watch::default());
        let settings = LoopSettings { steps: 1, max_grad_norm: 0.5, ..settings() };
        train(&settings, &table(), &table(), &mut learner, Progress::default(), &mut watch).unwrap();
        // Gradient 2 * (9 - 0.5) = 17, clipped to 0.5, times the rate 0.1.
        assert!((learner.weight - 8.95).abs() < 1e-6, "{}", learner.weight);
        assert_eq!(watch.records[0].get("grad_norm"), Some(17.0));
    }
}
