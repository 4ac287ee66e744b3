//! Prompts from files of prompts, or from files of preference pairs in any format that simplemix-data reads.
//!
//! A file of prompts has a column `prompt` (text or messages), `messages`, `question` or `instruction` (with `input`, as in
//! Alpaca), and may have `system`, `id`, `task` (or `category`), `answer` and `reference`. An answer that is a list has several right
//! texts. If the file holds pairs, the chosen response becomes the reference. A row without a prompt is left out and counted.

use std::collections::HashMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use simplemix_data::schema::Layout;
use simplemix_data::{Form, Message, TemplateInputs, Text};

use crate::answer::Answer;
use crate::error::{Error, Result};
use crate::generator::Prompt;
use crate::journal::json;
use crate::prompt_rows::PromptRows;

/// Settings of reading prompts.
///
/// # Examples
/// ```
/// use simplemix_rollout::PromptSettings;
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("gsm8k.jsonl");
/// std::fs::write(&path, r#"{"question": "2 + 2?", "answer": "4"}"#)?;
/// let settings = PromptSettings { files: vec![path], messages: true, ..PromptSettings::default() };
/// let prompts = settings.prompts()?;
/// assert_eq!(prompts[0].answer, Some("4".into()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PromptSettings {
    /// Paths of the files.
    pub files: Vec<PathBuf>,
    /// Number of prompts to take, from the first; by default all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// System message to put before every prompt without one. Turns plain text into messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// Whether to turn plain text into messages.
    pub messages: bool,
}

/// Counts and hash of all prompts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Survey {
    pub(crate) prompts: u64,
    /// Rows whose prompt is in an earlier row.
    pub(crate) repeated: u64,
    /// Prompts with a known right answer.
    pub(crate) answers: u64,
    /// Whether a prompt has several right answers.
    pub(crate) several_answers: bool,
    /// Prompts with a reference response.
    pub(crate) references: u64,
    /// Form of the prompts, and what they have beside role and content of turns.
    pub(crate) layout: Layout,
    /// Hash of all prompts and their fields.
    pub(crate) hash: String,
    /// Sentences about rows that hold no prompt.
    pub(crate) notices: Vec<String>,
}

impl PromptSettings {
    /// Counts the distinct prompts.
    ///
    /// # Errors
    /// Any error of reading the files.
    pub fn count(&self) -> Result<u64> {
        Ok(self.survey()?.prompts)
    }

    /// Reads the distinct prompts, in order.
    ///
    /// # Errors
    /// Any error of reading the files.
    pub fn prompts(&self) -> Result<Vec<Prompt>> {
        self.read().collect()
    }

    /// Reads the distinct prompts, in order, and says for each file how many of its rows hold no prompt, and why.
    ///
    /// # Errors
    /// Any error of reading the files.
    pub fn prompts_and_notices(&self) -> Result<(Vec<Prompt>, Vec<String>)> {
        let mut reader = self.read();
        let prompts = reader.by_ref().collect::<Result<_>>()?;
        Ok((prompts, reader.notices()))
    }

