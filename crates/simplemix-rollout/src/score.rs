//! Second stage: from candidates to scored candidates. It can be stopped and continued at any moment.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use simplemix_data::Watch;
use simplemix_data::schema::Layout;

use crate::candidates::{
    CandidateGroup, CandidateReader, CandidateRow, CandidateSurvey, CandidateWriter, SCORE, check_output, survey,
};
use crate::error::{Error, Result};
use crate::generator::{Failures, Prompt};
use crate::journal::{Journal, Work, WorkKey, check_apart, kept_date};
use crate::scorer::{Group, ScoreSink, Scorer, checked};

/// Settings of scoring: input and output. Scorers are passed separately, see [`crate::ScorerSettings`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScoreSettings {
    /// Path of the file of candidates.
    pub candidates: PathBuf,
    /// Path of the output, ending in .parquet, .arrow or .jsonl.
    pub output: PathBuf,
    /// Whether to score the reference response of each prompt as one more response.
    #[serde(default)]
    pub reference: bool,
    /// Whether to overwrite an output, or unfinished work, made with other settings.
    #[serde(default)]
    pub overwrite: bool,
}

impl ScoreSettings {
    /// Date that chat templates saw when the candidates were sampled or, if that is not known, in earlier work for this output.
    pub fn template_date(&self) -> Option<String> {
        kept_date(&self.candidates).or_else(|| kept_date(&self.output))
    }
}

/// A scorer and its weight in the sum.
pub struct Weighted {
    /// The scorer.
    pub scorer: Box<dyn Scorer>,
    /// Factor of its scores in the sum.
    pub weight: f64,
    /// Tasks whose responses it scores; an empty list means all.
    pub tasks: Vec<String>,
}

impl Weighted {
    /// Whether it scores the responses to this prompt.
    pub(crate) fn scores(&self, prompt: &Prompt) -> bool {
        self.tasks.is_empty() || prompt.task.as_ref().is_some_and(|task| self.tasks.contains(task))
    }
}

/// Summary of scoring.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ScoreReport {
    /// Prompts.
    pub prompts: u64,
    /// Responses scored, references included.
    pub candidates: u64,
    /// Reference responses among them.
    pub references: u64,
    /// Mean scores by column: `score`, then the column of each scorer.
    pub means: BTreeMap<String, f64>,
    /// Numbers of responses without a score, by column.
    pub without: BTreeMap<String, u64>,
    /// Candidates without text, which no scorer sees.
    #[serde(default)]
    pub without_text: u64,
    /// Rows of the file that are no objects, or no text, and were left out.
    #[serde(default)]
    pub unreadable: u64,
    /// Facts that the user should read.
    #[serde(default)]
    pub notices: Vec<String>,
    /// Attempts to ask a judge that failed, by reason, whether or not another one succeeded. Not kept in the file: empty where
    /// the file was there already.
    #[serde(default, skip_serializing_if = "Failures::is_empty")]
    pub failed: Failures,
}

/// Prompts that are scored at the same time. The last bits of a reward model's scores depend on it.
const GROUPS_IN_CHUNK: usize = 64;

