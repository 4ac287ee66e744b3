//! `simplemix watch`: a run in the terminal while it goes on, from the files of its folder alone.

mod metrics;
mod stages;
mod state;
mod view;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::failure::{Failure, Result};
use crate::lines::print;
use state::{State, Training};

/// Show a run in the terminal while it goes on
///
/// Reads the files of the run's folder, so the run may have been started in another terminal, by Slurm, by torchrun or on another machine
/// that shares the disk; a connection by SSH is enough. RUN is the folder of a training, of a pipeline or of a sweep: of the latter
/// two, the stages and the training that is going on. Ends with the run; Ctrl-C ends the view and leaves the run alone.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
  simplemix watch runs/first\n  \
  simplemix watch runs/simplemix --metric rewards/margins@on --metric rewards/margins@off\n  \
  ssh gpu-server simplemix watch runs/first --once")]
pub(crate) struct Args {
    /// Folder of the run
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// Metric to show with its curve, in place of the usual ones; may be given several times
    #[arg(long, value_name = "NAME")]
    metric: Vec<String>,
    /// Seconds between two looks at the files
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0, value_parser = seconds)]
    interval: f64,
    /// Show the state once and end
    #[arg(long)]
    once: bool,
}

fn seconds(text: &str) -> std::result::Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("expected a number from 0.1 to 3600".to_owned()),
    }
}

/// Time from one line to the next where there is no terminal.
const NEXT_LINE: Duration = Duration::from_secs(30);
/// Width of the view where there is no terminal.
const COLUMNS: usize = 100;

pub(crate) fn run(args: &Args) -> Result {
    if !args.run.is_dir() {
        return Err(Failure::input(format!("{}: no such folder, expected one of a run", args.run.display())));
    }
    let mut training = Training::default();
    if args.once {
        let state = look(&args.run, &mut training)?;
        view::lines(&state, &args.metric, COLUMNS).iter().for_each(|line| print(line));
        return Ok(());
    }
    match std::io::stdout().is_terminal() {
        true => redraw(args, &mut training),
        false => speak(args, &mut training),
    }
}

/// The state of the run; an error if the folder holds none.
fn look<'a>(run: &Path, training: &'a mut Training) -> Result<State<'a>> {
    let state = State::read(run, training)?;
    if state.is_empty() {
        return Err(Failure::input(format!(
            "{}: no run, expected a folder with `metrics.jsonl` (a training), `stages` (a pipeline) or `runs` (a sweep)",
            run.display()
        )));
    }
    Ok(state)
}

/// Draws the view anew at each look, in its place.
fn redraw(args: &Args, training: &mut Training) -> Result {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout());
    bar.set_style(ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_bar()));
    let interrupted = crate::interrupt::flag();
    loop {
        let state = look(&args.run, training)?;
        let lines = view::lines(&state, &args.metric, terminal_columns());
        if state.has_ended() {
            bar.finish_and_clear();
            lines.iter().for_each(|line| print(line));
            return Ok(());
        }
        bar.set_message(lines.join("\n"));
        bar.tick();
        if wait(args.interval, &interrupted) {
            bar.finish_and_clear();
            lines.iter().for_each(|line| print(line));
            return Err(Failure::Interrupted);
        }
    }
}

/// Prints a line now and then, and the view at the end.
fn speak(args: &Args, training: &mut Training) -> Result {
    let interrupted = crate::interrupt::flag();
    let mut last: Option<(Instant, String)> = None;
    loop {
        let state = look(&args.run, training)?;
        if state.has_ended() {
            view::lines(&state, &args.metric, COLUMNS).iter().for_each(|line| print(line));
            return Ok(());
        }
        let line = view::line(&state);
        let is_due = last.as_ref().is_none_or(|(then, said)| then.elapsed() >= NEXT_LINE && *said != line);
        if is_due {
            print(&line);
            last = Some((now(), line));
        }
        if wait(args.interval, &interrupted) {
            return Err(Failure::Interrupted);
        }
    }
}

/// Waits for the next look; whether it was interrupted.
fn wait(seconds: f64, interrupted: &std::sync::atomic::AtomicBool) -> bool {
    let started = now();
    while started.elapsed().as_secs_f64() < seconds {
        if interrupted.load(Ordering::SeqCst) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    interrupted.load(Ordering::SeqCst)
}

/// Columns of the terminal; a last one stays free, so that no line is wrapped.
fn terminal_columns() -> usize {
    let (_, columns) = console::Term::stdout().size();
    usize::from(columns.max(21)) - 1
}

#[expect(clippy::disallowed_methods, reason = "the view is drawn now and then")]
fn now() -> Instant {
    Instant::now()
}
