//! The preference-training loop: steps, schedules, checkpoints, metrics.
//!
//! | to | use |
//! | --- | --- |
//! | train from settings, as the command line does | [`TrainConfig`], [`Run`] |
//! | train a model of your own with this loop | [`Learner`], [`train`] |
//! | have only the optimiser or the schedule | [`AdamW`], [`Schedule`] |
//!
//! The loop is written against [`Learner`], a small trait without tensors; [`DpoLearner`] is what this project trains.
//! Whatever is random follows from a seed and a counter, so a run that was stopped goes on as if it had not been.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod adamw;
mod config;
mod dpo;
mod error;
mod learner;
mod memory;
mod metrics;
mod order;
mod pairs;
mod run;
mod run_folder;
mod schedule;
mod table;
mod trainer;

pub use adamw::{AdamW, AdamWOptions};
pub use config::{Shuffle, TrainConfig};
pub use dpo::{DpoLearner, DpoOptions};
pub use error::{Error, Result};
pub use learner::{Learner, PairStats};
pub use memory::{MemoryEstimate, peak_bytes};
pub use metrics::{Record, preference_metrics};
pub use order::Order;
pub use pairs::PairSet;
pub use run::{Finished, Run, Stage, Unwatched, Watcher};
pub use run_folder::{MetricsFile, RunFolder};
pub use schedule::Schedule;
pub use table::{PairEntry, PairTable};
pub use trainer::{LoopSettings, Observer, Outcome, Progress, evaluate, train};
