//! Prompts from files: of preference pairs in any format that simplemix-data reads, or of prompts.
//!
//! A file of prompts has a column `prompt` (text or messages), `messages`, `question` or `instruction` (with `input`, as
//! Alpaca has it), and may have `id`, `task` (or `category`), `answer` and `reference`. Of a pair the chosen response is
//! the reference.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use simplemix_data::{ExtraColumns, Form, Message, Pair, PairReader, ReadOptions, RowReader, Text, schema};

use crate::error::{Error, Result};
use crate::generator::Prompt;

/// Which prompts are taken, and in which form.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PromptSettings {
    /// Files.
    pub files: Vec<PathBuf>,
    /// The first so many; all if none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// A system message before every prompt that has none; makes messages of bare text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// Make messages of bare text.
    pub messages: bool,
}

/// What a file of prompts holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Survey {
    pub(crate) prompts: u64,
    /// Rows whose prompt had come before.
    pub(crate) repeated: u64,
    /// Prompts with a right answer.
    pub(crate) answers: u64,
    /// Prompts with a response by someone else.
    pub(crate) references: u64,
    pub(crate) plain: bool,
    /// Hash of all prompts, with what scorers need.
    pub(crate) hash: String,
}

impl PromptSettings {
    /// Number of different prompts.
    ///
    /// # Errors
    /// What reading the files reports.
    pub fn count(&self) -> Result<u64> {
        Ok(self.survey()?.prompts)
    }

    /// The different prompts, in order.
    ///
    /// # Errors
    /// What reading the files reports.
    pub fn prompts(&self) -> Result<Vec<Prompt>> {
        self.read().collect()
    }

    /// Goes through all prompts once.
    pub(crate) fn survey(&self) -> Result<Survey> {
        let mut hasher = blake3::Hasher::new();
        let (mut prompts, mut answers, mut references) = (0, 0, 0);
        let (mut plain, mut messages) = (false, None);
        let mut reader = self.read();
        for prompt in reader.by_ref() {
            let prompt = prompt?;
            prompts += 1;
            answers += u64::from(prompt.answer.is_some());
            references += u64::from(prompt.reference.is_some());
            match prompt.prompt.form() {
                Form::Plain => plain = true,
                Form::Messages => messages = messages.or_else(|| Some(prompt.id.clone())),
            }
            let line = serde_json::to_vec(&prompt).unwrap_or_default();
            hasher.update(&(line.len() as u64).to_le_bytes()).update(&line);
        }
        if prompts == 0 {
            let path = self.files.first().cloned().unwrap_or_default();
            return Err(simplemix_data::Error::NoInput { path, expected: "prompts" }.into());
        }
        if let (true, Some(id)) = (plain, messages) {
            let found = format!("bare text beside messages, such as prompt `{id}`");
            return Err(Error::Setting { key: "messages", found, expected: "prompts of one form, or true" });
        }
        let (repeated, hash) = (reader.repeated, hasher.finalize().to_hex().to_string());
        Ok(Survey { prompts, repeated, answers, references, plain, hash })
    }

    /// All prompts, in order.
    pub(crate) fn read(&self) -> Prompts<'_> {
        Prompts {
            settings: self,
            files: self.files.iter(),
            rows: None,
            seen: HashMap::new(),
            left: self.limit.unwrap_or(u64::MAX),
            repeated: 0,
        }
    }

    fn shaped(&self, prompt: Text) -> Text {
        let turns = match prompt {
            Text::Plain(text) if !self.messages && self.system.is_none() => return Text::Plain(text),
            Text::Plain(text) => vec![Message::user(text)],
            Text::Messages(turns) => turns,
        };
        let missing = |_: &&String| turns.first().is_none_or(|turn| turn.role != "system");
        let system = self.system.as_ref().filter(missing).map(Message::system);
        Text::Messages(system.into_iter().chain(turns).collect())
    }
}

/// Reads prompts; one that comes again, under the same name, is left out and counted.
pub(crate) struct Prompts<'a> {
    settings: &'a PromptSettings,
    files: std::slice::Iter<'a, PathBuf>,
    rows: Option<Rows>,
    /// Hash of each prompt by hash of its id.
    seen: HashMap<[u8; 16], [u8; 16]>,
    left: u64,
    repeated: u64,
}

/// The prompts of one file, with their rows.
type Rows = Box<dyn Iterator<Item = Result<(u64, Prompt)>>>;

