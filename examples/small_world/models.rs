//! Models of the world: sizes, and pre-training on corpora of [`crate::language`].

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};
use simplemix::data::{Pair, PairTokenizer, Policy, Text, TokenizeOptions};
use simplemix::files;
use simplemix::model::{CausalLm, ModelConfig};
use simplemix::settings::OrAuto;
use simplemix::tch::{Device, Kind};
use simplemix::train::{Objective, Resume, Run, Schedule, TrainConfig};

use crate::language::{CHARACTERS, OPEN, REASONING, Use, Writer, prompt};
use crate::silent::Silent;

/// Longest prompt and answer together.
const MAX_LENGTH: usize = 48;

/// Size of the models, and of all that is done with them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Size {
    pub(crate) name: &'static str,
    hidden: u64,
    intermediate: u64,
    layers: u64,
    heads: u64,
    /// Sequences of a pre-training update.
    batch: usize,
    /// Updates of pre-training of a base, of an early base, and of a writer of off-policy pairs.
    steps: usize,
    early_steps: usize,
    writer_steps: usize,
    /// Held-out prompts a task, in the comparison and in tuning.
    pub(crate) held_out: [usize; 2],
    /// Samples a held-out prompt.
    pub(crate) samples: usize,
    /// Prompts that pairs are sought for at a time.
    pub(crate) chunk: usize,
    /// Chunks after which a task may have fewer pairs than asked for.
    pub(crate) chunks: usize,
    /// Whether too few pairs are an error.
    pub(crate) is_strict: bool,
}

/// 1.07 million weights.
pub(crate) const ONE: Size = Size {
    name: "1m",
    hidden: 128,
    intermediate: 384,
    layers: 5,
    heads: 4,
    batch: 128,
    steps: 1000,
    early_steps: 500,
    writer_steps: 1400,
    held_out: [256, 160],
    samples: 8,
    chunk: 400,
    chunks: 40,
    is_strict: true,
};

/// 5.12 million weights.
pub(crate) const FIVE: Size =
    Size { name: "5m", hidden: 256, intermediate: 768, layers: 6, heads: 8, steps: 700, writer_steps: 1000, ..ONE };

/// A few thousand weights, for a test in seconds.
pub(crate) const SMOKE: Size = Size {
    name: "smoke",
    hidden: 16,
    intermediate: 32,
    layers: 1,
    heads: 2,
    batch: 8,
    steps: 3,
    early_steps: 2,
    writer_steps: 4,
    held_out: [4, 4],
    samples: 2,
    chunk: 16,
    chunks: 4,
    is_strict: false,
};

pub(crate) fn size(name: &str) -> Result<Size> {
    let known = [ONE, FIVE, SMOKE];
    let found = known.into_iter().find(|size| size.name == name);
    found.with_context(|| format!("size is `{name}`, expected 1m, 5m or smoke"))
}

/// The policies' corpus: three styles, many errors, few foreign letters.
const POLICY: Writer = Writer { styles: [0.45, 0.5, 0.05], error: 0.12, quality: (0.1, 0.7), foreign: 0.05 };
/// Corpus of the stronger writer of off-policy pairs: right, in the style that the policies seldom use.
const STRONG: Writer = Writer { styles: [0.05, 0.05, 0.9], error: 0.01, quality: (0.75, 1.0), foreign: 0.35 };
/// Corpus of another writer, no better than the policies and not like them.
const OTHER: Writer = Writer { styles: [0.2, 0.2, 0.6], error: 0.15, quality: (0.3, 0.7), foreign: 0.2 };
/// Both writers in the policies' styles and letters.
const STRONG_NEAR: Writer = Writer { error: 0.01, quality: (0.75, 1.0), ..POLICY };
const OTHER_NEAR: Writer = POLICY;

/// A pre-trained model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Model {
    /// A base of the policies; base 0 is for tuning alone.
    Base(u64),
    /// A base that was pre-trained for half as long.
    Early(u64),
    /// The writers of off-policy pairs.
    Strong,
    Other,
    StrongNear,
    OtherNear,
}

impl Model {
    pub(crate) fn name(self) -> String {
        match self {
            Self::Base(number) => format!("base-{number}"),
            Self::Early(number) => format!("early-{number}"),
            Self::Strong => "strong".into(),
            Self::Other => "other".into(),
            Self::StrongNear => "strong-near".into(),
            Self::OtherNear => "other-near".into(),
        }
    }

    /// Corpus, random seed, updates.
    fn recipe(self, size: &Size) -> (Writer, u64, usize) {
        match self {
            Self::Base(number) => (POLICY, number, size.steps),
            Self::Early(number) => (POLICY, number, size.early_steps),
            Self::Strong => (STRONG, 1001, size.writer_steps),
            Self::Other => (OTHER, 1002, size.steps),
            Self::StrongNear => (STRONG_NEAR, 1003, size.writer_steps),
            Self::OtherNear => (OTHER_NEAR, 1004, size.steps),
        }
    }

    pub(crate) fn folder(self, size: &Size, work: &Path) -> PathBuf {
        work.join("models").join(size.name).join(self.name())
    }
}

