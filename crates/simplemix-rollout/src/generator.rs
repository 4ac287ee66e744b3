//! What is asked of a model, and what it answers. Who answers is behind a trait.

use serde::{Deserialize, Serialize};
use simplemix_data::Text;

use crate::error::{Error, Result};

/// A prompt to be answered, with what a scorer may need. Built with [`Prompt::new`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Prompt {
    /// Names the prompt in reports; samples of equal ids draw alike.
    pub id: String,
    /// The context of the answer.
    pub prompt: Text,
    /// Kind of task, e.g. `math`.
    pub task: Option<String>,
    /// The right answer, where there is one.
    pub answer: Option<String>,
    /// A response by someone else, where there is one: of a preference pair the chosen one.
    pub reference: Option<String>,
}

impl Prompt {
    /// A prompt of which nothing else is known.
    pub fn new(id: impl Into<String>, prompt: impl Into<Text>) -> Self {
        Self { id: id.into(), prompt: prompt.into(), task: None, answer: None, reference: None }
    }

    /// With the right answer.
    #[must_use]
    pub fn with_answer(mut self, answer: impl Into<String>) -> Self {
        self.answer = Some(answer.into());
        self
    }

    /// With a kind of task.
    #[must_use]
    pub fn with_task(mut self, task: impl Into<String>) -> Self {
        self.task = Some(task.into());
        self
    }

    /// With a response by someone else.
    #[must_use]
    pub fn with_reference(mut self, reference: impl Into<String>) -> Self {
        self.reference = Some(reference.into());
        self
    }
}

/// How answers are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SamplingConfig {
    /// Answers for each prompt.
    pub samples: usize,
    /// Divides the logits; 0 takes the likeliest token.
    pub temperature: f64,
    /// Draws from the fewest likeliest tokens that hold this share of the probability.
    pub top_p: f64,
    /// Draws from so many likeliest tokens; 0 keeps all.
    pub top_k: usize,
    /// Draws from tokens at least this share as likely as the likeliest; 0 keeps all.
    pub min_p: f64,
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// Its text, without special tokens.
    pub text: String,
    /// Tokens drawn; 0 where the backend does not tell.
    pub tokens: usize,
    /// Summed log-probability under the model itself, nats, where the backend tells.
    pub logp: Option<f64>,
    /// Why it ended.
    pub finish: Finish,
    /// The seed it was drawn with: the run's own in this process, one for each sample on a server.
    #[serde(default)]
    pub seed: Option<u64>,
}

/// Answers that are wanted of a prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Number of the prompt, by which its answers are known.
    pub place: u64,
    /// The prompt.
    pub prompt: Prompt,
    /// Which of its samples are wanted.
    pub samples: Vec<usize>,
}

/// An answer that is there.
#[derive(Debug, Clone, PartialEq)]
pub struct Answered {
    /// Number of the prompt.
    pub place: u64,
    /// Number of the sample.
    pub sample: usize,
    /// The answer; none if the backend refused this prompt and refusals are passed over.
    pub answer: Option<Candidate>,
}

/// Takes answers as they come.
pub trait AnswerSink {
    /// Keeps `answers`, all of them or none, in any order of calls.
    ///
    /// # Errors
    /// Whatever keeps it from it; the generator is to stop then.
    fn answered(&mut self, answers: Vec<Answered>) -> Result<()>;

    /// Answers that are made but not told yet, for a bar.
    fn under_way(&mut self, answers: usize) {
        let _ = answers;
    }

    /// Whether the generator is to stop, with [`Error::Interrupted`].
    fn stopped(&self) -> bool {
        false
    }
}

/// A model that answers prompts: in this process, or behind a server.
pub trait Generator {
    /// Name of the model, for the `generator` column.
    fn name(&self) -> &str;

    /// What answers depend on beside prompts and sampling: a hash of the model, its address, or the like. Answers under
    /// different fingerprints never get into one file.
    fn fingerprint(&self) -> String {
        self.name().to_owned()
    }

    /// Something about its answers that its user should know before time is spent on them.
    fn remark(&self) -> Option<String> {
        None
    }

    /// Answers jobs. What is told in one call of [`AnswerSink::answered`] was made together; a generator whose answers
    /// depend on the company they are made in tells the whole company at once, so that all of it is kept or made again.
    ///
    /// # Errors
    /// Whatever the backend or the sink reports, [`Error::Interrupted`] if the sink says stop.
    fn answer(
        &mut self,
        jobs: &mut dyn Iterator<Item = Result<Job>>,
        sampling: &SamplingConfig,
        sink: &mut dyn AnswerSink,
    ) -> Result<()>;

