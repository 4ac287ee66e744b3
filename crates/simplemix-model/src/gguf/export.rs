//! Hugging Face folders to GGUF files: the way back of the importer.
//!
//! Metadata are those that llama.cpp's converter writes for the architecture. Before a file gets its name its header is read as the
//! importer reads it, and must give the model's configuration and tokenizer again: what a file cannot say is refused by name.

use std::fmt;
use std::io::{BufWriter, Write};
use std::path::Path;

use serde_json::Value as Json;
use simplemix_files::{AtomicFile, create_dir_all};
use tch::Kind;

use super::architecture::{Architecture, WRITTEN};
use super::convert::configuration;
use super::error::{GgufError, Result};
use super::packing::{GgufType, packed};
use super::quant::Quant;
use super::reader::Gguf;
use super::rope::FREQUENCIES;
use super::tensors::rows;
use super::tokenizer::{TokenIds, rebuild};
use super::tokens::Source;
use super::writer::{self, Entry, Placed};
use crate::config::{ModelConfig, RopeScaling};
use crate::folder_weights::FolderWeights;

/// Result of an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportReport {
    /// llama.cpp's name of the architecture.
    pub architecture: &'static str,
    /// Tensors written.
    pub tensors: usize,
    /// Matrices that are f16 since their rows are no whole blocks of the type that was asked for.
    pub unpacked: usize,
    /// Weights written.
    pub parameters: u64,
    /// Entries of the vocabulary.
    pub vocabulary: usize,
    /// Bytes of the file.
    pub bytes: u64,
}

impl fmt::Display for ExportReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { architecture, tensors, unpacked, parameters, vocabulary, bytes } = self;
        write!(f, "{architecture}, {tensors} tensors, {parameters} weights, {vocabulary} tokens, {bytes} bytes")?;
        match unpacked {
            0 => Ok(()),
            count => write!(f, "; {count} matrices are f16, since their rows are no whole blocks of 32"),
        }
    }
}

type Metadata = Vec<(String, Entry)>;

/// Turns the Hugging Face folder `folder` into the GGUF file `output`, with matrices of type `kind`, which appears whole or not at all.
///
/// `progress(done, total)` counts tensors. One tensor is in memory at a time. Weights of a quantised checkpoint are dequantised first.
///
/// # Errors
/// [`GgufError::Unsupported`] for a family, setting or tokenizer that a file cannot say, [`GgufError::Model`] for a folder that cannot be
/// read, [`GgufError::Files`] if `output` exists or cannot be written.
///
/// # Examples
/// ```
/// use simplemix_model::gguf::{GgufType, export_gguf};
/// # let dir = tempfile::tempdir()?;
/// # let folder = dir.path().join("tiny");
/// # simplemix_model::tiny::write_folder(&folder, 1)?;
/// let report = export_gguf(&folder, &dir.path().join("tiny.gguf"), GgufType::F16, &mut |_, _| {})?;
/// assert_eq!(report.architecture, "llama");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn export_gguf(
    folder: &Path,
    output: &Path,
    kind: GgufType,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<ExportReport> {
    if output.exists() {
        return Err(simplemix_files::Error::Exists { path: output.to_owned() }.into());
    }
    let mut weights = FolderWeights::open(folder)?;
    let config = weights.config().clone();
    let of = architecture(folder, &config)?;
    let tokens = Source::read(folder)?;
    let own = match weights.kind()? {
        Kind::Half => Quant::F16,
        Kind::BFloat16 => Quant::Bf16,
        _ => Quant::F32,
    };
    let mut metadata = general(folder, of, &config, kind.file_type(own))?;
    metadata.extend(tokens.metadata(config.vocab_size as usize, &config.to_json())?);
    let divisors = divisors(&config);
    let (mut placed, mut names, mut unpacked) = (Vec::new(), Vec::new(), 0);
    for (name, shape) in config.own_tensors() {
        let width = shape.last().copied().unwrap_or(1) as usize;
        let quant = if shape.len() < 2 { Quant::F32 } else { kind.quant(width, own) };
        let is_packed = matches!(kind, GgufType::Q8_0 | GgufType::Q4_0);
        unpacked += usize::from(is_packed && shape.len() > 1 && quant == Quant::F16);
        let shape = shape.iter().map(|&n| n as u64).collect();
        placed.push(Placed { name: of.tensor(&name), shape, quant });
        names.push(name);
    }
    if let Some(divisors) = &divisors {
        placed.push(Placed { name: FREQUENCIES.to_owned(), shape: vec![divisors.len() as u64], quant: Quant::F32 });
    }
    if let Some(parent) = output.parent() {
        create_dir_all(parent)?;
    }
    let mut file = AtomicFile::create(output)?;
    let io = |source| GgufError::Io { path: output.to_owned(), action: "write", source };
    let header = writer::header(&metadata, &placed);
    let mut to = BufWriter::with_capacity(1 << 20, &mut file);
    to.write_all(&header).map_err(io)?;
    for (done, name) in names.iter().enumerate() {
        let (tensor, shape) = (&placed[done], &placed[done].shape);
        let shape: Vec<usize> = shape.iter().map(|&n| n as usize).collect();
        let mut numbers = weights.numbers(name)?;
        if of.adds_one_to_norms && name.ends_with("norm.weight") {
            numbers.iter_mut().for_each(|weight| *weight += 1.0);
        }
        let numbers = rows(of, &config, name).forth(&numbers, &shape);
        writer::put(&packed(tensor.quant, &numbers), &mut to).map_err(io)?;
        progress(done + 1, placed.len());
    }
    if let Some(divisors) = &divisors {
        writer::put(&packed(Quant::F32, divisors), &mut to).map_err(io)?;
        progress(placed.len(), placed.len());
    }
    to.flush().map_err(io)?;
    drop(to);
    check(folder, file.temporary_path(), of, &config, &tokens)?;
    let bytes = std::fs::metadata(file.temporary_path()).map_err(io)?.len();
    file.commit_new()?;
    Ok(ExportReport {
        architecture: of.name,
        tensors: placed.len(),
        unpacked,
        parameters: config.parameters() as u64,
        vocabulary: config.vocab_size as usize,
        bytes,
    })
}

