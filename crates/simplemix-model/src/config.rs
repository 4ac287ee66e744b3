//! `config.json` of a Hugging Face folder, checked.
//!
//! Keys keep the file's names. A setting that would change the numbers and that this crate does not compute is
//! refused by name; keys that do not touch the forward pass are ignored, as transformers does.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::{At, Error, Result};

/// Shape and constants of a decoder, in Hugging Face's names.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelConfig {
    /// Entries of the vocabulary.
    pub vocab_size: i64,
    /// Width of the residual stream.
    pub hidden_size: i64,
    /// Width of the feed-forward layer.
    pub intermediate_size: i64,
    /// Decoder layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: i64,
    /// Key and value heads; divides `num_attention_heads`.
    pub num_key_value_heads: i64,
    /// Width of a head; even.
    pub head_dim: i64,
    /// Added to the mean square before its root is taken.
    pub rms_norm_eps: f64,
    /// How positions turn queries and keys.
    pub rope: RopeConfig,
    /// Whether the output head is the embedding matrix.
    pub tie_word_embeddings: bool,
    /// Whether the four attention projections have a bias.
    pub attention_bias: bool,
    /// Whether the three feed-forward projections have a bias.
    pub mlp_bias: bool,
    /// Longest sequence the model was made for, in tokens.
    pub max_position_embeddings: i64,
}

/// Rotary position embedding: base and scaling rule.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RopeConfig {
    /// Base of the geometric row of frequencies.
    pub theta: f64,
    /// How frequencies are stretched for contexts longer than in pre-training.
    pub scaling: RopeScaling,
}

/// Stretching rule of rotary frequencies.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub enum RopeScaling {
    /// Frequencies as they are.
    Default,
    /// Every frequency divided by one factor.
    Linear {
        /// The factor, above zero.
        factor: f64,
    },
    /// Llama 3.1's rule: low frequencies divided, high ones kept, those between interpolated.
    Llama3 {
        /// Divisor of low frequencies.
        factor: f64,
        /// Wavelengths above `original_max_position_embeddings / low_freq_factor` are divided.
        low_freq_factor: f64,
        /// Wavelengths below `original_max_position_embeddings / high_freq_factor` are kept.
        high_freq_factor: f64,
        /// Context of the pre-training, in tokens.
        original_max_position_embeddings: f64,
    },
}

/// The file's own keys; whatever is not listed does not touch the numbers.
#[derive(Deserialize)]
struct Written {
    model_type: Option<String>,
    vocab_size: i64,
    hidden_size: i64,
    intermediate_size: i64,
    num_hidden_layers: usize,
    num_attention_heads: i64,
    num_key_value_heads: Option<i64>,
    head_dim: Option<i64>,
    rms_norm_eps: f64,
    rope_theta: Option<f64>,
    rope_scaling: Option<Value>,
    // transformers 5 writes both of the above under this key.
    rope_parameters: Option<Value>,
    hidden_act: Option<String>,
    #[serde(default)]
    tie_word_embeddings: bool,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    max_position_embeddings: i64,
    sliding_window: Option<i64>,
    quantization_config: Option<Value>,
}

/// `model_type`s whose numbers this crate computes.
pub const MODEL_TYPES: &[&str] = &["llama"];

impl ModelConfig {
    /// Reads `config.json` of `folder`.
    ///
    /// # Errors
    /// [`Error::MissingFile`], [`Error::Io`] or [`Error::Json`] if the file cannot be read; [`Error::Config`] if a
    /// setting in it is not supported.
    pub fn from_folder(folder: &Path) -> Result<Self> {
        let path = folder.join("config.json");
        if !path.is_file() {
            return Err(Error::MissingFile { folder: folder.to_owned(), file: "config.json" });
        }
        let text = std::fs::read_to_string(&path).at(&path, "read")?;
        Self::from_json(&text, &path)
    }

    /// Reads the text of a `config.json`; `path` is for messages only.
    ///
    /// # Errors
    /// [`Error::Json`] or [`Error::Config`].
    pub fn from_json(text: &str, path: &Path) -> Result<Self> {
        let written: Written =
            serde_json::from_str(text).map_err(|source| Error::Json { path: path.to_owned(), source })?;
        written.check(path)
    }

