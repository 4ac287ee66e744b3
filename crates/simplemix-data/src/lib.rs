//! Preference pairs: schema, readers, writers, chat templates and tokenisation.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod cell;
mod draft;
mod error;
mod format;
mod gather;
mod pair;
mod problem;
pub mod read;
pub mod schema;
pub mod template;
pub mod tokenize;
pub mod write;

pub use error::{Error, Result};
pub use format::{Format, RankedRule};
pub use gather::RowStore;
pub use pair::{Form, Message, Pair, Policy, Text, pair_id};
pub use problem::{Occurrences, Problem, Problems};
pub use read::{
    ExtraColumns, PairReader, PolicyRule, ReadOptions, ReadReport, SourceRule, read_pairs, read_pairs_with_report,
};
pub use template::{ChatTemplate, RenderOptions, SpecialTokens, TemplateLimits};
pub use tokenize::{
    Boundary, DropReason, Outcome, PairTokenizer, TokenizeOptions, TokenizedPair, TokenizedSet, Truncation,
};
pub use write::{PairWriter, WriteOptions};
