//! The preference pair as a Rust value, and its content hash.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::message::{Message, TemplateInputs, fields_text};

/// A prompt or a response: bare text, or the turns of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
pub enum Text {
    /// Bare text. No template is applied, and an end-of-sequence token is appended to responses.
    Plain(String),
    /// Turns of a conversation, rendered by a chat template.
    Messages(Vec<Message>),
}

impl Text {
    /// Form of the text.
    pub fn form(&self) -> Form {
        match self {
            Text::Plain(_) => Form::Plain,
            Text::Messages(_) => Form::Messages,
        }
    }

    /// Builds a response in the form of this prompt: bare text, or a turn of the model.
    ///
    /// ```
    /// use simplemix_data::{Message, Text};
    /// assert_eq!(Text::from("2 + 2?").response("4"), Text::from("4"));
    /// let asked = Text::Messages(vec![Message::user("2 + 2?")]);
    /// assert_eq!(asked.response("4"), Text::Messages(vec![Message::assistant("4")]));
    /// ```
    #[must_use]
    pub fn response(&self, text: &str) -> Self {
        match self {
            Text::Plain(_) => Text::Plain(text.to_owned()),
            Text::Messages(_) => Text::Messages(vec![Message::assistant(text)]),
        }
    }

    /// Number of characters of all content and further fields of turns, without roles.
    pub fn chars(&self) -> usize {
        match self {
            Text::Plain(text) => text.chars().count(),
            Text::Messages(turns) => turns.iter().map(Message::chars).sum(),
        }
    }

    /// Whether the text is empty or white space only, without calls of tools.
    pub fn is_blank(&self) -> bool {
        match self {
            Text::Plain(text) => text.trim().is_empty(),
            Text::Messages(turns) => turns.iter().all(Message::is_blank),
        }
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Text::Plain(text.to_owned())
    }
}

impl From<Vec<Message>> for Text {
    fn from(turns: Vec<Message>) -> Self {
        Text::Messages(turns)
    }
}

/// The two forms of preference data: bare text, or messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// Strings.
    Plain,
    /// Lists of `{role, content}`.
    Messages,
}

/// Author of a pair's responses, seen from the model to be trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// The model itself, before training.
    On,
    /// Another model, or people.
    Off,
}

impl Policy {
    /// Value in the `policy` column: `on` or `off`.
    pub fn as_str(self) -> &'static str {
        match self {
            Policy::On => "on",
            Policy::Off => "off",
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Policy {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        match word {
            "on" => Ok(Policy::On),
            "off" => Ok(Policy::Off),
            _ => Err(Error::Value { row: 0, column: "policy", found: format!("`{word}`"), expected: "`on` or `off`" }),
        }
    }
}

/// Place of a file from which a pair was read. All places are equal, so that pairs are compared by what they hold.
#[derive(Debug, Clone, Default)]
pub struct Origin(Option<(Arc<Path>, u64)>);

impl Origin {
    pub(crate) fn new(path: &Arc<Path>, row: u64) -> Self {
        Self(Some((path.clone(), row)))
    }

    /// File and row, counted from 0, if the pair was read from a file.
    pub fn file(&self) -> Option<(&Path, u64)> {
        self.0.as_ref().map(|(path, row)| (path.as_ref(), *row))
    }
}

impl PartialEq for Origin {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// A preference pair: a prompt, a better and a worse response to it, and their origin.
///
/// Build it with [`Pair::new`], which computes [`Pair::id`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Pair {
    /// Prompt of both responses.
    pub prompt: Text,
    /// The better response, without the prompt.
    pub chosen: Text,
    /// The worse response, without the prompt.
    pub rejected: Text,
    /// Name of the source in the mixture.
    pub source: String,
    /// Author of the responses.
    pub policy: Policy,
    /// Model that wrote both responses, if known and the same.
    pub generator: Option<String>,
    /// Kind of task, such as `math`, `code` or `creative-writing`.
    pub task: Option<String>,
    /// Score of the chosen response by a reward model or judge.
    pub score_chosen: Option<f64>,
    /// Score of the rejected response by a reward model or judge.
    pub score_rejected: Option<f64>,
    /// Scores of samples of the reference model for the same prompt, by the scorer of the two responses, in no order that
    /// matters; empty if there are none. QRPO (arXiv:2507.08068) learns from the share of them that a response reaches.
    pub ref_rewards: Vec<f64>,
    /// Inputs of the chat template beside the turns: tools, documents, arguments.
    pub inputs: TemplateInputs,
    /// File and row of the pair, for messages.
    pub origin: Origin,
    /// Content hash: 32 lower-case hex digits.
    ///
    /// The hash is the first 16 bytes of BLAKE3 over prompt, chosen and rejected, in this order. Bare text is encoded as
    /// a byte 0, the length in bytes (u64, little endian) and the bytes; messages as a byte 1, the number of turns (u64)
    /// and, for each turn, role and content, each as length and bytes. Messages with further fields begin with a byte 2,
    /// and the fields of each turn follow its content, as JSON by name. Template inputs follow the texts as a byte 3 and
    /// their JSON. Scores, source and the like are not hashed, so a pair has the same id in every file.
    pub id: String,
}

impl Pair {
    /// Builds a pair without scores, generator or task.
    pub fn new(prompt: Text, chosen: Text, rejected: Text, source: impl Into<String>, policy: Policy) -> Self {
        let inputs = TemplateInputs::default();
        let id = pair_id([&prompt, &chosen, &rejected], &inputs);
        Self {
            prompt,
            chosen,
            rejected,
            source: source.into(),
            policy,
            generator: None,
            task: None,
            score_chosen: None,
            score_rejected: None,
            ref_rewards: Vec::new(),
            inputs,
            origin: Origin::default(),
            id,
        }
    }

