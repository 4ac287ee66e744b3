#![doc = include_str!("../README.md")]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod alpaca;
mod bootstrap;
mod curves;
mod error;
pub mod html;
mod json;
pub mod judge;
mod logistic;
pub mod markdown;
mod outputs;
pub mod plain;
#[cfg(feature = "plot")]
pub mod plot;
mod preferences;
pub mod report;
mod share;
mod stats;
mod table;

pub use bootstrap::bootstrap_mean;
pub use curves::{Curves, at_end, read_curves};
pub use error::{Error, Result};
pub use logistic::sigmoid;
pub use outputs::{ModelOutput, read_outputs, write_outputs};
pub use preferences::{
    Bin, Calibration, LengthBias, PreferenceFigures, ScoredPair, preference_figures, preference_groups,
};
pub use share::{Share, mcnemar};
pub use stats::{half_width_95, holm, mean, paired_t_test, quantile, standard_error, welch_half_width_95};
pub use table::table;
