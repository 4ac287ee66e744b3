//! A causal language model from a Hugging Face folder and back.
//!
//! Letters: T tokens, N asked-for positions, H width, V vocabulary.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tch::{Device, Kind, Tensor};

use crate::attention::AttentionRoute;
use crate::checkpoint::Top;
use crate::config::{CORRECTION, DECAY_LOG, GATED_NORM, HEAD, LAYER_SCALAR, ModelConfig, STEP_BIAS, XIELU};
use crate::error::{Doing, Result};
use crate::few_rows;
use crate::folder::Saving;
use crate::head::HeadWeight;
use crate::linear::Weights;
use crate::lora::{Adapter, Base, Lora, Loras};
use crate::network::{self, Loaded, Network};
use crate::packed::Packed;
use crate::quantized::{QuantizationSettings, Quantizer};
use crate::residence::Divider;
use crate::weights::{self, Merging, Parameters};

/// A decoder-only language model; parameters keep the checkpoint's names.
#[derive(Debug)]
pub struct CausalLm {
    pub(crate) network: Network,
    lm_head: Tensor, // [V, H]; the embedding itself where tied
    head_lora: Option<Lora>,
    pub(crate) parameters: Parameters,
    pub(crate) adapters: BTreeMap<String, Adapter>,
    pub(crate) active: Option<String>,
    pub(crate) notices: Vec<String>,
    /// Folder that it was loaded from.
    pub(crate) origin: Option<PathBuf>,
}

impl CausalLm {
    /// Loads a model folder: `config.json` and safetensors, one file or several; weights become `kind` on `device`.
    ///
    /// On a CPU without bf16 matrix units choose [`Kind::Float`]: bf16 was measured 450 times slower there.
    ///
    /// # Errors
    /// [`crate::Error::MissingFile`], [`crate::Error::Json`], [`crate::Error::Config`], [`crate::Error::Safetensors`]
    /// or [`crate::Error::Weights`].
    pub fn load(folder: &Path, kind: Kind, device: Device) -> Result<Self> {
        Self::load_divided(folder, kind, device, None)
    }

    /// As [`CausalLm::load`], with the weights of linear layers quantised as the settings say: they are frozen, and passes with
    /// gradients are [`CausalLm::checkpointed`].
    ///
    /// # Errors
    /// As [`CausalLm::load`], and for a checkpoint that is quantised already, unless the settings leave it as it is.
    pub fn load_quantized(folder: &Path, kind: Kind, device: Device, settings: &QuantizationSettings) -> Result<Self> {
        let mut quantizer = Quantizer::new(settings, device);
        let divider = quantizer.as_mut().map(|quantizer| quantizer as &mut dyn Divider);
        let model = Self::load_divided(folder, kind, device, divider)?;
        if let Some(quantizer) = quantizer {
            tracing::info!(bytes = quantizer.bytes(), "quantised the weights of {}", folder.display());
        }
        Ok(model)
    }

    /// As [`CausalLm::load`], with weights that `divider` divides while they are read, if it can.
    ///
    /// # Errors
    /// As [`CausalLm::load`], and those of [`Divider::take`].
    pub fn load_divided(folder: &Path, kind: Kind, device: Device, divider: Option<&mut dyn Divider>) -> Result<Self> {
        let Loaded { config, parameters, notices, residence } =
            network::load(folder, (kind, device), Top::Head, divider)?;
        let origin = Some(folder.to_owned());
        let mut model = Self { notices, origin, ..Self::from_tensors(config, parameters, kind, device) };
        model.network.residence = residence;
        let capped = model.config().attention_soft_cap.is_some();
        let attention = if capped { "plain, since products are capped" } else { "libtorch's fused kernels" };
        tracing::info!(family = model.config().model_type, attention, ?kind, ?device, "loaded {}", folder.display());
        Ok(model)
    }

