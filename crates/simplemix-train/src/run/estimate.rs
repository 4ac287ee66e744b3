//! Estimate of the memory that a run needs: from shapes alone, in no more memory than the program has.
//!
//! An update has two phases, of which the larger counts: forward and backward passes of the largest micro-batch, and the
//! optimiser's step. Weights, gradients and the optimiser's state are there in both.

use std::collections::BTreeMap;
use std::path::Path;

use simplemix_loss::{LossSum, Need, PairLoss};
use simplemix_model::{ModelConfig, PassCosts, RunTokens, Stage, Trained};
use tch::{Device, Kind};

use super::Run;
use super::prepare::{build_loss, config_json, planned_device, required};
use super::shapes::{Named, Shapes, count};
use crate::budget::{device_bytes, logits_bytes, most_training_tokens, training_tokens};
use crate::config::{Objective, Shard, TrainConfig};
use crate::error::Result;
use crate::hypo::HypoSettings;
use crate::memory::{MemoryEstimate, Phases, Program, Slack};
use crate::pairs::Feed;
use crate::reference::ReferenceSource;
use crate::sharded::{DividedBytes, Layout};
use crate::sides::Sides;
use crate::table::PairEntry;

/// A pass through the network and the head.
struct Pass {
    runs: Vec<RunTokens>,
    /// Positions that the head sees of each pair; of all prompts together for HyPO's samples.
    scored: Vec<usize>,
}

impl Pass {
    fn of(pairs: &[&PairEntry], feed: Feed) -> Self {
        let mut pass = Self { runs: Vec::new(), scored: Vec::new() };
        for PairEntry { prompt, responses, is_split, .. } in pairs {
            pass.runs.push(RunTokens { own: prompt + responses.chosen, before: 0 });
            match feed.of_pair(*is_split) {
                Feed::Shared => pass.runs.push(RunTokens { own: responses.rejected, before: *prompt }),
                Feed::Apart => pass.runs.push(RunTokens { own: prompt + responses.rejected, before: 0 }),
                Feed::Chosen => {}
            }
            pass.scored.push(responses.chosen + if feed == Feed::Chosen { 0 } else { responses.rejected });
        }
        pass
    }

    /// Responses of `new` tokens that HyPO samples to prompts of `prompt` tokens, each laid out `copies` times.
    fn of_samples(hypo: &HypoSettings, prompt: usize, copies: usize, prompts: usize) -> Self {
        let new = hypo.max_new_tokens;
        let of_prompt = (0..hypo.samples).map(|sample| match sample {
            sample if sample < copies => RunTokens { own: prompt + new, before: 0 },
            _ => RunTokens { own: new, before: prompt },
        });
        let runs = of_prompt.cycle().take(prompts * hypo.samples).collect();
        Self { runs, scored: vec![prompts * hypo.samples * new] }
    }

    fn tokens(&self) -> usize {
        self.runs.iter().map(|run| run.own).sum()
    }
}

impl Run {
    /// Estimates the peak memory of the run: of the process on a CPU, of the device's memory on a GPU.
    ///
    /// # Errors
    /// [`Error::Setting`](crate::Error::Setting) if the pairs cannot be split into micro-batches, and errors of the
    /// reference's configuration.
    pub fn memory_estimate(&self) -> Result<MemoryEstimate> {
        let processes = self.config.parallel.processes;
        let (settings, table, pairs) = (&self.settings, &self.train.table, self.train.len() as u64);
        // The other epochs have the same pairs in another order.
        let steps = settings.steps.min(settings.order.updates(settings.batch_size, pairs));
        let mut batches = settings.order.batches(settings.batch_size, pairs);
        let mut passes = Vec::new();
        for step in 0..steps {
            let batch = batches.at(step);
            for rank in 0..processes {
                // As a team shares an update out.
                let own: Vec<usize> = batch.iter().copied().skip(rank).step_by(processes).collect();
                for part in table.micro_batches(&own, settings.micro_batch_tokens)? {
                    let entries: Vec<&PairEntry> = part.iter().map(|&pair| &table.pairs[pair]).collect();
                    passes.push(Pass::of(&entries, self.train.feed()));
                }
            }
        }
        let prompt = table.pairs.iter().map(|pair| pair.prompt).max().unwrap_or(0);
        self.needs().of(passes, prompt)
    }

    /// Facts from which the memory of the run follows.
    pub(super) fn needs(&self) -> Needs<'_> {
        Needs { config: &self.config, loss: &self.loss, shapes: &self.shapes, device: self.device }
    }
}

