#![doc = include_str!("../README.md")]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod adamw;
mod buckets;
mod budget;
mod config;
mod error;
mod events;
mod first_loss;
mod forward;
mod host;
mod hub_data;
mod hypo;
mod learner;
mod loop_settings;
mod memory;
mod metrics;
mod numpy_random;
mod observer;
mod order;
mod pairs;
mod patterns;
mod policy;
mod preference;
mod progress;
mod push;
mod recipe;
mod reference;
mod reference_cache;
#[cfg(feature = "report")]
mod report;
mod reward;
mod router;
mod run;
mod run_folder;
mod schedule;
mod sending;
mod sft;
mod sharded;
mod sides;
mod span;
mod stats;
mod table;
mod team;
mod torch_random;
mod trainee;
mod trainer;
mod update;

pub use adamw::{AdamW, Movement, OptimizerSettings, ParameterGroup};
pub use budget::{Budget, most_training_tokens, scoring_budget};
pub use config::{
    BatchSettings, CheckpointSettings, DataSet, DataSettings, EvalFiles, EvalSettings, LogSettings, MemorySettings,
    MixSource, NonFinitePolicy, Objective, ParallelSettings, PushSettings, Shard, Shares, Shuffle, TemplateRefusal,
    TokenSettings, TokenizerReading, TrainConfig,
};
pub use error::{Error, Result};
pub use first_loss::FirstLoss;
pub use forward::ForwardOptions;
pub use hub_data::files as hub_data_files;
pub use hypo::HypoSettings;
pub use learner::{Learner, Trainable};
pub use loop_settings::{BestRule, LoopSettings, OnNonFinite};
pub use memory::{DEVICE_PEAK, MemoryEstimate, Phases, peak_bytes};
pub use metrics::{MetricSet, Record};
pub use observer::{NonFinite, Observer, Occasion};
pub use order::Order;
pub use pairs::PairSet;
pub use preference::{ReferenceLogps, reference_logps, reference_logps_together};
pub use progress::{Best, Progress};
pub use recipe::{Program, Recipe, from_trl, import_recipe};
pub use reference::{ReferenceSettings, ReferenceSource};
pub use run::{Finished, Resume, Run, Trained};
pub use run_folder::RunFolder;
pub use schedule::{Decay, RateCurve, Schedule};
pub use sides::Sides;
pub use stats::{PairStats, TokenSums};
pub use table::{PairEntry, PairTable};
pub use team::Team;
pub use trainee::Trainee;
pub use trainer::{Outcome, Tables, train};

/// Numbers of other programs under `tests/golden/train/`.
#[cfg(test)]
pub(crate) fn golden(name: &str) -> serde_json::Value {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/train");
    let text = std::fs::read_to_string(folder.join(format!("{name}.json"))).expect("a golden file");
    serde_json::from_str(&text).expect("JSON")
}
