//! A stage of a pipeline in several processes: `simplemix run` starts this program as `simplemix stage` for each of them and hands
//! the job over on standard input. The first process tells on its standard output, in lines of JSON, what the pipeline has to know.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::ChildStdout;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use simplemix_data::{Metrics, Watch};
use simplemix_model::DeviceChoice;
use simplemix_pipeline::{Error, Job, ParallelSection, Ranks, Stage, StageReport};
use simplemix_torch::group::Place;
use simplemix_train::ParallelSettings;

use crate::failure::{Fails, Failure, Result};
use crate::lines::{is_elsewhere, print_json, warn};
use crate::together::{Logs, Processes, Started};
use crate::{interrupt, logging};

/// Time between two lines of progress.
const PAUSE: Duration = Duration::from_millis(100);

/// Work that a process is to do.
#[derive(Serialize, Deserialize)]
struct Order {
    job: Job,
    time_limit: Option<f64>,
    /// Folder of the stage, for logs.
    folder: PathBuf,
}

/// Message of the first process.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Event {
    Progress {
        stage: String,
        done: u64,
        total: u64,
    },
    /// JSON has no NaN.
    Metrics {
        step: u64,
        steps: u64,
        is_evaluation: bool,
        values: Vec<(String, Option<f64>)>,
    },
    Notice(String),
    Done(Box<StageReport>),
    Failed {
        message: String,
        is_input: bool,
    },
    Interrupted,
}

impl Event {
    /// Writes a line; those of other processes than the first go nowhere.
    fn tell(&self) -> Result {
        print_json(&serde_json::to_string(self).run()?);
        Ok(())
    }
}

/// Work on one stage of a pipeline, as `simplemix run --processes` starts it
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run() -> Result {
    if Place::from_environment().input()?.is_none() {
        return Err(Failure::input("a stage is a part of `simplemix run --processes N`, which starts it"));
    }
    let done = work();
    let Err(failure) = &done else { return done };
    if is_elsewhere() {
        return done;
    }
    let code = failure.number();
    match failure.message() {
        Some(message) => Event::Failed { message, is_input: code == 2 }.tell()?,
        None => Event::Interrupted.tell()?,
    }
    Err(Failure::Told(code))
}

/// Work of one process.
fn work() -> Result {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).run()?;
    let order: Order = serde_json::from_str(&text)
        .map_err(|error| Failure::input(format!("standard input: {error}, expected a stage from `simplemix run`")))?;
    let Order { mut job, time_limit, folder } = order;
    let settings = ParallelSettings { time_limit, ..ParallelSettings::default() };
    let mut device = job.devices_mut().first().map_or(DeviceChoice::Auto, |device| **device);
    let processes = Processes::join(&settings, &mut device, Logs::In(Some(&folder)))?.unwrap_or_default();
    for device in job.devices_mut() {
        *device = processes.own(*device)?;
    }
    processes.begin_log()?;
    let mut watch = Telling { interrupted: interrupt::flag(), last: None };
    processes.work(|processes| match job.run(&processes.team(), &mut watch) {
        Ok(Some(report)) => Event::Done(Box::new(report)).tell(),
        Ok(None) => Ok(()),
        Err(error) if error.is_interrupted() => Err(Failure::Interrupted),
        Err(error) => Err(error.into()),
    })
}

/// Tells the pipeline how the work goes.
struct Telling {
    interrupted: Arc<AtomicBool>,
    /// Stage and time of the last line of progress.
    last: Option<(String, Instant)>,
}

impl Telling {
    fn tell(event: &Event) {
        // Numbers and text are JSON; a pipe that is closed ends the lines.
        let _ = event.tell();
    }
}

impl Watch for Telling {
    fn progress(&mut self, stage: &str, done: u64, total: u64) {
        let is_soon = |(of, at): &(String, Instant)| of == stage && now().duration_since(*at) < PAUSE;
        if done < total && self.last.as_ref().is_some_and(is_soon) {
            return;
        }
        self.last = Some((stage.to_owned(), now()));
        Self::tell(&Event::Progress { stage: stage.to_owned(), done, total });
    }

