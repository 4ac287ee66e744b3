//! Tokenised pairs, for the loop and the learners.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use simplemix_data::{DropReason, Pair, PairTokenizer, TokenRow, TokenSet, TokenizedPair, TokenizedSet};
use simplemix_files::open_dir;
use simplemix_loss::losses::quantile::quantile_reward;
use simplemix_model::ModelConfig;

use crate::config::{Objective, TrainConfig};
use crate::error::{Error, Result};
use crate::sides::Sides;
use crate::table::{PairEntry, PairTable};

/// Responses of a pair that are run through the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Feed {
    /// Both responses after one copy of the prompt.
    #[default]
    Shared,
    /// Both responses, each after its own copy of the prompt.
    Apart,
    /// The chosen response only.
    Chosen,
}

impl Feed {
    /// How a run feeds its pairs.
    pub(crate) fn of(config: &TrainConfig) -> Self {
        match (config.objective, config.memory.share_prompts) {
            (Objective::Sft, _) => Self::Chosen,
            (_, true) => Self::Shared,
            (_, false) => Self::Apart,
        }
    }

    /// How a pair is fed whose responses can share a prompt unless it `is_split`.
    pub(crate) fn of_pair(self, is_split: bool) -> Self {
        if is_split && self == Self::Shared { Self::Apart } else { self }
    }
}

/// A named held-out set. The name is part of the names of its metrics and may be empty.
pub(crate) type NamedSet = (String, PairSet);

/// Pairs as token ids, with their table.
#[derive(Debug, Default)]
pub struct PairSet {
    /// Lengths and sources.
    pub table: PairTable,
    /// Token ids, in the table's order.
    pub(crate) tokens: PairTokens,
    /// Content hashes of the pairs, in the table's order.
    pub(crate) ids: Vec<String>,
    /// Chosen score minus rejected score, in the table's order; `None` if one is unknown.
    pub(crate) score_margins: Vec<Option<f64>>,
    /// Quantile rewards of the responses, in the table's order.
    pub(crate) quantiles: Vec<Quantiles>,
    /// Number of pairs left out, by reason.
    pub dropped: BTreeMap<String, usize>,
    /// Number of pairs with a truncated response.
    pub cut: usize,
    pub(crate) feed: Feed,
    /// Token ids to be cached, and their files.
    pub(crate) uncached: Vec<(PathBuf, Arc<TokenizedSet>)>,
}

/// Quantile rewards of a pair's responses among the [reference rewards](Pair::ref_rewards).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Quantiles {
    Known(Sides<f64>),
    /// A response has no score.
    NoScores,
    /// There are no rewards of the reference.
    NoReferenceRewards,
}

impl Quantiles {
    fn of(pair: &Pair) -> Self {
        let (Some(chosen), Some(rejected)) = (pair.score_chosen, pair.score_rejected) else { return Self::NoScores };
        let side = |score: f64| quantile_reward(score, &pair.ref_rewards);
        match (side(chosen), side(rejected)) {
            (Some(chosen), Some(rejected)) => Self::Known(Sides { chosen, rejected }),
            _ if chosen.is_nan() || rejected.is_nan() => Self::NoScores,
            _ => Self::NoReferenceRewards,
        }
    }
}

/// Token ids of pairs, as they were made or as files have them.
#[derive(Debug, Default)]
pub(crate) struct PairTokens(Vec<Ids>);

/// Token ids of a pair: a set and the row in it.
#[derive(Debug)]
enum Ids {
    Made(Arc<TokenizedSet>, usize),
    Read(Arc<TokenSet>, usize),
}

impl PairTokens {
    /// Token ids of pair number `pair`.
    ///
    /// # Panics
    /// If there is no such pair, like indexing a slice.
    pub(crate) fn get(&self, pair: usize) -> TokenRow<'_> {
        match &self.0[pair] {
            Ids::Made(set, row) => {
                let (index, TokenizedPair { prompt, chosen, rejected, .. }) = &set.pairs[*row];
                TokenRow { index: *index as u64, prompt, chosen, rejected }
            }
            Ids::Read(set, row) => set.get(*row),
        }
    }

    /// Token ids of all pairs, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = TokenRow<'_>> {
        (0..self.len()).map(|pair| self.get(pair))
    }

    /// Number of pairs.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no pairs.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn write_tokens(path: &Path, set: &TokenizedSet) -> Result<()> {
    if let Some(folder) = path.parent() {
        open_dir(folder)?;
    }
    Ok(set.write(path)?)
}

