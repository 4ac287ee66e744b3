//! The preference-training loop: steps, schedules, checkpoints, metrics.
//!
//! | to | use |
//! | --- | --- |
//! | train from settings, as the command line does | [`TrainConfig`], [`Run`] |
//! | train a model of your own with this loop | [`Learner`], [`train`] |
//! | have only the optimiser or the schedule | [`AdamW`], [`Schedule`] |
//!
//! The loop is written against [`Learner`], a small trait without tensors; [`PreferenceLearner`], [`SftLearner`] and
//! [`RewardLearner`] are what this project trains.
//! Whatever is random follows from a seed and a counter, so a run that was stopped goes on as if it had not been.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod adamw;
mod config;
mod error;
mod events;
mod forward;
mod hypo;
mod learner;
mod loop_settings;
mod memory;
mod metrics;
mod observer;
mod order;
mod pairs;
mod patterns;
mod policy;
mod preference;
mod progress;
mod reference;
mod reference_cache;
#[cfg(feature = "report")]
mod report;
mod reward;
mod run;
mod run_folder;
mod schedule;
mod sft;
mod sides;
mod stats;
mod table;
mod torch_random;
mod trainee;
mod trainer;
mod trl_config;

pub use adamw::{AdamW, OptimizerSettings, ParameterGroup};
pub use config::{
    BatchSettings, CheckpointSettings, EvalFiles, EvalSettings, LogSettings, MemorySettings, MixSource,
    NonFinitePolicy, Objective, Shuffle, TokenSettings, TrainConfig,
};
pub use error::{Error, Result};
pub use forward::ForwardOptions;
pub use hypo::{Hypo, HypoSettings};
pub use learner::{FirstLoss, Learner, Trainable};
pub use loop_settings::{BestRule, LoopSettings, OnNonFinite};
pub use memory::{MemoryEstimate, peak_bytes};
pub use metrics::{MetricSet, Record};
pub use observer::{NonFinite, Observer, Occasion};
pub use order::{Batches, Order};
pub use pairs::{Feed, NamedSet, PairSet, PairTokens};
pub use preference::{PreferenceLearner, PreferenceOptions, Reference, ReferenceLogps, SyncRule, reference_logps};
pub use progress::{Best, Progress};
pub use reference::{ReferenceSettings, ReferenceSource};
pub use reward::RewardLearner;
pub use run::{Finished, Run, Trained};
pub use run_folder::RunFolder;
pub use schedule::Schedule;
pub use sft::SftLearner;
pub use sides::Sides;
pub use stats::{PairStats, TokenSums};
pub use table::{PairEntry, PairTable};
pub use trainee::Trainee;
pub use trainer::{Outcome, Tables, train};
pub use trl_config::from_trl;
