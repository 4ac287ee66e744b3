//! Third stage: from scored candidates to on-policy pairs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Field, FieldRef, Schema};
use serde::{Deserialize, Serialize};
use simplemix_data::schema::{self, Layout};
use simplemix_data::{Pair, PairWriter, Policy, Watch, WriteOptions};

use crate::candidates::{CandidateGroup, CandidateReader, CandidateRow, CandidateSurvey, SCORE, survey_with};
use crate::error::{Error, Result};
use crate::finish::Finish;
use crate::journal::{WorkKey, check_apart, finished, json};
use crate::select::{Choice, NoPair, Scored, Select, SelectSettings, choose, pair_of, rewards};

/// Settings of pairing: input, rule and output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairSettings {
    /// Path of the file of scored candidates.
    pub candidates: PathBuf,
    /// Path of the output, ending in .parquet, .arrow or .jsonl.
    pub output: PathBuf,
    /// Rule by which pairs are chosen.
    #[serde(default)]
    pub select: SelectSettings,
    /// Column of scores to choose by.
    #[serde(default = "score")]
    pub by: String,
    /// Value of the `source` column of the pairs.
    #[serde(default = "source")]
    pub source: String,
    /// Names of the model in training, as in the column `generator`: a pair is on-policy if it wrote both sides. With an empty list
    /// none is; by default every pair is, but for those of the rule `delta`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_generators: Option<Vec<String>>,
    /// Whether to overwrite an output made with other settings.
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
    /// Defaults: best against worst, by the column `score`.
    pub fn new(candidates: impl Into<PathBuf>, output: impl Into<PathBuf>) -> Self {
        Self {
            candidates: candidates.into(),
            output: output.into(),
            select: SelectSettings::default(),
            by: score(),
            source: source(),
            policy_generators: None,
            overwrite: false,
        }
    }
}

impl PairSettings {
    /// Policy of the pair of these two responses.
    fn policy(&self, sides: &[CandidateRow; 2]) -> Policy {
        let Some(own) = &self.policy_generators else { return self.select.policy() };
        let is_own =
            |row: &CandidateRow| !row.is_reference && row.generator.as_ref().is_some_and(|name| own.contains(name));
        if sides.iter().all(is_own) { Policy::On } else { Policy::Off }
    }
}

/// Models whose samples stand for the reference model's, so that their scores are the reference rewards of their prompt.
///
/// In a first round the reference is the policy that has sampled. Without names of it the samples of a file are its own if one
/// model has written them all.
#[derive(Debug, Default)]
struct ReferenceModels<'a> {
    named: Option<&'a [String]>,
    found: BTreeSet<Option<String>>,
}

impl<'a> ReferenceModels<'a> {
    fn new(settings: &'a PairSettings) -> Self {
        Self { named: settings.policy_generators.as_deref(), found: BTreeSet::new() }
    }

    fn see(&mut self, group: &CandidateGroup) {
        for row in group.rows.iter().filter(|row| !row.is_reference) {
            if !self.found.contains(&row.generator) {
                self.found.insert(row.generator.clone());
            }
        }
    }

    /// Whether the samples of some model are the reference's.
    fn are_known(&self, select: Select) -> bool {
        select != Select::Delta && self.named.map_or(self.found.len() == 1, |named| !named.is_empty())
    }

    fn wrote(&self, row: &CandidateRow) -> bool {
        let is_named = |named: &[String]| row.generator.as_ref().is_some_and(|name| named.contains(name));
        !row.is_reference && self.named.is_none_or(is_named)
    }

    /// Scores `by` of all samples that the reference wrote for a prompt, cut ones among them: it is their distribution that counts.
    fn rewards(&self, group: &CandidateGroup, by: &str) -> Vec<f64> {
        let samples = group.rows.iter().filter(|row| self.wrote(row));
        rewards(samples.map(|row| row.scores.get(by).copied().flatten()))
    }
}

