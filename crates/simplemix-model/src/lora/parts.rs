//! The parts of a model that an adapter changes: layers with matrices beside their weights, and tensors that are trained whole.

use std::collections::BTreeSet;

use super::config::{LoraBias, LoraConfig, LoraTargets, SCORES, refused};
use super::experts::Parameter;
use super::matching::{self, Matcher, ModuleNames};
use super::peft::PREFIX;
use crate::config::ModelConfig;
use crate::error::Result;

/// Parts of a model that an adapter changes.
#[derive(Debug)]
pub(crate) struct LoraParts {
    /// In the model's order.
    pub(crate) targets: Vec<Target>,
    pub(crate) saved: Vec<Saved>,
    /// Modules that are trained whole, by their full names.
    pub(super) whole: Vec<String>,
    /// Whether the output head is the trained embedding.
    pub(super) has_tied_head: bool,
}

/// A layer with two matrices beside its weight.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// transformers' name, as peft's files have it.
    pub(crate) module: String,
    /// transformers' name of what is changed: the module, or a tensor of experts.
    pub(crate) full: String,
    pub(crate) place: Place,
    pub(super) outputs: i64,
    pub(super) inputs: i64,
    pub(crate) rank: i64,
    pub(super) alpha: f64,
    /// Matrices of each kind, which lie in one tensor.
    pub(super) experts: i64,
}

/// Kind of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Linear,
    Embedding,
    Head,
    /// A tensor of the experts of this layer.
    Parameter(Parameter, usize),
}

/// A tensor of the model that is trained whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Saved {
    /// Name in the model.
    pub(crate) tensor: String,
    /// Name in peft's file.
    pub(super) file: String,
    /// Shape in the model.
    pub(super) shape: Vec<i64>,
    /// Whether peft's file has rows for columns, as the model's own has.
    pub(super) is_turned: bool,
}

impl Saved {
    /// Shape in peft's file.
    pub(super) fn file_shape(&self) -> Vec<i64> {
        if self.is_turned { self.shape.iter().rev().copied().collect() } else { self.shape.clone() }
    }
}

impl Target {
    /// Names of the two matrices in peft's files: A, B.
    pub(super) fn matrices(&self) -> [String; 2] {
        let module = &self.module;
        ["A", "B"].map(|matrix| match self.place {
            Place::Embedding => format!("{PREFIX}{module}.lora_embedding_{matrix}"),
            Place::Linear | Place::Head | Place::Parameter(..) => format!("{PREFIX}{module}.lora_{matrix}.weight"),
        })
    }

    /// Name of DoRA's lengths in peft's files.
    pub(super) fn magnitude(&self) -> String {
        format!("{PREFIX}{}.lora_magnitude_vector", self.module)
    }

    /// Shapes of the two matrices in peft's files.
    pub(super) fn shapes(&self) -> [[i64; 2]; 2] {
        let ranks = self.rank * self.experts;
        [[ranks, self.inputs], [self.outputs, ranks]]
    }

    /// Tensors under peft's names, with their shapes.
    pub(super) fn tensors(&self, dora: bool) -> Vec<(String, Vec<i64>)> {
        let shapes = self.shapes().map(|shape| shape.to_vec());
        let mut all: Vec<(String, Vec<i64>)> = self.matrices().into_iter().zip(shapes).collect();
        if dora {
            all.push((self.magnitude(), vec![self.outputs]));
        }
        all
    }
}

/// Layers that may have matrices, and all modules of a model.
struct Modules {
    layers: Vec<(String, Place, [i64; 2])>,
    tensors: Vec<(String, Vec<i64>)>,
    turned: BTreeSet<String>,
    /// Tensors that are never trained.
    buffers: BTreeSet<String>,
    /// The output head's name in the class, and in the model.
    own_head: (String, String),
    all: BTreeSet<String>,
}

impl Modules {
    fn of(model: &ModelConfig, is_reward: bool) -> Self {
        let (v, h) = (model.vocab_size, model.hidden_size);
        let [embedding, head] = [model.embedding_module(), model.head_module()];
        let mut layers = vec![(embedding, Place::Embedding, [h, v])];
        layers.extend(model.linear_modules().into_iter().map(|(module, shape)| (module, Place::Linear, shape)));
        let own_head = model.own_head_name();
        let mut tensors = if is_reward { model.reward_tensors() } else { model.tensors() };
        if !is_reward {
            // In the class it is `lm_head`, whatever its name in files, and there also where it is the embedding.
            tensors.retain(|(name, _)| *name != own_head);
            tensors.push((format!("{head}.weight"), vec![v, h]));
            layers.push((head.clone(), Place::Head, [v, h]));
        }
        let mut all = BTreeSet::new();
        for (tensor, _) in &tensors {
            all.extend(tensor.match_indices('.').map(|(dot, _)| tensor[..dot].to_owned()));
        }
        let turned = tensors.iter().filter(|(tensor, _)| model.is_turned(tensor)).map(|(tensor, _)| tensor.clone());
        let buffers = tensors.iter().filter(|(tensor, _)| model.is_buffer(tensor)).map(|(tensor, _)| tensor.clone());
        let buffers = buffers.collect();
        Self { layers, turned: turned.collect(), buffers, own_head: (format!("{head}.weight"), own_head), tensors, all }
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.all.iter().map(String::as_str)
    }

