#![doc = include_str!("../README.md")]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod advise;
mod beside;
mod date;
mod divergence;
mod error;
mod estimate;
mod execute;
mod inputs;
mod mix;
mod off_policy;
mod page;
mod pipeline;
mod plan;
mod pool;
mod presets;
mod ranks;
mod report;
mod scoring;
#[cfg(feature = "server")]
mod served;
mod settings;
mod shown;
mod stage;
mod summary;
mod sweep;

pub use advise::{Advice, AdviseSettings, Figure, Reading, advise};
pub use beside::Beside;
pub use divergence::{Divergence, DivergenceSettings, Ratio, log_ratios, log_ratios_together};
pub use error::{Error, Result};
pub use estimate::Estimate;
pub use inputs::files;
pub use mix::{mix, verify};
pub use off_policy::OffPolicy;
pub use pipeline::{Finished, Pipeline};
pub use plan::{Job, SCORED, Stage};
pub use pool::{PoolModel, PoolSection};
pub use presets::preset;
pub use ranks::{Ranks, peers};
pub use report::{DivergenceReport, StageReport, TrainReport};
pub use scoring::{ScoringOptions, log_probabilities, log_probabilities_together};
pub use settings::{CollectSection, EvaluateSection, MixSection, ParallelSection, PipelineSettings, Sampler};
pub use simplemix_blend::{MixReport, MixSettings, MixSource, Mixing, SharedPrompts, Verified};
pub use stage::Done;
pub use summary::{Evaluation, StageSummary, Summary};
pub use sweep::{
    Axis, BestBy, Configuration, Forecast, Keep, Over, PlannedRun, RunForecast, RunReport, RunState, Sweep, SweepEvent,
    SweepReport, SweepSettings,
};

/// Name and version of the program that wrote a file.
const TOOL: &str = concat!("simplemix ", env!("CARGO_PKG_VERSION"));
