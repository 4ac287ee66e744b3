//! Data of a file of TRL: one set, TRL's mixture with `fraction`, the handbook's with `weight`, and its older `dataset_mixer`.

use super::keys::Keys;
use super::translation::{Source, Translation, is_hub_name, split_path};

pub(super) const KEYS: &[&str] = &[
    "dataset_name",
    "dataset_config",
    "dataset_train_split",
    "dataset_test_split",
    "dataset_streaming",
    "dataset_text_field",
    "datasets",
    "streaming",
    "test_split_size",
    "dataset_mixture",
    "dataset_mixer",
    "dataset_splits",
    "dataset_configs",
];

/// Keys that the others take the place of.
const OF_ONE: [&str; 4] = ["dataset_name", "dataset_config", "dataset_train_split", "dataset_test_split"];

pub(super) fn data(source: &Source<'_>, to: &mut Translation) {
    let keys = source.keys;
    // How it is read changes no row.
    to.ignore(keys, &["dataset_streaming", "streaming", "dataset_text_field"]);
    if let Some(sets) = to.take(keys.tables("datasets")).filter(|sets| !sets.is_empty()) {
        of_trl(source, &sets, to);
    } else if let Some(mixture) = to.take(keys.table("dataset_mixture")) {
        of_handbook(&mixture, to);
    } else if let Some(mixer) = to.take(keys.table("dataset_mixer")) {
        of_older_handbook(source, &mixer, to);
    } else {
        return of_one(source, to);
    }
    to.ignore(keys, &OF_ONE);
}

/// `dataset_name` with configuration and splits.
fn of_one(source: &Source<'_>, to: &mut Translation) {
    let keys = source.keys;
    let [name, config, train, test] = OF_ONE.map(|key| to.take(keys.text(key)));
    to.refuse_set(keys, &["test_split_size"], "`datasets` with it");
    let evaluates = ["eval_strategy", "evaluation_strategy"]
        .into_iter()
        .any(|key| matches!(keys.text(key), Ok(Some("steps" | "epoch"))));
    let Some(name) = name else {
        to.ignore(keys, &OF_ONE[1..3]);
        return held_out_of_no_name(keys, test.is_some() && evaluates, to);
    };
    if is_hub_name(name) {
        let training = split_path([name, ""], [None, config], train.unwrap_or("train"), to);
        to.set("train", training);
        if evaluates {
            let held_out = split_path([name, ""], [None, config], test.unwrap_or("test"), to);
            to.set("eval.files", held_out);
        } else {
            to.ignore(keys, &["dataset_test_split"]);
        }
        return;
    }
    to.set("train", name);
    let expected = "no such key: `dataset_name` is the file of the split";
    if config.is_some_and(|config| config != "default") {
        to.refuse(keys, "dataset_config", expected);
    }
    if train.is_some_and(|split| split != "train") {
        to.refuse(keys, "dataset_train_split", expected);
    }
    held_out_of_no_name(keys, test.is_some() && evaluates, to);
}

/// A file has no splits.
fn held_out_of_no_name(keys: &Keys, is_asked_for: bool, to: &mut Translation) {
    match is_asked_for {
        true => to.refuse(keys, "dataset_test_split", "no such key: --eval names the file of held-out pairs"),
        false => to.ignore(keys, &["dataset_test_split"]),
    }
}

/// TRL's `datasets`: a fraction is a share of the whole, in first rows.
fn of_trl(source: &Source<'_>, sets: &[Keys], to: &mut Translation) {
    let known = ["path", "name", "data_dir", "data_files", "split", "columns", "fraction"];
    let mut joined = Vec::new();
    for set in sets {
        unknown(set, "datasets", &known, to);
        let split = to.take(set.text("split")).unwrap_or("train");
        if let Some(path) = path_of(set, split, to) {
            joined.push((path, to.take(set.number("fraction"))));
        }
    }
    set_joined(joined, "of-the-whole", to);
    if let Some(size) = to.take(source.keys.number("test_split_size")) {
        to.set("data.held_out", size);
        let seed = source.keys.whole("seed").ok().flatten().unwrap_or(42);
        to.set("data.seed", seed);
        to.remarks.push(format!(
            "the held-out rows are drawn by the seed {seed}; TRL draws them without one, others in every run"
        ));
    }
}

