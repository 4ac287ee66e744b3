//! A tokenised set with what the loop and the learner need of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use simplemix_data::{DropReason, Pair, PairTokenizer, TokenRow, TokenSet, TokenizedPair, TokenizedSet};

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
    pub tokens: PairTokens,
    /// Content hashes, in the table's order.
    pub ids: Vec<String>,
    /// Score of the chosen response minus that of the rejected one, in the table's order; none where one is not known.
    pub score_margins: Vec<Option<f64>>,
    /// Pairs left out, by reason.
    pub dropped: BTreeMap<String, usize>,
    /// Pairs kept with the end of a response cut off.
    pub cut: usize,
    pub(crate) feed: Feed,
    /// Ids that no file has yet, and the file.
    pub(crate) unkept: Vec<(PathBuf, Arc<TokenizedSet>)>,
}

/// Token ids of pairs: held in memory, or borrowed from mapped files, of which only what is used is read.
#[derive(Debug, Default)]
pub struct PairTokens(Vec<Ids>);

/// Where a pair's ids are: a set, and the row in it.
#[derive(Debug)]
enum Ids {
    Held(Arc<TokenizedSet>, usize),
    Mapped(Arc<TokenSet>, usize),
}

impl PairTokens {
    /// Ids of pair number `pair`.
    ///
    /// # Panics
    /// If there is no such pair, as a slice does.
    pub fn get(&self, pair: usize) -> TokenRow<'_> {
        match &self.0[pair] {
            Ids::Held(set, row) => {
                let (index, TokenizedPair { prompt, chosen, rejected, .. }) = &set.pairs[*row];
                TokenRow { index: *index as u64, prompt, chosen, rejected }
            }
            Ids::Mapped(set, row) => set.get(*row),
        }
    }

    /// Ids of all pairs in order.
    pub fn iter(&self) -> impl Iterator<Item = TokenRow<'_>> {
        (0..self.len()).map(|pair| self.get(pair))
    }

    /// Number of pairs.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Arc<TokenizedSet>> for PairTokens {
    fn from(set: Arc<TokenizedSet>) -> Self {
        Self((0..set.pairs.len()).map(|row| Ids::Held(set.clone(), row)).collect())
    }
}

impl FromIterator<TokenizedPair> for PairTokens {
    fn from_iter<I: IntoIterator<Item = TokenizedPair>>(pairs: I) -> Self {
        Arc::new(TokenizedSet { pairs: pairs.into_iter().enumerate().collect(), ..TokenizedSet::default() }).into()
    }
}

impl PairSet {
    /// Tokenises `pairs`; the row of an entry is the pair's number here.
    ///
    /// # Errors
    /// What the chat template or the tokenizer reports.
    pub fn tokenize(pairs: &[Pair], tokenizer: &PairTokenizer) -> Result<Self> {
        Ok(Self::held(pairs, &Arc::new(tokenizer.encode_all(pairs)?)))
    }

    /// The same with ids out of the file that an earlier run has kept in `folder`, where there is a sound one. Where there
    /// is none, [`PairSet::keep`] writes it.
    ///
    /// # Errors
    /// As [`PairSet::tokenize`].
    pub fn tokenize_cached(pairs: &[Pair], tokenizer: &PairTokenizer, folder: &Path) -> Result<Self> {
        let path = tokenizer.token_set_path(pairs, folder)?;
        if let Ok(set) = TokenSet::open(&path)
            && set.iter().all(|row| row.index < pairs.len() as u64)
        {
            let set = Arc::new(set);
            let tokens = PairTokens((0..set.len()).map(|row| Ids::Mapped(set.clone(), row)).collect());
            return Ok(Self::of(pairs, tokens, set.dropped(), set.cut() as usize));
        }
        let made = Arc::new(tokenizer.encode_all(pairs)?);
        Ok(Self { unkept: vec![(path, made.clone())], ..Self::held(pairs, &made) })
    }

    /// Writes the files of ids that [`PairSet::tokenize_cached`] has not found. What cannot be written is no reason to stop.
    pub fn keep(&self) {
        for (path, set) in &self.unkept {
            let folder = path.parent().unwrap_or(Path::new("."));
            let made = std::fs::create_dir_all(folder).map_err(|error| error.to_string());
            if let Err(error) = made.and_then(|()| set.write(path).map_err(|error| error.to_string())) {
                tracing::warn!("token ids are not kept: {error}");
            }
        }
    }

    fn held(pairs: &[Pair], set: &Arc<TokenizedSet>) -> Self {
        Self::of(pairs, set.clone().into(), &set.dropped, set.cut)
    }

    fn of(pairs: &[Pair], tokens: PairTokens, dropped: &BTreeMap<DropReason, usize>, cut: usize) -> Self {
        let mut set = Self {
            dropped: dropped.iter().map(|(reason, count)| (reason.name().to_owned(), *count)).collect(),
            cut,
            ..Self::default()
        };
        for ids in tokens.iter() {
            let row = ids.index as usize;
            let (source, task) = (set.table.source(&pairs[row].source), &pairs[row].task);
            let task = task.as_ref().map(|task| set.table.task(task));
            let responses = [ids.chosen.len(), ids.rejected.len()];
            set.table.pairs.push(PairEntry { row, tokens: 0, prompt: ids.prompt.len(), responses, source, task });
            set.ids.push(pairs[row].id.clone());
            set.score_margins.push(pairs[row].margin().filter(|margin| margin.is_finite()));
        }
        set.tokens = tokens;
        set.set_feed(Feed::default());
        set
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
        self.tokens.0.extend(other.tokens.0);
        self.unkept.extend(other.unkept);
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