impl From<Arc<TokenizedSet>> for PairTokens {
    fn from(set: Arc<TokenizedSet>) -> Self {
        Self((0..set.pairs.len()).map(|row| Ids::Made(set.clone(), row)).collect())
    }
}

#[cfg(test)]
impl FromIterator<TokenizedPair> for PairTokens {
    fn from_iter<I: IntoIterator<Item = TokenizedPair>>(pairs: I) -> Self {
        Arc::new(TokenizedSet { pairs: pairs.into_iter().enumerate().collect(), ..TokenizedSet::default() }).into()
    }
}

impl PairSet {
    /// Tokenises `pairs`. The row of an entry is its index in `pairs`.
    ///
    /// # Errors
    /// [`crate::Error::Data`] if the chat template or the tokenizer fails.
    pub fn tokenize(pairs: &[Pair], tokenizer: &PairTokenizer) -> Result<Self> {
        Ok(Self::in_memory(pairs, &Arc::new(tokenizer.encode_all(pairs)?)))
    }

    /// Like [`PairSet::tokenize`], with a cache of token ids in `folder`. Ids that are not in the cache are added by
    /// [`PairSet::fill_cache`].
    ///
    /// # Errors
    /// Errors of [`PairSet::tokenize`].
    pub(crate) fn tokenize_cached(pairs: &[Pair], tokenizer: &PairTokenizer, folder: &Path) -> Result<Self> {
        let path = tokenizer.token_set_path(pairs, folder)?;
        if let Ok(set) = TokenSet::open(&path)
            && set.iter().all(|row| row.index < pairs.len() as u64)
        {
            let set = Arc::new(set);
            let tokens = PairTokens((0..set.len()).map(|row| Ids::Read(set.clone(), row)).collect());
            return Ok(Self::from_tokens(pairs, tokens, set.dropped(), set.cut() as usize));
        }
        let made = Arc::new(tokenizer.encode_all(pairs)?);
        Ok(Self { uncached: vec![(path, made.clone())], ..Self::in_memory(pairs, &made) })
    }

    /// Caches the token ids that [`PairSet::tokenize_cached`] did not find. A file that cannot be written is logged.
    pub(crate) fn fill_cache(&self) {
        for (path, set) in &self.uncached {
            if let Err(error) = write_tokens(path, set) {
                tracing::warn!("token ids are not cached: {error}");
            }
        }
    }

    fn in_memory(pairs: &[Pair], set: &Arc<TokenizedSet>) -> Self {
        Self::from_tokens(pairs, set.clone().into(), &set.dropped, set.cut)
    }

    fn from_tokens(pairs: &[Pair], tokens: PairTokens, dropped: &BTreeMap<DropReason, usize>, cut: usize) -> Self {
        let mut set = Self {
            dropped: dropped.iter().map(|(reason, count)| (reason.name().to_owned(), *count)).collect(),
            cut,
            ..Self::default()
        };
        for ids in tokens.iter() {
            let row = ids.index as usize;
            let (source, task) = (set.table.source(&pairs[row].source), &pairs[row].task);
            let task = task.as_ref().map(|task| set.table.task(task));
            let responses = Sides { chosen: ids.chosen.len(), rejected: ids.rejected.len() };
            set.table.pairs.push(PairEntry {
                row,
                prompt: ids.prompt.len(),
                responses,
                source,
                task,
                ..PairEntry::default()
            });
            set.ids.push(pairs[row].id.clone());
            set.score_margins.push(pairs[row].margin().filter(|margin| margin.is_finite()));
            set.quantiles.push(Quantiles::of(&pairs[row]));
        }
        set.tokens = tokens;
        set.set_feed(Feed::default(), &[]);
        set
    }

    /// Responses of a pair that are run through the model.
    pub(crate) fn feed(&self) -> Feed {
        self.feed
    }

    /// Selects the responses that are run through the `models`, and with it the tokens that each pair counts in a micro-batch.
    pub(crate) fn set_feed(&mut self, feed: Feed, models: &[&ModelConfig]) {
        self.feed = feed;
        for pair in &mut self.table.pairs {
            let (prompt, Sides { chosen, rejected }) = (pair.prompt, pair.responses);
            pair.is_split = !models.iter().all(|model| model.same_frequencies(prompt + chosen, prompt + rejected));
            pair.tokens = match feed.of_pair(pair.is_split) {
                Feed::Shared => prompt + chosen + rejected,
                Feed::Apart => 2 * prompt + chosen + rejected,
                Feed::Chosen => prompt + chosen,
            };
        }
    }

