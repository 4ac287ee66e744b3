//! The loop: which pairs next, gradients in parts, one update, metrics, checkpoints. Written against [`Learner`].

use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::collective::Collective;
use crate::error::{Error, Result};
use crate::learner::{Learner, PairStats};
use crate::metrics::{Record, metrics};
use crate::order::Order;
use crate::schedule::Schedule;
use crate::table::PairTable;

/// What the loop needs to know, checked.
#[derive(Debug, Clone)]
pub struct LoopSettings {
    /// Updates of the whole run.
    pub steps: u64,
    /// Pairs of an update, over all processes.
    pub batch_size: usize,
    /// Tokens of a forward pass, as [`crate::PairEntry::tokens`] counts them.
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
    /// What becomes of a batch whose loss or gradient is not a number.
    pub on_nonfinite: OnNonFinite,
    /// Which evaluation is the best, and what follows from it.
    pub best: Option<BestRule>,
}

/// What becomes of a batch whose loss or gradient is not a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnNonFinite {
    /// The run stops before the optimiser moves.
    Stop,
    /// It is left out.
    Skip {
        /// More than so many stop the run.
        most: u64,
    },
}

/// Which evaluation is the best.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BestRule {
    /// The metric, as it is written: `eval_rewards/accuracies`.
    pub metric: String,
    /// Whether more is better.
    pub higher: bool,
    /// Evaluations without a better one after which the run stops.
    pub patience: Option<u64>,
}

/// Where a run stands; all that a checkpoint needs beside weights and moments.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// Updates done.
    pub step: u64,
    /// Tokens trained on, as TRL counts them: the prompt with each of both responses.
    pub tokens: u64,
    /// Batches left out.
    #[serde(default)]
    pub skipped: u64,
    /// The best evaluation so far.
    #[serde(default)]
    pub best: Option<Best>,
}

/// The best evaluation so far.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Updates before it.
    pub step: u64,
    /// Its value.
    pub value: f64,
    /// Evaluations since.
    pub since: u64,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All updates are done.
    Finished,
    /// The evaluations had stopped getting better.
    StoppedEarly,
    /// The observer asked it to stop; a checkpoint was written.
    Stopped,
}

/// A batch whose loss or gradient is not a number.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NonFinite {
    /// The update, counted from one.
    pub step: u64,
    /// `loss`, `grad_norm`, or what a learner reports beside them, as `kl`.
    pub what: &'static str,
    /// Its pairs, by number.
    pub pairs: Vec<usize>,
    /// Loss of each pair whose forward pass was done; none where it is not a number.
    pub losses: Vec<Option<f64>>,
}

/// Why a checkpoint is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// It is due, or the run is being stopped.
    Due,
    /// No evaluation was better.
    Best,
}

/// Sees a run from outside: writes, shows, interrupts.
pub trait Observer<L: Learner> {
    /// An update is done.
    ///
    /// # Errors
    /// What it could not write; stops the run.
    fn step(&mut self, record: &Record) -> Result<()>;

    /// The held-back sets were scored.
    ///
    /// # Errors
    /// What it could not write; stops the run.
    fn evaluated(&mut self, record: &Record) -> Result<()>;

    /// `done` of `total` pairs of a held-back set are scored.
    fn evaluating(&mut self, done: usize, total: usize);

    /// It is time to write a checkpoint.
    ///
    /// # Errors
    /// What it could not write; stops the run.
    fn checkpoint(&mut self, learner: &L, progress: &Progress, occasion: Occasion) -> Result<()>;

    /// A batch is left out, or the run stops for it.
    ///
    /// # Errors
    /// What it could not write; stops the run.
    fn nonfinite(&mut self, _report: &NonFinite) -> Result<()> {
        Ok(())
    }

    /// Whether to stop before the next update.
    fn interrupted(&self) -> bool;
}

