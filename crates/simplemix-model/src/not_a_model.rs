//! Says what a path is that was given as a model folder and is none.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;
use simplemix_files::is_lfs_pointer;

use crate::error::{Error, Result};
use crate::lora::{ADAPTER_CONFIG, ADAPTER_WEIGHTS};
use crate::weights::{WEIGHTS, WEIGHTS_INDEX};

/// Refuses a path that is known not to be a model folder that can be read.
///
/// # Errors
/// [`Error::NotAModel`].
pub(crate) fn check(path: &Path) -> Result<()> {
    match problem(path) {
        Some((found, advice)) => Err(Error::NotAModel { path: path.to_owned(), found, advice }),
        None => Ok(()),
    }
}

/// Refuses a path that is not a folder of a peft adapter that can be read.
///
/// # Errors
/// [`Error::NotAModel`].
pub(crate) fn check_adapter(path: &Path) -> Result<()> {
    match adapter_problem(path) {
        Some((found, advice)) => Err(Error::NotAModel { path: path.to_owned(), found, advice }),
        None => Ok(()),
    }
}

fn adapter_problem(path: &Path) -> Option<(String, String)> {
    let expected = format!("expected a folder of a peft adapter ({ADAPTER_CONFIG}, {ADAPTER_WEIGHTS})");
    if !path.is_dir() {
        return Some((if path.exists() { "a file" } else { "no such folder" }.to_owned(), expected));
    }
    let files = files(path);
    if let Some(file) = files.iter().find(|file| is_lfs_pointer(file)) {
        return Some(of_pointer(file));
    }
    if !path.join(ADAPTER_CONFIG).is_file() {
        let is_model = path.join("config.json").is_file();
        let found = if is_model { "a model" } else { "not an adapter of peft" };
        return Some((format!("{found}, without `{ADAPTER_CONFIG}`"), expected));
    }
    let has_pickle = files.iter().any(|file| name(file) == "adapter_model.bin");
    (!path.join(ADAPTER_WEIGHTS).is_file()).then(|| match has_pickle {
        true => {
            let found =
                "the weights are a pickle, `adapter_model.bin`, which is not read because reading one can run code";
            let advice = "save the adapter as safetensors: load it with peft and call save_pretrained(NEW_FOLDER)";
            (found.to_owned(), advice.to_owned())
        }
        false => (format!("an adapter without `{ADAPTER_WEIGHTS}`"), expected),
    })
}

fn of_pointer(file: &Path) -> (String, String) {
    let found = format!("`{}` is Git LFS's pointer to the file, not the file", name(file));
    (found, "fetch the files with `git lfs pull`, or download them again".to_owned())
}

/// The thing that is there, and what to do.
fn problem(path: &Path) -> Option<(String, String)> {
    let pair = |found: &str, advice: &str| Some((found.to_owned(), advice.to_owned()));
    if !path.exists() {
        return pair("no such folder", "expected a model folder (config.json, tokenizer.json, *.safetensors)");
    }
    if path.is_file() {
        return of_file(path);
    }
    let files = files(path);
    let ending = |end: &str| files.iter().find(|file| file.extension().is_some_and(|found| found == end));
    if let Some(file) = files.iter().find(|file| is_lfs_pointer(file)) {
        return Some(of_pointer(file));
    }
    if !path.join("config.json").is_file() {
        if path.join(ADAPTER_CONFIG).is_file() {
            return Some(of_adapter(path));
        }
        if let Some(file) = ending("gguf") {
            return of_file(file);
        }
        return None;
    }
    if path.join(WEIGHTS).is_file() || path.join(WEIGHTS_INDEX).is_file() {
        return None;
    }
    if files.iter().any(|file| is_shard(&name(file))) {
        let found = format!("weights in several files without `{WEIGHTS_INDEX}`, which says what each of them holds");
        return Some((found, "download the index too, or save the model again with transformers".to_owned()));
    }
    let pickle = ["bin", "pt", "pth"].into_iter().find_map(ending)?;
    Some(of_pickle(pickle))
}

