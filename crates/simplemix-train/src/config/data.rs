//! Sets of pairs that are joined to one training set, with shares, and a held-out part.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use simplemix_settings::{Setting, choice, section};

section! {
    /// Sets of pairs that are joined, one after another, in place of `train`.
    pub struct DataSettings("data") {
        /// Sets to join: `path`, and if not all is taken `share`; a `name` for the metrics.
        sets: Vec<DataSet> = Vec::new();
        /// Meaning of the shares: each of its own set, drawn at random or from the first rows on, or each of the whole.
        shares: Shares = Shares::OfEachSet;
        /// Order of the joined rows: that of the sets, or shuffled once by `data.seed`.
        shuffle: bool = false;
        /// Rows of the joined sets that are held out for evaluation: a share below 1, or a number.
        held_out: Option<f64> = None, in above(0.0), unit "rows";
        /// Random seed of what is drawn here, as `datasets` draws it.
        seed: u64 = 0;
    }
}

choice! {
    /// Meaning of the shares of joined sets.
    pub enum Shares {
        /// Part of the set's own rows, drawn at random: `weight` of the alignment handbook.
        OfEachSet = "of-each-set";
        /// Part of the set's own rows, from the first on: `dataset_mixer` of the alignment handbook before July 2025.
        FirstOfEachSet = "first-of-each-set";
        /// Part of the whole, from the set's first rows on, as large as no set runs short: `fraction` of TRL.
        OfTheWhole = "of-the-whole";
    }
}

/// A set to join.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSet {
    /// File of pairs, folder of shards, pattern or URL; a data set of the hub as `hf://datasets/OWNER/NAME?split=SPLIT`.
    pub path: PathBuf,
    /// Share of the set, or of the whole; all rows if no set has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<f64>,
    /// Name in the metrics, for rows without a `source` of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl Setting for DataSet {
    fn kind() -> String {
        "a table with `path` and, if need be, `share` and `name`".to_owned()
    }

    fn kinds() -> String {
        "tables with `path` and, if need be, `share` and `name`".to_owned()
    }
}

impl DataSettings {
    /// A problem with the sets: key, what was found, what was expected.
    pub(super) fn problem(&self) -> Option<(&'static str, String, &'static str)> {
        let shares: Vec<f64> = self.sets.iter().filter_map(|set| set.share).collect();
        let is_each = self.shares != Shares::OfTheWhole;
        let wrong = |share: &&f64| !(share.is_finite() && **share >= 0.0 && (!is_each || **share <= 1.0));
        if let Some(share) = shares.iter().find(wrong) {
            let expected = if is_each { "a share from 0 to 1 of the set" } else { "a number >= 0" };
            return Some(("data.sets", format!("with the share {share}"), expected));
        }
        if !is_each && !shares.is_empty() && shares.len() < self.sets.len() {
            return Some((
                "data.sets",
                "without a share in some".to_owned(),
                "shares of the whole in all sets, or in none",
            ));
        }
        if !is_each && !shares.is_empty() && shares.iter().sum::<f64>() == 0.0 {
            return Some(("data.sets", "with shares that are all 0".to_owned(), "a share above 0"));
        }
        if self.sets.is_empty() && (self.held_out.is_some() || self.shuffle) {
            let key = if self.shuffle { "data.shuffle" } else { "data.held_out" };
            return Some((key, "set".to_owned(), "sets to join, `data.sets`"));
        }
        let held_out = self.held_out.filter(|held_out| *held_out >= 1.0 && held_out.fract() != 0.0)?;
        Some(("data.held_out", held_out.to_string(), "a share below 1, or a whole number of rows"))
    }
}
