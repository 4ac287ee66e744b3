//! The first stage: prompts to a file of candidates, resumable at any moment.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use simplemix_data::Watch;

use crate::candidates::{CandidateRow, CandidateWriter, check_output};
use crate::error::{Error, Result};
use crate::generator::{AnswerSink, Answered, Candidate, Finish, Generator, Job, Prompt, SamplingConfig};
use crate::journal::{Journal, Work, WorkKey};
use crate::prompts::PromptSettings;

/// What is to be generated, and where to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenerateSettings {
    /// Which prompts.
    pub prompts: PromptSettings,
    /// How answers are drawn.
    pub sampling: SamplingConfig,
    /// File to write: .parquet or .arrow.
    pub output: PathBuf,
    /// Replace an output, or unfinished work, of other arguments.
    #[serde(default)]
    pub overwrite: bool,
}

impl GenerateSettings {
    /// # Errors
    /// [`Error::Setting`] naming the first setting out of range.
    pub fn check(&self) -> Result<()> {
        self.sampling.check()?;
        check_output(&self.output)
    }
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct GenerateReport {
    /// Prompts answered.
    pub prompts: u64,
    /// Rows whose prompt had come before.
    pub repeated: u64,
    /// Prompts with a right answer.
    pub answers_known: u64,
    /// Prompts with a response by someone else.
    pub references: u64,
    /// Answers written.
    pub candidates: u64,
    /// Answers that reached the limit of new tokens.
    pub cut: u64,
    /// Answers that the backend refused to give.
    pub refused: u64,
    /// Tokens drawn.
    pub tokens: u64,
}

/// Answers prompts into a file of candidates.
///
/// What is done is kept beside the output. Killed and called again with the same settings it goes on, and the file is the
/// same, byte for byte, if the generator's answers are; with the output there already it only tells the report.
///
/// # Errors
/// [`Error::Setting`], [`Error::Exists`] and [`Error::OtherWork`] before anything is done; [`Error::Interrupted`];
/// whatever the generator reports.
pub fn generate(
    settings: &GenerateSettings,
    generator: &mut dyn Generator,
    watch: &mut dyn Watch,
) -> Result<GenerateReport> {
    settings.check()?;
    let survey = settings.prompts.survey()?;
    let sampling = serde_json::to_string(&settings.sampling).unwrap_or_default();
    let parts = [&sampling, generator.name(), &generator.fingerprint(), &survey.hash];
    let key = WorkKey::new("generate", &parts);
    let mut journal = match Work::begin(&settings.output, &key, settings.overwrite)? {
        Work::Complete(report) => return Ok(report),
        Work::Open(journal) => journal,
    };

    let samples = settings.sampling.samples;
    let total = survey.prompts * samples as u64;
    watch.progress("generate", journal.done(), total);
    if journal.done() < total {
        if let Some(remark) = generator.remark() {
            watch.notice(&remark);
        }
        let missing: Vec<bool> = (0..total).map(|number| !journal.has(number)).collect();
        let mut jobs = settings.prompts.read().zip(missing.chunks(samples)).enumerate().filter_map(
            |(place, (prompt, missing))| {
                let samples: Vec<usize> = (0..samples).filter(|&sample| missing[sample]).collect();
                (!samples.is_empty()).then(|| prompt.map(|prompt| Job { place: place as u64, prompt, samples }))
            },
        );
        let mut sink = Sink { journal: &mut journal, samples, total, watch };
        generator.answer(&mut jobs, &settings.sampling, &mut sink)?;
    }
    if journal.done() != total {
        return Err(Error::Answers {
            generator: generator.name().to_owned(),
            found: format!("{} answers", journal.done()),
            expected: format!("{total}: {samples} to each of {} prompts", survey.prompts),
        });
    }

    let mut report = GenerateReport {
        prompts: survey.prompts,
        repeated: survey.repeated,
        answers_known: survey.answers,
        references: survey.references,
        ..GenerateReport::default()
    };
    let mut writer = CandidateWriter::create(&settings.output, survey.plain, &[])?;
    for (place, prompt) in settings.prompts.read().enumerate() {
        let prompt = prompt?;
        for sample in 0..samples {
            match journal.get((place * samples + sample) as u64)? {
                Some(Some(answer)) => {
                    report.count(answer);
                    writer.write(&row(&prompt, sample, answer, generator.name(), &settings.sampling))?;
                }
                _ => report.refused += 1,
            }
        }
    }
    writer.finish(key.remarks(&report))?;
    journal.remove()?;
    Ok(report)
}

impl GenerateReport {
    fn count(&mut self, answer: &Candidate) {
        self.candidates += 1;
        self.cut += u64::from(answer.finish == Finish::Length);
        self.tokens += answer.tokens as u64;
    }
}

fn row(prompt: &Prompt, sample: usize, answer: &Candidate, generator: &str, sampling: &SamplingConfig) -> CandidateRow {
    let mut row = CandidateRow::new(prompt, sample as i64, answer.text.clone());
    row.tokens = (answer.tokens > 0).then_some(answer.tokens as i64);
    row.logp = answer.logp;
    row.finish = Some(answer.finish);
    row.generator = Some(generator.to_owned());
    row.temperature = Some(sampling.temperature);
    row.seed = answer.seed.and_then(|seed| i64::try_from(seed).ok());
    row
}

/// Keeps answers in the journal.
struct Sink<'a> {
    journal: &'a mut Journal<Option<Candidate>>,
    samples: usize,
    total: u64,
    watch: &'a mut dyn Watch,
}

impl AnswerSink for Sink<'_> {
    fn answered(&mut self, answers: Vec<Answered>) -> Result<()> {
        let number = |answered: &Answered| answered.place * self.samples as u64 + answered.sample as u64;
        let record: Vec<(u64, Option<Candidate>)> =
            answers.into_iter().map(|answered| (number(&answered), answered.answer)).collect();
        self.journal.append(&record)?;
        self.watch.progress("generate", self.journal.done(), self.total);
        Ok(())
    }

    fn under_way(&mut self, answers: usize) {
        self.watch.progress("generate", (self.journal.done() + answers as u64).min(self.total), self.total);
    }

    fn stopped(&self) -> bool {
        self.watch.is_interrupted()
    }
}
