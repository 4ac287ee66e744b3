//! Judges: which of two answers is better, asked as AlpacaEval 2.0 asks, and kept in its format.
//!
//! | to | use |
//! | --- | --- |
//! | put a model's answers beside the baseline's | [`comparisons`] |
//! | know whether the judge sees them swapped | [`is_switched`] |
//! | ask the question | [`question`] |
//! | read the judge's token probabilities | [`preference`] |
//! | judge all, many at a time, going on after a stop | [`annotate`] with a [`Judge`] |
//!
//! Whoever answers is behind the trait [`Judge`]; nothing here knows a network or a model.

mod annotate;
mod compared;
mod prompt;
mod switch;
mod verdict;

pub use annotate::{AnnotateOptions, Annotated, Judge, JudgeError, Summary, Verdict, annotate};
pub use compared::{Asked, Compared, Unmatched, comparisons, read_asked};
pub use prompt::{Turn, question};
pub use switch::is_switched;
pub use verdict::preference;
