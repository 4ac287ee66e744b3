//! Columns that look like a part of the prompt and that the format does not read.
//!
//! Without them a model would be trained on other prompts than the file has. A column whose texts are in the pair already,
//! such as `messages` beside a chosen side that repeats them, is no such column.

use std::path::Path;

use crate::cell::{Cell, Struct};
use crate::draft::{Draft, DraftText};
use crate::error::{Error, Result};
use crate::format::kind::{Columns, Kind};
use crate::format::labelled::QUESTIONS;
use crate::format::meta::Beside;
use crate::format::table::Shape;
use crate::format::{Format, RankedRule};
use crate::problem::Problem;

/// Words in the name of a column that belongs to the prompt.
const PROMPT_WORDS: [&str; 22] = [
    "system",
    "instruction",
    "instructions",
    "query",
    "question",
    "context",
    "history",
    "message",
    "messages",
    "trajectory",
    "conversation",
    "conversations",
    "dialog",
    "dialogs",
    "dialogue",
    "dialogues",
    "input",
    "inputs",
    "passage",
    "background",
    "persona",
    "preamble",
];

/// Words in the name of a column that is about a prompt, such as its id.
const ABOUT_WORDS: [&str; 31] = [
    "id",
    "ids",
    "idx",
    "index",
    "uuid",
    "hash",
    "type",
    "kind",
    "category",
    "lang",
    "language",
    "source",
    "count",
    "num",
    "len",
    "length",
    "tokens",
    "name",
    "score",
    "scores",
    "rating",
    "ratings",
    "model",
    "models",
    "template",
    "url",
    "time",
    "timestamp",
    "date",
    "level",
    "domain",
];

/// Words in the name of a column that belongs to the responses or to their comparison.
const RESPONSE_WORDS: [&str; 37] = [
    "chosen",
    "rejected",
    "response",
    "responses",
    "completion",
    "completions",
    "answer",
    "answers",
    "output",
    "outputs",
    "generation",
    "generations",
    "generated",
    "reference",
    "solution",
    "solutions",
    "truth",
    "target",
    "label",
    "labels",
    "reason",
    "reasons",
    "rationale",
    "rationales",
    "explanation",
    "feedback",
    "critique",
    "comment",
    "comments",
    "judgement",
    "judgment",
    "annotation",
    "annotations",
    "labelling",
    "error",
    "license",
    "metadata",
];

/// Formats that find the prompt inside `chosen` and `rejected`: any further prose may be the prompt.
const WITHOUT_PROMPT: [Format; 3] = [Format::ImplicitText, Format::ImplicitMessages, Format::HhTranscripts];

/// Columns to look at in every row, since the sample does not show that they can be left aside.
#[derive(Debug, Default)]
pub(crate) struct Unread {
    /// The format whose columns are looked at; `None` if the caller named the format.
    format: Option<Format>,
    /// Columns that the format reads, or that repeat what is in the pair.
    settled: Vec<String>,
}

impl Unread {
    /// Looks at the columns of a sample.
    ///
    /// # Errors
    /// [`Error::UnreadColumn`] if more than half of the rows say something in a column of the prompt that is not read.
    pub(crate) fn find<'a>(
        format: Format,
        columns: &Columns,
        rows: impl Iterator<Item = Struct<'a>> + Clone,
        path: &Path,
    ) -> Result<Self> {
        let mut settled = Vec::new();
        for (name, kind) in columns.iter() {
            if is_read(format, columns, name) {
                settled.push(name.to_owned());
                continue;
            }
            let prose = WITHOUT_PROMPT.contains(&format) && may_be_prompt(name, kind, rows.clone());
            if !is_prompt(name) && !prose {
                settled.push(name.to_owned());
                continue;
            }
            let (spoken, unread) = counts(format, name, rows.clone());
            if 2 * unread > spoken {
                return Err(Error::UnreadColumn {
                    path: path.to_path_buf(),
                    column: name.to_owned(),
                    format,
                    columns: columns.describe(),
                    advice: advice(format, columns, name),
                });
            }
            if spoken > 0 && unread == 0 {
                settled.push(name.to_owned());
            }
        }
        Ok(Self { format: matches!(format.shape(), Shape::Row).then_some(format), settled })
    }

    /// Whether the column has to be decoded to be looked at.
    pub(crate) fn watches(&self, column: &str) -> bool {
        self.format.is_some_and(|format| !format.reads(column))
            && !self.settled.iter().any(|settled| settled == column)
            && is_prompt(column)
    }

    /// Checks that a row says nothing that its pairs lack in the columns `watched`.
    ///
    /// # Errors
    /// [`Problem::UnreadColumn`].
    pub(crate) fn check(watched: &[String], row: Struct<'_>, pairs: &[Draft<'_>]) -> Result<(), Problem> {
        let unread = |name: &String| {
            let cell = row.get(name);
            speaks(cell) && !pairs.iter().all(|pair| repeats(cell, pair))
        };
        if watched.iter().any(unread) { Err(Problem::UnreadColumn) } else { Ok(()) }
    }
}

/// Way to have a column read that the format does not read.
fn advice(format: Format, columns: &Columns, name: &str) -> String {
    let map = |line: String| format!("have it read with --map, a TOML file with the line {line}");
    let question = QUESTIONS.into_iter().find(|name| columns.kind(name).speaks());
    match question {
        _ if WITHOUT_PROMPT.contains(&format) => map(format!("prompt = \"{name}\"")),
        // LLaMA-Factory's pairs of turns, which the format alpaca-ranking reads.
        Some(question) if name == "history" && [Format::ExplicitText, Format::Orca].contains(&format) => {
            map(format!("instruction = \"{question}\""))
        }
        _ => "put its text into the prompt".to_owned(),
    }
}

