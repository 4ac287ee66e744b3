#![doc = include_str!("../README.md")]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod cell;
mod draft;
mod drawn;
mod error;
mod filter;
mod folder;
mod format;
mod gather;
mod guard;
mod inputs;
mod markers;
mod message;
mod near;
mod pair;
mod problem;
mod read;
#[cfg(feature = "object-store")]
mod remote;
#[cfg(feature = "object-store")]
mod remote_http;
pub mod schema;
mod summary;
mod template;
mod token_set;
mod tokenize;
mod tokenizer;
mod validate;
mod watch;
mod write;
mod zones;

pub use drawn::{DrawnRows, Draws};
pub use error::{Error, Result};
pub use filter::{Facts, Filter, Left, Selection, Selector};
pub use format::{Format, RankedRule, belongs_to_prompt};
pub use gather::RowStore;
pub use inputs::inputs;
pub use message::{Message, TemplateInputs};
pub use pair::{Form, Origin, Pair, Policy, Text};
pub use problem::{Occurrences, Problem, Problems};
pub use read::{
    BoundedFile, BoundedReader, Container, ExtraColumns, PairReader, PolicyRule, ReadOptions, ReadReport, RowReader,
    SourceRule, read_metadata, read_pairs, read_pairs_with_report,
};
#[cfg(feature = "object-store")]
pub use remote::{ObjectCache, Transfer};
pub use summary::{Spread, Summarizer, Summary};
pub use template::{ChatTemplate, RenderOptions, SpecialTokens, TemplateLimits};
pub use token_set::{TokenRow, TokenSet};
pub use tokenize::{
    Boundary, DropReason, OnTemplateRefusal, Outcome, PairTokenizer, TokenizeOptions, TokenizedPair, TokenizedSet,
    Truncation,
};
pub use tokenizer::TokenizerAs;
pub use validate::{Finding, Findings, Validator};
pub use watch::{Metrics, Unwatched, Watch};
pub use write::{EncodedRows, GroupEncoder, PairWriter, TableWriter, WriteOptions};
