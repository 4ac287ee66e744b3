//! Shares by task, such as on-policy pairs where answers can be checked and off-policy pairs elsewhere, as the paper
//! finds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::{MixtureConfig, SourceConfig};
use crate::error::{Error, Result};
use crate::mixture::Mixture;
use crate::order::integers;
use crate::schedule::{Point, Schedule};
use crate::weight::Weight;

/// Shares of the sources by task.
///
/// # Examples
/// ```
/// use simplemix_mix::Routing;
/// let routing: Routing = serde_json::from_str(r#"{
///     "tasks": {"math": {"off": 0.2, "on": 0.8}},
///     "default": {"off": 0.8, "on": 0.2}
/// }"#).unwrap();
/// assert_eq!(routing.weights("poetry")["off"], "0.8".parse()?);
/// # Ok::<(), simplemix_mix::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Routing {
    /// Weights of the sources in each task with weights of its own.
    #[serde(default)]
    pub tasks: BTreeMap<String, BTreeMap<String, Weight>>,
    /// Weights of the sources in every other task, and in rows without a task; by default, those of the mixture. Beside
    /// a schedule, `default` and `tasks` must be empty, and the weights of the schedule hold in every task.
    #[serde(default)]
    pub default: BTreeMap<String, Weight>,
    /// Weights of the tasks; by default, each task has the share that it has of the sources' rows.
    #[serde(default)]
    pub shares: BTreeMap<String, Weight>,
}

/// A mixture with shares by task. Its sources are cells, one for each task of each source.
#[derive(Debug, Clone, PartialEq)]
pub struct Routed {
    /// Mixture whose draws give a cell in place of a source, and a row of that cell's source.
    pub mixture: Mixture,
    /// Source and task of each cell; the task is empty for rows without one.
    pub cells: Vec<(usize, String)>,
}

impl Routing {
    /// Weights of the sources in a task; empty if the weights of the mixture hold.
    pub fn weights(&self, task: &str) -> &BTreeMap<String, Weight> {
        self.tasks.get(task).unwrap_or(&self.default)
    }

    /// Makes the mixture of `config` with shares by task, where `tasks[s][r]` is the task of row `r` of source `s`, or
    /// empty if the row has none.
    ///
    /// # Errors
    /// [`Error::Unknown`] if weights name a source that does not exist, [`Error::Setting`] if they are given beside a
    /// schedule, and the errors of [`Mixture::new`].
    ///
    /// # Examples
    /// ```
    /// use simplemix_mix::{MixtureConfig, Routing, SourceConfig};
    /// let routing: Routing = serde_json::from_str(r#"{"tasks": {"math": {"off": 1, "on": 3}}}"#).unwrap();
    /// let source = |name: &str| SourceConfig::new(name, 8, "1".parse().unwrap());
    /// let config = MixtureConfig { size: Some(8), ..MixtureConfig::new(vec![source("off"), source("on")], 7) };
    /// let tasks = vec![["math", "math", "math", "math", "", "", "", ""].to_vec(); 2];
    /// let routed = routing.route(&config, &tasks)?;
    /// let rows: Vec<u64> = routed.mixture.plan().iter().map(|planned| planned.rows).collect();
    /// assert_eq!(routed.cells[3], (1, "math".to_owned()));
    /// assert_eq!(rows, [2, 2, 1, 3]);
    /// # Ok::<(), simplemix_mix::Error>(())
    /// ```
    pub fn route(&self, config: &MixtureConfig, tasks: &[Vec<&str>]) -> Result<Routed> {
        let names: Vec<&str> = config.sources.iter().map(|s| s.name.as_str()).collect();
        for name in self.tasks.values().chain([&self.default]).flat_map(BTreeMap::keys) {
            if !names.contains(&name.as_str()) {
                return Err(Error::Unknown { name: name.clone(), known: names.join(", ") });
            }
        }
        let mut rows: BTreeMap<(&str, usize), Vec<u64>> = BTreeMap::new();
        for (source, tasks) in tasks.iter().enumerate() {
            for (row, task) in tasks.iter().enumerate() {
                rows.entry((*task, source)).or_default().push(row as u64);
            }
        }
        let scheduled = config.schedule.as_ref().map_or(&[][..], |schedule| &schedule.points);
        let has_weights = !self.tasks.is_empty() || !self.default.is_empty();
        if !scheduled.is_empty() && has_weights {
            let found = "a table with weights of sources beside a schedule";
            return Err(Error::setting("routing", found, "only `shares` of tasks"));
        }
        config.schedule.as_ref().map_or(Ok(()), |schedule| schedule.check(names.len()))?;
        let own: Vec<Weight> = config.sources.iter().map(|source| source.weight).collect();
        let mut points: Vec<Point> =
            scheduled.iter().map(|point| Point { at: point.at, weights: Vec::new() }).collect();
        let (mut sources, mut cells, mut kept) = (Vec::new(), Vec::new(), Vec::new());
        for ((task, source), rows) in rows {
            for (point, of_cells) in scheduled.iter().zip(&mut points) {
                of_cells.weights.push(self.cell(task, source, &point.weights, tasks)?);
            }
            let weights = match self.weights(task) {
                none if none.is_empty() => own.clone(),
                of_task => names.iter().map(|name| of_task.get(*name).copied().unwrap_or(Weight::whole(0))).collect(),
            };
            let weight = self.cell(task, source, &weights, tasks)?;
            let name = if task.is_empty() { names[source].to_owned() } else { format!("{}/{task}", names[source]) };
            // A cell is taken to have the mean length of its source.
            let whole = &config.sources[source];
            let part = |tokens: u64| (u128::from(tokens) * rows.len() as u128 / u128::from(whole.rows.max(1))) as u64;
            sources.push(SourceConfig { name, rows: rows.len() as u64, weight, tokens: whole.tokens.map(part) });
            cells.push((source, task.to_owned()));
            kept.push(rows);
        }
        let schedule = config.schedule.as_ref().map(|schedule| Schedule { points, ..schedule.clone() });
        let mut mixture = Mixture::new(MixtureConfig { sources, schedule, ..config.clone() })?;
        for (cell, rows) in kept.into_iter().enumerate() {
            mixture = mixture.with_rows(cell, rows)?;
        }
        Ok(Routed { mixture, cells })
    }

