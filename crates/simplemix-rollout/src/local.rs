//! Answers from a model in this process.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use simplemix_data::{PairTokenizer, TokenizeOptions};
use simplemix_model::{CausalLm, Request};
use tch::{Device, Kind};

use crate::error::{At, Error, Result};
use crate::generator::{AnswerSink, Generator, Job, SamplingConfig, stream};
use crate::groups::{answered, in_groups, options};

/// A model folder, and how it is run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalSettings {
    /// Model folder in Hugging Face's layout.
    pub model: PathBuf,
    /// Name for the `generator` column; the folder's if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Answers made together.
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
    /// The folder `model` with everything else as usual.
    pub fn new(model: impl Into<PathBuf>) -> Self {
        Self { model: model.into(), name: None, batch_rows: batch_rows(), dtype: Dtype::Auto }
    }
}

/// Element type of weights.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// bfloat16 on a GPU, else float32.
    #[default]
    Auto,
    /// 32 bits.
    Float32,
    /// 16 bits.
    Bfloat16,
}

impl Dtype {
    /// The type on `device`.
    pub fn kind(self, device: Device) -> Kind {
        match self {
            Self::Auto if device.is_cuda() => Kind::BFloat16,
            Self::Auto | Self::Float32 => Kind::Float,
            Self::Bfloat16 => Kind::BFloat16,
        }
    }
}

/// A loaded model that answers prompts.
pub struct LocalModel {
    model: CausalLm,
    tokenizer: PairTokenizer,
    name: String,
    batch_rows: usize,
    fingerprint: String,
}

impl LocalModel {
    /// Loads a folder, on a GPU if there is one.
    ///
    /// # Errors
    /// [`Error::Setting`], [`Error::Data`] or [`Error::Model`] naming what is wrong with it.
    pub fn load(settings: &LocalSettings) -> Result<Self> {
        if settings.batch_rows == 0 {
            return Err(Error::Setting { key: "batch_rows", found: "0".into(), expected: "at least 1" });
        }
        let folder = &settings.model;
        let device = Device::cuda_if_available();
        let kind = settings.dtype.kind(device);
        let tokenizer = PairTokenizer::from_dir(folder, TokenizeOptions::default())?;
        let fingerprint = format!("{} {kind:?} {device:?} {}", folder_hash(folder)?, settings.batch_rows);
        let name = settings.name.clone().unwrap_or_else(|| folder_name(folder));
        let model = CausalLm::load(folder, kind, device)?;
        Ok(Self { model, tokenizer, name, batch_rows: settings.batch_rows, fingerprint })
    }

    /// The model.
    pub fn model(&self) -> &CausalLm {
        &self.model
    }

    /// Its tokenizer.
    pub fn tokenizer(&self) -> &PairTokenizer {
        &self.tokenizer
    }
}

impl Generator for LocalModel {
    fn name(&self) -> &str {
        &self.name
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }

    fn answer(
        &mut self,
        jobs: &mut dyn Iterator<Item = Result<Job>>,
        sampling: &SamplingConfig,
        sink: &mut dyn AnswerSink,
    ) -> Result<()> {
        LocalGenerator::new(&self.model, &self.tokenizer, self.name.as_str(), self.batch_rows)
            .answer(jobs, sampling, sink)
    }
}

/// The last part of a folder's path.
pub(crate) fn folder_name(folder: &Path) -> String {
    let whole = folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf());
    whole.file_name().map_or_else(|| folder.display().to_string(), |name| name.to_string_lossy().into_owned())
}

/// A hash of the files of a model folder that say what it answers: weights, configuration, tokenizer, template.
///
/// # Errors
/// [`Error::Io`] if one cannot be read.
pub fn folder_hash(folder: &Path) -> Result<String> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).at(folder, "read")? {
        let path = entry.at(folder, "read")?.path();
        let counts = path.extension().is_some_and(|end| ["safetensors", "json", "jinja"].iter().any(|e| end == *e));
        if counts && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    let mut hasher = blake3::Hasher::new();
    for path in files {
        let mut of_file = blake3::Hasher::new();
        of_file.update_reader(std::fs::File::open(&path).at(&path, "read")?).at(&path, "read")?;
        hasher.update(path.file_name().unwrap_or_default().as_encoded_bytes());
        hasher.update(of_file.finalize().as_bytes());
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// A model and a tokenizer of someone else's, such as a policy that is being trained.
pub struct LocalGenerator<'a> {
    model: &'a CausalLm,
    tokenizer: &'a PairTokenizer,
    name: String,
    batch_rows: usize,
}

impl<'a> LocalGenerator<'a> {
    /// `name` is what pairs will have as their generator; `batch_rows` answers are made together.
    pub fn new(model: &'a CausalLm, tokenizer: &'a PairTokenizer, name: impl Into<String>, batch_rows: usize) -> Self {
        Self { model, tokenizer, name: name.into(), batch_rows }
    }

    /// Answers all of `jobs` together: the last bits of a log-probability depend on what else is in the batch.
    fn together(&self, jobs: &[Job], sampling: &SamplingConfig, sink: &mut dyn AnswerSink) -> Result<()> {
        let request = |job: &Job| {
            let prompt = self.tokenizer.encode_prompt(&job.prompt.prompt)?;
            Ok(Request { prompt, stream: stream(&job.prompt.id) })
        };
        let requests = jobs.iter().map(request).collect::<Result<Vec<_>>>()?;
        let options = options(self.tokenizer, sampling, self.batch_rows);
        let answers = self.model.generate_while(&requests, &options, &mut |done, _| {
            sink.under_way(done);
            !sink.stopped()
        })?;
        sink.answered(answered(self.tokenizer, jobs, &answers.ok_or(Error::Interrupted)?, sampling.seed)?)
    }
}

impl Generator for LocalGenerator<'_> {
    fn name(&self) -> &str {
        &self.name
    }

    fn answer(
        &mut self,
        jobs: &mut dyn Iterator<Item = Result<Job>>,
        sampling: &SamplingConfig,
        sink: &mut dyn AnswerSink,
    ) -> Result<()> {
        in_groups(jobs, self.batch_rows, sampling.samples, &mut |jobs| self.together(jobs, sampling, sink))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generator::{Candidate, Prompt};
    use simplemix_data::{Message, Text};
    use simplemix_model::tiny;

    #[test]
    fn a_tiny_model_answers_in_order_and_again_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("tiny");
        tiny::write_folder(&folder, 3).unwrap();
        let mut model = LocalModel::load(&LocalSettings { batch_rows: 2, ..LocalSettings::new(&folder) }).unwrap();
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
        let texts = |answers: &[Candidate]| answers.iter().map(|answer| answer.text.clone()).collect::<Vec<_>>();
        let second = model.generate(&[prompt(1)], &sampling, &mut |_, _| {}).unwrap();
        assert_eq!(texts(&all[1]), texts(&second[0]));
        assert!(all.iter().flatten().all(|c| c.tokens <= 6 && c.logp.is_some_and(|l| l < 0.0)));
    }
}
