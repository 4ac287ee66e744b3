//! Win rates of AlpacaEval 2.0.

use std::collections::BTreeMap;
use std::path::PathBuf;

use pyo3::prelude::*;
use simplemix_eval::alpaca::{
    Annotations, Bootstrap, Entry, Instruction, LeaderboardOptions, LengthControl, is_extreme_change, leaderboard,
    read_annotations, read_categories, read_difficulty, read_gamed, read_weights,
};

use crate::failure::{Failure, Result};
use crate::work;

/// The leaderboard of the models in annotation files, best first, as JSON: entries, then notices about unusual rows and figures.
#[pyfunction]
#[pyo3(signature = (annotations, gamed, difficulty, weights, categories, by_category, baseline, bootstrap, seed))]
#[expect(clippy::too_many_arguments, reason = "called by the package alone")]
pub(crate) fn win_rates(
    py: Python<'_>,
    annotations: Vec<PathBuf>,
    gamed: Option<PathBuf>,
    difficulty: Option<PathBuf>,
    weights: Option<PathBuf>,
    categories: Option<PathBuf>,
    by_category: bool,
    baseline: &str,
    bootstrap: u32,
    seed: u64,
) -> Result<String> {
    work::long(py, |stop| {
        let mut notices = Vec::new();
        let mut models: Vec<Annotations> = Vec::new();
        for path in &annotations {
            stop.check()?;
            for mut read in read_annotations(path)? {
                read.baseline.get_or_insert_with(|| baseline.to_owned());
                if let Some(known) = models.iter().find(|known| known.model == read.model) {
                    let by = |of: &Annotations| {
                        let judge = of.annotator.as_deref().unwrap_or("an unnamed judge");
                        format!("by {judge} against {}", of.baseline.as_deref().unwrap_or("an unnamed baseline"))
                    };
                    return Err(Failure::refused(format!(
                        "{}: model `{}` was judged {} already, and is judged {} here; win rates of several judges or baselines \
                         do not compare, so call win_rates once for each",
                        path.display(),
                        read.model,
                        by(known),
                        by(&read)
                    )));
                }
                models.push(read);
            }
        }
        if let Some(path) = &categories {
            let mut found = Vec::new();
            let known = read_categories(path, &mut found)?;
            notices.extend(found);
            let mut unknown = 0;
            for row in models.iter_mut().flat_map(|model| &mut model.rows) {
                let key = row.instruction.clone().unwrap_or(Instruction::Number(row.row as i64));
                row.category = known.get(&key).cloned();
                unknown += usize::from(row.category.is_none());
            }
            if unknown > 0 {
                notices.push(format!("{}: no category for the instructions of {unknown} rows", path.display()));
            }
        }
        let rows = gamed.as_deref().map(read_gamed).transpose()?;
        let difficulty = difficulty.as_deref().map(read_difficulty).transpose()?;
        let control = match (rows, difficulty) {
            (None, None) => None,
            (rows, difficulty) => Some(LengthControl::new(&rows.unwrap_or_default(), difficulty)),
        };
        let weights = weights.as_deref().map(read_weights).transpose()?;
        let options = LeaderboardOptions {
            length_control: control.as_ref(),
            weights: weights.as_ref(),
            bootstrap: (bootstrap > 0).then_some(Bootstrap { replicates: bootstrap, seed }),
            by_category: by_category || categories.is_some(),
        };
        let entries = leaderboard(&models, &options);
        let of_entries: BTreeMap<&str, Vec<String>> =
            entries.iter().map(|entry| (entry.model.as_str(), remarks(&models, entry))).collect();
        notices.extend(of_entries.into_values().flatten());
        serde_json::to_string(&(entries, notices)).map_err(|error| Failure::of(&error))
    })
}

/// Unusual rows and figures of a model, in words.
fn remarks(models: &[Annotations], entry: &Entry) -> Vec<String> {
    let mut notices = Vec::new();
    for model in models.iter().filter(|model| model.model == entry.model) {
        let clauses = model.findings().clauses();
        if !clauses.is_empty() {
            notices.push(format!("{}: {} rows, {}", model.model, model.rows.len(), clauses.join("; ")));
        }
    }
    notices.extend(entry.note.as_ref().map(|note| format!("{}: {note}", entry.model)));
    if let Some(rate) = entry.length_controlled_winrate.filter(|rate| is_extreme_change(entry.plain.win_rate, *rate)) {
        notices.push(format!(
            "{}: length-controlled win rate {rate:.1} is far from the plain one, {:.1}; the fit may have failed",
            entry.model, entry.plain.win_rate
        ));
    }
    notices
}
