//! Reasons for which responses end, in the words of whoever sampled them.

use serde::{Deserialize, Serialize};

/// Reason for which a response ended.
///
/// Backends have many words for it, and every word is kept. An unknown reason is an `Option::None` beside this type.
///
/// # Examples
/// ```
/// use simplemix_rollout::Finish;
/// assert_eq!(Finish::from("length".to_owned()), Finish::Length);
/// assert!(Finish::from("eos_token".to_owned()).is_end());
/// assert!(!Finish::from("content_filter".to_owned()).is_end());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
#[non_exhaustive]
pub enum Finish {
    /// The model ended it: `stop`.
    Stop,
    /// It reached the limit of new tokens: `length`.
    Length,
    /// Another word, such as `tool_calls`, `content_filter`, `abort` or `eos_token`.
    Other(String),
}

/// Words for a response that the model ended, beside `stop`: text-generation-inference, Anthropic, Cohere, SGLang.
const ENDS: [&str; 7] = ["eos", "eos_token", "end_turn", "stop_sequence", "stop_token", "complete", "stop"];
/// Words for a response that reached a limit of tokens, beside `length`: Anthropic, Cohere, Mistral.
const CUTS: [&str; 4] = ["max_tokens", "max_length", "model_length", "length"];

impl Finish {
    /// The word, as it stands in files.
    pub fn name(&self) -> &str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Other(word) => word,
        }
    }

    /// Whether the model ended the response by itself.
    pub fn is_end(&self) -> bool {
        self.is_one_of(&ENDS)
    }

    /// Whether a limit of tokens cut the response.
    pub fn is_cut(&self) -> bool {
        self.is_one_of(&CUTS)
    }

    fn is_one_of(&self, words: &[&str]) -> bool {
        words.iter().any(|word| self.name().eq_ignore_ascii_case(word))
    }
}

impl From<String> for Finish {
    fn from(word: String) -> Self {
        match word.as_str() {
            "stop" => Self::Stop,
            "length" => Self::Length,
            _ => Self::Other(word),
        }
    }
}

impl From<Finish> for String {
    fn from(finish: Finish) -> Self {
        match finish {
            Finish::Other(word) => word,
            known => known.name().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_kept_and_known_ones_are_told_apart() {
        for (word, is_end, is_cut) in [
            ("stop", true, false),
            ("length", false, true),
            ("eos_token", true, false),
            ("COMPLETE", true, false),
            ("MAX_TOKENS", false, true),
            ("tool_calls", false, false),
            ("content_filter", false, false),
            ("abort", false, false),
        ] {
            let finish: Finish = serde_json::from_value(word.into()).unwrap();
            assert_eq!((finish.is_end(), finish.is_cut()), (is_end, is_cut), "{word}");
            assert_eq!(serde_json::to_value(&finish).unwrap(), word);
        }
    }
}