/// Tokenizer of a model's folder.
pub(crate) fn tokenizer(folder: &Path) -> Result<PairTokenizer> {
    let options = TokenizeOptions { max_length: MAX_LENGTH, ..TokenizeOptions::default() };
    Ok(PairTokenizer::from_dir(folder, options)?)
}

pub(crate) fn load(folder: &Path) -> Result<CausalLm> {
    Ok(CausalLm::load(folder, Kind::Float, Device::Cpu)?)
}

/// Settings that all training here shares.
pub(crate) fn settings() -> TrainConfig {
    let mut config = TrainConfig::default();
    config.tokens.cache = false;
    config.tokens.max_length = MAX_LENGTH;
    config.log.token_metrics = false;
    config.log.tensorboard = false;
    config.batch.micro_batch_tokens = OrAuto::Value(4096);
    config
}

/// Pre-trains a model, unless its folder is there.
pub(crate) fn pretrain(model: Model, size: &Size, work: &Path) -> Result<()> {
    let folder = model.folder(size, work);
    if folder.is_dir() {
        return Ok(());
    }
    let (writer, seed, steps) = model.recipe(size);
    let scratch = tempfile::tempdir()?;
    let start = scratch.path().join("start");
    write_random(size, seed, &start)?;
    let mut config = settings();
    config.objective = Objective::Sft;
    config.model = Some(start.clone());
    config.output = Some(scratch.path().join("run"));
    config.seed = seed;
    config.batch.batch_size = size.batch;
    config.optimizer.learning_rate = 2e-3;
    config.optimizer.schedule = Schedule::Cosine;
    config.optimizer.min_rate_ratio = 0.1;
    config.optimizer.warmup_ratio = 0.05;
    config.optimizer.weight_decay = 0.01;
    let pairs = corpus(&writer, seed, steps * size.batch);
    let finished = Run::with_pairs(config, &start, &pairs, &[])?.start(Resume::No, &mut Silent)?;
    if let Some(parent) = folder.parent() {
        files::create_dir_all(parent)?;
    }
    let beside = folder.with_extension("unfinished");
    if beside.is_dir() {
        fs::remove_dir_all(&beside).with_context(|| format!("{}: cannot remove", beside.display()))?;
    }
    copy(&finished.folder.model(), &beside)?;
    fs::rename(&beside, &folder).with_context(|| format!("{}: cannot rename", beside.display()))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    files::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("{}: cannot read", from.display()))? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))
            .with_context(|| format!("{}: cannot copy", entry.path().display()))?;
    }
    Ok(())
}

/// Answers of a writer to random prompts, six in ten of them reasoning. Only the chosen side is trained on.
fn corpus(writer: &Writer, seed: u64, rows: usize) -> Vec<Pair> {
    let mut rng = ChaCha8Rng::seed_from_u64(0x5eed ^ seed);
    let row = |_| {
        let task = if rng.random_bool(0.6) { REASONING } else { OPEN };
        let prompt = prompt(task, Use::Pretraining, &mut rng);
        let answer = writer.answer(&prompt, &mut rng);
        Pair::new(Text::Plain(prompt), Text::Plain(answer), Text::Plain("?".into()), "corpus", Policy::Off)
    };
    (0..rows).map(row).collect()
}

/// A model with random weights, and its tokenizer.
fn write_random(size: &Size, seed: u64, folder: &Path) -> Result<()> {
    let eos = CHARACTERS.len();
    if !size.hidden.is_multiple_of(size.heads) {
        bail!("size {}: {} is no multiple of {} heads", size.name, size.hidden, size.heads);
    }
    let config = json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": eos + 1,
        "hidden_size": size.hidden,
        "intermediate_size": size.intermediate,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.heads,
        "head_dim": size.hidden / size.heads,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        "attention_bias": false,
        "mlp_bias": false,
        "tie_word_embeddings": true,
        "max_position_embeddings": 64,
        "torch_dtype": "float32",
        "bos_token_id": eos,
        "eos_token_id": eos,
        "pad_token_id": eos,
    });
    let beside = tempfile::tempdir()?;
    let write = |name: &str, value: &Value| files::write(beside.path().join(name), format!("{value:#}\n"));
    write("config.json", &config)?;
    write("generation_config.json", &json!({ "eos_token_id": eos, "pad_token_id": eos }))?;
    write(
        "tokenizer_config.json",
        &json!({ "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<end>", "pad_token": "<end>" }),
    )?;
    write("tokenizer.json", &character_tokenizer(eos))?;
    let path = beside.path().join("config.json");
    let config = ModelConfig::from_json(&config.to_string(), &path)?;
    Ok(CausalLm::random(config, seed, Device::Cpu)?.save(folder, Some(beside.path()))?)
}

/// A token for each character, by BPE without a merge.
fn character_tokenizer(eos: usize) -> Value {
    let vocab: Map<String, Value> =
        CHARACTERS.chars().enumerate().map(|(id, character)| (character.to_string(), json!(id))).collect();
    let bytes = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false });
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [{ "id": eos, "content": "<end>", "single_word": false, "lstrip": false, "rstrip": false,
                           "normalized": false, "special": true }],
        "normalizer": null,
        "pre_tokenizer": bytes,
        "post_processor": null,
        "decoder": bytes,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": [],
        },
    })
}
