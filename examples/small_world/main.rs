//! The paper's claims in a world of which all is known: small language models of a synthetic language, with one task whose
//! answers can be checked and one whose reward is a known function. `PLAN.md` beside this file says what is compared and
//! what counts as an answer, `docs/evidence.md` what came of it.
//!
//! ```text
//! cargo run --release --example small_world                 # all of it, at most six hours of two cores
//! cargo run --release --example small_world -- --minutes 30 # as far as that takes; the same command goes on
//! cargo run --release --example small_world -- --report     # tables and figures of docs/evidence.md
//! ```

#![allow(clippy::print_stdout, reason = "a script talks to its user")]

mod arms;
mod language;
mod measure;
mod models;
mod pairs;
mod plan;
mod report;
mod results;
mod silent;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;

use crate::measure::HeldOut;
use crate::models::{Model, Size};
use crate::pairs::Pool;
use crate::plan::{STAGES, Stage};
use crate::results::{Outcome, Results, Row, Spec};

/// The paper's claims in a small world
#[derive(Parser)]
struct Args {
    /// Folder of pre-trained models
    #[arg(long, value_name = "DIR", default_value = "runs/small_world")]
    work: PathBuf,
    /// File that results are appended to
    #[arg(long, value_name = "FILE", default_value = "docs/evidence/small_world.jsonl")]
    results: PathBuf,
    /// Runs side by side, with one thread each
    #[arg(long, default_value_t = 2)]
    lanes: usize,
    /// Minutes after which no run is started
    #[arg(long)]
    minutes: Option<u64>,
    /// Write tables and figures from the results, into docs/evidence.md and docs/evidence
    #[arg(long)]
    report: bool,
    /// Page that the tables go into
    #[arg(long, value_name = "FILE", default_value = "docs/evidence.md")]
    page: PathBuf,
    /// Every arm once on random models of a few thousand weights, in seconds
    #[arg(long)]
    smoke: bool,
}

fn main() -> simplemix::Result<()> {
    Ok(run(&Args::parse())?)
}

fn run(args: &Args) -> Result<()> {
    let results = Results::open(&args.results)?;
    if args.report {
        return report::write(&results.rows(), &args.page);
    }
    let plan = if args.smoke { "smoke".to_owned() } else { committed_plan()? };
    let program = git(&["log", "-1", "--format=%h"]).unwrap_or_default();
    if let Some(parent) = args.results.parent() {
        simplemix::files::create_dir_all(parent)?;
    }
    let work = Work { args, results, plan, program, clock: Clock::start(args.minutes) };
    let stages = if args.smoke { &[Stage::Smoke][..] } else { &STAGES };
    for stage in stages {
        work.stage(*stage)?;
        if work.clock.is_over() {
            println!("time is over; the same command goes on");
            return Ok(());
        }
    }
    println!("all runs are done: {}", args.results.display());
    Ok(())
}

/// Time since the program began, for progress and its limit.
struct Clock {
    start: Instant,
    limit: Option<Duration>,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "progress and the time limit; no result depends on it")]
    fn now() -> Instant {
        Instant::now()
    }

    fn start(minutes: Option<u64>) -> Self {
        Self { start: Self::now(), limit: minutes.map(|minutes| Duration::from_secs(60 * minutes)) }
    }

    fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    fn is_over(&self) -> bool {
        self.limit.is_some_and(|limit| self.start.elapsed() >= limit)
    }
}