/// Path of a set: its files, its folder, or its name on the hub.
fn path_of(set: &Keys, split: &str, to: &mut Translation) -> Option<toml::Value> {
    let Some(name) = to.take(set.text("path")) else {
        to.unfollowed.push("`datasets` has a set without `path`, expected the name of a data set or a file".to_owned());
        return None;
    };
    let (config, folder) = (to.take(set.text("name")), to.take(set.text("data_dir")).unwrap_or(""));
    // Names of readers, as in load_dataset("json", data_files=...).
    if !["json", "parquet", "arrow", "csv", "text"].contains(&name) {
        let files = one_file(set, split, to).unwrap_or_default();
        let place = if files.is_empty() { folder.to_owned() } else { files };
        return Some(split_path([name, &place], [None, config], split, to));
    }
    if name == "csv" || name == "text" {
        to.refuse(set, "path", "json or parquet: these are the files that are read");
        return None;
    }
    match one_file(set, split, to) {
        Some(file) => Some(file.into()),
        None if !folder.is_empty() => Some(folder.into()),
        None => {
            to.unfollowed.push(format!("`datasets` has the path {name} without files, expected `data_files` with it"));
            None
        }
    }
}

/// The file of a split in `data_files`: a text, a list of one, or a table by split.
fn one_file(set: &Keys, split: &str, to: &mut Translation) -> Option<String> {
    let files = match set.get("data_files")? {
        serde_json::Value::Object(_) => {
            set.table("data_files").ok().flatten().and_then(|table| table.texts(split).ok().flatten())
        }
        _ => set.texts("data_files").ok().flatten(),
    };
    match files.as_deref() {
        Some([file]) => Some(file.clone()),
        _ => {
            to.refuse(set, "data_files", "one file or pattern for the split");
            None
        }
    }
}

/// The handbook's `dataset_mixture`: a weight is a share of that set, drawn at random; the whole is shuffled.
fn of_handbook(mixture: &Keys, to: &mut Translation) {
    unknown(mixture, "dataset_mixture", &["datasets", "seed", "test_split_size"], to);
    let sets = to.take(mixture.tables("datasets")).unwrap_or_default();
    if sets.is_empty() {
        to.unfollowed.push("`dataset_mixture` has no `datasets`, expected a list of sets".to_owned());
    }
    let mut joined = Vec::new();
    for set in &sets {
        unknown(set, "dataset_mixture.datasets", &["id", "config", "split", "columns", "weight"], to);
        let (config, split) = (to.take(set.text("config")), to.take(set.text("split")));
        match to.take(set.text("id")) {
            Some(id) => {
                let weight = to.take(set.number("weight")).unwrap_or(1.0);
                joined.push((split_path([id, ""], [None, config], split.unwrap_or("train"), to), Some(weight)));
            }
            None => {
                to.unfollowed.push("`dataset_mixture.datasets` has a set without `id`, expected its name".to_owned())
            }
        }
    }
    set_joined(joined, "of-each-set", to);
    let seed = to.take(mixture.whole("seed")).unwrap_or(0);
    to.set("data.seed", seed);
    to.set("data.shuffle", true);
    if let Some(size) = to.take(mixture.number("test_split_size")) {
        to.set("data.held_out", size);
    }
}

/// The handbook before July 2025: first rows of each set's training splits, shuffled by 42, and whole test splits.
fn of_older_handbook(source: &Source<'_>, mixer: &Keys, to: &mut Translation) {
    let keys = source.keys;
    let splits = to.take(keys.texts("dataset_splits")).unwrap_or_else(|| vec!["train".to_owned(), "test".to_owned()]);
    let configs = to.take(keys.texts("dataset_configs")).unwrap_or_default();
    let (mut joined, mut held_out) = (Vec::new(), toml::Table::new());
    for (number, name) in mixer.names().enumerate() {
        let share = to.take(mixer.number(name));
        let config = configs.get(number).map(String::as_str);
        for split in &splits {
            let path = split_path([name, ""], [None, config], split, to);
            match (split.contains("train"), split.contains("test")) {
                (true, _) => joined.push((path, share)),
                (_, true) => drop(held_out.insert(name.rsplit('/').next().unwrap_or(name).replace('.', "-"), path)),
                _ => to.refuse(keys, "dataset_splits", "names with `train` or `test` in them"),
            }
        }
    }
    set_joined(joined, "first-of-each-set", to);
    to.set("data.seed", 42);
    to.set("data.shuffle", true);
    if !held_out.is_empty() {
        to.set("eval.files", held_out);
    }
}

fn set_joined(joined: Vec<(toml::Value, Option<f64>)>, shares: &str, to: &mut Translation) {
    let table = |(path, share): (toml::Value, Option<f64>)| {
        let share = share.map(|share| ("share".to_owned(), share.into()));
        toml::Value::Table([("path".to_owned(), path)].into_iter().chain(share).collect())
    };
    if joined.iter().any(|(_, share)| share.is_some()) {
        to.set("data.shares", shares);
    }
    to.set("data.sets", joined.into_iter().map(table).collect::<Vec<_>>());
}

/// Refuses keys of a set that are not known. `columns` are found by their names.
fn unknown(set: &Keys, within: &str, known: &[&str], to: &mut Translation) {
    for key in set.names().filter(|key| !known.contains(key)) {
        to.unfollowed.push(format!("unknown key `{within}.{key}`"));
    }
}
