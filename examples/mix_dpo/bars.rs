//! Progress of long work: a bar on a terminal, elsewhere a line that says what begins.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};
use simplemix::data::{Metrics, Watch};

/// The bar of the stage that is under way.
#[derive(Default)]
pub(crate) struct Bars {
    bar: Option<ProgressBar>,
    stage: String,
}

impl Bars {
    /// Takes the bar off the screen.
    pub(crate) fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        self.stage.clear();
    }
}

impl Watch for Bars {
    fn progress(&mut self, stage: &str, done: u64, total: u64) {
        if self.stage != stage {
            self.clear();
            stage.clone_into(&mut self.stage);
            if !std::io::stderr().is_terminal() {
                println!("   {stage} ...");
            }
            let style = ProgressStyle::with_template("{prefix:>12} [{bar:30}] {pos}/{len} {msg} {eta}");
            let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
            self.bar = Some(ProgressBar::new(total).with_style(style).with_prefix(stage.to_owned()));
        }
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
        }
    }

    fn metrics(&mut self, metrics: &Metrics<'_>) {
        if metrics.is_evaluation {
            return;
        }
        self.progress("training", metrics.step, metrics.steps);
        if let Some(bar) = &self.bar {
            let value = |name| metrics.get(name).unwrap_or(f64::NAN);
            bar.set_message(format!("loss {:.3}, margin {:+.3}", value("loss"), value("rewards/margins")));
        }
    }

    fn notice(&mut self, text: &str) {
        println!("   {text}");
    }
}
