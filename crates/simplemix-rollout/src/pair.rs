//! The third stage: scored candidates to on-policy pairs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Field, FieldRef, Schema};
use serde::{Deserialize, Serialize};
use simplemix_data::{Form, Pair, PairWriter, Watch, WriteOptions, schema};

use crate::candidates::{CandidateGroup, CandidateReader, CandidateRow, SCORE, survey};
use crate::error::{Error, Result};
use crate::generator::Finish;
use crate::journal::{WorkKey, finished};
use crate::select::{NoPair, Scored, SelectSettings, choose, pair_of};

/// What is to be paired, how, and where to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairSettings {
    /// File of scored candidates.
    pub candidates: PathBuf,
    /// File to write: .parquet, .arrow or .jsonl.
    pub output: PathBuf,
    /// Rule and bounds.
    #[serde(default)]
    pub select: SelectSettings,
    /// Column of scores that pairs are made by.
    #[serde(default = "score")]
    pub by: String,
    /// Name of the pairs' source.
    #[serde(default = "source")]
    pub source: String,
    /// Replace an output of other arguments.
    #[serde(default)]
    pub overwrite: bool,
}

fn score() -> String {
    SCORE.to_owned()
}

fn source() -> String {
    "on_policy".to_owned()
}

impl PairSettings {
    /// Best against worst.
    pub fn new(candidates: impl Into<PathBuf>, output: impl Into<PathBuf>) -> Self {
        Self {
            candidates: candidates.into(),
            output: output.into(),
            select: SelectSettings::default(),
            by: score(),
            source: source(),
            overwrite: false,
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PairReport {
    /// Prompts looked at.
    pub prompts: u64,
    /// Prompts that gave pairs.
    pub paired: u64,
    /// Pairs written.
    pub pairs: u64,
    /// Pairs with a reference response on one side.
    pub with_reference: u64,
    /// Prompts without a pair, by reason.
    pub dropped: BTreeMap<NoPair, u64>,
    /// Mean gap between the scores of a pair.
    pub mean_gap: f64,
}

/// Pairs written at a time.
const BATCH_PAIRS: usize = 1024;

/// Makes pairs of scored candidates: the canonical schema, `policy` on, with further columns `prompt_id`, `temperature`,
/// `candidates` (how many the pair was chosen from), `reference` (`chosen` or `rejected`, where a side is the reference),
/// and tokens and log-probabilities of both sides as sampled.
///
/// This takes seconds, so that a killed run starts again; the file is the same.
///
/// # Errors
/// [`Error::Setting`], [`Error::Exists`], [`Error::Columns`] if there is no score, [`Error::Data`],
/// [`Error::Interrupted`].
pub fn pair(settings: &PairSettings, watch: &mut dyn Watch) -> Result<PairReport> {
    settings.select.check()?;
    let path = &settings.candidates;
    let (hash, total) = survey(path)?;
    let rule = serde_json::to_string(&settings.select).unwrap_or_default();
    let key = WorkKey::new("pair", &[&hash, &rule, &settings.by, &settings.source]);
    if let Some(report) = finished(&settings.output, &key, settings.overwrite)? {
        return Ok(report);
    }
    let mut writer = PairWriter::create(&settings.output, &WriteOptions::default())?;
    let (mut report, mut gaps) = (PairReport::default(), 0.0);
    let mut waiting: Vec<Made> = Vec::new();
    for group in CandidateReader::open(path)? {
        let group = group?;
        if watch.is_interrupted() {
            return Err(Error::Interrupted);
        }
        if report.prompts == 0 {
            check_column(&group, settings)?;
        }
        report.prompts += 1;
        match pairs_of(&group, settings) {
            Ok(pairs) => {
                report.paired += 1;
                for made in &pairs {
                    report.pairs += 1;
                    report.with_reference += u64::from(made.sides.iter().any(|row| row.is_reference));
                    gaps += made.pair.margin().unwrap_or_default();
                }
                waiting.extend(pairs);
            }
            Err(reason) => *report.dropped.entry(reason).or_default() += 1,
        }
        if waiting.len() >= BATCH_PAIRS {
            writer.write_batch(&batch(&waiting, &settings.output)?)?;
            waiting.clear();
        }
        watch.progress("pair", report.prompts, total);
    }
    writer.write_batch(&batch(&waiting, &settings.output)?)?;
    report.mean_gap = gaps / report.pairs.max(1) as f64;
    for (key, value) in key.remarks(&report) {
        writer.add_metadata(key, value);
    }
    writer.finish()?;
    Ok(report)
}

/// A pair, and the rows it was made of.
struct Made {
    pair: Pair,
    sides: [CandidateRow; 2],
    candidates: usize,
}

fn check_column(group: &CandidateGroup, settings: &PairSettings) -> Result<()> {
    let scores = group.rows.first().map(|row| &row.scores);
    if scores.is_some_and(|scores| scores.contains_key(&settings.by)) {
        return Ok(());
    }
    let found: Vec<&str> = scores.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    let found =
        if found.is_empty() { "without scores".to_owned() } else { format!("with scores {}", found.join(", ")) };
    Err(Error::Row {
        path: settings.candidates.clone(),
        row: 0,
        found,
        expected: format!("a column `{}`, as `simplemix score` writes it", settings.by),
    })
}

fn pairs_of(group: &CandidateGroup, settings: &PairSettings) -> Result<Vec<Made>, NoPair> {
    let with_reference = settings.select.uses_reference();
    let is_cut = |row: &CandidateRow| row.finish == Some(Finish::Length);
    let takes_part =
        |row: &&CandidateRow| (with_reference || !row.is_reference) && !(settings.select.finished && is_cut(row));
    let rows: Vec<&CandidateRow> = group.rows.iter().filter(takes_part).collect();
    let scored: Vec<Scored<'_>> = rows
        .iter()
        .map(|row| Scored {
            text: &row.response,
            score: row.scores.get(&settings.by).copied().flatten(),
            is_reference: row.is_reference,
        })
        .collect();
    let made = |(chosen, rejected): (usize, usize)| {
        let sides = [rows[chosen].clone(), rows[rejected].clone()];
        let mut pair = pair_of(&group.prompt, &scored, (chosen, rejected), &settings.source);
        pair.generator = sides[0].generator.clone().filter(|name| sides[1].generator.as_ref() == Some(name));
        Made { pair, sides, candidates: rows.len() }
    };
    Ok(choose(&scored, &settings.select)?.into_iter().map(made).collect())
}

fn batch(made: &[Made], output: &Path) -> Result<RecordBatch> {
    let form = made.first().map_or(Form::Messages, |made| made.pair.form());
    let pairs: Vec<Pair> = made.iter().map(|made| made.pair.clone()).collect();
    let canonical = schema::batch_from_pairs(&pairs, form)?;
    let reference = |made: &Made| {
        let at = made.sides.iter().position(|row| row.is_reference)?;
        Some(["chosen", "rejected"][at])
    };
    let integers =
        |of: &dyn Fn(&Made) -> Option<i64>| Arc::new(made.iter().map(of).collect::<Int64Array>()) as ArrayRef;
    let numbers =
        |of: &dyn Fn(&Made) -> Option<f64>| Arc::new(made.iter().map(of).collect::<Float64Array>()) as ArrayRef;
    let further: Vec<(&str, ArrayRef)> = vec![
        (
            "prompt_id",
            Arc::new(made.iter().map(|made| Some(made.sides[0].prompt_id.as_str())).collect::<StringArray>()),
        ),
        ("temperature", numbers(&|made| made.sides.iter().find_map(|row| row.temperature))),
        ("candidates", integers(&|made| Some(made.candidates as i64))),
        ("reference", Arc::new(made.iter().map(reference).collect::<StringArray>())),
        ("tokens_chosen", integers(&|made| made.sides[0].tokens)),
        ("tokens_rejected", integers(&|made| made.sides[1].tokens)),
        ("logp_chosen", numbers(&|made| made.sides[0].logp)),
        ("logp_rejected", numbers(&|made| made.sides[1].logp)),
    ];
    let mut fields: Vec<FieldRef> = canonical.schema().fields().iter().cloned().collect();
    let mut columns = canonical.columns().to_vec();
    for (name, column) in further {
        fields.push(Arc::new(Field::new(name, column.data_type().clone(), true)));
        columns.push(column);
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
        .map_err(|source| Error::Arrow { path: output.to_path_buf(), source })
}

#[cfg(test)]
mod tests {
    use simplemix_data::Unwatched;

    use super::*;

    #[test]
    fn cut_responses_can_be_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let row = |prompt: &str, response: &str, finish: &str, score: f64| {
            format!(r#"{{"prompt": "{prompt}", "response": "{response}", "finish": "{finish}", "score": {score}}}"#)
        };
        let rows = [
            row("a", "best, and", "length", 3.0),
            row("a", "good", "stop", 2.0),
            row("a", "bad", "stop", 1.0),
            row("b", "good", "stop", 2.0),
            row("b", "bad, and", "length", 1.0),
        ];
        let candidates = dir.path().join("scored.jsonl");
        std::fs::write(&candidates, rows.join("\n")).unwrap();
        let chosen = |finished: bool| {
            let mut settings = PairSettings::new(&candidates, dir.path().join(format!("{finished}.jsonl")));
            settings.select.finished = finished;
            let report = pair(&settings, &mut Unwatched).unwrap();
            let pairs = simplemix_data::read_pairs(&settings.output, &Default::default()).unwrap();
            (pairs.into_iter().map(|pair| pair.chosen).collect::<Vec<_>>(), report.dropped)
        };
        assert_eq!(chosen(false), (vec!["best, and".into(), "good".into()], BTreeMap::new()));
        assert_eq!(chosen(true), (vec!["good".into()], [(NoPair::TooFew, 1)].into()));
    }
}
