//! Orders of other tools, row for row, to repeat a published run. For new runs use [`crate::Mixture`].

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::numpy::{Generator, cumulative};

/// Stopping strategy of `interleave_datasets`, under the names of `datasets`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stopping {
    /// Stop as soon as one source has ended.
    #[default]
    FirstExhausted,
    /// Stop when all sources have ended; shorter ones start again.
    AllExhausted,
    /// Stop when all sources have ended; those that have ended are skipped.
    AllExhaustedWithoutReplacement,
}

/// Order of `datasets.interleave_datasets` (5.x) over map-style data sets, as pairs `(source, row)`; `rows` gives the
/// size of each source.
///
/// With `probabilities`, the source of each row is drawn by NumPy's generator under `seed`; without, sources take
/// turns.
///
/// # Examples
/// ```
/// use simplemix_mix::parity::{Stopping, interleave_datasets};
/// let rows = interleave_datasets(&[3, 4, 5], None, 0, Stopping::FirstExhausted)?;
/// assert_eq!(rows[..4], [(0, 0), (1, 0), (2, 0), (0, 1)]);
/// # Ok::<(), simplemix_mix::Error>(())
/// ```
///
/// # Errors
/// [`Error::NoSource`]; [`Error::Setting`] unless there is one probability for each source, none is below 0, their sum
/// is 1, and the order ends.
pub fn interleave_datasets(
    rows: &[u64],
    probabilities: Option<&[f64]>,
    seed: u64,
    stopping: Stopping,
) -> Result<Vec<(usize, u64)>> {
    if rows.is_empty() {
        return Err(Error::NoSource);
    }
    match probabilities {
        None => Ok(in_turn(rows, stopping)),
        Some(probabilities) => {
            check(rows, probabilities, stopping)?;
            Ok(drawn(rows, probabilities, seed, stopping))
        }
    }
}

fn in_turn(rows: &[u64], stopping: Stopping) -> Vec<(usize, u64)> {
    let (least, most) = (rows.iter().copied().min().unwrap_or(0), rows.iter().copied().max().unwrap_or(0));
    let rounds = if stopping == Stopping::FirstExhausted { least } else { most };
    let mut order = Vec::new();
    for round in 0..rounds {
        for (source, &rows) in rows.iter().enumerate().filter(|(_, rows)| **rows > 0) {
            match stopping {
                Stopping::AllExhausted => order.push((source, round % rows)),
                _ if round < rows => order.push((source, round)),
                _ => {}
            }
        }
    }
    order
}

fn check(rows: &[u64], probabilities: &[f64], stopping: Stopping) -> Result<()> {
    let refuse = |found: String, expected| Err(Error::Setting { key: "probabilities", found, expected });
    if probabilities.len() != rows.len() {
        return refuse(format!("a list of {}", probabilities.len()), "one for each source");
    }
    if let Some(p) = probabilities.iter().find(|p| !(**p >= 0.0 && p.is_finite())) {
        return refuse(p.to_string(), "numbers >= 0");
    }
    let sum: f64 = probabilities.iter().sum();
    // NumPy's own tolerance.
    if (sum - 1.0).abs() > 1.5e-8 {
        return refuse(format!("a list with sum {sum}"), "a sum of 1");
    }
    let drawable = |i: usize| probabilities[i] > 0.0;
    if (0..rows.len()).any(|i| rows[i] == 0 && drawable(i)) {
        return refuse("above 0 for a source without rows".to_owned(), "0 for that source");
    }
    if stopping != Stopping::FirstExhausted && !(0..rows.len()).all(drawable) {
        return refuse("0 for a source that must end".to_owned(), "above 0 for every source");
    }
    Ok(())
}

fn drawn(rows: &[u64], probabilities: &[f64], seed: u64, stopping: Stopping) -> Vec<(usize, u64)> {
    let (bounds, mut generator) = (cumulative(probabilities), Generator::new(seed));
    let mut given = vec![0u64; rows.len()];
    let mut order = Vec::new();
    loop {
        let u = generator.uniform();
        let source = bounds.partition_point(|bound| *bound <= u).min(rows.len() - 1);
        let ended = given[source] >= rows[source];
        if stopping == Stopping::AllExhaustedWithoutReplacement && ended {
            continue;
        }
        order.push((source, given[source] % rows[source]));
        given[source] += 1;
        let done = |i: usize| given[i] >= rows[i];
        let stop = match stopping {
            Stopping::FirstExhausted => done(source),
            _ => (0..rows.len()).all(done),
        };
        if stop {
            return order;
        }
    }
}

/// Number of rows that TRL's `DatasetMixtureConfig` (1.16) keeps from the start of each source.
///
/// TRL makes the largest mixture in the ratio of `fractions` for which no source has to repeat a row. It concatenates
/// the sources, and the trainer then shuffles.
///
/// # Errors
/// [`Error::Setting`] unless there is one fraction for each source, none is below 0, and one is above 0.
///
/// # Examples
/// ```
/// use simplemix_mix::parity::trl_mixture;
/// assert_eq!(trl_mixture(&[300, 80], &[0.5, 0.5])?, [80, 80]);
/// # Ok::<(), simplemix_mix::Error>(())
/// ```
pub fn trl_mixture(rows: &[u64], fractions: &[f64]) -> Result<Vec<u64>> {
    let refuse = |found: String, expected| Err(Error::Setting { key: "fractions", found, expected });
    if fractions.len() != rows.len() {
        return refuse(format!("a list of {}", fractions.len()), "one for each source");
    }
    let sum: f64 = fractions.iter().sum();
    let usable = |f: &f64| *f >= 0.0 && f.is_finite();
    if !fractions.iter().all(usable) || sum <= 0.0 {
        return refuse(format!("{fractions:?}"), "numbers >= 0, one of them above 0");
    }
    let weights: Vec<f64> = fractions.iter().map(|f| f / sum).collect();
    let total = rows
        .iter()
        .zip(&weights)
        .filter(|(_, weight)| **weight > 0.0)
        .map(|(&rows, weight)| rows as f64 / weight)
        .fold(f64::INFINITY, f64::min);
    // Python rounds halves to even.
    Ok(rows.iter().zip(&weights).map(|(&rows, weight)| ((weight * total).round_ties_even() as u64).min(rows)).collect())
}