impl TrainConfig {
    /// Estimates the peak memory on `device` of a run of the model in `folder` before there are pairs: as if each had the maximum length,
    /// half of it prompt, and the rejected response were as long as the chosen one. With several processes it is that of each.
    ///
    /// # Errors
    /// [`Error::Setting`](crate::Error::Setting) for settings out of range, and errors of configurations.
    pub fn memory_bound(&self, folder: &Path, device: Device) -> Result<MemoryEstimate> {
        let most = most_training_tokens(self.batch.micro_batch_tokens, device);
        self.bound(&Shapes::read(self, folder)?, device, |_| Ok(most))
    }

    /// As [`TrainConfig::memory_bound`], of a run that is planned from the model's `config.json` alone: on the device of the settings,
    /// which need not be here where `memory.device_gb` says what it has, with as many tokens in a pass as a run would take there.
    ///
    /// # Errors
    /// As there, and of a device that cannot be used.
    pub fn memory_plan(&self) -> Result<MemoryEstimate> {
        let mut config = self.clone();
        config.check()?;
        let device = planned_device(&mut config)?;
        let folder = required("model", config.model.as_deref())?.to_owned();
        config.lora.resolve_targets(config_json(&folder)["model_type"].as_str().unwrap_or_default())?;
        let shapes = Shapes::read(&config, &folder)?;
        config.bound(&shapes, device, |needs| needs.settled_tokens(needs.of(Vec::new(), 0)?.states()))
    }

    fn bound(
        &self,
        shapes: &Shapes,
        device: Device,
        most: impl FnOnce(&Needs<'_>) -> Result<usize>,
    ) -> Result<MemoryEstimate> {
        let loss = build_loss(self)?;
        let longest = self.tokens.max_length.min(shapes.model.max_position_embeddings as usize);
        let half = (longest / 2).max(1);
        let pair =
            PairEntry { prompt: half, responses: Sides { chosen: half, rejected: half }, ..PairEntry::default() };
        let feed = Feed::of(self);
        let tokens = Pass::of(&[&pair], feed).tokens();
        let needs = Needs { config: self, loss: &loss, shapes, device };
        let own = self.batch.batch_size.div_ceil(self.parallel.processes).max(1);
        let pairs = (most(&needs)? / tokens).clamp(1, own);
        needs.of(vec![Pass::of(&vec![&pair; pairs], feed)], half)
    }
}

/// Facts from which the memory of a run follows.
pub(super) struct Needs<'a> {
    config: &'a TrainConfig,
    loss: &'a LossSum,
    shapes: &'a Shapes,
    device: Device,
}

