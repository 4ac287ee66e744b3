//! Low-rank adapters (Hu et al. 2021, arXiv:2106.09685), in peft's files and with peft's numbers.
//!
//! A model may carry several adapters by name, of which one or none is active. [`CausalLm::with_adapter`] gives a second
//! handle on the same weights with another one active, so a policy and its reference are one model in memory.
//! Letters: r rank, I inputs and O outputs of a linear layer.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;
use serde_json::{Map, Value, json};
use tch::{Device, Kind, Tensor};

use crate::causal_lm::CausalLm;
use crate::config::{Keys, ModelConfig};
use crate::error::{At, Doing, Error, Result};
use crate::random::uniform;
use crate::weights;

/// peft's file of settings.
pub const ADAPTER_CONFIG: &str = "adapter_config.json";
/// peft's file of weights.
pub const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";
/// Prefix of peft before the names of modules.
const PREFIX: &str = "base_model.model.";

/// Shape of an adapter.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraConfig {
    /// r.
    pub rank: i64,
    /// The product of the two matrices is multiplied by `alpha / rank`.
    pub alpha: f64,
    /// Share of inputs dropped in training.
    pub dropout: f64,
    /// Linear layers that the adapter changes.
    pub targets: LoraTargets,
    /// Rank-stabilised scale (arXiv:2312.03732): `alpha / sqrt(rank)`.
    pub rslora: bool,
}

/// Linear layers that an adapter changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoraTargets {
    /// Every one but the output head.
    AllLinear,
    /// Those of these names: the last part, as in `q_proj`, or more of it, as in `3.self_attn.q_proj`.
    Named(Vec<String>),
}

/// The two matrices that change one linear layer.
#[derive(Debug)]
pub(crate) struct Lora {
    a: Tensor, // [r, I]
    b: Tensor, // [O, r]
    scale: f64,
    dropout: Option<Dropout>,
}

/// Inputs of a linear layer that are dropped: a function of seed, forward pass and module, so that a layer that is
/// computed twice drops the same.
#[derive(Debug, Clone)]
struct Dropout {
    share: f64,
    seed: u64,
    module: u64,
    pass: Pass,
}

/// Number of a forward pass, shared by all modules of a model.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pass(Arc<AtomicU64>);

impl Pass {
    pub(crate) fn next(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Sets the number and gives the one before.
    pub(crate) fn replace(&self, pass: u64) -> u64 {
        self.0.swap(pass, Ordering::Relaxed)
    }
}

impl Clone for Lora {
    fn clone(&self) -> Self {
        Self { a: self.a.shallow_clone(), b: self.b.shallow_clone(), scale: self.scale, dropout: self.dropout.clone() }
    }
}

/// An adapter of a model.
#[derive(Debug)]
pub(crate) struct Adapter {
    config: LoraConfig,
    /// By module, in the model's order.
    modules: Vec<(String, Lora)>,
}

impl Clone for Adapter {
    fn clone(&self) -> Self {
        Self { config: self.config.clone(), modules: self.modules.clone() }
    }
}

/// Adapters of a model by name.
pub(crate) type Adapters = BTreeMap<String, Adapter>;

impl Default for LoraConfig {
    /// Rank 16, alpha 32, every linear layer, no dropout.
    fn default() -> Self {
        Self { rank: 16, alpha: 32.0, dropout: 0.0, targets: LoraTargets::AllLinear, rslora: false }
    }
}

impl LoraConfig {
    fn check(&self) -> Result<()> {
        let refuse =
            |what, found: String, expected: &str| Err(Error::Input { what, found, expected: expected.to_owned() });
        if !(1..=1 << 16).contains(&self.rank) {
            return refuse("rank of an adapter", self.rank.to_string(), "a number from 1 to 65536");
        }
        if !self.alpha.is_finite() {
            return refuse("alpha of an adapter", self.alpha.to_string(), "a number");
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return refuse("dropout of an adapter", self.dropout.to_string(), "a number from 0 and below 1");
        }
        Ok(())
    }

