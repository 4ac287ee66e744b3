//! Prompts of one file, row by row: of a file of prompts, or of preference pairs.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use simplemix_data::{
    ExtraColumns, Form, Message, Pair, PairReader, Problem, Problems, ReadOptions, RowReader, TemplateInputs, Text,
    belongs_to_prompt, schema,
};

use crate::answer::Answer;
use crate::error::{Error, Result};
use crate::generator::Prompt;
use crate::prompts::prompt_id;

/// Reader of the prompts of one file.
pub(crate) struct PromptRows {
    path: PathBuf,
    rows: Rows,
    /// Rows of a file of prompts whose prompt is missing.
    missing: Problems,
}

enum Rows {
    /// A file of prompts, in this column.
    Prompts(Box<RowReader>, &'static str),
    /// A file of pairs, those that wait, and the number of the next one.
    Pairs(Box<PairReader>, VecDeque<Pair>, u64),
}

impl PromptRows {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let reader = RowReader::open(path)?;
        let of = |rows| Ok(Self { path: path.to_path_buf(), rows, missing: Problems::default() });
        if reader.holds_pairs() {
            let mut options = ReadOptions::default();
            options.extra_columns = ExtraColumns::Drop;
            return of(Rows::Pairs(Box::new(PairReader::open(path, &options)?), VecDeque::new(), 0));
        }
        let columns = ["prompt", "messages", "question", "instruction"];
        match columns.into_iter().find(|name| reader.columns().iter().any(|column| column == name)) {
            Some(column) => of(Rows::Prompts(Box::new(reader), column)),
            None => Err(Error::Columns {
                path: path.to_path_buf(),
                found: reader.columns().join(", "),
                expected: "preference pairs, or a column `prompt`, `messages`, `question` or `instruction`",
            }),
        }
    }

    /// The next prompt, and the number of its row.
    pub(crate) fn next(&mut self) -> Result<Option<(u64, Prompt)>> {
        match &mut self.rows {
            Rows::Prompts(reader, column) => {
                while let Some(cells) = reader.next().transpose()? {
                    let row = reader.row();
                    let wrong = |found: String, expected: &str| Error::Row {
                        path: self.path.clone(),
                        row,
                        found,
                        expected: expected.to_owned(),
                    };
                    match prompt_of_row(&cells, column, &wrong)? {
                        Some(prompt) => return Ok(Some((row, prompt))),
                        None => self.missing.add(Problem::EmptyPrompt, row),
                    }
                }
                Ok(None)
            }
            Rows::Pairs(reader, waiting, number) => {
                while waiting.is_empty() {
                    let Some(batch) = reader.next().transpose()? else { return Ok(None) };
                    waiting.extend(schema::pairs_from_batch(&batch)?);
                }
                *number += 1;
                Ok(waiting.pop_front().map(|pair| (*number - 1, prompt_of_pair(pair))))
            }
        }
    }

    /// A sentence about the rows so far that hold no prompt; `None` if there are none.
    pub(crate) fn refused(&self) -> Option<String> {
        let read = match &self.rows {
            Rows::Prompts(reader, _) => reader.refused(),
            Rows::Pairs(reader, ..) => &reader.report().refused,
        };
        let parts = [&self.missing, read];
        let total: u64 = parts.iter().map(|problems| problems.total()).sum();
        let reasons: Vec<String> =
            parts.iter().filter(|problems| !problems.is_empty()).map(ToString::to_string).collect();
        (total > 0).then(|| format!("{}: {total} rows hold no prompt: {}", self.path.display(), reasons.join(", ")))
    }
}

fn prompt_of_pair(pair: Pair) -> Prompt {
    let reference = match pair.chosen {
        Text::Plain(text) => Some(text),
        // A response of several turns does not answer the prompt alone.
        Text::Messages(mut turns) if turns.len() == 1 && turns[0].fields.is_empty() => {
            turns.pop().map(|turn| turn.content)
        }
        Text::Messages(_) => None,
    };
    let id = prompt_id(&pair.prompt, &pair.inputs);
    Prompt { id, task: pair.task, answer: None, reference, prompt: pair.prompt, inputs: pair.inputs }
}