    /// A model with normally distributed weights (standard deviation 0.02, norms 1), the same for the same seed.
    ///
    /// # Errors
    /// [`crate::Error::Torch`] where memory does not suffice.
    pub fn random(config: ModelConfig, seed: u64, device: Device) -> Result<Self> {
        let mut named = Vec::new();
        for (index, (name, shape)) in config.own_tensors().into_iter().enumerate() {
            let numel = shape.iter().product::<i64>() as usize;
            let tensor = if XIELU.iter().any(|slope| name.ends_with(slope)) {
                Tensor::f_zeros(&shape[..], (Kind::Float, device))
            } else if name.ends_with(DECAY_LOG) {
                // Rates from 1 to the number of heads, within the range that transformers draws from.
                Tensor::f_arange_start_step(1.0, 17.0, 16.0 / numel as f64, (Kind::Float, device))
                    .and_then(|t| t.f_log())
            } else if name.ends_with(CORRECTION) {
                Tensor::f_zeros(&shape[..], (Kind::Float, device))
            } else if [STEP_BIAS, GATED_NORM, LAYER_SCALAR].iter().any(|ones| name.ends_with(ones)) {
                Tensor::f_ones(&shape[..], (Kind::Float, device))
            } else if name.ends_with("norm.weight") {
                let one = if config.norm_offset { 0.0 } else { 1.0 };
                Tensor::f_full(&shape[..], one, (Kind::Float, device))
            } else {
                let values = crate::random::normals(seed, index as u64, numel, 0.02);
                Tensor::f_from_slice(&values).and_then(|t| t.f_view(&shape[..])?.f_to_device(device))
            };
            named.push((config.names.tensor(&name), tensor.doing("making random weights")?));
        }
        Ok(Self::from_tensors(config, named, Kind::Float, device))
    }

    /// Puts together a model from tensors that are known to be the whole of `config.tensors()`.
    pub(crate) fn from_tensors(config: ModelConfig, parameters: Parameters, kind: Kind, device: Device) -> Self {
        let head = config.names.tensor(HEAD);
        let network = Network::new(config, &parameters, Loras::default(), kind, device);
        let head = parameters.iter().find(|(name, _)| *name == head).map(|(_, tensor)| tensor);
        let lm_head = head.unwrap_or(&network.embed_tokens).shallow_clone();
        Self {
            network,
            lm_head,
            head_lora: None,
            parameters,
            adapters: BTreeMap::new(),
            active: None,
            notices: Vec::new(),
            origin: None,
        }
    }