    fn scale(&self) -> f64 {
        self.alpha / if self.rslora { (self.rank as f64).sqrt() } else { self.rank as f64 }
    }

    /// The modules of `config` that it changes, with their shapes `[O, I]`; every named target must be among them.
    fn modules(&self, config: &ModelConfig) -> Result<Vec<(String, [i64; 2])>> {
        let layers = 0..config.num_hidden_layers;
        let all = layers.flat_map(|layer| {
            config
                .projections()
                .into_iter()
                .map(move |(name, shape, _)| (format!("model.layers.{layer}.{name}"), shape))
        });
        let LoraTargets::Named(names) = &self.targets else { return Ok(all.collect()) };
        let is = |module: &str, name: &str| {
            module.strip_suffix(name).is_some_and(|before| before.is_empty() || before.ends_with('.'))
        };
        let all: Vec<_> = all.collect();
        if let Some(name) = names.iter().find(|name| !all.iter().any(|(module, _)| is(module, name))) {
            let known: Vec<&str> =
                config.projections().iter().filter_map(|(name, ..)| name.rsplit('.').next()).collect();
            return Err(Error::Input {
                what: "target of an adapter",
                found: format!("`{name}`, which no linear layer is called"),
                expected: format!("`all-linear`, or names among {}", known.join(", ")),
            });
        }
        if names.is_empty() {
            let (found, expected) = ("none".to_owned(), "at least one".to_owned());
            return Err(Error::Input { what: "targets of an adapter", found, expected });
        }
        Ok(all.into_iter().filter(|(module, _)| names.iter().any(|name| is(module, name))).collect())
    }

    /// Reads peft's settings. What would change the numbers and is not computed is refused by name.
    fn from_json(text: &str, path: &Path) -> Result<Self> {
        let map: Map<String, Value> =
            serde_json::from_str(text).map_err(|source| Error::Json { path: path.to_owned(), source })?;
        let keys = Keys::new(&map, path, "");
        if keys.text("peft_type")? != Some("LORA") {
            return Err(keys.refuse("peft_type", "`LORA`"));
        }
        for key in ["fan_in_fan_out", "use_dora", "lora_bias", "use_qalora", "use_bdlora"] {
            keys.only(key, &false.into())?;
        }
        keys.only("bias", &"none".into())?;
        const UNSUPPORTED: &[&str] = &[
            "rank_pattern",
            "alpha_pattern",
            "modules_to_save",
            "exclude_modules",
            "layers_to_transform",
            "layer_replication",
            "target_parameters",
            "trainable_token_indices",
            "megatron_config",
            "arrow_config",
            "alora_invocation_tokens",
            "kasa_config",
            "monteclora_config",
            "velora_config",
        ];
        let is_empty = |value: &Value| match value {
            Value::Array(all) => all.is_empty(),
            Value::Object(all) => all.is_empty(),
            _ => false,
        };
        for key in UNSUPPORTED {
            if keys.get(key).is_some_and(|value| !is_empty(value)) {
                return Err(keys.refuse(key, "nothing: adapters of one rank on whole linear layers"));
            }
        }
        let expected = || keys.refuse("target_modules", "`all-linear` or a list of names");
        let targets = match keys.get("target_modules") {
            Some(Value::String(all)) if all == "all-linear" => LoraTargets::AllLinear,
            Some(Value::Array(names)) => {
                let name = |value: &Value| value.as_str().map(str::to_owned).ok_or_else(expected);
                LoraTargets::Named(names.iter().map(name).collect::<Result<_>>()?)
            }
            _ => return Err(expected()),
        };
        let config = Self {
            rank: keys.needed_count("r")?,
            alpha: keys.needed_positive("lora_alpha")?,
            dropout: keys.get("lora_dropout").and_then(Value::as_f64).unwrap_or(0.0),
            targets,
            rslora: keys.flag("use_rslora", false)?,
        };
        config.check()?;
        Ok(config)
    }