/// The prompt of a row; `None` if it is null or blank.
fn prompt_of_row(
    cells: &Map<String, Value>,
    column: &'static str,
    wrong: &dyn Fn(String, &str) -> Error,
) -> Result<Option<Prompt>> {
    let value = cells.get(column).unwrap_or(&Value::Null);
    let shown =
        |column: &str, value: &Value| format!("`{column}` {}", value.to_string().chars().take(60).collect::<String>());
    if value.is_null() {
        return Ok(None);
    }
    let text: Text = serde_json::from_value(value.clone())
        .map_err(|_| wrong(shown(column, value), "text, or messages with `role` and `content`"))?;
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
        return Ok(None);
    }
    let text = with_system(text, cells);
    if let Some((name, value)) = unread(cells, column, &text) {
        return Err(wrong(
            shown(name, value),
            "no further part of the prompt; put it into the prompt, or drop the column",
        ));
    }
    let inputs = match text.form() {
        Form::Plain => TemplateInputs::default(),
        Form::Messages => TemplateInputs::of_row(cells).map_err(|column| {
            let value = cells.get(column).unwrap_or(&Value::Null);
            wrong(shown(column, value), "a list of objects, or one object of arguments for the chat template")
        })?,
    };
    let scalar = |name: &str| cells.get(name).and_then(scalar_of);
    let answer = match cells.get("answer") {
        Some(Value::Array(items)) => {
            let texts = items.iter().map(scalar_of).collect::<Option<Vec<String>>>();
            Answer::of(texts.ok_or_else(|| {
                wrong(shown("answer", &cells["answer"]), "a text or number, or a list of them, any of which is right")
            })?)
        }
        _ => scalar("answer").map(Answer::from),
    };
    Ok(Some(Prompt {
        id: scalar("id").or_else(|| scalar("prompt_id")).unwrap_or_else(|| prompt_id(&text, &inputs)),
        task: scalar("task").or_else(|| scalar("category")),
        answer,
        reference: scalar("reference"),
        prompt: text,
        inputs,
    }))
}

/// A text, or a number as text.
fn scalar_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Columns of system prompts.
const SYSTEM: [&str; 3] = ["system", "system_prompt", "system_message"];

/// The prompt with the system prompt of its row as the first turn, unless it has one.
fn with_system(prompt: Text, cells: &Map<String, Value>) -> Text {
    let said = SYSTEM.iter().filter_map(|name| cells.get(*name)?.as_str()).find(|text| !text.trim().is_empty());
    let turns = match (said, prompt) {
        (None, prompt) => return prompt,
        (_, Text::Messages(turns)) if turns.first().is_some_and(|turn| turn.role == "system") => turns,
        (Some(system), Text::Messages(turns)) => [vec![Message::system(system)], turns].concat(),
        (Some(system), Text::Plain(text)) => vec![Message::system(system), Message::user(text)],
    };
    Text::Messages(turns)
}

/// The first column that belongs to a prompt by its name and says something that the prompt lacks.
fn unread<'a>(cells: &'a Map<String, Value>, column: &str, prompt: &Text) -> Option<(&'a str, &'a Value)> {
    let contents: Vec<&str> = match prompt {
        Text::Plain(text) => vec![text],
        Text::Messages(turns) => turns.iter().map(|turn| turn.content.as_str()).collect(),
    };
    let has = |text: &str| contents.iter().any(|content| content.contains(text.trim()));
    let other = cells.iter().filter(|(name, _)| *name != column && belongs_to_prompt(name));
    let mut unread = other.filter(|(_, value)| texts(value).iter().any(|text| !has(text)));
    unread.next().map(|(name, value)| (name.as_str(), value))
}

/// Texts in a value that are not blank, without the roles of turns and the model's turns.
fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) if !text.trim().is_empty() => vec![text],
        Value::Array(items) => items.iter().flat_map(texts).collect(),
        Value::Object(fields) if fields.get("role").is_some_and(|role| role == "assistant") => Vec::new(),
        Value::Object(fields) => fields
            .iter()
            .filter(|(name, _)| *name != "role" && *name != "from")
            .flat_map(|(_, value)| texts(value))
            .collect(),
        _ => Vec::new(),
    }
}
