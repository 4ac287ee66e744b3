//! Which (source, row) comes next: mixtures of data sources that are exact, seekable and never silent.
//!
//! | to | use |
//! | --- | --- |
//! | mix named sources in fixed shares | [`Mixture`] |
//! | know before reading what each source will give | [`Mixture::plan`] |
//! | shuffle rows without storing an order | [`Permutation`] |
//! | read `off=uf.parquet:0.5` | [`SourceSpec`], [`parse_weights`] |
//!
//! A weight is a share of the mixture's rows: sources of weights 0.5 and 0.5 give as many rows each, however many they
//! have. Weights are exact fractions and the order is integer arithmetic. Every prefix holds each share to within
//! `1 - 1/(2k - 2)` rows for `k` sources (half a row for two), and every batch of a two-source mixture holds the floor
//! or the ceiling of it. Nothing here reads a file, a clock or a hidden generator.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod error;
mod mixture;
mod order;
mod permutation;
mod spec;
mod weight;

pub use error::{Error, Result};
pub use mixture::{Draw, Exhaustion, Mixture, MixtureConfig, Planned, RowOrder, SourceConfig};
pub use order::PERIOD_LIMIT;
pub use permutation::Permutation;
pub use spec::{SourceSpec, parse_weights};
pub use weight::Weight;
