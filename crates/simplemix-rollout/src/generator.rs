//! Prompts, sampled responses, and the trait behind which a model samples them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use simplemix_data::{TemplateInputs, Text};

use crate::answer::Answer;
use crate::error::{Error, Result};
use crate::finish::Finish;

/// A prompt to sample responses to, with what a scorer may need. Built with [`Prompt::new`].
///
/// # Examples
/// ```
/// use simplemix_rollout::Prompt;
/// let prompt = Prompt::new("sum-1", "What is 2 + 2?").with_task("math").with_answer("4");
/// assert_eq!(prompt.answer.unwrap().all(), ["4"]);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Prompt {
    /// Name in reports; the random stream of a prompt follows from its id.
    pub id: String,
    /// Context of the response: text, or the turns of a conversation.
    pub prompt: Text,
    /// Kind of task, e.g. `math`.
    pub task: Option<String>,
    /// The known right answer, or several of which any is right.
    pub answer: Option<Answer>,
    /// A response by someone else; the chosen one where the prompt comes from a preference pair.
    pub reference: Option<String>,
    /// Inputs of the chat template beside the turns: tools, documents, arguments.
    #[serde(flatten)]
    pub inputs: TemplateInputs,
}

impl Prompt {
    /// A prompt without task, answer and reference.
    pub fn new(id: impl Into<String>, prompt: impl Into<Text>) -> Self {
        Self {
            id: id.into(),
            prompt: prompt.into(),
            task: None,
            answer: None,
            reference: None,
            inputs: TemplateInputs::default(),
        }
    }

    /// Sets the known right answer.
    #[must_use]
    pub fn with_answer(mut self, answer: impl Into<Answer>) -> Self {
        self.answer = Some(answer.into());
        self
    }

    /// Sets the kind of task.
    #[must_use]
    pub fn with_task(mut self, task: impl Into<String>) -> Self {
        self.task = Some(task.into());
        self
    }

    /// Sets a response by someone else.
    #[must_use]
    pub fn with_reference(mut self, reference: impl Into<String>) -> Self {
        self.reference = Some(reference.into());
        self
    }
}

/// Settings of sampling.
///
/// # Examples
/// ```
/// use simplemix_rollout::SamplingConfig;
/// let sampling = SamplingConfig { samples: 8, temperature: 1.0, ..SamplingConfig::simplemix() };
/// assert!(sampling.check().is_ok());
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SamplingConfig {
    /// Responses to each prompt.
    pub samples: usize,
    /// Divisor of the logits; 0 takes the most likely token.
    pub temperature: f64,
    /// Nucleus sampling: draw from the smallest set of most likely tokens with this share of the probability.
    pub top_p: f64,
    /// Draw from the `top_k` most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Draw from tokens at least this share as likely as the most likely one; 0 keeps all.
    pub min_p: f64,
    /// Longest response, in tokens.
    pub max_new_tokens: usize,
    /// Random seed.
    pub seed: u64,
    /// Whether the processors in the `generation_config.json` of a model in this process hold where a setting below is not
    /// given. A server is sent every setting in either case.
    #[serde(skip_serializing_if = "ModelProcessors::is_followed")]
    pub generation_config: ModelProcessors,
    /// Divides logits above 0, and multiplies those below, of tokens that prompt or response hold already; 1 for none. A
    /// server gets 1 if it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repetition_penalty: Option<f64>,
    /// Length of token sequences that come once at most in prompt and response; 0 for no limit. Not for servers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_repeat_ngram_size: Option<usize>,
    /// Ids of tokens that are never sampled. Not for servers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suppress_tokens: Option<Vec<u32>>,
    /// Ids of tokens that do not begin a response. Not for servers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub begin_suppress_tokens: Option<Vec<u32>>,
    /// Shortest response, in tokens; 0 for no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_new_tokens: Option<usize>,
}

/// Use of the processors in a model's `generation_config.json`: repetition penalty, forbidden repeats, suppressed
/// tokens, shortest response.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelProcessors {
    /// They hold, as in transformers' `generate`.
    #[default]
    Model,
    /// Samples come from the model alone.
    None,
}