/// Summary of pairing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PairReport {
    /// Prompts read.
    pub prompts: u64,
    /// Prompts with at least one pair.
    pub paired: u64,
    /// Pairs written.
    pub pairs: u64,
    /// Pairs with a reference response on one side.
    pub with_reference: u64,
    /// Numbers of prompts without a pair, by reason.
    pub dropped: BTreeMap<NoPair, u64>,
    /// Mean gap between the scores of a pair; none for pairs without scores.
    pub mean_gap: Option<f64>,
    /// Candidates that took no part since they have no text, or only white space.
    #[serde(default)]
    pub without_text: u64,
    /// Candidates with text that took no part since they did not end by themselves, where only finished ones take part;
    /// those whose end is unknown are among them.
    #[serde(default)]
    pub unfinished: u64,
    /// Candidates that took no part since neither side of the rule `delta` names their model.
    #[serde(default)]
    pub of_other_generators: u64,
    /// Rows of the file that are no objects, or no text, and were left out.
    #[serde(default)]
    pub unreadable: u64,
    /// Facts that the user should read.
    #[serde(default)]
    pub notices: Vec<String>,
}

/// Pairs in each batch written.
const BATCH_PAIRS: usize = 1024;

/// Chooses pairs among scored candidates. The output has the canonical schema with `policy` on (see
/// [`PairSettings::policy_generators`]), and the further columns
/// `prompt_id`, `temperature`, `candidates` (number of responses the pair was chosen from), `reference` (`chosen` or
/// `rejected` if that side is the reference response), and tokens and log-probabilities of both sides at sampling time.
/// [`Pair::ref_rewards`] are the scores of all samples of the prompt, if one model has written all samples of the file, or of those
/// of [`PairSettings::policy_generators`]; pairs of the rule `delta` have none.
///
/// Pairing takes seconds, so a killed run starts again and writes the same file.
///
/// # Errors
/// [`Error::Setting`], [`Error::Exists`], [`Error::Row`] if there is no column of scores, [`Error::NoPairs`] if no prompt
/// has a pair, [`Error::Data`], [`Error::Interrupted`].
///
/// # Examples
/// ```
/// use simplemix_data::Unwatched;
/// use simplemix_rollout::{PairSettings, pair};
/// # let dir = tempfile::tempdir()?;
/// # let scored = dir.path().join("scored.jsonl");
/// std::fs::write(&scored, r#"{"prompt": "2 + 2?", "response": "4", "score": 1.0}
/// {"prompt": "2 + 2?", "response": "5", "score": 0.0}"#)?;
/// let report = pair(&PairSettings::new(&scored, dir.path().join("on.jsonl")), &mut Unwatched)?;
/// assert_eq!((report.pairs, report.mean_gap), (1, Some(1.0)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn pair(settings: &PairSettings, watch: &mut dyn Watch) -> Result<PairReport> {
    settings.select.check()?;
    let path = &settings.candidates;
    check_apart(&settings.output, std::slice::from_ref(path))?;
    let mut references = ReferenceModels::new(settings);
    let survey = survey_with(path, |group| references.see(group))?;
    let CandidateSurvey { hash, groups: total, unreadable, mut layout, notices, .. } = survey;
    layout.ref_rewards = references.are_known(settings.select.select);
    let select = json(&settings.select);
    let policy = settings.policy_generators.as_ref().map(json);
    let mut parts = vec![&*hash, &*select, &*settings.by, &*settings.source];
    parts.extend(policy.as_deref());
    let key = WorkKey::new("pair", &parts);
    if let Some(report) = finished(&settings.output, &key, settings.overwrite)? {
        return not_empty(report, path);
    }
    let mut writer = PairWriter::create(&settings.output, &WriteOptions::default())?;
    notices.iter().for_each(|notice| watch.notice(notice));
    let (mut report, mut gaps) = (PairReport { unreadable, notices, ..PairReport::default() }, Gaps::default());
    let mut waiting: Vec<PairRows> = Vec::new();
    let mut generators = BTreeSet::new();
    for group in CandidateReader::open(path)? {
        let group = group?;
        if watch.is_interrupted() {
            return Err(Error::Interrupted);
        }
        if report.prompts == 0 {
            check_column(&group, settings)?;
        }
        report.prompts += 1;
        for row in &group.rows {
            match reason_to_leave_out(row, &settings.select) {
                Some(NotTaking::NoText) => report.without_text += 1,
                Some(NotTaking::Unfinished) => report.unfinished += 1,
                Some(NotTaking::OtherGenerator) => report.of_other_generators += 1,
                Some(NotTaking::Reference) | None => {}
            }
            generators.extend(row.generator.clone());
        }
        match pairs_of(&group, settings) {
            Ok(mut pairs) => {
                report.paired += 1;
                if layout.ref_rewards {
                    let rewards = references.rewards(&group, &settings.by);
                    pairs.iter_mut().for_each(|rows| rows.pair.ref_rewards.clone_from(&rewards));
                }
                for PairRows { pair, sides, .. } in &pairs {
                    report.pairs += 1;
                    report.with_reference += u64::from(sides.iter().any(|row| row.is_reference));
                    if let Some(gap) = pair.margin() {
                        gaps.sum += gap;
                        gaps.count += 1;
                    }
                }
                waiting.extend(pairs);
            }
            Err(reason) => *report.dropped.entry(reason).or_default() += 1,
        }
        if waiting.len() >= BATCH_PAIRS {
            writer.write_batch(&batch(&waiting, &layout, &settings.output)?)?;
            waiting.clear();
        }
        watch.progress("pair", report.prompts, total);
    }
    writer.write_batch(&batch(&waiting, &layout, &settings.output)?)?;
    check_generators(&generators, settings)?;
    report = not_empty(report, path)?;
    report.mean_gap = gaps.mean();
    for (key, value) in key.metadata(&report) {
        writer.add_metadata(key, value);
    }
    writer.finish()?;
    Ok(report)
}

