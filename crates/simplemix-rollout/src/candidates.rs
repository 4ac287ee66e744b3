//! File of candidates: written by generating and scoring, read by scoring and pairing. One row per response, all rows of
//! a prompt in sequence.
//!
//! | column | type | |
//! | --- | --- | --- |
//! | `prompt_id` | text | |
//! | `prompt` | text or messages | |
//! | `task`, `reference` | text, nullable | as in the file of prompts |
//! | `answer` | text, nullable; a list of texts where a prompt has several | the right answer; of several, any is right |
//! | `sample` | integer | number of the sample, from 0 |
//! | `response` | text, nullable | null where the model gave no text |
//! | `tokens` | integer, nullable | tokens sampled |
//! | `logp` | number, nullable | summed log-probability under the sampling model, nats |
//! | `finish` | text, nullable | `stop`, `length`, or another word of the backend |
//! | `generator` | text, nullable | name of the model |
//! | `temperature` | number, nullable | |
//! | `seed` | integer from 0, nullable | seed given to the backend for this sample |
//! | `is_reference` | boolean | whether this is the `reference` of the file of prompts |
//! | `tools`, `documents`, `chat_template_kwargs` | JSON, nullable | as in the file of prompts, where it has them |
//! | `score`, `score_NAME` | number, nullable | after scoring: the weighted sum, and the score of each scorer |
//!
//! Files of other programs need only `prompt` and `response`. Numbers in columns of text are read as text and the other way
//! round, as in files of prompts; `finish_reason` is `finish`; a seed below 0 stands for none. Further columns are not read, which
//! the reports of scoring and pairing say.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::json::ReaderBuilder;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use simplemix_data::schema::{self, Layout};
use simplemix_data::{Form, RowReader, TableWriter, TemplateInputs, Text, WriteOptions};

use crate::answer::Answer;
use crate::error::{Error, Result};
use crate::finish::Finish;
use crate::generator::Prompt;
use crate::prompts::{prompt_id, short_hash};

/// Column of the weighted sum of scores.
pub const SCORE: &str = "score";

/// A candidate with everything known about it: one row of the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CandidateRow {
    /// Id of the prompt; a hash of the prompt if the file has no such column.
    #[serde(default)]
    pub prompt_id: String,
    /// The prompt.
    pub prompt: Text,
    /// Kind of task.
    #[serde(default)]
    pub task: Option<String>,
    /// The known right answer, or several of which any is right.
    #[serde(default)]
    pub answer: Option<Answer>,
    /// A response by someone else.
    #[serde(default)]
    pub reference: Option<String>,
    /// Number of the sample.
    #[serde(default)]
    pub sample: i64,
    /// The response; `None` where the model gave no text.
    #[serde(default)]
    pub response: Option<String>,
    /// Tokens sampled.
    #[serde(default)]
    pub tokens: Option<i64>,
    /// Summed log-probability under the sampling model, nats.
    #[serde(default)]
    pub logp: Option<f64>,
    /// Reason for which the response ended.
    #[serde(default)]
    pub finish: Option<Finish>,
    /// Name of the model.
    #[serde(default)]
    pub generator: Option<String>,
    /// Sampling temperature.
    #[serde(default)]
    pub temperature: Option<f64>,
    /// Seed given to the backend.
    #[serde(default)]
    pub seed: Option<u64>,
    /// Whether this is the reference response.
    #[serde(default)]
    pub is_reference: bool,
    /// Inputs of the chat template beside the turns of the prompt.
    #[serde(skip)]
    pub inputs: TemplateInputs,
    /// Scores by column.
    #[serde(skip)]
    pub scores: BTreeMap<String, Option<f64>>,
}

impl CandidateRow {
    /// A response to a prompt, without tokens, model and scores.
    pub(crate) fn new(prompt: &Prompt, sample: i64, response: Option<String>) -> Self {
        Self {
            prompt_id: prompt.id.clone(),
            prompt: prompt.prompt.clone(),
            task: prompt.task.clone(),
            answer: prompt.answer.clone(),
            reference: prompt.reference.clone(),
            sample,
            response,
            tokens: None,
            logp: None,
            finish: None,
            generator: None,
            temperature: None,
            seed: None,
            is_reference: false,
            inputs: prompt.inputs.clone(),
            scores: BTreeMap::new(),
        }
    }

