//! Everything below the output head: embedding, layers, last norm.
//!
//! Letters: T tokens, H width, V vocabulary.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use simplemix_torch::BlocksApart;
use simplemix_torch::device::{self, move_together};
use tch::{Device, Kind, Tensor};

use crate::attention::{AttentionRoute, Mixing, Plans};
use crate::checkpoint::{Names, Top};
use crate::config::{
    EMBEDDING, HEAD, LAYER_PROJECTION, LAYER_PROJECTION_NORM, LAYER_TABLE, ModelConfig, POSITIONS, PerLayerEmbedding,
    limits,
};
use crate::decoder::{Layer, Linear, Norm, Parts, Products, Work};
use crate::error::{Doing, Error, Result};
use crate::experts::{self, Loads};
use crate::family;
use crate::few_rows;
use crate::linear::{Product, linear};
use crate::lora::{EmbeddingLora, Loras};
use crate::packed::Packed;
use crate::quantized::{Checkpoint, Method, Quantized, Weight};
use crate::residence::{Divider, Residence};
use crate::rope::{ByLength, Rope, Turn};
use crate::weights::{self, Parameters};

/// A decoder.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) config: ModelConfig,
    pub(crate) layers: Vec<Layer>,
    pub(crate) embed_tokens: Tensor, // [V, H]
    /// Vectors of the positions, `[P, H]`.
    embed_positions: Option<Tensor>,
    embedding_lora: Option<EmbeddingLora>,
    layer_embedding: Option<LayerEmbedding>,
    norm: Norm,
    ropes: Vec<Rope>,
    embedding_scale: f64,
    /// Whether adapters drop inputs.
    drops: bool,
    pub(crate) device: Device,
    pub(crate) kind: Kind,
    pub(crate) route: AttentionRoute,
    /// Keeper of the weights, where they are not always whole.
    pub(crate) residence: Option<Arc<dyn Residence>>,
}

/// Embeddings that each layer reads beside the residual stream.
#[derive(Debug)]
struct LayerEmbedding {
    table: Tensor, // [V', L * P]
    projection: Linear,
    norm: Norm,
    table_scale: f64,
    projection_scale: f64,
    /// Row without gradient, or -1.
    padding: i64,
    of: PerLayerEmbedding,
}

/// Tensors beside the residual stream that layers read, by layer.
#[derive(Debug, Default)]
pub(crate) struct Beside {
    /// The layers' own embeddings, `[T, P]`.
    pub(crate) own: BTreeMap<usize, Tensor>,
    /// Keys and values of layers that lend them to later ones, `[T, K, D]`.
    pub(crate) keys: BTreeMap<usize, [Tensor; 2]>,
}

/// Facts about an input that all layers need.
pub(crate) struct Input {
    tokens: Tensor,    // [T]
    positions: Tensor, // [T]
    turns: Vec<Turn>,
    product: Product,
    /// Keys of the tokens for dropout, `[T]`, if there is any.
    keys: Option<Tensor>,
    /// Loads of experts, where they are counted.
    pub(crate) loads: Option<Loads>,
}

/// A model as it was read.
pub(crate) struct Loaded {
    pub(crate) config: ModelConfig,
    pub(crate) parameters: Parameters,
    /// Ways in which the weights depart from the configuration.
    pub(crate) notices: Vec<String>,
    /// Keeper of the weights, if they are divided.
    pub(crate) residence: Option<Arc<dyn Residence>>,
}

