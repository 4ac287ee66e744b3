//! What the commands of collecting share: a bar for each stage, Ctrl-C, exit codes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::ProgressBar;
use simplemix_data::Watch;
use simplemix_rollout::Error;

use crate::failure::{Failure, Result};
use crate::progress::{bar, warn};

/// The terminal while a stage works.
pub(crate) struct Stages {
    bar: ProgressBar,
    stage: String,
    interrupted: Arc<AtomicBool>,
}

impl Stages {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self { bar: ProgressBar::hidden(), stage: String::new(), interrupted: crate::interrupt::flag()? })
    }

    /// Takes the bar off the screen.
    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

impl Watch for Stages {
    fn progress(&mut self, stage: &str, done: u64, total: u64) {
        if self.stage != stage {
            self.bar.finish_and_clear();
            self.bar = bar(stage, total);
            self.stage = stage.to_owned();
        }
        self.bar.set_length(total);
        self.bar.set_position(done);
    }

    fn notice(&mut self, text: &str) {
        self.bar.suspend(|| warn(&format!("note: {text}")));
    }

    fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::SeqCst)
    }
}

/// What kind of failure an error of a stage is.
pub(crate) fn failed(error: Error) -> Failure {
    match error {
        Error::Interrupted => {
            warn("stopped; what is done is kept, and the same command goes on from there");
            Failure::Interrupted
        }
        // What cannot be written is no fault of the input.
        Error::Data(simplemix_data::Error::Io { action: "create" | "write" | "rename", .. }) => {
            Failure::Run(error.into())
        }
        Error::Setting { .. }
        | Error::Prompt { .. }
        | Error::Row { .. }
        | Error::Columns { .. }
        | Error::Exists { .. }
        | Error::OtherWork { .. }
        | Error::Busy { .. }
        | Error::Data(_) => Failure::Input(error.into()),
        error => Failure::Run(error.into()),
    }
}
