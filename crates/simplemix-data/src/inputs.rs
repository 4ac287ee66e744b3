//! Files by path, folder or pattern.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Endings of files that hold pairs.
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

/// The files that `text` names, in the order of their names: a file, all files with pairs in a folder (a set of shards),
/// or those that fit a pattern such as `data/train-*.parquet`. Hidden files are passed over.
///
/// # Errors
/// [`Error::Io`] if there is no such file or folder, [`Error::NoInput`] if nothing in it or no file fits.
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir()?;
/// for name in ["b.jsonl", "a.jsonl", "readme.md"] {
///     std::fs::write(dir.path().join(name), "{}")?;
/// }
/// let files = simplemix_data::inputs(dir.path())?;
/// assert_eq!(files, [dir.path().join("a.jsonl"), dir.path().join("b.jsonl")]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn inputs(text: impl AsRef<Path>) -> Result<Vec<PathBuf>> {
    let path = text.as_ref();
    let none = |expected| Err(Error::NoInput { path: path.to_owned(), expected });
    if path.is_dir() {
        let entries = std::fs::read_dir(path).map_err(Error::io(path, "read"))?;
        let mut files: Vec<PathBuf> =
            entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|file| fits(file)).collect();
        files.sort();
        return if files.is_empty() { none("files of Parquet, Arrow IPC or JSON in it") } else { Ok(files) };
    }
    let pattern = path.to_str().filter(|text| text.contains(['*', '?', '[']) && !path.exists());
    let Some(pattern) = pattern else {
        std::fs::metadata(path).map_err(Error::io(path, "open"))?;
        return Ok(vec![path.to_owned()]);
    };
    let Ok(found) = glob::glob(pattern) else { return none("a valid pattern") };
    let mut files: Vec<PathBuf> = found.filter_map(|file| file.ok()).filter(|file| file.is_file()).collect();
    files.sort();
    if files.is_empty() { none("a pattern that fits a file") } else { Ok(files) }
}

fn fits(file: &Path) -> bool {
    let name = file.file_name().map_or_else(String::new, |name| name.to_string_lossy().to_lowercase());
    file.is_file() && !name.starts_with(['.', '_']) && ENDINGS.iter().any(|ending| name.ends_with(ending))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_and_patterns_are_lists_of_files() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["train-1.parquet", "train-0.parquet", "test.jsonl.gz", ".hidden.jsonl", "notes.txt"] {
            std::fs::write(dir.path().join(name), "x").unwrap();
        }
        let names = |text: &Path| {
            let name = |path: PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
            inputs(text).unwrap().into_iter().map(name).collect::<Vec<_>>()
        };
        assert_eq!(names(dir.path()), ["test.jsonl.gz", "train-0.parquet", "train-1.parquet"]);
        assert_eq!(names(&dir.path().join("train-*.parquet")), ["train-0.parquet", "train-1.parquet"]);
        let error = inputs(dir.path().join("none-*")).unwrap_err().to_string();
        assert!(error.ends_with("none-*: nothing to read, expected a pattern that fits a file"), "{error}");
        assert!(matches!(inputs(dir.path().join("none.parquet")), Err(Error::Io { .. })));
    }
}
