//! The known right answer of a prompt: one text, or several of which any is right.

use serde::{Deserialize, Serialize};

use crate::exact::is_right;

/// Texts that are right answers; there is at least one. In JSON, one is a text and several are a list.
///
/// # Examples
/// ```
/// use simplemix_rollout::Answer;
/// let one: Answer = serde_json::from_str(r#""5""#)?;
/// let several: Answer = serde_json::from_str(r#"["5", "five"]"#)?;
/// assert_eq!((one.all(), several.all()), (&["5".to_owned()][..], &["5".to_owned(), "five".to_owned()][..]));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Answer(Vec<String>);

/// An answer as files have it.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    One(String),
    Several(Vec<String>),
}

impl Answer {
    /// An answer with these spellings; `None` if there is none.
    pub fn of(texts: Vec<String>) -> Option<Self> {
        (!texts.is_empty()).then_some(Self(texts))
    }

    /// All of the texts.
    pub fn all(&self) -> &[String] {
        &self.0
    }

    /// Whether `response` states one of the texts, see [`is_right`].
    pub fn is_stated_by(&self, response: &str) -> bool {
        self.0.iter().any(|text| is_right(response, text))
    }

    /// Whether there is more than one text.
    pub fn is_several(&self) -> bool {
        self.0.len() > 1
    }
}

impl From<String> for Answer {
    fn from(text: String) -> Self {
        Self(vec![text])
    }
}

impl From<&str> for Answer {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl TryFrom<Written> for Answer {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        match written {
            Written::One(text) => Ok(Self(vec![text])),
            Written::Several(texts) => Self::of(texts).ok_or("an empty list of answers"),
        }
    }
}

impl From<Answer> for Written {
    fn from(answer: Answer) -> Self {
        match <[String; 1]>::try_from(answer.0) {
            Ok([one]) => Self::One(one),
            Err(several) => Self::Several(several),
        }
    }
}