    fn to_json(&self, model: &ModelConfig, base: Option<&str>) -> Value {
        // peft writes `all-linear` out, in the order of a set.
        let targets: Vec<String> = match &self.targets {
            LoraTargets::Named(names) => names.clone(),
            LoraTargets::AllLinear => {
                let name = |(name, ..): &(&str, _, _)| name.rsplit('.').next().unwrap_or(name).to_owned();
                model.projections().iter().map(name).collect()
            }
        };
        json!({
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base,
            "r": self.rank,
            "lora_alpha": self.alpha,
            "lora_dropout": self.dropout,
            "target_modules": targets,
            "use_rslora": self.rslora,
            "bias": "none",
            "fan_in_fan_out": false,
            "init_lora_weights": true,
            "inference_mode": true,
        })
    }
}

impl Lora {
    /// `y + dropout(x) A^T B^T * scale`. Adapters of half-precision weights are f32, as in peft.
    pub(crate) fn add_to(&self, y: Tensor, x: &Tensor) -> Result<Tensor> {
        let added = || {
            let x = x.f_to_kind(self.a.kind())?;
            let x = match &self.dropout {
                Some(dropout) => x.f_mul(&dropout.mask(&x)?)?,
                None => x,
            };
            // Scaled where it is narrow, and added by the product itself: nothing as wide as `y` is written in between.
            let low = x.f_linear(&self.a, None::<&Tensor>)? * self.scale; // [T, r]
            if low.kind() == y.kind() {
                return y.f_addmm(&low, &self.b.tr());
            }
            y.f_add(&low.f_linear(&self.b, None::<&Tensor>)?.f_to_kind(y.kind())?)
        };
        added().doing("an adapter")
    }

    /// `B A * scale`, `[O, I]`.
    fn product(&self) -> Result<Tensor> {
        let product = self.b.to_kind(Kind::Float).f_matmul(&self.a.to_kind(Kind::Float));
        Ok(product.doing("merging an adapter")? * self.scale)
    }
}

impl Dropout {
    /// Zero where an input is dropped, else what keeps the mean.
    fn mask(&self, like: &Tensor) -> Result<Tensor, tch::TchError> {
        let stream = self.pass.get().wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ self.module;
        let kept = (1.0 / (1.0 - self.share)) as f32;
        let mask: Vec<f32> = (0..like.numel() as u64)
            .into_par_iter()
            .map(|i| if uniform(self.seed, stream, i) < self.share { 0.0 } else { kept })
            .collect();
        Tensor::f_from_slice(&mask)?.f_view(&like.size()[..])?.f_to_device(like.device())?.f_to_kind(like.kind())
    }
}

impl Adapter {
    /// peft's initial values: A uniform within `1 / sqrt(I)`, B zero.
    fn new(config: LoraConfig, model: &ModelConfig, seed: u64, device: Device) -> Result<Self> {
        config.check()?;
        let rank = config.rank;
        let make = |(index, (name, [outputs, inputs])): (usize, (String, [i64; 2]))| {
            let values =
                crate::random::uniforms(seed, index as u64, (rank * inputs) as usize, (inputs as f64).powf(-0.5));
            let a = Tensor::f_from_slice(&values).and_then(|t| t.f_view([rank, inputs])?.f_to_device(device));
            let b = Tensor::f_zeros([outputs, rank], (Kind::Float, device));
            let lora = Lora {
                a: a.doing("making an adapter")?,
                b: b.doing("making an adapter")?,
                scale: config.scale(),
                dropout: None,
            };
            Ok((name, lora))
        };
        let modules = config.modules(model)?.into_iter().enumerate().map(make).collect::<Result<_>>()?;
        Ok(Self { config, modules })
    }