    /// Reads all prompts once, for counts and hash.
    pub(crate) fn survey(&self) -> Result<Survey> {
        let mut hasher = blake3::Hasher::new();
        let (mut prompts, mut answers, mut several_answers, mut references) = (0, 0, false, 0);
        let (mut plain, mut messages, mut layout) = (false, None, Layout::from(Form::Messages));
        let mut reader = self.read();
        for prompt in reader.by_ref() {
            let prompt = prompt?;
            prompts += 1;
            answers += u64::from(prompt.answer.is_some());
            several_answers |= prompt.answer.as_ref().is_some_and(Answer::is_several);
            references += u64::from(prompt.reference.is_some());
            layout.add_text(&prompt.prompt);
            layout.add_inputs(&prompt.inputs);
            match prompt.prompt.form() {
                Form::Plain => plain = true,
                Form::Messages => messages = messages.or_else(|| Some(prompt.id.clone())),
            }
            let line = json(&prompt);
            hasher.update(&(line.len() as u64).to_le_bytes()).update(line.as_bytes());
        }
        let notices = reader.notices();
        if prompts == 0 {
            return Err(match self.files.first() {
                Some(path) if !notices.is_empty() => {
                    Error::NoPrompts { path: path.clone(), refused: notices.join("; ") }
                }
                Some(path) => simplemix_data::Error::NoInput { path: path.clone(), expected: "prompts" }.into(),
                None => Error::Setting { key: "files", found: "empty".to_owned(), expected: "at least one file" },
            });
        }
        if let (true, Some(id)) = (plain, messages) {
            let found = format!("false, with plain text beside messages such as prompt `{id}`");
            return Err(Error::Setting { key: "messages", found, expected: "true, or prompts of one form" });
        }
        let (repeated, hash) = (reader.repeated, hasher.finalize().to_hex().to_string());
        layout.form = if plain { Form::Plain } else { Form::Messages };
        Ok(Survey { prompts, repeated, answers, several_answers, references, layout, hash, notices })
    }

    /// Iterates over the distinct prompts, in order.
    pub(crate) fn read(&self) -> Prompts<'_> {
        Prompts {
            settings: self,
            files: self.files.iter(),
            rows: None,
            seen: HashMap::new(),
            left: self.limit.unwrap_or(u64::MAX),
            repeated: 0,
            refused: Vec::new(),
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

/// Reader of prompts. Prompts that are in an earlier row are left out and counted.
pub(crate) struct Prompts<'a> {
    settings: &'a PromptSettings,
    files: std::slice::Iter<'a, PathBuf>,
    rows: Option<PromptRows>,
    /// Hash of each prompt by hash of its id.
    seen: HashMap<[u8; 16], [u8; 16]>,
    left: u64,
    repeated: u64,
    /// Sentences about rows that hold no prompt, one a file.
    refused: Vec<String>,
}

impl Prompts<'_> {
    /// Sentences about rows that hold no prompt, one for each file that has any, as far as they were read.
    pub(crate) fn notices(&self) -> Vec<String> {
        let current = self.rows.as_ref().and_then(PromptRows::refused);
        self.refused.iter().cloned().chain(current).collect()
    }

