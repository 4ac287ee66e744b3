//! What a mixture held: asked for and achieved, side by side, in a file that can be checked later.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::mixture::{Mixture, MixtureConfig, Planned, Promise};

/// Counts of pairs and response tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Pairs.
    pub pairs: u64,
    /// Their response tokens (or whatever length the caller counts in).
    pub tokens: u64,
}

/// What a source came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourceAchieved {
    /// The source.
    pub name: String,
    /// Share of the pairs that was asked for.
    pub asked: f64,
    /// Share of the pairs that it has.
    pub share: f64,
    /// Share of the tokens that it has.
    pub token_share: f64,
    /// Its pairs and tokens.
    #[serde(flatten)]
    pub tally: Tally,
    /// The same in each task.
    pub tasks: BTreeMap<String, Tally>,
    /// Pairs on each rank.
    pub ranks: Vec<u64>,
}

/// What a mixture came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Achieved {
    /// Pairs in all.
    pub pairs: u64,
    /// Source by source.
    pub sources: Vec<SourceAchieved>,
    /// Most pairs that any prefix strayed from a share.
    pub prefix_discrepancy: f64,
    /// Most pairs that any batch strayed from a share; none without batches.
    pub batch_discrepancy: Option<f64>,
}

/// Where a source's rows came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The source.
    pub name: String,
    /// Path or URL, as given.
    pub path: String,
    /// blake3 of the file, or of all its files one after the other, in hex.
    pub blake3: String,
    /// Rows that could be used.
    pub rows: u64,
    /// Rows that could not, by reason.
    pub refused: BTreeMap<String, u64>,
}

/// A mixture's papers: enough to make it again and to check that it is the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// Version of this format.
    pub version: u32,
    /// Program that wrote it, with its version.
    pub tool: String,
    /// The mixture.
    pub mixture: MixtureConfig,
    /// Its sources' files.
    pub origins: Vec<Origin>,
    /// What each source was to give.
    pub plan: Vec<Planned>,
    /// How near to the shares it was to stay.
    pub promise: Promise,
    /// What was achieved.
    pub achieved: Achieved,
    /// Path of the result.
    pub output: String,
    /// blake3 of the result, in hex.
    pub output_blake3: String,
}

/// Adds up a mixture row by row.
///
/// ```
/// use simplemix_mix::{Audit, Mixture, MixtureConfig, SourceConfig};
/// let source = |name: &str| SourceConfig::new(name, 10, "1".parse().unwrap());
/// let mixture = Mixture::new(MixtureConfig::new(vec![source("off"), source("on")], 1))?;
/// let mut audit = Audit::new(&mixture, 2);
/// mixture.iter().for_each(|draw| audit.see(draw.source, Some("math"), 30));
/// let achieved = audit.finish();
/// assert_eq!(achieved.sources[1].share, 0.5);
/// // Alternating rows all go to one of two ranks: take the order batch_shuffled for several.
/// assert_eq!(achieved.sources[1].ranks, [0, 10]);
/// # Ok::<(), simplemix_mix::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Audit<'a> {
    mixture: &'a Mixture,
    sources: Vec<SourceAchieved>,
    in_batch: Vec<u64>,
    step: u64,
    prefix: f64,
    batch: f64,
}

impl<'a> Audit<'a> {
    /// Nothing seen yet, of `mixture` on so many ranks.
    pub fn new(mixture: &'a Mixture, ranks: usize) -> Self {
        let total = mixture.len();
        let sources = mixture
            .config()
            .sources
            .iter()
            .enumerate()
            .map(|(i, source)| SourceAchieved {
                name: source.name.clone(),
                asked: mixture.due(i, total) / total as f64,
                share: 0.0,
                token_share: 0.0,
                tally: Tally::default(),
                tasks: BTreeMap::new(),
                ranks: vec![0; ranks.max(1)],
            })
            .collect::<Vec<_>>();
        Self { mixture, in_batch: vec![0; sources.len()], sources, step: 0, prefix: 0.0, batch: 0.0 }
    }

    /// The next row: its source, task and length.
    pub fn see(&mut self, source: usize, task: Option<&str>, tokens: u64) {
        let rank = (self.step % self.sources[source].ranks.len() as u64) as usize;
        let seen = &mut self.sources[source];
        seen.ranks[rank] += 1;
        add(&mut seen.tally, tokens);
        if let Some(task) = task {
            match seen.tasks.get_mut(task) {
                Some(tally) => add(tally, tokens),
                None => drop(seen.tasks.insert(task.to_owned(), Tally { pairs: 1, tokens })),
            }
        }
        self.in_batch[source] += 1;
        self.step += 1;
        for (i, source) in self.sources.iter().enumerate() {
            self.prefix = self.prefix.max((source.tally.pairs as f64 - self.mixture.due(i, self.step)).abs());
        }
        if let Some(size) = self.mixture.config().batch.filter(|size| self.step.is_multiple_of(*size)) {
            for (i, held) in self.in_batch.iter_mut().enumerate() {
                let due = self.mixture.due(i, self.step) - self.mixture.due(i, self.step - size);
                self.batch = self.batch.max((*held as f64 - due).abs());
                *held = 0;
            }
        }
    }

    /// What was seen.
    pub fn finish(mut self) -> Achieved {
        let tokens: u64 = self.sources.iter().map(|source| source.tally.tokens).sum();
        for source in &mut self.sources {
            source.share = source.tally.pairs as f64 / self.step.max(1) as f64;
            source.token_share = source.tally.tokens as f64 / tokens.max(1) as f64;
        }
        Achieved {
            pairs: self.step,
            sources: self.sources,
            prefix_discrepancy: self.prefix,
            batch_discrepancy: self.mixture.config().batch.map(|_| self.batch),
        }
    }
}

fn add(tally: &mut Tally, tokens: u64) {
    tally.pairs += 1;
    tally.tokens += tokens;
}