    /// Reads peft's folder.
    fn load(folder: &Path, model: &ModelConfig, device: Device) -> Result<Self> {
        let path = folder.join(ADAPTER_CONFIG);
        if !path.is_file() {
            return Err(Error::MissingFile { folder: folder.to_owned(), file: ADAPTER_CONFIG });
        }
        let config = LoraConfig::from_json(&std::fs::read_to_string(&path).at(&path, "read")?, &path)?;
        let modules = config.modules(model)?;
        let wanted: Vec<(String, Vec<i64>)> = modules
            .iter()
            .flat_map(|(name, [outputs, inputs])| {
                [
                    (format!("{PREFIX}{name}.lora_A.weight"), vec![config.rank, *inputs]),
                    (format!("{PREFIX}{name}.lora_B.weight"), vec![*outputs, config.rank]),
                ]
            })
            .collect();
        let file = folder.join(ADAPTER_WEIGHTS);
        if !file.is_file() {
            return Err(Error::MissingFile { folder: folder.to_owned(), file: ADAPTER_WEIGHTS });
        }
        let mut tensors = weights::load_files(folder, vec![file], &wanted, |_| false, Kind::Float, device)?;
        let mut take = |name: String| tensors.remove(&name).unwrap_or_default();
        let modules = modules
            .into_iter()
            .map(|(name, _)| {
                let a = take(format!("{PREFIX}{name}.lora_A.weight"));
                let b = take(format!("{PREFIX}{name}.lora_B.weight"));
                (name, Lora { a, b, scale: config.scale(), dropout: None })
            })
            .collect();
        Ok(Self { config, modules })
    }

    /// Tensors under peft's names.
    pub(crate) fn named_parameters(&self) -> impl Iterator<Item = (String, Tensor)> {
        self.modules.iter().flat_map(|(name, lora)| {
            [
                (format!("{PREFIX}{name}.lora_A.weight"), lora.a.shallow_clone()),
                (format!("{PREFIX}{name}.lora_B.weight"), lora.b.shallow_clone()),
            ]
        })
    }

    /// Change of each module; inputs are dropped in training only, which has a seed and counts passes.
    pub(crate) fn loras(&self, training: Option<(u64, Pass)>) -> HashMap<String, Lora> {
        let training = training.filter(|_| self.config.dropout > 0.0);
        let dropout = |module: usize| {
            let (seed, pass) = training.clone()?;
            Some(Dropout { share: self.config.dropout, seed, module: module as u64, pass })
        };
        let all = self.modules.iter().enumerate();
        all.map(|(i, (name, lora))| (name.clone(), Lora { dropout: dropout(i), ..lora.clone() })).collect()
    }
}

impl CausalLm {
    /// Adds an adapter, made from `seed`, under `name`. It is active only in the handle that [`CausalLm::with_adapter`]
    /// gives, and changes nothing until it is trained.
    ///
    /// # Errors
    /// [`Error::Input`] for settings out of range, a name in use, or a target that matches no linear layer.
    ///
    /// # Examples
    /// ```
    /// use simplemix_model::{CausalLm, LoraConfig, tiny};
    /// use tch::Device;
    ///
    /// let mut reference = CausalLm::random(tiny::config(), 1, Device::Cpu)?;
    /// reference.add_adapter("default", LoraConfig { rank: 4, ..LoraConfig::default() }, 7)?;
    /// let policy = reference.with_adapter(Some("default"))?;
    /// policy.set_trainable(true);
    /// // Two layers, rank 4: inputs and outputs of the four attention projections and the three of the feed-forward.
    /// let trained: i64 = policy.trainable_parameters().iter().map(|(_, t)| t.numel() as i64).sum();
    /// assert_eq!(trained, 2 * 4 * (4 * 64 + 192 + 3 * (64 + 160)));
    /// # Ok::<(), simplemix_model::Error>(())
    /// ```
    pub fn add_adapter(&mut self, name: &str, config: LoraConfig, seed: u64) -> Result<()> {
        let adapter = Adapter::new(config, self.config(), seed, self.device())?;
        self.insert(name, adapter)
    }