    /// Whether the response has more than white space.
    pub(crate) fn has_text(&self) -> bool {
        self.response.as_ref().is_some_and(|text| !text.trim().is_empty())
    }

    fn from_cells(mut cells: Map<String, Value>) -> std::result::Result<Self, String> {
        if let Some(reason) = cells.remove(FINISH_REASON).filter(|_| !cells.contains_key("finish")) {
            cells.insert("finish".to_owned(), reason);
        }
        cells.iter_mut().for_each(|(name, value)| make_readable(name, value));
        let scores = cells
            .iter()
            .filter(|(name, _)| is_score(name))
            .filter(|(_, value)| value.is_number() || value.is_null() || value.is_string())
            .map(|(name, value)| (name.clone(), number(value)))
            .collect();
        let inputs = TemplateInputs::of_row(&cells).map_err(|column| format!("`{column}` that cannot be read"));
        let mut row: Self = serde_json::from_value(Value::Object(cells)).map_err(|error| error.to_string())?;
        if row.prompt.form() == Form::Messages {
            row.inputs = inputs?;
        }
        if row.prompt_id.is_empty() {
            row.prompt_id = prompt_id(&row.prompt, &row.inputs);
        }
        row.scores = scores;
        Ok(row)
    }

    fn prompt(&self) -> Prompt {
        Prompt {
            id: self.prompt_id.clone(),
            prompt: self.prompt.clone(),
            task: self.task.clone(),
            answer: self.answer.clone(),
            reference: self.reference.clone(),
            inputs: self.inputs.clone(),
        }
    }
}

/// Columns of text in which other programs write numbers.
const TEXTS: [&str; 7] = ["prompt_id", "task", "answer", "reference", "response", "finish", "generator"];
/// Columns of numbers, which other programs write as text, or whole ones as fractions.
const NUMBERS: [&str; 5] = ["sample", "tokens", "logp", "temperature", "seed"];
/// Further columns that are read.
const OTHERS: [&str; 5] = ["prompt", "is_reference", "tools", "documents", "chat_template_kwargs"];
/// Name of the column `finish` in files of servers' replies.
const FINISH_REASON: &str = "finish_reason";

/// A number, or one in a text.
fn number(value: &Value) -> Option<f64> {
    let number = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok());
    number.filter(|number| number.is_finite())
}

fn is_score(column: &str) -> bool {
    column == SCORE || column.starts_with("score_")
}

fn is_read(column: &str) -> bool {
    is_score(column)
        || column == FINISH_REASON
        || [&TEXTS[..], &NUMBERS, &OTHERS].iter().any(|names| names.contains(&column))
}

/// Spells a cell as this crate does: a number in a column of text is text and the other way round, a whole number is one, a
/// seed below 0 is none, no sample is the first, an empty list of answers is none.
fn make_readable(name: &str, value: &mut Value) {
    if let Value::String(text) = value
        && NUMBERS.contains(&name)
        && let Ok(number) = text.trim().parse::<serde_json::Number>()
    {
        *value = Value::Number(number);
    }
    if let ("answer", Value::Array(items)) = (name, &mut *value) {
        items.iter_mut().for_each(|item| make_readable(name, item));
        if items.is_empty() {
            *value = Value::Null;
        }
    }
    match (name, &*value) {
        (name, Value::Number(number)) if TEXTS.contains(&name) => *value = Value::String(number.to_string()),
        ("sample" | "tokens", Value::Number(number)) if number.is_f64() => {
            let whole = number.as_f64().filter(|number| number.fract() == 0.0 && number.abs() < 9e15);
            *value = whole.map_or_else(|| value.clone(), |number| (number as i64).into());
        }
        ("seed", Value::Number(seed)) if !seed.is_u64() => {
            // A whole number that a reader made a fraction of, because it is above the largest signed one.
            let whole = seed.as_f64().filter(|seed| *seed >= 0.0 && seed.fract() == 0.0);
            *value = whole.map_or(Value::Null, |seed| (seed as u64).into());
        }
        ("sample", Value::Null) => *value = 0.into(),
        ("prompt_id", Value::Null) => *value = Value::String(String::new()),
        ("is_reference", Value::Null) => *value = false.into(),
        _ => {}
    }
}

