//! Rows of joined sets: those that are drawn, their order, and those that are held out.
//!
//! Rows are those of the files, whether or not they give a usable pair, so that shares and draws are those of TRL and of the
//! alignment handbook.

use crate::config::{DataSettings, Shares};
use crate::error::{Error, Result};
use crate::numpy_random::permutation;

/// A row: number of its set, and its place there.
pub(super) type Row = (usize, u64);

/// Rows to train on, and rows that are held out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) train: Vec<Row>,
    pub(super) held_out: Vec<Row>,
}

/// Draws from sets of these `sizes`.
pub(super) fn plan(settings: &DataSettings, sizes: &[u64]) -> Result<Plan> {
    let mut rows = match settings.shares {
        Shares::OfEachSet | Shares::FirstOfEachSet => of_each_set(settings, sizes),
        Shares::OfTheWhole => of_the_whole(settings, sizes),
    };
    if settings.shuffle {
        rows = permutation(rows.len(), settings.seed).into_iter().map(|place| rows[place]).collect();
    }
    let Some(held_out) = settings.held_out else { return Ok(Plan { train: rows, held_out: Vec::new() }) };
    let count = if held_out < 1.0 { (held_out * rows.len() as f64).ceil() } else { held_out } as usize;
    if count >= rows.len() {
        let expected = format!("fewer than the {} rows of the joined sets", rows.len());
        return Err(Error::setting("data.held_out", held_out, expected));
    }
    let order = permutation(rows.len(), settings.seed);
    let take = |places: &[usize]| places.iter().map(|&place| rows[place]).collect();
    Ok(Plan { held_out: take(&order[..count]), train: take(&order[count..]) })
}

/// `int(len * share)` rows of each set, which the handbook has shuffled for `weight`.
fn of_each_set(settings: &DataSettings, sizes: &[u64]) -> Vec<Row> {
    let mut rows = Vec::new();
    for (set, (&size, settings_of)) in sizes.iter().zip(&settings.sets).enumerate() {
        match settings_of.share {
            Some(share) if settings.shares == Shares::OfEachSet => {
                let drawn = permutation(size as usize, settings.seed).into_iter().map(|row| (set, row as u64));
                rows.extend(drawn.take((size as f64 * share) as usize));
            }
            share => rows.extend((0..(size as f64 * share.unwrap_or(1.0)) as u64).map(|row| (set, row))),
        }
    }
    rows
}

/// TRL's `fraction`: the first rows, of a whole that is as large as no set runs short.
fn of_the_whole(settings: &DataSettings, sizes: &[u64]) -> Vec<Row> {
    let shares: Vec<f64> = settings.sets.iter().filter_map(|set| set.share).collect();
    let sum: f64 = shares.iter().sum();
    let first = |(set, size): (usize, u64)| (0..size).map(move |row| (set, row));
    if shares.len() < sizes.len() || sum == 0.0 {
        return sizes.iter().copied().enumerate().flat_map(first).collect();
    }
    let weights: Vec<f64> = shares.iter().map(|share| share / sum).collect();
    let bounds = sizes.iter().zip(&weights).filter(|(_, weight)| **weight > 0.0);
    let total = bounds.map(|(&size, weight)| size as f64 / weight).fold(f64::INFINITY, f64::min);
    let counts = weights.iter().map(|weight| (weight * total).round_ties_even() as u64);
    counts.zip(sizes).map(|(count, &size)| count.min(size)).enumerate().flat_map(first).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::TrainConfig;

    fn settings(text: &str) -> DataSettings {
        TrainConfig::from_toml(&format!("[data]\n{text}"), Path::new("run.toml")).unwrap().data
    }

    fn sets(shares: &[f64]) -> String {
        let sets = shares.iter().map(|share| format!("{{ path = 'a', share = {share:?} }}")).collect::<Vec<_>>();
        format!("sets = [{}]\n", sets.join(", "))
    }

    /// TRL 1.16 and the alignment handbook on `datasets` of plain rows, by `tests/golden/train_mixtures.py`.
    #[test]
    fn rows_are_those_of_trl_and_of_the_handbook() {
        let golden = crate::golden("mixtures");
        for case in golden["cases"].as_array().unwrap() {
            let numbers =
                |key: &str| case[key].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect::<Vec<_>>();
            let sizes: Vec<u64> = numbers("sizes").iter().map(|size| *size as u64).collect();
            let rest = case["settings"].as_str().unwrap();
            let plan = plan(&settings(&format!("{}{rest}", sets(&numbers("shares")))), &sizes).unwrap();
            for (name, rows) in [("train", plan.train), ("test", plan.held_out)] {
                let rows: Vec<String> = rows.iter().map(|(set, row)| format!("{set}:{row}")).collect();
                let expected: Vec<String> = serde_json::from_value(case[name].clone()).unwrap();
                assert_eq!(rows, expected, "{name} of {}", case["settings"]);
            }
        }
    }

    #[test]
    fn without_shares_all_rows_are_joined_in_order() {
        for shares in ["of-each-set", "of-the-whole"] {
            let text = format!("sets = [{{ path = 'a' }}, {{ path = 'b' }}]\nshares = '{shares}'\n");
            let plan = plan(&settings(&text), &[2, 1]).unwrap();
            assert_eq!(plan, Plan { train: vec![(0, 0), (0, 1), (1, 0)], held_out: vec![] });
        }
    }

    #[test]
    fn what_cannot_be_held_out_is_refused() {
        let error = plan(&settings(&format!("{}held_out = 5\n", sets(&[1.0]))), &[5]).unwrap_err().to_string();
        assert_eq!(error, "`data.held_out` is 5, expected fewer than the 5 rows of the joined sets");
    }
}