    /// `config.json` as transformers reads it.
    pub fn to_json(&self) -> Value {
        let mut rope = json!({ "rope_theta": self.rope.theta, "rope_type": "default" });
        match self.rope.scaling {
            RopeScaling::Default => {}
            RopeScaling::Linear { factor } => {
                rope["rope_type"] = json!("linear");
                rope["factor"] = json!(factor);
            }
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => {
                rope["rope_type"] = json!("llama3");
                rope["factor"] = json!(factor);
                rope["low_freq_factor"] = json!(low_freq_factor);
                rope["high_freq_factor"] = json!(high_freq_factor);
                rope["original_max_position_embeddings"] = json!(original_max_position_embeddings as i64);
            }
        }
        let scaling = match self.rope.scaling {
            RopeScaling::Default => Value::Null,
            _ => rope.clone(),
        };
        json!({
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "rms_norm_eps": self.rms_norm_eps,
            "rope_parameters": rope,
            "rope_theta": self.rope.theta,
            "rope_scaling": scaling,
            "tie_word_embeddings": self.tie_word_embeddings,
            "attention_bias": self.attention_bias,
            "mlp_bias": self.mlp_bias,
            "max_position_embeddings": self.max_position_embeddings,
            "dtype": "float32",
        })
    }

    /// Number of weights, an output head tied to the embedding counted once.
    pub fn parameters(&self) -> i64 {
        self.tensors().iter().map(|(_, shape)| shape.iter().product::<i64>()).sum()
    }

    /// Every tensor of the checkpoint, with its shape, in the order of the forward pass.
    pub fn tensors(&self) -> Vec<(String, Vec<i64>)> {
        let (h, f) = (self.hidden_size, self.intermediate_size);
        let q = self.num_attention_heads * self.head_dim;
        let kv = self.num_key_value_heads * self.head_dim;
        let mut all = vec![("model.embed_tokens.weight".to_owned(), vec![self.vocab_size, h])];
        let mut linear = |name: String, shape: [i64; 2], bias: bool| {
            if bias {
                all.push((format!("{name}.bias"), vec![shape[0]]));
            }
            all.push((format!("{name}.weight"), shape.to_vec()));
        };
        for layer in 0..self.num_hidden_layers {
            let at = format!("model.layers.{layer}");
            for (name, shape) in [("q_proj", [q, h]), ("k_proj", [kv, h]), ("v_proj", [kv, h]), ("o_proj", [h, q])] {
                linear(format!("{at}.self_attn.{name}"), shape, self.attention_bias);
            }
            for (name, shape) in [("gate_proj", [f, h]), ("up_proj", [f, h]), ("down_proj", [h, f])] {
                linear(format!("{at}.mlp.{name}"), shape, self.mlp_bias);
            }
        }
        for layer in 0..self.num_hidden_layers {
            for norm in ["input_layernorm", "post_attention_layernorm"] {
                all.push((format!("model.layers.{layer}.{norm}.weight"), vec![h]));
            }
        }
        all.push(("model.norm.weight".to_owned(), vec![h]));
        if !self.tie_word_embeddings {
            all.push(("lm_head.weight".to_owned(), vec![self.vocab_size, h]));
        }
        all
    }
}

impl Written {
    fn check(self, path: &Path) -> Result<ModelConfig> {
        let refuse = |key: &str, found: String, expected: &str| {
            Err(Error::Config { path: path.to_owned(), key: key.to_owned(), found, expected: expected.to_owned() })
        };
        let kind = self.model_type.as_deref().unwrap_or("(absent)");
        if !MODEL_TYPES.contains(&kind) {
            return refuse("model_type", format!("`{kind}`"), &format!("one of {MODEL_TYPES:?}"));
        }
        if let Some(act) = self.hidden_act.as_deref().filter(|act| *act != "silu") {
            return refuse("hidden_act", format!("`{act}`"), "`silu`");
        }
        if let Some(window) = self.sliding_window.filter(|w| *w < self.max_position_embeddings) {
            return refuse("sliding_window", window.to_string(), "null: attention over the whole context");
        }
        if self.quantization_config.is_some() {
            return refuse("quantization_config", "given".to_owned(), "weights in f32, f16 or bf16");
        }
        let heads = self.num_attention_heads;
        let kv_heads = self.num_key_value_heads.unwrap_or(heads);
        for (key, value) in [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_attention_heads", heads),
            ("num_key_value_heads", kv_heads),
            ("max_position_embeddings", self.max_position_embeddings),
            ("num_hidden_layers", self.num_hidden_layers as i64),
        ] {
            if !(1..=1 << 24).contains(&value) {
                return refuse(key, value.to_string(), "a number from 1 to 16777216");
            }
        }
        if heads % kv_heads != 0 {
            return refuse("num_key_value_heads", kv_heads.to_string(), &format!("a divisor of {heads} query heads"));
        }
        let head_dim = self.head_dim.unwrap_or(self.hidden_size / heads);
        if head_dim < 2 || head_dim % 2 != 0 || head_dim > 1 << 16 {
            return refuse("head_dim", head_dim.to_string(), "an even number from 2 to 65536");
        }
        if !(self.rms_norm_eps.is_finite() && self.rms_norm_eps > 0.0) {
            return refuse("rms_norm_eps", self.rms_norm_eps.to_string(), "a number above 0");
        }
        let rope = rope(self.rope_theta, self.rope_scaling, self.rope_parameters, path)?;
        Ok(ModelConfig {
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: heads,
            num_key_value_heads: kv_heads,
            head_dim,
            rms_norm_eps: self.rms_norm_eps,
            rope,
            tie_word_embeddings: self.tie_word_embeddings,
            attention_bias: self.attention_bias,
            mlp_bias: self.mlp_bias,
            max_position_embeddings: self.max_position_embeddings,
        })
    }
}

