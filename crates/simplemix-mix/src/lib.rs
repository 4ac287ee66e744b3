#![doc = include_str!("../README.md")]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod audit;
mod config;
mod error;
mod mixture;
mod numpy;
mod order;
pub mod parity;
mod permutation;
mod plan;
pub mod prompts;
mod routing;
mod schedule;
mod spec;
mod weight;

pub use audit::{AGES_KEY, Achieved, Audit, Origin, Receipt, SHARES_KEY, SourceAchieved, Tally};
pub use config::{BatchOrder, Exhaustion, MixtureConfig, RowOrder, Shares, SourceConfig};
pub use error::{Error, Result};
pub use mixture::{Draw, Mixture};
pub use permutation::Permutation;
pub use plan::{Planned, Promise};
pub use routing::{Routed, Routing};
pub use schedule::{Curve, Point, Schedule};
pub use spec::{SourceSpec, parse_weights};
pub use weight::Weight;