    /// Whether a module is a list of others.
    fn is_list(&self, module: &str) -> bool {
        let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        let below = |other: &String| other.strip_prefix(module)?.strip_prefix('.')?.split('.').next().map(is_number);
        self.all.iter().any(|other| below(other) == Some(true))
    }

    /// Tensors of a module and of those inside of it.
    fn within<'a>(&'a self, module: &'a str) -> impl Iterator<Item = &'a (String, Vec<i64>)> {
        let is_within = move |tensor: &str| tensor.strip_prefix(module).is_some_and(|rest| rest.starts_with('.'));
        self.tensors.iter().filter(move |(tensor, _)| is_within(tensor))
    }
}

impl LoraConfig {
    /// The parts of `model` that the adapter changes.
    ///
    /// # Errors
    /// [`crate::Error::Input`] for a setting out of range, a target that is no layer, or if nothing is changed.
    pub(crate) fn parts(&self, model: &ModelConfig) -> Result<LoraParts> {
        self.check()?;
        let model = &self.resized(model);
        if let Some(of) = model.per_layer_embedding.filter(|of| of.vocab_size < model.vocab_size) {
            let found = format!("{} entries, and layers with embeddings of {} tokens", model.vocab_size, of.vocab_size);
            let expected = "no more entries than those: new rows of `embed_tokens_per_layer` are not in an adapter's file; resize \
                            the model with transformers first";
            return refused("vocabulary of an adapter", found, expected);
        }
        let resolved = self.resolved(model)?;
        let modules = Modules::of(model, self.is_reward());
        let mut targets = resolved.targets_in(&modules)?;
        targets.extend(resolved.parameter_targets(model)?);
        let (mut saved, whole) = self.saved_in(&modules, &targets)?;
        let (embedding, head) = (model.embedding_name(), model.own_head_name());
        let has_tied_head = self.tie && model.tie_word_embeddings && !self.is_reward();
        if has_tied_head && targets.iter().any(|target| matches!(target.place, Place::Embedding | Place::Head)) {
            return refused(
                "adapter of an embedding that stays tied to the output head",
                "`ensure_weight_tying` with matrices beside the embedding".to_owned(),
                "`modules_to_save` in place of it, or `ensure_weight_tying` false",
            );
        }
        let has_tied_head = has_tied_head && saved.iter().any(|saved| [&embedding, &head].contains(&&saved.tensor));
        if has_tied_head {
            // One matrix, trained under the embedding's name.
            saved.retain(|saved| ![&embedding, &head].contains(&&saved.tensor));
            let shape = vec![model.vocab_size, model.hidden_size];
            saved.insert(0, Saved { file: format!("{PREFIX}{embedding}"), tensor: embedding, shape, is_turned: false });
        }
        Ok(LoraParts { targets, saved, whole, has_tied_head })
    }

