//! The loop against a learner of one number.

use std::path::Path;

use super::*;
use crate::adamw::Movement;
use crate::learner::Trainable;
use crate::loop_settings::BestRule;
use crate::order::Order;
use crate::schedule::{Decay, Schedule};
use crate::sides::Sides;
use crate::table::PairEntry;

/// Learns one number: the loss of pair `p` is `(w - p)^2`.
struct Fake {
    weight: f64,
    gradient: f64,
    seen: Vec<usize>,
    /// Pairs with a NaN loss.
    bad: Vec<usize>,
    /// Peak of the device.
    peak: Option<u64>,
}

impl Learner for Fake {
    fn trainee(&self) -> &dyn Trainable {
        self
    }

    fn trainee_mut(&mut self) -> &mut dyn Trainable {
        self
    }

    fn accumulate(&mut self, pairs: &[usize], weight: f64) -> Result<Vec<PairStats>> {
        self.seen.extend(pairs);
        let mut accumulate = |&pair: &usize| {
            let error = self.weight - pair as f64;
            self.gradient += weight * 2.0 * error;
            let loss = if self.bad.contains(&pair) { f64::NAN } else { error * error };
            PairStats { loss, ..PairStats::default() }
        };
        Ok(pairs.iter().map(&mut accumulate).collect())
    }

    fn eval_sets(&self) -> Vec<String> {
        vec![String::new()]
    }

    fn evaluate(&mut self, _: usize, _: &mut dyn FnMut(usize, usize)) -> Result<Vec<PairStats>> {
        Ok(vec![PairStats { loss: self.weight, ..PairStats::default() }; 4])
    }
}

impl Trainable for Fake {
    fn gradient_norm(&self) -> Result<f64> {
        Ok(self.gradient.abs())
    }

    fn update(&mut self, learning_rate: f64, scale: f64) -> Result<()> {
        self.weight -= learning_rate * scale * self.gradient;
        self.gradient = 0.0;
        Ok(())
    }

    fn discard(&mut self) -> Result<()> {
        self.gradient = 0.0;
        Ok(())
    }

    fn device_peak_bytes(&self) -> Result<Option<u64>> {
        Ok(self.peak)
    }

    fn save(&self, _: &Path) -> Result<()> {
        Ok(())
    }

    fn restore(&mut self, _: &Path) -> Result<()> {
        Ok(())
    }

    fn restore_weights(&mut self, _: &Path) -> Result<()> {
        Ok(())
    }
}

#[derive(Default)]
struct Log {
    records: Vec<Record>,
    evaluations: Vec<u64>,
    checkpoints: Vec<(u64, f64)>,
    best: Vec<u64>,
    reports: Vec<NonFinite>,
    stop_after: Option<usize>,
}

impl Observer<Fake> for Log {
    fn update(&mut self, record: &Record) -> Result<()> {
        self.records.push(record.clone());
        Ok(())
    }

    fn evaluation(&mut self, record: &Record) -> Result<()> {
        self.evaluations.push(record.step);
        Ok(())
    }

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

    fn is_interrupted(&self) -> bool {
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
        min_rate_ratio: 0.0,
        decay_steps: 0,
        decay: Decay::Cosine,
        max_grad_norm: f64::INFINITY,
        eval_every_steps: 4,
        eval_every_epoch: false,
        eval_at_end: true,
        save_every_epoch: false,
        save_every_steps: 3,
        order: Order::File,
        on_nonfinite: OnNonFinite::Stop,
        best: None,
    }
}

fn table() -> PairTable {
    let entry = |row| PairEntry {
        row,
        tokens: 6,
        prompt: 2,
        responses: Sides { chosen: 2, rejected: 2 },
        ..PairEntry::default()
    };
    PairTable { sources: vec!["a".into()], pairs: (0..4).map(entry).collect(), ..PairTable::default() }
}

fn run(settings: &LoopSettings, learner: &mut Fake, progress: &mut Progress, log: &mut Log) -> Result<Outcome> {
    let table = table();
    train(settings, Tables { train: &table, eval: &[&table] }, &Team::default(), learner, progress, log)
}

fn whole(settings: &LoopSettings, learner: &mut Fake) -> Log {
    let mut log = Log::default();
    run(settings, learner, &mut Progress::default(), &mut log).unwrap();
    log
}

fn fake() -> Fake {
    Fake { weight: 9.0, gradient: 0.0, seen: Vec::new(), bad: Vec::new(), peak: None }
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
    let log = whole(&settings(), &mut fake());
    assert_eq!(log.evaluations, [4, 6]);
    assert_eq!(log.checkpoints.iter().map(|c| c.0).collect::<Vec<_>>(), [3]);
    // A pair is a prompt of two tokens twice and two responses of two.
    assert_eq!(log.records[5].get("num_tokens"), Some(96.0));
    assert_eq!(log.records[5].get("epoch"), Some(3.0));
}