    /// The model as adapters see it.
    pub(crate) fn base(&self) -> Base<'_> {
        let (config, residence) = (self.config(), self.residence());
        Base { config, parameters: &self.parameters, kind: self.kind(), device: self.device(), residence }
    }

    /// Another handle on the same weights and adapters; `training` is the seed of dropped inputs.
    pub(crate) fn handle(&self, active: Option<String>, training: Option<u64>) -> Self {
        let adapters = self.adapters.clone();
        self.handle_with(active, training, adapters)
    }

    /// Another handle for passes during which no weight changes; none if this one is as good.
    pub(crate) fn settled(&self) -> Result<Option<Self>> {
        let Some(name) = &self.active else { return Ok(None) };
        if self.is_quantized() {
            // Weights have numbers within passes alone.
            return Ok(None);
        }
        let Some(settled) = self.adapters[name].settled()? else { return Ok(None) };
        let adapters = BTreeMap::from([(name.clone(), settled)]);
        Ok(Some(self.handle_with(Some(name.clone()), None, adapters)))
    }

    fn handle_with(&self, active: Option<String>, training: Option<u64>, adapters: BTreeMap<String, Adapter>) -> Self {
        let own = self.parameters.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect();
        let (notices, origin) = (self.notices.clone(), self.origin.clone());
        let plain = Self { notices, origin, ..Self::from_own(self, own) };
        let Some(adapter) = active.as_ref().map(|name| &adapters[name]) else { return Self { adapters, ..plain } };
        let (parameters, lm_head) = adapter.over(plain.base());
        let mut loras = adapter.loras(training);
        let head_lora = loras.head.take();
        let network = Network::new(self.config().clone(), &parameters, loras, self.kind(), self.device());
        let network = network.like(&self.network);
        Self { network, lm_head, head_lora, adapters, active, ..plain }
    }

    /// Takes other weights, of which handles made before know nothing.
    pub(crate) fn replace(&mut self, config: ModelConfig, parameters: Parameters) {
        let mut model = Self::from_tensors(config, parameters, self.kind(), self.device());
        model.network.route = self.network.route;
        model.network.residence = self.network.residence.take();
        let (notices, origin) = (std::mem::take(&mut self.notices), self.origin.take());
        *self = Self { notices, origin, ..model };
    }

    /// The model of these weights, which are those of `like`.
    fn from_own(like: &Self, parameters: Parameters) -> Self {
        let model = Self::from_tensors(like.config().clone(), parameters, like.kind(), like.device());
        Self { network: model.network.like(&like.network), ..model }
    }

    /// Ways in which the weights of the folder depart from its `config.json`, which the user should know.
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// Shape and constants.
    pub fn config(&self) -> &ModelConfig {
        &self.network.config
    }

    /// Where the weights are.
    pub fn device(&self) -> Device {
        self.network.device
    }

    /// Element type of the weights.
    pub fn kind(&self) -> Kind {
        self.network.kind
    }

    /// Way in which packed passes compute attention.
    pub fn attention_route(&self) -> AttentionRoute {
        self.network.route
    }

    /// Computes attention of packed passes in another way than [`AttentionRoute::of`] says; the numbers are the same but for
    /// rounding. For comparisons.
    pub fn set_attention_route(&mut self, route: AttentionRoute) {
        self.network.route = route;
    }

    /// Weights under the checkpoint's names, without adapters; a tied head appears once, as the embedding.
    pub fn named_parameters(&self) -> &[(String, Tensor)] {
        &self.parameters
    }

    /// Parameters to train: the active adapter's matrices under peft's names, or all weights if none is active. Numbers of the
    /// checkpoint that transformers does not train either ([`ModelConfig::is_buffer`]) are not among them.
    pub fn trainable_parameters(&self) -> Vec<(String, Tensor)> {
        match &self.active {
            Some(name) => self.adapters[name].named_parameters(),
            None => {
                let trained = self.parameters.iter().filter(|(name, _)| !self.config().is_buffer(name));
                trained.map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
            }
        }
    }

    /// Whether gradients are kept for [`CausalLm::trainable_parameters`].
    pub fn set_trainable(&self, trainable: bool) {
        for (_, tensor) in self.trainable_parameters() {
            let _ = tensor.set_requires_grad(trainable);
        }
    }

    /// Output head `[V, H]`, for losses that compute log-probs from hidden states. On top of it logits are multiplied by
    /// [`ModelConfig::logit_scale`] and capped where [`ModelConfig::logit_soft_cap`] says so.
    ///
    /// # Errors
    /// [`crate::Error::Torch`] where memory does not suffice for a head that an adapter changes.
    pub fn head(&self) -> Result<HeadWeight> {
        match &self.head_lora {
            None => Ok(HeadWeight::plain(&self.lm_head)),
            Some(lora) => Ok(HeadWeight::composed(lora.composed(&self.lm_head)?)),
        }
    }

    /// Hidden states `[T, H]` of all packed tokens after the final norm.
    ///
    /// # Errors
    /// [`crate::Error::Input`] for a token id outside the vocabulary or no token at all; [`crate::Error::Torch`].
    pub fn hidden_states(&self, packed: &Packed) -> Result<Tensor> {
        self.network.hidden_states(packed, &mut [])
    }

    /// [`CausalLm::hidden_states`]; the tensors of the host in `along` move to the model's device in the same copy as the tokens.
    ///
    /// # Errors
    /// As [`CausalLm::hidden_states`].
    pub fn hidden_states_with(&self, packed: &Packed, along: &mut [&mut Tensor]) -> Result<Tensor> {
        self.network.hidden_states(packed, along)
    }

    /// [`CausalLm::hidden_states_with`], with the loss that keeps the loads of experts even, a scalar in the graph; none for a model that has
    /// no such loss ([`crate::Experts::aux_loss_coef`]).
    ///
    /// The loss is transformers' `load_balancing_loss_func` over all layers and tokens: the number of experts times the sum over them of
    /// their share of all choices times their mean share of the softmax. Tokens of a prompt count once for each response that follows.
    /// TRL's pass feeds the last tokens of responses too: [`Packed::whole`].
    ///
    /// # Errors
    /// As [`CausalLm::hidden_states`].
    pub fn routed_states(&self, packed: &Packed, along: &mut [&mut Tensor]) -> Result<(Tensor, Option<Tensor>)> {
        self.network.routed_states(packed, along)
    }

    /// Hidden states `[T, H]` of the embedding and after each layer, the last one after the final norm: transformers'
    /// `hidden_states`.
    ///
    /// # Errors
    /// As [`CausalLm::hidden_states`].
    pub fn layer_states(&self, packed: &Packed) -> Result<Vec<Tensor>> {
        self.network.layer_states(packed)
    }

    /// Logits `[N, V]` of hidden states `[N, H]`.
    ///
    /// # Errors
    /// [`crate::Error::Torch`] where memory does not suffice.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        let logits = few_rows::linear(hidden, &[Weights { weight: &self.lm_head, bias: None }])?.remove(0);
        let logits = match &self.head_lora {
            Some(lora) => lora.add_to(&logits, &hidden.f_to_kind(lora.kind()).doing("an adapter")?, None, None)?,
            None => logits,
        };
        let scale = self.config().logit_scale;
        let logits = if scale == 1.0 { logits } else { logits * scale };
        Ok(match self.config().logit_soft_cap {
            Some(cap) => (logits / cap).tanh() * cap,
            None => logits,
        })
    }

    pub(crate) fn saving<'a>(
        &'a self,
        weights: Merging<'a>,
        source: Option<&'a Path>,
        shard_bytes: usize,
    ) -> Saving<'a> {
        let (kind, origin) = (self.kind(), self.origin.as_deref());
        Saving { weights, kind, source, origin, shard_bytes }
    }

    /// Writes an HF folder: config, weights, and the tokenizer and template files of `source`, if given. Weights above
    /// [`weights::MAX_SHARD_BYTES`] go into several files. Adapters are not written: see [`CausalLm::merged`] and
    /// [`CausalLm::save_adapter`].
    ///
    /// The folder appears whole or not at all: it is written beside its place and renamed. A model that is the text part of a
    /// multimodal one is written as that model: other tensors and files are copied from the folder that it was loaded from.
    ///
    /// # Errors
    /// [`crate::Error::Files`] if `folder` exists already or cannot be written, [`crate::Error::Gone`] if other parts of a multimodal model
    /// are not where they were.
    pub fn save(&self, folder: &Path, source: Option<&Path>) -> Result<()> {
        self.save_in_shards(folder, source, weights::MAX_SHARD_BYTES)
    }

    /// As [`CausalLm::save`], with files of at most `shard_bytes` (or one tensor).
    ///
    /// # Errors
    /// As [`CausalLm::save`].
    pub fn save_in_shards(&self, folder: &Path, source: Option<&Path>, shard_bytes: usize) -> Result<()> {
        self.saving(self.own_weights(), source, shard_bytes).write(folder, |_| ())
    }

    /// Helps another process in [`CausalLm::save`], where [`crate::Residence`] divides the weights among several.
    ///
    /// # Errors
    /// As [`crate::Residence::whole`].
    pub fn help_save(&self) -> Result<()> {
        self.saving(self.own_weights(), None, weights::MAX_SHARD_BYTES).help()
    }

    fn own_weights(&self) -> Merging<'_> {
        Merging { config: self.config(), parameters: &self.parameters, changes: None, residence: self.residence() }
    }
}