fn refused(folder: &Path, key: &str, found: impl Into<String>, expected: impl Into<String>) -> GgufError {
    let path = folder.join("config.json");
    GgufError::Unsupported { path, key: key.to_owned(), found: found.into(), expected: expected.into() }
}

fn architecture(folder: &Path, config: &ModelConfig) -> Result<&'static Architecture> {
    Architecture::written(&config.model_type).filter(|_| config.part_of().is_none()).ok_or_else(|| {
        let known: Vec<String> = WRITTEN.iter().chain(&["mistral"]).map(|name| format!("`{name}`")).collect();
        let found = config.part_of().unwrap_or(&config.model_type);
        refused(folder, "model_type", format!("`{found}`"), format!("one of {}", known.join(", ")))
    })
}

/// Metadata of the model but for its tokenizer's.
fn general(folder: &Path, of: &Architecture, config: &ModelConfig, file_type: u32) -> Result<Metadata> {
    let mut all: Metadata = vec![
        ("general.architecture".to_owned(), Entry::Text(of.name.to_owned())),
        ("general.type".to_owned(), Entry::Text("model".to_owned())),
        ("general.name".to_owned(), Entry::Text(crate::model_name(folder))),
        ("general.file_type".to_owned(), Entry::U32(file_type)),
        ("general.quantization_version".to_owned(), Entry::U32(2)),
    ];
    let count = |key: &str, number: i64| {
        let number =
            u32::try_from(number).map_err(|_| refused(folder, key, number.to_string(), "a number of 32 bits"))?;
        Ok::<_, GgufError>((of.key(key), Entry::U32(number)))
    };
    for (key, number) in [
        ("vocab_size", config.vocab_size),
        ("context_length", config.max_position_embeddings),
        ("embedding_length", config.hidden_size),
        ("block_count", config.num_hidden_layers as i64),
        ("feed_forward_length", config.intermediate_size),
        ("attention.head_count", config.num_attention_heads),
        ("attention.head_count_kv", config.num_key_value_heads),
        ("attention.key_length", config.head_dim),
        ("attention.value_length", config.head_dim),
        ("rope.dimension_count", config.head_dim),
    ] {
        all.push(count(key, number)?);
    }
    let mut number = |key: &str, number: f64| all.push((of.key(key), Entry::F32(number as f32)));
    number("attention.layer_norm_rms_epsilon", config.rms_norm_eps);
    let json = config.to_json();
    match of.name {
        "granite" => {
            for (key, own) in [
                ("attention.scale", "attention_multiplier"),
                ("embedding_scale", "embedding_multiplier"),
                ("residual_scale", "residual_multiplier"),
                ("logit_scale", "logits_scaling"),
            ] {
                number(key, json[own].as_f64().unwrap_or(1.0));
            }
        }
        "gemma2" => {
            for (key, cap) in [
                ("attn_logit_softcapping", config.attention_soft_cap),
                ("final_logit_softcapping", config.logit_soft_cap),
            ] {
                if let Some(cap) = cap {
                    number(key, cap);
                }
            }
        }
        "gemma3" => {
            if let Some(cap) = config.logit_soft_cap {
                number("final_logit_softcapping", cap);
            }
        }
        _ => {}
    }
    // Layers with a window may rotate in a way of their own.
    let of_layer = |windowed: bool| {
        let layer = config.layers.iter().find(|layer| layer.window.is_some() == windowed && layer.rope.is_some());
        layer.and_then(|layer| config.ropes.get(layer.rope?))
    };
    let (full, windowed) = (of_layer(false).or_else(|| of_layer(true)), of_layer(true));
    if let Some(rope) = full {
        number("rope.freq_base", rope.theta);
    }
    if let (Some(rope), Some(full)) = (windowed, full)
        && (of.name == "gemma3" || rope.theta != full.theta)
    {
        number("rope.freq_base_swa", rope.theta);
    }
    if let Some(window) = config.layers.iter().find_map(|layer| layer.window) {
        all.push(count("attention.sliding_window", window)?);
        // One layer in so many has none; 0 for no such layer.
        let layers = || config.layers.iter().enumerate();
        let is_period = |period: &usize| {
            layers()
                .all(|(at, layer)| layer.window.is_some() == (at + 1).checked_rem(*period).is_none_or(|rest| rest != 0))
        };
        if of.name == "gemma3"
            && let Some(period) = (0..=config.layers.len()).find(is_period)
        {
            all.push(count("attention.sliding_window_pattern", period as i64)?);
        }
    }
    if let Some(scaling) = full.map(|rope| &rope.scaling) {
        add_scaling(folder, of, scaling, &mut all)?;
    }
    Ok(all)
}