    /// `sampling.samples` answers for each prompt, in order; `progress(done, total)` counts answers.
    ///
    /// # Errors
    /// As [`Generator::answer`]; [`Error::Answers`] if one is missing.
    fn generate(
        &mut self,
        prompts: &[Prompt],
        sampling: &SamplingConfig,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Vec<Vec<Candidate>>> {
        let samples = sampling.samples;
        let mut jobs = prompts.iter().enumerate().map(|(place, prompt)| {
            Ok(Job { place: place as u64, prompt: prompt.clone(), samples: (0..samples).collect() })
        });
        let answers = vec![vec![None; samples]; prompts.len()];
        let mut sink = Memory { answers, done: 0, progress };
        self.answer(&mut jobs, sampling, &mut sink)?;
        let (all, done) = (prompts.len() * samples, sink.done);
        let answers: Option<Vec<Vec<Candidate>>> =
            sink.answers.into_iter().map(|of_prompt| of_prompt.into_iter().collect()).collect();
        answers.ok_or_else(|| Error::Answers {
            generator: self.name().to_owned(),
            found: format!("{done} answers"),
            expected: format!("{all}: {samples} to each of {} prompts", prompts.len()),
        })
    }
}

/// Keeps answers in memory.
struct Memory<'a> {
    answers: Vec<Vec<Option<Candidate>>>,
    done: usize,
    progress: &'a mut dyn FnMut(usize, usize),
}

impl AnswerSink for Memory<'_> {
    fn answered(&mut self, answers: Vec<Answered>) -> Result<()> {
        for Answered { place, sample, answer } in answers {
            let cell = self.answers.get_mut(place as usize).and_then(|of_prompt| of_prompt.get_mut(sample));
            if let (Some(cell), Some(answer)) = (cell, answer) {
                self.done += usize::from(cell.is_none());
                *cell = Some(answer);
            }
        }
        self.under_way(0);
        Ok(())
    }

    fn under_way(&mut self, answers: usize) {
        let total = self.answers.iter().map(Vec::len).sum();
        (self.progress)(self.done + answers, total);
    }
}

impl Default for SamplingConfig {
    /// As [`SamplingConfig::simplemix`].
    fn default() -> Self {
        Self::simplemix()
    }
}

impl SamplingConfig {
    /// What SIMPLEMIX's author sampled with (github.com/tianjianl/OpenRLHF at 215a4db, scripts/ray_vllm_generate.py):
    /// temperature 0.7, top-p 0.9, 2048 tokens; of the 1 to 32 samples tried there, 4.
    pub fn simplemix() -> Self {
        Self { samples: 4, temperature: 0.7, top_p: 0.9, top_k: 0, min_p: 0.0, max_new_tokens: 2048, seed: 42 }
    }

    /// As a recipe of the literature samples: `simpo` (github.com/princeton-nlp/SimPO, on_policy_data_gen: five samples at
    /// temperature 0.8, top-p 0.95, 4096 tokens); as [`SamplingConfig::simplemix`] for other names.
    pub fn preset(name: &str) -> Self {
        match name {
            "simpo" => Self { samples: 5, temperature: 0.8, top_p: 0.95, max_new_tokens: 4096, ..Self::simplemix() },
            _ => Self::simplemix(),
        }
    }

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
        if !(0.0..=1.0).contains(&self.min_p) {
            return refuse("min_p", self.min_p.to_string(), "from 0 to 1");
        }
        Ok(())
    }
}

/// The seed of one sample for a backend that takes one for each request: from the run's seed, the prompt's id and the
/// sample's number alone. 31 bits, which every server takes.
#[cfg(feature = "server")]
pub(crate) fn sample_seed(seed: u64, id: &str, sample: usize) -> u64 {
    let mixed = mix(mix(seed ^ stream(id)) ^ sample as u64);
    mixed >> 33
}

/// A prompt's random stream, from its id alone (FNV-1a), so that neither order nor company of prompts matters.
pub(crate) fn stream(id: &str) -> u64 {
    id.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A step of SplitMix64: spreads a counter over all bits.
pub(crate) fn mix(counter: u64) -> u64 {
    let mut z = counter.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