/// Refuses a file without a pair, with the reasons.
fn not_empty(report: PairReport, candidates: &Path) -> Result<PairReport> {
    if report.pairs > 0 {
        return Ok(report);
    }
    let dropped = report.dropped.iter().map(|(why, count)| format!("{count} {}", why.name()));
    let left_out = [
        (report.without_text, "responses without text"),
        (report.unfinished, "responses that did not end by themselves"),
        (report.of_other_generators, "responses of models that neither side names"),
    ];
    let left_out = left_out.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
    let dropped = dropped.chain(left_out).collect::<Vec<_>>().join(", ");
    Err(Error::NoPairs { path: candidates.to_path_buf(), prompts: report.prompts, dropped })
}

/// A pair, the rows of its two sides, and the number of responses it was chosen from.
struct PairRows {
    pair: Pair,
    sides: [CandidateRow; 2],
    candidates: usize,
}

/// Gaps between the scores of pairs.
#[derive(Debug, Default)]
struct Gaps {
    sum: f64,
    count: u64,
}

impl Gaps {
    fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }
}

/// Refuses models that have written none of the responses.
fn check_generators(found: &BTreeSet<String>, settings: &PairSettings) -> Result<()> {
    let SelectSettings { chosen_generators, rejected_generators, .. } = &settings.select;
    let own = settings.policy_generators.iter().flatten();
    let mut named = chosen_generators.iter().chain(rejected_generators).chain(own);
    let Some(absent) = named.find(|name| !found.contains(*name)) else {
        return Ok(());
    };
    Err(Error::without_responses(settings.candidates.clone(), absent, found))
}

fn check_column(group: &CandidateGroup, settings: &PairSettings) -> Result<()> {
    if settings.select.select == Select::Delta {
        return Ok(());
    }
    let scores = group.rows.first().map(|row| &row.scores);
    if scores.is_some_and(|scores| scores.contains_key(&settings.by)) {
        return Ok(());
    }
    let found: Vec<&str> = scores.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    let found = if found.is_empty() { "no scores".to_owned() } else { format!("scores {}", found.join(", ")) };
    Err(Error::Row {
        path: settings.candidates.clone(),
        row: 0,
        found,
        expected: format!("a column `{}` with numbers, as `simplemix score` writes it", settings.by),
    })
}

/// Reason for which a candidate takes no part in pairs.
enum NotTaking {
    Reference,
    NoText,
    Unfinished,
    OtherGenerator,
}

fn reason_to_leave_out(row: &CandidateRow, select: &SelectSettings) -> Option<NotTaking> {
    // A reference is a whole response, whoever wrote it.
    let is_finished = || row.is_reference || row.finish.as_ref().is_some_and(Finish::is_end);
    match row {
        row if row.is_reference && !select.uses_reference() => Some(NotTaking::Reference),
        // A blank response would make a pair that no reader takes.
        row if !row.has_text() => Some(NotTaking::NoText),
        _ if select.finished && !is_finished() => Some(NotTaking::Unfinished),
        row if !select.names(row.generator.as_deref()) => Some(NotTaking::OtherGenerator),
        _ => None,
    }
}

