//! A table of models under the official leaderboard's column names.

use std::collections::BTreeMap;

use rayon::prelude::*;
use serde::Serialize;

use crate::alpaca::annotation::Annotations;
use crate::alpaca::bootstrap::{Bootstrap, Interval};
use crate::alpaca::length_control::{GlmWeights, LengthControl, LengthControlled, predict};
use crate::alpaca::win_rate::WinRate;
use crate::error::Result;
use crate::stats::{mean, standard_error};

/// A row of the leaderboard.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    /// The model.
    pub model: String,
    /// Plain figures.
    #[serde(flatten)]
    pub plain: WinRate,
    /// Win rate at equal lengths, in percent; none where it cannot be computed.
    pub length_controlled_winrate: Option<f64>,
    /// Its standard error over instructions.
    pub lc_standard_error: Option<f64>,
    /// Interval of the win rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub win_rate_interval: Option<Interval>,
    /// Interval of the length-controlled win rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lc_interval: Option<Interval>,
    /// Weights of the regression.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub glm_weights: Option<GlmWeights>,
    /// Weight of the data against the penalty, where it was fitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub glm_c: Option<f64>,
    /// The same for each category, in the order of their names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub categories: Vec<CategoryRow>,
    /// Why there is no length-controlled win rate.
    #[serde(skip)]
    pub note: Option<String>,
}

/// A model's figures on the instructions of a category.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CategoryRow {
    /// Its name; empty for rows without one.
    pub category: String,
    /// Verdicts.
    pub n: usize,
    /// Win rate in percent.
    pub win_rate: f64,
    /// Its standard error.
    pub standard_error: f64,
    /// Mean over the category of the chances to win at equal lengths, from the fit over all rows.
    pub length_controlled_winrate: Option<f64>,
}

/// What goes into a leaderboard.
#[derive(Debug, Clone, Copy, Default)]
pub struct LeaderboardOptions<'a> {
    /// The inputs of the length control; none for plain figures.
    pub length_control: Option<&'a LengthControl>,
    /// Weights that are not to be fitted, by model.
    pub weights: Option<&'a BTreeMap<String, GlmWeights>>,
    /// Intervals; none without.
    pub bootstrap: Option<Bootstrap>,
    /// Whether figures are told by category too.
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
        let intervals = self.bootstrap.map(|bootstrap| bootstrap.intervals(annotations, fitted));
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

/// The figures of all models, best first: by the length-controlled win rate, or the plain one where there is none.
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
