//! On-policy preference pairs: generate, score, select.
//!
//! | to | use |
//! | --- | --- |
//! | make pairs in one call | [`collect`] |
//! | sample from a model in this process | [`LocalGenerator`] (feature `local`) |
//! | sample from anything else | implement [`Generator`] |
//! | check answers that have a right value | [`ExactAnswer`], [`is_right`] |
//! | score by a rule of your own | implement [`Scorer`] |
//!
//! Without default features nothing here needs libtorch.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod collect;
mod error;
mod exact;
mod generator;
#[cfg(feature = "local")]
mod local;
mod scorer;
mod select;

pub use collect::{Collected, collect};
pub use error::{Error, Result};
pub use exact::{ExactAnswer, is_right};
pub use generator::{Candidate, Finish, Generator, Prompt, SamplingConfig};
#[cfg(feature = "local")]
pub use local::LocalGenerator;
pub use scorer::{DigitShare, Scorer};
pub use select::{NoPair, Selection, best_worst};
