//! First stage: from prompts to a file of candidates. It can be stopped and continued at any moment.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use simplemix_data::Watch;

use crate::candidates::{CandidateRow, CandidateWriter, check_output};
use crate::error::{Error, Result};
use crate::generator::{Candidate, CandidateSink, Finish, Generator, Job, Prompt, Sampled, SamplingConfig};
use crate::journal::{Journal, Work, WorkKey, json};
use crate::prompts::{PromptSettings, Survey};

/// Settings of generating: prompts, sampling and output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenerateSettings {
    /// Prompts to sample responses to.
    pub prompts: PromptSettings,
    /// Settings of sampling.
    pub sampling: SamplingConfig,
    /// Path of the output, ending in .parquet or .arrow.
    pub output: PathBuf,
    /// Whether to overwrite an output, or unfinished work, made with other settings.
    #[serde(default)]
    pub overwrite: bool,
}

impl GenerateSettings {
    /// Checks that every setting is in range.
    ///
    /// # Errors
    /// [`Error::Setting`] with the first setting out of range.
    pub fn check(&self) -> Result<()> {
        self.sampling.check()?;
        check_output(&self.output)
    }
}

/// Summary of generating.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct GenerateReport {
    /// Prompts with responses.
    pub prompts: u64,
    /// Rows whose prompt is in an earlier row.
    pub repeated: u64,
    /// Prompts with a known right answer.
    pub answers_known: u64,
    /// Prompts with a reference response.
    pub references: u64,
    /// Candidates written.
    pub candidates: u64,
    /// Candidates that reached the limit of new tokens.
    pub cut: u64,
    /// Candidates missing because the backend refused the prompt.
    pub refused: u64,
    /// Tokens sampled.
    pub tokens: u64,
}

impl GenerateReport {
    fn new(survey: &Survey) -> Self {
        Self {
            prompts: survey.prompts,
            repeated: survey.repeated,
            answers_known: survey.answers,
            references: survey.references,
            ..Self::default()
        }
    }

    fn count(&mut self, candidate: &Candidate) {
        self.candidates += 1;
        self.cut += u64::from(candidate.finish == Finish::Length);
        self.tokens += candidate.tokens as u64;
    }
}

/// Samples responses to prompts into a file of candidates.
///
/// Finished responses are kept beside the output. Called again with the same settings after it was stopped or killed,
/// the function continues, and the file has the same bytes, provided that the generator's responses are the same. If the
/// output already exists, the function only returns the report.
///
/// # Errors
/// Before any work: [`Error::Setting`], [`Error::Exists`] and [`Error::OtherWork`]. Later: [`Error::Interrupted`], and any
/// error of the generator.
///
/// # Examples
/// ```
/// use simplemix_data::Unwatched;
/// use simplemix_rollout::{GenerateSettings, Generator, PromptSettings, Result, SamplingConfig, generate};
/// fn run(model: &mut dyn Generator) -> Result<()> {
///     let settings = GenerateSettings {
///         prompts: PromptSettings { files: vec!["prompts.jsonl".into()], ..PromptSettings::default() },
///         sampling: SamplingConfig::simplemix(),
///         output: "candidates.parquet".into(),
///         overwrite: false,
///     };
///     let report = generate(&settings, model, &mut Unwatched)?;
///     println!("{} responses to {} prompts", report.candidates, report.prompts);
///     Ok(())
/// }
/// ```
pub fn generate(
    settings: &GenerateSettings,
    generator: &mut dyn Generator,
    watch: &mut dyn Watch,
) -> Result<GenerateReport> {
    settings.check()?;
    let survey = settings.prompts.survey()?;
    let key = WorkKey::new(
        "generate",
        &[&json(&settings.sampling), generator.name(), &generator.fingerprint(), &survey.hash],
    );
    let mut journal = match Work::begin(&settings.output, &key, settings.overwrite)? {
        Work::Complete(report) => return Ok(report),
        Work::Open(journal) => journal,
    };
    sample_missing(settings, generator, &survey, &mut journal, watch)?;
    let report = write(settings, generator.name(), &survey, &mut journal, &key)?;
    journal.remove()?;
    Ok(report)
}