    /// Refuses names and patterns that match nothing of `model`, and numbers of layers that it does not have.
    ///
    /// # Errors
    /// [`crate::Error::Input`].
    pub fn check_for(&self, model: &ModelConfig) -> Result<()> {
        self.check()?;
        let modules = Modules::of(model, self.is_reward());
        let layers = || modules.layers.iter().map(|(module, ..)| module.as_str());
        if let LoraTargets::Named(names) = &self.resolved(model)?.targets
            && let Some(name) = names.iter().find(|name| !layers().any(|module| matching::is_named(module, name)))
        {
            let known = model.projection_names().join(", ");
            let found = format!("`{name}`, which matches no linear layer");
            return refused("target of an adapter", found, &format!("`all-linear`, or names among {known}"));
        }
        if let Some(layer) = self.layers.iter().find(|&&layer| layer < 0 || layer >= model.num_hidden_layers as i64) {
            let expected = format!("a number from 0 to {}", model.num_hidden_layers - 1);
            return refused("layer of an adapter", layer.to_string(), &expected);
        }
        let parts = self.parts(model)?;
        let keys = self.rank_pattern.iter().map(|(key, _)| key).chain(self.alpha_pattern.iter().map(|(key, _)| key));
        for key in keys {
            let regex = compiled(matching::ending(key))?;
            if !parts.targets.iter().any(|target| matching::matches(&regex, &target.full)) {
                let found = format!("`{key}`, which matches no layer that is adapted");
                return refused("pattern of an adapter's ranks or alphas", found, "the end of such a layer's name");
            }
        }
        let is_unknown = |name: &&String| !modules.all.iter().any(|module| module.ends_with(name.as_str()));
        if let Some(name) = self.modules_to_save.iter().filter(|name| !SCORES.contains(&name.as_str())).find(is_unknown)
        {
            let found = format!("`{name}`, which matches no module");
            let expected = "the end of a module's name, such as `lm_head`, `embed_tokens` or `norm`";
            return refused("module that is trained whole", found, expected);
        }
        let is_unknown = |name: &&String| !layers().any(|module| matching::is_named(module, name));
        match &self.exclude {
            ModuleNames::Named(names) if names.iter().any(|name| is_unknown(&name)) => {
                let name = names.iter().find(is_unknown).map(String::as_str).unwrap_or_default();
                refused(
                    "layer that an adapter leaves out",
                    format!("`{name}`, which matches no layer"),
                    "the end of a linear layer's name",
                )
            }
            _ => Ok(()),
        }
    }

    fn targets_in(&self, modules: &Modules) -> Result<Vec<Target>> {
        let is_target: Box<dyn Fn(&str) -> bool> = match &self.targets {
            LoraTargets::AllLinear => {
                let linear =
                    |(module, place, _): &(String, Place, _)| (*place == Place::Linear).then(|| module.clone());
                let linear: BTreeSet<String> = modules.layers.iter().filter_map(linear).collect();
                Box::new(move |module| linear.contains(module))
            }
            LoraTargets::Named(names) => {
                let is_in_layers = self.layer_filter()?;
                Box::new(move |module| {
                    let is_named = names.iter().any(|name| matching::is_named(module, name));
                    names.iter().any(|name| name == module) || (is_named && is_in_layers(module))
                })
            }
            LoraTargets::Pattern(pattern) => {
                let matcher = compiled(ModuleNames::Pattern(pattern.clone()).matcher())?;
                steady(matcher.problem_on(modules.names()))?;
                Box::new(move |module| matcher.is_match(module))
            }
        };
        let excluded: Matcher = compiled(self.exclude.matcher())?;
        steady(excluded.problem_on(modules.names()))?;
        let saved = self.saved_names().map(|name| compiled(matching::within(name))).collect::<Result<Vec<_>>>()?;
        saved.iter().try_for_each(|saved| steady(matching::problem_on(saved, modules.names())))?;
        let is_left =
            |module: &str| excluded.is_match(module) || saved.iter().any(|saved| matching::matches(saved, module));
        let is_layer = |module: &str| modules.layers.iter().any(|(layer, ..)| layer == module);
        if let Some(module) = modules.all.iter().find(|m| !is_layer(m) && is_target(m) && !is_left(m)) {
            let found = format!("{}, which matches `{module}`", self.targets);
            let expected = "linear layers, the embedding or the output head alone, as in peft";
            return refused("target of an adapter", found, expected);
        }
        let patterns = Patterns::of(self)?;
        let keys = patterns.ranks.iter().map(|(key, _)| key).chain(patterns.alphas.iter().map(|(key, _)| key));
        keys.into_iter().try_for_each(|key| steady(matching::problem_on(key, modules.names())))?;
        let all = modules.layers.iter().filter(|(module, ..)| is_target(module) && !is_left(module));
        let target = |(module, place, [outputs, inputs]): &(String, Place, [i64; 2])| {
            let (rank, alpha) = patterns.of_module(self, module);
            let (module, full) = (module.clone(), module.clone());
            Target { module, full, place: *place, outputs: *outputs, inputs: *inputs, rank, alpha, experts: 1 }
        };
        let targets: Vec<Target> = all.map(target).collect();
        if targets.is_empty() && self.parameters.is_empty() {
            let found = format!("{}, which match no linear layer", self.targets);
            return refused("targets of an adapter", found, "at least one that is neither excluded nor trained whole");
        }
        Ok(targets)
    }

    /// Rank and alpha of what has this name.
    pub(super) fn of_module(&self, name: &str) -> Result<(i64, f64)> {
        Ok(Patterns::of(self)?.of_module(self, name))
    }

