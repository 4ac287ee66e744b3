//! Leaderboard: figures of several models, under the official leaderboard's column names.

use std::collections::BTreeMap;

use rayon::prelude::*;
use serde::Serialize;

use crate::alpaca::annotation::Annotations;
use crate::alpaca::bootstrap::{Bootstrap, Interval};
use crate::alpaca::length_control::{LengthControl, LengthControlled, predict};
use crate::alpaca::tables::GlmWeights;
use crate::alpaca::win_rate::WinRate;
use crate::error::Result;
use crate::stats::{mean, standard_error};

/// Figures of one model on the leaderboard.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    /// Name of the model.
    pub model: String,
    /// Plain figures.
    #[serde(flatten)]
    pub plain: WinRate,
    /// Length-controlled win rate in percent; `None` if it cannot be computed.
    pub length_controlled_winrate: Option<f64>,
    /// Standard error of the length-controlled win rate over instructions.
    pub lc_standard_error: Option<f64>,
    /// Interval of the win rate; `None` with fewer than two verdicts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub win_rate_interval: Option<Interval>,
    /// Interval of the length-controlled win rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lc_interval: Option<Interval>,
    /// Weights of the regression.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub glm_weights: Option<GlmWeights>,
    /// Weight of the data against the penalty; `None` if the weights were given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub glm_c: Option<f64>,
    /// Figures of each category, in the order of their names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub categories: Vec<CategoryRow>,
    /// Reason why there is no length-controlled win rate.
    #[serde(skip)]
    pub note: Option<String>,
}

/// Figures of one model on the instructions of one category.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CategoryRow {
    /// Name of the category; empty for rows without one.
    pub category: String,
    /// Number of verdicts.
    pub n: usize,
    /// Win rate in percent.
    pub win_rate: f64,
    /// Standard error of the win rate.
    pub standard_error: f64,
    /// Length-controlled win rate in the category, from the fit over all rows.
    pub length_controlled_winrate: Option<f64>,
}

/// Options of a leaderboard.
#[derive(Debug, Clone, Copy, Default)]
pub struct LeaderboardOptions<'a> {
    /// Inputs of the length control; `None` for plain figures only.
    pub length_control: Option<&'a LengthControl>,
    /// Published weights by model; those of other models are fitted.
    pub weights: Option<&'a BTreeMap<String, GlmWeights>>,
    /// Settings of the intervals; `None` for no intervals.
    pub bootstrap: Option<Bootstrap>,
    /// Whether to add the figures of each category.
    pub by_category: bool,
}

impl LeaderboardOptions<'_> {
    fn entry(&self, annotations: &Annotations) -> Entry {
        let plain = WinRate::of(annotations);
        let controlled = self.length_control.map(|control| self.controlled(control, annotations));
        let (controlled, note) = match controlled {
            None => (None, None),
            Some(Ok(found)) => (Some(found), None),
            Some(Err(error)) => (None, Some(error.to_string())),
        };
        let fitted = self.length_control.zip(controlled.as_ref());
        // All replicates of a single verdict are that verdict: an interval would claim that it is certain.
        let intervals = self.bootstrap.filter(|_| plain.n_total > 1).map(|bootstrap| {
            let intervals = bootstrap.intervals(annotations, fitted);
            intervals.expect("lengths and difficulties were there for the fit")
        });
        Entry {
            model: annotations.model.clone(),
            plain,
            length_controlled_winrate: controlled.as_ref().map(|found| found.win_rate),
            lc_standard_error: controlled.as_ref().map(|found| found.standard_error),
            win_rate_interval: intervals.map(|(plain, _)| plain),
            lc_interval: intervals.and_then(|(_, controlled)| controlled),
            glm_weights: controlled.as_ref().map(|found| found.weights),
            glm_c: controlled.as_ref().and_then(|found| found.c),
            categories: if self.by_category { categories(annotations, controlled.as_ref()) } else { Vec::new() },
            note,
        }
    }

    fn controlled(&self, control: &LengthControl, annotations: &Annotations) -> Result<LengthControlled> {
        match self.weights.and_then(|weights| weights.get(&annotations.model)) {
            Some(weights) => predict(annotations, *weights, control.difficulty()),
            None => control.fit(annotations),
        }
    }
}

/// Computes the figures of all models, best first, by the length-controlled win rate or else the plain one.
///
/// # Examples
/// ```
/// use simplemix_eval::alpaca::{Annotation, Annotations, LeaderboardOptions, leaderboard};
///
/// let row = |preference| Annotation {
///     row: 0,
///     instruction: None,
///     preference: Some(preference),
///     lengths: None,
///     category: None,
/// };
/// let model = |name: &str, preference| Annotations {
///     model: name.into(),
///     annotator: None,
///     baseline: None,
///     rows: vec![row(preference)],
///     refused: 0,
/// };
/// let entries = leaderboard(&[model("weak", 1.25), model("strong", 1.75)], &LeaderboardOptions::default());
/// assert_eq!((entries[0].model.as_str(), entries[0].plain.win_rate), ("strong", 75.0));
/// ```
pub fn leaderboard(models: &[Annotations], options: &LeaderboardOptions<'_>) -> Vec<Entry> {
    let mut entries: Vec<Entry> = models.par_iter().map(|model| options.entry(model)).collect();
    let key = |entry: &Entry| entry.length_controlled_winrate.unwrap_or(entry.plain.win_rate);
    entries.sort_by(|a, b| key(b).total_cmp(&key(a)).then_with(|| a.model.cmp(&b.model)));
    entries
}

fn categories(annotations: &Annotations, controlled: Option<&LengthControlled>) -> Vec<CategoryRow> {
    let mut places: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (place, row) in annotations.rows.iter().enumerate() {
        places.entry(row.category.as_deref().unwrap_or_default()).or_default().push(place);
    }
    let row = |(category, places): (&str, Vec<usize>)| {
        let outcomes: Vec<f64> = places.iter().filter_map(|place| annotations.rows[*place].outcome()).collect();
        let chances = |found: &LengthControlled| places.iter().map(|place| found.predicted[*place]).collect::<Vec<_>>();
        CategoryRow {
            category: category.to_owned(),
            n: outcomes.len(),
            win_rate: 100.0 * mean(&outcomes),
            standard_error: 100.0 * standard_error(&outcomes),
            length_controlled_winrate: controlled.map(|found| 100.0 * mean(&chances(found))),
        }
    };
    places.into_iter().map(row).collect()
}
