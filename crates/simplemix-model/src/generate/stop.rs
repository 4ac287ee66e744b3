//! Texts that end an answer.

use std::fmt;
use std::sync::Arc;

use tokenizers::Tokenizer;

use crate::error::{Error, Result};

/// Tokens before the longest stop string's bytes that are decoded too, for characters of several tokens.
const MARGIN: usize = 8;

/// Texts that end an answer as soon as it holds one of them, as transformers' `stop_strings`.
#[derive(Clone)]
pub struct StopStrings {
    tokenizer: Arc<Tokenizer>,
    strings: Vec<String>,
}

impl StopStrings {
    /// `tokenizer` is the model's.
    ///
    /// # Errors
    /// [`Error::Input`] for an empty text, which every answer holds.
    pub fn new(tokenizer: Arc<Tokenizer>, strings: Vec<String>) -> Result<Self> {
        if strings.iter().any(String::is_empty) {
            let (found, expected) = ("empty".to_owned(), "a text".to_owned());
            return Err(Error::Input { what: "stop string", found, expected });
        }
        Ok(Self { tokenizer, strings })
    }

    /// Whether an answer that ends with `tokens` has just completed a stop string.
    pub(crate) fn end(&self, tokens: &[u32]) -> bool {
        // A token is at least a byte.
        let longest = self.strings.iter().map(String::len).max().unwrap_or(0);
        let tail = &tokens[tokens.len().saturating_sub(longest + MARGIN)..];
        // Tokens that cannot be decoded hold no text.
        let decoded = simplemix_files::guarded(|| self.tokenizer.decode(tail, false).ok());
        let text = decoded.ok().flatten().unwrap_or_default();
        self.strings.iter().any(|string| text.contains(string.as_str()))
    }
}

impl fmt::Debug for StopStrings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StopStrings").field("strings", &self.strings).finish_non_exhaustive()
    }
}