impl ModelProcessors {
    /// Whether they hold.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    pub(crate) fn is_followed(&self) -> bool {
        *self == Self::Model
    }
}

/// A sampled response that is not yet in a pair.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// Text, without special tokens; `None` where the backend gave none, such as for reasoning alone, a refusal or a tool
    /// call.
    pub text: Option<String>,
    /// Tokens sampled; 0 where the backend does not report them.
    pub tokens: usize,
    /// Summed log-probability under the sampling model in nats, where the backend reports it.
    pub logp: Option<f64>,
    /// Reason for which it ended; `None` if it is unknown.
    pub finish: Option<Finish>,
    /// Seed given to the backend: the run's own for a model in this process, one per sample for a server.
    #[serde(default)]
    pub seed: Option<u64>,
    /// Address of the server that sampled it, where several share the work. Kept while the work is unfinished, for the summary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
}

impl Candidate {
    /// A response without tokens, log-probability, seed and server.
    pub fn new(text: impl Into<String>, finish: Finish) -> Self {
        Self { text: Some(text.into()), tokens: 0, logp: None, finish: Some(finish), seed: None, server: None }
    }

    /// Whether a limit of tokens cut it.
    pub(crate) fn is_cut(&self) -> bool {
        self.finish.as_ref().is_some_and(Finish::is_cut)
    }
}

/// Responses to sample for one prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Number of the prompt, from 0; [`Sampled`] refers to it.
    pub index: u64,
    /// The prompt.
    pub prompt: Prompt,
    /// Numbers of the samples that are missing.
    pub samples: Vec<usize>,
}

/// A sample of a [`Job`] that is done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sampled {
    /// Number of the prompt, as in [`Job::index`].
    pub index: u64,
    /// Number of the sample.
    pub sample: usize,
    /// The response; `None` if the backend refused the prompt and refusals are skipped.
    pub candidate: Option<Candidate>,
}

/// Numbers of attempts that failed, by reason: `status 429`, `timeout`, `connection`, `reply too large`, `unreadable reply`,
/// `wrong number of responses`, `repeated reply`, `error in the reply`, `error 503 in the reply`.
pub type Failures = BTreeMap<String, u64>;

/// Receiver of candidates while they are sampled.
pub trait CandidateSink {
    /// Keeps `sampled`, all of them or none. Calls may come in any order.
    ///
    /// # Errors
    /// Any error of keeping them; the generator must then stop.
    fn keep(&mut self, sampled: Vec<Sampled>) -> Result<()>;

    /// Reports that `count` responses are sampled and not yet kept. For progress bars.
    fn pending(&mut self, count: usize) {
        let _ = count;
    }

    /// Reports attempts that failed since the last call. They are counted in the summary.
    ///
    /// # Errors
    /// Any error of keeping the counts; the generator must then stop.
    fn failed(&mut self, failures: &Failures) -> Result<()> {
        let _ = failures;
        Ok(())
    }

    /// Reports a fact that the user should read, such as a setting that a server refuses. It is kept in the summary.
    fn notice(&mut self, text: &str) {
        let _ = text;
    }

    /// Reports a passing fact about the work that changes no response, such as a server that is set aside. The user is told, and
    /// the file does not keep it.
    fn passing(&mut self, text: &str) {
        self.notice(text);
    }

    /// Whether the generator should stop and return [`Error::Interrupted`].
    fn is_interrupted(&self) -> bool {
        false
    }
}