    /// Adds an adapter from peft's folder under `name`.
    ///
    /// # Errors
    /// [`Error::MissingFile`], [`Error::Config`] for settings that are not computed, [`Error::Weights`] if its tensors
    /// do not fit the model, [`Error::Safetensors`], [`Error::Input`] if the name is in use.
    pub fn load_adapter(&mut self, name: &str, folder: &Path) -> Result<()> {
        let adapter = Adapter::load(folder, self.config(), self.device())?;
        self.insert(name, adapter)
    }

    fn insert(&mut self, name: &str, adapter: Adapter) -> Result<()> {
        if self.adapters.contains_key(name) {
            let (found, expected) = (format!("`{name}`"), "one that is not in use".to_owned());
            return Err(Error::Input { what: "name of an adapter", found, expected });
        }
        self.adapters.insert(name.to_owned(), adapter);
        Ok(())
    }

    /// Another handle on the same weights and adapters, with `name`'s adapter active, or none.
    ///
    /// # Errors
    /// [`Error::Input`] if there is no such adapter.
    pub fn with_adapter(&self, name: Option<&str>) -> Result<Self> {
        if let Some(name) = name {
            self.adapter(name)?;
        }
        Ok(self.handle(name.map(str::to_owned), None))
    }

    /// Another handle on the same weights and adapters in which the active adapter drops inputs, for training;
    /// which ones is a function of `seed` and the number of the forward pass in that handle.
    #[must_use]
    pub fn in_training(&self, seed: u64) -> Self {
        self.handle(self.active.clone(), Some(seed))
    }

    /// Name of the active adapter.
    pub fn active_adapter(&self) -> Option<&str> {
        self.active.as_deref()
    }

    /// Share of inputs that the active adapter drops in training; 0 where there is none.
    pub fn adapter_dropout(&self) -> f64 {
        self.active.as_ref().map_or(0.0, |name| self.adapters[name].config.dropout)
    }

    /// Another handle, without adapters, whose weights have the active adapter's product added. The weights that it
    /// changes are copies: this handle keeps its own, so dropping the merged one unmerges exactly.
    ///
    /// # Errors
    /// [`Error::Torch`] where memory does not suffice.
    pub fn merged(&self) -> Result<Self> {
        let loras = self.active.as_ref().map(|name| self.adapters[name].loras(None)).unwrap_or_default();
        let _guard = tch::no_grad_guard();
        let merge = |(name, tensor): &(String, Tensor)| {
            let merged = match name.strip_suffix(".weight").and_then(|module| loras.get(module)) {
                Some(lora) => (tensor.to_kind(Kind::Float) + lora.product()?).to_kind(tensor.kind()),
                None => tensor.shallow_clone(),
            };
            Ok((name.clone(), merged))
        };
        let parameters = self.parameters.iter().map(merge).collect::<Result<_>>()?;
        Ok(Self::from_tensors(self.config().clone(), parameters, self.kind(), self.device()))
    }

    /// Writes `name`'s adapter as peft does, into a folder that appears whole or not at all. `base` is what peft is to
    /// load the model from.
    ///
    /// # Errors
    /// [`Error::Input`] if there is no such adapter, [`Error::Files`] if `folder` exists already or cannot be written.
    pub fn save_adapter(&self, name: &str, folder: &Path, base: Option<&str>) -> Result<()> {
        let adapter = self.adapter(name)?;
        let settings = adapter.config.to_json(self.config(), base);
        let tensors: Vec<_> = adapter.named_parameters().collect();
        crate::folder::write(folder, |new| {
            new.write(ADAPTER_CONFIG, format!("{settings:#}\n"))?;
            weights::save_in(new, ADAPTER_WEIGHTS, &tensors)
        })
    }

    pub(crate) fn adapter(&self, name: &str) -> Result<&Adapter> {
        let known = || self.adapters.keys().cloned().collect::<Vec<_>>().join(", ");
        self.adapters.get(name).ok_or_else(|| Error::Input {
            what: "name of an adapter",
            found: format!("`{name}`"),
            expected: if self.adapters.is_empty() {
                "none: there is none".to_owned()
            } else {
                format!("one of {}", known())
            },
        })
    }
}
