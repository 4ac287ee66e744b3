#![doc = include_str!("../README.md")]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod check;
mod divergence;
mod error;
mod formula;
mod fused;
mod gemm;
mod head;
mod inputs;
pub mod losses;
#[cfg(test)]
mod noise;
mod online;
mod pair;
mod preference;
mod rows;
mod score;
mod sum;
mod unpaired;
mod weights;
mod workspace;

pub use divergence::Divergence;
pub use error::{Error, Result};
pub use formula::{Constant, Formula, MAX_CONSTANTS, Need, Rewards, Terms};
pub use fused::{Fused, Known, fused_logps, fused_preference_loss};
pub use head::Head;
pub use inputs::{Positions, ScoreOptions, TokenStats};
pub use losses::absolute::RewardMean;
pub use online::{ScoreTerm, bradley_terry, kl_from_samples, nash_md, xpo_optimism};
pub use pair::{LossOutput, PairLengths, PairLogps, Pairs};
pub use preference::{LossKind, LossSettings, Objective, PreferenceLoss};
pub use score::{Scores, score, score_forward, score_only};
pub use sum::LossSum;
pub use unpaired::{KtoConstants, apo_zero_unpaired, kto, kto_baseline};
pub use weights::{Wpo, ld_token_weights, wpo_weights};
pub use workspace::default_budget;