fn pairs_of(group: &CandidateGroup, settings: &PairSettings) -> Result<Vec<PairRows>, NoPair> {
    if group.prompt.prompt.is_blank() {
        return Err(NoPair::BlankPrompt);
    }
    let takes_part = |row: &&CandidateRow| reason_to_leave_out(row, &settings.select).is_none();
    let rows: Vec<&CandidateRow> = group.rows.iter().filter(takes_part).collect();
    let scored: Vec<Scored<'_>> = rows
        .iter()
        .map(|row| Scored {
            text: row.response.as_deref().unwrap_or_default(),
            score: row.scores.get(&settings.by).copied().flatten(),
            is_reference: row.is_reference,
            generator: row.generator.as_deref(),
        })
        .collect();
    let with_rows = |choice: Choice| {
        let sides = [rows[choice.chosen].clone(), rows[choice.rejected].clone()];
        let mut pair = pair_of(&group.prompt, &scored, choice, (&settings.source, settings.policy(&sides)));
        pair.generator = sides[0].generator.clone().filter(|name| sides[1].generator.as_ref() == Some(name));
        PairRows { pair, sides, candidates: rows.len() }
    };
    Ok(choose(&group.prompt.id, &scored, &settings.select)?.into_iter().map(with_rows).collect())
}

