//! The second stage: candidates to scored candidates, resumable at any moment.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use simplemix_data::Watch;

use crate::candidates::{CandidateGroup, CandidateReader, CandidateRow, CandidateWriter, SCORE, check_output, survey};
use crate::error::{Error, Result};
use crate::generator::Prompt;
use crate::journal::{Journal, Work, WorkKey};
use crate::scorer::{Group, ScoreSink, Scorer, checked};

/// What is to be scored, and where to. By which scorers is told beside it, see [`crate::ScorerSettings`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScoreSettings {
    /// File of candidates.
    pub candidates: PathBuf,
    /// File to write: .parquet or .arrow.
    pub output: PathBuf,
    /// Score the reference responses too, as one more candidate each.
    #[serde(default)]
    pub reference: bool,
    /// Replace an output, or unfinished work, of other arguments.
    #[serde(default)]
    pub overwrite: bool,
}

/// A scorer and its weight in the sum.
pub struct Weighted {
    /// The scorer.
    pub scorer: Box<dyn Scorer>,
    /// What its scores are multiplied by.
    pub weight: f64,
    /// Tasks whose responses it scores; all if none.
    pub tasks: Vec<String>,
}

impl Weighted {
    /// Whether it scores the responses to this prompt.
    fn scores(&self, prompt: &Prompt) -> bool {
        self.tasks.is_empty() || prompt.task.as_ref().is_some_and(|task| self.tasks.contains(task))
    }
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ScoreReport {
    /// Prompts.
    pub prompts: u64,
    /// Responses scored, references included.
    pub candidates: u64,
    /// Reference responses among them.
    pub references: u64,
    /// Means by column: `score`, then each scorer's own.
    pub means: BTreeMap<String, f64>,
    /// Responses without a score, by column.
    pub without: BTreeMap<String, u64>,
}

/// Prompts that are scored together. Part of the result: reward models' last bits depend on it.
const GROUPS_TOGETHER: usize = 64;

/// Scores candidates by the weighted sum of `scorers`; every scorer's own score stays beside the sum. A scorer for some
/// tasks leaves the others' responses alone: it adds nothing to their sum, and has no score for them. A response that
/// nobody scores has no sum.
///
/// What is done is kept beside the output, for each scorer on its own. Killed and called again with the same settings it
/// goes on and gives the same file, if the scorers give the same scores.
///
/// # Errors
/// [`Error::Setting`], [`Error::Exists`] and [`Error::OtherWork`] before anything is done; [`Error::Interrupted`];
/// whatever a scorer reports.
pub fn score(settings: &ScoreSettings, scorers: &mut [Weighted], watch: &mut dyn Watch) -> Result<ScoreReport> {
    if scorers.is_empty() {
        return Err(Error::Setting { key: "scorer", found: "none".to_owned(), expected: "at least one" });
    }
    if let Some(weighted) = scorers.iter().find(|weighted| !weighted.weight.is_finite()) {
        let found = weighted.weight.to_string();
        return Err(Error::Setting { key: "weight", found, expected: "a number" });
    }
    check_output(&settings.output)?;
    let columns = columns(scorers);
    let (hash, groups) = survey(&settings.candidates)?;
    let mut parts = vec![hash, settings.reference.to_string()];
    for (weighted, column) in scorers.iter().zip(&columns) {
        parts.extend([column.clone(), weighted.scorer.fingerprint(), weighted.weight.to_string()]);
        if !weighted.tasks.is_empty() {
            parts.push(weighted.tasks.join("\n"));
        }
    }
    let key = WorkKey::new("score", &parts.iter().map(String::as_str).collect::<Vec<_>>());
    let mut journal: Journal<Vec<Option<f64>>> = match Work::begin(&settings.output, &key, settings.overwrite)? {
        Work::Complete(report) => return Ok(report),
        Work::Open(journal) => journal,
    };

    let total = groups * scorers.len() as u64;
    watch.progress("score", journal.done(), total);
    let mut reader = CandidateReader::open(&settings.candidates)?;
    let mut first = 0;
    while first < groups && journal.done() < total {
        let mut chunk = Vec::with_capacity(GROUPS_TOGETHER);
        for group in reader.by_ref().take(GROUPS_TOGETHER) {
            chunk.push(to_score(&group?, settings.reference)?);
        }
        score_chunk(scorers, first, &chunk, &mut journal, total, watch)?;
        first += GROUPS_TOGETHER as u64;
    }
    write(settings, scorers, &columns, &mut journal, &key).and_then(|report| {
        journal.remove()?;
        Ok(report)
    })
}

/// `score_NAME`, numbered where a name comes again.
fn columns(scorers: &[Weighted]) -> Vec<String> {
    let mut columns: Vec<String> = Vec::with_capacity(scorers.len());
    for weighted in scorers {
        let name = format!("{SCORE}_{}", weighted.scorer.name().replace(|c: char| !c.is_alphanumeric(), "_"));
        let again = columns.iter().filter(|column| **column == name || column.starts_with(&format!("{name}_"))).count();
        columns.push(if again == 0 { name } else { format!("{name}_{}", again + 1) });
    }
    columns
}

fn to_score(group: &CandidateGroup, reference: bool) -> Result<Group> {
    let responses = rows(group, reference).into_iter().map(|row| row.response).collect();
    Ok(Group { prompt: group.prompt.clone(), responses })
}

/// The candidates of a prompt, and its reference as one more.
fn rows(group: &CandidateGroup, reference: bool) -> Vec<CandidateRow> {
    let mut rows: Vec<CandidateRow> = group.rows.iter().filter(|row| !row.is_reference).cloned().collect();
    if let Some(text) = group.prompt.reference.as_ref().filter(|_| reference) {
        let mut row = CandidateRow::new(&group.prompt, rows.len() as i64, text.clone());
        row.is_reference = true;
        rows.push(row);
    }
    rows
}

fn score_chunk(
    scorers: &mut [Weighted],
    first: u64,
    chunk: &[Group],
    journal: &mut Journal<Vec<Option<f64>>>,
    total: u64,
    watch: &mut dyn Watch,
) -> Result<()> {
    let of = scorers.len() as u64;
    for (at, weighted) in scorers.iter_mut().enumerate() {
        if watch.is_interrupted() {
            return Err(Error::Interrupted);
        }
        let number = |place: usize| (first + place as u64) * of + at as u64;
        let open = (0..chunk.len()).filter(|&place| !journal.has(number(place)));
        let (places, others): (Vec<usize>, Vec<usize>) = open.partition(|&place| weighted.scores(&chunk[place].prompt));
        let none = |&place: &usize| (number(place), vec![None; chunk[place].responses.len()]);
        if !others.is_empty() {
            journal.append(&others.iter().map(none).collect::<Vec<_>>())?;
        }
        if places.is_empty() {
            continue;
        }
        let missing: Vec<Group> = places.iter().map(|&place| chunk[place].clone()).collect();
        let name = weighted.scorer.name().to_owned();
        let numbers: Vec<u64> = places.iter().map(|&place| number(place)).collect();
        let mut sink = Sink { name: &name, groups: &missing, numbers: &numbers, journal, total, watch };
        weighted.scorer.score(&missing, &mut sink)?;
        if let Some(group) = numbers.iter().position(|&number| !journal.has(number)) {
            checked(&name, &missing[group], None)?;
        }
    }
    Ok(())
}

/// Keeps scores in the journal.
struct Sink<'a> {
    name: &'a str,
    groups: &'a [Group],
    numbers: &'a [u64],
    journal: &'a mut Journal<Vec<Option<f64>>>,
    total: u64,
    watch: &'a mut dyn Watch,
}

