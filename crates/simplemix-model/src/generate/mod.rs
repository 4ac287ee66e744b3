//! Sampling answers with a key/value cache.
//!
//! A prompt is read once for all its samples, and a row that has ended makes room for the next prompt's. What a sample
//! is depends on the seed, its stream and its number alone, never on the batch it happened to be in.

mod attend;
mod batch;
mod cache;
mod stop;

pub use stop::StopStrings;

use crate::causal_lm::CausalLm;
use crate::error::{Error, Result};
use crate::processors::Processors;
use crate::sample::Sampling;
use batch::Batch;

/// A prompt to be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Token ids of the prompt.
    pub prompt: Vec<u32>,
    /// Number of its random stream; sample `i` of a request draws from stream `(stream, i)`.
    pub stream: u64,
}

/// Limits of an answer and of the batch it is made in.
#[derive(Debug, Clone)]
pub struct GenerateOptions {
    /// Answers for each request.
    pub samples: usize,
    /// Tokens after which an answer is cut.
    pub max_new_tokens: usize,
    /// Tokens that end an answer; the ending token is kept in it.
    pub stop_tokens: Vec<u32>,
    /// Texts that end an answer; the tokens that complete one are kept.
    pub stop_strings: Option<StopStrings>,
    /// Changes of the logits before a token is drawn. For a single model only.
    pub processors: Processors,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// Rows that are generated together.
    pub batch_rows: usize,
}

impl Default for GenerateOptions {
    /// One answer of at most 256 tokens from the plain distribution, 32 rows at a time; nothing but length ends it.
    fn default() -> Self {
        Self {
            samples: 1,
            max_new_tokens: 256,
            stop_tokens: Vec::new(),
            stop_strings: None,
            processors: Processors::default(),
            sampling: Sampling::default(),
            batch_rows: 32,
        }
    }
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// It drew a stop token, or completed a stop string.
    Stop,
    /// It reached the limit of new tokens.
    Length,
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Generated {
    /// Drawn tokens, the stop token included.
    pub tokens: Vec<u32>,
    /// Log-probability of each under the model itself (temperature 1, nothing cut or penalised), nats.
    pub logps: Vec<f32>,
    /// Log-probability of each under the distribution that it was drawn from, nats; 0 where the likeliest is taken.
    pub sampling_logps: Vec<f32>,
    /// Why it ended.
    pub finish: Finish,
}

impl CausalLm {
    /// Answers every request `options.samples` times; `progress(done, total)` counts answers.
    ///
    /// # Errors
    /// [`Error::Input`] for settings out of range, an empty prompt or an unknown token id; [`Error::Torch`].
    pub fn generate(
        &self,
        requests: &[Request],
        options: &GenerateOptions,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Vec<Vec<Generated>>> {
        let answers = self.generate_while(requests, options, &mut |done, total| {
            progress(done, total);
            true
        })?;
        Ok(answers.expect("sampling stops early only on request"))
    }

    /// As [`CausalLm::generate`], for as long as `go_on(done, total)`, which is asked before each step, says so; nothing
    /// if it does not.
    ///
    /// # Errors
    /// As [`CausalLm::generate`].
    pub fn generate_while(
        &self,
        requests: &[Request],
        options: &GenerateOptions,
        go_on: &mut dyn FnMut(usize, usize) -> bool,
    ) -> Result<Option<Vec<Vec<Generated>>>> {
        run(&[(self, 1.0)], requests, options, go_on)
    }

    /// As [`CausalLm::generate`], from a geometric mixture of two models: before the temperature, logits are
    /// `weights[0] * self + weights[1] * other`. Both read the same tokens. `logps` are this model's own.
    ///
    /// DPO-Mix-P draws one answer of a pair with weights 1.5 and -0.5, the other with 0.5 and 0.5, of policy and
    /// reference (arXiv:2409.19605).
    ///
    /// # Errors
    /// As [`CausalLm::generate`]; [`Error::Input`] if the models' vocabularies differ, a weight is no number, or there are
    /// processors, which would make the samples another method's.
    pub fn generate_mixed(
        &self,
        other: &Self,
        weights: [f64; 2],
        requests: &[Request],
        options: &GenerateOptions,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Vec<Vec<Generated>>> {
        let refuse = |what, found: String, expected: String| Err(Error::Input { what, found, expected });
        let (ours, theirs) = (self.config().vocab_size, other.config().vocab_size);
        if ours != theirs {
            return refuse("vocabulary of the other model", theirs.to_string(), ours.to_string());
        }
        if !options.processors.is_neutral() {
            return refuse("processors", options.processors.names(), "none for a mixture of models".to_owned());
        }
        if let Some(weight) = weights.iter().find(|weight| !weight.is_finite()) {
            return refuse("weight of a model", weight.to_string(), "a number".to_owned());
        }
        let answers = run(&[(self, weights[0]), (other, weights[1])], requests, options, &mut |done, total| {
            progress(done, total);
            true
        })?;
        Ok(answers.expect("sampling stops early only on request"))
    }
}

fn run(
    models: &[(&CausalLm, f64)],
    requests: &[Request],
    options: &GenerateOptions,
    go_on: &mut dyn FnMut(usize, usize) -> bool,
) -> Result<Option<Vec<Vec<Generated>>>> {
    options.check()?;
    let _guard = tch::no_grad_guard();
    let settled = models.iter().map(|(model, _)| model.settled()).collect::<Result<Vec<_>>>()?;
    let models: Vec<(&CausalLm, f64)> = models
        .iter()
        .zip(&settled)
        .map(|((model, weight), settled)| (settled.as_ref().unwrap_or(model), *weight))
        .collect();
    let mut batch = Batch::new(&models, requests, options)?;
    Ok(batch.run(go_on)?.then(|| batch.answers()))
}

impl GenerateOptions {
    fn check(&self) -> Result<()> {
        self.sampling.check()?;
        self.processors.check()?;
        for (what, value) in
            [("samples", self.samples), ("max_new_tokens", self.max_new_tokens), ("batch_rows", self.batch_rows)]
        {
            if value == 0 {
                return Err(Error::Input { what, found: "0".to_owned(), expected: "at least 1".to_owned() });
            }
        }
        Ok(())
    }
}
