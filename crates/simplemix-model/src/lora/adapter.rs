//! An adapter of a model: made, loaded, and put over the model's weights.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use simplemix_files::AtomicFolder;
use tch::{Device, Kind, Tensor};

use super::config::LoraConfig;
use super::dora::Dora;
use super::embeddings;
use super::experts;
use super::other_parts;
use super::parts::{LoraParts, Place, Saved, Target};
use super::peft::{ADAPTER_CONFIG, ADAPTER_WEIGHTS};
use super::tensors::{Change, Dropout, EmbeddingLora, Lora, Pair};
use crate::config::ModelConfig;
use crate::error::{Doing, Result};
use crate::random;
use crate::residence::Residence;
use crate::weights::{self, Parameters};

/// An adapter of a model.
#[derive(Debug, Clone)]
pub(crate) struct Adapter {
    pub(crate) config: LoraConfig,
    /// In the model's order.
    targets: Vec<(Target, Matrices)>,
    saved: Vec<(Saved, Handle)>,
    /// Whether the output head is the trained embedding.
    has_tied_head: bool,
    /// Whether the embeddings of the model came from the adapter's file, and go back there.
    holds_embeddings: bool,
    /// Facts about the adapter's file that the user should know.
    pub(crate) notices: Vec<String>,
}

/// A shared tensor.
#[derive(Debug)]
struct Handle(Tensor);

impl Clone for Handle {
    fn clone(&self) -> Self {
        Self(self.0.shallow_clone())
    }
}

#[derive(Debug, Clone)]
struct Matrices {
    pair: Pair,
    dora: Option<Dora>,
}

/// The model that an adapter is for.
#[derive(Clone, Copy)]
pub(crate) struct Base<'a> {
    pub(crate) config: &'a ModelConfig,
    pub(crate) parameters: &'a Parameters,
    pub(crate) kind: Kind,
    pub(crate) device: Device,
    /// Keeper of weights that are not always whole.
    pub(crate) residence: Option<&'a Arc<dyn Residence>>,
}

impl Base<'_> {
    pub(super) fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.parameters.iter().find(|(known, _)| known == name).map(|(_, tensor)| tensor)
    }

    /// A tensor of the model; an output head that is tied is the embedding.
    fn weight(&self, name: &str) -> &Tensor {
        let embedding = || self.tensor(&self.config.embedding_name());
        self.tensor(name).or_else(embedding).expect("a model has an embedding")
    }

    /// Name in the model of a layer's weight.
    fn weight_name(&self, target: &Target) -> String {
        match target.place {
            Place::Head => self.config.own_head_name(),
            Place::Linear | Place::Embedding => format!("{}.weight", target.module),
            Place::Parameter(..) => target.full.clone(),
        }
    }

    /// As [`Base::weight`], whole.
    fn whole(&self, name: &str) -> Result<Tensor> {
        self.made_whole(name, self.weight(name).shallow_clone())
    }

    /// `own`, the model's tensor of this name, or all of it where it has no memory.
    pub(crate) fn made_whole(&self, name: &str, own: Tensor) -> Result<Tensor> {
        match self.residence {
            Some(residence) if !simplemix_torch::has_memory(&own)? => {
                let embedding = || self.config.embedding_name();
                let name = if residence.has(name) { name.to_owned() } else { embedding() };
                Ok(residence.whole(&name)?)
            }
            _ => Ok(own),
        }
    }

    /// Lengths of the rows of a layer's weight as the matrices change it, `[O, I]`.
    fn dora(&self, target: &Target, pair: &Pair, magnitude: Option<Tensor>) -> Result<Dora> {
        let name = self.weight_name(target);
        let (whole, is_turned) = (self.whole(&name)?, target.place == Place::Embedding);
        let whole = if is_turned { whole.tr() } else { whole };
        Ok(Dora::new(&whole, pair, magnitude)?.over(self.weight(&name), is_turned))
    }
}

/// Changes of a network.
#[derive(Debug, Default)]
pub(crate) struct Loras {
    /// By module.
    pub(crate) layers: HashMap<String, Lora>,
    pub(crate) embedding: Option<EmbeddingLora>,
    pub(crate) head: Option<Lora>,
    /// Whether inputs are dropped.
    pub(crate) drops: bool,
}

