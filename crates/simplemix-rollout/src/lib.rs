//! On-policy preference pairs: generate, score, select.
//!
//! | to | use |
//! | --- | --- |
//! | make pairs in one call | [`collect`] |
//! | sample from a model in this process | [`LocalGenerator`] (feature `local`) |
//! | sample from anything else | implement [`Generator`] |
//! | check answers that have a right value | [`ExactAnswer`], [`is_right`] |
//! | draw pairs as DPO-Mix-P does | [`MixPGenerator`], [`MixPSettings`] (feature `local`) |
//! | draw pairs as DPO-Mix-R does | [`mix_r()`], [`MixRSettings`] |
//! | see what a sampler of pairs does, on a table | [`bandit`] |
//! | score by a rule of your own | implement [`Scorer`] |
//!
//! Without default features nothing here needs libtorch.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod bandit;
mod collect;
mod counter;
mod error;
mod exact;
mod generator;
#[cfg(feature = "local")]
mod local;
#[cfg(feature = "local")]
mod mix_p;
mod mix_r;
mod scorer;
mod select;

pub use collect::{Collected, collect};
pub use error::{Error, Result};
pub use exact::{ExactAnswer, is_right};
pub use generator::{Candidate, Finish, Generator, Prompt, SamplingConfig};
#[cfg(feature = "local")]
pub use local::LocalGenerator;
#[cfg(feature = "local")]
pub use mix_p::{MixPGenerator, MixPNotice, MixPSettings, SAMPLERS};
pub use mix_r::{MixRSettings, mix_r};
pub use scorer::{DigitShare, Scorer};
pub use select::{NoPair, Selection, best_worst};
