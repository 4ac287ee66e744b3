//! Responses from a model in this process.

use std::borrow::Borrow;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use simplemix_data::{PairTokenizer, TokenizeOptions};
use simplemix_files::hash_model_folder;
use simplemix_model::{CausalLm, Dtype, Request, default_device, model_name};

use crate::error::{Error, Result};
use crate::generator::{CandidateSink, Generator, Job, Prompt, SamplingConfig};
use crate::groups::{check, in_groups, options, sampled};
use crate::random::stream;

/// Settings of a model in this process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalSettings {
    /// Model folder in the Hugging Face layout.
    pub model: PathBuf,
    /// Name for the `generator` column; by default [`model_name`] of the folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Batch size: responses sampled at the same time. Memory grows with it.
    #[serde(default = "batch_rows")]
    pub batch_rows: usize,
    /// Element type of the weights.
    #[serde(default)]
    pub dtype: Dtype,
}

fn batch_rows() -> usize {
    64
}

impl LocalSettings {
    /// Defaults for the model in folder `model`.
    pub fn new(model: impl Into<PathBuf>) -> Self {
        Self { model: model.into(), name: None, batch_rows: batch_rows(), dtype: Dtype::Auto }
    }

    /// Checks that every setting is in range.
    ///
    /// # Errors
    /// [`Error::Setting`] with the first setting out of range.
    pub(crate) fn check(&self) -> Result<()> {
        if self.batch_rows == 0 {
            return Err(Error::Setting { key: "batch_rows", found: "0".to_owned(), expected: "at least 1" });
        }
        Ok(())
    }

    /// Name for the `generator` column.
    pub(crate) fn name(&self) -> String {
        self.name.clone().unwrap_or_else(|| model_name(&self.model))
    }
}

/// A model in this process that samples responses.
///
/// [`LocalGenerator::load`] owns model and tokenizer. [`LocalGenerator::new`] also takes references to them, such as to a
/// policy that is being trained.
///
/// # Examples
/// ```
/// use simplemix_rollout::{Generator, LocalGenerator, LocalSettings, Prompt, SamplingConfig};
/// # let dir = tempfile::tempdir()?;
/// # let folder = dir.path().join("tiny");
/// # simplemix_model::tiny::write_folder(&folder, 1)?;
/// let mut model = LocalGenerator::load(&LocalSettings::new(&folder))?;
/// let sampling = SamplingConfig { samples: 2, max_new_tokens: 8, ..SamplingConfig::simplemix() };
/// let candidates = model.generate(&[Prompt::new("a", "What is 2 + 2?")], &sampling, &mut |_, _| {})?;
/// assert_eq!(candidates[0].len(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct LocalGenerator<M = CausalLm, T = PairTokenizer> {
    model: M,
    tokenizer: T,
    name: String,
    fingerprint: String,
    batch_rows: usize,
}

impl LocalGenerator {
    /// Loads a model folder, onto a GPU if there is one.
    ///
    /// # Errors
    /// [`Error::Setting`], [`Error::Data`] or [`Error::Model`] with the setting or the file that cannot be used.
    pub fn load(settings: &LocalSettings) -> Result<Self> {
        settings.check()?;
        let folder = &settings.model;
        let device = default_device();
        let kind = settings.dtype.kind(device);
        Ok(Self {
            tokenizer: PairTokenizer::from_dir(folder, TokenizeOptions::default())?,
            fingerprint: format!("{} {kind:?} {device:?} {}", hash_model_folder(folder)?, settings.batch_rows),
            model: CausalLm::load(folder, kind, device)?,
            name: settings.name(),
            batch_rows: settings.batch_rows,
        })
    }
}

impl<M: Borrow<CausalLm>, T: Borrow<PairTokenizer>> LocalGenerator<M, T> {
    /// A generator from a model and a tokenizer, owned or borrowed. `name` is the value of the `generator` column,
    /// `batch_rows` the number of responses sampled at the same time.
    pub fn new(model: M, tokenizer: T, name: impl Into<String>, batch_rows: usize) -> Self {
        let name = name.into();
        Self { model, tokenizer, fingerprint: name.clone(), name, batch_rows }
    }

