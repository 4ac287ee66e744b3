//! Responses from a model in this process.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use simplemix_data::{PairTokenizer, TokenizeOptions, TokenizerAs};
use simplemix_files::hash_model_folder;
use simplemix_model::{CausalLm, DeviceChoice, Dtype, GenerateOptions, GenerationConfig, LoadIn, Request, model_name};
use tch::Device;

use crate::error::{Error, Result};
use crate::generator::{CandidateSink, Generator, Job, ModelProcessors, Prompt, SamplingConfig};
use crate::groups::{check, in_groups, options, processors, sampled};
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
    /// Form in which the weights of linear layers are held, as a policy trains over such weights.
    #[serde(default, skip_serializing_if = "LoadIn::is_none")]
    pub load_in: LoadIn,
    /// Device that the model runs on.
    #[serde(default)]
    pub device: DeviceChoice,
    /// Reading of a tokenizer that transformers 5 builds anew by its class.
    #[serde(default)]
    pub tokenizer_as: TokenizerAs,
    /// Date that the chat template sees, such as 2026-01-31; if not set, that of the first day of the work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template_date: Option<String>,
}

fn batch_rows() -> usize {
    64
}

impl LocalSettings {
    /// Defaults for the model in folder `model`.
    pub fn new(model: impl Into<PathBuf>) -> Self {
        Self {
            model: model.into(),
            name: None,
            batch_rows: batch_rows(),
            dtype: Dtype::Auto,
            load_in: LoadIn::None,
            device: DeviceChoice::Auto,
            tokenizer_as: TokenizerAs::File,
            template_date: None,
        }
    }

    /// Sets the date that the chat template sees, unless the settings have one.
    pub(crate) fn with_date(self, date: Option<String>) -> Self {
        Self { template_date: self.template_date.or(date), ..self }
    }

    /// The tokenizer of the folder.
    pub(crate) fn tokenizer(&self) -> Result<PairTokenizer> {
        dated_tokenizer(&self.model, self.tokenizer_as, self.template_date.as_deref())
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

/// The part of a fingerprint that stands for quantised weights; earlier versions had none.
pub(crate) fn quantised_mark(load_in: LoadIn) -> String {
    if load_in.is_none() { String::new() } else { format!(" in {}", load_in.word()) }
}

/// The part of a fingerprint that stands for the device: GPUs of other numbers do the same work.
pub(crate) fn device_mark(device: Device) -> &'static str {
    if device.is_cuda() { "Cuda(0)" } else { "Cpu" }
}

/// The tokenizer of a model folder, whose chat template sees `date`, or the present day.
pub(crate) fn dated_tokenizer(model: &Path, tokenizer_as: TokenizerAs, date: Option<&str>) -> Result<PairTokenizer> {
    let options = TokenizeOptions { tokenizer_as, ..TokenizeOptions::default() };
    let tokenizer = PairTokenizer::from_dir(model, options)?;
    match date {
        None => Ok(tokenizer),
        Some(date) => tokenizer.with_date(date).map_err(|_| Error::Setting {
            key: "template_date",
            found: format!("`{date}`"),
            expected: "a date such as 2026-01-31",
        }),
    }
}

/// A model in this process that samples responses.
///
/// [`LocalGenerator::load`] owns model and tokenizer, and follows the processors in the folder's `generation_config.json`
/// as [`SamplingConfig::generation_config`] says. [`LocalGenerator::new`] also takes references to model and tokenizer, such
/// as to a policy that is being trained, and knows no such file.
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
    generation: GenerationConfig,
}

