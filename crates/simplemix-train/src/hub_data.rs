//! Data sets of the hub by name, configuration and split: `hf://datasets/OWNER/NAME@REVISION/PATH?config=CONFIG&split=SPLIT`.
//!
//! Files of a split are those that the data set's card names (`configs` at the head of README.md), else those that have its name
//! as `datasets` looks for it. Data sets that are a Python script are refused.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern};
use serde_json::Value;
use simplemix_model::hub;

use crate::error::{Error, Result};

/// Beginning of a data set's name on the hub.
pub(crate) const SCHEME: &str = "hf://datasets/";

/// Endings of files with pairs.
const ENDINGS: [&str; 5] = ["parquet", "arrow", "jsonl", "json", "ndjson"];

/// Splits, and the words that stand for them in names of files and folders, as in `datasets`.
const SPLITS: [(&str, &[&str]); 3] = [
    ("train", &["train", "training"]),
    ("validation", &["validation", "valid", "dev", "val"]),
    ("test", &["test", "testing", "eval", "evaluation"]),
];

/// A path of a data set on the hub.
#[derive(Debug, PartialEq, Eq)]
struct Spec<'a> {
    id: &'a str,
    revision: Cow<'a, str>,
    /// File, folder or pattern in the repository; empty for all of it.
    within: &'a str,
    config: Option<&'a str>,
    split: Option<&'a str>,
}

/// Files that `path` names, downloaded into the hub's cache; `None` if it is no data set of the hub.
///
/// # Errors
/// [`Error::HubData`] for a path or a data set that cannot be followed, [`Error::Model`] if the hub cannot be reached.
pub fn files(path: &Path) -> Result<Option<Vec<PathBuf>>> {
    let Some(text) = path.to_str().filter(|text| text.starts_with(SCHEME)) else { return Ok(None) };
    let refuse = |problem: String| Error::HubData { path: text.to_owned(), problem };
    let spec = Spec::parse(text).map_err(refuse)?;
    let listing = hub::dataset_listing(spec.id, &spec.revision)?;
    let get = |name: &str| hub::dataset_file_at(spec.id, &listing.commit, name);
    let card = match listing.files.iter().any(|name| name == "README.md") {
        true => {
            let readme = get("README.md")?;
            Some(simplemix_files::read_to_string(&readme).map_err(|error| refuse(format!("README.md: {error}")))?)
        }
        false => None,
    };
    let names = spec.choose(&listing.files, card.as_deref()).map_err(refuse)?;
    let paths: simplemix_model::Result<Vec<PathBuf>> = names.iter().map(|name| get(name)).collect();
    Ok(Some(paths?))
}

/// Name of the data set in `path` for the metrics, if it is one of the hub.
pub(crate) fn name(path: &Path) -> Option<&str> {
    let spec = Spec::parse(path.to_str().filter(|text| text.starts_with(SCHEME))?).ok()?;
    spec.id.split_once('/').map(|(_, name)| name)
}

