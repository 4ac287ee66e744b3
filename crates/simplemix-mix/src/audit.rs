//! Report on a mixture: the shares asked for beside those achieved, in a file that can be checked later.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::MixtureConfig;
use crate::mixture::Mixture;
use crate::plan::{Planned, Promise};

/// Key of a mixed file's metadata under which the shares that were asked for stand, as a JSON object of sources and their shares
/// of the pairs.
pub const SHARES_KEY: &str = "simplemix.shares";

/// Metadata key for the ages of a mixture's on-policy sources: for each, the rounds between the model that wrote its pairs and the one
/// that is to be trained on them, as a JSON object.
pub const AGES_KEY: &str = "simplemix.ages";

/// Numbers of pairs and of response tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Number of pairs.
    pub pairs: u64,
    /// Response tokens of the pairs, or another length that the caller counts in.
    pub tokens: u64,
}

/// Achieved figures of one source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourceAchieved {
    /// Name of the source.
    pub name: String,
    /// Share of the pairs that was asked for.
    pub asked: f64,
    /// Share of the pairs that was achieved.
    pub share: f64,
    /// Share of the tokens that was achieved.
    pub token_share: f64,
    /// Pairs and tokens of the source.
    #[serde(flatten)]
    pub tally: Tally,
    /// Pairs and tokens of the source by task.
    pub tasks: BTreeMap<String, Tally>,
    /// Pairs of the source on each rank.
    pub ranks: Vec<u64>,
}

/// Achieved figures of a mixture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Achieved {
    /// Number of pairs in the mixture.
    pub pairs: u64,
    /// Figures of each source.
    pub sources: Vec<SourceAchieved>,
    /// Most pairs by which any prefix strayed from a share.
    pub prefix_discrepancy: f64,
    /// Most pairs by which any batch strayed from a share; `None` without a batch size.
    pub batch_discrepancy: Option<f64>,
}

/// Files of one source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Name of the source.
    pub name: String,
    /// Path or URL, as given.
    pub path: String,
    /// blake3 hash of the file, or of all files of the source in order, in hex.
    pub blake3: String,
    /// Number of usable rows.
    pub rows: u64,
    /// Numbers of refused rows by reason.
    pub refused: BTreeMap<String, u64>,
}

/// Receipt of a mixture: enough to make it again and to check that it is the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// Version of this format.
    pub version: u32,
    /// Name and version of the program that wrote the receipt.
    pub tool: String,
    /// Settings of the mixture.
    pub mixture: MixtureConfig,
    /// Files of the sources.
    pub origins: Vec<Origin>,
    /// Number of rows planned for each source.
    pub plan: Vec<Planned>,
    /// Bounds promised by the plan.
    pub promise: Promise,
    /// Achieved figures.
    pub achieved: Achieved,
    /// Path of the result.
    pub output: String,
    /// blake3 hash of the result, in hex.
    pub output_blake3: String,
}

/// Counts a mixture pair by pair.
///
/// # Examples
/// ```
/// use simplemix_mix::{Audit, Mixture, MixtureConfig, SourceConfig};
/// let source = |name: &str| SourceConfig::new(name, 10, "1".parse().unwrap());
/// let mixture = Mixture::new(MixtureConfig::new(vec![source("off"), source("on")], 1))?;
/// let mut audit = Audit::new(&mixture, 2);
/// mixture.iter().for_each(|draw| audit.see(draw.source, Some("math"), 30));
/// let achieved = audit.finish();
/// assert_eq!(achieved.sources[1].share, 0.5);
/// // Alternating pairs of a source all go to one of two ranks; the order batch-shuffled avoids that.
/// assert_eq!(achieved.sources[1].ranks, [0, 10]);
/// # Ok::<(), simplemix_mix::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Audit<'a> {
    mixture: &'a Mixture,
    sources: Vec<SourceAchieved>,
    in_batch: Vec<u64>,
    position: u64,
    prefix: f64,
    batch: f64,
}

impl<'a> Audit<'a> {
    /// Starts at the first position of `mixture`, with its pairs dealt to `ranks` ranks in turn.
    pub fn new(mixture: &'a Mixture, ranks: usize) -> Self {
        let len = mixture.len();
        let sources = mixture
            .config()
            .sources
            .iter()
            .enumerate()
            .map(|(i, source)| SourceAchieved {
                name: source.name.clone(),
                asked: mixture.due(i, len) / len as f64,
                share: 0.0,
                token_share: 0.0,
                tally: Tally::default(),
                tasks: BTreeMap::new(),
                ranks: vec![0; ranks.max(1)],
            })
            .collect::<Vec<_>>();
        Self { mixture, in_batch: vec![0; sources.len()], sources, position: 0, prefix: 0.0, batch: 0.0 }
    }

    /// Counts the pair at the next position, with its source, task and length.
    pub fn see(&mut self, source: usize, task: Option<&str>, tokens: u64) {
        let rank = (self.position % self.sources[source].ranks.len() as u64) as usize;
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
        self.position += 1;
        for (i, source) in self.sources.iter().enumerate() {
            self.prefix = self.prefix.max((source.tally.pairs as f64 - self.mixture.due(i, self.position)).abs());
        }
        if let Some(size) = self.mixture.config().batch.filter(|size| self.position.is_multiple_of(*size)) {
            for (i, held) in self.in_batch.iter_mut().enumerate() {
                let due = self.mixture.due(i, self.position) - self.mixture.due(i, self.position - size);
                self.batch = self.batch.max((*held as f64 - due).abs());
                *held = 0;
            }
        }
    }

    /// The achieved figures.
    pub fn finish(mut self) -> Achieved {
        let tokens: u64 = self.sources.iter().map(|source| source.tally.tokens).sum();
        for source in &mut self.sources {
            source.share = source.tally.pairs as f64 / self.position.max(1) as f64;
            source.token_share = source.tally.tokens as f64 / tokens.max(1) as f64;
        }
        Achieved {
            pairs: self.position,
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