/// Whether the format reads the column, given the others.
fn is_read(format: Format, columns: &Columns, name: &str) -> bool {
    if format == Format::Orca && QUESTIONS.contains(&name) {
        return QUESTIONS.iter().find(|name| columns.kind(name).speaks()) == Some(&name);
    }
    let is_system = super::meta::SYSTEM.contains(&name);
    format.reads(name) && (!is_system || columns.kind(name).is_text())
}

/// Lower-case words of a name such as `chat_history`, `chat-history` or `chatHistory`.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before = ' ';
    for c in name.chars() {
        if !c.is_alphanumeric() || c.is_uppercase() && before.is_lowercase() {
            words.push(String::new());
        }
        if c.is_alphanumeric()
            && let Some(word) = words.last_mut()
        {
            word.extend(c.to_lowercase());
        }
        before = c;
    }
    words
}

/// Whether the name says that the column is the prompt or a part of it.
fn is_prompt(name: &str) -> bool {
    name == "prompt" || belongs_to_prompt(name)
}

/// Whether a column of this name, such as `context`, `chat_history` or `system`, belongs to the prompt beside the column that
/// holds it.
///
/// ```
/// use simplemix_data::belongs_to_prompt;
/// assert!(belongs_to_prompt("chat_history") && !belongs_to_prompt("question_id"));
/// ```
pub fn belongs_to_prompt(name: &str) -> bool {
    let words = words(name);
    let has = |list: &[&str]| words.iter().any(|word| list.contains(&word.as_str()));
    has(&PROMPT_WORDS) && !has(&ABOUT_WORDS) && !has(&RESPONSE_WORDS)
}

/// Whether the column holds prose, different in most rows, that is not named as a part of the responses.
fn may_be_prompt<'a>(name: &str, kind: &Kind, rows: impl Iterator<Item = Struct<'a>>) -> bool {
    let words = words(name);
    let about = |list: &[&str]| words.iter().any(|word| list.contains(&word.as_str()));
    if !(kind.speaks() || kind.is_messages()) || about(&ABOUT_WORDS) || about(&RESPONSE_WORDS) {
        return false;
    }
    let texts: Vec<String> = rows.map(|row| texts(row.get(name)).join("\n")).filter(|text| !text.is_empty()).collect();
    let prose = texts.iter().filter(|text| text.split_whitespace().nth(1).is_some()).count();
    let different: std::collections::BTreeSet<&String> = texts.iter().collect();
    2 * prose > texts.len() && 2 * different.len() > texts.len()
}

/// Number of rows that say something in the column, and of those whose pair lacks it.
fn counts<'a>(format: Format, name: &str, rows: impl Iterator<Item = Struct<'a>>) -> (usize, usize) {
    let (mut spoken, mut unread) = (0, 0);
    let mut pairs = Vec::new();
    for row in rows {
        let cell = row.get(name);
        if !speaks(cell) {
            continue;
        }
        spoken += 1;
        pairs.clear();
        let parsed = format.drafts(row, RankedRule::default(), Beside::ANY, &mut pairs).is_ok();
        unread += usize::from(!parsed || !pairs.iter().all(|pair| repeats(cell, pair)));
    }
    (spoken, unread)
}

/// Whether a cell holds any text.
fn speaks(cell: Cell<'_>) -> bool {
    !texts(cell).is_empty()
}

/// Texts in a cell that are not blank, also those of nested values, without the roles of turns.
fn texts(cell: Cell<'_>) -> Vec<&str> {
    match cell {
        Cell::Str(text) if !text.trim().is_empty() => vec![text.trim()],
        Cell::List(list) => list.iter().flat_map(texts).collect(),
        Cell::Struct(fields) => {
            let said = fields.names().into_iter().filter(|name| !["role", "from"].contains(name));
            said.flat_map(|name| texts(fields.get(name))).collect()
        }
        _ => Vec::new(),
    }
}

/// Whether the pair has every text of the cell. Of several texts the last may be missing, since it may be a response that is
/// neither chosen nor rejected.
fn repeats(cell: Cell<'_>, pair: &Draft<'_>) -> bool {
    let mut said = texts(cell);
    if said.len() > 1 {
        said.pop();
    }
    let sides = [&pair.prompt, &pair.chosen, &pair.rejected];
    said.into_iter().all(|text| sides.iter().any(|side| has(side, text)))
}

fn has(side: &DraftText<'_>, text: &str) -> bool {
    match side {
        DraftText::Plain(side) => side.contains(text),
        DraftText::Messages(turns) => turns.iter().any(|turn| turn.content.contains(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_prompts_are_told_from_names_about_them() {
        for (name, belongs) in [
            ("system", true),
            ("system-prompt", true),
            ("chatHistory", true),
            ("Context", true),
            ("query", true),
            ("prompt_id", false),
            ("conversation_id", false),
            ("question_type", false),
            ("error_message", false),
            ("labelling_prompt", false),
            ("chosen_messages", false),
            ("ecosystem", false),
        ] {
            assert_eq!(is_prompt(name), belongs, "{name}");
        }
    }
}
