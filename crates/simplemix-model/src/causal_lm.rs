//! A causal language model from a Hugging Face folder and back.
//!
//! Letters: T tokens, N asked-for positions, H width, V vocabulary.

use std::path::Path;

use tch::{Device, Kind, Tensor};

use crate::attention::AttentionPlan;
use crate::config::ModelConfig;
use crate::decoder::{Layer, RmsNorm};
use crate::error::{At, Doing, Error, Result};
use crate::packed::Packed;
use crate::rope::Rope;
use crate::weights;

/// Files that travel with the weights when a model is saved beside another.
const COMPANIONS: &[&str] = &[
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
];

/// A decoder-only language model; parameters keep the checkpoint's names.
#[derive(Debug)]
pub struct CausalLm {
    config: ModelConfig,
    pub(crate) layers: Vec<Layer>,
    embed_tokens: Tensor, // [V, H]
    norm: RmsNorm,
    lm_head: Tensor, // [V, H]; the embedding itself where tied
    pub(crate) rope: Rope,
    parameters: Vec<(String, Tensor)>,
    device: Device,
    kind: Kind,
}

impl CausalLm {
    /// Loads a model folder: `config.json` and safetensors, one file or several; weights become `kind` on `device`.
    ///
    /// On a CPU without bf16 matrix units choose [`Kind::Float`]: bf16 was measured 450 times slower there.
    ///
    /// # Errors
    /// [`Error::MissingFile`], [`Error::Json`], [`Error::Config`], [`Error::Safetensors`] or [`Error::Weights`].
    pub fn load(folder: &Path, kind: Kind, device: Device) -> Result<Self> {
        let config = ModelConfig::from_folder(folder)?;
        let wanted = config.tensors();
        let tied = config.tie_word_embeddings;
        // Old checkpoints carry the rotary table, and some tied ones a second copy of the embedding.
        let ignored = |name: &str| name.ends_with("rotary_emb.inv_freq") || (tied && name == "lm_head.weight");
        let mut tensors = weights::load(folder, &wanted, ignored, kind, device)?;
        let named =
            wanted.into_iter().filter_map(|(name, _)| tensors.remove(&name).map(|tensor| (name, tensor))).collect();
        Ok(Self::from_tensors(config, named, kind, device))
    }

    /// A model with normally distributed weights (standard deviation 0.02, norms 1), the same for the same seed.
    ///
    /// # Errors
    /// [`Error::Torch`] where memory does not suffice.
    pub fn random(config: ModelConfig, seed: u64, device: Device) -> Result<Self> {
        let mut named = Vec::new();
        for (index, (name, shape)) in config.tensors().into_iter().enumerate() {
            let numel = shape.iter().product::<i64>() as usize;
            let tensor = if name.ends_with("norm.weight") {
                Tensor::f_ones(&shape, (Kind::Float, device))
            } else {
                let values = crate::random::normals(seed, index as u64, numel, 0.02);
                Tensor::f_from_slice(&values).and_then(|t| t.f_view(&shape[..])?.f_to_device(device))
            };
            named.push((name, tensor.doing("making random weights")?));
        }
        Ok(Self::from_tensors(config, named, Kind::Float, device))
    }

    /// Puts together a model from tensors that are known to be the whole of `config.tensors()`.
    fn from_tensors(config: ModelConfig, parameters: Vec<(String, Tensor)>, kind: Kind, device: Device) -> Self {
        let tensors = parameters.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect();
        let layers = (0..config.num_hidden_layers).map(|i| Layer::take(&tensors, i, &config)).collect();
        let embed_tokens = tensors["model.embed_tokens.weight"].shallow_clone();
        let lm_head = tensors.get("lm_head.weight").unwrap_or(&embed_tokens).shallow_clone();
        Self {
            layers,
            norm: RmsNorm::take(&tensors, "model.norm", config.rms_norm_eps),
            rope: Rope::new(&config.rope, config.head_dim, device),
            embed_tokens,
            lm_head,
            parameters,
            device,
            kind,
            config,
        }
    }

    /// Shape and constants.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Where the weights are.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Element type of the weights.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Weights under the checkpoint's names; a tied head appears once, as the embedding.
    pub fn named_parameters(&self) -> &[(String, Tensor)] {
        &self.parameters
    }

    /// Whether gradients are kept for the weights.
    pub fn set_trainable(&mut self, trainable: bool) {
        for (_, tensor) in &self.parameters {
            let _ = tensor.set_requires_grad(trainable);
        }
    }

    /// Output head `[V, H]`, for losses that compute log-probs from hidden states.
    pub fn head(&self) -> &Tensor {
        &self.lm_head
    }

