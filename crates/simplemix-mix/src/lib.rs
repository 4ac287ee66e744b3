#![doc = include_str!("../README.md")]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod adaptive;
mod audit;
mod error;
mod mixture;
mod numpy;
mod order;
pub mod parity;
mod permutation;
pub mod prompts;
mod routing;
mod schedule;
mod spec;
mod weight;

pub use adaptive::{Adaptive, AdaptiveConfig};
pub use audit::{Achieved, Audit, Origin, Receipt, SourceAchieved, Tally};
pub use error::{Error, Result};
pub use mixture::{
    BatchOrder, Draw, Draws, Exhaustion, MOST_SOURCES, Mixture, MixtureConfig, Planned, Promise, RowOrder, Shares,
    SourceConfig,
};
pub use order::PERIOD_LIMIT;
pub use permutation::Permutation;
pub use routing::{Routed, Routing};
pub use schedule::{Curve, Point, Schedule};
pub use spec::{SourceSpec, parse_weights};
pub use weight::Weight;
