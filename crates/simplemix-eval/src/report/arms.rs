//! Arms of a comparison: runs that differ only in their seed.

use std::collections::{BTreeMap, BTreeSet};
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

/// Longest name that fits a legend.
const LEGEND: usize = 40;

/// Whether repetitions differ in a setting: seeds and places.
pub(crate) fn is_of_a_repetition(key: &str) -> bool {
    ["seed", "output", "stages"].contains(&last_part(key))
}

fn last_part(key: &str) -> &str {
    key.rsplit('.').next().unwrap_or(key)
}

/// Groups runs into arms. `named` gives the arm of a run by its index; other runs are grouped by their settings, and named by the
/// fewest settings that tell the arms apart, or by their folders where those names are shorter than a legend and these are not.
pub fn group(runs: &[RunData], named: &BTreeMap<usize, String>) -> Vec<Arm> {
    let settings: Vec<Settings<'_>> = runs.iter().map(own_settings).collect();
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
    let names = names(runs, &arms);
    let mut found: Vec<Arm> = arms.into_iter().zip(names).map(|((_, runs), name)| Arm { name, runs }).collect();
    distinguish(&mut found);
    found
}

type Settings<'a> = BTreeMap<&'a str, &'a str>;

#[derive(PartialEq)]
enum Key<'a> {
    Name(&'a str),
    Settings(&'a Settings<'a>),
}

/// Settings of a run, without those in which repetitions differ.
fn own_settings(run: &RunData) -> Settings<'_> {
    let all = run.settings.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    all.filter(|(key, _)| !is_of_a_repetition(key)).collect()
}

fn names(runs: &[RunData], arms: &[(Key<'_>, Vec<usize>)]) -> Vec<String> {
    let settings: Vec<&Settings<'_>> =
        arms.iter().filter_map(|(key, _)| if let Key::Settings(s) = key { Some(*s) } else { None }).collect();
    let telling = telling(&settings);
    let by_settings: Vec<String> = arms
        .iter()
        .map(|(key, _)| match key {
            Key::Name(name) => (*name).to_owned(),
            Key::Settings(settings) => described(settings, &telling),
        })
        .collect();
    let is_long = by_settings.iter().any(|name| name.chars().count() > LEGEND);
    if is_long { by_folders(runs, arms).unwrap_or(by_settings) } else { by_settings }
}

/// Settings that a reader looks for first, the most telling one first.
const LOOKED_FOR: [&str; 14] = [
    "preset",
    "mix.on",
    "train",
    "mix",
    "off_policy",
    "size",
    "model",
    "objective",
    "loss.name",
    "loss.beta",
    "learning_rate",
    "rank",
    "batch_size",
    "epochs",
];

/// The fewest keys whose values tell all arms apart, found greedily: the key that leaves the fewest pairs of arms alike comes first,
/// among equals the one that is looked for first, then the one with the shortest values.
fn telling<'a>(settings: &[&Settings<'a>]) -> Vec<&'a str> {
    let keys: BTreeSet<&'a str> = settings.iter().flat_map(|settings| settings.keys().copied()).collect();
    let differ = |key: &&str| settings.iter().any(|s| s.get(key) != settings[0].get(key));
    let mut left: Vec<&'a str> = keys.into_iter().filter(differ).collect();
    let alike = |chosen: &[&str]| -> usize {
        let values =
            |s: &Settings<'a>| -> Vec<Option<&'a str>> { chosen.iter().map(|key| s.get(key).copied()).collect() };
        let all: Vec<_> = settings.iter().map(|s| values(s)).collect();
        all.iter().enumerate().map(|(i, own)| all[..i].iter().filter(|other| *other == own).count()).sum()
    };
    let cost = |key: &str| {
        let rank = LOOKED_FOR.iter().position(|known| key == *known || key.ends_with(&format!(".{known}")));
        let longest = settings.iter().filter_map(|s| s.get(key)).map(|value| short(value).chars().count()).max();
        (longest.unwrap_or(0) > 24, rank.unwrap_or(LOOKED_FOR.len()), longest)
    };
    let mut chosen: Vec<&'a str> = Vec::new();
    while alike(&chosen) > 0 && !left.is_empty() {
        let with = |key: &'a str| chosen.iter().copied().chain([key]).collect::<Vec<_>>();
        let best = left.iter().enumerate().min_by_key(|(_, key)| (alike(&with(key)), cost(key), **key));
        let Some((place, _)) = best else { break };
        chosen.push(left.remove(place));
    }
    chosen
}

fn described(settings: &Settings<'_>, telling: &[&str]) -> String {
    if telling.is_empty() {
        return "all runs".to_owned();
    }
    let label = |key: &str| {
        let last = last_part(key);
        let is_known = telling.iter().filter(|other| last_part(other) == last).count() == 1;
        if is_known { last.replace('_', " ") } else { key.replace('_', " ") }
    };
    let value = |key: &&str| match settings.get(key) {
        None => format!("no {}", label(key)),
        Some(value) => format!("{} {}", label(key), short(value)),
    };
    telling.iter().map(value).collect::<Vec<_>>().join(", ")
}

