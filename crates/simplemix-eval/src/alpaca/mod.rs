//! AlpacaEval 2.0 from annotations: what the official package (tatsu-lab/alpaca_eval) computes, to the digit.
//!
//! | to | use |
//! | --- | --- |
//! | read verdicts | [`read_annotations`] |
//! | have the plain figures | [`WinRate::of`] |
//! | control for length | [`LengthControl`], with the inputs that [`read_gamed`] and [`read_difficulty`] read |
//! | use weights that are published | [`read_weights`], [`predict`] |
//! | have all of it as a table | [`leaderboard`] |
//! | compare models on the same instructions | [`compare`] |
//!
//! A preference is 1 where the baseline's answer is better, 2 where the model's is, and anything between; 0 or 1.5 is a
//! draw. Lengths are in characters (Unicode code points).

mod annotation;
mod bootstrap;
mod compare;
mod folds;
mod leaderboard;
mod length_control;
mod read_json;
mod read_parquet;
mod tables;
mod win_rate;

pub use annotation::{Annotation, Annotations, Findings, Instruction, read_annotations};
pub use bootstrap::{Bootstrap, Interval};
pub use compare::{Comparison, compare};
pub use folds::group_k_fold;
pub use leaderboard::{CategoryRow, Entry, LeaderboardOptions, leaderboard};
pub use length_control::{GlmWeights, LengthControl, LengthControlled, is_extreme_change, predict};
pub use tables::{Categories, GamedRow, read_categories, read_difficulty, read_gamed, read_weights};
pub use win_rate::WinRate;

pub(crate) use read_json::objects_of;