/// Rotary settings from transformers 4's two keys or transformers 5's one.
fn rope(theta: Option<f64>, scaling: Option<Value>, parameters: Option<Value>, path: &Path) -> Result<RopeConfig> {
    let key = if parameters.is_some() { "rope_parameters" } else { "rope_scaling" };
    let rule = parameters.or(scaling).unwrap_or(Value::Null);
    let refuse = |field: &str, expected: &str| Error::Config {
        path: path.to_owned(),
        key: format!("{key}.{field}"),
        found: rule.get(field).map_or("absent".to_owned(), Value::to_string),
        expected: expected.to_owned(),
    };
    let number = |field: &str| {
        rule.get(field)
            .and_then(Value::as_f64)
            .filter(|x| x.is_finite() && *x > 0.0)
            .ok_or_else(|| refuse(field, "a number above 0"))
    };
    let theta = match rule.get("rope_theta") {
        Some(_) => number("rope_theta")?,
        None => theta.unwrap_or(10_000.0),
    };
    // Older files say `type` where newer ones say `rope_type`.
    let kind = ["rope_type", "type"].iter().find_map(|k| rule.get(*k)?.as_str());
    let scaling = match kind {
        None | Some("default") => RopeScaling::Default,
        Some("linear") => RopeScaling::Linear { factor: number("factor")? },
        Some("llama3") => RopeScaling::Llama3 {
            factor: number("factor")?,
            low_freq_factor: number("low_freq_factor")?,
            high_freq_factor: number("high_freq_factor")?,
            original_max_position_embeddings: number("original_max_position_embeddings")?,
        },
        Some(_) => return Err(refuse("rope_type", "`default`, `linear` or `llama3`")),
    };
    if theta <= 1.0 {
        return Err(refuse("rope_theta", "a number above 1"));
    }
    Ok(RopeConfig { theta, scaling })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMOLLM2: &str = r#"{"architectures":["LlamaForCausalLM"],"model_type":"llama","vocab_size":49152,
        "hidden_size":576,"intermediate_size":1536,"num_hidden_layers":30,"num_attention_heads":9,
        "num_key_value_heads":3,"hidden_act":"silu","rms_norm_eps":1e-5,"rope_theta":100000,"rope_scaling":null,
        "tie_word_embeddings":true,"max_position_embeddings":8192,"transformers_version":"4.42.3"}"#;

    fn read(text: &str) -> Result<ModelConfig> {
        ModelConfig::from_json(text, Path::new("m/config.json"))
    }

    #[test]
    fn counts_the_weights_of_smollm2_135m() {
        // Published: 134,515,008 weights.
        assert_eq!(read(SMOLLM2).unwrap().parameters(), 134_515_008);
    }

    #[test]
    fn round_trips_through_its_own_json() {
        let mut config = read(SMOLLM2).unwrap();
        config.rope.scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192.0,
        };
        assert_eq!(read(&config.to_json().to_string()).unwrap(), config);
    }

    #[test]
    fn refuses_by_name_what_it_does_not_compute() {
        for (from, to, message) in [
            ("\"llama\"", "\"mamba\"", "m/config.json: `model_type` is `mamba`, expected one of [\"llama\"]"),
            ("silu", "relu", "m/config.json: `hidden_act` is `relu`, expected `silu`"),
            (
                "\"rope_scaling\":null",
                "\"rope_scaling\":{\"rope_type\":\"yarn\"}",
                "m/config.json: `rope_scaling.rope_type` is \"yarn\", expected `default`, `linear` or `llama3`",
            ),
            (
                "\"num_key_value_heads\":3",
                "\"num_key_value_heads\":4",
                "m/config.json: `num_key_value_heads` is 4, expected a divisor of 9 query heads",
            ),
        ] {
            let error = read(&SMOLLM2.replace(from, to)).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
    }
}