impl Adapter {
    /// peft's initial values. Matrices of a linear layer: A uniform within `1 / sqrt(I)`, B zero; of the embedding: A zero, B normal.
    pub(crate) fn new(config: LoraConfig, base: Base<'_>, seed: u64) -> Result<Self> {
        config.check_for(base.config)?;
        let config = config.resolved(base.config)?;
        let parts = config.parts(base.config)?;
        let numbers = |index: usize, values: Vec<f32>, shape: [i64; 2]| {
            let made = Tensor::f_from_slice(&values).and_then(|t| t.f_view(shape)?.f_to_device(base.device));
            made.doing("making an adapter").map(|tensor| (index, tensor))
        };
        let make = |index: usize, target: &Target| {
            let zeros = |shape: [i64; 2]| Tensor::f_zeros(shape, (Kind::Float, base.device)).doing("making an adapter");
            let [a, b] = target.shapes();
            let numel = |shape: [i64; 2]| (shape[0] * shape[1]) as usize;
            if target.place == Place::Embedding {
                let values = random::normals(seed, index as u64, numel(b), 1.0);
                return Ok((zeros(a)?, numbers(index, values, b)?.1));
            }
            let bound = (target.inputs as f64).powf(-0.5);
            let values = random::uniforms(seed, index as u64, numel(a), bound);
            Ok((numbers(index, values, a)?.1, zeros(b)?))
        };
        let mut index = 0;
        let pair = |target: &Target| {
            index += 1;
            make(index - 1, target)
        };
        let copy = |saved: &Saved| {
            let whole = base.whole(&saved.tensor)?;
            whole.f_detach_copy().doing("copying a module to train")
        };
        Self::assembled(config, parts, base, pair, |_| Ok(None), copy)
    }

    /// Reads peft's folder, once the model has the embeddings that the folder holds ([`embeddings::stored`]).
    pub(crate) fn load(folder: &Path, config: LoraConfig, base: Base<'_>, holds_embeddings: bool) -> Result<Self> {
        let config = config.resolved(base.config)?;
        let parts = config.parts(base.config)?;
        let files = [folder.join(ADAPTER_WEIGHTS)];
        let of_matrices: Vec<(String, Vec<i64>)> =
            parts.targets.iter().flat_map(|target| target.tensors(config.dora)).collect();
        let of_saved: Vec<(String, Vec<i64>)> =
            parts.saved.iter().map(|saved| (saved.file.clone(), saved.file_shape())).collect();
        let is_saved = |name: &str| of_saved.iter().any(|(saved, _)| saved == name);
        let others = other_parts::without_effect(folder, base.config)?;
        let wanted: BTreeSet<String> = of_matrices.iter().map(|(name, _)| name.clone()).collect();
        let elsewhere = |name: &str| {
            let of_other = others.iter().any(|other| other == name);
            of_other || is_saved(name) || embeddings::is_of_model(name, base.config, &parts)
        };
        let matrix = |name: &str| match other_parts::today(name, &wanted, base.config) {
            Some(today) => Some(today),
            None => (!elsewhere(name)).then(|| name.to_owned()),
        };
        let mut tensors = weights::load_files(folder, &files, &of_matrices, matrix, Kind::Float, base.device)?;
        let saved = |name: &str| is_saved(name).then(|| name.to_owned());
        tensors.extend(weights::load_files(folder, &files, &of_saved, saved, base.kind, base.device)?);
        let take = |name: &str| tensors[name].shallow_clone();
        let adapter = Self::assembled(
            config,
            parts,
            base,
            |target| {
                let [a, b] = target.matrices().map(|name| take(&name));
                Ok((a, b))
            },
            |target| Ok(Some(take(&target.magnitude()))),
            |saved| match saved.is_turned {
                true => take(&saved.file).tr().f_contiguous().doing("turning a weight"),
                false => Ok(take(&saved.file)),
            },
        )?;
        let notice = |count: usize| {
            format!(
                "{}: {count} tensors of the adapter are beside other parts of the model than its text, and change nothing; they are \
                 left out, and not saved again",
                folder.display()
            )
        };
        let notices = Some(others.len()).filter(|&count| count > 0).map(notice).into_iter().collect();
        Ok(Self { holds_embeddings, notices, ..adapter })
    }

