//! The model itself: names, row order, configuration, and the folder that is written.

use std::cell::RefCell;
use std::fmt;
use std::io::{self, Write};
use std::path::Path;

use safetensors::tensor::Dtype;
use serde_json::{Value as Json, json};
use simplemix_files::{AtomicFolder, create_dir_all};

use super::architecture::Architecture;
use super::error::{GgufError, Result};
use super::reader::{Gguf, Value};
use super::rope;
use super::settings::Shape;
use super::tensors::{Origin, Written, listed};
use super::tokenizer::{TokenIds, TokenizerFiles, rebuild};
use crate::config::ModelConfig;
use crate::safetensors_file::{self, Layout};
use crate::weights::WEIGHTS;

/// Result of an import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportReport {
    /// Tensors written.
    pub tensors: usize,
    /// Weights written.
    pub parameters: u64,
    /// Entries of the vocabulary.
    pub vocabulary: usize,
}

impl fmt::Display for ImportReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tensors, parameters, vocabulary } = self;
        write!(f, "{tensors} tensors, {parameters} weights in f32, {vocabulary} tokens")
    }
}

/// Turns the GGUF file `input` into the Hugging Face folder `output`, which appears whole or not at all.
///
/// `progress(done, total)` counts tensors. Memory stays near that of the largest tensor in f32.
///
/// # Errors
/// [`GgufError::Unsupported`] for a model, tensor type or tokenizer that is not read; [`GgufError::Damaged`] for a file
/// that is cut off; [`GgufError::Files`] if `output` exists or cannot be written.
pub fn import_gguf(input: &Path, output: &Path, progress: &mut dyn FnMut(usize, usize)) -> Result<ImportReport> {
    if output.exists() {
        return Err(simplemix_files::Error::Exists { path: output.to_owned() }.into());
    }
    let gguf = Gguf::open(input)?;
    refuse_parts(&gguf)?;
    let architecture = Architecture::of(&gguf)?;
    let config = configuration(&gguf, architecture)?;
    let ids = TokenIds::of(&gguf)?;
    let tokenizer = rebuild(&gguf, ids, config.max_position_embeddings as u64)?;
    let tensors = listed(&gguf, architecture, &config)?;

    if let Some(parent) = output.parent() {
        create_dir_all(parent)?;
    }
    let folder = AtomicFolder::create(output)?;
    write_json_files(&folder, &config, ids, &tokenizer)?;
    write_weights(&folder, &gguf, &tensors, progress)?;
    folder.commit_new()?;
    Ok(ImportReport {
        tensors: tensors.len(),
        parameters: config.parameters() as u64,
        vocabulary: config.vocab_size as usize,
    })
}

fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> GgufError {
    let path = path.to_owned();
    move |source| GgufError::Io { path, action, source }
}

/// The model's shape from the metadata, through the same checks as a `config.json`.
pub(super) fn configuration(gguf: &Gguf<'_>, of: &Architecture) -> Result<ModelConfig> {
    refuse_what_is_not_computed(gguf, of)?;
    let number = |key: &str| gguf.needed(&of.key(key));
    let (heads, layers) = (number("attention.head_count")?, number("block_count")?);
    let width = number("embedding_length")?;
    let vocabulary = gguf.list("tokenizer.ggml.tokens").map_or(0, <[_]>::len) as u64;
    let head_dim = gguf.unsigned(&of.key("attention.key_length")).unwrap_or(width / heads.max(1));
    for key in ["rope.dimension_count", "attention.value_length"] {
        let found = gguf.unsigned(&of.key(key)).filter(|found| *found != head_dim);
        if let Some(found) = found.filter(|_| !of.follows.contains(&key)) {
            return Err(gguf.unsupported(&of.key(key), found.to_string(), &format!("{head_dim}, the width of a head")));
        }
    }
    let theta = gguf.float(&of.key("rope.freq_base")).unwrap_or(10_000.0);
    let mut config = json!({
        "dtype": "float32",
        "hidden_act": "silu",
        "vocab_size": gguf.unsigned(&of.key("vocab_size")).unwrap_or(vocabulary),
        "hidden_size": width,
        "intermediate_size": number("feed_forward_length")?,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": gguf.unsigned(&of.key("attention.head_count_kv")).unwrap_or(heads),
        "head_dim": head_dim,
        "rms_norm_eps": gguf.float(&of.key("attention.layer_norm_rms_epsilon")).unwrap_or(1e-5),
        "rope_theta": theta,
        "rope_parameters": { "rope_theta": theta, "rope_type": "default" },
        "rope_scaling": null,
        "tie_word_embeddings": !gguf.tensors.contains_key("output.weight"),
        "max_position_embeddings": number("context_length")?,
    });
    rope::set(gguf, of, head_dim, &mut config)?;
    of.complete(gguf, &Shape { layers, heads, width, head_dim }, &mut config)?;
    let checked = ModelConfig::from_json(&config.to_string(), gguf.path);
    checked.map_err(|e| gguf.unsupported(&of.key("*"), e.to_string(), "a model of this architecture"))
}

