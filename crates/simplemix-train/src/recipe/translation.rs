//! Settings out of a file of another program, and what had no counterpart.

use std::path::{Path, PathBuf};

use simplemix_settings::nearest_within;

use super::keys::Keys;
use crate::config::Objective;
use crate::hub_data::SCHEME;

/// A key of a file and the setting of the same meaning.
pub(super) type Same = (&'static str, &'static str);

/// Keys that are read together, with the function that reads them.
pub(super) type Together = (&'static [&'static str], fn(&Source<'_>, &mut Translation));

/// Keys of a program's files.
pub(super) struct Format {
    pub(super) same: &'static [Same],
    pub(super) together: &'static [Together],
    /// Keys that cannot change a number of the result.
    pub(super) ignored: &'static [&'static str],
    /// Whether a key that is not known is one that is written wrong, and not one of many without a counterpart.
    pub(super) is_complete: bool,
}

/// A file that is translated.
pub(super) struct Source<'a> {
    pub(super) keys: &'a Keys,
    pub(super) objective: Objective,
    /// Devices that the run is on.
    pub(super) devices: u64,
    /// Text of the file, for its comments.
    pub(super) text: &'a str,
}

/// Settings out of a file.
#[derive(Debug, Default)]
pub(super) struct Translation {
    pub(super) settings: toml::Table,
    /// Keys without effect on the result.
    pub(super) ignored: Vec<String>,
    /// Facts that the user should know.
    pub(super) remarks: Vec<String>,
    /// Keys and values that cannot be followed.
    pub(super) unfollowed: Vec<String>,
}

impl Format {
    /// Translates all keys of a file.
    pub(super) fn translate(&self, source: &Source<'_>, to: &mut Translation) {
        for key in source.keys.names() {
            if let Some((_, path)) = self.same.iter().find(|(known, _)| *known == key) {
                match source.keys.get(key).map(toml::Value::try_from) {
                    Some(Ok(value)) => to.set(path, value),
                    _ => to.unfollowed.push(source.keys.wrong(key, "one value")),
                }
            } else if self.ignored.contains(&key) {
                to.ignored.push(key.to_owned());
            } else if !self.together.iter().any(|(keys, _)| keys.contains(&key)) {
                self.unknown(source.keys, key, to);
            }
        }
        for (_, read) in self.together {
            read(source, to);
        }
    }

    fn unknown(&self, keys: &Keys, key: &str, to: &mut Translation) {
        if self.is_complete {
            let known = self
                .same
                .iter()
                .map(|(key, _)| *key)
                .chain(self.together.iter().flat_map(|(keys, _)| keys.iter().copied()));
            let known: Vec<&str> = known.chain(self.ignored.iter().copied()).collect();
            let meant = nearest_within(key, &known, if key.len() < 6 { 1 } else { 2 });
            let meant = meant.map_or(String::new(), |name| format!("; did you mean `{name}`?"));
            to.unfollowed.push(format!("unknown key `{key}`{meant}"));
        } else if keys.is_set(key) {
            to.unfollowed.push(keys.wrong(key, "no such key: it has no counterpart"));
        }
    }
}

impl Translation {
    /// Sets a setting by its path.
    pub(super) fn set(&mut self, path: &str, value: impl Into<toml::Value>) {
        let own = path
            .rsplit('.')
            .fold(value.into(), |value, key| toml::Value::Table(toml::Table::from_iter([(key.to_owned(), value)])));
        if let toml::Value::Table(own) = own {
            simplemix_settings::merge(&mut self.settings, own);
        }
    }

    /// A value, or none with the complaint noted.
    pub(super) fn take<T>(&mut self, value: Result<Option<T>, String>) -> Option<T> {
        value.unwrap_or_else(|complaint| {
            self.unfollowed.push(complaint);
            None
        })
    }

    /// Notes that the value of a key cannot be followed.
    pub(super) fn refuse(&mut self, keys: &Keys, key: &str, expected: &str) {
        self.unfollowed.push(keys.wrong(key, expected));
    }

    /// Notes each of `names` that has a value as one without effect.
    pub(super) fn ignore(&mut self, keys: &Keys, names: &[&str]) {
        self.ignored.extend(names.iter().filter(|key| keys.has(key)).map(|key| (*key).to_owned()));
    }