/// Reads `config.json` and the tensors that it asks for, and what is on top of the decoder. `divider` divides them, unless two of
/// them are to be compared.
pub(crate) fn load(
    folder: &Path,
    (kind, device): (Kind, Device),
    top: Top,
    divider: Option<&mut dyn Divider>,
) -> Result<Loaded> {
    let mut config = ModelConfig::from_folder(folder)?;
    if top == Top::Score {
        family::check_score(&config)?;
    }
    let files = weights::files(folder)?;
    let mut quantised = quantised(folder, &files, &config, divider.is_some())?;
    let stored = quantised.as_ref().map_or_else(|| weights::names(&files), |quantised| Ok(quantised.names()))?;
    let names = Names::of(folder, &stored, &config, top)?;
    weights::check_constants(folder, &files, names.constants())?;
    let wanted = config.named(names.wanted(&config, top));
    let mut divider = divider.filter(|divider| !(divider.is_shared() && names.has_second_head()));
    let is_quantised = quantised.is_some() || divider.as_ref().is_some_and(|divider| !divider.is_shared());
    let mut apart = is_quantised.then(BlocksApart::begin);
    let mut residence = divider.as_mut().map(|divider| divider.begin(&config, &wanted)).transpose()?;
    let (mut tensors, plain) = match &mut quantised {
        None => (HashMap::new(), wanted.clone()),
        Some(quantised) => {
            let kept = Arc::new(Quantized::new(&config));
            let tensors = read_quantised(quantised, &wanted, &names, &kept, (kind, device))?;
            tracing::info!(bytes = kept.bytes(), "quantised weights of {}", folder.display());
            residence = Some(kept);
            let plain = wanted.iter().filter(|(name, _)| !tensors.contains_key(name)).cloned().collect();
            (tensors, plain)
        }
    };
    let is_part = |name: &str| quantised.as_ref().is_some_and(|quantised| quantised.is_part(name));
    let name_of = |name: &str| if is_part(name) { None } else { names.in_model(name) };
    tensors.extend(read(folder, &files, &plain, name_of, &config, (kind, device), divider)?);
    if residence.is_none() {
        experts::lay_together(&config, (kind, device), &mut tensors)?;
    }
    if apart.take().is_some() {
        // Memory of a device that weights took before they were quantised.
        device::empty_cache()?;
    }
    let mut notices = names.notices(folder, &config);
    if names.has_second_head() {
        let [embedding, head] = [EMBEDDING, HEAD].map(|name| config.names.tensor(name));
        if tensors[&head].f_equal(&tensors[&embedding]).doing("comparing the head with the embedding")? {
            tensors.remove(&head);
        } else {
            config.untie();
            notices.push(format!(
                "{}: config.json ties the output head to the embedding, and the weights hold two that differ; both are used, \
                 as in transformers, and what is saved has `tie_word_embeddings` false",
                folder.display()
            ));
        }
    }
    let parameters =
        wanted.into_iter().filter_map(|(name, _)| tensors.remove(&name).map(|tensor| (name, tensor))).collect();
    Ok(Loaded { config, parameters, notices, residence })
}

/// The checkpoint of `files`, if its weights are quantised; `is_divided` if they are to be divided or quantised once more.
pub(crate) fn quantised(
    folder: &Path,
    files: &[PathBuf],
    config: &ModelConfig,
    is_divided: bool,
) -> Result<Option<Checkpoint>> {
    let (path, key) = (folder.join("config.json"), "quantization_config");
    let refused = |key: String, found: String, expected: &str| {
        Err(Error::Config { path: path.clone(), key, found, expected: expected.to_owned() })
    };
    let method = match Method::of(&config.to_json()) {
        Ok(None) => return Ok(None),
        Ok(Some(method)) => method,
        Err(found) => return refused(format!("{key}.{}", found.key), found.found, found.expected),
    };
    if let Some(class) = config.part_of() {
        let expected = "none: the other parts of a multimodal model are saved as they are, and its text is not";
        return refused(key.to_owned(), format!("set in a `{class}` model"), expected);
    }
    if is_divided {
        let expected = "none: weights that are quantised in the files are neither divided among processes (`parallel.shard`) nor \
                        quantised again (`quantization.load_in`)";
        return refused(key.to_owned(), "set".to_owned(), expected);
    }
    Checkpoint::open(folder, method, files).map(Some)
}

/// The `wanted` weights that are quantised in the files, which `kept` keeps from now on; the model's own tensors are returned.
fn read_quantised(
    checkpoint: &mut Checkpoint,
    wanted: &[(String, Vec<i64>)],
    names: &Names,
    kept: &Quantized,
    (kind, device): (Kind, Device),
) -> Result<HashMap<String, Tensor>> {
    let shapes: HashMap<&str, &[i64]> = wanted.iter().map(|(name, shape)| (name.as_str(), shape.as_slice())).collect();
    let mut tensors = HashMap::new();
    for stored in checkpoint.quantised().clone() {
        let Some(name) = names.in_model(&stored) else { continue };
        let Some(&&[outputs, inputs]) =
            shapes.get(name.as_str()).and_then(|shape| <&[i64; 2]>::try_from(*shape).ok()).as_ref()
        else {
            continue;
        };
        let shape = [outputs, inputs];
        let weight = Weight::new(checkpoint.read(&stored, shape, device)?, shape, kind, device)?;
        tensors.insert(name.clone(), kept.keep(&name, weight));
    }
    Ok(tensors)
}

