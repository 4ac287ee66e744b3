//! First stage: from prompts to a file of candidates. It can be stopped and continued at any moment.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use simplemix_data::Watch;

use crate::candidates::{CandidateRow, CandidateWriter, check_output};
use crate::error::{Error, Result};
use crate::finish::Finish;
use crate::generator::{Candidate, CandidateSink, Failures, Generator, Job, Prompt, Sampled, SamplingConfig};
use crate::journal::{Journal, Work, WorkKey, check_apart, json};
use crate::pool_share::{Assigned, PoolShare};
use crate::prompts::{PromptSettings, Survey};

/// Settings of generating: prompts, sampling and output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenerateSettings {
    /// Prompts to sample responses to.
    pub prompts: PromptSettings,
    /// Settings of sampling.
    pub sampling: SamplingConfig,
    /// Path of the output, ending in .parquet, .arrow or .jsonl.
    pub output: PathBuf,
    /// Whether to overwrite an output, or unfinished work, made with other settings.
    #[serde(default)]
    pub overwrite: bool,
    /// Part of a pool that is sampled; without one, every prompt has all samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<PoolShare>,
}

impl GenerateSettings {
    /// Checks that every setting is in range.
    ///
    /// # Errors
    /// [`Error::Setting`] with the first setting out of range.
    pub fn check(&self) -> Result<()> {
        self.sampling.check()?;
        let (samples, most) = (self.sampling.samples, self.share.as_ref().map(PoolShare::most_responses));
        if most.is_some_and(|most| most != samples) {
            let expected = "the number of responses of the model's quota, for a part of a pool";
            return Err(Error::Setting { key: "samples", found: samples.to_string(), expected });
        }
        check_apart(&self.output, &self.prompts.files)?;
        check_output(&self.output)
    }

    /// Number of responses that are asked for.
    ///
    /// # Errors
    /// Any error of reading the prompts, or the files of the pool.
    pub fn responses(&self) -> Result<u64> {
        Ok(Asked::of(self, self.prompts.count()?)?.total())
    }
}

/// Responses that are asked for, by prompt.
struct Asked {
    counts: Vec<usize>,
    /// Everything that the counts depend on, where they differ.
    key: Option<String>,
}

impl Asked {
    fn of(settings: &GenerateSettings, prompts: u64) -> Result<Self> {
        let Some(share) = &settings.share else {
            return Ok(Self { counts: vec![settings.sampling.samples; prompts as usize], key: None });
        };
        let assigned = Assigned::new(share)?;
        let counts = settings.prompts.read().map(|prompt| Ok(assigned.responses(&prompt?.id)));
        Ok(Self { counts: counts.collect::<Result<_>>()?, key: Some(assigned.key()) })
    }

    fn total(&self) -> u64 {
        self.counts.iter().map(|count| *count as u64).sum()
    }

    /// Prompts that are asked at all.
    fn prompts(&self) -> u64 {
        self.counts.iter().filter(|count| **count > 0).count() as u64
    }
}

/// Summary of generating.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
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
    /// Tokens sampled, as far as the backend tells.
    pub tokens: u64,
    /// Candidates whose number of tokens the backend does not tell.
    pub without_tokens: u64,
    /// Candidates with text whose log-probability the backend does not tell.
    pub without_logp: u64,
    /// Candidates without text, such as reasoning alone, a refusal or a tool call; they stay out of pairs.
    pub without_text: u64,
    /// Candidates by the word for the reason for which they ended; `unknown` where the backend tells none.
    pub finish: BTreeMap<String, u64>,
    /// Prompts with several samples at a temperature above 0 that all have one text.
    pub identical: u64,
    /// Facts that the user should read.
    pub notices: Vec<String>,
    /// Candidates by the address of the server that sampled them, where several share the work. Not kept in the file, whose bytes
    /// depend on the responses alone: empty where the file was there already.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub servers: BTreeMap<String, u64>,
    /// Attempts that failed, by reason, whether or not another one succeeded. Not kept in the file, whose bytes depend on the
    /// responses alone: empty where the file was there already.
    #[serde(skip_serializing_if = "Failures::is_empty")]
    pub failed: Failures,
    /// Account of the weights that a server got for these responses. Not kept in the file.
    #[cfg(feature = "server")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub served: Option<crate::server::ServedReport>,
}

