//! Arms of a comparison: runs that differ only in their seed.

use std::collections::BTreeMap;
use std::path::Path;

use crate::report::run_data::RunData;

/// Runs that are repetitions of each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arm {
    /// Name of the arm: a given name, or the settings that set it apart.
    pub name: String,
    /// Indices of the runs.
    pub runs: Vec<usize>,
}

/// Settings in which repetitions differ.
pub(crate) const OF_A_REPETITION: [&str; 2] = ["seed", "output"];

/// Groups runs into arms. `named` gives the arm of a run by its index; other runs are grouped by their settings.
pub fn group(runs: &[RunData], named: &BTreeMap<usize, String>) -> Vec<Arm> {
    let settings: Vec<BTreeMap<&str, &str>> = runs.iter().map(own_settings).collect();
    let mut arms: Vec<(Key<'_>, Vec<usize>)> = Vec::new();
    for (place, settings) in settings.iter().enumerate() {
        let key = match named.get(&place) {
            Some(name) => Key::Name(name),
            // Without settings, nothing shows that two runs are repetitions.
            None if settings.is_empty() => Key::Name(&runs[place].name),
            None => Key::Settings(settings),
        };
        match arms.iter_mut().find(|(known, _)| *known == key) {
            Some((_, runs)) => runs.push(place),
            None => arms.push((key, vec![place])),
        }
    }
    let telling = telling(&arms);
    let mut found: Vec<Arm> = Vec::new();
    for (key, runs) in arms {
        let name = match key {
            Key::Name(name) => name.to_owned(),
            Key::Settings(settings) => described(settings, &telling),
        };
        found.push(Arm { name, runs });
    }
    distinguish(&mut found);
    found
}

#[derive(PartialEq)]
enum Key<'a> {
    Name(&'a str),
    Settings(&'a BTreeMap<&'a str, &'a str>),
}

/// Settings of a run, without those in which repetitions differ.
fn own_settings(run: &RunData) -> BTreeMap<&str, &str> {
    let counts = |key: &str| !OF_A_REPETITION.contains(&key);
    run.settings.iter().map(|(key, value)| (key.as_str(), value.as_str())).filter(|(key, _)| counts(key)).collect()
}

/// Keys whose values differ among the arms that are grouped by settings.
fn telling<'a>(arms: &[(Key<'a>, Vec<usize>)]) -> Vec<&'a str> {
    let settings: Vec<&BTreeMap<&str, &str>> = arms
        .iter()
        .filter_map(|(key, _)| if let Key::Settings(settings) = key { Some(*settings) } else { None })
        .collect();
    let keys: std::collections::BTreeSet<&str> =
        settings.iter().flat_map(|settings| settings.keys().copied()).collect();
    keys.into_iter().filter(|key| settings.iter().any(|s| s.get(key) != settings[0].get(key))).collect()
}

fn described(settings: &BTreeMap<&str, &str>, telling: &[&str]) -> String {
    if telling.is_empty() {
        return "all runs".to_owned();
    }
    let value = |key: &&str| match settings.get(key) {
        None => format!("no {key}"),
        Some(value) => format!("{key} {}", short(value)),
    };
    telling.iter().map(value).collect::<Vec<_>>().join(", ")
}

/// The last part of a path without extension, or any other value as it is.
fn short(value: &str) -> &str {
    let is_path = value.contains('/') && !value.contains(char::is_whitespace);
    if is_path { Path::new(value).file_stem().and_then(|name| name.to_str()).unwrap_or(value) } else { value }
}

/// Numbers arms that have the same name.
fn distinguish(arms: &mut [Arm]) {
    for place in 1..arms.len() {
        let same = arms[..place].iter().filter(|arm| arm.name == arms[place].name).count();
        if same > 0 {
            arms[place].name = format!("{} ({})", arms[place].name, same + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(name: &str, settings: &[(&str, &str)]) -> RunData {
        RunData {
            name: name.into(),
            path: name.into(),
            settings: settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            curves: BTreeMap::new(),
            alpaca: None,
            outputs: Vec::new(),
            notices: Vec::new(),
        }
    }

    #[test]
    fn seeds_are_repetitions() {
        let runs = [
            run("a", &[("seed", "1"), ("beta", "0.1"), ("train", "d/on.parquet"), ("output", "a")]),
            run("b", &[("seed", "1"), ("beta", "0.1"), ("train", "d/off.parquet"), ("output", "b")]),
            run("c", &[("seed", "2"), ("beta", "0.1"), ("train", "d/on.parquet"), ("output", "c")]),
            run("d", &[]),
        ];
        let arms = group(&runs, &BTreeMap::new());
        let expected = [("train on", vec![0, 2]), ("train off", vec![1]), ("d", vec![3])];
        let found: Vec<(&str, Vec<usize>)> = arms.iter().map(|arm| (arm.name.as_str(), arm.runs.clone())).collect();
        assert_eq!(found, expected);
        let named = BTreeMap::from([(0, "mine".to_owned()), (1, "mine".to_owned())]);
        let names: Vec<String> = group(&runs, &named).into_iter().map(|arm| arm.name).collect();
        assert_eq!(names, ["mine", "all runs", "d"]);
    }
}