    /// Refuses each of `names` that says something, with what was expected instead.
    pub(super) fn refuse_set(&mut self, keys: &Keys, names: &[&str], expected: &str) {
        let set: Vec<&str> = names.iter().copied().filter(|key| keys.is_set(key)).collect();
        set.into_iter().for_each(|key| self.refuse(keys, key, expected));
    }
}

/// The batch size as devices make it, and a remark that says so. `keys` are those of a device's pairs and of the passes of an update.
pub(super) fn batch_size(source: &Source<'_>, keys: [&str; 2], default: i64, to: &mut Translation) {
    let mut count = |key: &str, default| match to.take(source.keys.whole(key)) {
        Some(count) if count < 1 => {
            to.refuse(source.keys, key, "a whole number >= 1");
            1
        }
        found => found.unwrap_or(default),
    };
    let (pairs, passes) = (count(keys[0], default), count(keys[1], 1));
    let devices = i64::try_from(source.devices).unwrap_or(1);
    let batch = pairs.saturating_mul(passes).saturating_mul(devices);
    to.set("batch.batch_size", batch);
    let plural = if devices == 1 { "" } else { "s" };
    let mut remark =
        format!("a batch is {batch} pairs: {pairs} a device x {passes} accumulated x {devices} device{plural}");
    match global_batch(source.text) {
        Some(all) if all % (pairs * passes) == 0 && all != batch => {
            let meant = all / (pairs * passes);
            remark += &format!(
                "; a comment speaks of a global batch of {all}, which is {meant} devices: set batch.batch_size = {all}"
            );
        }
        _ if devices == 1 => {
            remark += "; the file counts on its devices: for N of them, set batch.batch_size to N times that"
        }
        _ => {}
    }
    to.remarks.push(remark);
}

/// The global batch size of a comment such as `# Config for 2 nodes, with GBS 32`.
fn global_batch(text: &str) -> Option<i64> {
    let comments =
        text.lines().filter_map(|line| line.split_once('#').map(|(_, comment)| comment.to_ascii_lowercase()));
    comments.into_iter().find_map(|comment| {
        let at =
            ["gbs", "global batch size"].into_iter().find_map(|name| comment.find(name).map(|at| at + name.len()))?;
        let digits: String =
            comment[at..].trim_start_matches([' ', ':', '=']).chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok().filter(|all| *all > 0)
    })
}

/// Endings of files of pairs, by which a path is told from a name of the hub.
const ENDINGS: [&str; 9] = [".parquet", ".json", ".jsonl", ".ndjson", ".arrow", ".feather", ".gz", ".zst", ".csv"];

/// Whether a text is the name of a model or data set on the hub: `owner/name`, where nothing of that name exists.
pub(super) fn is_hub_name(text: &str) -> bool {
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    let is_name = text.split_once('/').is_some_and(|(owner, name)| plain(owner) && plain(name));
    is_name && !ENDINGS.iter().any(|ending| text.ends_with(ending)) && !Path::new(text).exists()
}

/// The model of a name and a revision.
pub(super) fn model(name: &str, revision: Option<&str>, key: &str, to: &mut Translation) {
    match revision.filter(|revision| *revision != "main") {
        Some(revision) if is_hub_name(name) => to.set("model", format!("{name}@{revision}")),
        Some(_) => {
            to.ignored.push(key.to_owned());
            to.set("model", name);
        }
        None => to.set("model", name),
    }
}

/// Path of a split of a data set: `[name, place]` are the data set's name or a folder, and files in it; a name of the hub has a
/// revision and a configuration.
pub(super) fn split_path(
    [name, place]: [&str; 2],
    [revision, config]: [Option<&str>; 2],
    split: &str,
    to: &mut Translation,
) -> toml::Value {
    if split.contains(['[', '+', ':']) {
        to.unfollowed.push(format!("the split `{split}` of {name} is a part or a sum, expected the name of one split"));
    }
    if !is_hub_name(name) {
        if split != "train" {
            to.unfollowed.push(format!(
                "the split `{split}` of {name} is none of the hub, expected the path of the split's file"
            ));
        }
        let path: PathBuf = Path::new(name).join(place).components().collect();
        return path.to_string_lossy().into_owned().into();
    }
    let revision =
        revision.filter(|revision| *revision != "main").map_or(String::new(), |revision| format!("@{revision}"));
    let place = if place.is_empty() { String::new() } else { format!("/{place}") };
    let config = config.map_or(String::new(), |config| format!("config={config}&"));
    format!("{SCHEME}{name}{revision}{place}?{config}split={split}").into()
}