/// A value as a legend shows it: of paths the last part without extension, of lists the elements; cut after 32 characters.
fn short(value: &str) -> String {
    let elements = format!("list = {value}").parse::<toml::Table>().ok().and_then(|table| match table.get("list") {
        Some(toml::Value::Array(list)) => {
            list.iter().map(|element| element.as_str().map(stem)).collect::<Option<Vec<_>>>()
        }
        _ => None,
    });
    let text = elements.map_or_else(|| stem(value), |list| list.join("+"));
    if text.chars().count() > 32 { text.chars().take(31).chain(['…']).collect() } else { text }
}

fn stem(value: &str) -> String {
    // `1/4` is a share.
    let is_path = value.contains('/') && value.contains(char::is_alphabetic) && !value.contains(char::is_whitespace);
    let last = if is_path { Path::new(value).file_stem().and_then(|name| name.to_str()) } else { None };
    last.unwrap_or(value).to_owned()
}

/// Names by folders: what the folders of an arm begin with, without the number of a seed. None unless all arms have such names, and
/// different ones.
fn by_folders(runs: &[RunData], arms: &[(Key<'_>, Vec<usize>)]) -> Option<Vec<String>> {
    let name = |(key, members): &(Key<'_>, Vec<usize>)| match (key, members.as_slice()) {
        (Key::Name(name), _) => (*name).to_owned(),
        (_, [one]) => runs[*one].name.clone(),
        (_, several) => {
            let mut names = several.iter().map(|run| runs[*run].name.as_str());
            let first = names.next().unwrap_or_default().to_owned();
            let common = names.fold(first, |common, name| {
                common.chars().zip(name.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a).collect()
            });
            let is_separator = |c: char| !c.is_alphanumeric();
            let base = common.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches(is_separator);
            base.strip_suffix("seed").unwrap_or(base).trim_end_matches(is_separator).to_owned()
        }
    };
    let names: Vec<String> = arms.iter().map(name).collect();
    let distinct: BTreeSet<&String> = names.iter().collect();
    let fit = |name: &String| !name.is_empty() && name.chars().count() <= LEGEND;
    (distinct.len() == names.len() && names.iter().all(fit)).then_some(names)
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
        let settings = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        RunData { name: name.into(), path: name.into(), settings, ..RunData::default() }
    }

    fn names(runs: &[RunData]) -> Vec<String> {
        group(runs, &BTreeMap::new()).into_iter().map(|arm| arm.name).collect()
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

    #[test]
    fn names_hold_the_fewest_settings_that_tell_arms_apart() {
        let of = |on: &str, rate: &str, files: &str| {
            run(
                on,
                &[("train.optimizer.learning_rate", rate), ("mix.on", on), ("train.eval.files", files), ("seed", "1")],
            )
        };
        // The learning rate and the held-out files follow from the share here, and add nothing.
        let runs = [of("0", "1e-6", "[\"a/x.parquet\"]"), of("0.5", "2e-6", "[]"), of("1", "3e-6", "[]")];
        assert_eq!(names(&runs), ["on 0", "on 0.5", "on 1"]);
        let runs = [of("0", "1e-6", "[]"), of("0.5", "1e-6", "[]"), of("0.5", "2e-6", "[]")];
        assert_eq!(
            names(&runs),
            ["on 0, learning rate 1e-6", "on 0.5, learning rate 1e-6", "on 0.5, learning rate 2e-6"]
        );
    }

    #[test]
    fn files_in_lists_are_named_by_their_stems() {
        assert_eq!(short("[\"d/on.parquet\", \"off.jsonl\"]"), "on+off.jsonl");
        assert_eq!((short("0.1"), short("a/b.parquet"), short("a b/c")), ("0.1".into(), "b".into(), "a b/c".into()));
        assert_eq!(short("1/4"), "1/4");
        assert_eq!(short(&"x".repeat(99)).chars().count(), 32);
    }

    #[test]
    fn folders_name_arms_whose_settings_are_long() {
        let long = |name: &str, end: &str, seed: &str| {
            run(
                name,
                &[("template", &format!("{}{end}", "x".repeat(31))), ("prompt_of", &"y".repeat(20)), ("seed", seed)],
            )
        };
        let runs = [long("half-seed-1", "a", "1"), long("half-seed-2", "a", "2"), long("off", "b", "1")];
        assert_eq!(names(&runs), ["half", "off"]);
        let runs = [long("1", "a", "1"), long("2", "a", "2"), long("off", "b", "1")];
        assert_eq!(names(&runs).len(), 2, "folders 1 and 2 have no common name");
    }
}