impl<'a> Needs<'a> {
    /// Estimate for `passes` with gradients, and prompts of up to `prompt` tokens.
    fn of(&self, mut passes: Vec<Pass>, prompt: usize) -> Result<MemoryEstimate> {
        let (config, shapes, model, device) = (self.config, self.shapes, &self.shapes.model, self.device);
        let (kind, adapter) = (config.dtype.kind(device), shapes.adapter.as_ref());
        let element = kind.elt_size_in_bytes() as u64;
        let (costs, names) = (self.costs()?, shapes.trained_names());
        let is_checkpointed = self.is_checkpointed();
        let tensor = |name: &str| names.contains(name);
        let most = most_training_tokens(config.batch.micro_batch_tokens, device);
        let head = Head::of(self, kind, device, &tensor)?;
        let sizes = || shapes.weights.iter().map(|(_, shape)| shape.iter().product::<i64>() as u64);
        let slack = Slack::of(device, adapter.is_some() && !is_checkpointed, sizes().map(|size| size * element));
        let mut sampling = 0;
        if let Some(hypo) = config.hypo() {
            let copies = hypo.copies(model, prompt);
            let prompts = hypo.pass_prompts(prompt, copies, most, config.batch.batch_size);
            passes.push(Pass::of_samples(&hypo, prompt, copies, prompts));
            // Keys and values of the batch. Sampling is over before activations are kept.
            let row = (prompt + hypo.max_new_tokens) as u64 * model.cache_bytes(element as usize);
            let row = row + model.state_bytes(element as usize);
            sampling = hypo.rows(config.batch.batch_size) as u64 * row;
        }
        let of_pass = |pass: &Pass| {
            let memory = costs.of(&pass.runs);
            let layer = match is_checkpointed {
                // A layer is what is computed again.
                true => memory.in_layer,
                false => memory.kept / (model.num_hidden_layers as u64).max(1),
            };
            memory.kept + slack.bytes(memory.kept, layer) + head.bytes(&pass.scored).max(memory.in_layer)
        };
        let (largest, pass) = passes.iter().map(|pass| (of_pass(pass), pass.tokens())).max().unwrap_or_default();
        // Gradients of tables, each of which libtorch makes whole before it is added up, when activations are gone.
        let gradient = |(name, shape): (String, [i64; 2])| {
            let wide = 4 * shape.iter().product::<i64>() as u64;
            if !tensor(&name) { 0 } else { wide + if kind == Kind::Float { 0 } else { wide / 2 } }
        };
        let embedding = model.embeddings().into_iter().map(gradient).max().unwrap_or(0);
        // Matrices of adapters are f32.
        let kind_of = |name: &str| if shapes.is_matrix(name) { Kind::Float } else { kind };
        let bytes = |(name, shape): &(String, Vec<i64>)| {
            shape.iter().product::<i64>() as u64 * kind_of(name).elt_size_in_bytes() as u64
        };
        let trained = count(&shapes.trained) as u64;
        let adapter_weights = shapes.of_adapter.iter().map(bytes).sum::<u64>();
        let is_half = |name: &str| kind_of(name) != Kind::Float;
        let rounded: Named = shapes.trained.iter().filter(|(name, _)| is_half(name)).cloned().collect();
        let second = self.second_model()?;
        let weight_bytes = |model: &ModelConfig, tensors: &[(String, Vec<i64>)]| {
            config.quantization.weight_bytes(model, tensors, element as usize)
        };
        let (own_weights, dequantised) = weight_bytes(model, &shapes.weights);
        let second_weights = second.as_ref().map_or(0, |model| weight_bytes(model, &model.tensors()).0);
        let states = States {
            weights: own_weights + second_weights + adapter_weights,
            // In f32 whatever the weights' kind.
            gradients: 4 * trained,
            optimizer: 2 * 4 * trained + 4 * count(&rounded) as u64,
            gathered: dequantised,
            exchanged: 0,
        };
        let processes = config.parallel.processes as u64;
        let shared = match config.parallel.shard {
            Shard::Optimizer if processes > 1 => States {
                optimizer: states.optimizer.div_ceil(processes),
                exchanged: exchanged_bytes(&shapes.trained, &kind_of, device, processes),
                ..states
            },
            Shard::All if processes > 1 => {
                if config.hypo().is_some() {
                    // To sample, a process has the policy whole.
                    sampling += element * shapes.parameters() as u64;
                }
                let of_adapter = States { weights: adapter_weights, ..states };
                self.divided(of_adapter, second.as_ref(), &kind_of, processes)
            }
            _ => states,
        };
        Ok(MemoryEstimate {
            program: Program::of(device).bytes(),
            weights: shared.weights,
            gradients: shared.gradients,
            optimizer: shared.optimizer,
            gathered: shared.gathered,
            phases: Phases {
                passes: largest.max(embedding).max(sampling),
                update: update_bytes(&shapes.trained, &kind_of).max(shared.exchanged),
            },
            loading: loading_bytes(model, sizes().max().unwrap_or(0), kind, device),
            micro_batch_tokens: pass,
        })
    }

    /// Settles how many tokens a pass may have, as a run does on a device of known memory.
    pub(super) fn settled_tokens(&self, states: u64) -> Result<usize> {
        let costs = self.costs()?;
        let activations = |tokens: usize| {
            let memory = costs.of(&[RunTokens { own: tokens, before: 0 }]);
            memory.kept + memory.in_layer
        };
        let bytes = device_bytes(self.device, self.config.memory.device_gb)?;
        let left = bytes.map(|bytes| bytes.saturating_sub(states));
        Ok(training_tokens(self.config.batch.micro_batch_tokens, left, activations))
    }

    fn is_checkpointed(&self) -> bool {
        let quantised = self.config.quantization.is_on() || self.shapes.model.is_quantized();
        self.config.memory.activation_checkpointing || self.config.parallel.shard == Shard::All || quantised
    }

