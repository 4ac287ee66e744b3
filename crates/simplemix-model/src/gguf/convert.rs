//! The model itself: names, row order, configuration, and the folder that is written.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, Write};
use std::path::Path;

use safetensors::tensor::Dtype;
use serde_json::{Value as Json, json};
use simplemix_files::{AtomicFolder, create_dir_all};

use super::error::{GgufError, Result};
use super::reader::{Gguf, TensorInfo};
use super::tokenizer::{TokenIds, TokenizerFiles, rebuild};
use crate::config::{ModelConfig, llama_json};
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
    let config = configuration(&gguf)?;
    let ids = TokenIds::of(&gguf)?;
    let tokenizer = rebuild(&gguf, ids)?;
    let tensors = named_tensors(&gguf, &config)?;

    if let Some(parent) = output.parent() {
        create_dir_all(parent)?;
    }
    let folder = AtomicFolder::create(output)?;
    write_json_files(&folder, &config, ids, &tokenizer)?;
    write_weights(&folder, &gguf, &config, &tensors, progress)?;
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
fn configuration(gguf: &Gguf<'_>) -> Result<ModelConfig> {
    let architecture = gguf.text("general.architecture").unwrap_or("absent");
    if architecture != "llama" {
        return Err(gguf.unsupported("general.architecture", format!("`{architecture}`"), "`llama`"));
    }
    refuse_what_is_not_computed(gguf)?;
    let number = |key: &str| gguf.needed(&format!("llama.{key}"));
    let heads = number("attention.head_count")?;
    let width = number("embedding_length")?;
    let vocabulary = gguf.list("tokenizer.ggml.tokens").map_or(0, <[_]>::len) as u64;
    let head_dim = gguf.unsigned("llama.attention.key_length").unwrap_or(width / heads.max(1));
    for key in ["llama.rope.dimension_count", "llama.attention.value_length"] {
        if let Some(found) = gguf.unsigned(key).filter(|found| *found != head_dim) {
            return Err(gguf.unsupported(key, found.to_string(), &format!("{head_dim}, the width of a head")));
        }
    }
    let theta = gguf.float("llama.rope.freq_base").unwrap_or(10_000.0);
    let mut config = llama_json(&json!({
        "vocab_size": gguf.unsigned("llama.vocab_size").unwrap_or(vocabulary),
        "hidden_size": width,
        "intermediate_size": number("feed_forward_length")?,
        "num_hidden_layers": number("block_count")?,
        "num_attention_heads": heads,
        "num_key_value_heads": gguf.unsigned("llama.attention.head_count_kv").unwrap_or(heads),
        "head_dim": head_dim,
        "rms_norm_eps": gguf.float("llama.attention.layer_norm_rms_epsilon").unwrap_or(1e-5),
        "rope_theta": theta,
        "tie_word_embeddings": !gguf.tensors.contains_key("output.weight"),
        "max_position_embeddings": number("context_length")?,
    }));
    if let Some(factor) = linear_factor(gguf)? {
        // For transformers 4, and for transformers 5.
        config["rope_scaling"] = json!({ "type": "linear", "factor": factor });
        config["rope_parameters"]["rope_type"] = "linear".into();
        config["rope_parameters"]["factor"] = factor.into();
    }
    let checked = ModelConfig::from_json(&config.to_string(), gguf.path);
    checked.map_err(|e| gguf.unsupported("llama.*", e.to_string(), "a model of the Llama family"))
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

/// Refuses metadata that change the numbers, unless their value is the one that changes nothing.
fn refuse_what_is_not_computed(gguf: &Gguf<'_>) -> Result<()> {
    const NEUTRAL: &[(&str, f64)] = &[
        ("llama.expert_count", 0.0),
        ("llama.attention.sliding_window", 0.0),
        ("llama.attention.clamp_kqv", 0.0),
        ("llama.attention.max_alibi_bias", 0.0),
        ("llama.attention.scale", 0.0),
        ("llama.logit_scale", 1.0),
        ("llama.embedding_scale", 1.0),
        ("llama.residual_scale", 1.0),
        ("llama.rope.scaling.attn_factor", 1.0),
    ];
    for (key, neutral) in NEUTRAL {
        if let Some(found) = gguf.float(key).filter(|found| found != neutral) {
            return Err(gguf.unsupported(key, found.to_string(), &format!("none, or {neutral}")));
        }
    }
    for (key, neutral) in [("llama.attention.causal", true), ("llama.use_parallel_residual", false)] {
        if gguf.flag(key).is_some_and(|found| found != neutral) {
            return Err(gguf.unsupported(key, (!neutral).to_string(), &format!("`{neutral}`")));
        }
    }
    Ok(())
}

/// Divisor of rotary frequencies under its newer key or its older one; llama.cpp scales linearly where no rule is named.
fn linear_factor(gguf: &Gguf<'_>) -> Result<Option<f64>> {
    const RULE: &str = "llama.rope.scaling.type";
    match gguf.text(RULE) {
        None | Some("linear") => {}
        Some("none") => return Ok(None),
        Some(other) => return Err(gguf.unsupported(RULE, format!("`{other}`"), "`none` or `linear`")),
    }
    for key in ["llama.rope.scaling.factor", "llama.rope.scale_linear"] {
        match gguf.float(key) {
            None | Some(0.0) => {}
            Some(factor) if factor.is_finite() && factor > 0.0 => {
                return Ok(Some(factor).filter(|factor| *factor != 1.0));
            }
            Some(factor) => return Err(gguf.unsupported(key, factor.to_string(), "a number above 0")),
        }
    }
    Ok(None)
}

/// The checkpoint's tensors under their names there, each with its place in the file.
fn named_tensors<'a>(gguf: &'a Gguf<'_>, config: &ModelConfig) -> Result<Vec<(String, Vec<i64>, &'a TensorInfo)>> {
    let (mut problems, mut named) = (Vec::new(), Vec::new());
    let mut left: BTreeSet<&str> = gguf.tensors.keys().map(String::as_str).collect();
    for (name, shape) in config.tensors() {
        let source = gguf_name(&name);
        left.remove(source.as_str());
        match gguf.tensors.get(&source) {
            Some(info) if info.dimensions.iter().rev().map(|&d| d as i64).eq(shape.iter().copied()) => {
                named.push((name, shape, info));
            }
            Some(info) => {
                problems.push(format!("`{source}` is {:?}, expected {shape:?} in reverse", info.dimensions));
            }
            None => problems.push(format!("`{source}` is missing")),
        }
    }
    problems.extend(left.iter().map(|name| format!("`{name}` is not part of the model")));
    if problems.is_empty() {
        return Ok(named);
    }
    problems.truncate(12);
    Err(GgufError::Tensors { path: gguf.path.to_owned(), problems: problems.join("; ") })
}