/// Sets of pairs that a run looks at.
#[derive(Debug, Clone, Copy)]
pub struct Tables<'a> {
    /// To train on.
    pub train: &'a PairTable,
    /// Held back, in the order of [`Learner::eval_sets`].
    pub eval: &'a [&'a PairTable],
}

/// Runs updates from `progress` on until all are done or the observer interrupts.
///
/// # Errors
/// [`Error::NonFinite`] before the optimiser has moved; [`Error::NotLnTwo`] if the start-up check fails; whatever
/// learner and observer report.
pub fn train<L: Learner>(
    settings: &LoopSettings,
    tables: Tables<'_>,
    learner: &mut L,
    progress: &mut Progress,
    collective: &dyn Collective,
    observer: &mut dyn Observer<L>,
) -> Result<Outcome> {
    while progress.step < settings.steps {
        if observer.interrupted() {
            observer.checkpoint(learner, progress, Occasion::Due)?;
            return Ok(Outcome::Stopped);
        }
        let record = update(settings, tables.train, learner, progress, collective, observer)?;
        observer.step(&record)?;
        let last = progress.step == settings.steps;
        if last || due(progress.step, settings.eval_every_steps) {
            let record = evaluate(tables.eval, learner, progress.step, observer)?;
            if let (Some(rule), Some(record)) = (&settings.best, &record) {
                if is_best(rule, record, progress)? {
                    observer.checkpoint(learner, progress, Occasion::Best)?;
                }
                let since = progress.best.map_or(0, |best| best.since);
                if !last && rule.patience.is_some_and(|patience| since >= patience) {
                    return Ok(Outcome::StoppedEarly);
                }
            }
        }
        if !last && due(progress.step, settings.save_every_steps) {
            observer.checkpoint(learner, progress, Occasion::Due)?;
        }
    }
    Ok(Outcome::Finished)
}

fn due(step: u64, every: u64) -> bool {
    every > 0 && step.is_multiple_of(every)
}

/// Whether the evaluation is better than all before; takes note of it.
fn is_best(rule: &BestRule, record: &Record, progress: &mut Progress) -> Result<bool> {
    let value = record.get(&rule.metric).ok_or_else(|| {
        let names: Vec<&str> = record.values.iter().map(|(name, _)| name.as_str()).collect();
        let nearest =
            crate::nearest::nearest(&rule.metric, &names).map_or(String::new(), |name| format!(" (`{name}`?)"));
        Error::Setting {
            key: "best_metric",
            found: format!("{}{nearest}", rule.metric),
            expected: "a metric of the evaluations",
        }
    })?;
    let better = progress.best.is_none_or(|best| if rule.higher { value > best.value } else { value < best.value });
    progress.best = match progress.best {
        Some(best) if !better => Some(Best { since: best.since + 1, ..best }),
        _ => Some(Best { step: progress.step, value, since: 0 }),
    };
    Ok(better)
}

