//! Settings of an adapter, in peft's terms.

use std::path::Path;

use super::matching::{self, ModuleNames};
use super::parts::Place;
use super::peft::ADAPTER_CONFIG;
use crate::config::ModelConfig;
use crate::error::{At, Error, Result};
use crate::not_a_model;

/// Settings of an adapter.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraConfig {
    /// r.
    pub rank: i64,
    /// The product of the two matrices is multiplied by `alpha / rank`.
    pub alpha: f64,
    /// Share of inputs dropped in training.
    pub dropout: f64,
    /// Layers that the adapter changes.
    pub targets: LoraTargets,
    /// Tensors of experts that the adapter changes beside layers, by the ends of their names: peft's `target_parameters`, such as
    /// `gate_up_proj` and `down_proj`. Names of experts' layers among the targets, and `all-linear`, stand for them too.
    pub parameters: Vec<String>,
    /// Layers among these that it leaves as they are.
    pub exclude: ModuleNames,
    /// Ranks of layers whose names, from a dot on, a regular expression matches; the first that does counts.
    pub rank_pattern: Vec<(String, i64)>,
    /// Alphas of such layers.
    pub alpha_pattern: Vec<(String, f64)>,
    /// Numbers of the decoder layers that are changed; all of them if empty. Layers that the targets name in full are changed
    /// in any case.
    pub layers: Vec<i64>,
    /// Names of the list that holds the decoder layers, as regular expressions; any if empty.
    pub layers_pattern: Vec<String>,
    /// Modules that are trained whole: the ends of their names.
    pub modules_to_save: Vec<String>,
    /// Biases that are trained.
    pub bias: LoraBias,
    /// Rank-stabilised scale (arXiv:2312.03732): `alpha / sqrt(rank)`.
    pub rslora: bool,
    /// Weight-decomposed adaptation (arXiv:2402.09353): a length for each output of a layer is trained beside the two matrices.
    pub dora: bool,
    /// Whether output head and embedding stay one matrix where one of them is trained whole.
    pub tie: bool,
    /// The model that is adapted.
    pub task: LoraTask,
    /// Entries of the vocabulary, where the adapter's files hold an embedding or output head of another size than the model's.
    pub vocab_size: Option<i64>,
}

/// Layers that an adapter changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoraTargets {
    /// Every linear layer but the output head.
    AllLinear,
    /// Linear layers, the embedding and the output head of these names: the last part, as in `q_proj`, or more of it, as in
    /// `3.self_attn.q_proj`.
    Named(Vec<String>),
    /// Those whose whole names this regular expression of Python matches.
    Pattern(String),
}

simplemix_settings::choice! {
    /// Biases that an adapter trains beside its matrices.
    pub enum LoraBias {
        /// None.
        None = "none";
        /// Every bias of the model.
        All = "all";
        /// Those of the layers that are changed.
        Only = "lora_only";
    }
}

/// Model that an adapter is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoraTask {
    /// A language model.
    CausalLm,
    /// A reward model, whose score is trained whole.
    SeqCls,
}

impl Default for LoraConfig {
    /// Rank 16, alpha 32, every linear layer, no dropout.
    fn default() -> Self {
        Self {
            rank: 16,
            alpha: 32.0,
            dropout: 0.0,
            targets: LoraTargets::AllLinear,
            parameters: Vec::new(),
            exclude: ModuleNames::Named(Vec::new()),
            rank_pattern: Vec::new(),
            alpha_pattern: Vec::new(),
            layers: Vec::new(),
            layers_pattern: Vec::new(),
            modules_to_save: Vec::new(),
            bias: LoraBias::None,
            rslora: false,
            dora: false,
            tie: false,
            task: LoraTask::CausalLm,
            vocab_size: None,
        }
    }
}

