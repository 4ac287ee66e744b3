//! The user's view of long work: bars on a terminal, nothing elsewhere; and lines on the two standard streams.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use simplemix_data::{Metrics, Watch};

use crate::failure::Result;

/// A bar under `name`; drawn on a terminal only.
pub(crate) fn bar(name: &str, total: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{prefix:>12} [{bar:30}] {pos}/{len} {msg} {eta}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
    bar.set_prefix(name.to_owned());
    bar
}

/// A bar that counts bytes.
fn bytes(name: &str, total: u64) -> ProgressBar {
    let bar = bar(name, total);
    let style = ProgressStyle::with_template("{prefix:>12} [{bar:30}] {bytes}/{total_bytes} {msg} {eta}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
    bar
}

/// The terminal while long work goes on: a bar for each stage, a line for each evaluation, Ctrl-C.
pub(crate) struct Terminal {
    lines: Lines,
    bar: ProgressBar,
    stage: String,
    interrupted: Arc<AtomicBool>,
}

/// Metrics beside the bar of training, and their short names.
const BESIDE_THE_BAR: [(&str, &str); 6] = [
    ("loss", "loss"),
    ("rewards/margins", "margin"),
    ("margin", "margin"),
    ("rewards/accuracies", "accuracy"),
    ("accuracy", "accuracy"),
    ("mean_token_accuracy", "token accuracy"),
];

impl Terminal {
    /// A terminal without a bar. From now on Ctrl-C asks the work to stop.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self { interrupted: crate::interrupt::flag()?, ..Self::passive() })
    }

    /// A terminal for work that Ctrl-C ends at once, as it ends a program by default.
    pub(crate) fn passive() -> Self {
        let lines = Lines(MultiProgress::with_draw_target(ProgressDrawTarget::stderr()));
        Self { lines, bar: ProgressBar::hidden(), stage: String::new(), interrupted: Arc::default() }
    }

    /// Takes the bar off the screen.
    pub(crate) fn clear(&mut self) {
        self.bar.finish_and_clear();
        self.bar = ProgressBar::hidden();
        self.stage.clear();
    }

    /// A second handle, which prints lines while the work goes on.
    pub(crate) fn lines(&self) -> Lines {
        self.lines.clone()
    }

    fn show(&mut self, stage: &str, total: u64) {
        if self.stage != stage {
            self.bar.finish_and_clear();
            self.bar = self.lines.0.add(if stage == "copying" { bytes(stage, total) } else { bar(stage, total) });
            stage.clone_into(&mut self.stage);
        }
        self.bar.set_length(total);
    }

    fn evaluation(&mut self, metrics: &Metrics<'_>) {
        let shown = |name: &str| {
            let mut ends = BESIDE_THE_BAR.iter().map(|(end, _)| *end);
            !name.contains('@') && ends.any(|end| name.strip_suffix(end).is_some_and(|rest| rest.ends_with('_')))
        };
        let values = metrics.values.iter().filter(|(name, _)| shown(name));
        let values: Vec<String> = values.map(|(name, value)| format!("{name} {value:.4}")).collect();
        self.clear();
        print(&format!("step {:>6}: {}", metrics.step, values.join(", ")));
    }
}

/// Prints lines of a result beside the bar of a terminal.
#[derive(Clone)]
pub(crate) struct Lines(MultiProgress);

impl Lines {
    /// Takes the bar off the screen until the work goes on, and prints a line of the result.
    pub(crate) fn print(&self, line: &str) {
        // A terminal that cannot be cleared cannot be helped.
        let _ = self.0.clear();
        print(line);
    }
}

impl Watch for Terminal {
    fn progress(&mut self, stage: &str, done: u64, total: u64) {
        self.show(stage, total);
        self.bar.set_position(done);
    }

    fn metrics(&mut self, metrics: &Metrics<'_>) {
        if metrics.is_evaluation {
            return self.evaluation(metrics);
        }
        self.show("training", metrics.steps);
        let values = BESIDE_THE_BAR.iter();
        let values = values.filter_map(|(name, short)| Some(format!("{short} {:.3}", metrics.get(name)?)));
        let speed = metrics.get("tokens_per_second").map_or(String::new(), |speed| format!(" {speed:.0} tok/s"));
        self.bar.set_position(metrics.step);
        self.bar.set_message(values.collect::<Vec<_>>().join(" ") + &speed);
    }

    fn notice(&mut self, text: &str) {
        self.lines.0.suspend(|| warn(&format!("note: {text}")));
    }

    fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::SeqCst)
    }
}

/// A line of the command's result.
#[expect(clippy::print_stdout, reason = "a command's result goes to standard output, here and nowhere else")]
pub(crate) fn print(line: &str) {
    println!("{line}");
}

/// A line beside the result.
#[expect(clippy::print_stderr, reason = "messages go to standard error, here and nowhere else")]
pub(crate) fn warn(line: &str) {
    eprintln!("{line}");
}