/// Refuses one of the parts that a model was split into.
fn refuse_parts(gguf: &Gguf<'_>) -> Result<()> {
    match gguf.unsigned("split.count") {
        Some(count) if count > 1 => {
            let part =
                gguf.unsigned("split.no").map_or(String::new(), |number| format!(", and this is part {}", number + 1));
            let expected = "a whole model: join its parts with `llama-gguf-split --merge FIRST_PART WHOLE.gguf`";
            Err(gguf.unsupported("split.count", format!("{count}{part}"), expected))
        }
        _ => Ok(()),
    }
}

/// Refuses metadata that change the numbers, unless their value is the one that changes nothing or the family follows them.
fn refuse_what_is_not_computed(gguf: &Gguf<'_>, of: &Architecture) -> Result<()> {
    const NEUTRAL: &[(&str, f64)] = &[
        ("expert_count", 0.0),
        ("attention.sliding_window", 0.0),
        ("attention.clamp_kqv", 0.0),
        ("attention.max_alibi_bias", 0.0),
        ("attention.scale", 0.0),
        ("attn_logit_softcapping", 0.0),
        ("final_logit_softcapping", 0.0),
        ("logit_scale", 1.0),
        ("embedding_scale", 1.0),
        ("residual_scale", 1.0),
        ("rope.scaling.attn_factor", 1.0),
        ("attention.temperature_scale", 0.0),
        ("nextn_predict_layers", 0.0),
    ];
    for (key, neutral) in NEUTRAL.iter().filter(|(key, _)| !of.follows.contains(key)) {
        let key = of.key(key);
        if let Some(found) = gguf.float(&key).filter(|found| found != neutral) {
            return Err(gguf.unsupported(&key, found.to_string(), &format!("none, or {neutral}")));
        }
    }
    let flags = [("attention.causal", true), ("use_parallel_residual", false)];
    for (key, neutral) in flags.into_iter().filter(|(key, _)| !of.follows.contains(key)) {
        let key = of.key(key);
        if gguf.flag(&key).is_some_and(|found| found != neutral) {
            return Err(gguf.unsupported(&key, (!neutral).to_string(), &format!("`{neutral}`")));
        }
    }
    let sections = of.key("rope.dimension_sections");
    let is_zero = |section: &Value| matches!(section, Value::Unsigned(0) | Value::Signed(0));
    if gguf.list(&sections).is_some_and(|found| !found.iter().all(is_zero)) {
        return Err(gguf.unsupported(
            &sections,
            "a list of widths".to_owned(),
            "none: positions of images are not computed",
        ));
    }
    let (local, base) = (of.key("rope.freq_base_swa"), gguf.float(&of.key("rope.freq_base")).unwrap_or(10_000.0));
    match gguf.float(&local).filter(|found| *found != base && !of.follows.contains(&"rope.freq_base_swa")) {
        Some(found) => Err(gguf.unsupported(&local, found.to_string(), &format!("none, or {base}"))),
        None => Ok(()),
    }
}

