//! One preference pair as a Rust value, and the content hash that names it.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// One turn of a conversation.
///
/// Built with [`Message::new`], so that later fields do not break callers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant` or `tool`.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A turn of `role`.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }

    /// A turn of the user.
    pub fn user(content: impl Into<String>) -> Self {
        Self::new("user", content)
    }

    /// A turn of the model.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::new("assistant", content)
    }

    /// A system prompt.
    pub fn system(content: impl Into<String>) -> Self {
        Self::new("system", content)
    }
}

/// A prompt or a response: bare text, or the turns of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
pub enum Text {
    /// Bare text: no template is applied, and an end-of-sequence token is appended to responses.
    Plain(String),
    /// Turns of a conversation, which a chat template renders.
    Messages(Vec<Message>),
}

impl Text {
    /// Which of the two forms this is.
    pub fn form(&self) -> Form {
        match self {
            Text::Plain(_) => Form::Plain,
            Text::Messages(_) => Form::Messages,
        }
    }

    /// A response to this prompt, in its form: bare text, or a turn of the model.
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

    /// Characters of all content, roles left out.
    pub fn chars(&self) -> usize {
        match self {
            Text::Plain(text) => text.chars().count(),
            Text::Messages(turns) => turns.iter().map(|turn| turn.content.chars().count()).sum(),
        }
    }

    /// True if there is nothing but white space in it.
    pub fn is_blank(&self) -> bool {
        match self {
            Text::Plain(text) => text.trim().is_empty(),
            Text::Messages(turns) => turns.iter().all(|turn| turn.content.trim().is_empty()),
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

/// Who wrote a pair's responses, seen from the model that is to be trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// The model itself, as it is before training.
    On,
    /// Anyone else: another model, or people.
    Off,
}

impl Policy {
    /// The word in the `policy` column: `on` or `off`.
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

/// One preference pair: a prompt, the better and the worse response to it, and where they come from.
///
/// Built with [`Pair::new`], which also computes [`Pair::id`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Pair {
    /// What both responses answer.
    pub prompt: Text,
    /// The better response: the last turns only, without the prompt.
    pub chosen: Text,
    /// The worse response.
    pub rejected: Text,
    /// Name of the source in the mixture.
    pub source: String,
    /// Who wrote the responses.
    pub policy: Policy,
    /// Model that wrote both responses, where that is known and one model wrote both.
    pub generator: Option<String>,
    /// Kind of task, e.g. `math`, `code`, `creative-writing`.
    pub task: Option<String>,
    /// Reward or judge's score of the chosen response.
    pub score_chosen: Option<f64>,
    /// Reward or judge's score of the rejected response.
    pub score_rejected: Option<f64>,
    /// Content hash of prompt, chosen and rejected, see [`pair_id`].
    pub id: String,
}

impl Pair {
    /// A pair without scores, generator or task.
    pub fn new(prompt: Text, chosen: Text, rejected: Text, source: impl Into<String>, policy: Policy) -> Self {
        let id = pair_id(&prompt, &chosen, &rejected);
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
            id,
        }
    }

    /// Score of chosen minus score of rejected, where both are known.
    pub fn margin(&self) -> Option<f64> {
        Some(self.score_chosen? - self.score_rejected?)
    }

    /// The form of the pair, which is that of its chosen response.
    pub fn form(&self) -> Form {
        self.chosen.form()
    }
}

/// The stable name of a pair's content: 32 lower-case hex digits.
///
/// The first 16 bytes of BLAKE3 over prompt, chosen and rejected in this order. Bare text is a byte 0, the length in
/// bytes (u64, little endian) and the bytes; messages are a byte 1, the number of turns (u64) and, for each turn, role
/// and content, each as length and bytes. Scores, source and the like take no part, so the same pair found in two
/// files has one id.
///
/// # Examples
/// ```
/// use simplemix_data::{pair_id, Text};
/// let id = pair_id(&Text::from("Is it raining?"), &Text::from(" Yes."), &Text::from(" No."));
/// assert_eq!(id.len(), 32);
/// assert_ne!(id, pair_id(&Text::from("Is it raining?"), &Text::from(" No."), &Text::from(" Yes.")));
/// ```
pub fn pair_id(prompt: &Text, chosen: &Text, rejected: &Text) -> String {
    let mut hash = ContentHash::default();
    for text in [prompt, chosen, rejected] {
        match text {
            Text::Plain(text) => hash.plain(text),
            Text::Messages(turns) => {
                hash.messages(turns.iter().map(|turn| (turn.role.as_str(), turn.content.as_str())));
            }
        }
    }
    hash.finish()
}

/// The hash behind [`pair_id`], for texts that are only borrowed.
#[derive(Default)]
pub(crate) struct ContentHash(blake3::Hasher);

impl ContentHash {
    pub(crate) fn plain(&mut self, text: &str) {
        self.0.update(&[0]);
        self.bytes(text);
    }

    pub(crate) fn messages<'a>(&mut self, turns: impl ExactSizeIterator<Item = (&'a str, &'a str)>) {
        self.0.update(&[1]);
        self.0.update(&(turns.len() as u64).to_le_bytes());
        for (role, content) in turns {
            self.bytes(role);
            self.bytes(content);
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
