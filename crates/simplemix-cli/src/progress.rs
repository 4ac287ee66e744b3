//! The user's view of long work: bars on a terminal, a line now and then elsewhere.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use simplemix_data::{Metrics, Watch};

use crate::lines::{is_elsewhere, print, warn};
use simplemix_eval::plain::clean_line;

/// Time from the start of a stage to its first line, and from one line to the next, where there is no terminal.
const FIRST_LINE: Duration = Duration::from_secs(5);
const NEXT_LINE: Duration = Duration::from_secs(30);

/// All bars, which share the terminal.
static BARS: LazyLock<MultiProgress> = LazyLock::new(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr()));

/// Progress of one stage: a bar on a terminal, else a line on standard error now and then.
pub(crate) struct Bar {
    bar: ProgressBar,
    /// Time of the next line; none on a terminal.
    next_line: Option<Mutex<Instant>>,
    /// Prints a line.
    say: fn(&str),
}

/// Progress of the stage `name`.
pub(crate) fn bar(name: &str, total: u64) -> Bar {
    if is_elsewhere() {
        // The process that speaks shows the progress of all.
        return Bar::hidden();
    }
    Bar::new(name, total, std::io::stderr().is_terminal())
}

impl Bar {
    fn new(name: &str, total: u64, is_terminal: bool) -> Self {
        let bar = BARS.add(ProgressBar::new(total));
        let template = match (name, total) {
            ("copying", _) => "{prefix:>12} [{bar:30}] {bytes}/{total_bytes} {msg} {eta}",
            // A total that is not known.
            (_, 0) => "{prefix:>12} {pos} {msg}",
            _ => "{prefix:>12} [{bar:30}] {pos}/{len} {msg} {eta}",
        };
        let style = ProgressStyle::with_template(template);
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
        bar.set_prefix(clean_line(name).into_owned());
        Self { bar, next_line: (!is_terminal).then(|| Mutex::new(now() + FIRST_LINE)), say: warn }
    }

    /// The progress of nothing.
    fn hidden() -> Self {
        Self { bar: ProgressBar::hidden(), next_line: None, say: warn }
    }

    pub(crate) fn set_length(&self, total: u64) {
        self.bar.set_length(total);
    }

    pub(crate) fn set_message(&self, text: String) {
        self.bar.set_message(clean_line(&text).into_owned());
    }

    pub(crate) fn set_position(&self, done: u64) {
        self.bar.set_position(done);
        self.print_line();
    }

    /// Units that are done.
    #[cfg(test)]
    pub(crate) fn position(&self) -> u64 {
        self.bar.position()
    }

    pub(crate) fn inc(&self, done: u64) {
        self.bar.inc(done);
        self.print_line();
    }

    pub(crate) fn finish_and_clear(&self) {
        self.bar.finish_and_clear();
    }

    /// Prints a line if it is time for one.
    fn print_line(&self) {
        let Some(next) = &self.next_line else { return };
        let mut next = next.lock().unwrap_or_else(PoisonError::into_inner);
        if now() >= *next {
            *next = now() + NEXT_LINE;
            (self.say)(&self.line());
        }
    }

    /// `training: 30 of 900, loss 0.69, about 120 s left`
    fn line(&self) -> String {
        let (total, message) = (self.bar.length().unwrap_or_default(), self.bar.message());
        let of = if total > 0 { format!(" of {total}") } else { String::new() };
        let beside = if message.is_empty() { String::new() } else { format!(", {message}") };
        let left = self.bar.eta().as_secs();
        let left = if left > 0 { format!(", about {left} s left") } else { String::new() };
        format!("{}: {}{of}{beside}{left}", self.bar.prefix(), self.bar.position())
    }
}

#[expect(clippy::disallowed_methods, reason = "lines of progress are printed now and then")]
fn now() -> Instant {
    Instant::now()
}

/// View of long work on the terminal: a bar for each stage, a line for each evaluation; Ctrl-C interrupts.
pub(crate) struct Terminal {
    bar: Bar,
    stage: String,
    /// Work that goes on beside, and its bar.
    beside: Option<(String, Bar)>,
    interrupted: Arc<AtomicBool>,
    /// Whether standard output is for JSON alone, so that evaluations go beside it.
    is_json: bool,
    /// Notices so far, for results in JSON.
    notices: Vec<String>,
}

/// Metrics beside the bar of training, and their short names.
pub(crate) const BESIDE_THE_BAR: [(&str, &str); 6] = [
    ("loss", "loss"),
    ("rewards/margins", "margin"),
    ("margin", "margin"),
    ("rewards/accuracies", "accuracy"),
    ("accuracy", "accuracy"),
    ("mean_token_accuracy", "token accuracy"),
];

impl Terminal {
    /// A terminal without a bar. From now on Ctrl-C asks the work to stop.
    pub(crate) fn new() -> Self {
        Self { interrupted: crate::interrupt::flag(), ..Self::passive() }
    }