/// All rows of a prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct CandidateGroup {
    /// The prompt.
    pub prompt: Prompt,
    /// Rows, in the order of the file.
    pub rows: Vec<CandidateRow>,
}

/// Reads a file of candidates prompt by prompt.
///
/// # Examples
/// ```
/// use simplemix_rollout::CandidateReader;
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("candidates.jsonl");
/// std::fs::write(&path, r#"{"prompt": "2 + 2?", "response": "4"}
/// {"prompt": "2 + 2?", "response": "5"}"#)?;
/// for group in CandidateReader::open(&path)? {
///     let group = group?;
///     assert_eq!(group.rows.len(), 2);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct CandidateReader {
    path: PathBuf,
    rows: RowReader,
    /// Columns that are not read.
    unread: Vec<String>,
    /// First row of the next group, with its number.
    next: Option<(u64, CandidateRow)>,
    /// Hashes of the ids of earlier prompts.
    seen: HashSet<[u8; 16]>,
    started: bool,
}

impl CandidateReader {
    /// Opens a Parquet, Arrow, JSON or JSON lines file.
    ///
    /// # Errors
    /// [`Error::Data`] if the file cannot be read, [`Error::Columns`] if it has rows and no `prompt` or no `response`.
    pub fn open(path: &Path) -> Result<Self> {
        let reader = RowReader::open(path)?;
        for needed in ["prompt", "response"] {
            // A table without rows shows no columns.
            if !reader.columns().is_empty() && !reader.columns().iter().any(|column| column == needed) {
                return Err(Error::Columns {
                    path: path.to_path_buf(),
                    found: reader.columns().join(", "),
                    expected: "`prompt` and `response`, one row per response",
                });
            }
        }
        let unread = reader.columns().iter().filter(|column| !is_read(column)).cloned().collect();
        let (path, seen) = (path.to_path_buf(), HashSet::new());
        Ok(Self { path, rows: reader, unread, next: None, seen, started: false })
    }

    /// Facts about the file that the user should read.
    fn notices(&self) -> Vec<String> {
        let columns = (!self.unread.is_empty()).then(|| {
            format!("{}: columns that no candidate has are left out: {}", self.path.display(), self.unread.join(", "))
        });
        columns.into_iter().collect()
    }

    /// Number of rows so far that are no objects, or no text, and are left out.
    pub fn unreadable(&self) -> u64 {
        self.rows.refused().total()
    }

    fn row(&mut self) -> Result<Option<(u64, CandidateRow)>> {
        let Some(cells) = self.rows.next() else { return Ok(None) };
        let row = self.rows.row();
        let wrong = |found| Error::Row {
            path: self.path.clone(),
            row,
            found,
            expected: "a candidate, with `prompt` and `response`".to_owned(),
        };
        CandidateRow::from_cells(cells?).map(|found| Some((row, found))).map_err(wrong)
    }

    fn group(&mut self) -> Result<Option<CandidateGroup>> {
        if !self.started {
            self.started = true;
            self.next = self.row()?;
        }
        let Some((number, first)) = self.next.take() else { return Ok(None) };
        if !self.seen.insert(short_hash(&first.prompt_id)) {
            return Err(Error::Row {
                path: self.path.clone(),
                row: number,
                found: format!("rows of prompt `{}` in several places", first.prompt_id),
                expected: "the rows of a prompt together, such as after sorting by prompt".to_owned(),
            });
        }
        let mut group = CandidateGroup { prompt: first.prompt(), rows: vec![first] };
        while let Some((number, row)) = self.row()? {
            if row.prompt_id != group.prompt.id {
                self.next = Some((number, row));
                break;
            }
            group.rows.push(row);
        }
        Ok(Some(group))
    }
}

impl Iterator for CandidateReader {
    type Item = Result<CandidateGroup>;

    fn next(&mut self) -> Option<Self::Item> {
        self.group().transpose()
    }
}

