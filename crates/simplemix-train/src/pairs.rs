//! A tokenised set with what the loop and the learner need of it.

use std::collections::BTreeMap;

use simplemix_data::{Pair, PairTokenizer, TokenizedPair};

use crate::error::Result;
use crate::table::{PairEntry, PairTable};

/// Pairs as token ids, with their table.
#[derive(Debug, Default)]
pub struct PairSet {
    /// Lengths and sources.
    pub table: PairTable,
    /// Token ids, in the table's order.
    pub tokens: Vec<TokenizedPair>,
    /// Pairs left out, by reason.
    pub dropped: BTreeMap<String, usize>,
    /// Pairs kept with the end of a response cut off.
    pub cut: usize,
}

impl PairSet {
    /// Tokenises `pairs`; the row of an entry is the pair's number here.
    ///
    /// # Errors
    /// What the chat template or the tokenizer reports.
    pub fn tokenize(pairs: &[Pair], tokenizer: &PairTokenizer) -> Result<Self> {
        let encoded = tokenizer.encode_all(pairs)?;
        let mut set = Self {
            dropped: encoded.dropped.iter().map(|(reason, count)| (reason.name().to_owned(), *count)).collect(),
            cut: encoded.cut,
            ..Self::default()
        };
        for (row, tokens) in encoded.pairs {
            let source = set.table.source(&pairs[row].source);
            let count = tokens.prompt.len() + tokens.chosen.len() + tokens.rejected.len();
            set.table.pairs.push(PairEntry { row, tokens: count, source });
            set.tokens.push(tokens);
        }
        Ok(set)
    }

    /// Pairs that are kept.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether no pair is kept.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// How many pairs were dropped and cut, in words.
    pub fn summary(&self) -> String {
        let mut text = format!("{} pairs, {} tokens", self.len(), self.tokens());
        if self.cut > 0 {
            text.push_str(&format!(", {} cut at max_length", self.cut));
        }
        for (reason, count) in &self.dropped {
            text.push_str(&format!(", {count} dropped: {reason}"));
        }
        text
    }

    /// Tokens of all pairs, each prompt once.
    pub fn tokens(&self) -> usize {
        self.table.pairs.iter().map(|pair| pair.tokens).sum()
    }

    /// Kept pairs of each source, with its share.
    pub fn shares(&self) -> Vec<(&str, usize, f64)> {
        let total = self.len().max(1) as f64;
        let count = |number| self.table.pairs.iter().filter(|pair| pair.source == number).count();
        let names = self.table.sources.iter().map(String::as_str);
        names.enumerate().map(|(number, name)| (name, count(number), count(number) as f64 / total)).collect()
    }
}