/// The `wanted` tensors of `files`; those that files hold turned are turned, and `divider` takes each in its turn.
fn read(
    folder: &Path,
    files: &[PathBuf],
    wanted: &[(String, Vec<i64>)],
    name_of: impl Fn(&str) -> Option<String>,
    config: &ModelConfig,
    (kind, device): (Kind, Device),
    mut divider: Option<&mut dyn Divider>,
) -> Result<HashMap<String, Tensor>> {
    let held = |(name, shape): &(String, Vec<i64>)| {
        let turned = config.is_turned(name);
        (name.clone(), if turned { shape.iter().rev().copied().collect() } else { shape.clone() })
    };
    let held: Vec<_> = wanted.iter().map(held).collect();
    // Weights that are divided are not whole on the device.
    let device = if divider.is_some() { Device::Cpu } else { device };
    weights::load_files_with(folder, files, &held, name_of, (kind, device), |name, tensor| {
        let turned = config.is_turned(name);
        let tensor = if turned { tensor.tr().f_contiguous().doing("turning a weight")? } else { tensor };
        match &mut divider {
            Some(divider) => Ok(divider.take(name, &tensor)?),
            None => Ok(tensor),
        }
    })
}

impl Input {
    fn products(&self) -> Products<'_> {
        Products { product: self.product, keys: self.keys.as_ref() }
    }
}

impl LayerEmbedding {
    /// Embeddings `[T, P]` of each layer: a row of the table and what the token's embedding `x` `[T, H]` gives, as transformers'
    /// `project_per_layer_inputs` adds them up.
    fn forward(&self, x: &Tensor, input: &Input) -> Result<Vec<Tensor>> {
        let projected = self.projection.forward(x, input.products())? * self.projection_scale;
        let by_layer = |t: &Tensor| t.f_unflatten(-1, [-1, self.of.width]).doing("embeddings of layers"); // [T, L, P]
        let projected = self.norm.forward(&by_layer(&projected)?)?;
        let rows = Tensor::f_embedding(&self.table, &input.tokens, self.padding, false, false)
            .doing("the embedding of layers")?;
        let all = (projected + by_layer(&rows)? * self.table_scale) * std::f64::consts::FRAC_1_SQRT_2;
        all.f_unbind(1).doing("embeddings of layers")
    }
}

impl Network {
    /// Puts together a network from tensors that are known to be the whole of what `config` asks for, and an adapter's changes, of
    /// which the output head's are left to the caller.
    pub(crate) fn new(config: ModelConfig, parameters: &Parameters, loras: Loras, kind: Kind, device: Device) -> Self {
        let given: HashMap<&str, &Tensor> = parameters.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let own = |(name, _): (String, Vec<i64>)| {
            let tensor = given[config.names.tensor(&name).as_str()].shallow_clone();
            (name, tensor)
        };
        let tensors: HashMap<String, Tensor> = config.decoder_tensors().into_iter().map(own).collect();
        let parts = Parts { tensors: &tensors, loras: &loras.layers, names: &config.names };
        let rounded = |scale: f64| match config.rounds_embedding_scale {
            true => Tensor::from(scale).to_kind(kind).double_value(&[]),
            false => scale,
        };
        let scale = rounded(config.embedding_scale);
        let layer_embedding = config.per_layer_embedding.map(|of| LayerEmbedding {
            table: tensors[LAYER_TABLE].shallow_clone(),
            projection: Linear::take(&parts, LAYER_PROJECTION),
            norm: Norm::take(&tensors, LAYER_PROJECTION_NORM, &config),
            table_scale: rounded((of.width as f64).sqrt()),
            projection_scale: (config.hidden_size as f64).powf(-0.5),
            padding: config.padding_row(),
            of,
        });
        Self {
            layers: (0..config.num_hidden_layers).map(|i| Layer::take(&parts, i, &config)).collect(),
            norm: Norm::take(&tensors, "model.norm", &config),
            ropes: config.ropes.iter().map(|rope| Rope::new(rope, device)).collect(),
            embed_tokens: tensors[EMBEDDING].shallow_clone(),
            embedding_lora: loras.embedding,
            layer_embedding,
            embed_positions: tensors.get(POSITIONS).map(Tensor::shallow_clone),
            embedding_scale: scale,
            drops: loras.drops,
            device,
            kind,
            route: AttentionRoute::of(&config, kind, device),
            residence: None,
            config,
        }
    }

    /// Hidden states `[T, H]` of all packed tokens after the last norm.
    /// `along` moves to the device in the same copy.
    pub(crate) fn hidden_states(&self, packed: &Packed, along: &mut [&mut Tensor]) -> Result<Tensor> {
        let (input, plans) = self.prepare(packed, along, None)?;
        self.run(&input, |layer, mixing| plans.mix(layer, &mixing))
    }