/// Facts about a file of candidates that has been read.
pub(crate) struct CandidateSurvey {
    /// Hash of the file.
    pub(crate) hash: String,
    /// Number of prompts.
    pub(crate) groups: u64,
    /// Number of rows that are left out, since they are no objects or no text.
    pub(crate) unreadable: u64,
    /// Form of the prompts, and what they have beside role and content of turns.
    pub(crate) layout: Layout,
    /// Whether a prompt has several right answers.
    pub(crate) several_answers: bool,
    /// Facts that the user should read.
    pub(crate) notices: Vec<String>,
}

/// Reads a file of candidates once.
pub(crate) fn survey(path: &Path) -> Result<CandidateSurvey> {
    survey_with(path, |_| {})
}

/// As [`survey`]; `each` sees every group.
pub(crate) fn survey_with(path: &Path, mut each: impl FnMut(&CandidateGroup)) -> Result<CandidateSurvey> {
    let (mut groups, mut layout, mut several_answers) = (0, Layout::from(Form::Messages), false);
    let mut reader = CandidateReader::open(path)?;
    for group in reader.by_ref() {
        let group = group?;
        each(&group);
        let CandidateGroup { prompt, rows } = group;
        layout.form = prompt.prompt.form();
        layout.add_text(&prompt.prompt);
        layout.add_inputs(&prompt.inputs);
        // Files of others may have another answer in each row.
        several_answers |= rows.iter().filter_map(|row| row.answer.as_ref()).any(Answer::is_several);
        groups += 1;
    }
    let (unreadable, notices) = (reader.unreadable(), reader.notices());
    Ok(CandidateSurvey {
        hash: simplemix_files::hash_file(path)?,
        groups,
        unreadable,
        layout,
        several_answers,
        notices,
    })
}

/// Rows in each batch written.
const BATCH_ROWS: usize = 1024;

/// Writes a file of candidates.
pub(crate) struct CandidateWriter {
    path: PathBuf,
    table: TableWriter,
    schema: SchemaRef,
    /// Whether the table has its columns, which a batch brings.
    has_columns: bool,
    rows: Vec<Value>,
    /// Whether the column of answers holds lists.
    several_answers: bool,
}

impl CandidateWriter {
    /// Creates the file for prompts of this layout, with lists of answers where there are `several_answers`, and with these columns
    /// of scores.
    pub(crate) fn create(path: &Path, layout: Layout, several_answers: bool, scores: &[String]) -> Result<Self> {
        check_output(path)?;
        let table = TableWriter::create(path, &WriteOptions::default())?;
        let schema = schema_of(layout, several_answers, scores);
        Ok(Self { path: path.to_path_buf(), table, schema, has_columns: false, rows: Vec::new(), several_answers })
    }