    fn metrics(&mut self, metrics: &Metrics<'_>) {
        let Metrics { step, steps, is_evaluation, values, .. } = *metrics;
        let values = values.iter().map(|(name, value)| (name.clone(), Some(*value))).collect();
        Self::tell(&Event::Metrics { step, steps, is_evaluation, values });
    }

    fn notice(&mut self, text: &str) {
        if is_elsewhere() {
            warn(&format!("note: {text}"));
        }
        Self::tell(&Event::Notice(text.to_owned()));
    }

    fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::SeqCst)
    }
}

#[expect(clippy::disallowed_methods, reason = "lines of progress come now and then")]
fn now() -> Instant {
    Instant::now()
}

/// Starts the processes of the stages of a pipeline.
pub(crate) struct StageProcesses(pub(crate) ParallelSection);

impl Ranks for StageProcesses {
    fn run(&mut self, stage: &Stage, watch: &mut dyn Watch) -> simplemix_pipeline::Result<StageReport> {
        self.run_stage(stage, watch).map_err(|failure| match failure {
            Failure::Interrupted => Error::Interrupted,
            failure => {
                let message =
                    failure.message().unwrap_or_else(|| "a process has failed and has not said why".to_owned());
                Error::Ranks { stage: stage.name.clone(), message, is_input: failure.number() == 2 }
            }
        })
    }
}

impl StageProcesses {
    fn run_stage(&self, stage: &Stage, watch: &mut dyn Watch) -> Result<StageReport> {
        let ParallelSection { processes, time_limit } = self.0;
        let order = Order { job: stage.job.clone(), time_limit, folder: stage.folder.clone() };
        let order = serde_json::to_string(&order).run()?;
        let mut arguments = vec!["stage".to_owned()];
        arguments.extend((0..logging::verbosity()).map(|_| "--verbose".to_owned()));
        let mut started = Started::stage(processes, &arguments, &order)?;
        let events = events(started.told());
        let mut end = None;
        let mut is_told = false;
        started.wait(&mut || {
            end = pass_on(&events, watch).or(end.take());
            watch.is_interrupted() && !std::mem::replace(&mut is_told, true)
        })?;
        let outcome = started.outcome(Logs::In(Some(&stage.folder)));
        // Messages of the first process until its end.
        for event in events {
            end = tell(event, watch).or(end);
        }
        match (end, outcome) {
            (Some(Event::Done(report)), Ok(())) => Ok(*report),
            (Some(Event::Interrupted), _) => Err(Failure::Interrupted),
            (Some(Event::Failed { message, is_input: true }), _) => Err(Failure::input(message)),
            (Some(Event::Failed { message, .. }), _) => Err(Failure::Run(anyhow::anyhow!("{message}"))),
            (_, Err(failure)) => Err(failure),
            (_, Ok(())) => Err(Failure::Run(anyhow::anyhow!("the processes have ended without a report"))),
        }
    }
}

/// Events of the first process, read on a thread of their own.
fn events(told: Option<ChildStdout>) -> Receiver<Event> {
    let (sender, receiver) = channel();
    let Some(told) = told else { return receiver };
    std::thread::spawn(move || {
        for line in BufReader::new(told).lines().map_while(std::io::Result::ok) {
            // Something else than an event is a library's line.
            let Ok(event) = serde_json::from_str(&line) else { continue };
            if sender.send(event).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Passes on the events that have come. Returns the one that ends the stage.
fn pass_on(events: &Receiver<Event>, watch: &mut dyn Watch) -> Option<Event> {
    events.try_iter().fold(None, |end, event| tell(event, watch).or(end))
}

/// Passes an event on, or returns it if it ends the stage.
fn tell(event: Event, watch: &mut dyn Watch) -> Option<Event> {
    match event {
        Event::Progress { stage, done, total } => watch.progress(&stage, done, total),
        Event::Notice(text) => watch.notice(&text),
        Event::Metrics { step, steps, is_evaluation, values } => {
            let values: Vec<(String, f64)> =
                values.into_iter().map(|(name, value)| (name, value.unwrap_or(f64::NAN))).collect();
            watch.metrics(&match is_evaluation {
                true => Metrics::evaluation(step, steps, &values),
                false => Metrics::update(step, steps, &values),
            });
        }
        end => return Some(end),
    }
    None
}