impl GenerateReport {
    fn ask(&mut self, prompt: &Prompt) {
        self.prompts += 1;
        self.answers_known += u64::from(prompt.answer.is_some());
        self.references += u64::from(prompt.reference.is_some());
    }

    fn count(&mut self, candidate: &Candidate) {
        self.candidates += 1;
        self.cut += u64::from(candidate.is_cut());
        self.tokens += candidate.tokens as u64;
        self.without_tokens += u64::from(candidate.tokens == 0);
        self.without_text += u64::from(candidate.text.is_none());
        self.without_logp += u64::from(candidate.text.is_some() && candidate.logp.is_none());
        let word = candidate.finish.as_ref().map_or("unknown", Finish::name);
        *self.finish.entry(word.to_owned()).or_default() += 1;
    }

    /// Facts that the counts tell.
    fn remarks(&self, sampling: &SamplingConfig, cut_early: u64) -> Vec<String> {
        let Self { prompts, candidates, identical, without_text, .. } = self;
        let mut remarks = Vec::new();
        if *without_text > 0 {
            let by = by_finish(&self.finish);
            remarks.push(format!(
                "{without_text} of {candidates} responses have no text and stay out of pairs (ended: {by})"
            ));
        }
        if *identical > 0 {
            remarks.push(format!(
                "all {} samples are one text for {identical} of {prompts} prompts, at temperature {}: a server that ignores \
                 `temperature` or `seed`, or replies from a cache, does this",
                sampling.samples, sampling.temperature
            ));
        }
        if cut_early > 0 {
            remarks.push(format!(
                "{cut_early} of {candidates} responses were cut below the limit of {} tokens: the backend has a lower one",
                sampling.max_new_tokens
            ));
        }
        remarks
    }

    /// The failure of a file in which no response has text.
    fn no_text(&self, generator: &str) -> Option<Error> {
        let advice = match (self.candidates, self.candidates - self.without_text) {
            (_, 1..) => return None,
            (0, 0) if self.refused == 0 => return None,
            (0, 0) => "see the server's words, and shorten the prompts or raise the server's limit",
            (_, 0) => "a model that reasons needs a higher `max_new_tokens`, or no reasoning by `extra`",
        };
        let refused = (self.refused > 0).then(|| format!("{} refused", self.refused));
        let others = (self.candidates > 0).then(|| format!("ended: {}", by_finish(&self.finish)));
        let found = refused.into_iter().chain(others).collect::<Vec<_>>().join(", ");
        Some(Error::NoText { generator: generator.to_owned(), prompts: self.prompts, found, advice })
    }
}

/// `12 length, 3 stop`
fn by_finish(finish: &BTreeMap<String, u64>) -> String {
    finish.iter().map(|(word, count)| format!("{count} {word}")).collect::<Vec<_>>().join(", ")
}