fn batch(pairs: &[PairRows], layout: &Layout, output: &Path) -> Result<RecordBatch> {
    let canonical =
        schema::batch_in_layout(&pairs.iter().map(|rows| rows.pair.clone()).collect::<Vec<Pair>>(), layout)?;
    let reference = |rows: &PairRows| {
        let at = rows.sides.iter().position(|row| row.is_reference)?;
        Some(["chosen", "rejected"][at])
    };
    let integers =
        |of: &dyn Fn(&PairRows) -> Option<i64>| Arc::new(pairs.iter().map(of).collect::<Int64Array>()) as ArrayRef;
    let numbers =
        |of: &dyn Fn(&PairRows) -> Option<f64>| Arc::new(pairs.iter().map(of).collect::<Float64Array>()) as ArrayRef;
    let further: Vec<(&str, ArrayRef)> = vec![
        (
            "prompt_id",
            Arc::new(pairs.iter().map(|rows| Some(rows.sides[0].prompt_id.as_str())).collect::<StringArray>()),
        ),
        ("temperature", numbers(&|rows| rows.sides.iter().find_map(|row| row.temperature))),
        ("candidates", integers(&|rows| Some(rows.candidates as i64))),
        ("reference", Arc::new(pairs.iter().map(reference).collect::<StringArray>())),
        ("tokens_chosen", integers(&|rows| rows.sides[0].tokens)),
        ("tokens_rejected", integers(&|rows| rows.sides[1].tokens)),
        ("logp_chosen", numbers(&|rows| rows.sides[0].logp)),
        ("logp_rejected", numbers(&|rows| rows.sides[1].logp)),
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
    use serde_json::{Value, json};
    use simplemix_data::Unwatched;

    use super::*;

    #[test]
    fn pairs_keep_calls_and_tools_of_their_prompts() {
        let dir = tempfile::tempdir().unwrap();
        let row = |response: &str, score: f64| {
            let call = serde_json::json!({"type": "function", "function": {"name": "die", "arguments": {}}});
            let row = serde_json::json!({
                "prompt": [
                    {"role": "user", "content": "Roll."},
                    {"role": "assistant", "content": null, "tool_calls": [call]},
                    {"role": "tool", "content": "4"},
                ],
                "tools": [{"type": "function", "function": {"name": "die"}}],
                "response": response,
                "score": score,
            });
            row.to_string()
        };
        let candidates = dir.path().join("scored.jsonl");
        std::fs::write(&candidates, [row("four", 1.0), row("five", 0.0)].join("\n")).unwrap();
        let mut read = Vec::new();
        for name in ["on.parquet", "on.jsonl"] {
            let settings = PairSettings::new(&candidates, dir.path().join(name));
            assert_eq!(pair(&settings, &mut Unwatched).unwrap().pairs, 1);
            let pairs = simplemix_data::read_pairs(&settings.output, &Default::default()).unwrap();
            let simplemix_data::Text::Messages(turns) = &pairs[0].prompt else { panic!("messages") };
            assert_eq!(turns[1].fields["tool_calls"][0]["function"]["name"], "die");
            assert_eq!(pairs[0].inputs.tools.as_ref().unwrap()[0]["function"]["name"], "die");
            read.push(pairs);
        }
        assert_eq!(read[0], read[1]);
    }

    #[test]
    fn a_candidate_without_text_is_left_out_and_counted() {
        let dir = tempfile::tempdir().unwrap();
        let candidates = dir.path().join("scored.jsonl");
        let rows = [r#""good", "score": 1.0"#, r#"null, "score": null"#, r#""bad", "score": 0.0"#];
        let rows = rows.map(|rest| format!(r#"{{"prompt": "a", "response": {rest}}}"#)).join("\n");
        std::fs::write(&candidates, rows).unwrap();
        let report = pair(&PairSettings::new(&candidates, dir.path().join("p.jsonl")), &mut Unwatched).unwrap();
        assert_eq!((report.pairs, report.without_text, report.mean_gap), (1, 1, Some(1.0)));
    }

    /// All samples of one model are the reference's, whether a pair could be made of them or not; those of others are not.
    #[test]
    fn pairs_keep_the_scores_of_the_references_samples() {
        let dir = tempfile::tempdir().unwrap();
        let row = |response: Value, score: Value, generator: &str, of_prompts: bool| {
            let row = serde_json::json!({"prompt": "a", "response": response, "score": score, "generator": generator,
                "is_reference": of_prompts, "finish": if response == "cut" { "length" } else { "stop" }});
            row.to_string()
        };
        let own = [
            row(json!("good"), json!(3.0), "m", false),
            row(json!("bad"), json!(1.0), "m", false),
            row(json!("cut"), json!(2.0), "m", false),
            row(Value::Null, Value::Null, "m", false),
            row(json!("written"), json!(9.0), "m", true),
        ];
        let other = row(json!("of another"), json!(0.0), "n", false);
        let rewards = |rows: &[String], change: &dyn Fn(&mut PairSettings)| {
            let candidates = dir.path().join("scored.jsonl");
            std::fs::write(&candidates, rows.join("\n")).unwrap();
            let mut settings = PairSettings::new(&candidates, dir.path().join("p.parquet"));
            settings.overwrite = true;
            change(&mut settings);
            pair(&settings, &mut Unwatched).unwrap();
            let pairs = simplemix_data::read_pairs(&settings.output, &Default::default()).unwrap();
            pairs[0].ref_rewards.clone()
        };
        assert_eq!(rewards(&own, &|_| {}), [3.0, 1.0, 2.0]);
        assert_eq!(rewards(&own, &|settings| settings.select.finished = true), [3.0, 1.0, 2.0]);
        let both = [&own[..], &[other]].concat();
        assert_eq!(rewards(&both, &|_| {}), [0.0; 0]);
        let named = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(rewards(&both, &|settings| settings.policy_generators = Some(named(&["m"]))), [3.0, 1.0, 2.0]);
        assert_eq!(rewards(&own, &|settings| settings.policy_generators = Some(named(&[]))), [0.0; 0]);
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let candidates = dir.path().join("scored.jsonl");
        let row = |prompt: &str, response: &str, score: f64| {
            serde_json::json!({"prompt": prompt, "response": response, "score": score}).to_string()
        };
        let rows = [
            row("a", "good", 2.0),
            row("a", " \n", 0.0),
            row("a", "bad", 1.0),
            row("b", "4", 1.0),
            row("b", "", 0.0),
            row(" ", "good", 1.0),
            row(" ", "bad", 0.0),
        ];
        std::fs::write(&candidates, rows.join("\n")).unwrap();
        let settings = PairSettings::new(&candidates, dir.path().join("p.jsonl"));
        let report = pair(&settings, &mut Unwatched).unwrap();
        assert_eq!((report.pairs, report.without_text), (1, 2));
        assert_eq!(report.dropped, [(NoPair::TooFew, 1), (NoPair::BlankPrompt, 1)].into());
        let (pairs, read) =
            simplemix_data::read_pairs_with_report(&settings.output, &simplemix_data::ReadOptions::default()).unwrap();
        assert_eq!((pairs.len(), read.refused.is_empty(), &pairs[0].rejected), (1, true, &"bad".into()));
    }

    #[test]
    fn no_pair_at_all_is_a_failure_without_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let candidates = dir.path().join("scored.jsonl");
        let rows = ["4", "5"].map(|text| format!(r#"{{"prompt": "a", "response": "{text}", "score": 1.0}}"#));
        std::fs::write(&candidates, rows.join("\n")).unwrap();
        let settings = PairSettings::new(&candidates, dir.path().join("p.jsonl"));
        let error = pair(&settings, &mut Unwatched).unwrap_err();
        assert!(!error.is_input() && error.to_string().contains("no pair of 1 prompts, dropped: 1 "), "{error}");
        assert!(!settings.output.exists());
    }

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
        // A response that a content filter cut, or whose end is unknown, is not finished either.
        let other = candidates.with_file_name("other.jsonl");
        let rows = [("good", "eos_token", 2.0), ("bad", "content_filter", 1.0), ("worse", "stop", 0.5)];
        let rows = rows.map(|(text, finish, score)| row("a", text, finish, score)).join("\n");
        std::fs::write(&other, format!("{rows}\n{}", r#"{"prompt": "a", "response": "x", "score": 0.0}"#)).unwrap();
        let mut settings = PairSettings::new(&other, dir.path().join("other.out.jsonl"));
        settings.select.finished = true;
        let report = pair(&settings, &mut Unwatched).unwrap();
        assert_eq!((report.pairs, report.unfinished, report.without_text), (1, 2, 0));
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

    #[test]
    fn pairs_of_a_pool_are_on_policy_if_the_policy_wrote_both_sides() {
        let dir = tempfile::tempdir().unwrap();
        let row = |prompt: &str, by: &str, score: f64| {
            let response = format!("{by} {score}");
            serde_json::json!({"prompt": prompt, "response": response, "generator": by, "score": score}).to_string()
        };
        let rows =
            [("a", "p", 1.0), ("a", "p", 0.0), ("b", "p", 1.0), ("b", "q", 0.0), ("c", "q", 1.0), ("c", "q", 0.0)];
        let candidates = dir.path().join("scored.jsonl");
        std::fs::write(&candidates, rows.map(|(prompt, by, score)| row(prompt, by, score)).join("\n")).unwrap();
        let policies = |policy_generators: Option<Vec<String>>| {
            let settings = PairSettings {
                policy_generators,
                overwrite: true,
                ..PairSettings::new(&candidates, dir.path().join("p.jsonl"))
            };
            pair(&settings, &mut Unwatched)?;
            let pairs = simplemix_data::read_pairs(&settings.output, &Default::default()).unwrap();
            Ok::<_, Error>(pairs.iter().map(|pair| pair.policy == Policy::On).collect::<Vec<_>>())
        };
        assert_eq!(policies(None).unwrap(), [true, true, true]);
        assert_eq!(policies(Some(vec!["p".to_owned()])).unwrap(), [true, false, false]);
        assert_eq!(policies(Some(Vec::new())).unwrap(), [false, false, false]);
        let error = policies(Some(vec!["r".to_owned()])).unwrap_err();
        assert!(error.is_input() && error.to_string().contains("no response by `r`"), "{error}");
    }

    #[test]
    fn pairs_by_model_need_no_scores_and_are_off_policy() {
        let dir = tempfile::tempdir().unwrap();
        let row = |prompt: &str, by: &str| {
            serde_json::json!({"prompt": prompt, "response": format!("{by} on {prompt}"), "generator": by}).to_string()
        };
        let rows = [row("a", "weak"), row("a", "strong"), row("a", "other"), row("b", "strong"), row("b", "other")];
        let candidates = dir.path().join("pool.jsonl");
        std::fs::write(&candidates, rows.join("\n")).unwrap();
        let mut settings = PairSettings::new(&candidates, dir.path().join("delta.jsonl"));
        settings.select = SelectSettings {
            select: Select::Delta,
            chosen_generators: vec!["strong".to_owned()],
            rejected_generators: vec!["weak".to_owned()],
            ..SelectSettings::default()
        };
        let report = pair(&settings, &mut Unwatched).unwrap();
        assert_eq!((report.pairs, report.mean_gap, report.of_other_generators), (1, None, 2));
        assert_eq!(report.dropped, [(NoPair::NotBothGenerators, 1)].into());
        let pairs = simplemix_data::read_pairs(&settings.output, &Default::default()).unwrap();
        assert_eq!((&pairs[0].chosen, &pairs[0].rejected), (&"strong on a".into(), &"weak on a".into()));
        assert_eq!(
            (pairs[0].policy, pairs[0].margin(), &pairs[0].generator),
            (simplemix_data::Policy::Off, None, &None)
        );
        settings.select.rejected_generators = vec!["weka".to_owned()];
        settings.output = dir.path().join("none.jsonl");
        let error = pair(&settings, &mut Unwatched).unwrap_err();
        assert!(error.is_input() && !settings.output.exists());
        let expected =
            "no response by `weka`, expected one of the models of column `generator`: `other`, `strong`, `weak`";
        assert!(error.to_string().ends_with(expected), "{error}");
    }
}