impl LoraConfig {
    /// Reads the settings of a peft adapter's folder, without its weights.
    ///
    /// # Errors
    /// [`Error::NotAModel`] for a folder without an adapter, [`Error::Config`] for settings that are not computed,
    /// [`Error::Safetensors`] for a damaged file of weights.
    pub fn from_folder(folder: &Path) -> Result<Self> {
        not_a_model::check_adapter(folder)?;
        let path = folder.join(ADAPTER_CONFIG);
        let config = Self::from_json(&simplemix_files::read_to_string(&path).at(&path, "read")?, &path)?;
        Ok(Self { vocab_size: super::embeddings::stored_vocabulary(folder)?, ..config })
    }

    /// `model` with the vocabulary of the adapter's own embeddings, if it has some.
    #[must_use]
    pub fn resized(&self, model: &ModelConfig) -> ModelConfig {
        let mut model = model.clone();
        if let Some(entries) = self.vocab_size {
            model.resize_vocabulary(entries);
        }
        model
    }

    /// Tensors of an adapter of `model` that are trained, under peft's names, with their shapes.
    ///
    /// # Errors
    /// [`Error::Input`] for a setting out of range, or where nothing of the model is changed.
    ///
    /// # Examples
    /// ```
    /// use simplemix_model::{LoraConfig, tiny};
    ///
    /// let tensors = LoraConfig { rank: 4, ..LoraConfig::default() }.tensors(&tiny::config())?;
    /// assert_eq!(tensors[0], ("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight".to_owned(), vec![4, 64]));
    /// # Ok::<(), simplemix_model::Error>(())
    /// ```
    pub fn tensors(&self, model: &ModelConfig) -> Result<Vec<(String, Vec<i64>)>> {
        let parts = self.parts(model)?;
        let mut all: Vec<(String, Vec<i64>)> =
            parts.targets.iter().flat_map(|target| target.tensors(self.dora)).collect();
        all.extend(parts.saved.into_iter().map(|saved| (saved.file, saved.shape)));
        Ok(all)
    }

    /// Tensors of `model` that the adapter trains whole: peft's name, and the model's. They have the model's element type; the
    /// adapter's others are f32.
    ///
    /// # Errors
    /// As [`LoraConfig::tensors`].
    pub fn whole_tensors(&self, model: &ModelConfig) -> Result<Vec<(String, String)>> {
        Ok(self.parts(model)?.saved.into_iter().map(|saved| (saved.file, saved.tensor)).collect())
    }

    /// Refuses an adapter for another kind of model.
    ///
    /// # Errors
    /// [`Error::Input`].
    pub fn check_task(&self, task: LoraTask) -> Result<()> {
        if self.task == task {
            return Ok(());
        }
        let words = |task| match task {
            LoraTask::CausalLm => "`CAUSAL_LM`",
            LoraTask::SeqCls => "`SEQ_CLS`",
        };
        let expected = format!("{}, for this kind of model", words(task));
        refused("`task_type` of an adapter", words(self.task).to_owned(), &expected)
    }

    /// Whether matrices are trained beside the output head of `model`.
    ///
    /// # Errors
    /// As [`LoraConfig::tensors`].
    pub fn adapts_head(&self, model: &ModelConfig) -> Result<bool> {
        Ok(self.parts(model)?.targets.iter().any(|target| target.place == Place::Head))
    }

    /// Whether the output head of `model` takes gradients: it is trained whole, or has matrices beside it.
    ///
    /// # Errors
    /// As [`LoraConfig::tensors`].
    pub fn trains_head(&self, model: &ModelConfig) -> Result<bool> {
        let (parts, head) = (self.parts(model)?, model.own_head_name());
        let is_whole = parts.has_tied_head || parts.saved.iter().any(|saved| saved.tensor == head);
        Ok(is_whole || parts.targets.iter().any(|target| target.place == Place::Head))
    }

    /// Whether a reward model's score and such are trained, or the matrices of a language model.
    pub(super) fn is_reward(&self) -> bool {
        self.task == LoraTask::SeqCls
    }