impl ScoreSink for Sink<'_> {
    fn scored(&mut self, scores: Vec<(usize, Vec<Option<f64>>)>) -> Result<()> {
        let mut record = Vec::with_capacity(scores.len());
        for (place, scores) in scores {
            let scores = checked(self.name, &self.groups[place], Some(scores))?;
            // Only numbers are scores.
            let scores = scores.into_iter().map(|score| score.filter(|score| score.is_finite())).collect();
            record.push((self.numbers[place], scores));
        }
        self.journal.append(&record)?;
        self.watch.progress("score", self.journal.done(), self.total);
        Ok(())
    }

    fn stopped(&self) -> bool {
        self.watch.is_interrupted()
    }
}

fn write(
    settings: &ScoreSettings,
    scorers: &[Weighted],
    columns: &[String],
    journal: &mut Journal<Vec<Option<f64>>>,
    key: &WorkKey,
) -> Result<ScoreReport> {
    let names: Vec<String> = std::iter::once(SCORE.to_owned()).chain(columns.iter().cloned()).collect();
    let (mut report, mut writer) = (ScoreReport::default(), None);
    let mut sums: BTreeMap<String, (f64, u64)> = BTreeMap::new();
    for (place, group) in CandidateReader::open(&settings.candidates)?.enumerate() {
        let group = group?;
        let mut scores = Vec::with_capacity(scorers.len());
        let asked: Vec<bool> = scorers.iter().map(|weighted| weighted.scores(&group.prompt)).collect();
        for (at, weighted) in scorers.iter().enumerate() {
            let found = journal.get((place * scorers.len() + at) as u64)?.cloned();
            scores.push(checked(weighted.scorer.name(), &to_score(&group, settings.reference)?, found)?);
        }
        report.prompts += 1;
        for (at, mut row) in rows(&group, settings.reference).into_iter().enumerate() {
            let own = scores.iter().map(|scores| scores[at]);
            let asked_alone = own.clone().zip(scorers).zip(&asked).filter(|(_, asked)| **asked);
            let sum: Option<f64> = asked_alone.map(|((score, weighted), _)| Some(score? * weighted.weight)).sum();
            let sum = sum.filter(|_| asked.contains(&true));
            let cells: Vec<Option<f64>> = std::iter::once(sum).chain(own).collect();
            let told = names.iter().zip(&cells).zip(std::iter::once(&true).chain(&asked)).filter(|(_, asked)| **asked);
            for ((name, score), _) in told {
                let of_name = sums.entry(name.clone()).or_default();
                match score {
                    Some(score) => *of_name = (of_name.0 + score, of_name.1 + 1),
                    None => *report.without.entry(name.clone()).or_default() += 1,
                }
            }
            row.scores = names.iter().cloned().zip(cells).collect();
            report.candidates += 1;
            report.references += u64::from(row.is_reference);
            let writer = match &mut writer {
                Some(writer) => writer,
                none => {
                    let plain = row.prompt.form() == simplemix_data::Form::Plain;
                    none.insert(CandidateWriter::create(&settings.output, plain, &names)?)
                }
            };
            writer.write(&row)?;
        }
    }
    report.means = sums.into_iter().map(|(name, (sum, count))| (name, sum / count.max(1) as f64)).collect();
    let writer = writer.map_or_else(|| CandidateWriter::create(&settings.output, false, &names), Ok)?;
    writer.finish(key.remarks(&report))?;
    Ok(report)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use simplemix_data::Unwatched;

    use super::*;
    use crate::scorers::ScorerSettings;

    /// The sum, exact answers and lengths of every row, and the report.
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
    fn scorers_of_some_tasks_leave_the_others_alone() {
        let dir = tempfile::tempdir().unwrap();
        // Without `tasks`, exact answers would be an error: two prompts have none.
        let scorers = r#"[{"kind": "exact-answer", "tasks": ["sums"]},
            {"kind": "length", "max": 2, "weight": 0.5, "tasks": ["poems", "sums"]}]"#;
        let (rows, report) = scored(dir.path(), scorers);
        assert_eq!(rows[0], [Some(1.5), Some(1.0), Some(1.0)]);
        assert_eq!(rows[1], [Some(0.0), None, Some(0.0)]);
        assert_eq!(rows[2], [None; 3]);
        assert_eq!(report.means["score_exact_answer"], 1.0);
        // Only those that somebody was to score can go without.
        assert_eq!(report.without, [("score".to_owned(), 1)].into());

        let everywhere = scorers.replace(r#""poems", "sums""#, r#""poems""#);
        let (rows, _) = scored(dir.path(), &everywhere);
        assert_eq!([rows[0][0], rows[1][0]], [Some(1.0), Some(0.0)]);
    }
}
