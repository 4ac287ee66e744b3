//! Parts of a multimodal model's folder that its text part leaves out: tensors of other names, and files such as those of the
//! processors. A saved model has them as they are.
//!
//! They stay in the folder until they are copied, a piece at a time, so they take no memory. What is missing there is an error
//! before anything is written.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use safetensors::tensor::Dtype;

use crate::checkpoint::{Names, Top};
use crate::config::ModelConfig;
use crate::error::{At, Error, Result};
use crate::safetensors_file::Layout;
use crate::safetensors_reader::Reader;
use crate::weights;

/// The rest of a folder.
#[derive(Debug, Default)]
pub(crate) struct Rest {
    /// The folder's names of the model's tensors, by the model's.
    pub(crate) names: HashMap<String, String>,
    /// Tensors to copy, with their names.
    pub(crate) tensors: Vec<(String, Copied)>,
    /// Files to copy, by their paths in the folder.
    pub(crate) files: Vec<PathBuf>,
}

/// A tensor in a file.
#[derive(Debug, Clone)]
pub(crate) struct Copied {
    file: Arc<Path>,
    start: u64,
    bytes: usize,
    dtype: Dtype,
    shape: Vec<usize>,
}

impl Rest {
    /// The rest of the folder that a multimodal model's text part was loaded from.
    ///
    /// # Errors
    /// [`Error::Gone`] if the folder does not hold the model any more, errors of its files, [`Error::Input`] for a text part that
    /// was not loaded from a folder.
    pub(crate) fn of(config: &ModelConfig, folder: Option<&Path>) -> Result<Self> {
        let Some(class) = config.part_of() else { return Ok(Self::default()) };
        let folder = folder.ok_or_else(|| Error::Input {
            what: "model to save",
            found: format!("the text part of a `{class}` model, from no folder"),
            expected: "a model that was loaded from a folder, where its other parts are".to_owned(),
        })?;
        let gone = |reason: String| Error::Gone { folder: folder.to_owned(), reason };
        let files = weights::files(folder).map_err(|error| gone(error.to_string()))?;
        let stored = weights::names(&files).map_err(|error| gone(error.to_string()))?;
        let mut names = HashMap::new();
        let mut wrapper = String::new();
        for top in [Top::Score, Top::Head] {
            let found = Names::of(folder, &stored, config, top)?;
            names.extend(found.of_model(config));
            wrapper = found.wrapper().to_owned();
        }
        let missing = config.named(config.decoder_tensors()).into_iter().find(|(name, _)| !names.contains_key(name));
        if let Some((name, _)) = missing {
            return Err(gone(format!("`{name}` is not in its weights")));
        }
        let known: BTreeSet<&String> = names.values().collect();
        let bare = |name: &str| name.strip_prefix(&wrapper).unwrap_or(name).to_owned();
        let mut tensors = Vec::new();
        for path in &files {
            let (reader, file) = (Reader::open(path)?, Arc::<Path>::from(path.as_path()));
            for name in reader.names().into_iter().filter(|name| !known.contains(name)) {
                let place = reader.place(&name)?;
                let copied =
                    Copied { file: file.clone(), start: place.0, bytes: place.1, dtype: place.2, shape: place.3 };
                tensors.push((bare(&name), copied));
            }
        }
        let names = names.into_iter().map(|(name, stored)| (name, bare(&stored))).collect();
        Ok(Self { names, tensors, files: others(folder)? })
    }

    /// The folder's name of the model's tensor `name`.
    pub(crate) fn name(&self, name: String) -> String {
        self.names.get(&name).cloned().unwrap_or(name)
    }
}

/// Endings of files that hold weights, in any form.
const WEIGHTS: [&str; 9] = ["safetensors", "bin", "pt", "pth", "gguf", "h5", "msgpack", "onnx", "ckpt"];

/// Folder of further chat templates in a model's folder.
const TEMPLATES: &str = "additional_chat_templates";

/// Files of a folder beside weights, their index and `config.json`, by their paths in it.
fn others(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = names_in(folder)?.into_iter().map(PathBuf::from).collect();
    files.retain(|name| !is_left_out(name));
    let templates = folder.join(TEMPLATES);
    if templates.is_dir() {
        files.extend(names_in(&templates)?.into_iter().map(|name| Path::new(TEMPLATES).join(name)));
    }
    files.sort();
    Ok(files)
}

/// Names of the files right in a folder.
fn names_in(folder: &Path) -> Result<Vec<OsString>> {
    let entries = std::fs::read_dir(folder).at(folder, "read")?;
    let names = entries.map(|entry| Ok(entry.at(folder, "read")?.file_name())).collect::<Result<Vec<_>>>()?;
    Ok(names.into_iter().filter(|name| folder.join(name).is_file()).collect())
}

fn is_left_out(name: &Path) -> bool {
    let text = name.to_str().unwrap_or_default();
    let is_weights = name.extension().and_then(|end| end.to_str()).is_some_and(|end| WEIGHTS.contains(&end));
    is_weights || text.ends_with(".index.json") || text == "config.json" || text.starts_with('.')
}

impl Copied {
    /// Writes the tensor's bytes a piece at a time.
    pub(crate) fn put(&self, to: &mut dyn Write) -> io::Result<()> {
        let mut file = simplemix_files::open(&*self.file)?;
        file.seek(SeekFrom::Start(self.start))?;
        let copied = io::copy(&mut file.take(self.bytes as u64), to)?;
        if copied == self.bytes as u64 {
            return Ok(());
        }
        Err(io::Error::other(format!("{} was cut short while it was copied from", self.file.display())))
    }
}

impl Layout for Copied {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn bytes(&self) -> usize {
        self.bytes
    }
}
