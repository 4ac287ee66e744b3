//! Special tokens inside texts.

use crate::pair::{Pair, Text};

/// Marks of turns in well-known chat templates that do not have the form `<|NAME|>`.
const WELL_KNOWN: [&str; 10] = [
    "<start_of_turn>",
    "<end_of_turn>",
    "[INST]",
    "[/INST]",
    "<<SYS>>",
    "<bos>",
    "<eos>",
    "<\u{ff5c}User\u{ff5c}>",
    "<\u{ff5c}Assistant\u{ff5c}>",
    "<\u{ff5c}end\u{2581}of\u{2581}sentence\u{ff5c}>",
];

/// The special tokens that are looked for.
#[derive(Debug, Clone)]
pub(crate) struct Markers {
    tokens: Vec<String>,
    /// Whether everything of the form `<|NAME|>` counts.
    any_name: bool,
}

impl Default for Markers {
    fn default() -> Self {
        Self { tokens: WELL_KNOWN.map(str::to_owned).to_vec(), any_name: true }
    }
}

impl Markers {
    /// The special tokens of a tokenizer, and no others.
    pub(crate) fn of_tokenizer(tokens: Vec<String>) -> Self {
        Self { tokens: tokens.into_iter().filter(|token| !token.is_empty()).collect(), any_name: false }
    }

    /// Whether a text of the pair holds one where the tokenizer, or a template, does not put it.
    pub(crate) fn are_in(&self, pair: &Pair) -> bool {
        let in_prompt = matches!(pair.prompt, Text::Messages(_)) && self.in_text(&pair.prompt);
        in_prompt || self.in_text(&pair.chosen) || self.in_text(&pair.rejected)
    }

    fn in_text(&self, text: &Text) -> bool {
        match text {
            Text::Plain(text) => self.first_end(text).is_some_and(|end| !text[end..].trim().is_empty()),
            Text::Messages(turns) => turns.iter().any(|turn| self.first_end(&turn.content).is_some()),
        }
    }

    /// End of the first special token.
    fn first_end(&self, text: &str) -> Option<usize> {
        let listed = self.tokens.iter().filter_map(|token| Some(text.find(token.as_str())? + token.len()));
        let named = if self.any_name { first_name(text) } else { None };
        listed.chain(named).min()
    }
}

/// End of the first `<|NAME|>`.
fn first_name(text: &str) -> Option<usize> {
    const MOST: usize = 40;
    text.match_indices("<|").find_map(|(start, _)| {
        let inner = &text[start + 2..];
        let length = inner.bytes().take(MOST).take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
        (length > 0 && inner[length..].starts_with("|>")).then_some(start + 2 + length + 2)
    })
}