impl Prompts<'_> {
    fn next_prompt(&mut self) -> Result<Option<Prompt>> {
        while self.left > 0 {
            let Some(rows) = &mut self.rows else {
                let Some(file) = self.files.next() else { return Ok(None) };
                self.rows = Some(open(file)?);
                continue;
            };
            let Some(row) = rows.next() else {
                self.rows = None;
                continue;
            };
            let (row, mut prompt) = row?;
            prompt.prompt = self.settings.shaped(prompt.prompt);
            let (name, text) = (short_hash(&prompt.id), short_hash(&text_of(&prompt.prompt)));
            match self.seen.insert(name, text) {
                None => {
                    self.left -= 1;
                    return Ok(Some(prompt));
                }
                Some(before) if before == text => self.repeated += 1,
                Some(_) => {
                    let path = self.settings.files.get(self.settings.files.len() - self.files.len() - 1);
                    return Err(Error::Row {
                        path: path.cloned().unwrap_or_default(),
                        row,
                        found: format!("id `{}` a second time, with another prompt", prompt.id),
                        expected: "ids that name one prompt each".to_owned(),
                    });
                }
            }
        }
        Ok(None)
    }
}

impl Iterator for Prompts<'_> {
    type Item = Result<Prompt>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_prompt().transpose()
    }
}

fn short_hash(text: &str) -> [u8; 16] {
    let mut short = [0; 16];
    short.copy_from_slice(&blake3::hash(text.as_bytes()).as_bytes()[..16]);
    short
}

fn text_of(text: &Text) -> String {
    serde_json::to_string(text).unwrap_or_default()
}

/// The name of a prompt that has none: 32 hex digits of its content's hash.
pub(crate) fn prompt_id(prompt: &Text) -> String {
    let mut hex = blake3::hash(text_of(prompt).as_bytes()).to_hex().to_string();
    hex.truncate(32);
    hex
}

fn open(path: &Path) -> Result<Rows> {
    let reader = RowReader::open(path)?;
    if reader.holds_pairs() {
        return pairs(path);
    }
    let Some(column) = ["prompt", "messages", "question", "instruction"]
        .into_iter()
        .find(|name| reader.columns().iter().any(|column| column == name))
    else {
        return Err(Error::Columns {
            path: path.to_path_buf(),
            found: reader.columns().join(", "),
            expected: "preference pairs, or a column `prompt`, `messages`, `question` or `instruction`",
        });
    };
    let path = path.to_path_buf();
    Ok(Box::new(reader.enumerate().map(move |(row, cells)| {
        let row = row as u64;
        let wrong = |found: String, expected: &str| Error::Row {
            path: path.clone(),
            row,
            found,
            expected: expected.to_owned(),
        };
        Ok((row, prompt_of_row(&cells?, column, &wrong)?))
    })))
}

fn pairs(path: &Path) -> Result<Rows> {
    let mut options = ReadOptions::default();
    options.extra_columns = ExtraColumns::Drop;
    let reader = PairReader::open(path, &options)?;
    let mut row = 0;
    Ok(Box::new(reader.flat_map(move |batch| {
        let pairs = batch.and_then(|batch| schema::pairs_from_batch(&batch));
        let prompts: Vec<Result<(u64, Prompt)>> = match pairs {
            Err(error) => vec![Err(error.into())],
            Ok(pairs) => pairs.into_iter().zip(row..).map(|(pair, row)| Ok((row, prompt_of_pair(pair)))).collect(),
        };
        row += prompts.len() as u64;
        prompts
    })))
}

fn prompt_of_pair(pair: Pair) -> Prompt {
    let reference = match pair.chosen {
        Text::Plain(text) => Some(text),
        // More turns than one are no answer to the prompt alone.
        Text::Messages(mut turns) if turns.len() == 1 => turns.pop().map(|turn| turn.content),
        Text::Messages(_) => None,
    };
    Prompt { id: prompt_id(&pair.prompt), task: pair.task, answer: None, reference, prompt: pair.prompt }
}