    /// Memory that a process holds where weights and gradients are divided. `whole` has the bytes of weights that stay whole, and all
    /// gradients and states of the optimiser.
    fn divided(
        &self,
        whole: States,
        second: Option<&ModelConfig>,
        kind_of: &dyn Fn(&str) -> Kind,
        processes: u64,
    ) -> States {
        let (shapes, device) = (self.shapes, self.device);
        let names = shapes.trained_names();
        // Matrices of an adapter are each process's own.
        let is_trained = |name: &str| shapes.adapter.is_none() && names.contains(name);
        let kind = self.config.dtype.kind(device);
        let of = |tensors: &[(String, Vec<i64>)], model: &ModelConfig, has_gradients: bool| {
            let stages = model.stages();
            let layout = Layout { tensors, stages: &stages, is_trained: &is_trained, kind, device };
            (DividedBytes::of(&layout, processes, has_gradients), largest_stage(&layout))
        };
        let (own, largest) = of(&shapes.weights, &shapes.model, true);
        let second = second.map(|model| of(&model.tensors(), model, false).0);
        let others = |part: fn(&DividedBytes) -> u64| second.as_ref().map_or(0, part);
        let (gradients, exchanged) = match shapes.adapter {
            Some(_) => (whole.gradients, exchanged_bytes(&shapes.trained, kind_of, device, processes)),
            None => (own.gradients, 0),
        };
        // Gloo takes the parts of all ranks of a stage's gradients before it adds them.
        let parts = if device == Device::Cpu { 4 * largest } else { 0 };
        States {
            weights: whole.weights + own.weights + others(|second| second.weights),
            gradients,
            optimizer: whole.optimizer.div_ceil(processes),
            gathered: own.gathered + parts + others(|second| second.gathered),
            exchanged,
        }
    }

    /// Costs of the network's passes.
    pub(super) fn costs(&self) -> Result<PassCosts<'a>> {
        let (device, names) = (self.device, self.shapes.trained_names());
        let trained = Trained {
            kind: self.config.dtype.kind(device),
            device,
            adapter: self.shapes.adapter.as_ref(),
            tensor: &|name| names.contains(name),
            is_checkpointed: self.is_checkpointed(),
        };
        Ok(PassCosts::new(&self.shapes.model, trained)?)
    }

    /// The second model in memory, if there is one while the policy trains.
    fn second_model(&self) -> Result<Option<ModelConfig>> {
        let reference = &self.config.reference;
        let on_the_fly = reference.source == ReferenceSource::OnTheFly;
        let has_reference = self.config.objective == Objective::Preference && self.loss.needs(Need::Reference);
        let held = (has_reference && on_the_fly) || self.config.hypo().is_some();
        Ok(match &reference.model {
            Some(folder) if held => Some(ModelConfig::from_folder(folder)?),
            None if held && !self.config.lora.is_on() => Some(self.shapes.model.clone()),
            _ => None,
        })
    }
}

/// Numbers of the stage with the most trained weights.
fn largest_stage(layout: &Layout<'_>) -> u64 {
    let mut stages: BTreeMap<Option<Stage>, u64> = BTreeMap::new();
    for (name, shape) in layout.tensors.iter().filter(|(name, _)| (layout.is_trained)(name)) {
        *stages.entry(layout.stages.get(name).copied()).or_default() += shape.iter().product::<i64>() as u64;
    }
    stages.into_values().max().unwrap_or(0)
}

/// Memory that a process holds of the model and its optimiser.
#[derive(Debug, Clone, Copy)]
struct States {
    weights: u64,
    gradients: u64,
    optimizer: u64,
    /// Weights and gradients that are whole while they are used.
    gathered: u64,
    /// Copies while gradients are added up or weights gathered.
    exchanged: u64,
}

/// Bytes beside gradients and weights while an optimiser's parts are exchanged: Gloo takes the parts of all ranks before it adds them,
/// and a process's part of the weights is copied before it is gathered.
fn exchanged_bytes(trained: &Named, kind_of: &dyn Fn(&str) -> Kind, device: Device, processes: u64) -> u64 {
    let weights = |(name, shape): &(String, Vec<i64>)| {
        shape.iter().product::<i64>() as u64 * kind_of(name).elt_size_in_bytes() as u64
    };
    let copies = trained.iter().map(weights).sum::<u64>() / processes;
    if device == Device::Cpu { copies.max(4 * count(trained) as u64) } else { copies }
}

/// The output head, whose backward pass runs while all activations are kept.
struct Head {
    is_scored: bool,
    is_trained: bool,
    /// Whether it is made for each pass.
    is_made: bool,
    /// Whether pairs go through it in groups that fit the budget.
    in_groups: bool,
    is_half: bool,
    on_host: bool,
    vocab: u64,
    width: u64,
    budget: u64,
}

