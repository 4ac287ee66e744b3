//! Files of pairs in a folder: shards, what `save_to_disk` of `datasets` writes, or a data set as a hub keeps it.
//!
//! Splits are told by the names of files and folders, as `datasets` does. They are never read together: a model must not be
//! trained on its test split because somebody named the folder.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Name endings of files with pairs.
const ENDINGS: [&str; 12] = [
    ".parquet",
    ".arrow",
    ".feather",
    ".jsonl",
    ".json",
    ".ndjson",
    ".jsonl.gz",
    ".jsonl.zst",
    ".json.gz",
    ".json.zst",
    ".ndjson.gz",
    ".ndjson.zst",
];

/// Files that `datasets` keeps beside the data.
const ABOUT: [&str; 4] = ["dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"];

/// Names of splits, and other names of the same ones.
const SPLITS: [(&str, &[&str]); 3] = [
    ("train", &["train", "training"]),
    ("validation", &["validation", "valid", "val", "dev"]),
    ("test", &["test", "testing", "eval", "evaluation"]),
];

/// Files with pairs in a folder, sorted by name.
///
/// # Errors
/// [`Error::Splits`] if they belong to several splits, or lie in several folders inside; [`Error::NoInput`] if there are none.
pub(crate) fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let (files, folders) = entries(folder)?;
    let found = shards(files);
    if found.is_empty() {
        return inside(folder, folders);
    }
    let names: Vec<String> = found.iter().map(|file| name_of(file)).collect();
    one_split(folder, &names)?;
    Ok(found)
}

/// Files and folders in a folder, sorted by name.
fn entries(folder: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder, "read"))? {
        all.push(entry.map_err(Error::io(folder, "read"))?.path());
    }
    all.sort();
    let (files, others): (Vec<PathBuf>, Vec<PathBuf>) = all.into_iter().partition(|path| path.is_file());
    let shown = |path: &PathBuf| path.is_dir() && !name_of(path).starts_with(['.', '_']);
    Ok((files, others.into_iter().filter(shown).collect()))
}

/// The files with pairs among those of a folder. Where `save_to_disk` has written, these are Arrow files, without the copies
/// that `datasets` keeps of its results.
fn shards(files: Vec<PathBuf>) -> Vec<PathBuf> {
    let is_saved = files.iter().any(|file| name_of(file) == "state.json");
    let is_shard = |name: &str| match is_saved {
        true => name.ends_with(".arrow") && !name.starts_with("cache-"),
        false => has_ending(name),
    };
    files.into_iter().filter(|file| is_shard(&name_of(file))).collect()
}

/// The files of a folder that holds only folders: those of the one folder that has any.
fn inside(folder: &Path, folders: Vec<PathBuf>) -> Result<Vec<PathBuf>> {
    let holds = |folder: &PathBuf| holds_shards(folder, 2);
    let with_files: Vec<PathBuf> = folders.into_iter().filter(holds).collect();
    match &with_files[..] {
        [] => {
            let expected = "a folder with Parquet, Arrow IPC or JSON files";
            Err(Error::NoInput { path: folder.to_owned(), expected })
        }
        [one] if name_of(one) == "data" => files(one),
        several => {
            let found = several.iter().map(|folder| name_of(folder)).collect::<Vec<_>>().join(", ");
            let example = likely(several, |folder| name_of(folder)).display().to_string();
            Err(Error::Splits { folder: folder.to_owned(), found: format!("the folders {found}"), example })
        }
    }
}

/// The split that is most likely meant: one for training, else the first.
fn likely<T>(splits: &[T], name: impl Fn(&T) -> String) -> &T {
    splits.iter().find(|split| name(split).contains("train")).unwrap_or(&splits[0])
}

/// Whether a folder, or one inside down to `depth`, has files with pairs.
fn holds_shards(folder: &Path, depth: usize) -> bool {
    let Ok((files, folders)) = entries(folder) else { return false };
    !shards(files).is_empty() || depth > 0 && folders.iter().any(|folder| holds_shards(folder, depth - 1))
}