/// One update and its metrics.
fn update<L: Learner>(
    settings: &LoopSettings,
    table: &PairTable,
    learner: &mut L,
    progress: &mut Progress,
    collective: &dyn Collective,
    observer: &mut dyn Observer<L>,
) -> Result<Record> {
    #[expect(clippy::disallowed_methods, reason = "throughput is reported, nothing is decided by it")]
    let started = Instant::now();
    let all = table.pairs.len() as u64;
    let batch = settings.order.batch(progress.step, settings.batch_size, all);
    let weight = learner.weight(&batch);
    learner.begin(progress.step)?;
    let step = progress.step + 1;
    let gathered = gather(settings, table, learner, &batch, weight, collective)?;
    let loss = gathered.iter().map(|pair| pair.loss).sum::<f64>() * weight;
    let (mut found, mut beside, mut norm) = (vec![("loss", loss)], Vec::new(), 0.0);
    if loss.is_finite() {
        if progress.step == 0 {
            check_first(learner.first_loss(), &gathered)?;
        }
        beside = learner.regularise(progress.step, &batch, collective)?;
        found.extend(&beside);
        learner.share_gradients(collective)?;
        norm = learner.gradient_norm();
        found.push(("grad_norm", norm));
    }
    let rate = settings.learning_rate * settings.schedule.factor(progress.step, settings.steps, settings.warmup_steps);
    if let Some((what, found)) = found.into_iter().find(|(_, value)| !value.is_finite()) {
        let number = |loss: f64| loss.is_finite().then_some(loss);
        let rows: Vec<usize> = batch.iter().map(|&pair| table.pairs[pair].row).collect();
        let losses = gathered.iter().map(|pair| number(pair.loss)).collect();
        observer.nonfinite(&NonFinite { step, what, pairs: batch.clone(), losses })?;
        match settings.on_nonfinite {
            OnNonFinite::Stop => return Err(Error::NonFinite { step, what, found, pairs: rows }),
            OnNonFinite::Skip { most } if progress.skipped >= most => {
                return Err(Error::TooManySkipped { step, skipped: progress.skipped + 1, most });
            }
            OnNonFinite::Skip { .. } => {
                learner.discard();
                progress.step = step;
                progress.skipped += 1;
                return Ok(Record { step, values: vec![("skipped".to_owned(), progress.skipped as f64)] });
            }
        }
    }
    // PyTorch's clip_grad_norm_ has the same small constant.
    learner.update(rate, (settings.max_grad_norm / (norm + 1e-6)).min(1.0));

    let entries = batch.iter().map(|&pair| table.pairs[pair]);
    let tokens: usize = entries.clone().map(|pair| pair.tokens).sum();
    let trls: usize = entries.map(|pair| learner.metrics().tokens(&pair)).sum();
    progress.step = step;
    progress.tokens += trls as u64;
    let seconds = started.elapsed().as_secs_f64();
    let mut record = Record { step, values: metrics(learner.metrics(), "", table, &batch, &gathered, weight) };
    for (name, value) in beside {
        record.push(name, value);
    }
    record.push("grad_norm", norm);
    record.push("learning_rate", rate);
    record.push("epoch", epoch(settings, step, all));
    record.push("num_tokens", progress.tokens as f64);
    record.push("tokens_per_second", tokens as f64 / seconds);
    record.push("pairs_per_second", batch.len() as f64 / seconds);
    if let Some(bytes) = crate::memory::peak_bytes() {
        record.push("peak_memory_gb", bytes as f64 / 1e9);
    }
    Ok(record)
}

/// Passes over the pairs after `step` updates.
fn epoch(settings: &LoopSettings, step: u64, pairs: u64) -> f64 {
    match settings.order {
        // A short batch ends a pass all the same.
        Order::Trl(_) => step as f64 / settings.order.updates(settings.batch_size, pairs) as f64,
        _ => (step * settings.batch_size as u64) as f64 / settings.order.pairs(pairs) as f64,
    }
}

/// Gradients of a batch: this process's part of it, and the numbers of all.
fn gather<L: Learner>(
    settings: &LoopSettings,
    table: &PairTable,
    learner: &mut L,
    batch: &[usize],
    weight: f64,
    collective: &dyn Collective,
) -> Result<Vec<PairStats>> {
    let (rank, size) = (collective.rank(), collective.size());
    let own: Vec<usize> = batch.iter().copied().skip(rank).step_by(size).collect();
    let mut stats = Vec::with_capacity(own.len());
    for part in table.micro_batches(&own, settings.micro_batch_tokens)? {
        stats.extend(learner.accumulate(part, weight)?);
        if stats.iter().any(|pair| !pair.loss.is_finite()) {
            break;
        }
    }
    if size == 1 {
        return Ok(stats);
    }
    let mut all = vec![0.0; batch.len() * PairStats::LEN];
    for (place, pair) in stats.into_iter().enumerate() {
        let at = (rank + place * size) * PairStats::LEN;
        all[at..at + PairStats::LEN].copy_from_slice(&pair.to_array());
    }
    collective.sum(&mut all)?;
    Ok(all.as_chunks().0.iter().map(|pair| PairStats::from_array(*pair)).collect())
}

