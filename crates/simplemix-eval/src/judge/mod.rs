//! Judges that decide which of two responses is better, with AlpacaEval 2.0's question and file format.
//!
//! | to | use |
//! | --- | --- |
//! | pair a model's responses with the baseline's | [`pair_outputs`] |
//! | know whether the judge sees a pair swapped | [`is_switched`] |
//! | phrase the question | [`question`] |
//! | turn the judge's token probabilities into a preference | [`preference`] |
//! | read the letter of a judge that thinks first | [`letter`] |
//! | judge all pairs, with continuation after a stop | [`annotate`] with a [`Judge`] |
//!
//! Implement [`Judge`] to ask a server, a model or a person; this module knows no network and no model.

mod annotate;
mod inputs;
mod journal;
mod prompt;
mod switch;
mod verdict;

pub use annotate::{AnnotateOptions, Judge, JudgeError, Summary, Verdict, annotate};
pub use inputs::{OutputPair, Question, Unmatched, pair_outputs, read_questions};
pub use prompt::{Turn, question};
pub use switch::is_switched;
pub use verdict::{letter, preference};
