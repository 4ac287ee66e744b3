//! What is asked of a model, and what it answers. Who answers is behind a trait.

use serde::{Deserialize, Serialize};
use simplemix_data::Text;

use crate::error::{Error, Result};

/// A prompt to be answered, with what a scorer may need.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    /// Names the prompt in reports; samples of equal ids draw alike.
    pub id: String,
    /// The context of the answer.
    pub prompt: Text,
    /// Kind of task, e.g. `math`.
    pub task: Option<String>,
    /// The right answer, where there is one.
    pub answer: Option<String>,
}

/// How answers are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplingConfig {
    /// Answers for each prompt.
    pub samples: usize,
    /// Divides the logits; 0 takes the likeliest token.
    pub temperature: f64,
    /// Draws from the fewest likeliest tokens that hold this share of the probability.
    pub top_p: f64,
    /// Tokens after which an answer is cut.
    pub max_new_tokens: usize,
    /// Everything drawn follows from it.
    pub seed: u64,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Finish {
    /// The model ended it.
    Stop,
    /// It reached the limit of new tokens.
    Length,
}

/// One answer to a prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Its text, without special tokens.
    pub text: String,
    /// Tokens drawn.
    pub tokens: usize,
    /// Summed log-probability under the model itself, nats, where the backend tells.
    pub logp: Option<f64>,
    /// Why it ended.
    pub finish: Finish,
}

/// A model that answers prompts: in this process, or behind a server.
pub trait Generator {
    /// Name of the model, for the `generator` column.
    fn name(&self) -> &str;

    /// `sampling.samples` answers for each prompt, in order; `progress(done, total)` counts answers.
    ///
    /// # Errors
    /// Whatever the backend reports.
    fn generate(
        &mut self,
        prompts: &[Prompt],
        sampling: &SamplingConfig,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Vec<Vec<Candidate>>>;
}

impl SamplingConfig {
    /// # Errors
    /// [`Error::Setting`] naming the first setting out of range.
    pub fn check(&self) -> Result<()> {
        let refuse = |key, found: String, expected| Err(Error::Setting { key, found, expected });
        if self.samples == 0 {
            return refuse("samples", "0".to_owned(), "at least 1");
        }
        if self.max_new_tokens == 0 {
            return refuse("max_new_tokens", "0".to_owned(), "at least 1");
        }
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return refuse("temperature", self.temperature.to_string(), "a number from 0");
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return refuse("top_p", self.top_p.to_string(), "above 0 and at most 1");
        }
        Ok(())
    }
}