/// A model that samples responses: in this process, behind a server, or anywhere else.
///
/// # Examples
/// A generator that repeats the prompt:
/// ```
/// use simplemix_rollout::{
///     Candidate, CandidateSink, Finish, Generator, Job, Prompt, Result, Sampled, SamplingConfig,
/// };
/// struct Echo;
/// impl Generator for Echo {
///     fn name(&self) -> &str {
///         "echo"
///     }
///     fn sample(
///         &mut self,
///         jobs: &mut dyn Iterator<Item = Result<Job>>,
///         _: &SamplingConfig,
///         sink: &mut dyn CandidateSink,
///     ) -> Result<()> {
///         for job in jobs {
///             let Job { index, prompt, samples } = job?;
///             let text = format!("{:?}", prompt.prompt);
///             let candidate = Candidate::new(text, Finish::Stop);
///             let sampled = |sample| Sampled { index, sample, candidate: Some(candidate.clone()) };
///             sink.keep(samples.into_iter().map(sampled).collect())?;
///         }
///         Ok(())
///     }
/// }
/// let sampling = SamplingConfig { samples: 2, ..SamplingConfig::simplemix() };
/// let candidates = Echo.generate(&[Prompt::new("a", "Hello")], &sampling, &mut |_, _| {})?;
/// assert_eq!(candidates[0].len(), 2);
/// # Ok::<(), simplemix_rollout::Error>(())
/// ```
pub trait Generator {
    /// Name of the model, for the `generator` column.
    fn name(&self) -> &str;

    /// Everything that responses depend on beside prompts and sampling settings, such as a hash of the model or the
    /// name of a server's model. Responses with different fingerprints never go into the same file.
    fn fingerprint(&self) -> String {
        self.name().to_owned()
    }

    /// Date that the chat template writes into prompts, if it looks at the date. It is kept with unfinished work, so that
    /// all prompts of a file have the same one.
    fn template_date(&self) -> Option<String> {
        None
    }

    /// Responses that a model in this process samples at the same time; `None` for a backend elsewhere. Processes that share the
    /// work take groups of such batches in turn.
    fn batch_rows(&self) -> Option<usize> {
        None
    }

    /// A fact about the responses that the user should know before time is spent on them.
    fn remark(&self) -> Option<String> {
        None
    }

    /// Refuses a prompt that cannot be responded to, before time is spent on the others.
    ///
    /// # Errors
    /// The reason, where it is known without sampling.
    fn check(&self, _prompt: &Prompt, _sampling: &SamplingConfig) -> Result<()> {
        Ok(())
    }

    /// Samples responses for `jobs`.
    ///
    /// If the responses of a batch depend on each other, the batch must be passed to the sink in a single call, so that it
    /// is kept whole or sampled again.
    ///
    /// # Errors
    /// Any error of the backend or of the sink; [`Error::Interrupted`] if the sink asks to stop.
    fn sample(
        &mut self,
        jobs: &mut dyn Iterator<Item = Result<Job>>,
        sampling: &SamplingConfig,
        sink: &mut dyn CandidateSink,
    ) -> Result<()>;

    /// Samples `sampling.samples` responses to each prompt, in memory and in order. `progress(done, total)` counts
    /// responses.
    ///
    /// # Errors
    /// Those of [`Generator::sample`], and [`Error::Responses`] if a response is missing.
    fn generate(
        &mut self,
        prompts: &[Prompt],
        sampling: &SamplingConfig,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Vec<Vec<Candidate>>> {
        let samples = sampling.samples;
        let mut jobs = prompts.iter().enumerate().map(|(index, prompt)| {
            Ok(Job { index: index as u64, prompt: prompt.clone(), samples: (0..samples).collect() })
        });
        let candidates = vec![vec![None; samples]; prompts.len()];
        let mut sink = Memory { candidates, done: 0, progress };
        self.sample(&mut jobs, sampling, &mut sink)?;
        let (all, done) = (prompts.len() * samples, sink.done);
        let candidates: Option<Vec<Vec<Candidate>>> =
            sink.candidates.into_iter().map(|of_prompt| of_prompt.into_iter().collect()).collect();
        candidates.ok_or_else(|| Error::Responses {
            generator: self.name().to_owned(),
            found: done as u64,
            expected: all as u64,
            samples,
            prompts: prompts.len() as u64,
        })
    }
}

/// Keeps candidates in memory.
struct Memory<'a> {
    candidates: Vec<Vec<Option<Candidate>>>,
    done: usize,
    progress: &'a mut dyn FnMut(usize, usize),
}