/// Scores candidates by the weighted sum of `scorers`, and keeps the score of each scorer beside the sum. A scorer that is
/// limited to some tasks has no score for other responses and adds nothing to their sum. A response that no scorer scores
/// has no sum.
///
/// Finished scores are kept beside the output, for each scorer separately. Called again with the same settings after it was
/// stopped or killed, the function continues, and the file is the same, provided that the scorers' scores are.
///
/// # Errors
/// Before any work: [`Error::Setting`], [`Error::Exists`] and [`Error::OtherWork`]. Later: [`Error::Interrupted`],
/// [`Error::NoScores`] if a scorer gave no score at all, and any error of a scorer.
pub fn score(settings: &ScoreSettings, scorers: &mut [Weighted], watch: &mut dyn Watch) -> Result<ScoreReport> {
    check(settings, scorers)?;
    let CandidateSurvey { hash, groups, layout, several_answers, mut notices, .. } = survey(&settings.candidates)?;
    let columns = columns(scorers);
    let key = work_key(settings, scorers, &columns, hash);
    let mut journal: Journal<Vec<Option<f64>>> = match Work::begin(&settings.output, &key, settings.overwrite)? {
        Work::Complete(report) => return Ok(report),
        Work::Open(journal) => journal,
    };

    notices.iter().for_each(|notice| watch.notice(notice));
    let total = groups * scorers.len() as u64;
    watch.progress("score", journal.done(), total);
    let mut reader = CandidateReader::open(&settings.candidates)?;
    let mut first = 0;
    while first < groups && journal.done() < total {
        let mut chunk = Vec::with_capacity(GROUPS_IN_CHUNK);
        for group in reader.by_ref().take(GROUPS_IN_CHUNK) {
            chunk.push(to_score(&group?, settings.reference));
        }
        notices.extend(score_chunk(scorers, first, &chunk, &mut journal, total, watch)?);
        first += GROUPS_IN_CHUNK as u64;
    }
    let report = write(settings, scorers, &columns, (layout, several_answers), notices, &mut journal, &key)?;
    let failed = journal.failures().clone();
    journal.remove()?;
    Ok(ScoreReport { failed, ..report })
}

fn check(settings: &ScoreSettings, scorers: &[Weighted]) -> Result<()> {
    if scorers.is_empty() {
        return Err(Error::Setting { key: "scorer", found: "not set".to_owned(), expected: "at least one scorer" });
    }
    if let Some(weighted) = scorers.iter().find(|weighted| !weighted.weight.is_finite()) {
        let found = weighted.weight.to_string();
        return Err(Error::Setting { key: "weight", found, expected: "a finite number" });
    }
    check_apart(&settings.output, std::slice::from_ref(&settings.candidates))?;
    check_output(&settings.output)
}

fn work_key(settings: &ScoreSettings, scorers: &[Weighted], columns: &[String], candidates: String) -> WorkKey {
    let mut parts = vec![candidates, settings.reference.to_string()];
    for (weighted, column) in scorers.iter().zip(columns) {
        parts.extend([column.clone(), weighted.scorer.fingerprint(), weighted.weight.to_string()]);
        if !weighted.tasks.is_empty() {
            parts.push(weighted.tasks.join("\n"));
        }
    }
    let date = scorers.iter().find_map(|weighted| weighted.scorer.template_date());
    WorkKey::new("score", &parts.iter().map(String::as_str).collect::<Vec<_>>()).with_date(date)
}

/// Columns `score_NAME`, with a number if a name comes more than once.
fn columns(scorers: &[Weighted]) -> Vec<String> {
    let mut columns: Vec<String> = Vec::with_capacity(scorers.len());
    for weighted in scorers {
        let name = format!("{SCORE}_{}", weighted.scorer.name().replace(|c: char| !c.is_alphanumeric(), "_"));
        let again = columns.iter().filter(|column| **column == name || column.starts_with(&format!("{name}_"))).count();
        columns.push(if again == 0 { name } else { format!("{name}_{}", again + 1) });
    }
    columns
}

fn to_score(group: &CandidateGroup, reference: bool) -> Group {
    let responses = rows(group, reference).into_iter().filter_map(|row| row.response).collect();
    Group { prompt: group.prompt.clone(), responses }
}

/// Candidates of a prompt, and with `reference` its reference response as one more row.
fn rows(group: &CandidateGroup, reference: bool) -> Vec<CandidateRow> {
    let mut rows: Vec<CandidateRow> = group.rows.iter().filter(|row| !row.is_reference).cloned().collect();
    if let Some(text) = group.prompt.reference.as_ref().filter(|_| reference) {
        let mut row = CandidateRow::new(&group.prompt, rows.len() as i64, Some(text.clone()));
        row.is_reference = true;
        rows.push(row);
    }
    rows
}

