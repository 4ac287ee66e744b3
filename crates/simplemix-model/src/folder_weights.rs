//! Weights of a model folder, read one at a time under the decoder's names.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use tch::{Device, Kind, Tensor};

use crate::checkpoint::{Names, Top};
use crate::config::{EMBEDDING, HEAD, ModelConfig};
use crate::error::{Doing, Error, Result};
use crate::network;
use crate::quantized::Checkpoint;
use crate::safetensors_reader::Reader;
use crate::weights;

/// An open folder.
pub(crate) struct FolderWeights {
    folder: PathBuf,
    config: ModelConfig,
    /// Names in the files, by the model's.
    stored: HashMap<String, String>,
    readers: Vec<Reader>,
    /// File of each tensor.
    places: HashMap<String, usize>,
    quantised: Option<Checkpoint>,
    shapes: HashMap<String, Vec<i64>>,
}

impl FolderWeights {
    /// Opens a folder of a causal language model, and checks the names of its tensors.
    ///
    /// # Errors
    /// As [`crate::CausalLm::load`], but for the shapes of tensors, which are checked as they are read.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        let config = ModelConfig::from_folder(folder)?;
        let files = weights::files(folder)?;
        let quantised = network::quantised(folder, &files, &config, false)?;
        let names = quantised.as_ref().map_or_else(|| weights::names(&files), |quantised| Ok(quantised.names()))?;
        let of = Names::of(folder, &names, &config, Top::Head)?;
        weights::check_constants(folder, &files, of.constants())?;
        let stored = names.into_iter().filter_map(|name| Some((of.in_model(&name)?, name))).collect();
        let readers = files.iter().map(|path| Reader::open(path)).collect::<Result<Vec<_>>>()?;
        let all = readers.iter().enumerate();
        let places = all.flat_map(|(file, reader)| reader.names().into_iter().map(move |name| (name, file))).collect();
        let mut own =
            Self { folder: folder.to_owned(), config, stored, readers, places, quantised, shapes: HashMap::new() };
        own.take_shapes();
        if of.has_second_head() {
            own.shapes.insert(HEAD.to_owned(), vec![own.config.vocab_size, own.config.hidden_size]);
            if own.tensor(HEAD)? != own.tensor(EMBEDDING)? {
                own.config.untie();
            }
            own.take_shapes();
        }
        Ok(own)
    }

    fn take_shapes(&mut self) {
        self.shapes = self.config.own_tensors().into_iter().collect();
    }

    /// The model's shape; its output head is the embedding only if the weights say so too.
    pub(crate) fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Kind of the numbers of the embedding in the files.
    pub(crate) fn kind(&mut self) -> Result<Kind> {
        let Some((reader, name)) = self.file_of(EMBEDDING) else { return Ok(Kind::Float) };
        Ok(reader.stored(&name)?.kind())
    }

    /// Numbers of a tensor of the decoder, as the model has it, in f32.
    pub(crate) fn numbers(&mut self, name: &str) -> Result<Vec<f32>> {
        Vec::try_from(self.tensor(name)?.contiguous().flatten(0, -1)).doing("reading a weight")
    }

    fn file_of(&mut self, name: &str) -> Option<(&mut Reader, String)> {
        let stored = self.stored.get(&self.config.names.tensor(name))?.clone();
        let file = *self.places.get(&stored)?;
        Some((self.readers.get_mut(file)?, stored))
    }

    fn tensor(&mut self, name: &str) -> Result<Tensor> {
        let class = self.config.names.tensor(name);
        let shape = self.shapes.get(name).cloned().unwrap_or_default();
        let problem = |folder: &Path, problems: String| Error::Weights { folder: folder.to_owned(), problems };
        let stored = self.stored.get(&class).cloned();
        if let (Some(quantised), Some(stored), &[outputs, inputs]) = (&mut self.quantised, &stored, &shape[..])
            && quantised.quantised().contains(stored)
        {
            let out = Tensor::f_empty([outputs, inputs], (Kind::Float, Device::Cpu)).doing("reading a weight")?;
            let weight = quantised.read(stored, [outputs, inputs], Device::Cpu)?;
            weight.dequantise_into(&out).doing("reading a weight")?;
            return Ok(out);
        }
        let folder = self.folder.clone();
        let is_turned = self.config.is_turned(&class);
        let Some((reader, stored)) = self.file_of(name) else {
            return Err(problem(&folder, format!("`{class}` is missing")));
        };
        let tensor = reader.tensor(&stored, Some(Kind::Float), Device::Cpu)?;
        let tensor = if is_turned { tensor.tr() } else { tensor };
        match tensor.size() == shape {
            true => Ok(tensor),
            false => Err(problem(&folder, format!("`{stored}` is {:?}, expected {shape:?}", tensor.size()))),
        }
    }
}