/// llama.cpp's name of a checkpoint's tensor.
fn gguf_name(name: &str) -> String {
    const PARTS: &[(&str, &str)] = &[
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
    ];
    match name {
        "model.embed_tokens.weight" => return "token_embd.weight".to_owned(),
        "model.norm.weight" => return "output_norm.weight".to_owned(),
        "lm_head.weight" => return "output.weight".to_owned(),
        _ => {}
    }
    let inner = name.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.'));
    let part = inner.and_then(|(layer, rest)| {
        let (theirs, ours) = PARTS.iter().find(|(theirs, _)| rest.starts_with(theirs))?;
        Some(format!("blk.{layer}.{ours}{}", &rest[theirs.len()..]))
    });
    part.unwrap_or_else(|| name.to_owned())
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
    for (name, id) in named_ids.into_iter().filter_map(|(name, id)| id.map(|id| (name, id))) {
        settings[name] = json!(id);
        generation[name] = json!(id);
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
    config: &ModelConfig,
    tensors: &[(String, Vec<i64>, &TensorInfo)],
    progress: &mut dyn FnMut(usize, usize),
) -> Result<()> {
    let total = tensors.len();
    let (counted, failed) = (RefCell::new((0, progress)), RefCell::new(None));
    let views = tensors.iter().map(|(name, shape, info)| {
        let heads = match name.rsplit('.').nth(1) {
            Some("q_proj") => Some(config.num_attention_heads as usize),
            Some("k_proj") => Some(config.num_key_value_heads as usize),
            _ => None,
        };
        let shape = shape.iter().map(|&n| n as usize).collect();
        let written = || {
            let (done, progress) = &mut *counted.borrow_mut();
            *done += 1;
            progress(*done, total);
        };
        (name.as_str(), Dequantised { gguf, info, shape, heads, failed: &failed, written })
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
    info: &'a TensorInfo,
    shape: Vec<usize>,
    /// Heads whose rows llama.cpp interleaved.
    heads: Option<usize>,
    /// Why the tensor could not be read.
    failed: &'a RefCell<Option<GgufError>>,
    written: F,
}

impl<F> Layout for Dequantised<'_, F> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * 4
    }
}

impl<F: Fn()> Dequantised<'_, F> {
    fn put(&self, to: &mut dyn Write) -> io::Result<()> {
        let bytes = self.gguf.bytes(self.info).map_err(|error| {
            self.failed.borrow_mut().get_or_insert(error);
            io::Error::other("a tensor that cannot be read")
        })?;
        let weights = self.info.quant.dequantise(&bytes);
        let weights = match self.heads {
            Some(heads) => deinterleaved(&weights, self.shape[0], heads),
            None => weights,
        };
        (self.written)();
        weights.iter().try_for_each(|weight| to.write_all(&weight.to_le_bytes()))
    }
}

/// Rows in the order (head, pair, half) back to (head, half, pair).
fn deinterleaved(weights: &[f32], rows: usize, heads: usize) -> Vec<f32> {
    let (width, half) = (weights.len() / rows, rows / heads / 2);
    let mut back = Vec::with_capacity(weights.len());
    for row in 0..rows {
        let (head, place) = (row / (2 * half), row % (2 * half));
        let (side, pair) = (place / half, place % half);
        let source = head * 2 * half + pair * 2 + side;
        back.extend_from_slice(&weights[source * width..(source + 1) * width]);
    }
    back
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_head_by_head() {
        // Two heads of four rows: stored as pairs (0, 2), (1, 3).
        let stored = [0., 2., 1., 3., 4., 6., 5., 7.];
        assert_eq!(deinterleaved(&stored, 8, 2), [0., 1., 2., 3., 4., 5., 6., 7.]);
    }

    #[test]
    fn names_are_those_of_llama_cpp() {
        assert_eq!(gguf_name("model.layers.12.mlp.down_proj.weight"), "blk.12.ffn_down.weight");
        assert_eq!(gguf_name("model.layers.0.post_attention_layernorm.weight"), "blk.0.ffn_norm.weight");
        assert_eq!(gguf_name("model.norm.weight"), "output_norm.weight");
    }
}