    /// Appends the pairs of `other` under the source `name`.
    pub(crate) fn append(&mut self, other: Self, name: &str) {
        let source = self.table.source(name);
        for mut pair in other.table.pairs {
            pair.source = source;
            pair.task = pair.task.map(|task| self.table.task(&other.table.tasks[task]));
            self.table.pairs.push(pair);
        }
        self.tokens.0.extend(other.tokens.0);
        self.uncached.extend(other.uncached);
        self.ids.extend(other.ids);
        self.score_margins.extend(other.score_margins);
        self.quantiles.extend(other.quantiles);
        self.cut += other.cut;
        for (reason, count) in other.dropped {
            *self.dropped.entry(reason).or_default() += count;
        }
    }

    /// Token ids of all pairs, in the table's order.
    pub fn token_rows(&self) -> impl Iterator<Item = TokenRow<'_>> {
        self.tokens.iter()
    }

    /// Refuses pairs that `model` cannot compute, before time is spent on the others; `set` is the name of these in messages,
    /// and `sampled` the tokens that will be sampled after each prompt.
    ///
    /// # Errors
    /// [`Error::Unfit`] with the first of them.
    pub fn check_for(&self, model: &ModelConfig, set: &str, sampled: usize) -> Result<()> {
        let check = |ids: TokenRow<'_>| {
            model.check_sequence(ids.prompt, sampled.max(ids.chosen.len()).max(ids.rejected.len()))?;
            model.check_sequence(ids.chosen, 0)?;
            model.check_sequence(ids.rejected, 0)
        };
        for (ids, entry) in self.tokens.iter().zip(&self.table.pairs) {
            let unfit = |source| Error::Unfit { set: set.to_owned(), row: entry.row, source: Box::new(source) };
            check(ids).map_err(unfit)?;
        }
        Ok(())
    }

    /// Number of pairs.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Hash of token ids, sources, scores and quantile rewards, in their order.
    pub fn hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        let pairs = self.tokens.iter().zip(&self.table.pairs).zip(&self.score_margins);
        for (at, ((row, pair), margin)) in pairs.enumerate() {
            for ids in [row.prompt, row.chosen, row.rejected] {
                hasher.update(&(ids.len() as u64).to_le_bytes());
                for id in ids {
                    hasher.update(&id.to_le_bytes());
                }
            }
            hasher.update(self.table.sources[pair.source].as_bytes());
            hasher.update(&margin.unwrap_or(f64::NAN).to_le_bytes());
            if let Some(Quantiles::Known(Sides { chosen, rejected })) = self.quantiles.get(at) {
                hasher.update(&chosen.to_le_bytes());
                hasher.update(&rejected.to_le_bytes());
            }
        }
        hasher.finalize().to_hex().to_string()
    }

    /// Whether there are no pairs.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Summary in words: pairs, tokens, and how many pairs were truncated and dropped.
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

    /// Number of tokens that are run through the model, over all pairs.
    pub fn tokens(&self) -> usize {
        self.table.pairs.iter().map(|pair| pair.tokens).sum()
    }

    /// Name of each source with the number and the share of its pairs.
    pub fn shares(&self) -> Vec<(&str, usize, f64)> {
        let total = self.len().max(1) as f64;
        let count = |number| self.table.pairs.iter().filter(|pair| pair.source == number).count();
        let names = self.table.sources.iter().map(String::as_str);
        names.enumerate().map(|(number, name)| (name, count(number), count(number) as f64 / total)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_that_the_model_cannot_compute_is_named_by_its_row() {
        let pair = |prompt: u32, chosen: u32, rejected: u32| TokenizedPair {
            prompt: vec![prompt],
            chosen: vec![chosen],
            rejected: vec![rejected],
            ..TokenizedPair::default()
        };
        let config = simplemix_model::tiny::config();
        let set = |last: TokenizedPair| {
            let mut set = PairSet { tokens: [pair(1, 2, 258), last].into_iter().collect(), ..PairSet::default() };
            set.table.pairs = [0, 9].map(|row| PairEntry { row, ..PairEntry::default() }).into();
            set
        };
        set(pair(3, 4, 5)).check_for(&config, "these", 7).unwrap();
        for last in [pair(259, 4, 5), pair(3, 259, 5), pair(3, 4, 259)] {
            let error = set(last).check_for(&config, "these", 0).unwrap_err().to_string();
            assert!(error.starts_with("pair 9 of these: token id is 259, expected below 259"), "{error}");
        }
    }
}
