//! Shares per task: on-policy pairs where answers can be checked, off-policy pairs elsewhere, as the paper finds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::mixture::{Mixture, MixtureConfig, SourceConfig};
use crate::order::integers;
use crate::schedule::{Point, Schedule};
use crate::weight::Weight;

/// Shares of the sources, task by task.
///
/// ```
/// use simplemix_mix::Routing;
/// let routing: Routing = serde_json::from_str(r#"{
///     "tasks": {"math": {"off": 0.2, "on": 0.8}},
///     "default": {"off": 0.8, "on": 0.2}
/// }"#).unwrap();
/// assert_eq!(routing.of("poetry")["off"], "0.8".parse()?);
/// # Ok::<(), simplemix_mix::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Routing {
    /// Weights of the sources in each task that has its own.
    #[serde(default)]
    pub tasks: BTreeMap<String, BTreeMap<String, Weight>>,
    /// Weights of the sources in every other task, and in rows without one; the sources' own without. With a schedule
    /// there are none, here and in `tasks`, and the schedule's hold in every task.
    #[serde(default)]
    pub default: BTreeMap<String, Weight>,
    /// Weights of the tasks in the mixture; without them, each has its part of the sources' rows.
    #[serde(default)]
    pub shares: BTreeMap<String, Weight>,
}

/// A mixture over cells, one for each task of each source.
#[derive(Debug, Clone, PartialEq)]
pub struct Routed {
    /// Draws give a cell in place of a source, and rows of the source.
    pub mixture: Mixture,
    /// Source and task of each cell.
    pub cells: Vec<(usize, String)>,
}

impl Routing {
    /// Weights of the sources in a task; none for the sources' own.
    pub fn of(&self, task: &str) -> &BTreeMap<String, Weight> {
        self.tasks.get(task).unwrap_or(&self.default)
    }

    /// The mixture of `config` with these shares in place of its own: `tasks[s][r]` is the task of row `r` of source
    /// `s`, empty for none.
    ///
    /// # Errors
    /// [`Error::Unknown`] for a source that is not there, [`Error::Setting`] for weights of sources beside a schedule, and
    /// whatever [`Mixture::new`] reports.
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
            let found = "weights of sources beside a schedule".to_owned();
            return Err(Error::Setting { key: "routing", found, expected: "`shares` of tasks only" });
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
            let weights = match self.of(task) {
                none if none.is_empty() => own.clone(),
                of_task => names.iter().map(|name| of_task.get(*name).copied().unwrap_or(Weight::whole(0))).collect(),
            };
            let weight = self.cell(task, source, &weights, tasks)?;
            let name = if task.is_empty() { names[source].to_owned() } else { format!("{}/{task}", names[source]) };
            // Cells are taken to be as long-winded as their source.
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

    /// Weight of a task times the source's share of it, where `weights` are those of the sources.
    fn cell(&self, task: &str, source: usize, weights: &[Weight], tasks: &[Vec<&str>]) -> Result<Weight> {
        let of_task = match self.shares.get(task) {
            Some(weight) => *weight,
            None if self.shares.is_empty() => {
                Weight::whole(tasks.iter().flatten().filter(|of_row| **of_row == task).count() as u64)
            }
            None => Weight::whole(0),
        };
        // Sources without rows of the task leave their share to the others.
        let weights: Vec<Weight> = (weights.iter().zip(tasks))
            .map(|(weight, tasks)| if tasks.contains(&task) { *weight } else { Weight::whole(0) })
            .collect();
        match integers(&weights) {
            Ok(shares) => of_task.times(shares[source], shares.iter().sum()),
            // Nothing is asked of any source in this task.
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

    fn config(total: u64) -> MixtureConfig {
        let source = |name: &str| SourceConfig::new(name, 100, Weight::whole(1));
        MixtureConfig { total: Some(total), ..MixtureConfig::new(vec![source("off"), source("on")], 3) }
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
            "`routing` is weights of sources beside a schedule, expected `shares` of tasks only"
        );
    }

    #[test]
    fn unknown_sources_are_named() {
        let routing = Routing { tasks: BTreeMap::new(), default: weights("1", "1"), shares: BTreeMap::new() };
        let config = MixtureConfig {
            total: Some(4),
            ..MixtureConfig::new(vec![SourceConfig::new("off", 9, Weight::whole(1))], 3)
        };
        let error = routing.route(&config, &[vec![""; 9]]).unwrap_err();
        assert_eq!(error.to_string(), "weights name `on`, expected one of the sources off");
    }
}
