//! A tokenised set with what the loop and the learner need of it.

use std::collections::BTreeMap;

use simplemix_data::{Pair, PairTokenizer, TokenizedPair};

use crate::error::Result;
use crate::table::{PairEntry, PairTable};

/// What of each pair goes through the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Feed {
    /// The prompt once, and both responses.
    #[default]
    Shared,
    /// The prompt with the chosen response, and again with the rejected one.
    Apart,
    /// The prompt with the chosen response.
    Chosen,
}

/// Pairs as token ids, with their table.
#[derive(Debug, Default)]
pub struct PairSet {
    /// Lengths and sources.
    pub table: PairTable,
    /// Token ids, in the table's order.
    pub tokens: Vec<TokenizedPair>,
    /// Content hashes, in the table's order.
    pub ids: Vec<String>,
    /// Score of the chosen response minus that of the rejected one, in the table's order; none where one is not known.
    pub score_margins: Vec<Option<f64>>,
    /// Pairs left out, by reason.
    pub dropped: BTreeMap<String, usize>,
    /// Pairs kept with the end of a response cut off.
    pub cut: usize,
    pub(crate) feed: Feed,
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
            let (source, task) = (set.table.source(&pairs[row].source), &pairs[row].task);
            let task = task.as_ref().map(|task| set.table.task(task));
            let responses = [tokens.chosen.len(), tokens.rejected.len()];
            set.table.pairs.push(PairEntry { row, tokens: 0, prompt: tokens.prompt.len(), responses, source, task });
            set.tokens.push(tokens);
            set.ids.push(pairs[row].id.clone());
            set.score_margins.push(pairs[row].margin().filter(|margin| margin.is_finite()));
        }
        set.set_feed(Feed::default());
        Ok(set)
    }

    /// What of each pair goes through the network.
    pub fn feed(&self) -> Feed {
        self.feed
    }

    /// Sets it, and with it what each pair counts in a micro-batch.
    pub fn set_feed(&mut self, feed: Feed) {
        self.feed = feed;
        for pair in &mut self.table.pairs {
            let (prompt, [chosen, rejected]) = (pair.prompt, pair.responses);
            pair.tokens = match feed {
                Feed::Shared => prompt + chosen + rejected,
                Feed::Apart => 2 * prompt + chosen + rejected,
                Feed::Chosen => prompt + chosen,
            };
        }
    }

    /// Adds the pairs of `other` behind its own, under the source `name`.
    pub fn append(&mut self, other: Self, name: &str) {
        let source = self.table.source(name);
        for mut pair in other.table.pairs {
            pair.source = source;
            pair.task = pair.task.map(|task| self.table.task(&other.table.tasks[task]));
            self.table.pairs.push(pair);
        }
        self.tokens.extend(other.tokens);
        self.ids.extend(other.ids);
        self.score_margins.extend(other.score_margins);
        self.cut += other.cut;
        for (reason, count) in other.dropped {
            *self.dropped.entry(reason).or_default() += count;
        }
        self.set_feed(self.feed);
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

    /// Tokens of all pairs that go through the network.
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
