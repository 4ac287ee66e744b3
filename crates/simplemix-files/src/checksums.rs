//! Checksums of the files of a folder, which find damage that a file system does not.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::atomic_folder::AtomicFolder;
use crate::error::{At, Error, Result};
use crate::hash::hash_file;

/// File of a folder that holds the checksums of the others.
const CHECKSUMS: &str = "checksums.json";

/// Size and hash of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Sum {
    bytes: u64,
    blake3: String,
}

impl Sum {
    fn of(path: &Path) -> Result<Self> {
        Ok(Self { bytes: fs::metadata(path).at(path, "read")?.len(), blake3: hash_file(path)? })
    }
}

impl AtomicFolder {
    /// Writes `checksums.json`, with size and Blake3 of all files that are in the folder by now.
    ///
    /// # Errors
    /// [`Error::Io`].
    ///
    /// # Examples
    /// ```
    /// use simplemix_files::{AtomicFolder, Error, check_folder};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let place = dir.path().join("step-10");
    /// let folder = AtomicFolder::create(&place)?;
    /// folder.write("weights", [1; 16])?;
    /// folder.write_checksums()?;
    /// folder.commit()?;
    /// assert!(check_folder(&place)?);
    /// std::fs::write(place.join("weights"), [0; 16])?;
    /// assert!(matches!(check_folder(&place), Err(Error::Damaged { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn write_checksums(&self) -> Result<()> {
        let mut sums = BTreeMap::new();
        for name in files(self.path(), Path::new(""))? {
            let sum = Sum::of(&self.path().join(&name))?;
            sums.insert(name, sum);
        }
        let text = serde_json::to_string_pretty(&sums).map_err(io::Error::from).at(self.final_path(), "write")?;
        self.write(CHECKSUMS, text + "\n")
    }
}

/// Compares the files of a folder with its `checksums.json`; `false` if there is none, as in folders of version 0.1.
///
/// # Errors
/// [`Error::Damaged`] if a file is missing or differs, or the checksums are unreadable; [`Error::Io`] if the system does
/// not let a file be read.
pub fn check_folder(folder: impl AsRef<Path>) -> Result<bool> {
    check_folder_at(folder.as_ref())
}

fn check_folder_at(folder: &Path) -> Result<bool> {
    let path = folder.join(CHECKSUMS);
    let bytes = match crate::input::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        bytes => bytes.at(&path, "read")?,
    };
    let sums: BTreeMap<PathBuf, Sum> =
        serde_json::from_slice(&bytes).map_err(|error| damaged(&path, format!("no checksums in it: {error}")))?;
    for (name, expected) in sums {
        let path = folder.join(name);
        if !path.is_file() {
            return Err(damaged(&path, "it is missing".to_owned()));
        }
        let found = fs::metadata(&path).at(&path, "read")?.len();
        if found != expected.bytes {
            return Err(damaged(&path, format!("it has {found} bytes, expected {}", expected.bytes)));
        }
        if hash_file(&path)? != expected.blake3 {
            return Err(damaged(&path, "its content is not what was written".to_owned()));
        }
    }
    Ok(true)
}

fn damaged(path: &Path, problem: String) -> Error {
    Error::Damaged { path: path.to_path_buf(), problem }
}

/// Names of all files under `folder`, relative to it.
fn files(root: &Path, below: &Path) -> Result<Vec<PathBuf>> {
    let folder = root.join(below);
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).at(&folder, "read")? {
        let entry = entry.at(&folder, "read")?;
        let name = below.join(entry.file_name());
        if entry.file_type().at(&folder, "read")?.is_dir() {
            names.extend(files(root, &name)?);
        } else {
            names.push(name);
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_damage_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("f");
        let make = || {
            let folder = AtomicFolder::create(&place).unwrap();
            folder.write("one", "abc").unwrap();
            fs::create_dir(folder.path().join("inner")).unwrap();
            folder.write("inner/deep", "").unwrap();
            folder.write_checksums().unwrap();
            folder.commit().unwrap();
        };
        let problem = |damage: &dyn Fn()| {
            make();
            assert!(check_folder(&place).unwrap());
            damage();
            check_folder(&place).unwrap_err().to_string()
        };
        let write = |name: &str, text: &str| fs::write(place.join(name), text).unwrap();
        let error = problem(&|| write("one", "abd"));
        assert!(error.ends_with("f/one: damaged: its content is not what was written"), "{error}");
        let error = problem(&|| write("one", ""));
        assert!(error.ends_with("f/one: damaged: it has 0 bytes, expected 3"), "{error}");
        let error = problem(&|| fs::remove_file(place.join("inner/deep")).unwrap());
        assert!(error.ends_with("f/inner/deep: damaged: it is missing"), "{error}");
        let error = problem(&|| write(CHECKSUMS, "\0\0\0\0"));
        assert!(error.contains("f/checksums.json: damaged: no checksums in it: "), "{error}");
        make();
        fs::remove_file(place.join(CHECKSUMS)).unwrap();
        assert!(!check_folder(&place).unwrap());
    }
}