    /// Hidden states `[T, H]` of all packed tokens after the final norm.
    ///
    /// # Errors
    /// [`Error::Input`] for a token id outside the vocabulary or no token at all; [`Error::Torch`].
    pub fn hidden_states(&self, packed: &Packed) -> Result<Tensor> {
        let plan = AttentionPlan::new(packed, self.kind, self.device);
        self.forward(packed, |_, heads| plan.attend(heads))
    }

    /// Logits `[N, V]` of hidden states `[N, H]`.
    ///
    /// # Errors
    /// [`Error::Torch`] where memory does not suffice.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        hidden.f_linear(&self.lm_head, None::<&Tensor>).doing("the output head")
    }

    /// The network over `packed`; `attend(layer, heads)` mixes values.
    pub(crate) fn forward(
        &self,
        packed: &Packed,
        mut attend: impl FnMut(usize, crate::decoder::Heads) -> Result<Tensor>,
    ) -> Result<Tensor> {
        self.check(packed)?;
        let tokens = Tensor::from_slice(packed.tokens()).to_device(self.device);
        let positions = Tensor::from_slice(packed.positions()).to_device(self.device);
        let turn = self.rope.turn(&positions, self.kind)?;
        let mut x = Tensor::f_embedding(&self.embed_tokens, &tokens, -1, false, false).doing("the embedding")?;
        for (index, layer) in self.layers.iter().enumerate() {
            x = layer.forward(&x, &turn, |heads| attend(index, heads))?;
        }
        self.norm.forward(&x)
    }

    /// Ids index memory, so they are checked before libtorch sees them.
    fn check(&self, packed: &Packed) -> Result<()> {
        let vocab = self.config.vocab_size;
        let refuse = |what, found: String, expected: String| Err(Error::Input { what, found, expected });
        if packed.is_empty() {
            return refuse("number of tokens", "0".to_owned(), "at least one".to_owned());
        }
        if let Some(id) = packed.tokens().iter().find(|id| !(0..vocab).contains(*id)) {
            return refuse("token id", id.to_string(), format!("below the vocabulary's {vocab}"));
        }
        Ok(())
    }

    /// Writes an HF folder: config, weights, and the tokenizer and template files of `source`, if given.
    ///
    /// The folder appears whole or not at all: it is written beside its place and renamed.
    ///
    /// # Errors
    /// [`Error::Io`] if `folder` exists already or cannot be written.
    pub fn save(&self, folder: &Path, source: Option<&Path>) -> Result<()> {
        if folder.exists() {
            let exists = std::io::Error::from(std::io::ErrorKind::AlreadyExists);
            return Err(exists).at(folder, "write");
        }
        let parent = folder.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(parent).at(parent, "write")?;
        let temporary = tempfile::Builder::new().prefix(".saving-").tempdir_in(parent).at(parent, "write")?;
        self.write_files(temporary.path(), source)?;
        share(temporary.path())?;
        std::fs::rename(temporary.path(), folder).at(folder, "write")?;
        // The folder has another name now; there is nothing left to remove.
        let _ = temporary.keep();
        Ok(())
    }

    fn write_files(&self, folder: &Path, source: Option<&Path>) -> Result<()> {
        let config = self.config_json(source)?;
        let path = folder.join("config.json");
        std::fs::write(&path, format!("{config:#}\n")).at(&path, "write")?;
        for name in COMPANIONS {
            if let Some(from) = source.map(|s| s.join(name)).filter(|f| f.is_file()) {
                std::fs::copy(&from, folder.join(name)).at(&from, "read")?;
            }
        }
        let path = folder.join(weights::WEIGHTS);
        weights::save(&path, &self.parameters)?;
        std::fs::File::open(&path).and_then(|f| f.sync_all()).at(&path, "write")
    }

    /// The source's own config.json where there is one, so that keys unknown to us survive; the weights' kind is ours.
    fn config_json(&self, source: Option<&Path>) -> Result<serde_json::Value> {
        let dtype = match self.kind {
            Kind::Half => "float16",
            Kind::BFloat16 => "bfloat16",
            _ => "float32",
        };
        let mut config = match source.map(|s| s.join("config.json")).filter(|p| p.is_file()) {
            Some(path) => {
                let text = std::fs::read_to_string(&path).at(&path, "read")?;
                serde_json::from_str(&text).map_err(|source| Error::Json { path, source })?
            }
            None => self.config.to_json(),
        };
        if config.get("torch_dtype").is_some() {
            config["torch_dtype"] = dtype.into();
        }
        config["dtype"] = dtype.into();
        Ok(config)
    }
}

/// What is made in a temporary place is its owner's alone; a model folder is readable as any other that the user makes.
pub(crate) fn share(folder: &Path) -> Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let allow =
            |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).at(path, "write");
        allow(folder, 0o755)?;
        allow(&folder.join(weights::WEIGHTS), 0o644)?;
    }
    Ok(())
}