/// Before the first update policy and reference agree, so the loss is known; anything else is a fault in the set-up.
fn check_first(expected: Option<(f64, f64)>, stats: &[PairStats]) -> Result<()> {
    match expected {
        Some((loss, tolerance)) => stats
            .iter()
            .find(|pair| (pair.loss - loss).abs() > tolerance)
            .map_or(Ok(()), |pair| Err(Error::NotLnTwo { found: pair.loss, expected: loss, tolerance })),
        None => Ok(()),
    }
}

/// Scores the held-back sets; none where there are none. A set's metrics begin with `eval_` and its name.
///
/// # Errors
/// Whatever learner and observer report.
pub fn evaluate<L: Learner>(
    tables: &[&PairTable],
    learner: &mut L,
    step: u64,
    observer: &mut dyn Observer<L>,
) -> Result<Option<Record>> {
    let mut record = Record { step, values: Vec::new() };
    for (set, (name, table)) in learner.eval_sets().into_iter().zip(tables).enumerate() {
        let stats = learner.evaluate(set, &mut |done, total| observer.evaluating(done, total))?;
        if stats.is_empty() {
            continue;
        }
        let all: Vec<usize> = (0..stats.len()).collect();
        let prefix = if name.is_empty() { "eval_".to_owned() } else { format!("eval_{name}_") };
        record.values.extend(metrics(learner.metrics(), &prefix, table, &all, &stats, learner.weight_of(set, &all)));
    }
    if record.values.is_empty() {
        return Ok(None);
    }
    observer.evaluated(&record)?;
    Ok(Some(record))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collective::Alone;
    use crate::table::PairEntry;
    use std::path::Path;
    use std::sync::{Barrier, Mutex};

    /// Learns one number: the loss of pair `p` is `(w - p)^2`.
    struct Fake {
        weight: f64,
        gradient: f64,
        seen: Vec<usize>,
        /// Pairs whose loss is no number.
        bad: Vec<usize>,
    }

    impl Learner for Fake {
        fn accumulate(&mut self, pairs: &[usize], weight: f64) -> Result<Vec<PairStats>> {
            self.seen.extend(pairs);
            Ok(pairs
                .iter()
                .map(|&p| {
                    let off = self.weight - p as f64;
                    self.gradient += weight * 2.0 * off;
                    let loss = if self.bad.contains(&p) { f64::NAN } else { off * off };
                    PairStats { loss, ..PairStats::default() }
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

        fn share_gradients(&mut self, collective: &dyn Collective) -> Result<()> {
            let mut gradient = [self.gradient];
            collective.sum(&mut gradient)?;
            self.gradient = gradient[0];
            Ok(())
        }

        fn discard(&mut self) {
            self.gradient = 0.0;
        }

        fn eval_sets(&self) -> Vec<String> {
            vec![String::new()]
        }

        fn evaluate(&mut self, _: usize, _: &mut dyn FnMut(usize, usize)) -> Result<Vec<PairStats>> {
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
        best: Vec<u64>,
        reports: Vec<NonFinite>,
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

        fn checkpoint(&mut self, learner: &Fake, progress: &Progress, occasion: Occasion) -> Result<()> {
            match occasion {
                Occasion::Due => self.checkpoints.push((progress.step, learner.weight)),
                Occasion::Best => self.best.push(progress.step),
            }
            Ok(())
        }

        fn nonfinite(&mut self, report: &NonFinite) -> Result<()> {
            self.reports.push(report.clone());
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
            on_nonfinite: OnNonFinite::Stop,
            best: None,
        }
    }

    fn table() -> PairTable {
        let entry = |row| PairEntry { row, tokens: 6, prompt: 2, responses: [2, 2], ..PairEntry::default() };
        PairTable { sources: vec!["a".into()], pairs: (0..4).map(entry).collect(), ..PairTable::default() }
    }

    fn run(settings: &LoopSettings, learner: &mut Fake, progress: &mut Progress, watch: &mut Watch) -> Result<Outcome> {
        let table = table();
        train(settings, Tables { train: &table, eval: &[&table] }, learner, progress, &Alone, watch)
    }

    fn whole(settings: &LoopSettings, learner: &mut Fake) -> Watch {
        let mut watch = Watch::default();
        run(settings, learner, &mut Progress::default(), &mut watch).unwrap();
        watch
    }

    fn fake() -> Fake {
        Fake { weight: 9.0, gradient: 0.0, seen: Vec::new(), bad: Vec::new() }
    }

    #[test]
    fn the_split_into_parts_changes_nothing() {
        let run = |budget| {
            let mut learner = fake();
            whole(&LoopSettings { micro_batch_tokens: budget, ..settings() }, &mut learner);
            (learner.weight, learner.seen)
        };
        assert_eq!(run(1), run(1000));
        assert_eq!(run(1).1, [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3]);
    }

    #[test]
    fn evaluations_and_checkpoints_come_when_due() {
        let watch = whole(&settings(), &mut fake());
        assert_eq!(watch.evaluations, [4, 6]);
        assert_eq!(watch.checkpoints.iter().map(|c| c.0).collect::<Vec<_>>(), [3]);
        // A pair is a prompt of two tokens twice and two responses of two.
        assert_eq!(watch.records[5].get("num_tokens"), Some(96.0));
        assert_eq!(watch.records[5].get("epoch"), Some(3.0));
    }

    #[test]
    fn a_stopped_run_goes_on_where_it_stopped() {
        let mut uncut = fake();
        whole(&settings(), &mut uncut);

        let (mut cut, mut watch) = (fake(), Watch { stop_after: Some(2), ..Watch::default() });
        let mut progress = Progress::default();
        assert_eq!(run(&settings(), &mut cut, &mut progress, &mut watch).unwrap(), Outcome::Stopped);
        assert_eq!(watch.checkpoints, [(2, cut.weight)]);
        assert_eq!(progress, Progress { step: 2, tokens: 32, ..Progress::default() });
        let outcome = run(&settings(), &mut cut, &mut progress, &mut Watch::default()).unwrap();
        assert_eq!(outcome, Outcome::Finished);
        assert_eq!(cut.weight, uncut.weight);
    }

    #[test]
    fn a_loss_that_is_no_number_stops_before_the_update() {
        let (mut learner, mut watch) = (Fake { weight: f64::NAN, ..fake() }, Watch::default());
        let error = run(&settings(), &mut learner, &mut Progress::default(), &mut watch).unwrap_err();
        assert!(matches!(&error, Error::NonFinite { step: 1, what: "loss", pairs, .. } if pairs == &[0, 1]), "{error}");
        // The second pair is not even tried.
        assert_eq!((&watch.reports[0].losses[..], &watch.reports[0].pairs[..]), (&[None][..], &[0, 1][..]));
    }

    #[test]
    fn batches_that_are_left_out_are_counted_up_to_a_limit() {
        let settings = LoopSettings { on_nonfinite: OnNonFinite::Skip { most: 2 }, ..settings() };
        let (mut learner, mut watch) = (Fake { bad: vec![1, 3], ..fake() }, Watch::default());
        let mut progress = Progress::default();
        let error = run(&settings, &mut learner, &mut progress, &mut watch).unwrap_err().to_string();
        assert_eq!(error, "step 3: 3 batches had a loss or gradient that is not a number, `max_skipped` is 2");
        assert_eq!(watch.records.iter().map(|r| r.get("skipped")).collect::<Vec<_>>(), [Some(1.0), Some(2.0)]);
        assert_eq!(learner.weight, 9.0);
        let mut learner = Fake { bad: vec![1], ..fake() };
        let watch = whole(&LoopSettings { steps: 2, ..settings }, &mut learner);
        assert_eq!((watch.records[1].get("skipped"), learner.seen.len()), (None, 4));
    }

    #[test]
    fn gradients_are_clipped_by_their_norm() {
        let mut learner = fake();
        let watch = whole(&LoopSettings { steps: 1, max_grad_norm: 0.5, ..settings() }, &mut learner);
        // Gradient 2 * (9 - 0.5) = 17, clipped to 0.5, times the rate 0.1.
        assert!((learner.weight - 8.95).abs() < 1e-6, "{}", learner.weight);
        assert_eq!(watch.records[0].get("grad_norm"), Some(17.0));
    }

    #[test]
    fn the_best_evaluation_is_kept_and_none_better_ends_the_run() {
        let rule = |higher, patience| Some(BestRule { metric: "eval_loss".into(), higher, patience });
        // The weight, which is the loss of every evaluation, falls.
        let falling = LoopSettings { eval_every_steps: 1, best: rule(false, Some(2)), ..settings() };
        assert_eq!(whole(&falling, &mut fake()).best.len(), 6);
        let mut progress = Progress::default();
        let rising = LoopSettings { best: rule(true, Some(2)), ..falling.clone() };
        let outcome = run(&rising, &mut fake(), &mut progress, &mut Watch::default()).unwrap();
        assert_eq!((outcome, progress.step), (Outcome::StoppedEarly, 3));
        assert_eq!(progress.best.map(|best| (best.step, best.since)), Some((1, 2)));
        let unknown = BestRule { metric: "eval_los".into(), higher: true, patience: None };
        let settings = LoopSettings { best: Some(unknown), ..falling };
        let error = run(&settings, &mut fake(), &mut Progress::default(), &mut Watch::default()).unwrap_err();
        assert_eq!(error.to_string(), "`best_metric` is eval_los (`eval_loss`?), expected a metric of the evaluations");
    }

    /// Two threads that meet at every sum.
    struct Pair<'a> {
        rank: usize,
        meeting: &'a Barrier,
        sums: &'a Mutex<Vec<f64>>,
    }

    impl Collective for Pair<'_> {
        fn rank(&self) -> usize {
            self.rank
        }

        fn size(&self) -> usize {
            2
        }

        fn sum(&self, values: &mut [f64]) -> Result<()> {
            if self.rank == 0 {
                *self.sums.lock().unwrap() = values.to_vec();
            }
            self.meeting.wait();
            if self.rank == 1 {
                self.sums.lock().unwrap().iter_mut().zip(&*values).for_each(|(sum, value)| *sum += value);
            }
            self.meeting.wait();
            values.copy_from_slice(&self.sums.lock().unwrap());
            self.meeting.wait();
            Ok(())
        }

        fn sum_tensors(&self, _: &mut [tch::Tensor]) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn two_processes_do_what_one_does() {
        let mut alone = fake();
        let records = whole(&settings(), &mut alone).records;
        let (meeting, sums) = (Barrier::new(2), Mutex::new(Vec::new()));
        std::thread::scope(|scope| {
            for rank in 0..2 {
                let (meeting, sums, records, alone) = (&meeting, &sums, &records, &alone);
                scope.spawn(move || {
                    let (mut learner, mut watch, table) = (fake(), Watch::default(), table());
                    let tables = Tables { train: &table, eval: &[&table] };
                    let collective = Pair { rank, meeting, sums };
                    train(&settings(), tables, &mut learner, &mut Progress::default(), &collective, &mut watch)
                        .unwrap();
                    assert_eq!(learner.weight, alone.weight);
                    assert_eq!(learner.seen, [0, 2, 0, 2, 0, 2].map(|pair| pair + rank));
                    assert_eq!(watch.records[2].get("loss"), records[2].get("loss"));
                });
            }
        });
    }
}