    /// A terminal for work that Ctrl-C ends at once, as it ends a program by default.
    pub(crate) fn passive() -> Self {
        let (stage, interrupted) = (String::new(), Arc::default());
        Self { bar: Bar::hidden(), stage, beside: None, interrupted, is_json: false, notices: Vec::new() }
    }

    /// Everything that the user was told so far.
    pub(crate) fn notices(&self) -> &[String] {
        &self.notices
    }

    /// Keeps standard output free of lines, for JSON that follows.
    pub(crate) fn keep_results_for_json(&mut self, is_json: bool) {
        self.is_json = is_json;
    }

    /// Takes the bar off the screen.
    pub(crate) fn clear(&mut self) {
        self.bar.finish_and_clear();
        self.bar = Bar::hidden();
        self.stage.clear();
        if let Some((_, bar)) = self.beside.take() {
            bar.finish_and_clear();
        }
    }

    fn show(&mut self, stage: &str, total: u64) {
        if self.stage != stage {
            self.bar.finish_and_clear();
            self.bar = bar(stage, total);
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
        let line = format!("step {:>6}: {}", metrics.step, values.join(", "));
        if self.is_json { warn(&line) } else { print(&line) }
    }
}

/// Removes the bars until the next progress, and prints a line of the result, or beside it where `is_json`.
pub(crate) fn print_during_work(line: &str, is_json: bool) {
    // A terminal that cannot be cleared cannot be helped.
    let _ = BARS.clear();
    if is_json { warn(line) } else { print(line) }
}

impl Watch for Terminal {
    fn progress(&mut self, stage: &str, done: u64, total: u64) {
        self.show(stage, total);
        self.bar.set_position(done);
    }

    fn progress_beside(&mut self, stage: &str, done: u64, total: u64) {
        if let Some((_, bar)) = self.beside.take_if(|(known, _)| known != stage) {
            bar.finish_and_clear();
        }
        let (_, bar) = self.beside.get_or_insert_with(|| (stage.to_owned(), bar(stage, total)));
        bar.set_length(total);
        bar.set_position(done);
        if total > 0 && done >= total {
            self.beside.take().iter().for_each(|(_, bar)| bar.finish_and_clear());
        }
    }

    fn metrics(&mut self, metrics: &Metrics<'_>) {
        if metrics.is_evaluation {
            return self.evaluation(metrics);
        }
        self.show("training", metrics.steps);
        let values = BESIDE_THE_BAR.iter();
        let values = values.filter_map(|(name, short)| Some(format!("{short} {:.3}", metrics.get(name)?)));
        let speed = metrics.get("tokens_per_second").map_or(String::new(), |speed| format!(" {speed:.0} tok/s"));
        self.bar.set_message(values.collect::<Vec<_>>().join(" ") + &speed);
        self.bar.set_position(metrics.step);
    }

    fn notice(&mut self, text: &str) {
        BARS.suspend(|| warn(&format!("note: {text}")));
        self.notices.push(text.to_owned());
    }

    fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_what_a_bar_shows() {
        let bar = Bar::new("training", 900, false);
        assert_eq!(bar.line(), "training: 0 of 900");
        bar.set_message("loss 0.69".to_owned());
        bar.bar.set_position(30);
        assert!(bar.line().starts_with("training: 30 of 900, loss 0.69"), "{}", bar.line());
        assert!(Bar::new("reading", 0, false).line().ends_with("reading: 0"));
    }

    #[test]
    fn work_beside_has_a_bar_of_its_own() {
        let mut terminal = Terminal::passive();
        terminal.progress("training", 3, 9);
        terminal.progress_beside("generate", 4, 8);
        terminal.progress("training", 5, 9);
        terminal.progress_beside("generate", 6, 8);
        let (stage, bar) = terminal.beside.as_ref().unwrap();
        assert_eq!((terminal.bar.position(), stage.as_str(), bar.position()), (5, "generate", 6));
        terminal.progress_beside("score", 1, 8);
        assert_eq!(terminal.beside.as_ref().unwrap().0, "score");
        terminal.progress_beside("score", 8, 8);
        assert!(terminal.beside.is_none() && terminal.bar.position() == 5);
    }

    #[test]
    fn lines_are_for_where_there_is_no_terminal() {
        assert!(Bar::new("reading", 1, true).next_line.is_none());
        let bar = Bar { say: |_| {}, ..Bar::new("reading", 2, false) };
        let time = || *bar.next_line.as_ref().unwrap().lock().unwrap();
        let first = time();
        bar.inc(1);
        assert_eq!(time(), first, "no line in the first five seconds");
        *bar.next_line.as_ref().unwrap().lock().unwrap() = now();
        bar.inc(1);
        assert!(time() > first, "the next line is half a minute later");
    }
}