impl LocalGenerator {
    /// Loads a model folder.
    ///
    /// # Errors
    /// [`Error::Setting`], [`Error::Data`] or [`Error::Model`] with the setting or the file that cannot be used.
    pub fn load(settings: &LocalSettings) -> Result<Self> {
        settings.check()?;
        let folder = &settings.model;
        let device = settings.device.open().map_err(simplemix_model::Error::from)?;
        let kind = settings.dtype.kind(device);
        let generation = GenerationConfig::read(folder)?;
        // Earlier versions passed over the processors: their samples are others.
        let follows = if generation.processors.is_neutral() { "" } else { " with processors" };
        let quantised = quantised_mark(settings.load_in);
        let hash = hash_model_folder(folder)?;
        Ok(Self {
            tokenizer: settings.tokenizer()?,
            fingerprint: format!(
                "{hash} {kind:?} {} {} {:?}{follows}{quantised}",
                device_mark(device),
                settings.batch_rows,
                settings.tokenizer_as
            ),
            generation,
            model: CausalLm::load_quantized(folder, kind, device, &settings.load_in.into())?,
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
        let generation = GenerationConfig::default();
        Self { model, tokenizer, fingerprint: name.clone(), name, batch_rows, generation }
    }

    /// Facts about the model's folder that the user should know before time is spent on samples.
    fn folder_remarks(&self) -> Vec<String> {
        let all = self.model.borrow().notices().iter().chain(self.tokenizer.borrow().folder_notices());
        all.map(|remark| format!("{}: {remark}", self.name)).collect()
    }

    /// Refuses token ids that the model does not have.
    fn check_ids(&self, sampling: &SamplingConfig) -> Result<()> {
        let vocab = self.model.borrow().config().vocab_size;
        let lists = [
            ("suppress_tokens", &sampling.suppress_tokens),
            ("begin_suppress_tokens", &sampling.begin_suppress_tokens),
        ];
        for (key, ids) in lists {
            if let Some(id) = ids.iter().flatten().find(|id| i64::from(**id) >= vocab) {
                let expected = "token ids below the size of the model's vocabulary";
                return Err(Error::Setting { key, found: format!("{id}, of a model with {vocab} ids"), expected });
            }
        }
        Ok(())
    }

    /// Facts about processors that the user should know before time is spent on samples.
    fn remarks(&self, sampling: &SamplingConfig) -> Vec<String> {
        let GenerationConfig { processors: asked, not_followed, .. } = &self.generation;
        if sampling.generation_config == ModelProcessors::None {
            return Vec::new();
        }
        let name = &self.name;
        let holds = (!asked.is_neutral()).then(|| {
            format!(
                "{name}: its generation_config.json asks for {}; samples follow {}, as in transformers, and \
                 log-probabilities are the model's own (`generation_config = \"none\"` samples from the model alone)",
                asked.names(),
                Some(processors(&self.generation, sampling).names())
                    .filter(|names| !names.is_empty())
                    .unwrap_or("none".into()),
            )
        });
        let passed = (!not_followed.is_empty()).then(|| {
            format!("{name}: its generation_config.json has {}, which samples do not follow", not_followed.join(", "))
        });
        holds.into_iter().chain(passed).collect()
    }

    fn sample_group(&self, jobs: &[Job], sampling: &SamplingConfig, sink: &mut dyn CandidateSink) -> Result<()> {
        let tokenizer = self.tokenizer.borrow();
        let request = |job: &Job| {
            let prompt = tokenizer.encode_prompt_with(&job.prompt.prompt, &job.prompt.inputs)?;
            Ok(Request { prompt, stream: stream(&job.prompt.id) })
        };
        let processors = processors(&self.generation, sampling);
        let options = GenerateOptions { processors, ..options(tokenizer, sampling, self.batch_rows) };
        let (mut kept, mut before) = (Vec::new(), 0);
        for (samples, jobs) in by_samples(jobs) {
            let requests = jobs.iter().map(request).collect::<Result<Vec<_>>>()?;
            let options = GenerateOptions { samples, ..options.clone() };
            let responses = self.model.borrow().generate_while(&requests, &options, &mut |done, _| {
                sink.pending(before + done);
                !sink.is_interrupted()
            })?;
            kept.extend(sampled(tokenizer, &jobs, &responses.ok_or(Error::Interrupted)?, sampling.seed)?);
            before += samples * jobs.len();
        }
        sink.keep(kept)
    }
}

impl<M: Borrow<CausalLm>, T: Borrow<PairTokenizer>> Generator for LocalGenerator<M, T> {
    fn name(&self) -> &str {
        &self.name
    }

    fn fingerprint(&self) -> String {
        match self.template_date() {
            Some(date) => format!("{} {date}", self.fingerprint),
            None => self.fingerprint.clone(),
        }
    }

    fn template_date(&self) -> Option<String> {
        self.tokenizer.borrow().date()
    }

    fn batch_rows(&self) -> Option<usize> {
        Some(self.batch_rows)
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
        sampling.check()?;
        self.check_ids(sampling)?;
        self.folder_remarks().iter().chain(&self.remarks(sampling)).for_each(|remark| sink.notice(remark));
        let mut looked_at_tokens = false;
        in_groups(jobs, self.batch_rows, sampling.samples, &mut |jobs| {
            if !looked_at_tokens {
                looked_at_tokens = true;
                let prompts: Vec<_> = jobs.iter().map(|job| (&job.prompt.prompt, &job.prompt.inputs)).collect();
                let notice = self.tokenizer.borrow().prompts_reading_notice(&prompts)?;
                notice.iter().for_each(|notice| sink.notice(&format!("{}: {notice}", self.name)));
            }
            self.sample_group(jobs, sampling, sink)
        })
    }
}

/// Jobs with the same number of samples, counted to the last one that is missing. Most often all have the same.
fn by_samples(jobs: &[Job]) -> BTreeMap<usize, Vec<Job>> {
    let mut parts: BTreeMap<usize, Vec<Job>> = BTreeMap::new();
    for job in jobs {
        let samples = job.samples.iter().max().map_or(0, |last| last + 1);
        parts.entry(samples).or_default().push(job.clone());
    }
    parts
}

#[cfg(test)]
mod tests {
    use simplemix_data::{Message, Text};
    use simplemix_model::tiny;

    use super::*;
    use crate::generator::Candidate;

    /// Greedy responses of a folder with this `generation_config.json`, and what was said about it.
    fn greedy(config: &str, sampling: &SamplingConfig) -> (Vec<Candidate>, Vec<String>) {
        #[derive(Default)]
        struct Sink(Vec<Candidate>, Vec<String>);
        impl CandidateSink for Sink {
            fn keep(&mut self, sampled: Vec<crate::Sampled>) -> Result<()> {
                self.0.extend(sampled.into_iter().filter_map(|sampled| sampled.candidate));
                Ok(())
            }
            fn notice(&mut self, text: &str) {
                self.1.push(text.to_owned());
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("tiny");
        tiny::write_folder(&folder, 3).unwrap();
        std::fs::write(folder.join("generation_config.json"), config).unwrap();
        let mut sink = Sink::default();
        let job = Job { index: 0, prompt: Prompt::new("a", "one, two"), samples: vec![0] };
        let mut model = LocalGenerator::load(&LocalSettings::new(&folder)).unwrap();
        model.sample(&mut std::iter::once(Ok(job)), sampling, &mut sink).unwrap();
        (sink.0, sink.1)
    }

    #[test]
    fn the_models_own_processors_hold_unless_settings_say_otherwise() {
        let sampling = SamplingConfig::greedy(12);
        let (plain, said) = greedy("{}", &sampling);
        assert_eq!(said, Vec::<String>::new());
        let (penalised, said) = greedy(r#"{"repetition_penalty": 9.0, "typical_p": 0.5}"#, &sampling);
        assert_ne!(penalised, plain);
        assert!(said[0].contains("asks for repetition_penalty 9; samples follow repetition_penalty 9"), "{said:?}");
        assert!(said[1].contains("typical_p 0.5, which samples do not follow"), "{said:?}");
        let none = SamplingConfig { generation_config: ModelProcessors::None, ..sampling.clone() };
        assert_eq!(greedy(r#"{"repetition_penalty": 9.0}"#, &none), (plain.clone(), vec![]));
        let neutral = SamplingConfig { repetition_penalty: Some(1.0), ..sampling.clone() };
        let (same, said) = greedy(r#"{"repetition_penalty": 9.0}"#, &neutral);
        assert!(same == plain && said[0].contains("samples follow none"), "{said:?}");
        let dir = tempfile::tempdir().unwrap();
        tiny::write_folder(&dir.path().join("tiny"), 3).unwrap();
        let unknown = SamplingConfig { suppress_tokens: Some(vec![1, 99_999]), ..sampling.clone() };
        let mut model = LocalGenerator::load(&LocalSettings::new(dir.path().join("tiny"))).unwrap();
        let error = model.generate(&[Prompt::new("a", "b")], &unknown, &mut |_, _| {}).unwrap_err();
        assert!(
            error.is_input() && error.to_string().contains("`suppress_tokens` is 99999, of a model with"),
            "{error}"
        );
        let given = SamplingConfig { repetition_penalty: Some(9.0), ..sampling };
        assert_eq!(greedy("{}", &given), (penalised, vec![]));
    }

    #[test]
    fn the_first_day_of_a_collection_is_its_date() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("tiny");
        tiny::write_folder(&folder, 3).unwrap();
        let template = "{{ strftime_now('%d') }}{% for m in messages %}{{ m.content }}{% endfor %}";
        std::fs::write(folder.join("chat_template.jinja"), template).unwrap();
        let path = dir.path().join("prompts.jsonl");
        std::fs::write(&path, r#"{"prompt": [{"role": "user", "content": "x"}]}"#).unwrap();
        let settings = crate::GenerateSettings {
            prompts: crate::PromptSettings { files: vec![path], ..crate::PromptSettings::default() },
            sampling: SamplingConfig { samples: 1, max_new_tokens: 2, ..SamplingConfig::simplemix() },
            output: dir.path().join("candidates.parquet"),
            overwrite: false,
            share: None,
        };
        let local = LocalSettings { template_date: Some("2024-02-29".to_owned()), ..LocalSettings::new(&folder) };
        let mut first = LocalGenerator::load(&local).unwrap();
        crate::generate(&settings, &mut first, &mut simplemix_data::Unwatched).unwrap();
        // On another day, the work goes on, or is found finished, with the date that it began with.
        let settings_without = crate::GeneratorSettings::Local(LocalSettings::new(&folder));
        let again = settings_without.open_for(&settings.output).unwrap();
        assert_eq!(again.template_date().as_deref(), Some("2024-02-29"));
        assert_eq!(again.fingerprint(), first.fingerprint());
        let today = settings_without.open_for(&dir.path().join("other.parquet")).unwrap();
        assert_ne!(today.fingerprint(), first.fingerprint());
        let wrong = LocalSettings { template_date: Some("yesterday".to_owned()), ..local };
        assert!(LocalGenerator::load(&wrong).err().unwrap().to_string().contains("`template_date` is `yesterday`"));
    }

    /// In a pool a model may have other numbers of responses to some prompts.
    #[test]
    fn each_prompt_has_the_samples_that_are_asked_for_and_no_others() {
        struct Sink(Vec<crate::Sampled>);
        impl CandidateSink for Sink {
            fn keep(&mut self, sampled: Vec<crate::Sampled>) -> Result<()> {
                self.0.extend(sampled);
                Ok(())
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("tiny");
        tiny::write_folder(&folder, 3).unwrap();
        let mut model = LocalGenerator::load(&LocalSettings::new(&folder)).unwrap();
        let prompts: Vec<Prompt> =
            (0..3).map(|i| Prompt::new(format!("p{i}"), format!("one, two {i}").as_str())).collect();
        let sampling = SamplingConfig::plain(3, 6, 9);
        let all = model.generate(&prompts, &sampling, &mut |_, _| {}).unwrap();
        let job = |index: usize, samples: usize| {
            Ok(Job { index: index as u64, prompt: prompts[index].clone(), samples: (0..samples).collect() })
        };
        let mut sink = Sink(Vec::new());
        model.sample(&mut [job(0, 3), job(1, 1), job(2, 3)].into_iter(), &sampling, &mut sink).unwrap();
        sink.0.sort_by_key(|sampled| (sampled.index, sampled.sample));
        let places: Vec<(u64, usize)> = sink.0.iter().map(|sampled| (sampled.index, sampled.sample)).collect();
        assert_eq!(places, [(0, 0), (0, 1), (0, 2), (1, 0), (2, 0), (2, 1), (2, 2)]);
        for crate::Sampled { index, sample, candidate } in sink.0 {
            assert_eq!(candidate.unwrap().text, all[index as usize][sample].text, "{index} {sample}");
        }
    }

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
        let sampling = SamplingConfig::plain(2, 6, 9);
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