/// A file in place of a folder.
fn of_file(path: &Path) -> Option<(String, String)> {
    let mut start = [0; 4];
    let is_gguf =
        simplemix_files::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok() && &start == b"GGUF";
    if is_lfs_pointer(path) {
        let advice = "fetch the file with `git lfs pull`, and give the model's folder";
        return Some(("Git LFS's pointer to a file".to_owned(), advice.to_owned()));
    }
    if is_gguf || path.extension().is_some_and(|end| end == "gguf") {
        let advice = format!("turn it into a model folder first: simplemix import-gguf {} FOLDER", path.display());
        return Some(("a GGUF file".to_owned(), advice));
    }
    match path.extension().and_then(|end| end.to_str()) {
        Some("bin" | "pt" | "pth") => Some(of_pickle(path)),
        Some("safetensors") => {
            let advice = "give the folder that holds it together with config.json and tokenizer.json";
            Some(("a file of weights".to_owned(), advice.to_owned()))
        }
        _ => Some((
            "a file".to_owned(),
            "expected a model folder (config.json, tokenizer.json, *.safetensors)".to_owned(),
        )),
    }
}

fn of_pickle(path: &Path) -> (String, String) {
    let found =
        format!("the weights are a pickle, `{}`, which is not read because reading one can run code", name(path));
    let advice = "save the model as safetensors with transformers: \
                  AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER)";
    (found, advice.to_owned())
}

fn of_adapter(path: &Path) -> (String, String) {
    let text = simplemix_files::read_to_string(path.join(ADAPTER_CONFIG)).unwrap_or_default();
    let config: Value = serde_json::from_str(&text).unwrap_or_default();
    let base = config["base_model_name_or_path"].as_str().map(|base| format!(" (`{base}`)")).unwrap_or_default();
    let advice = format!(
        "give the model that it was made for{base}, and this folder as the adapter to train further (`--adapter`), or merge the \
         two with peft"
    );
    ("an adapter of peft, without the model it was made for".to_owned(), advice)
}

fn is_shard(name: &str) -> bool {
    name.starts_with("model-") && name.contains("-of-") && name.ends_with(".safetensors")
}

/// Files of a folder, by name.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    files.sort();
    files
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The error for a folder with these files.
    fn said(files: &[(&str, &str)]) -> String {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        check(dir.path()).map_or_else(|error| error.to_string(), |()| "a model".to_owned())
    }

    #[test]
    fn the_error_says_what_is_there_and_what_to_do() {
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
        let adapter = r#"{"base_model_name_or_path": "owner/base"}"#;
        for (files, parts) in [
            (&[("config.json", "{}"), ("pytorch_model.bin", "")][..], &["pickle", "save_pretrained"][..]),
            (&[("config.json", "{}"), ("model-00001-of-00002.safetensors", "")], &["index.json"]),
            (&[("config.json", "{}"), ("model.safetensors", pointer)], &["pointer", "git lfs pull"]),
            (&[("config.json", pointer)], &["`config.json`", "git lfs pull"]),
            (&[("adapter_config.json", adapter)], &["adapter", "`owner/base`", "--adapter"]),
            (&[("a.gguf", "GGUF....")], &["GGUF", "import-gguf"]),
            (&[("config.json", "{}"), ("model.safetensors", "")], &["a model"]),
        ] {
            let said = said(files);
            assert!(parts.iter().all(|part| said.contains(part)), "{said}");
        }
    }

    #[test]
    fn what_is_no_adapter_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let said = |files: &[&str]| {
            let folder = tempfile::tempdir_in(dir.path()).unwrap();
            files.iter().for_each(|name| std::fs::write(folder.path().join(name), "{}").unwrap());
            check_adapter(folder.path()).map_or_else(|error| error.to_string(), |()| "an adapter".to_owned())
        };
        assert!(
            said(&["config.json", "model.safetensors"]).contains("a model, without `adapter_config.json`; expected")
        );
        assert!(said(&[]).contains("not an adapter of peft"));
        assert!(said(&["adapter_config.json", "adapter_model.bin"]).contains("pickle"));
        assert!(said(&["adapter_config.json"]).contains("an adapter without `adapter_model.safetensors`"));
        assert_eq!(said(&["adapter_config.json", "adapter_model.safetensors"]), "an adapter");
        assert!(check_adapter(&dir.path().join("none")).unwrap_err().to_string().contains("no such folder; expected"));
    }

    #[test]
    fn paths_that_are_no_folder_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let said = |name: &str, bytes: Option<&[u8]>| {
            let path = dir.path().join(name);
            if let Some(bytes) = bytes {
                std::fs::write(&path, bytes).unwrap();
            }
            check(&path).unwrap_err().to_string()
        };
        assert!(said("nothing", None).contains("no such folder"));
        assert!(said("x", Some(b"GGUF\x03\0\0\0")).contains("simplemix import-gguf"));
        assert!(said("m.safetensors", Some(b"")).contains("give the folder"));
        assert!(said("m.bin", Some(b"")).contains("pickle"));
        assert!(said("notes.txt", Some(b"x")).contains("a file; expected a model folder"));
    }
}