fn git(args: &[&str]) -> Result<String> {
    let output = Command::new("git").args(args).output().context("git cannot be run")?;
    if !output.status.success() {
        bail!("git {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

const PLAN: &str = "examples/small_world/PLAN.md";

/// Commit of the plan, which must be there before a result.
fn committed_plan() -> Result<String> {
    let (commit, changes) =
        (git(&["log", "-1", "--format=%h", "--", PLAN])?, git(&["status", "--porcelain", "--", PLAN])?);
    if commit.is_empty() || !changes.is_empty() {
        bail!("{PLAN}: not committed; commit the plan before the first result, and start at the root of the checkout");
    }
    Ok(commit)
}

struct Work<'a> {
    args: &'a Args,
    results: Results,
    plan: String,
    program: String,
    clock: Clock,
}

impl Work<'_> {
    /// Does what of a stage is missing.
    fn stage(&self, stage: Stage) -> Result<()> {
        let runs: Vec<Spec> =
            stage.runs(&self.results.rows())?.into_iter().filter(|run| !self.results.has(run)).collect();
        let Some(first) = runs.first() else { return Ok(()) };
        let size = models::size(&first.size)?;
        let work = &self.args.work;
        let mut needed: Vec<Model> = Vec::new();
        for model in runs.iter().flat_map(pairs::needed) {
            if !needed.contains(&model) && !model.folder(&size, work).is_dir() {
                needed.push(model);
            }
        }
        println!("{}: {} models to pre-train, {} runs", stage.name(), needed.len(), runs.len());
        self.in_lanes(&needed, |model| {
            let before = self.clock.seconds();
            models::pretrain(*model, &size, work)?;
            println!("{}: {} pre-trained in {:.0} s", stage.name(), model.name(), self.clock.seconds() - before);
            Ok(())
        })?;
        if needed.iter().any(|model| !model.folder(&size, work).is_dir()) {
            return Ok(());
        }
        let mut groups: Vec<Vec<Spec>> = Vec::new();
        for run in &runs {
            match groups.iter_mut().find(|group| group.first().is_some_and(|first| first.shares_pool(run))) {
                Some(group) => group.push(run.clone()),
                None => groups.push(vec![run.clone()]),
            }
        }
        let (done, began) = (AtomicUsize::new(0), self.clock.seconds());
        self.in_lanes(&groups, |group| {
            self.group(stage, &size, group, &mut || {
                let done = done.fetch_add(1, Ordering::Relaxed) + 1;
                let left = (self.clock.seconds() - began) / done as f64 * (runs.len() - done) as f64;
                format!("{done} of {}, about {:.0} min left of this stage", runs.len(), left / 60.0)
            })
        })
    }

    /// Runs with the same pairs and held-out prompts.
    fn group(&self, stage: Stage, size: &Size, group: &[Spec], told: &mut dyn FnMut() -> String) -> Result<()> {
        let (Some(first), work) = (group.first(), &self.args.work) else { return Ok(()) };
        let mut before = self.clock.seconds();
        let [for_pairs, held_out] = stage.uses();
        let pool = Pool::collect(first, for_pairs, size, work)?;
        let count = size.held_out[usize::from(stage.tunes())];
        let held_out = HeldOut::new(held_out, count, size.samples, first.seed);
        let folder = first.base_model().folder(size, work);
        let (base, tokenizer) = (models::load(&folder)?, models::tokenizer(&folder)?);
        for spec in group {
            if self.clock.is_over() {
                return Ok(());
            }
            let trained = arms::train(spec, &pool, size, work)
                .with_context(|| format!("arm {}, seed {}, {}", spec.arm, spec.seed, spec.setting))?;
            let measured = measure::measure(&trained.model, &base, &tokenizer, &held_out)?;
            let outcome = Outcome { updates: trained.updates, pairs_found: trained.pairs, ..pool.kept(measured) };
            let seconds = self.clock.seconds() - before;
            before = self.clock.seconds();
            let (plan, program) = (self.plan.clone(), self.program.clone());
            let row = Row { stage: stage.name().into(), spec: spec.clone(), outcome, seconds, plan, program };
            self.results.add(row)?;
            println!(
                "{} seed {} {} {}: right {:.1}, open {:.1}, KL {:.2} / {:.2}; {seconds:.0} s; {}",
                stage.name(),
                spec.seed,
                spec.arm,
                spec.setting,
                outcome.right,
                outcome.open,
                outcome.kl_reasoning,
                outcome.kl_open,
                told()
            );
        }
        Ok(())
    }

    /// Does `jobs` side by side; after an error, or when time is over, none is begun.
    fn in_lanes<T: Sync>(&self, jobs: &[T], work: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
        let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
        let lane = || -> Result<()> {
            simplemix::tch::set_num_threads(1);
            while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                if self.clock.is_over() || failed.load(Ordering::Relaxed) {
                    break;
                }
                work(job).inspect_err(|_| failed.store(true, Ordering::Relaxed))?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let lanes: Vec<_> = (0..self.args.lanes.max(1)).map(|_| scope.spawn(lane)).collect();
            let ends = lanes.into_iter().map(|lane| lane.join().unwrap_or_else(|_| bail!("a lane has panicked")));
            ends.collect::<Vec<_>>().into_iter().collect()
        })
    }
}

/// Root of the checkout, from the page that is written.
pub(crate) fn beside(page: &Path, name: &str) -> PathBuf {
    page.with_extension("").join(name)
}