    /// Names of the modules that are trained whole.
    pub(super) fn saved_names(&self) -> impl Iterator<Item = &str> {
        // peft adds these two for the task.
        let of_task: &[&str] = if self.is_reward() { &SCORES } else { &[] };
        let own = self.modules_to_save.iter().map(String::as_str);
        own.chain(of_task.iter().copied().filter(|name| !self.modules_to_save.iter().any(|own| own == name)))
    }

    /// Checks numbers and patterns.
    pub(super) fn check(&self) -> Result<()> {
        let ranks = self.rank_pattern.iter().map(|(_, rank)| *rank);
        if let Some(rank) = ranks.chain([self.rank]).find(|rank| !(1..=1 << 16).contains(rank)) {
            return refused("rank of an adapter", rank.to_string(), "a number from 1 to 65536");
        }
        let alphas = self.alpha_pattern.iter().map(|(_, alpha)| *alpha);
        if let Some(alpha) = alphas.chain([self.alpha]).find(|alpha| !alpha.is_finite()) {
            return refused("alpha of an adapter", alpha.to_string(), "a finite number");
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return refused("dropout of an adapter", self.dropout.to_string(), "a number from 0 to below 1");
        }
        if matches!(&self.targets, LoraTargets::Named(names) if names.is_empty() && self.parameters.is_empty()) {
            return refused("targets of an adapter", "none".to_owned(), "at least one");
        }
        if !matches!(self.targets, LoraTargets::Named(_)) && !self.layers.is_empty() {
            return refused("layers of an adapter", format!("{:?}", self.layers), "none, except with names of targets");
        }
        if self.layers.is_empty() && !self.layers_pattern.is_empty() {
            let found = format!("{:?}", self.layers_pattern);
            return refused("list of layers of an adapter", found, "none, except with numbers of layers");
        }
        match self.pattern_problem() {
            Some((_, pattern, reason)) => {
                let found = format!("`{pattern}`, with {reason}");
                refused("pattern of an adapter", found, "a regular expression that can be followed, or names")
            }
            None => Ok(()),
        }
    }

    /// The first pattern that cannot be followed: peft's key, the pattern, and what is wrong with it.
    pub(super) fn pattern_problem(&self) -> Option<(&'static str, String, String)> {
        let whole = |pattern: &str| ModuleNames::Pattern(pattern.to_owned()).matcher().err();
        let mut problems: Vec<(&'static str, &str, Option<String>)> = Vec::new();
        if let LoraTargets::Pattern(pattern) = &self.targets {
            problems.push(("target_modules", pattern, whole(pattern)));
        }
        if let ModuleNames::Pattern(pattern) = &self.exclude {
            problems.push(("exclude_modules", pattern, whole(pattern)));
        }
        let ranks = self.rank_pattern.iter().map(|(key, _)| ("rank_pattern", key));
        let alphas = self.alpha_pattern.iter().map(|(key, _)| ("alpha_pattern", key));
        problems
            .extend(ranks.chain(alphas).map(|(key, pattern)| (key, pattern.as_str(), matching::ending(pattern).err())));
        let lists = self.layers_pattern.iter();
        problems.extend(lists.map(|list| ("layers_pattern", list.as_str(), matching::layer_index(Some(list)).err())));
        let saved = self.modules_to_save.iter();
        problems.extend(saved.map(|name| ("modules_to_save", name.as_str(), matching::within(name).err())));
        problems.into_iter().find_map(|(key, pattern, problem)| Some((key, pattern.to_owned(), problem?)))
    }

    /// Factor of the product of the two matrices.
    pub(super) fn scale(&self, rank: i64, alpha: f64) -> f64 {
        alpha / if self.rslora { (rank as f64).sqrt() } else { rank as f64 }
    }
}

/// Modules that peft trains whole in every reward model that has them.
pub(super) const SCORES: [&str; 2] = ["classifier", "score"];

pub(super) fn refused<T>(what: &'static str, found: String, expected: &str) -> Result<T> {
    Err(Error::Input { what, found, expected: expected.to_owned() })
}