/// Scores a chunk of groups, of which `first` is the number of the first one. Returns what the user was told.
fn score_chunk(
    scorers: &mut [Weighted],
    first: u64,
    chunk: &[Group],
    journal: &mut Journal<Vec<Option<f64>>>,
    total: u64,
    watch: &mut dyn Watch,
) -> Result<Vec<String>> {
    let count = scorers.len() as u64;
    let mut notices = Vec::new();
    for (at, weighted) in scorers.iter_mut().enumerate() {
        if watch.is_interrupted() {
            return Err(Error::Interrupted);
        }
        let number = |index: usize| (first + index as u64) * count + at as u64;
        let open = (0..chunk.len()).filter(|&index| !journal.has(number(index)));
        let (own, others): (Vec<usize>, Vec<usize>) = open.partition(|&index| weighted.scores(&chunk[index].prompt));
        let none = |&index: &usize| (number(index), vec![None; chunk[index].responses.len()]);
        if !others.is_empty() {
            journal.append(&others.iter().map(none).collect::<Vec<_>>())?;
        }
        if own.is_empty() {
            continue;
        }
        let missing: Vec<Group> = own.iter().map(|&index| chunk[index].clone()).collect();
        let name = weighted.scorer.name().to_owned();
        let numbers: Vec<u64> = own.iter().map(|&index| number(index)).collect();
        let notices = &mut notices;
        let mut sink = Sink { name: &name, groups: &missing, numbers: &numbers, journal, total, watch, notices };
        weighted.scorer.score(&missing, &mut sink)?;
        if let Some(group) = numbers.iter().position(|&number| !journal.has(number)) {
            checked(&name, &missing[group], None)?;
        }
    }
    Ok(notices)
}

/// Keeps scores in the journal.
struct Sink<'a> {
    name: &'a str,
    groups: &'a [Group],
    /// Number of each group in the journal.
    numbers: &'a [u64],
    journal: &'a mut Journal<Vec<Option<f64>>>,
    total: u64,
    watch: &'a mut dyn Watch,
    /// Everything that the user was told.
    notices: &'a mut Vec<String>,
}

impl ScoreSink for Sink<'_> {
    fn keep(&mut self, scores: Vec<(usize, Vec<Option<f64>>)>) -> Result<()> {
        let mut record = Vec::with_capacity(scores.len());
        for (index, scores) in scores {
            let scores = checked(self.name, &self.groups[index], Some(scores))?;
            // NaN and infinity count as no score.
            let scores = scores.into_iter().map(|score| score.filter(|score| score.is_finite())).collect();
            record.push((self.numbers[index], scores));
        }
        self.journal.append(&record)?;
        self.watch.progress("score", self.journal.done(), self.total);
        Ok(())
    }

    fn failed(&mut self, failures: &Failures) -> Result<()> {
        self.journal.append_failures(failures)
    }

    fn notice(&mut self, text: &str) {
        self.watch.notice(text);
        self.notices.push(text.to_owned());
    }

    fn is_interrupted(&self) -> bool {
        self.watch.is_interrupted()
    }
}

/// Writes the file of scored candidates from the journal.
fn write(
    settings: &ScoreSettings,
    scorers: &[Weighted],
    columns: &[String],
    (layout, several_answers): (Layout, bool),
    notices: Vec<String>,
    journal: &mut Journal<Vec<Option<f64>>>,
    key: &WorkKey,
) -> Result<ScoreReport> {
    let names: Vec<String> = std::iter::once(SCORE.to_owned()).chain(columns.iter().cloned()).collect();
    let mut tally = Tally::default();
    let mut writer = CandidateWriter::create(&settings.output, layout, several_answers, &names)?;
    let mut reader = CandidateReader::open(&settings.candidates)?;
    for (index, group) in reader.by_ref().enumerate() {
        let group = group?;
        let mut scores = Vec::with_capacity(scorers.len());
        for (at, weighted) in scorers.iter().enumerate() {
            let found = journal.get((index * scorers.len() + at) as u64)?.cloned();
            scores.push(checked(weighted.scorer.name(), &to_score(&group, settings.reference), found)?);
        }
        // Columns that count for this prompt: the sum, and those of the scorers of its task.
        let takes_part: Vec<bool> = scorers.iter().map(|weighted| weighted.scores(&group.prompt)).collect();
        let counted: Vec<bool> = std::iter::once(true).chain(takes_part.iter().copied()).collect();
        tally.report.prompts += 1;
        let mut with_text = 0..;
        for mut row in rows(&group, settings.reference) {
            let at = row.response.as_ref().and_then(|_| with_text.next());
            let own: Vec<Option<f64>> =
                scores.iter().map(|scores: &Vec<_>| at.and_then(|at: usize| scores[at])).collect();
            let cells = [vec![weighted_sum(scorers, &takes_part, &own)], own].concat();
            match at {
                Some(_) => tally.count(&row, &names, &cells, &counted),
                None => tally.report.without_text += 1,
            }
            row.scores = names.iter().cloned().zip(cells).collect();
            writer.write(&row)?;
        }
    }
    tally.report.unreadable = reader.unreadable();
    let report = ScoreReport { notices, ..tally.finish()? };
    writer.finish(key.metadata(&report))?;
    Ok(report)
}

