//! Hashes of files, by which results are known again.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{At, Error, Result};

/// Blake3 of a file's content, in hex. The file is read in pieces.
///
/// # Errors
/// [`Error::Io`] if it cannot be read.
pub fn hash_file(path: impl AsRef<Path>) -> Result<String> {
    hash_files([path])
}

/// Blake3 of the contents of several files, one after the other, in hex.
///
/// # Errors
/// [`Error::Io`] if one cannot be read.
pub fn hash_files<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    for path in paths {
        update(&mut hasher, path.as_ref())?;
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// Blake3, in hex, of the files in a model or adapter folder that say what the model answers: weights, configuration,
/// tokenizer and chat template, that is `*.safetensors`, `*.json` and `*.jinja` directly inside, without hidden ones.
///
/// Where the folder is, and the order in which the system lists it, have no effect.
///
/// # Errors
/// [`Error::NoWeights`] if there are no weights, [`Error::Io`] if a file cannot be read.
pub fn hash_model_folder(folder: impl AsRef<Path>) -> Result<String> {
    hash_of_model(folder.as_ref())
}

fn hash_of_model(folder: &Path) -> Result<String> {
    let files = model_files(folder)?;
    if !files.iter().any(|path| has_ending(path, &["safetensors"])) {
        return Err(Error::NoWeights { path: folder.to_path_buf() });
    }
    let mut hasher = blake3::Hasher::new();
    for path in files {
        let mut content = blake3::Hasher::new();
        update(&mut content, &path)?;
        hasher.update(path.file_name().unwrap_or_default().as_encoded_bytes());
        hasher.update(content.finalize().as_bytes());
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// The files that count, by name.
fn model_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).at(folder, "read")? {
        let path = entry.at(folder, "read")?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && has_ending(&path, &["safetensors", "json", "jinja"]) && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn has_ending(path: &Path, endings: &[&str]) -> bool {
    path.extension().is_some_and(|found| endings.iter().any(|ending| found == *ending))
}

fn update(hasher: &mut blake3::Hasher, path: &Path) -> Result<()> {
    let file = crate::input::open(path).at(path, "read")?;
    hasher.update_reader(file).at(path, "read")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_hash_by_content() {
        let dir = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| dir.path().join(name));
        fs::write(&a, "abc").unwrap();
        fs::write(&b, "def").unwrap();
        // `printf abc | b3sum`, and abcdef.
        assert_eq!(hash_file(&a).unwrap(), "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85");
        assert_eq!(hash_files([&a, &b]).unwrap(), blake3::hash(b"abcdef").to_hex().as_str());
        let error = hash_file(dir.path().join("none")).unwrap_err().to_string();
        assert!(error.contains("none: cannot read: "), "{error}");
    }

    #[test]
    fn a_model_folder_hashes_by_what_the_model_answers() {
        let dir = tempfile::tempdir().unwrap();
        let write = |folder: &str, name: &str, text: &str| {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
            fs::write(dir.path().join(folder).join(name), text).unwrap();
        };
        let hash = |folder: &str| hash_model_folder(dir.path().join(folder));
        write("one", "config.json", "{}");
        let error = hash("one").unwrap_err();
        assert!(matches!(error, Error::NoWeights { .. }), "{error}");
        write("one", "model.safetensors", "weights");
        for (name, text) in [("model.safetensors", "weights"), ("config.json", "{}")] {
            write("two", name, text);
        }
        let first = hash("one").unwrap();
        assert_eq!(hash("two").unwrap(), first);
        // Caches of earlier versions are keyed by this.
        let digest = |text: &str| *blake3::hash(text.as_bytes()).as_bytes();
        let plain = [b"config.json", &digest("{}")[..], b"model.safetensors", &digest("weights")].concat();
        assert_eq!(first, blake3::hash(&plain).to_hex().as_str());
        write("one", "README.md", "beside the point");
        write("one", ".config.json", "beside the point");
        assert_eq!(hash("one").unwrap(), first);
        for (name, text) in [("config.json", "{ }"), ("chat_template.jinja", ""), ("adapter_config.json", "{}")] {
            write("one", name, text);
            assert_ne!(hash("one").unwrap(), first, "{name}");
            fs::remove_file(dir.path().join("one").join(name)).unwrap();
            write("one", "config.json", "{}");
        }
        write("one", "model.safetensors", "other");
        assert_ne!(hash("one").unwrap(), first);
    }
}