    /// Whether a module is in one of the layers that are changed.
    fn layer_filter(&self) -> Result<impl Fn(&str) -> bool> {
        let lists: Vec<Option<&str>> = match self.layers_pattern.as_slice() {
            [] => vec![None],
            lists => lists.iter().map(|list| Some(list.as_str())).collect(),
        };
        let lists = lists.into_iter().map(|list| compiled(matching::layer_index(list))).collect::<Result<Vec<_>>>()?;
        Ok(move |module: &str| {
            let number = || {
                let found = lists.iter().find_map(|list| list.captures(module).ok().flatten())?;
                found.get(1)?.as_str().parse::<i64>().ok()
            };
            self.layers.is_empty() || number().is_some_and(|number| self.layers.contains(&number))
        })
    }

    /// Tensors that are trained whole, and the modules that are.
    fn saved_in(&self, modules: &Modules, targets: &[Target]) -> Result<(Vec<Saved>, Vec<String>)> {
        let is_target = |module: &str| targets.iter().any(|target| target.module == module);
        let mut all: Vec<Saved> = Vec::new();
        let mut add = |(tensor, shape): &(String, Vec<i64>), file: String| {
            let own = if *tensor == modules.own_head.0 { &modules.own_head.1 } else { tensor };
            if !all.iter().any(|saved| saved.tensor == *own) {
                let is_turned = modules.turned.contains(tensor);
                all.push(Saved { tensor: own.clone(), file, shape: shape.clone(), is_turned });
            }
        };
        let whole: Vec<&String> =
            modules.all.iter().filter(|module| self.saved_names().any(|name| module.ends_with(name))).collect();
        for module in &whole {
            let is_inside =
                |outer: &&&String| module.strip_prefix(outer.as_str()).is_some_and(|rest| rest.starts_with('.'));
            if let Some(outer) = whole.iter().find(is_inside) {
                let found = format!("`{module}`, inside of `{outer}`");
                return refused("module that is trained whole", found, "modules apart from each other");
            }
            if modules.is_list(module) || is_target(module) {
                let expected = "modules that are neither lists of layers nor adapted, as in peft";
                return refused("module that is trained whole", format!("`{module}`"), expected);
            }
            if let Some((tensor, _)) = modules.within(module).find(|(tensor, _)| modules.buffers.contains(tensor)) {
                let found = format!("`{module}`, which holds `{tensor}`, a number that is not trained");
                return refused("module that is trained whole", found, "modules inside of it");
            }
            modules.within(module).for_each(|tensor| add(tensor, format!("{PREFIX}{}", tensor.0)));
        }
        for tensor in modules.tensors.iter().filter(|_| self.bias != LoraBias::None) {
            let Some(module) = tensor.0.strip_suffix(".bias") else { continue };
            match is_target(module) {
                true => add(tensor, format!("{PREFIX}{module}.base_layer.bias")),
                false if self.bias == LoraBias::All => add(tensor, format!("{PREFIX}{}", tensor.0)),
                false => {}
            }
        }
        Ok((all, whole.into_iter().cloned().collect()))
    }
}

/// Ranks and alphas of layers by patterns.
struct Patterns {
    ranks: Vec<(fancy_regex::Regex, i64)>,
    alphas: Vec<(fancy_regex::Regex, f64)>,
}

impl Patterns {
    fn of(config: &LoraConfig) -> Result<Self> {
        let ranks = config.rank_pattern.iter().map(|(key, rank)| Ok((compiled(matching::ending(key))?, *rank)));
        let alphas = config.alpha_pattern.iter().map(|(key, alpha)| Ok((compiled(matching::ending(key))?, *alpha)));
        Ok(Self { ranks: ranks.collect::<Result<_>>()?, alphas: alphas.collect::<Result<_>>()? })
    }

    fn of_module(&self, config: &LoraConfig, module: &str) -> (i64, f64) {
        fn first<T: Copy>(all: &[(fancy_regex::Regex, T)], module: &str, other: T) -> T {
            all.iter().find(|(regex, _)| matching::matches(regex, module)).map_or(other, |(_, value)| *value)
        }
        (first(&self.ranks, module, config.rank), first(&self.alphas, module, config.alpha))
    }
}

impl std::fmt::Display for LoraTargets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AllLinear => f.write_str("`all-linear`"),
            Self::Named(names) => {
                let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
                f.write_str(&names.join(", "))
            }
            Self::Pattern(pattern) => write!(f, "`{pattern}`"),
        }
    }
}

/// Refuses a pattern that has a `problem` on names of the model.
fn steady(problem: Option<String>) -> Result<()> {
    let expected = "a regular expression that takes few steps";
    problem.map_or(Ok(()), |problem| refused("pattern of an adapter", problem, expected))
}

/// A pattern that [`LoraConfig::check`] has seen before.
fn compiled<T>(made: std::result::Result<T, String>) -> Result<T> {
    made.or_else(|reason| refused("pattern of an adapter", reason, "a regular expression"))
}