    /// As [`Network::hidden_states`], with the loss of the routers, if there are any that have one.
    pub(crate) fn routed_states(&self, packed: &Packed, along: &mut [&mut Tensor]) -> Result<(Tensor, Option<Tensor>)> {
        let (input, plans) = self.prepare(packed, along, self.loads(packed))?;
        let states = self.run(&input, |layer, mixing| plans.mix(layer, &mixing))?;
        let sums = input.loads.as_ref().map(Loads::take_sums).transpose()?.flatten();
        Ok((states, sums.as_ref().map(Loads::loss).transpose()?))
    }

    /// Loads of experts that a pass over `packed` counts; none for a model that has no loss of them.
    pub(crate) fn loads(&self, packed: &Packed) -> Option<Loads> {
        self.config.experts.filter(|experts| experts.aux_loss_coef.is_some()).map(|_| Loads::of(packed))
    }

    pub(crate) fn plans(&self, packed: &Packed) -> Result<Plans> {
        let mut plans = self.plans_on_host(packed)?;
        move_together(&mut plans.tensors_mut(), self.device)?;
        Ok(plans)
    }

    fn plans_on_host(&self, packed: &Packed) -> Result<Plans> {
        Plans::new(&self.config, packed, (self.kind, self.device), self.route)
    }

    /// Input and plans of a pass, with `along` in one copy from the host.
    pub(crate) fn prepare(
        &self,
        packed: &Packed,
        along: &mut [&mut Tensor],
        mut loads: Option<Loads>,
    ) -> Result<(Input, Plans)> {
        let mut plans = self.plans_on_host(packed)?;
        let along = along.iter_mut().map(|tensor| &mut **tensor);
        let all = plans.tensors_mut().into_iter().chain(along).chain(loads.as_mut().map(Loads::tensor_mut));
        let input = self.input_with(packed, all)?;
        Ok((Input { loads, ..input }, plans))
    }

