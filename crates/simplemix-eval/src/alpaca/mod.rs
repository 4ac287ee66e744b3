//! AlpacaEval 2.0 from annotations, with the figures of the official package (tatsu-lab/alpaca_eval).
//!
//! | to | use |
//! | --- | --- |
//! | read verdicts | [`read_annotations`] |
//! | compute the plain figures | [`WinRate::of`] |
//! | control for length | [`LengthControl`], with the inputs that [`read_gamed`] and [`read_difficulty`] read |
//! | use published weights | [`read_weights`], [`predict`] |
//! | compute all of it for several models | [`leaderboard`] |
//! | compare models on the same instructions | [`compare`] |
//!
//! A preference is between 1 (the baseline's response is better) and 2 (the model's is better); 0 and 1.5 are draws.
//! Lengths are in characters (Unicode code points).

mod annotation;
mod bootstrap;
mod compare;
mod folds;
mod leaderboard;
mod length_control;
mod read;
mod read_json;
mod read_parquet;
mod tables;
mod win_rate;

pub use annotation::{Annotation, Annotations, Findings, Instruction};
pub use bootstrap::{Bootstrap, Interval};
pub use compare::{Comparison, compare};
pub use folds::group_k_fold;
pub use leaderboard::{CategoryRow, Entry, LeaderboardOptions, leaderboard};
pub use length_control::{LengthControl, LengthControlled, is_extreme_change, predict};
pub use read::read_annotations;
pub use tables::{Categories, GamedRow, GlmWeights, read_categories, read_difficulty, read_gamed, read_weights};
pub use win_rate::WinRate;