/// Metadata of a rotary rule.
fn add_scaling(folder: &Path, of: &Architecture, scaling: &RopeScaling, all: &mut Metadata) -> Result<()> {
    let mut add = |key: &str, entry: Entry| all.push((of.key(&format!("rope.scaling.{key}")), entry));
    let number = |number: f64| Entry::F32(number as f32);
    match scaling {
        // Divisors of frequencies are a tensor.
        RopeScaling::Default | RopeScaling::Llama3 { .. } => Ok(()),
        RopeScaling::Linear { factor } => {
            add("type", Entry::Text("linear".to_owned()));
            add("factor", number(*factor));
            Ok(())
        }
        RopeScaling::Yarn { factor, beta_fast, beta_slow, original_max_position_embeddings: original, .. } => {
            add("type", Entry::Text("yarn".to_owned()));
            add("factor", number(*factor));
            add("original_context_length", Entry::U32(*original as u32));
            add("yarn_beta_fast", number(*beta_fast));
            add("yarn_beta_slow", number(*beta_slow));
            Ok(())
        }
        other => {
            let expected = "`default`, `linear`, `yarn` or `llama3`";
            Err(refused(folder, "rope_parameters.rope_type", format!("{other:?}"), expected))
        }
    }
}

/// Divisors of the frequencies of Llama 3.1's rule, which are a tensor of their own.
fn divisors(config: &ModelConfig) -> Option<Vec<f32>> {
    let rope = config.ropes.first()?;
    let RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings: original } =
        &rope.scaling
    else {
        return None;
    };
    let of_pair = |pair: i64| {
        let length = 2.0 * std::f64::consts::PI * rope.theta.powf(2.0 * pair as f64 / config.head_dim as f64);
        match length {
            _ if length < original / high_freq_factor => 1.0,
            _ if length > original / low_freq_factor => *factor,
            _ => {
                let smooth = (original / length - low_freq_factor) / (high_freq_factor - low_freq_factor);
                1.0 / ((1.0 - smooth) / factor + smooth)
            }
        }
    };
    Some((0..config.head_dim / 2).map(|pair| of_pair(pair) as f32).collect())
}

/// Reads the file's header again: configuration and tokenizer must be those of the folder.
fn check(folder: &Path, file: &Path, of: &Architecture, config: &ModelConfig, tokens: &Source<'_>) -> Result<()> {
    let gguf = Gguf::open(file)?;
    let unsaid = |error: GgufError| match error {
        GgufError::Unsupported { key, found, expected, .. } => refused(folder, &key, found, expected),
        other => other,
    };
    let again = configuration(&gguf, of).map_err(unsaid)?;
    if let Some((found, expected)) = difference(config, &again) {
        let key = found.split(':').next().unwrap_or_default().trim().to_owned();
        let expected = format!("`{}`, which is all that a file of `{}` can say", expected.trim(), of.name);
        return Err(refused(folder, &key, format!("`{}`", found.trim()), expected));
    }
    let made = rebuild(&gguf, TokenIds::of(&gguf)?, config.max_position_embeddings as u64).map_err(unsaid)?;
    tokens.check(&made.tokenizer)
}

/// The first line in which two configurations differ, apart from names and from the rounding of numbers to f32.
fn difference(own: &ModelConfig, again: &ModelConfig) -> Option<(String, String)> {
    let plain = |config: &ModelConfig| {
        let plain = ModelConfig {
            model_type: String::new(),
            pad_token_id: None,
            json: Json::Null,
            names: own.names,
            ..config.clone()
        };
        format!("{plain:#?}")
    };
    let (own, again) = (plain(own), plain(again));
    let number = |line: &str| {
        let number = line.trim().trim_end_matches(',').rsplit(": ").next()?.parse::<f64>().ok()?;
        Some((line.split(": ").next().map(str::to_owned), number))
    };
    let is_same = |a: &str, b: &str| {
        a == b
            || match (number(a), number(b)) {
                (Some((name, a)), Some((other, b))) => name == other && (a - b).abs() <= 1e-6 * a.abs().max(b.abs()),
                _ => false,
            }
    };
    let mut lines = own.lines().zip(again.lines());
    let found = lines.find(|(a, b)| !is_same(a, b)).map(|(a, b)| (a.to_owned(), b.to_owned()));
    let counts = (own.lines().count(), again.lines().count());
    found.or_else(|| (counts.0 != counts.1).then(|| (format!("{} lines", counts.0), format!("{} lines", counts.1))))
}