/// Samples the responses that are not in the journal.
fn sample_missing(
    settings: &GenerateSettings,
    generator: &mut dyn Generator,
    survey: &Survey,
    journal: &mut Journal<Option<Candidate>>,
    watch: &mut dyn Watch,
) -> Result<()> {
    let samples = settings.sampling.samples;
    let total = survey.prompts * samples as u64;
    watch.progress("generate", journal.done(), total);
    if journal.done() < total {
        if let Some(remark) = generator.remark() {
            watch.notice(&remark);
        }
        for prompt in settings.prompts.read() {
            generator.check(&prompt?, &settings.sampling)?;
        }
        let missing: Vec<bool> = (0..total).map(|number| !journal.has(number)).collect();
        let mut jobs = settings.prompts.read().zip(missing.chunks(samples)).enumerate().filter_map(
            |(index, (prompt, missing))| {
                let samples: Vec<usize> = (0..samples).filter(|&sample| missing[sample]).collect();
                (!samples.is_empty()).then(|| prompt.map(|prompt| Job { index: index as u64, prompt, samples }))
            },
        );
        let mut sink = Sink { journal, samples, total, watch };
        generator.sample(&mut jobs, &settings.sampling, &mut sink)?;
    }
    if journal.done() == total {
        return Ok(());
    }
    Err(Error::Responses {
        generator: generator.name().to_owned(),
        found: journal.done(),
        expected: total,
        samples,
        prompts: survey.prompts,
    })
}

/// Writes the file of candidates from the journal.
fn write(
    settings: &GenerateSettings,
    generator: &str,
    survey: &Survey,
    journal: &mut Journal<Option<Candidate>>,
    key: &WorkKey,
) -> Result<GenerateReport> {
    let samples = settings.sampling.samples;
    let mut report = GenerateReport::new(survey);
    let mut writer = CandidateWriter::create(&settings.output, survey.layout.clone(), &[])?;
    for (index, prompt) in settings.prompts.read().enumerate() {
        let prompt = prompt?;
        for sample in 0..samples {
            match journal.get((index * samples + sample) as u64)? {
                Some(Some(candidate)) => {
                    report.count(candidate);
                    writer.write(&row(&prompt, sample, candidate, generator, &settings.sampling))?;
                }
                _ => report.refused += 1,
            }
        }
    }
    writer.finish(key.metadata(&report))?;
    Ok(report)
}

fn row(
    prompt: &Prompt,
    sample: usize,
    candidate: &Candidate,
    generator: &str,
    sampling: &SamplingConfig,
) -> CandidateRow {
    let mut row = CandidateRow::new(prompt, sample as i64, candidate.text.clone());
    row.tokens = (candidate.tokens > 0).then_some(candidate.tokens as i64);
    row.logp = candidate.logp;
    row.finish = Some(candidate.finish);
    row.generator = Some(generator.to_owned());
    row.temperature = Some(sampling.temperature);
    row.seed = candidate.seed.and_then(|seed| i64::try_from(seed).ok());
    row
}

/// Keeps candidates in the journal.
struct Sink<'a> {
    journal: &'a mut Journal<Option<Candidate>>,
    samples: usize,
    total: u64,
    watch: &'a mut dyn Watch,
}

impl CandidateSink for Sink<'_> {
    fn keep(&mut self, sampled: Vec<Sampled>) -> Result<()> {
        let number = |sampled: &Sampled| sampled.index * self.samples as u64 + sampled.sample as u64;
        let record: Vec<(u64, Option<Candidate>)> =
            sampled.into_iter().map(|sampled| (number(&sampled), sampled.candidate)).collect();
        self.journal.append(&record)?;
        self.watch.progress("generate", self.journal.done(), self.total);
        Ok(())
    }

    fn pending(&mut self, count: usize) {
        self.watch.progress("generate", (self.journal.done() + count as u64).min(self.total), self.total);
    }

    fn is_interrupted(&self) -> bool {
        self.watch.is_interrupted()
    }
}