    /// The network over `packed`; `mix(layer, mixing)` lets tokens learn of each other.
    pub(crate) fn forward(
        &self,
        packed: &Packed,
        mix: impl FnMut(usize, Mixing<'_>) -> Result<Tensor>,
    ) -> Result<Tensor> {
        self.run(&self.input(packed)?, mix)
    }

    /// As [`Network::forward`], for the newest tokens of a few rows, and without gradients.
    pub(crate) fn step(&self, newest: &Packed, mix: impl FnMut(usize, Mixing<'_>) -> Result<Tensor>) -> Result<Tensor> {
        self.run(&Input { product: few_rows::linear, ..self.input(newest)? }, mix)
    }

    fn run(&self, input: &Input, mut mix: impl FnMut(usize, Mixing<'_>) -> Result<Tensor>) -> Result<Tensor> {
        let _root = self.begin_pass()?;
        let (mut x, mut beside) = self.embed(input)?;
        self.through_layers(|layer| {
            x = self.layer(layer, &x, input, &mut beside, |mixing| mix(layer, mixing))?;
            self.keeps_no_weights(&x)
        })?;
        self.last_norm(&x)
    }

    /// Refuses activations that keep weights for a backward pass, of which nothing is left by then.
    fn keeps_no_weights(&self, x: &Tensor) -> Result<()> {
        if self.residence.is_none() || !x.requires_grad() {
            return Ok(());
        }
        let what = "pass with gradients over weights that are quantised, or divided among processes";
        let (found, expected) = ("activations that are kept".to_owned(), "activation checkpointing".to_owned());
        Err(Error::Input { what, found, expected })
    }

    /// Takes the ways of another network of these weights.
    pub(crate) fn like(mut self, other: &Self) -> Self {
        self.route = other.route;
        self.residence.clone_from(&other.residence);
        self
    }

    /// Hidden states of the embedding and after each layer, the last one normed.
    pub(crate) fn layer_states(&self, packed: &Packed) -> Result<Vec<Tensor>> {
        let (input, plans) = self.prepare(packed, &mut [], None)?;
        let _root = self.begin_pass()?;
        let (embedded, mut beside) = self.embed(&input)?;
        let mut states = vec![embedded];
        self.through_layers(|layer| {
            let next = self.layer(layer, &states[layer], &input, &mut beside, |mixing| plans.mix(layer, &mixing))?;
            self.keeps_no_weights(&next)?;
            states.push(next);
            Ok(())
        })?;
        if let Some(last) = states.last_mut() {
            *last = self.last_norm(last)?;
        }
        Ok(states)
    }

    fn input(&self, packed: &Packed) -> Result<Input> {
        self.input_with(packed, std::iter::empty())
    }

    fn input_with<'t>(&self, packed: &Packed, along: impl Iterator<Item = &'t mut Tensor>) -> Result<Input> {
        self.check(packed)?;
        let [mut tokens, mut positions] = [packed.tokens(), packed.positions()].map(Tensor::from_slice);
        let mut keys = self.drops.then(|| Tensor::from_slice(&packed.dropout_keys()));
        let mut all: Vec<&mut Tensor> = vec![&mut tokens, &mut positions];
        all.extend(&mut keys);
        let mut by_length: Vec<Option<ByLength>> =
            self.ropes.iter().map(|rope| rope.by_length(packed)).collect::<Result<_>>()?;
        all.extend(by_length.iter_mut().flatten().flat_map(ByLength::tensors_mut));
        all.extend(along.map(|tensor| &mut *tensor));
        move_together(&mut all, self.device)?;
        let turn = |(rope, own): (&Rope, &Option<ByLength>)| rope.turn(&positions, own.as_ref(), self.kind);
        let turns = self.ropes.iter().zip(&by_length).map(turn).collect::<Result<_>>()?;
        Ok(Input { tokens, positions, turns, product: linear, keys, loads: None })
    }

    /// Embeddings `[T, H]`, and those that layers read beside them.
    pub(crate) fn embed(&self, input: &Input) -> Result<(Tensor, Beside)> {
        let x = self.embed_tokens(input)?;
        let own = match &self.layer_embedding {
            Some(of) => of.forward(&x, input)?.into_iter().enumerate().collect(),
            None => BTreeMap::new(),
        };
        Ok((x, Beside { own, keys: BTreeMap::new() }))
    }

    fn embed_tokens(&self, input: &Input) -> Result<Tensor> {
        let look_up = |table: &Tensor, ids: &Tensor, padding: i64| {
            Tensor::f_embedding(table, ids, padding, false, false).doing("the embedding")
        };
        let padding = self.config.padding_row();
        let x = look_up(&self.embed_tokens, &input.tokens, padding)?;
        let x = match &self.embedding_lora {
            Some(lora) => lora.add_to(&x, &input.tokens, padding)?,
            None => x,
        };
        let x = if self.embedding_scale == 1.0 { x } else { x * self.embedding_scale };
        match &self.embed_positions {
            Some(table) => Ok(x + look_up(table, &input.positions, -1)?),
            None => Ok(x),
        }
    }

    /// `x` `[T, H]` through one layer, which takes from `beside`, and leaves keys and values there that later ones read.
    pub(crate) fn layer(
        &self,
        index: usize,
        x: &Tensor,
        input: &Input,
        beside: &mut Beside,
        mix: impl FnOnce(Mixing<'_>) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let layer = self.config.layers[index];
        let work = Work {
            turn: layer.rope.map(|rope| &input.turns[rope]),
            products: input.products(),
            keys: layer.keys_of.and_then(|of| beside.keys.get(&of)),
            own: beside.own.get(&index),
            loads: input.loads.as_ref(),
        };
        let (lends, mut lent) = (self.config.lends_keys(index), None);
        let out = self.layers[index].forward(x, work, |mixing| {
            if let (true, Mixing::Heads(heads)) = (lends, &mixing) {
                lent = Some([heads.k.shallow_clone(), heads.v.shallow_clone()]);
            }
            mix(mixing)
        })?;
        beside.keys.extend(lent.map(|keys| (index, keys)));
        Ok(out)
    }

    pub(crate) fn last_norm(&self, x: &Tensor) -> Result<Tensor> {
        self.norm.forward(x)
    }

    /// Ids index memory, so they are checked before libtorch sees them.
    fn check(&self, packed: &Packed) -> Result<()> {
        let vocab = self.config.vocab_size;
        if packed.is_empty() {
            let (found, expected) = ("0".to_owned(), "at least one".to_owned());
            return Err(Error::Input { what: "number of tokens", found, expected });
        }
        if let Some(id) = packed.tokens().iter().find(|id| !(0..vocab).contains(*id)) {
            return Err(limits::outside(*id, vocab));
        }
        let (length, room) = (packed.positions().iter().max().map_or(0, |last| last + 1), self.config.learned());
        match room {
            Some(room) if length > room => Err(limits::past_positions(length, room)),
            _ => Ok(()),
        }
    }
}