#[test]
fn the_peak_of_a_device_is_reported_where_there_is_one() {
    let mut learner = Fake { peak: Some(2_500_000_000), ..fake() };
    let log = whole(&settings(), &mut learner);
    assert_eq!(log.records[0].get("device_peak_memory_gb"), Some(2.5));
    assert_eq!(whole(&settings(), &mut fake()).records[0].get("device_peak_memory_gb"), None);
}

#[test]
fn a_stopped_run_resumes_where_it_stopped() {
    let mut uncut = fake();
    whole(&settings(), &mut uncut);

    let (mut cut, mut log) = (fake(), Log { stop_after: Some(2), ..Log::default() });
    let mut progress = Progress::default();
    assert_eq!(run(&settings(), &mut cut, &mut progress, &mut log).unwrap(), Outcome::Stopped);
    assert_eq!(log.checkpoints, [(2, cut.weight)]);
    assert_eq!(progress, Progress { step: 2, tokens: 32, movement: Movement::Parameters, ..Progress::default() });
    let outcome = run(&settings(), &mut cut, &mut progress, &mut Log::default()).unwrap();
    assert_eq!(outcome, Outcome::Finished);
    assert_eq!(cut.weight, uncut.weight);
}

#[test]
fn a_nan_loss_stops_before_the_update() {
    let (mut learner, mut log) = (Fake { weight: f64::NAN, ..fake() }, Log::default());
    let error = run(&settings(), &mut learner, &mut Progress::default(), &mut log).unwrap_err();
    assert!(matches!(&error, Error::NonFinite { step: 1, what: "loss", pairs, .. } if pairs == &[0, 1]), "{error}");
    // The second pair is not run.
    assert_eq!((&log.reports[0].losses[..], &log.reports[0].pairs[..]), (&[None][..], &[0, 1][..]));
}

#[test]
fn skipped_batches_are_counted_up_to_a_limit() {
    let settings = LoopSettings { on_nonfinite: OnNonFinite::Skip { most: 2 }, ..settings() };
    let (mut learner, mut log) = (Fake { bad: vec![1, 3], ..fake() }, Log::default());
    let mut progress = Progress::default();
    let error = run(&settings, &mut learner, &mut progress, &mut log).unwrap_err().to_string();
    assert_eq!(error, "step 3: 3 batches had a NaN or infinite loss or gradient, `batch.max_skipped` is 2");
    assert_eq!(log.records.iter().map(|r| r.get("skipped")).collect::<Vec<_>>(), [Some(1.0), Some(2.0)]);
    assert_eq!(learner.weight, 9.0);
    let mut learner = Fake { bad: vec![1], ..fake() };
    let log = whole(&LoopSettings { steps: 2, ..settings }, &mut learner);
    assert_eq!((log.records[1].get("skipped"), learner.seen.len()), (None, 4));
}

#[test]
fn gradients_are_clipped_by_their_norm() {
    let mut learner = fake();
    let log = whole(&LoopSettings { steps: 1, max_grad_norm: 0.5, ..settings() }, &mut learner);
    // Gradient 2 * (9 - 0.5) = 17, clipped to 0.5, times the rate 0.1.
    assert!((learner.weight - 8.95).abs() < 1e-6, "{}", learner.weight);
    assert_eq!(log.records[0].get("grad_norm"), Some(17.0));
}

#[test]
fn the_best_evaluation_is_kept_and_patience_ends_the_run() {
    let rule = |higher, patience| Some(BestRule { metric: "eval_loss".into(), higher, patience });
    // The weight, which is the loss of every evaluation, falls.
    let falling = LoopSettings { eval_every_steps: 1, best: rule(false, Some(2)), ..settings() };
    assert_eq!(whole(&falling, &mut fake()).best.len(), 6);
    let mut progress = Progress::default();
    let rising = LoopSettings { best: rule(true, Some(2)), ..falling.clone() };
    let outcome = run(&rising, &mut fake(), &mut progress, &mut Log::default()).unwrap();
    assert_eq!((outcome, progress.step), (Outcome::StoppedEarly, 3));
    assert_eq!(progress.best.map(|best| (best.step, best.since)), Some((1, 2)));
    let unknown = BestRule { metric: "eval_los".into(), higher: true, patience: None };
    let settings = LoopSettings { best: Some(unknown), ..falling };
    let error = run(&settings, &mut fake(), &mut Progress::default(), &mut Log::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`eval.best_metric` is eval_los (`eval_loss`?), expected a metric of the evaluations"
    );
}