    fn assembled(
        config: LoraConfig,
        parts: LoraParts,
        base: Base<'_>,
        mut pair: impl FnMut(&Target) -> Result<(Tensor, Tensor)>,
        magnitude: impl Fn(&Target) -> Result<Option<Tensor>>,
        saved: impl Fn(&Saved) -> Result<Tensor>,
    ) -> Result<Self> {
        let matrices = |target: Target| {
            let (a, b) = pair(&target)?;
            let pair = Pair { a, b, scale: config.scale(target.rank, target.alpha) };
            let dora = match config.dora {
                true => Some(base.dora(&target, &pair, magnitude(&target)?)?),
                false => None,
            };
            Ok((target, Matrices { pair, dora }))
        };
        let targets = parts.targets.into_iter().map(matrices).collect::<Result<_>>()?;
        let saved = parts.saved.into_iter().map(|part| Ok((part.clone(), Handle(saved(&part)?))));
        let saved = saved.collect::<Result<_>>()?;
        Ok(Self {
            config,
            targets,
            saved,
            has_tied_head: parts.has_tied_head,
            holds_embeddings: false,
            notices: Vec::new(),
        })
    }

    /// Tensors that are trained, under peft's names.
    pub(crate) fn named_parameters(&self) -> Parameters {
        let mut all = Vec::new();
        for (target, Matrices { pair, dora }) in &self.targets {
            let [a, b] = target.matrices();
            all.extend([(a, pair.a.shallow_clone()), (b, pair.b.shallow_clone())]);
            all.extend(dora.iter().map(|dora| (target.magnitude(), dora.magnitude.shallow_clone())));
        }
        all.extend(self.saved.iter().map(|(saved, tensor)| (saved.file.clone(), tensor.0.shallow_clone())));
        all
    }

    /// Changes of a network; inputs are dropped in training only, which has a seed.
    pub(crate) fn loras(&self, training: Option<u64>) -> Loras {
        let seed = training.filter(|_| self.config.dropout > 0.0);
        let dropout = |module: usize| {
            let seed = random::bits(seed?, module as u64) as u32;
            Some(Dropout { share: self.config.dropout, seed })
        };
        let mut loras = Loras { drops: seed.is_some(), ..Loras::default() };
        for (index, (target, matrices)) in self.targets.iter().enumerate() {
            let Matrices { pair, dora } = matrices.clone();
            match target.place {
                Place::Embedding => loras.embedding = Some(EmbeddingLora { pair, dora }),
                Place::Head => loras.head = Some(Lora { pair, dora, dropout: dropout(index) }),
                Place::Linear | Place::Parameter(..) => {
                    loras.layers.insert(target.full.clone(), Lora { pair, dora, dropout: dropout(index) });
                }
            }
        }
        loras
    }

    /// The adapter with what follows from its matrices computed once, for as long as they stay as they are; none if there is no
    /// such thing.
    pub(crate) fn settled(&self) -> Result<Option<Self>> {
        if !self.config.dora {
            return Ok(None);
        }
        let mut settled = self.clone();
        for (_, Matrices { pair, dora }) in &mut settled.targets {
            if let Some(dora) = dora {
                dora.settle(pair)?;
            }
        }
        Ok(Some(settled))
    }

    /// Weights of the model with those that are trained whole in their places, and the output head, as the adapter uses it.
    pub(crate) fn over(&self, base: Base<'_>) -> (Parameters, Tensor) {
        let saved = |name: &str| self.saved.iter().find(|(saved, _)| saved.tensor == name).map(|(_, tensor)| &tensor.0);
        let over = |(name, tensor): &(String, Tensor)| (name.clone(), saved(name).unwrap_or(tensor).shallow_clone());
        let parameters = base.parameters.iter().map(over).collect();
        let own_head = base.config.own_head_name();
        let head = match self.has_tied_head {
            true => saved(&base.config.embedding_name()),
            false => saved(&own_head),
        };
        (parameters, head.unwrap_or(base.weight(&own_head)).shallow_clone())
    }