impl<'a> Spec<'a> {
    fn parse(text: &'a str) -> Result<Self, String> {
        let rest = text.strip_prefix(SCHEME).unwrap_or(text);
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let expected =
            || format!("expected {SCHEME}OWNER/NAME, then @REVISION, /PATH and ?config=CONFIG&split=SPLIT if need be");
        let (owner, after) = place.split_once('/').ok_or_else(expected)?;
        let (name, revision, within) = match after.split_once(['@', '/']) {
            None => (after, "main", ""),
            Some((name, rest)) if after.as_bytes()[name.len()] == b'/' => (name, "main", rest),
            Some((name, rest)) => {
                let (revision, within) = at_revision(rest);
                (name, revision, within)
            }
        };
        let is_plain = |part: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        };
        if !is_plain(owner) || !is_plain(name) {
            return Err(expected());
        }
        let revision = if revision == "~parquet" { "refs/convert/parquet" } else { revision };
        let revision = revision.replace("%2F", "/").replace("%2f", "/").into();
        let mut spec = Self { id: &place[..owner.len() + 1 + name.len()], revision, within, config: None, split: None };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("config", value)) if !value.is_empty() => spec.config = Some(value),
                Some(("split", value)) if !value.is_empty() => spec.split = Some(value),
                _ => return Err(format!("`{pair}` after the `?`, expected config=CONFIG or split=SPLIT")),
            }
        }
        match spec.split.filter(|split| split.contains(['[', '+', ':'])) {
            Some(split) => {
                Err(format!("the split `{split}`, expected the name of one: `data.sets` joins several, with shares"))
            }
            None => Ok(spec),
        }
    }

    /// Files of the split among all of the repository.
    fn choose(&self, all: &[String], card: Option<&str>) -> Result<Vec<String>, String> {
        let files: Vec<&str> = all.iter().map(String::as_str).filter(|name| self.is_within(name)).collect();
        let of_card = card.filter(|_| self.within.is_empty()).and_then(configs);
        let mut found = match of_card {
            Some(configs) => self.of_card(&configs, &files)?,
            None => self.by_name(&files)?,
        };
        found.sort_unstable();
        found.dedup();
        Ok(found.into_iter().map(str::to_owned).collect())
    }

    fn is_within(&self, name: &str) -> bool {
        let within = self.within.trim_end_matches('/');
        within.is_empty()
            || name.strip_prefix(within).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            || matches(within, name)
    }

    /// The files that the card has for the split.
    fn of_card<'b>(&self, configs: &[Value], files: &[&'b str]) -> Result<Vec<&'b str>, String> {
        let config = self.config(configs)?;
        let folder = config["data_dir"].as_str().map(|folder| format!("{}/", folder.trim_matches('/')));
        let Some(data_files) = config.get("data_files").filter(|value| !value.is_null()) else {
            let inside =
                files.iter().copied().filter(|name| folder.as_ref().is_none_or(|folder| name.starts_with(folder)));
            return self.by_split(&inside.collect::<Vec<_>>());
        };
        let splits = splits(data_files);
        let wanted = self.split.unwrap_or("train");
        let patterns = splits.iter().find(|(split, _)| split == wanted).map(|(_, patterns)| patterns);
        let names = || splits.iter().map(|(split, _)| split.clone()).collect::<Vec<_>>();
        let patterns = patterns.ok_or_else(|| no_split(wanted, &names()))?;
        let folder = folder.unwrap_or_default();
        let is_one = |name: &&str| patterns.iter().any(|pattern| matches(&format!("{folder}{pattern}"), name));
        let found: Vec<&str> = files.iter().copied().filter(is_one).collect();
        readable(found).and_then(|found| match found.is_empty() {
            true => Err(format!("no file for the split `{wanted}`: the card names {}", patterns.join(", "))),
            false => Ok(found),
        })
    }

    /// The configuration that is asked for, or the default one.
    fn config<'b>(&self, configs: &'b [Value]) -> Result<&'b Value, String> {
        let named = |wanted: &str| configs.iter().find(|config| config["config_name"] == wanted);
        let found = match (self.config, configs) {
            (Some(wanted), _) => named(wanted),
            (None, [one]) => Some(one),
            (None, _) => configs.iter().find(|config| config["default"] == true).or_else(|| named("default")),
        };
        found.ok_or_else(|| {
            let names: Vec<&str> = configs.iter().filter_map(|config| config["config_name"].as_str()).collect();
            let wanted = self
                .config
                .map_or("no configuration is asked for".to_owned(), |name| format!("no configuration `{name}`"));
            format!("{wanted}, expected one of {} (config=NAME)", names.join(", "))
        })
    }

    /// The files of a data set whose card says nothing of them.
    fn by_name<'b>(&self, files: &[&'b str]) -> Result<Vec<&'b str>, String> {
        let data: Vec<&str> = files.iter().copied().filter(|name| is_data(name)).collect();
        if data.is_empty() {
            let script = files.iter().any(|name| name.ends_with(".py") && !name.contains('/'));
            return Err(match script {
                true => {
                    "a Python script without files of data, expected a data set of files; `@~parquet` is the hub's copy"
                        .into()
                }
                false => "no Parquet, Arrow or JSON file, expected a data set of these".into(),
            });
        }
        match self.config.filter(|config| *config != "default") {
            None => self.by_split(&data),
            Some(config) => {
                let folder = |name: &&str| name.split('/').rev().skip(1).any(|part| part == config);
                let inside: Vec<&str> = data.iter().copied().filter(folder).collect();
                match inside.is_empty() {
                    true => {
                        Err(format!("no configuration `{config}`: the card names none, and no folder is called so"))
                    }
                    false => self.by_split(&inside),
                }
            }
        }
    }

    /// The files of the split by their names; files without the name of a split are `train`.
    fn by_split<'b>(&self, files: &[&'b str]) -> Result<Vec<&'b str>, String> {
        let files = readable(files.iter().copied().filter(|name| is_data(name)).collect())?;
        if !self.within.is_empty() && self.split.is_none() {
            return if files.is_empty() { Err("no file of data there".into()) } else { Ok(files) };
        }
        let wanted = self.split.unwrap_or("train");
        let split = |name: &str| split_of(name).unwrap_or_else(|| "train".to_owned());
        let found: Vec<&str> = files.iter().copied().filter(|name| split(name) == wanted).collect();
        if !found.is_empty() {
            return Ok(found);
        }
        let mut names: Vec<String> = files.iter().map(|name| split(name)).collect();
        names.sort_unstable();
        names.dedup();
        Err(no_split(wanted, &names))
    }
}