    fn sample_group(&self, jobs: &[Job], sampling: &SamplingConfig, sink: &mut dyn CandidateSink) -> Result<()> {
        let tokenizer = self.tokenizer.borrow();
        let request = |job: &Job| {
            let prompt = tokenizer.encode_prompt_with(&job.prompt.prompt, &job.prompt.inputs)?;
            Ok(Request { prompt, stream: stream(&job.prompt.id) })
        };
        let requests = jobs.iter().map(request).collect::<Result<Vec<_>>>()?;
        let options = options(tokenizer, sampling, self.batch_rows);
        let responses = self.model.borrow().generate_while(&requests, &options, &mut |done, _| {
            sink.pending(done);
            !sink.is_interrupted()
        })?;
        sink.keep(sampled(tokenizer, jobs, &responses.ok_or(Error::Interrupted)?, sampling.seed)?)
    }
}

impl<M: Borrow<CausalLm>, T: Borrow<PairTokenizer>> Generator for LocalGenerator<M, T> {
    fn name(&self) -> &str {
        &self.name
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }

    fn check(&self, prompt: &Prompt, sampling: &SamplingConfig) -> Result<()> {
        check(self.model.borrow().config(), self.tokenizer.borrow(), prompt, sampling)
    }

    fn sample(
        &mut self,
        jobs: &mut dyn Iterator<Item = Result<Job>>,
        sampling: &SamplingConfig,
        sink: &mut dyn CandidateSink,
    ) -> Result<()> {
        in_groups(jobs, self.batch_rows, sampling.samples, &mut |jobs| self.sample_group(jobs, sampling, sink))
    }
}

#[cfg(test)]
mod tests {
    use simplemix_data::{Message, Text};
    use simplemix_model::tiny;

    use super::*;
    use crate::generator::Candidate;

    #[test]
    fn a_tiny_model_responds_in_order_and_repeats_itself() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("tiny");
        tiny::write_folder(&folder, 3).unwrap();
        let mut model = LocalGenerator::load(&LocalSettings { batch_rows: 2, ..LocalSettings::new(&folder) }).unwrap();
        assert_eq!(model.name(), "tiny");
        let prompt =
            |i: usize| Prompt::new(format!("p{i}"), Text::Messages(vec![Message::user("x".repeat(i % 5 + 1))]));
        let prompts: Vec<Prompt> = (0..9).map(prompt).collect();
        let sampling = SamplingConfig {
            samples: 2,
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            max_new_tokens: 6,
            seed: 9,
        };
        let all = model.generate(&prompts, &sampling, &mut |_, _| {}).unwrap();
        assert_eq!(all.len(), 9);
        let texts =
            |candidates: &[Candidate]| candidates.iter().map(|candidate| candidate.text.clone()).collect::<Vec<_>>();
        let second = model.generate(&[prompt(1)], &sampling, &mut |_, _| {}).unwrap();
        assert_eq!(texts(&all[1]), texts(&second[0]));
        assert!(all.iter().flatten().all(|c| c.tokens <= 6 && c.logp.is_some_and(|l| l < 0.0)));
    }

    #[test]
    fn a_prompt_with_tokens_that_the_model_has_not_is_refused_before_sampling() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("tiny");
        tiny::write_folder(&folder, 3).unwrap();
        let tokenizer = PairTokenizer::from_dir(&folder, TokenizeOptions::default()).unwrap();
        let mut config = tiny::config();
        config.vocab_size = 40;
        let small = CausalLm::random(config, 1, tch::Device::Cpu).unwrap();
        let model = LocalGenerator::new(small, tokenizer, "small", 1);
        let prompt = Prompt::new("p7", Text::Messages(vec![Message::user("zebra")]));
        let error = model.check(&prompt, &SamplingConfig::simplemix()).unwrap_err();
        assert!(error.is_input());
        assert!(error.to_string().starts_with("prompt `p7`: token id is "), "{error}");
    }
}