    /// Sets what the chat template is given beside the turns, which the [id](Pair::id) depends on.
    #[must_use]
    pub fn with_inputs(mut self, inputs: TemplateInputs) -> Self {
        self.id = pair_id([&self.prompt, &self.chosen, &self.rejected], &inputs);
        self.inputs = inputs;
        self
    }

    /// Where the pair comes from, in words: file and row, else its id and its source.
    pub(crate) fn place(&self) -> String {
        match self.origin.file() {
            Some((path, row)) => format!("{}: row {row}", path.display()),
            None => format!("pair {} of the source `{}`", self.id, self.source),
        }
    }

    /// Score of chosen minus score of rejected, if both are known.
    pub fn margin(&self) -> Option<f64> {
        Some(self.score_chosen? - self.score_rejected?)
    }

    /// Form of the pair, taken from the chosen response.
    pub fn form(&self) -> Form {
        self.chosen.form()
    }
}

fn pair_id(texts: [&Text; 3], inputs: &TemplateInputs) -> String {
    let mut hash = ContentHash::default();
    for text in texts {
        match text {
            Text::Plain(text) => hash.plain(text),
            Text::Messages(turns) => hash.messages(turns.iter().map(|turn| HashedTurn {
                role: &turn.role,
                content: turn.has_content().then_some(&turn.content),
                fields: &turn.fields,
            })),
        }
    }
    hash.inputs(inputs);
    hash.finish()
}

/// Hasher of [`Pair::id`], for borrowed texts.
#[derive(Default)]
pub(crate) struct ContentHash(blake3::Hasher);

/// A turn as it is hashed.
pub(crate) struct HashedTurn<'a> {
    pub(crate) role: &'a str,
    pub(crate) content: Option<&'a str>,
    pub(crate) fields: &'a Map<String, Value>,
}

impl ContentHash {
    pub(crate) fn plain(&mut self, text: &str) {
        self.0.update(&[0]);
        self.bytes(text);
    }

    pub(crate) fn messages<'a>(&mut self, turns: impl ExactSizeIterator<Item = HashedTurn<'a>> + Clone) {
        let with_fields = turns.clone().any(|turn| turn.content.is_none() || !turn.fields.is_empty());
        self.0.update(&[if with_fields { 2 } else { 1 }]);
        self.0.update(&(turns.len() as u64).to_le_bytes());
        for turn in turns {
            self.bytes(turn.role);
            self.bytes(turn.content.unwrap_or_default());
            if with_fields {
                self.0.update(&[u8::from(turn.content.is_some())]);
                self.bytes(&fields_text(turn.fields).unwrap_or_default());
            }
        }
    }

    pub(crate) fn inputs(&mut self, inputs: &TemplateInputs) {
        if !inputs.is_empty() {
            self.0.update(&[3]);
            self.bytes(&serde_json::json!(inputs).to_string());
        }
    }

    fn bytes(&mut self, text: &str) {
        self.0.update(&(text.len() as u64).to_le_bytes());
        self.0.update(text.as_bytes());
    }

    pub(crate) fn digest(self) -> [u8; 32] {
        *self.0.finalize().as_bytes()
    }

    pub(crate) fn finish(self) -> String {
        let mut hex = self.0.finalize().to_hex().to_string();
        hex.truncate(32);
        hex
    }
}
