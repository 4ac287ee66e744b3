#![doc = include_str!("../README.md")]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod answer;
mod backend;
pub mod bandit;
mod candidates;
mod collect;
mod command;
mod error;
mod exact;
mod finish;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
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
mod pair;
mod pool;
mod pool_share;
mod preset;
mod prompt_rows;
mod prompts;
mod random;
#[cfg(feature = "local")]
mod reward;
mod rules;
mod score;
mod scorer;
mod scorers;
mod select;
#[cfg(feature = "server")]
mod server;
#[cfg(feature = "local")]
mod together;

pub use answer::Answer;
pub use backend::GeneratorSettings;
pub use candidates::{CandidateGroup, CandidateReader, CandidateRow, SCORE};
pub use collect::{CollectReport, CollectSettings, Collected, collect, collect_to_files};
pub use command::CommandSettings;
pub use error::{Error, Result};
pub use exact::{ExactAnswer, is_right};
pub use finish::Finish;
pub use generate::{GenerateReport, GenerateSettings, generate};
pub use generator::{
    Candidate, CandidateSink, Failures, Generator, Job, ModelProcessors, Prompt, Sampled, SamplingConfig,
};
#[cfg(feature = "server")]
pub use judge::{Judge, JudgeMode, JudgeSettings};
#[cfg(feature = "local")]
pub use local::{LocalGenerator, LocalSettings};
#[cfg(feature = "local")]
pub use mix_p::{MixPGenerator, MixPSettings};
pub use pair::{PairReport, PairSettings, pair};
pub use pool::{PoolMember, PoolReport, PoolSettings, Quota, pool};
pub use pool_share::PoolShare;
pub use preset::Preset;
pub use prompts::PromptSettings;
#[cfg(feature = "local")]
pub use reward::{RewardScorer, RewardSettings};
pub use rules::{DigitShare, FormatRule, LengthRule, LengthUnit};
pub use score::{ScoreReport, ScoreSettings, Weighted, score};
#[cfg(feature = "local")]
pub use scorer::Batched;
pub use scorer::{Group, Rule, ScoreSink, Scorer, score_all};
pub use scorers::{ScorerKind, ScorerSettings};
pub use select::{NoPair, Select, SelectSettings, Selection, select_pairs};
#[cfg(feature = "server")]
pub use server::{
    Ask, Before, Endpoint, Evidence, OnRefused, OwnResponse, Reply, RoundGenerator, RoundModel, RoundSettings, Served,
    ServedReport, ServerClient, ServerGenerator, ServerSettings, Servers, SeveralServers, Software, TokenLogp,
    WeightsBy, WeightsSettings, Yardstick, put_weights,
};
#[cfg(all(feature = "local", feature = "server"))]
pub use server::{YardstickReport, YardstickSettings, measure};
#[cfg(feature = "local")]
pub use together::{Part, Peers, together};
