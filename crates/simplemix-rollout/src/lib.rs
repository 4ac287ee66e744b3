//! On-policy preference pairs: generate, score, select.
//!
//! | to | use |
//! | --- | --- |
//! | make pairs in one call, in memory | [`collect()`] |
//! | make pairs from file to file, resumable | [`collect_to_files`], or [`generate()`], [`score()`] and [`pair()`] |
//! | sample from a model in this process | `LocalModel`, `LocalGenerator` (feature `local`) |
//! | sample from a server | `ServerGenerator` (feature `server`); `ServerClient` asks single questions |
//! | sample from anything else | implement [`Generator`] |
//! | check answers that have a right value | [`ExactAnswer`], [`is_right`] |
//! | score by a reward model, a judge, a program | `RewardScorer` (`local`), `Judge` (`server`), [`CommandScorer`] |
//! | score by a rule of your own | implement [`Rule`], or [`Scorer`] for many responses at a time |
//! | choose pairs by a rule of the literature | [`SelectSettings`], [`choose`] |
//! | draw pairs as DPO-Mix-P does | [`MixPGenerator`], [`MixPModel`], [`MixPSettings`] (feature `local`) |
//! | draw pairs as DPO-Mix-R does | [`mix_r()`], [`MixRSettings`] |
//! | see what a sampler of pairs does, on a table | [`bandit`] |
//!
//! Each stage is a struct of settings, which serde reads, and a function that takes it with a [`simplemix_data::Watch`] to
//! report to: [`GenerateSettings`], [`ScoreSettings`] with [`ScorerSettings`], [`PairSettings`], [`CollectSettings`]. Stages
//! keep what is done beside their output, go on from there when they are called again, and tell their report if all is done.
//!
//! Without default features nothing here needs libtorch.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod backend;
pub mod bandit;
mod candidates;
mod collect;
mod command;
mod counter;
mod error;
mod exact;
mod generate;
mod generator;
#[cfg(feature = "local")]
mod groups;
mod journal;
#[cfg(feature = "server")]
mod judge;
#[cfg(feature = "local")]
mod local;
#[cfg(feature = "local")]
mod mix_p;
mod mix_r;
mod pair;
mod prompts;
#[cfg(feature = "local")]
mod reward;
mod rules;
mod score;
mod scorer;
mod scorers;
mod select;
#[cfg(feature = "server")]
mod server;

pub use backend::GeneratorSettings;
pub use candidates::{CandidateGroup, CandidateReader, CandidateRow, SCORE};
pub use collect::{CollectReport, CollectSettings, Collected, collect, collect_to_files};
pub use command::{CommandScorer, CommandSettings};
pub use error::{Error, Result};
pub use exact::{ExactAnswer, is_right};
pub use generate::{GenerateReport, GenerateSettings, generate};
pub use generator::{AnswerSink, Answered, Candidate, Finish, Generator, Job, Prompt, SamplingConfig};
#[cfg(feature = "server")]
pub use judge::{Judge, JudgeMode, JudgeSettings};
#[cfg(feature = "local")]
pub use local::{Dtype, LocalGenerator, LocalModel, LocalSettings, folder_hash};
#[cfg(feature = "local")]
pub use mix_p::{MixPFolders, MixPGenerator, MixPModel, MixPNotice, MixPSettings, SAMPLERS};
pub use mix_r::{MixRSettings, mix_r};
pub use pair::{PairReport, PairSettings, pair};
pub use prompts::PromptSettings;
#[cfg(feature = "local")]
pub use reward::{RewardScorer, RewardSettings};
pub use rules::{DigitShare, FormatRule, LengthRule, LengthUnit};
pub use score::{ScoreReport, ScoreSettings, Weighted, score};
pub use scorer::{Group, Rule, ScoreSink, Scorer, score_all};
pub use scorers::{ScorerKind, ScorerSettings};
pub use select::{Choice, NoPair, Scored, Select, SelectSettings, Selection, best_worst, choose};
#[cfg(feature = "server")]
pub use server::{Ask, Endpoint, OnRefused, Reply, ServerClient, ServerGenerator, ServerSettings, TokenLogp};