    fn next_prompt(&mut self) -> Result<Option<Prompt>> {
        while self.left > 0 {
            let Some(rows) = &mut self.rows else {
                let Some(file) = self.files.next() else { return Ok(None) };
                self.rows = Some(PromptRows::open(file)?);
                continue;
            };
            let Some((row, mut prompt)) = rows.next()? else {
                self.refused.extend(rows.refused());
                self.rows = None;
                continue;
            };
            prompt.prompt = self.settings.shaped(prompt.prompt);
            let (id, text) = (short_hash(&prompt.id), short_hash(&asked(&prompt.prompt, &prompt.inputs)));
            match self.seen.insert(id, text) {
                None => {
                    self.left -= 1;
                    return Ok(Some(prompt));
                }
                Some(before) if before == text => self.repeated += 1,
                Some(_) => {
                    let read = self.settings.files.len() - self.files.len();
                    return Err(Error::Row {
                        path: self.settings.files[read - 1].clone(),
                        row,
                        found: format!("id `{}`, which an earlier row has with another prompt", prompt.id),
                        expected: "a different id for each prompt".to_owned(),
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

/// Half of the hash of a text.
pub(crate) fn short_hash(text: &str) -> [u8; 16] {
    let mut short = [0; 16];
    short.copy_from_slice(&blake3::hash(text.as_bytes()).as_bytes()[..16]);
    short
}

/// Everything that a model is asked, as text.
fn asked(prompt: &Text, inputs: &TemplateInputs) -> String {
    if inputs.is_empty() { json(prompt) } else { json(&(prompt, inputs)) }
}

/// Id of a prompt without one: 32 hex digits of its hash.
pub(crate) fn prompt_id(prompt: &Text, inputs: &TemplateInputs) -> String {
    let mut hex = blake3::hash(asked(prompt, inputs).as_bytes()).to_hex().to_string();
    hex.truncate(32);
    hex
}

#[cfg(test)]
mod tests {
    use std::path::Path;

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
        assert_eq!([0, 1].map(|i| prompts[i].answer.clone().unwrap()), ["4", "3"].map(Answer::from));
        let survey = of_prompts.survey().unwrap();
        assert_eq!((survey.prompts, survey.answers, survey.layout.form), (2, 2, Form::Messages));

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
    fn rows_without_a_prompt_cost_themselves_only() {
        let dir = tempfile::tempdir().unwrap();
        let rows = "{\"prompt\": \"x \\ud83d\"}\n{\"prompt\": \" \"}\n{\"prompt\": null}\n{\"prompt\": \"y\"}\n";
        let read = settings(dir.path(), "p.jsonl", rows);
        let survey = read.survey().unwrap();
        assert_eq!((survey.prompts, survey.notices.len()), (1, 1));
        let (prompts, notices) = read.prompts_and_notices().unwrap();
        assert_eq!(prompts[0].prompt, "y".into());
        assert!(
            notices[0].ends_with("p.jsonl: 3 rows hold no prompt: empty-prompt 2, lone-surrogate 1"),
            "{notices:?}"
        );
        let pairs =
            r#"[{"prompt": "q", "chosen": "a", "rejected": "a"}, {"prompt": "q", "chosen": "a", "rejected": "b"}]"#;
        let (prompts, notices) = settings(dir.path(), "pairs.json", pairs).prompts_and_notices().unwrap();
        assert_eq!(prompts.len(), 1);
        assert!(notices[0].ends_with("1 rows hold no prompt: identical-sides 1"), "{notices:?}");
    }

    #[test]
    fn columns_beside_the_prompt_are_read_or_refused() {
        let dir = tempfile::tempdir().unwrap();
        let with_system = settings(dir.path(), "s.jsonl", r#"{"system": "Be brief.", "prompt": "q", "answer": ["4"]}"#);
        let prompt = all(&with_system).remove(0);
        assert_eq!(prompt.prompt, Text::Messages(vec![Message::system("Be brief."), Message::user("q")]));
        assert_eq!(prompt.answer, Some("4".into()));
        let error = |text: &str| settings(dir.path(), "e.jsonl", text).survey().unwrap_err().to_string();
        let context = error(r#"{"question": "How long?", "context": "The river is 5 km long."}"#);
        assert!(context.contains("row 0: `context` \"The river"), "{context}");
        let answers = error(r#"{"question": "How long?", "answer": ["5", {"a": 1}]}"#);
        let expected = "row 0: `answer` [\"5\",{\"a\":1}], expected a text or number, or a list of them, any of which";
        assert!(answers.contains(expected), "{answers}");
        // A repeated text is not said again.
        let twice = settings(dir.path(), "t.jsonl", r#"{"prompt": "Question: how long?", "question": "how long?"}"#);
        assert_eq!(all(&twice).len(), 1);
    }

    #[test]
    fn unusable_rows_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = |name: &str, text: &str| settings(dir.path(), name, text).survey().unwrap_err().to_string();
        let twice = "{\"id\": \"a\", \"prompt\": \"x\"}\n{\"id\": \"a\", \"prompt\": \"y\"}";
        assert!(error("twice.jsonl", twice).contains("row 1: id `a`, which an earlier row has with another prompt"));
        assert!(
            error("blank.jsonl", r#"{"prompt": " "}"#).ends_with("no prompts: 1 rows hold no prompt: empty-prompt 1")
        );
        assert!(error("other.jsonl", r#"{"text": "x"}"#).contains("columns text, expected preference pairs"));
        assert!(error("kind.jsonl", r#"{"prompt": 5}"#).contains("row 0: `prompt` 5, expected text"));
        let mixed = "{\"prompt\": \"x\"}\n{\"prompt\": [{\"role\": \"user\", \"content\": \"y\"}]}";
        assert!(error("mixed.jsonl", mixed).contains("`messages` is false, with plain text beside messages"));
    }
}