/// Checks that the files of these names belong to one split.
pub(crate) fn one_split(folder: &Path, names: &[String]) -> Result<()> {
    let mut splits: Vec<(String, &str)> = Vec::new();
    for name in names {
        if let Some(split) = split_of(name)
            && !splits.iter().any(|(known, _)| *known == split)
        {
            splits.push((split, name));
        }
    }
    if splits.len() < 2 {
        return Ok(());
    }
    let (_, name) = likely(&splits, |(split, _)| split.clone());
    let kinds: BTreeSet<&str> = splits.iter().map(|(split, _)| split.as_str()).collect();
    let found = kinds.into_iter().collect::<Vec<_>>().join(", ");
    let example = folder.join(pattern_of(name)).display().to_string();
    Err(Error::Splits { folder: folder.to_owned(), found: format!("files of the splits {found}"), example })
}

/// The split that the name of a file says: all before `-00000-of-00001`, else a usual name of one.
fn split_of(name: &str) -> Option<String> {
    let stem = stem_of(name);
    let words = || stem.split(|c: char| !c.is_ascii_alphabetic()).map(str::to_ascii_lowercase);
    let (usual, _) = SPLITS.iter().find(|(_, names)| words().any(|word| names.contains(&word.as_str())))?;
    Some(before_number(stem).map_or_else(|| (*usual).to_owned(), str::to_owned))
}

/// The name without the ending of a file with pairs.
fn stem_of(name: &str) -> &str {
    let stems = ENDINGS.iter().filter_map(|ending| name.strip_suffix(ending));
    stems.min_by_key(|stem| stem.len()).unwrap_or(name)
}

/// The part of `train_prefs-00000-of-00001` before the numbers.
fn before_number(stem: &str) -> Option<&str> {
    let (rest, count) = stem.rsplit_once("-of-")?;
    let (split, number) = rest.rsplit_once('-')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (is_number(number) && is_number(count)).then_some(split)
}

/// A pattern that names the file and the others of its split.
fn pattern_of(name: &str) -> String {
    match before_number(stem_of(name)) {
        Some(split) => format!("{split}-*"),
        None => name.to_owned(),
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Whether a file of this name in a folder is one of its shards.
pub(crate) fn has_ending(name: &str) -> bool {
    let name = name.to_lowercase();
    let is_about = ABOUT.contains(&name.as_str());
    !name.starts_with(['.', '_']) && !is_about && ENDINGS.iter().any(|ending| name.ends_with(ending))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(names: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in names {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        dir
    }

    fn found(dir: &Path) -> Vec<String> {
        files(dir).unwrap().iter().map(|file| name_of(file)).collect()
    }

    fn refusal(dir: &Path) -> String {
        files(dir).unwrap_err().to_string().replace(&dir.display().to_string(), "DIR")
    }

    #[test]
    fn what_save_to_disk_writes_is_read_without_its_notes_and_copies() {
        let dir = folder(&["data-00000-of-00001.arrow", "cache-ab12.arrow", "dataset_info.json", "state.json"]);
        assert_eq!(found(dir.path()), ["data-00000-of-00001.arrow"]);
        let dir = folder(&["dataset_dict.json", "test/data-00000-of-00001.arrow", "train/data-00000-of-00001.arrow"]);
        let expected =
            "DIR: holds the folders test, train, expected files of one split; name one of them, such as DIR/train";
        assert_eq!(refusal(dir.path()), expected);
        assert_eq!(found(&dir.path().join("train")), ["data-00000-of-00001.arrow"]);
    }

    #[test]
    fn splits_of_a_hub_folder_are_named() {
        let dir =
            folder(&["README.md", "data/test_prefs-00000-of-00001.parquet", "data/train_prefs-00000-of-00002.parquet"]);
        let error = refusal(dir.path());
        assert!(error.starts_with("DIR/data: holds files of the splits test_prefs, train_prefs, expected"), "{error}");
        assert!(error.ends_with("such as DIR/data/train_prefs-*"), "{error}");
        let one = folder(&["README.md", "data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"]);
        assert_eq!(found(one.path()).len(), 2);
        let by_name = folder(&["train.jsonl", "valid.jsonl"]);
        assert!(refusal(by_name.path()).contains("the splits train, validation"));
        let configs = folder(&["helpful-base/train.jsonl.gz", "harmless-base/train.jsonl.gz"]);
        assert!(refusal(configs.path()).contains("the folders harmless-base, helpful-base"));
    }

    #[test]
    fn shards_of_other_names_are_one_set() {
        let dir = folder(&["contest-1.parquet", "math-00000-of-00001.parquet", "code-00000-of-00001.parquet"]);
        assert_eq!(found(dir.path()).len(), 3);
        assert!(refusal(folder(&["notes.txt"]).path()).ends_with("a folder with Parquet, Arrow IPC or JSON files"));
    }
}