    pub(crate) fn write(&mut self, row: &CandidateRow) -> Result<()> {
        let mut cells = serde_json::to_value(row).expect("a row is numbers and text, which JSON holds");
        cells["prompt"] = schema::cells_of(&row.prompt);
        if let Some(answer) = row.answer.as_ref().filter(|_| self.several_answers) {
            cells["answer"] = answer.all().into();
        }
        for (name, text) in row.inputs.cells() {
            cells[name] = text.into();
        }
        for (name, score) in &row.scores {
            cells[name] = (*score).into();
        }
        self.rows.push(cells);
        if self.rows.len() == BATCH_ROWS { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        let failed = |source| Error::Arrow { path: self.path.clone(), source };
        let mut decoder = ReaderBuilder::new(self.schema.clone()).build_decoder().map_err(failed)?;
        decoder.serialize(&self.rows).map_err(failed)?;
        if let Some(batch) = decoder.flush().map_err(failed)? {
            self.table.write_batch(&batch)?;
            self.has_columns = true;
        }
        self.rows.clear();
        Ok(())
    }

    /// Completes the file and adds `remarks` to its metadata.
    pub(crate) fn finish(mut self, remarks: impl IntoIterator<Item = (&'static str, String)>) -> Result<u64> {
        self.flush()?;
        if !self.has_columns {
            // A file without rows has its columns too.
            self.table.write_batch(&RecordBatch::new_empty(self.schema.clone()))?;
        }
        for (key, value) in remarks {
            self.table.add_metadata(key, value);
        }
        Ok(self.table.finish()?)
    }
}

/// Endings of files of candidates: those of the writer. JSON lines cannot hold the key of the work, so that a file that is
/// there is never known to be the one that is asked for.
const ENDINGS: [&str; 10] = [
    ".parquet",
    ".arrow",
    ".ipc",
    ".feather",
    ".jsonl",
    ".ndjson",
    ".jsonl.gz",
    ".ndjson.gz",
    ".jsonl.zst",
    ".ndjson.zst",
];

/// Checks that the name of the output names a format.
pub(crate) fn check_output(path: &Path) -> Result<()> {
    let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    if ENDINGS.iter().any(|ending| name.ends_with(ending)) {
        return Ok(());
    }
    let found = path.display().to_string();
    Err(Error::Setting { key: "output", found, expected: "a name that ends in .parquet, .arrow or .jsonl" })
}

fn schema_of(layout: Layout, several_answers: bool, scores: &[String]) -> SchemaRef {
    let inputs = layout.inputs.clone();
    let canonical = schema::schema(layout);
    let prompt = canonical.field(0).clone();
    let field = |name: &str, kind, nullable| Arc::new(Field::new(name, kind, nullable));
    let answer = match several_answers {
        true => DataType::List(field("item", DataType::Utf8, true)),
        false => DataType::Utf8,
    };
    let mut fields: Vec<FieldRef> = vec![
        field("prompt_id", DataType::Utf8, false),
        Arc::new(prompt),
        field("task", DataType::Utf8, true),
        field("answer", answer, true),
        field("reference", DataType::Utf8, true),
        field("sample", DataType::Int64, false),
        field("response", DataType::Utf8, true),
        field("tokens", DataType::Int64, true),
        field("logp", DataType::Float64, true),
        field("finish", DataType::Utf8, true),
        field("generator", DataType::Utf8, true),
        field("temperature", DataType::Float64, true),
        field("seed", DataType::UInt64, true),
        field("is_reference", DataType::Boolean, false),
    ];
    fields.extend(inputs.iter().filter_map(|name| canonical.field_with_name(name).ok().cloned().map(Arc::new)));
    fields.extend(scores.iter().map(|name| field(name, DataType::Float64, true)));
    Arc::new(Schema::new(fields))
}

#[cfg(test)]
mod tests {
    use super::*;
    use simplemix_data::Message;

    /// A prompt with a call, reasoning, tools and arguments.
    fn called() -> Prompt {
        let call = serde_json::json!([{"function": {"name": "die", "arguments": {"n": 1}}}]);
        let turn = Message::assistant("").with_field("tool_calls", call).with_field("reasoning_content", "Hm: \"x\"");
        let mut prompt = Prompt::new("c", Text::Messages(vec![Message::user("Roll."), turn]));
        prompt.inputs.tools = Some(serde_json::json!([{"type": "function"}]));
        prompt.inputs.arguments.insert("enable_thinking".to_owned(), false.into());
        prompt
    }

    #[test]
    fn rows_come_back_in_groups() {
        let dir = tempfile::tempdir().unwrap();
        let prompts = [
            Prompt::new("a", Text::Messages(vec![Message::user("2 + 2?")])).with_answer("4").with_reference("four"),
            Prompt::new("b", Text::Messages(vec![Message::user("\"é\"?")])).with_task("words"),
            Prompt {
                answer: Answer::of(vec!["4".into(), "four".into()]),
                ..Prompt::new("d", vec![Message::user("2 + 2?")])
            },
            called(),
        ];
        let mut rows = Vec::new();
        for prompt in &prompts {
            for sample in 0..2 {
                let mut row = CandidateRow::new(prompt, sample, (sample == 0).then(|| "response\n".to_owned()));
                (row.tokens, row.logp, row.finish) = (Some(3), Some(-0.1 - 1e-17), Some(Finish::Other("abort".into())));
                (row.generator, row.temperature, row.seed) = (Some("m".into()), Some(0.7), Some(u64::MAX));
                row.scores = [("score".to_owned(), Some(0.1 + 0.2)), ("score_x".to_owned(), None)].into();
                rows.push(row);
            }
        }
        for name in ["c.parquet", "c.arrow", "c.jsonl", "c.jsonl.gz"] {
            let path = dir.path().join(name);
            let mut layout = Layout::from(Form::Messages);
            prompts.iter().for_each(|prompt| {
                layout.add_text(&prompt.prompt);
                layout.add_inputs(&prompt.inputs);
            });
            let mut writer = CandidateWriter::create(&path, layout, true, &["score".into(), "score_x".into()]).unwrap();
            rows.iter().for_each(|row| writer.write(row).unwrap());
            assert_eq!(writer.finish([]).unwrap(), 8);
            let groups: Vec<CandidateGroup> = CandidateReader::open(&path).unwrap().map(Result::unwrap).collect();
            assert_eq!(groups.iter().map(|group| &group.prompt).collect::<Vec<_>>(), prompts.each_ref());
            let read: Vec<CandidateRow> = groups.into_iter().flat_map(|group| group.rows).collect();
            assert_eq!(read, rows);
        }
    }

    #[test]
    fn files_of_others_need_two_columns() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.jsonl");
        std::fs::write(&path, "{\"prompt\": \"x\", \"response\": \"1\"}\n{\"prompt\": \"x\", \"response\": \"2\"}")
            .unwrap();
        let groups: Vec<CandidateGroup> = CandidateReader::open(&path).unwrap().map(Result::unwrap).collect();
        assert_eq!((groups.len(), groups[0].rows.len()), (1, 2));
        std::fs::write(&path, "{\"prompt\": \"x\", \"text\": \"1\"}").unwrap();
        let error = CandidateReader::open(&path).unwrap_err().to_string();
        assert!(error.contains("columns prompt, text, expected `prompt` and `response`"), "{error}");
        let foreign =
            r#"{"prompt": "x", "response": null, "answer": 4, "finish": "eos_token", "seed": -1, "sample": null}
            {"prompt": "x", "response": 5, "answer": [4], "finish": null, "seed": 18446744073709551615, "tokens": "7",
             "score": " 0.5 ", "reward_model": "r"}"#
                .replace("\n             ", " ");
        std::fs::write(&path, foreign.lines().map(str::trim).collect::<Vec<_>>().join("\n")).unwrap();
        let group = CandidateReader::open(&path).unwrap().next().unwrap().unwrap();
        assert_eq!(group.prompt.answer, Some("4".into()));
        let notices = survey(&path).unwrap().notices;
        assert!(notices.len() == 1 && notices[0].ends_with("left out: reward_model"), "{notices:?}");
        let [first, second] = &group.rows[..] else { panic!("{group:?}") };
        assert_eq!((&first.response, first.seed, first.finish.as_ref().unwrap().name()), (&None, None, "eos_token"));
        assert_eq!((second.response.as_deref(), second.seed, &second.finish), (Some("5"), Some(u64::MAX), &None));
        assert_eq!((second.tokens, second.scores["score"]), (Some(7), Some(0.5)));
        std::fs::write(&path, r#"{"prompt": "x", "response": "1", "finish_reason": "length", "tokens": 3.0}"#).unwrap();
        let row = CandidateReader::open(&path).unwrap().next().unwrap().unwrap().rows.remove(0);
        assert_eq!((row.finish, row.tokens), (Some(Finish::Length), Some(3)));
        assert_eq!(survey(&path).unwrap().notices, Vec::<String>::new());
        let odd = r#"{"prompt": "x", "response": "\ud83d"}
{"prompt": "x", "response": "4", "answer": [4], "score": " 0.5", "score_a": "N/A"}"#;
        std::fs::write(&path, odd).unwrap();
        let mut reader = CandidateReader::open(&path).unwrap();
        let group = reader.next().unwrap().unwrap();
        assert_eq!((group.rows.len(), reader.unreadable(), group.prompt.answer), (1, 1, Some("4".into())));
        assert_eq!((group.rows[0].scores["score"], group.rows[0].scores["score_a"]), (Some(0.5), None));
        let apart = ["x", "y", "x"].map(|p| format!("{{\"prompt\": \"{p}\", \"response\": \"1\"}}")).join("\n");
        std::fs::write(&path, apart).unwrap();
        let last = CandidateReader::open(&path).unwrap().last().unwrap();
        assert!(last.unwrap_err().to_string().contains("row 2: rows of prompt"));
    }
}