/// A revision and what follows it; `refs/pr/1` and `refs/convert/parquet` have slashes of their own.
fn at_revision(rest: &str) -> (&str, &str) {
    let parts = if rest.starts_with("refs/") { 3 } else { 1 };
    match rest.match_indices('/').nth(parts - 1) {
        Some((at, _)) => (&rest[..at], &rest[at + 1..]),
        None => (rest, ""),
    }
}

/// Configurations of the card's head, if it has any.
fn configs(card: &str) -> Option<Vec<Value>> {
    let head = card.trim_start_matches('\u{feff}').strip_prefix("---")?;
    let head = &head[..head.find("\n---")?];
    let head: Value = serde_saphyr::from_str(head).ok()?;
    head["configs"].as_array().filter(|configs| !configs.is_empty()).cloned()
}

/// Splits of `data_files` with their patterns: a pattern or a list of them is `train`.
fn splits(data_files: &Value) -> Vec<(String, Vec<String>)> {
    let texts = |value: &Value| match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(values) => values.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    };
    match data_files.as_array() {
        Some(entries) if entries.iter().any(Value::is_object) => {
            let split = |entry: &Value| entry["split"].as_str().unwrap_or("train").to_owned();
            entries.iter().map(|entry| (split(entry), texts(&entry["path"]))).collect()
        }
        _ => vec![("train".to_owned(), texts(data_files))],
    }
}

fn matches(pattern: &str, name: &str) -> bool {
    let options = MatchOptions { require_literal_separator: true, ..MatchOptions::new() };
    Pattern::new(pattern.trim_start_matches("./")).is_ok_and(|pattern| pattern.matches_with(name, options))
}

/// Refuses files that cannot be read.
fn readable(files: Vec<&str>) -> Result<Vec<&str>, String> {
    match files.iter().find(|name| !is_data(name)) {
        Some(name) => Err(format!("{name}: expected a Parquet, Arrow or JSON file")),
        None => Ok(files),
    }
}