    /// Weight of the cell of `source` in `task`: the weight of the task times the share of the source by `weights`.
    fn cell(&self, task: &str, source: usize, weights: &[Weight], tasks: &[Vec<&str>]) -> Result<Weight> {
        let of_task = match self.shares.get(task) {
            Some(weight) => *weight,
            None if self.shares.is_empty() => {
                Weight::whole(tasks.iter().flatten().filter(|of_row| **of_row == task).count() as u64)
            }
            None => Weight::whole(0),
        };
        // A source without rows of the task leaves its share to the others.
        let weights: Vec<Weight> = (weights.iter().zip(tasks))
            .map(|(weight, tasks)| if tasks.contains(&task) { *weight } else { Weight::whole(0) })
            .collect();
        match integers(&weights) {
            Ok(shares) => of_task.times(shares[source], shares.iter().sum()),
            // No source gives rows of this task.
            Err(Error::ZeroSum) => Ok(Weight::whole(0)),
            Err(other) => Err(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(off: &str, on: &str) -> BTreeMap<String, Weight> {
        [("off".to_owned(), off.parse().unwrap()), ("on".to_owned(), on.parse().unwrap())].into()
    }

    fn config(size: u64) -> MixtureConfig {
        let source = |name: &str| SourceConfig::new(name, 100, Weight::whole(1));
        MixtureConfig { size: Some(size), ..MixtureConfig::new(vec![source("off"), source("on")], 3) }
    }

    #[test]
    fn each_task_has_its_shares() {
        let routing = Routing {
            tasks: [("math".to_owned(), weights("0.2", "0.8"))].into(),
            default: weights("0.75", "0.25"),
            shares: BTreeMap::new(),
        };
        let tasks: Vec<&str> = (0..100).map(|i| if i % 2 == 0 { "math" } else { "poetry" }).collect();
        let routed = routing.route(&config(80), &[tasks.clone(), tasks.clone()]).unwrap();
        let mut counts = BTreeMap::new();
        for draw in routed.mixture.iter() {
            let (source, task) = &routed.cells[draw.source];
            assert_eq!(tasks[draw.row as usize], task);
            *counts.entry((*source, task.as_str())).or_insert(0) += 1;
        }
        let expected = [((0, "math"), 8), ((0, "poetry"), 30), ((1, "math"), 32), ((1, "poetry"), 10)];
        assert_eq!(counts, expected.into());
    }

    #[test]
    fn shares_of_tasks_can_be_given_and_lone_sources_take_all() {
        let routing = Routing {
            tasks: BTreeMap::new(),
            default: weights("1", "1"),
            shares: [("math".to_owned(), Weight::whole(3)), ("poetry".to_owned(), Weight::whole(1))].into(),
        };
        let routed = routing.route(&config(40), &[vec!["math"; 100], vec!["poetry"; 100]]).unwrap();
        assert_eq!(routed.mixture.plan().iter().map(|p| p.rows).collect::<Vec<_>>(), [30, 10]);
    }

    #[test]
    fn shares_of_tasks_go_with_the_sources_own_weights_and_with_a_schedule() {
        let routing: Routing = serde_json::from_str(r#"{"shares": {"math": 1, "poetry": 1}}"#).unwrap();
        let tasks: Vec<&str> = (0..100).map(|i| if i < 30 { "math" } else { "poetry" }).collect();
        let of = |config: &MixtureConfig| {
            let routed = routing.route(config, &[tasks.clone(), tasks.clone()]).unwrap();
            routed.mixture.iter().map(|draw| routed.cells[draw.source].clone()).collect::<Vec<_>>()
        };
        let count = |drawn: &[(usize, String)], source: usize, task: &str| {
            drawn.iter().filter(|(s, t)| *s == source && t == task).count()
        };
        let mut config = config(40);
        config.sources[0].weight = Weight::whole(3);
        let drawn = of(&config);
        for (source, expected) in [(0, 15), (1, 5)] {
            assert_eq!(["math", "poetry"].map(|task| count(&drawn, source, task)), [expected; 2]);
        }
        // The first source alone, then the second alone; both tasks in both halves.
        let half = "1/2".parse().unwrap();
        config.schedule = Some(Schedule { curve: crate::Curve::Step, ..Schedule::hand_over(Weight::whole(0), half) });
        let drawn = of(&config);
        for (source, half) in drawn.chunks(20).enumerate() {
            assert_eq!(["math", "poetry"].map(|task| count(half, source, task)), [10; 2]);
        }
        let routing = Routing { default: weights("1", "1"), ..routing.clone() };
        let error = routing.route(&config, &[tasks.clone(), tasks.clone()]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`routing` is a table with weights of sources beside a schedule, expected only `shares` of tasks"
        );
    }

    #[test]
    fn unknown_sources_are_named() {
        let routing = Routing { tasks: BTreeMap::new(), default: weights("1", "1"), shares: BTreeMap::new() };
        let config = MixtureConfig {
            size: Some(4),
            ..MixtureConfig::new(vec![SourceConfig::new("off", 9, Weight::whole(1))], 3)
        };
        let error = routing.route(&config, &[vec![""; 9]]).unwrap_err();
        assert_eq!(error.to_string(), "weights name `on`, expected one of the sources off");
    }
}