/// Weighted sum over the scorers that take part; `None` if none does, or if one of them has no score.
fn weighted_sum(scorers: &[Weighted], takes_part: &[bool], scores: &[Option<f64>]) -> Option<f64> {
    if !takes_part.contains(&true) {
        return None;
    }
    let parts = scores.iter().zip(scorers).zip(takes_part).filter(|(_, takes_part)| **takes_part);
    parts.map(|((score, weighted), _)| Some((*score)? * weighted.weight)).sum()
}

/// Report in the making, with sum and number of the scores of each column.
#[derive(Default)]
struct Tally {
    report: ScoreReport,
    sums: BTreeMap<String, (f64, u64)>,
}

impl Tally {
    fn count(&mut self, row: &CandidateRow, names: &[String], cells: &[Option<f64>], counted: &[bool]) {
        self.report.candidates += 1;
        self.report.references += u64::from(row.is_reference);
        for ((name, score), _) in names.iter().zip(cells).zip(counted).filter(|(_, counted)| **counted) {
            let sum = self.sums.entry(name.clone()).or_default();
            match score {
                Some(score) => *sum = (sum.0 + score, sum.1 + 1),
                None => *self.report.without.entry(name.clone()).or_default() += 1,
            }
        }
    }

    /// The report; there is no mean of no scores.
    fn finish(self) -> Result<ScoreReport> {
        if let Some((column, _)) = self.sums.iter().rev().find(|(_, (_, count))| *count == 0) {
            let responses = self.report.without.get(column).copied().unwrap_or_default();
            let is_judge = column.starts_with("score_judge");
            let advice = if is_judge { "; a judge that thinks first needs a higher `max_tokens`" } else { "" };
            return Err(Error::NoScores { column: column.clone(), responses, advice });
        }
        let means = self.sums.into_iter().map(|(name, (sum, count))| (name, sum / count as f64)).collect();
        Ok(ScoreReport { means, ..self.report })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use simplemix_data::Unwatched;

    use super::*;
    use crate::scorers::ScorerSettings;

    /// Sum, exact answer and length of every row, and the report.
    fn scored(dir: &Path, scorers: &str) -> (Vec<[Option<f64>; 3]>, ScoreReport) {
        let rows = [
            r#"{"prompt": "1 + 1?", "task": "sums", "answer": "2", "response": "2"}"#,
            r#"{"prompt": "A poem?", "task": "poems", "response": "one two three four"}"#,
            r#"{"prompt": "Well?", "response": "one two"}"#,
        ];
        let candidates = dir.join("c.jsonl");
        std::fs::write(&candidates, rows.join("\n")).unwrap();
        let output = dir.join("s.parquet");
        let settings = ScoreSettings { candidates, output: output.clone(), reference: false, overwrite: true };
        let scorers: Vec<ScorerSettings> = serde_json::from_str(scorers).unwrap();
        let mut opened: Vec<Weighted> = scorers.iter().map(|scorer| scorer.open().unwrap()).collect();
        let report = score(&settings, &mut opened, &mut Unwatched).unwrap();
        let of_row = |row: &CandidateRow| ["score", "score_exact_answer", "score_length"].map(|name| row.scores[name]);
        let groups = CandidateReader::open(&output).unwrap().map(Result::unwrap);
        (groups.flat_map(|group| group.rows).map(|row| of_row(&row)).collect(), report)
    }

    #[test]
    fn a_candidate_without_text_is_kept_without_a_score() {
        let dir = tempfile::tempdir().unwrap();
        let candidates = dir.path().join("c.jsonl");
        let rows = ["null", "\"a b c\"", "null", "\"a\""];
        std::fs::write(&candidates, rows.map(|text| format!(r#"{{"prompt": "x", "response": {text}}}"#)).join("\n"))
            .unwrap();
        let settings =
            ScoreSettings { candidates, output: dir.path().join("s.parquet"), reference: false, overwrite: false };
        let scorer: ScorerSettings = serde_json::from_str(r#"{"kind": "length", "max": 1}"#).unwrap();
        let report = score(&settings, &mut [scorer.open().unwrap()], &mut Unwatched).unwrap();
        assert_eq!((report.candidates, report.without_text, report.without.len()), (2, 2, 0));
        let groups: Vec<CandidateGroup> =
            CandidateReader::open(&settings.output).unwrap().map(Result::unwrap).collect();
        let scores: Vec<Option<f64>> = groups[0].rows.iter().map(|row| row.scores["score"]).collect();
        assert_eq!((scores[0], scores[2], scores[3]), (None, None, Some(1.0)));
        assert!(scores[1].is_some_and(|score| score < 1.0) && groups[0].rows[0].response.is_none());
    }

    #[test]
    fn a_mean_of_no_scores_is_a_failure_and_json_lines_are_written() {
        let dir = tempfile::tempdir().unwrap();
        let candidates = dir.path().join("c.jsonl");
        std::fs::write(&candidates, r#"{"prompt": "x", "task": "poems", "response": "a b"}"#).unwrap();
        let output = dir.path().join("s.jsonl");
        let settings = ScoreSettings { candidates, output: output.clone(), reference: false, overwrite: false };
        let of = |scorer: &str| {
            let scorer: ScorerSettings = serde_json::from_str(scorer).unwrap();
            score(&settings, &mut [scorer.open().unwrap()], &mut Unwatched)
        };
        // No response is of the task, so none has a sum.
        let error = of(r#"{"kind": "length", "max": 1, "tasks": ["sums"]}"#).unwrap_err().to_string();
        assert_eq!(error, "score: no score for any of 1 responses, expected some");
        assert!(!output.exists());
        std::fs::remove_file(dir.path().join(".s.jsonl.partial")).unwrap();
        assert_eq!(of(r#"{"kind": "length", "max": 5}"#).unwrap().means["score"], 1.0);
        let row = CandidateReader::open(&output).unwrap().next().unwrap().unwrap().rows.remove(0);
        assert_eq!((row.scores["score"], row.task.as_deref()), (Some(1.0), Some("poems")));
        // A file that is there is not known to be of these settings.
        let error = of(r#"{"kind": "length", "max": 5}"#).unwrap_err().to_string();
        assert!(error.contains("s.jsonl: exists, and is not known"), "{error}");
    }

    #[test]
    fn a_scorer_of_some_tasks_leaves_other_responses_alone() {
        let dir = tempfile::tempdir().unwrap();
        // Without `tasks`, exact-answer would fail: two prompts have no answer.
        let scorers = r#"[{"kind": "exact-answer", "tasks": ["sums"]},
            {"kind": "length", "max": 2, "weight": 0.5, "tasks": ["poems", "sums"]}]"#;
        let (rows, report) = scored(dir.path(), scorers);
        assert_eq!(rows[0], [Some(1.5), Some(1.0), Some(1.0)]);
        assert_eq!(rows[1], [Some(0.0), None, Some(0.0)]);
        assert_eq!(rows[2], [None; 3]);
        assert_eq!(report.means["score_exact_answer"], 1.0);
        // A response counts as without a score only in columns of scorers that take part.
        assert_eq!(report.without, [("score".to_owned(), 1)].into());

        let everywhere = scorers.replace(r#""poems", "sums""#, r#""poems""#);
        let (rows, _) = scored(dir.path(), &everywhere);
        assert_eq!([rows[0][0], rows[1][0]], [Some(1.0), Some(0.0)]);
    }
}