fn is_data(name: &str) -> bool {
    let plain = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(name);
    let file = plain.rsplit('/').next().unwrap_or(plain);
    let is_about =
        ["dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "config.json"].contains(&file);
    !is_about && !file.starts_with('.') && plain.rsplit_once('.').is_some_and(|(_, ending)| ENDINGS.contains(&ending))
}

/// The split that a file belongs to by its name: `data/SPLIT-00000-of-00001`, or a word in it.
fn split_of(name: &str) -> Option<String> {
    let file = name.rsplit('/').next().unwrap_or(name);
    if let Some((shard, _)) = file.split_once("-of-").filter(|_| name.starts_with("data/") || name.contains("/data/")) {
        let split = shard
            .rsplit_once('-')
            .filter(|(_, number)| number.len() == 5 && number.bytes().all(|b| b.is_ascii_digit()));
        if let Some((split, _)) = split {
            return Some(split.to_owned());
        }
    }
    let has = |part: &str, words: &[&str]| part.split(|c: char| "-_. ".contains(c)).any(|word| words.contains(&word));
    // The file's own name counts before the folders around it.
    let mut parts = name.rsplit('/');
    parts.find_map(|part| SPLITS.iter().find(|(_, words)| has(part, words)).map(|(split, _)| (*split).to_owned()))
}

fn no_split(wanted: &str, splits: &[String]) -> String {
    format!("no split `{wanted}`, expected one of {} (split=NAME)", splits.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(rest: &str) -> Result<Spec<'_>, String> {
        Spec::parse(rest)
    }

    fn chosen(rest: &str, files: &[&str], card: Option<&str>) -> Result<String, String> {
        let files: Vec<String> = files.iter().map(|name| (*name).to_owned()).collect();
        Ok(spec(rest)?.choose(&files, card)?.join(" "))
    }

    #[test]
    fn paths_have_a_revision_a_place_and_a_split() {
        for (text, id, revision, within, config, split) in [
            ("a/b", "a/b", "main", "", None, None),
            ("a/b@v1.0?split=test", "a/b", "v1.0", "", None, Some("test")),
            ("a/b@refs/pr/7/x/*.parquet", "a/b", "refs/pr/7", "x/*.parquet", None, None),
            ("a/b@~parquet/default/train", "a/b", "refs/convert/parquet", "default/train", None, None),
            ("a/b/data?config=c&split=d", "a/b", "main", "data", Some("c"), Some("d")),
        ] {
            let expected = Spec { id, revision: revision.into(), within, config, split };
            assert_eq!(spec(&format!("{SCHEME}{text}")).unwrap(), expected, "{text}");
        }
        for text in
            ["a", "a/", "/b", "../b", "a/b?splt=x", "a/b?split=", "a/b?split=train[:10%]", "a/b?split=train+test"]
        {
            assert!(spec(&format!("{SCHEME}{text}")).is_err(), "{text}");
        }
        assert_eq!(name(Path::new("hf://datasets/a/b@v1?split=x")), Some("b"));
        assert_eq!(name(Path::new("a/b.parquet")), None);
    }

    const CARD: &str = "---\nlicense: mit\nconfigs:\n- config_name: default\n  data_files:\n  - split: train_prefs\n    path: \
                        data/train_prefs-*\n  - split: test_prefs\n    path: [data/test_prefs-*]\n- config_name: small\n  data_dir: s\n---\n# Text";

    #[test]
    fn the_card_names_configurations_and_splits() {
        let files = [
            "README.md",
            "data/test_prefs-0.parquet",
            "data/train_prefs-0.parquet",
            "data/train_prefs-1.parquet",
            "s/train.jsonl",
        ];
        let of = |rest: &str| chosen(rest, &files, Some(CARD));
        assert_eq!(of("a/b?split=train_prefs").unwrap(), "data/train_prefs-0.parquet data/train_prefs-1.parquet");
        assert_eq!(of("a/b?config=default&split=test_prefs").unwrap(), "data/test_prefs-0.parquet");
        assert_eq!(of("a/b?config=small").unwrap(), "s/train.jsonl");
        assert_eq!(of("a/b").unwrap_err(), "no split `train`, expected one of train_prefs, test_prefs (split=NAME)");
        assert_eq!(
            of("a/b?config=big").unwrap_err(),
            "no configuration `big`, expected one of default, small (config=NAME)"
        );
        assert_eq!(of("a/b/data/t*_prefs-0.parquet").unwrap(), "data/test_prefs-0.parquet data/train_prefs-0.parquet");
    }

    #[test]
    fn without_a_card_names_of_files_tell_the_split() {
        let of = |rest: &str, files: &[&str]| chosen(rest, files, None);
        let shards = [
            "data/train-00000-of-00002.parquet",
            "data/train-00001-of-00002.parquet",
            "data/odd_split-00000-of-00001.parquet",
        ];
        assert_eq!(of("a/b", &shards).unwrap(), shards[..2].join(" "));
        assert_eq!(of("a/b?split=odd_split", &shards).unwrap(), shards[2]);
        assert_eq!(of("a/b?split=test", &["train.jsonl", "eval.jsonl", "notes.md"]).unwrap(), "eval.jsonl");
        assert_eq!(of("a/b?split=validation", &["train/0.json", "dev/0.json"]).unwrap(), "dev/0.json");
        assert_eq!(of("a/b", &["pairs.jsonl.gz", "dataset_infos.json"]).unwrap(), "pairs.jsonl.gz");
        assert_eq!(of("a/b?config=en", &["en/train.json", "de/train.json"]).unwrap(), "en/train.json");
        assert!(of("a/b?config=fr", &["en/train.json"]).unwrap_err().starts_with("no configuration `fr`"));
        assert_eq!(
            of("a/b?split=test", &["x.json"]).unwrap_err(),
            "no split `test`, expected one of train (split=NAME)"
        );
        assert!(of("a/b", &["b.py"]).unwrap_err().starts_with("a Python script without files"));
        assert!(of("a/b", &["x.csv"]).unwrap_err().starts_with("no Parquet, Arrow or JSON file"));
    }
}
