//! Preference losses on libtorch, and log-probabilities from hidden states without full logits.
//!
//! | to | use |
//! | --- | --- |
//! | compute a loss from log-probabilities | [`PreferenceLoss::evaluate`] |
//! | compute log-probabilities from hidden states, within a byte budget | [`score`], [`score_only`] |
//! | do both, with gradients into the network and its head | [`fused_preference_loss`] |
//!
//! Names and definitions are TRL's. Nothing here knows a model or a data format.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod error;
mod fused;
mod head;
mod pair;
mod preference;

pub use error::{Error, Result};
pub use fused::{Fused, fused_preference_loss};
pub use head::{Positions, Scores, score, score_only};
pub use pair::{LossOutput, PairLengths, PairLogps};
pub use preference::{LossKind, PreferenceLoss};