/// Samples responses to prompts into a file of candidates.
///
/// Finished responses are kept beside the output. Called again with the same settings after it was stopped or killed,
/// the function continues, and the file has the same bytes, provided that the generator's responses are the same. If the
/// output already exists, the function only returns the report.
///
/// # Errors
/// Before any work: [`Error::Setting`], [`Error::Exists`] and [`Error::OtherWork`]. Later: [`Error::Interrupted`], and any
/// error of the generator; [`Error::NoText`] if no response has text, after which a further call samples anew.
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
///         share: None,
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
    let asked = Asked::of(settings, survey.prompts)?;
    let (sampling, fingerprint) = (json(&settings.sampling), generator.fingerprint());
    let mut parts = vec![&*sampling, generator.name(), &*fingerprint, &*survey.hash];
    parts.extend(asked.key.as_deref());
    let key = WorkKey::new("generate", &parts).with_date(generator.template_date());
    let mut journal = match Work::begin(&settings.output, &key, settings.overwrite)? {
        Work::Complete(report) => return Ok(report),
        Work::Open(journal) => journal,
    };
    survey.notices.iter().for_each(|notice| watch.notice(notice));
    let Told { notices, passing } = sample_missing(settings, generator, &asked, &mut journal, watch)?;
    let notices = [survey.notices.clone(), notices].concat();
    let report = write(settings, generator.name(), (&survey, &asked), &mut journal, &key, notices);
    let failed = journal.failures().clone();
    if matches!(report, Ok(_) | Err(Error::NoText { .. })) {
        journal.remove()?;
    }
    let (report, remarks) = report?;
    remarks.iter().for_each(|remark| watch.notice(remark));
    Ok(GenerateReport { failed, notices: [passing, report.notices].concat(), ..report })
}

/// Facts about sampling that the user should read, which are told already.
#[derive(Default)]
struct Told {
    /// Facts about the responses.
    notices: Vec<String>,
    /// Facts about this call alone.
    passing: Vec<String>,
}

/// Samples the responses that are not in the journal.
fn sample_missing(
    settings: &GenerateSettings,
    generator: &mut dyn Generator,
    asked: &Asked,
    journal: &mut Journal<Option<Candidate>>,
    watch: &mut dyn Watch,
) -> Result<Told> {
    let samples = settings.sampling.samples;
    let total = asked.total();
    let mut told = Told::default();
    watch.progress("generate", journal.done(), total);
    if journal.done() < total {
        for (prompt, _) in settings.prompts.read().zip(&asked.counts).filter(|(_, count)| **count > 0) {
            generator.check(&prompt?, &settings.sampling)?;
        }
        let is_missing = |index: usize, sample: usize| !journal.has((index * samples + sample) as u64);
        let missing: Vec<Vec<usize>> = (asked.counts.iter().enumerate())
            .map(|(index, &count)| (0..count).filter(|&sample| is_missing(index, sample)).collect())
            .collect();
        let jobs = settings.prompts.read().zip(missing).enumerate();
        let mut jobs = jobs
            .filter(|(_, (_, samples))| !samples.is_empty())
            .map(|(index, (prompt, samples))| prompt.map(|prompt| Job { index: index as u64, prompt, samples }));
        let mut sink = Sink { journal, samples, total, watch, told: Told::default() };
        generator.remark().iter().for_each(|remark| sink.notice(remark));
        generator.sample(&mut jobs, &settings.sampling, &mut sink)?;
        told = sink.told;
    }
    if journal.done() == total {
        return Ok(told);
    }
    Err(Error::Responses {
        generator: generator.name().to_owned(),
        found: journal.done(),
        expected: total,
        samples,
        prompts: asked.prompts(),
    })
}