fn prompt_of_row(
    cells: &Map<String, Value>,
    column: &'static str,
    wrong: &dyn Fn(String, &str) -> Error,
) -> Result<Prompt> {
    let value = cells.get(column).unwrap_or(&Value::Null);
    let shown = || format!("`{column}` {}", value.to_string().chars().take(60).collect::<String>());
    let text: Text = serde_json::from_value(value.clone())
        .map_err(|_| wrong(shown(), "text, or messages with `role` and `content`"))?;
    let mut text = match (text, cells.get("input").and_then(Value::as_str)) {
        (Text::Plain(text), Some(input)) if column == "instruction" && !input.is_empty() => {
            Text::Plain(format!("{text}\n\n{input}"))
        }
        (text, _) => text,
    };
    if let Text::Messages(turns) = &mut text
        && column == "messages"
        && turns.last().is_some_and(|turn| turn.role == "assistant")
    {
        turns.pop();
    }
    if text.is_blank() {
        return Err(wrong(shown(), "a prompt that is not blank"));
    }
    let scalar = |name: &str| match cells.get(name) {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Number(number)) => Some(number.to_string()),
        _ => None,
    };
    Ok(Prompt {
        id: scalar("id").or_else(|| scalar("prompt_id")).unwrap_or_else(|| prompt_id(&text)),
        task: scalar("task").or_else(|| scalar("category")),
        answer: scalar("answer"),
        reference: scalar("reference"),
        prompt: text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(dir: &Path, name: &str, text: &str) -> PromptSettings {
        std::fs::write(dir.join(name), text).unwrap();
        PromptSettings { files: vec![dir.join(name)], ..PromptSettings::default() }
    }

    fn all(settings: &PromptSettings) -> Vec<Prompt> {
        settings.read().collect::<Result<_>>().unwrap()
    }

    #[test]
    fn files_of_prompts_and_of_pairs_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let rows = concat!(
            r#"{"id": 7, "prompt": [{"role": "user", "content": "2 + 2?"}], "answer": 4, "category": "math"}"#,
            "\n",
            r#"{"id": "b", "prompt": [{"role": "user", "content": "1 + 2?"}], "answer": "3"}"#,
        );
        let of_prompts = settings(dir.path(), "p.jsonl", rows);
        let prompts = all(&of_prompts);
        assert_eq!((prompts[0].id.as_str(), prompts[0].task.as_deref()), ("7", Some("math")));
        assert_eq!((prompts[0].answer.as_deref(), prompts[1].answer.as_deref()), (Some("4"), Some("3")));
        let survey = of_prompts.survey().unwrap();
        assert_eq!((survey.prompts, survey.answers, survey.plain), (2, 2, false));

        let pairs = r#"[{"prompt": "q", "chosen": " good", "rejected": " bad"},
                        {"prompt": "q", "chosen": " better", "rejected": " bad"},
                        {"prompt": "r", "chosen": " good", "rejected": " bad"}]"#;
        let of_pairs = settings(dir.path(), "pairs.json", pairs);
        let prompts = all(&of_pairs);
        assert_eq!(prompts.len(), 2);
        assert_eq!(prompts[0].reference.as_deref(), Some(" good"));
        assert_eq!(of_pairs.survey().unwrap().repeated, 1);
        let limited = PromptSettings { limit: Some(1), system: Some("Be brief.".into()), ..of_pairs };
        let turns = vec![Message::system("Be brief."), Message::user("q")];
        assert_eq!(all(&limited)[0].prompt, Text::Messages(turns));
    }

    #[test]
    fn other_columns_hold_prompts_too() {
        let dir = tempfile::tempdir().unwrap();
        let gsm = settings(dir.path(), "g.jsonl", r##"{"question": "2 + 2?", "answer": "2 + 2 = 4\n#### 4"}"##);
        assert_eq!(all(&gsm)[0].prompt, "2 + 2?".into());
        let alpaca = settings(dir.path(), "a.jsonl", r#"{"instruction": "Add.", "input": "2, 2", "output": "4"}"#);
        assert_eq!(all(&alpaca)[0].prompt, "Add.\n\n2, 2".into());
        let chat = r#"{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}"#;
        let chat = settings(dir.path(), "c.jsonl", chat);
        assert_eq!(all(&chat)[0].prompt, Text::Messages(vec![Message::user("hi")]));
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = |name: &str, text: &str| settings(dir.path(), name, text).survey().unwrap_err().to_string();
        let twice = "{\"id\": \"a\", \"prompt\": \"x\"}\n{\"id\": \"a\", \"prompt\": \"y\"}";
        assert!(error("twice.jsonl", twice).contains("row 1: id `a` a second time, with another prompt"));
        assert!(error("blank.jsonl", r#"{"prompt": " "}"#).contains("row 0: `prompt` \" \""));
        assert!(error("other.jsonl", r#"{"text": "x"}"#).contains("columns text, expected preference pairs"));
        assert!(error("kind.jsonl", r#"{"prompt": 5}"#).contains("row 0: `prompt` 5, expected text"));
        let mixed = "{\"prompt\": \"x\"}\n{\"prompt\": [{\"role\": \"user\", \"content\": \"y\"}]}";
        assert!(error("mixed.jsonl", mixed).contains("`messages` is bare text beside messages"));
    }
}