fn write_json_files(
    folder: &AtomicFolder,
    config: &ModelConfig,
    ids: TokenIds,
    tokenizer: &TokenizerFiles,
) -> Result<()> {
    let ends = ids.eos.into_iter().chain(ids.eot.filter(|eot| Some(*eot) != ids.eos));
    let ends: Vec<u64> = ends.collect();
    let json = |name: &str, value: &Json| folder.write(name, format!("{value:#}\n"));
    let named_ids = [("bos_token_id", ids.bos), ("eos_token_id", ids.eos), ("pad_token_id", ids.pad)];
    let mut settings = config.to_json();
    let mut generation = json!({});
    for (name, id) in named_ids {
        // Null where there is none, since classes have defaults that may be no token of this vocabulary.
        settings[name] = json!(id);
        if let Some(id) = id {
            generation[name] = json!(id);
        }
    }
    if ends.len() > 1 {
        generation["eos_token_id"] = json!(ends);
    }
    json("config.json", &settings)?;
    json("generation_config.json", &generation)?;
    json("tokenizer.json", &tokenizer.tokenizer)?;
    json("tokenizer_config.json", &tokenizer.config)?;
    json("special_tokens_map.json", &tokenizer.special_tokens)?;
    if let Some(template) = &tokenizer.chat_template {
        folder.write("chat_template.jinja", template)?;
    }
    Ok(())
}

fn write_weights(
    folder: &AtomicFolder,
    gguf: &Gguf<'_>,
    tensors: &[Written<'_>],
    progress: &mut dyn FnMut(usize, usize),
) -> Result<()> {
    let total = tensors.len();
    let (counted, failed) = (RefCell::new((0, progress)), RefCell::new(None));
    let views = tensors.iter().map(|tensor| {
        let written = || {
            let (done, progress) = &mut *counted.borrow_mut();
            *done += 1;
            progress(*done, total);
        };
        (tensor.name.as_str(), Dequantised { gguf, tensor, failed: &failed, written })
    });
    let mut file = folder.create_file(WEIGHTS)?;
    let path = file.path().to_owned();
    let written = safetensors_file::write(&mut file, views.collect(), Dequantised::put);
    failed.take().map_or(Ok(()), Err)?;
    written.map_err(io(&path, "write"))
}

/// A tensor that is dequantised while it is written.
struct Dequantised<'a, F> {
    gguf: &'a Gguf<'a>,
    tensor: &'a Written<'a>,
    /// Why the tensor could not be read.
    failed: &'a RefCell<Option<GgufError>>,
    written: F,
}

impl<F> Layout for Dequantised<'_, F> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.tensor.shape
    }

    fn bytes(&self) -> usize {
        self.tensor.shape.iter().product::<usize>() * 4
    }
}

impl<F: Fn()> Dequantised<'_, F> {
    fn put(&self, to: &mut dyn Write) -> io::Result<()> {
        let Written { origin, shape, offset, .. } = self.tensor;
        let weights = match origin {
            Origin::Number(number) => vec![*number],
            Origin::Tensor(info, first, rows) => {
                let bytes = self.gguf.bytes(info).map_err(|error| {
                    self.failed.borrow_mut().get_or_insert(error);
                    io::Error::other("a tensor that cannot be read")
                })?;
                let mut weights = info.quant.dequantise(&bytes);
                let row: usize = shape.iter().skip(1).product();
                weights.drain(..first * row);
                weights.truncate(shape.iter().product());
                rows.back(weights, shape)
            }
        };
        (self.written)();
        let shifted = |weight: &f32| if *offset == 0.0 { *weight } else { weight + offset };
        weights.iter().try_for_each(|weight| to.write_all(&shifted(weight).to_le_bytes()))
    }
}
