#![doc = include_str!("../README.md")]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod check;
mod divergence;
mod error;
pub mod formula;
mod fused;
mod gemm;
mod head;
mod inputs;
pub mod losses;
#[cfg(test)]
mod noise;
mod objective;
mod online;
mod pair;
mod preference;
mod rows;
mod score;
mod settings;
mod sum;
pub mod unpaired;
mod weights;
mod workspace;

pub use divergence::Divergence;
pub use error::{Error, Result};
pub use fused::{FusedInputs, FusedLoss, fused_logps, fused_preference_loss};
pub use head::Head;
pub use inputs::{Checks, Positions, ScoreOptions, TokenStats};
pub use objective::PairLoss;
pub use online::{ScoreTerm, bradley_terry, kl_from_samples};
pub use pair::{LossOutput, Need, PairLengths, PairLogps, PairQuantiles, Pairs};
pub use preference::{LossKind, PreferenceLoss};
pub use score::{Scores, score, score_forward, score_only};
pub use settings::{LossNames, LossSettings};
pub use sum::LossSum;
pub use weights::{Wpo, ld_token_weights, wpo_weights};
