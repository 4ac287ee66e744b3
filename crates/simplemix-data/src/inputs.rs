//! Lists of files from a path, a folder or a pattern.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::read::with_rows;

/// Lists the files that `text` names, sorted by name: one file, all files with pairs in a folder (a set of shards), or
/// those that match a pattern such as `data/train-*.parquet`. Hidden files, and those that `datasets` keeps beside its data,
/// are skipped, and so are files without rows beside others. A folder whose files or folders belong to several splits, such as train and test, is refused. With the feature `object-store`,
/// `text` may be a URL: `s3://`, `gs://`, `az://`, `http(s)://` or `file://`; the files are then copies in the user's
/// cache folder, see `ObjectCache`.
///
/// # Errors
/// [`Error::Io`] if there is no such file or folder, [`Error::NoInput`] if it is empty or nothing matches,
/// [`Error::Splits`] for a folder of several splits;
/// [`Error::Url`], [`Error::Remote`] and [`Error::Files`] for URLs.
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
    inputs_at(text.as_ref())
}

fn inputs_at(path: &Path) -> Result<Vec<PathBuf>> {
    if let Some(url) = as_url(path) {
        #[cfg(feature = "object-store")]
        return crate::ObjectCache::from_env()?.inputs(url);
        #[cfg(not(feature = "object-store"))]
        return Err(Error::Url {
            url: simplemix_files::secret::redacted_url(url),
            found: "a URL".to_owned(),
            expected: "a path, since this build lacks the feature object-store",
        });
    }
    let none = |expected| Err(Error::NoInput { path: path.to_owned(), expected });
    if path.is_dir() {
        return Ok(with_rows(crate::folder::files(path)?));
    }
    let pattern = path.to_str().filter(|text| text.contains(['*', '?', '[']) && !path.exists());
    let Some(pattern) = pattern else {
        std::fs::metadata(path).map_err(Error::io(path, "open"))?;
        return Ok(vec![path.to_owned()]);
    };
    let Ok(found) = glob::glob(pattern) else { return none("a valid pattern") };
    let mut files: Vec<PathBuf> = found.filter_map(|file| file.ok()).filter(|file| file.is_file()).collect();
    files.sort();
    if files.is_empty() { none("a pattern that matches a file") } else { Ok(with_rows(files)) }
}

/// The URL, if the path is one.
fn as_url(path: &Path) -> Option<&str> {
    let text = path.to_str()?;
    let (scheme, _) = text.split_once("://")?;
    let is_scheme = scheme.len() > 1 && scheme.chars().all(|c| c.is_ascii_alphanumeric());
    is_scheme.then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_told_from_paths() {
        for (text, url) in [("s3://b/x.parquet", true), ("http://h", true), ("a://b", false), ("./a://b", false)] {
            assert_eq!(as_url(Path::new(text)).is_some(), url, "{text}");
        }
    }

    #[cfg(not(feature = "object-store"))]
    #[test]
    fn urls_need_the_feature() {
        let error = inputs("s3://bucket/a.parquet").unwrap_err().to_string();
        assert_eq!(
            error,
            "s3://bucket/a.parquet: a URL, expected a path, since this build lacks the feature object-store"
        );
    }

    #[test]
    fn folders_and_patterns_are_lists_of_files() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["train-1.parquet", "train-0.parquet", "more.jsonl.gz", ".hidden.jsonl", "notes.txt"] {
            std::fs::write(dir.path().join(name), "x").unwrap();
        }
        let names = |text: &Path| {
            let name = |path: PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
            inputs(text).unwrap().into_iter().map(name).collect::<Vec<_>>()
        };
        assert_eq!(names(dir.path()), ["more.jsonl.gz", "train-0.parquet", "train-1.parquet"]);
        assert_eq!(names(&dir.path().join("train-*.parquet")), ["train-0.parquet", "train-1.parquet"]);
        let error = inputs(dir.path().join("none-*")).unwrap_err().to_string();
        assert!(error.ends_with("none-*: nothing to read, expected a pattern that matches a file"), "{error}");
        assert!(matches!(inputs(dir.path().join("none.parquet")), Err(Error::Io { .. })));
    }
}