/// Writes the file of candidates from the journal. Returns the report and those of its notices that are new.
fn write(
    settings: &GenerateSettings,
    generator: &str,
    (survey, asked): (&Survey, &Asked),
    journal: &mut Journal<Option<Candidate>>,
    key: &WorkKey,
    notices: Vec<String>,
) -> Result<(GenerateReport, Vec<String>)> {
    let sampling = &settings.sampling;
    let mut report = GenerateReport { repeated: survey.repeated, ..GenerateReport::default() };
    let mut servers: BTreeMap<String, u64> = BTreeMap::new();
    let mut cut_early = 0;
    let mut writer = CandidateWriter::create(&settings.output, survey.layout.clone(), survey.several_answers, &[])?;
    for (index, (prompt, &count)) in settings.prompts.read().zip(&asked.counts).enumerate() {
        let prompt = prompt?;
        if count == 0 {
            continue;
        }
        report.ask(&prompt);
        let mut texts = Vec::with_capacity(count);
        for sample in 0..count {
            match journal.get((index * sampling.samples + sample) as u64)? {
                Some(Some(candidate)) => {
                    report.count(candidate);
                    if let Some(server) = &candidate.server {
                        *servers.entry(server.clone()).or_default() += 1;
                    }
                    cut_early +=
                        u64::from(candidate.is_cut() && (1..sampling.max_new_tokens).contains(&candidate.tokens));
                    texts.extend(candidate.text.clone());
                    writer.write(&row(&prompt, sample, candidate, generator, sampling))?;
                }
                _ => report.refused += 1,
            }
        }
        let is_one = texts.len() > 1 && texts.iter().all(|text| *text == texts[0]);
        report.identical += u64::from(is_one && sampling.temperature > 0.0);
    }
    if let Some(error) = report.no_text(generator) {
        return Err(error);
    }
    let remarks = report.remarks(sampling, cut_early);
    report.notices = [notices, remarks.clone()].concat();
    writer.finish(key.metadata(&report))?;
    report.servers = servers;
    Ok((report, remarks))
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
    row.finish.clone_from(&candidate.finish);
    row.generator = Some(generator.to_owned());
    row.temperature = Some(sampling.temperature);
    row.seed = candidate.seed;
    row
}

/// Keeps candidates in the journal.
struct Sink<'a> {
    journal: &'a mut Journal<Option<Candidate>>,
    samples: usize,
    total: u64,
    watch: &'a mut dyn Watch,
    told: Told,
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

    fn failed(&mut self, failures: &Failures) -> Result<()> {
        self.journal.append_failures(failures)
    }

    fn notice(&mut self, text: &str) {
        self.watch.notice(text);
        self.told.notices.push(text.to_owned());
    }

    fn passing(&mut self, text: &str) {
        self.watch.notice(text);
        self.told.passing.push(text.to_owned());
    }

    fn is_interrupted(&self) -> bool {
        self.watch.is_interrupted()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CandidateReader;

    /// A generator that repeats the prompt's id.
    struct Echo;

    impl Generator for Echo {
        fn name(&self) -> &str {
            "echo"
        }

        fn sample(
            &mut self,
            jobs: &mut dyn Iterator<Item = Result<Job>>,
            _: &SamplingConfig,
            sink: &mut dyn CandidateSink,
        ) -> Result<()> {
            for job in jobs {
                let Job { index, prompt, samples } = job?;
                let candidate = Candidate::new(&prompt.id, Finish::Stop);
                let sampled = |sample| Sampled { index, sample, candidate: Some(candidate.clone()) };
                sink.keep(samples.into_iter().map(sampled).collect())?;
            }
            Ok(())
        }
    }

    #[derive(Default)]
    struct Notices(Vec<String>);

    impl Watch for Notices {
        fn notice(&mut self, text: &str) {
            self.0.push(text.to_owned());
        }
    }

    #[test]
    fn rows_without_a_prompt_are_said_and_stand_in_the_report() {
        let dir = tempfile::tempdir().unwrap();
        let prompts = dir.path().join("p.jsonl");
        std::fs::write(&prompts, "{\"prompt\": \"\"}\n{\"prompt\": \"q\"}\n{\"prompt\": \"\\udc00\"}\n").unwrap();
        let settings = GenerateSettings {
            prompts: PromptSettings { files: vec![prompts], ..PromptSettings::default() },
            sampling: SamplingConfig { samples: 1, ..SamplingConfig::simplemix() },
            output: dir.path().join("c.parquet"),
            overwrite: false,
            share: None,
        };
        let mut watch = Notices::default();
        let report = generate(&settings, &mut Echo, &mut watch).unwrap();
        let expected = "p.jsonl: 2 rows hold no prompt: empty-prompt 1, lone-surrogate 1";
        assert!(watch.0.iter().any(|notice| notice.ends_with(expected)), "{:?}", watch.0);
        assert!(report.notices.iter().any(|notice| notice.ends_with(expected)), "{:?}", report.notices);
        assert_eq!((report.prompts, CandidateReader::open(&settings.output).unwrap().count()), (1, 1));
    }
}
