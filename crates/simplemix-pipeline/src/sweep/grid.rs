//! Runs of a sweep: every combination of values, in the order in which they are done.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use simplemix_settings::merge;
use toml::Table;

use super::axis::Axis;
use crate::error::{Error, Result};

/// Largest number of combinations.
const MOST_RUNS: usize = 4096;

/// Longest name of a run.
const LONGEST_NAME: usize = 120;

/// A run of a sweep that is planned.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PlannedRun {
    /// Name, made of the values, such as `size-1000_beta-0.1`.
    pub name: String,
    /// Output folder of the run's pipeline.
    pub folder: PathBuf,
    /// Names and values of the keys that vary.
    pub values: Vec<(String, String)>,
    /// Settings over those of the base.
    pub(super) over: Table,
    /// Index of each axis' value.
    pub(super) choice: Vec<usize>,
}

/// Names of the axes in reports: short where the key has a short name, else the last part of the key, unless it is another's.
pub(super) fn labels(axes: &[Axis]) -> Vec<String> {
    let last = |axis: &Axis| {
        let last = axis.key().rsplit('.').next().unwrap_or(axis.key());
        axis.short().unwrap_or(last).to_owned()
    };
    let short: Vec<String> = axes.iter().map(last).collect();
    let is_taken = |name: &String| short.iter().filter(|other| *other == name).count() > 1;
    axes.iter()
        .zip(&short)
        .map(|(axis, name)| if is_taken(name) { axis.key().to_owned() } else { name.clone() })
        .collect()
}

/// Whether an axis is the random seed, whose values are repetitions.
pub(super) fn is_seed(axis: &Axis) -> bool {
    axis.key() == "seed"
}

/// All runs in order, so that those done first say most: one seed after the other; within a seed the middle of all values first,
/// then the runs that differ from it in one key, then in two.
pub(super) fn runs(axes: &[Axis], folder: &Path) -> Result<Vec<PlannedRun>> {
    let count = axes.iter().try_fold(1usize, |count, axis| count.checked_mul(axis.len()));
    if count.is_none_or(|count| count > MOST_RUNS) {
        let found = axes.iter().map(|axis| axis.len().to_string()).collect::<Vec<_>>().join(" x ");
        return Err(Error::setting("sweep.vary", found, format!("at most {MOST_RUNS} combinations")));
    }
    let mut choices = vec![Vec::new()];
    for axis in axes {
        let with = |choice: &Vec<usize>| (0..axis.len()).map(|at| [&choice[..], &[at]].concat()).collect::<Vec<_>>();
        choices = choices.iter().flat_map(with).collect();
    }
    let seed = |choice: &[usize]| axes.iter().zip(choice).find(|(axis, _)| is_seed(axis)).map_or(0, |(_, at)| *at);
    let away = |choice: &[usize]| {
        let is_away = |(axis, at): &(&Axis, &usize)| !is_seed(axis) && **at != (axis.len() - 1) / 2;
        axes.iter().zip(choice).filter(is_away).count()
    };
    choices.sort_by_key(|choice| (seed(choice), away(choice), choice.clone()));
    let labels = labels(axes);
    let mut names = BTreeSet::new();
    choices.into_iter().map(|choice| planned(axes, &labels, choice, folder, &mut names)).collect()
}

fn planned(
    axes: &[Axis],
    labels: &[String],
    choice: Vec<usize>,
    folder: &Path,
    names: &mut BTreeSet<String>,
) -> Result<PlannedRun> {
    let mut over = Table::new();
    for (axis, &at) in axes.iter().zip(&choice) {
        merge(&mut over, axis.over(at)?);
    }
    let shown = axes.iter().zip(&choice).map(|(axis, at)| axis.shown(*at));
    let values: Vec<(String, String)> = labels.iter().cloned().zip(shown).collect();
    let name = name(&values, names);
    Ok(PlannedRun { folder: folder.join(&name), name, values, over, choice })
}

/// A name for a folder that no other run has.
fn name(values: &[(String, String)], names: &mut BTreeSet<String>) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || ".+-".contains(c) { c } else { '-' };
    let part = |(label, value): &(String, String)| format!("{label}-{value}").chars().map(safe).collect::<String>();
    let plain = values.iter().map(part).collect::<Vec<_>>().join("_");
    let name = match plain.len() <= LONGEST_NAME && !names.contains(&plain) {
        true => plain,
        false => {
            let hash = blake3::hash(format!("{values:?}").as_bytes()).to_hex();
            format!("{}_{}", plain.chars().take(LONGEST_NAME - 9).collect::<String>(), &hash[..8])
        }
    };
    names.insert(name.clone());
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axes(texts: &[&str]) -> Vec<Axis> {
        texts.iter().map(|text| Axis::parse(text).unwrap()).collect()
    }

    #[test]
    fn the_middle_comes_first_and_seeds_one_after_the_other() {
        let axes = axes(&["size=1,2,3", "beta=0.1,0.5", "seed=1,2"]);
        let runs = runs(&axes, Path::new("runs")).unwrap();
        let names: Vec<&str> = runs.iter().map(|run| run.name.as_str()).collect();
        assert_eq!(names.len(), 12);
        let first =
            ["size-2_beta-0.1_seed-1", "size-1_beta-0.1_seed-1", "size-2_beta-0.5_seed-1", "size-3_beta-0.1_seed-1"];
        assert_eq!(names[..4], first);
        assert!(names[..6].iter().all(|name| name.ends_with("seed-1")) && names[6] == "size-2_beta-0.1_seed-2");
        assert_eq!(runs[0].folder, Path::new("runs/size-2_beta-0.1_seed-1"));
        assert_eq!(runs[0].over["mix"]["size"].as_integer(), Some(2));
        assert_eq!(runs[0].values[1], ("beta".to_owned(), "0.1".to_owned()));
    }

    #[test]
    fn names_are_of_files_and_of_one_run_each() {
        let axes = axes(&[
            "model=./a/b,./a-b",
            "train.batch.batch_size=4",
            "collect.batch_rows=4",
            "reward.epochs=1",
            "train.epochs=1",
        ]);
        let runs = runs(&axes, Path::new("runs")).unwrap();
        assert_eq!(runs[0].name, "model-.-a-b_batch-size-4_batch-rows-4_reward.epochs-1_train.epochs-1");
        assert!(runs[1].name.starts_with(&runs[0].name) && runs[1].name != runs[0].name);
        let long = Axis::parse(&format!("model={}", "x".repeat(200))).unwrap();
        assert_eq!(super::runs(&[long], Path::new("runs")).unwrap()[0].name.len(), LONGEST_NAME);
    }

    #[test]
    fn too_many_combinations_are_refused() {
        let many = (0..100).map(|i| i.to_string()).collect::<Vec<_>>().join(",");
        let axes = axes(&[&format!("size={many}"), &format!("seed={many}")]);
        let error = runs(&axes, Path::new("runs")).unwrap_err().to_string();
        assert_eq!(error, "`sweep.vary` is 100 x 100, expected at most 4096 combinations");
    }
}