    /// Configuration and weights of the model that the adapter makes of `base`, and the changes to add to them by tensor. An
    /// output head that is no longer the embedding gets weights of its own.
    pub(crate) fn merging(&self, base: Base<'_>) -> (ModelConfig, Parameters, HashMap<String, Change>) {
        let mut config = base.config.clone();
        let (mut parameters, head) = self.over(base);
        let own_head = config.own_head_name();
        let parts = [config.embedding_name(), own_head.clone()];
        let of_parts = self.saved.iter().any(|(saved, _)| parts.contains(&saved.tensor) && !self.has_tied_head)
            || self.targets.iter().any(|(target, _)| matches!(target.place, Place::Embedding | Place::Head));
        if config.tie_word_embeddings && of_parts && !self.config.is_reward() {
            config.untie();
            parameters.push((own_head, head));
        }
        let change = |(target, matrices): &(Target, Matrices)| {
            let Matrices { pair, dora } = matrices.clone();
            let change = match target.place {
                Place::Embedding => Change::Embedding(EmbeddingLora { pair, dora }),
                Place::Parameter(parameter, layer) => return experts::changes(base.config, layer, parameter, &pair),
                Place::Linear | Place::Head => Change::Linear(Lora { pair, dora, dropout: None }),
            };
            vec![(base.weight_name(target), change)]
        };
        (config, parameters, self.targets.iter().flat_map(change).collect())
    }

    /// Whether the adapter changes no number, as before training.
    pub(crate) fn is_neutral(&self, base: Base<'_>) -> Result<bool> {
        let _guard = tch::no_grad_guard();
        let is_zero = |tensor: &Tensor| tensor.abs().max().double_value(&[]) == 0.0;
        for (target, Matrices { pair, dora }) in &self.targets {
            let last = if target.place == Place::Embedding { &pair.a } else { &pair.b };
            let has_lengths = match dora {
                Some(dora) => {
                    let whole = base.whole(&base.weight_name(target))?;
                    let factor = dora.factor_over(&whole, pair).doing("an adapter")?;
                    (factor - 1.0).abs().max().double_value(&[]) < 1e-6
                }
                None => true,
            };
            if !is_zero(last) || !has_lengths {
                return Ok(false);
            }
        }
        for (saved, tensor) in &self.saved {
            if !base.whole(&saved.tensor)?.f_equal(&tensor.0).doing("comparing a module with the model's")? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Writes peft's files; `from` is where peft loads the model from.
    pub(crate) fn write(&self, new: &AtomicFolder, base: Base<'_>, from: Option<&str>) -> Result<()> {
        let mut tensors = self.named_parameters();
        for (saved, _) in self.saved.iter().filter(|(saved, _)| saved.is_turned) {
            let turned = tensors.iter_mut().filter(|(name, _)| *name == saved.file);
            turned.for_each(|(_, tensor)| *tensor = tensor.tr());
        }
        let targeted: Vec<&str> = self
            .targets
            .iter()
            .filter(|(target, _)| matches!(target.place, Place::Embedding | Place::Head))
            .map(|(target, _)| target.module.as_str())
            .collect();
        let is_saved = |tensor: &str| self.saved.iter().any(|(saved, _)| saved.tensor == tensor);
        let (embedding, head) = (base.config.embedding_name(), base.config.own_head_name());
        for (module, own) in [(base.config.embedding_module(), &embedding), (base.config.head_module(), &head)] {
            let part = match () {
                () if self.config.is_reward() && *own == head => continue,
                () if targeted.contains(&module.as_str()) => "base_layer.weight",
                // As in peft, which writes one kind or the other.
                () if !self.holds_embeddings || !targeted.is_empty() => continue,
                () if is_saved(own) => "original_module.weight",
                () => "weight",
            };
            tensors.push((format!("{}{module}.{part}", super::peft::PREFIX), base.weight(own).shallow_clone()));
        }
        if self.has_tied_head {
            let head = format!("{}{}.weight", super::peft::PREFIX, base.config.head_module());
            tensors.retain(|(name, _)| *name != head);
            let (_, tensor) = self.over(base);
            tensors.push((head, tensor));
        }
        let settings = self.config.to_json(base.config, from);
        new.write(ADAPTER_CONFIG, format!("{settings:#}\n"))?;
        weights::save_in(new, ADAPTER_WEIGHTS, &tensors)
    }
}