/// Bytes of vocabulary rows that the head converts to f32 at a time on a CPU, and of a block that it keeps in the cache.
const TILE_BYTES: u64 = 32 << 20;
const BLOCK_BYTES: u64 = 4 << 20;

impl Head {
    fn of(needs: &Needs<'_>, kind: Kind, device: Device, trained: &dyn Fn(&str) -> bool) -> Result<Self> {
        let Needs { config, loss, shapes, .. } = needs;
        let model = &shapes.model;
        // An adapter that changes the head trains a matrix of its own, which is made for each pass.
        let (is_trained, is_made) = match &shapes.adapter {
            Some(adapter) => (adapter.trains_head(model)?, adapter.adapts_head(model)?),
            None => (trained(&model.head_name()), false),
        };
        Ok(Self {
            is_scored: config.objective != Objective::Reward,
            is_trained,
            is_made,
            in_groups: is_trained && config.objective == Objective::Preference && !loss.is_coupled(),
            is_half: kind != Kind::Float,
            on_host: device == Device::Cpu,
            vocab: model.vocab_size as u64,
            width: model.hidden_size as u64,
            budget: logits_bytes(config.memory.logits_bytes, device_bytes(device, config.memory.device_gb)?) as u64,
        })
    }

    /// Logits within their budget, which become the softmax; its copy in half precision on a device; and vectors as wide as
    /// hidden states: the scored rows, targets' weights, means and gradients.
    fn bytes(&self, pairs: &[usize]) -> u64 {
        let scored = pairs.iter().sum::<usize>() as u64;
        if !self.is_scored || scored == 0 {
            return 0;
        }
        let softmax = self.rows(pairs) * 4 * self.vocab;
        let beside = match (self.on_host, self.is_half) {
            (true, true) => BLOCK_BYTES + TILE_BYTES.min(4 * self.vocab * self.width),
            (true, false) => BLOCK_BYTES.min(softmax),
            (false, true) => softmax / 2,
            (false, false) => 0,
        };
        let vectors = if self.is_trained { 6 } else { 4 };
        // The matrix, the product that is in it, and their gradient, in f32.
        let made = if self.is_made { 3 * 4 * self.vocab * self.width } else { 0 };
        softmax + beside + vectors * 4 * scored * self.width + made
    }

    /// Rows of the largest chunk of logits, as `simplemix_loss` cuts them.
    fn rows(&self, pairs: &[usize]) -> u64 {
        let scored = pairs.iter().sum::<usize>() as u64;
        let most = (self.budget / (4 * self.vocab)).max(1);
        let even = |rows: u64| rows.div_ceil(rows.div_ceil(most));
        if !self.in_groups {
            return even(scored);
        }
        let (mut largest, mut group) = (0, 0);
        for &pair in pairs {
            let pair = pair as u64;
            group = if group > 0 && group + pair > most { pair } else { group + pair };
            largest = largest.max(group);
        }
        if largest > most { even(largest) } else { largest }
    }
}

/// Bytes beside the weights while the `largest` tensor is loaded: as it is in its file, on its way through the host; and as a
/// tensor of the file's type, where the run's is another one.
fn loading_bytes(model: &ModelConfig, largest: u64, kind: Kind, device: Device) -> u64 {
    let json = model.to_json();
    let word = json.get("dtype").or_else(|| json.get("torch_dtype")).and_then(serde_json::Value::as_str);
    let stored = match word {
        Some("bfloat16") => Kind::BFloat16,
        Some("float16") => Kind::Half,
        _ => Kind::Float,
    };
    let buffer = if device == Device::Cpu { 1 } else { 0 };
    let other = u64::from(stored != kind);
    largest * stored.elt_size_in_bytes() as u64 * (buffer + other)
}

/// Temporaries of an update: until weights are known to move, a parameter's values before it, of one at a time. The update
/// itself has none: it reads and writes in place on a CPU, and is one fused kernel on a device.
fn update_bytes(trained: &Named, kind_of: &dyn Fn(&str) -> Kind) -> u64 {
    let bytes = |(name, shape): &(String, Vec<i64>)| {
        let each = if kind_of(name) == Kind::Float { 4 } else { 4 + 2 };
        shape.iter().product::<i64>() as u64 * each
    };
    trained.iter().map(bytes).max().unwrap_or(0)
}