impl CandidateSink for Memory<'_> {
    fn keep(&mut self, sampled: Vec<Sampled>) -> Result<()> {
        for Sampled { index, sample, candidate } in sampled {
            let cell = self.candidates.get_mut(index as usize).and_then(|of_prompt| of_prompt.get_mut(sample));
            if let (Some(cell), Some(candidate)) = (cell, candidate) {
                self.done += usize::from(cell.is_none());
                *cell = Some(candidate);
            }
        }
        self.pending(0);
        Ok(())
    }

    fn notice(&mut self, text: &str) {
        // There is no report to keep it in.
        tracing::warn!("{text}");
    }

    fn pending(&mut self, count: usize) {
        let total = self.candidates.iter().map(Vec::len).sum();
        (self.progress)(self.done + count, total);
    }
}

impl Default for SamplingConfig {
    /// [`SamplingConfig::simplemix`].
    fn default() -> Self {
        Self::simplemix()
    }
}

impl SamplingConfig {
    /// Settings of SIMPLEMIX's author (github.com/tianjianl/OpenRLHF at 215a4db, scripts/ray_vllm_generate.py):
    /// temperature 0.7, top-p 0.9, 2048 tokens. The author tried 1 to 32 samples; here it is 4.
    pub fn simplemix() -> Self {
        Self {
            samples: 4,
            temperature: 0.7,
            top_p: 0.9,
            top_k: 0,
            min_p: 0.0,
            max_new_tokens: 2048,
            seed: 42,
            generation_config: ModelProcessors::Model,
            repetition_penalty: None,
            no_repeat_ngram_size: None,
            suppress_tokens: None,
            begin_suppress_tokens: None,
            min_new_tokens: None,
        }
    }

    /// The most likely response to each prompt.
    pub fn greedy(max_new_tokens: usize) -> Self {
        Self { samples: 1, temperature: 0.0, top_p: 1.0, max_new_tokens, seed: 0, ..Self::simplemix() }
    }

    /// Samples of the model itself: nothing is cut, penalised or suppressed, and the temperature is 1. For estimates of a
    /// divergence.
    pub fn plain(samples: usize, max_new_tokens: usize, seed: u64) -> Self {
        let generation_config = ModelProcessors::None;
        Self { samples, temperature: 1.0, top_p: 1.0, max_new_tokens, seed, generation_config, ..Self::simplemix() }
    }

    /// The first setting that changes logits beyond temperature and cuts, if one is given. DPO-Mix-P takes none.
    pub fn given_processor(&self) -> Option<&'static str> {
        let given = [
            ("repetition_penalty", self.repetition_penalty.is_some()),
            ("no_repeat_ngram_size", self.no_repeat_ngram_size.is_some()),
            ("suppress_tokens", self.suppress_tokens.is_some()),
            ("begin_suppress_tokens", self.begin_suppress_tokens.is_some()),
            ("min_new_tokens", self.min_new_tokens.is_some()),
        ];
        given.into_iter().find(|(_, is_given)| *is_given).map(|(key, _)| key)
    }

    /// Checks that every setting is in range.
    ///
    /// # Errors
    /// [`Error::Setting`] with the first setting out of range.
    pub fn check(&self) -> Result<()> {
        let refuse = |key, found: String, expected| Err(Error::Setting { key, found, expected });
        if self.samples == 0 {
            return refuse("samples", "0".to_owned(), "at least 1");
        }
        if self.max_new_tokens == 0 {
            return refuse("max_new_tokens", "0".to_owned(), "at least 1");
        }
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return refuse("temperature", self.temperature.to_string(), "a number >= 0");
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return refuse("top_p", self.top_p.to_string(), "a number > 0 and <= 1");
        }
        if !(0.0..=1.0).contains(&self.min_p) {
            return refuse("min_p", self.min_p.to_string(), "a number from 0 to 1");
        }
        if let Some(penalty) = self.repetition_penalty.filter(|penalty| !(penalty.is_finite() && *penalty > 0.0)) {
            return refuse("repetition_penalty", penalty.to_string(), "a number > 0");
        }
        if let Some(least) = self.min_new_tokens.filter(|least| *least > self.max_new_tokens) {
            return refuse("min_new_tokens", least.to_string(), "at most `max_new_tokens`");
        }
        Ok(())
    }
}
