//! Rules of rotary frequencies out of GGUF metadata and tensors, as keys of a `config.json`.

use serde_json::{Value as Json, json};

use super::architecture::Architecture;
use super::error::Result;
use super::reader::Gguf;

/// Divisors of single frequencies.
pub(super) const FREQUENCIES: &str = "rope_freqs.weight";
/// Divisors of single frequencies up to the first context, and beyond it.
pub(super) const LONG_FACTORS: [&str; 2] = ["rope_factors_short.weight", "rope_factors_long.weight"];

/// Sets the rule that the file names; llama.cpp scales linearly where it names none and gives a factor.
pub(super) fn set(gguf: &Gguf<'_>, of: &Architecture, head_dim: u64, config: &mut Json) -> Result<()> {
    let rule = of.key("rope.scaling.type");
    match gguf.text(&rule) {
        None | Some("linear") => {
            if let Some(factor) = factor(gguf, of)? {
                write(config, json!({ "rope_type": "linear", "factor": factor }));
            }
        }
        Some("none") => {}
        Some("yarn") => yarn(gguf, of, config)?,
        Some("longrope") if of.name == "phi3" => {}
        Some(other) => return Err(gguf.unsupported(&rule, format!("`{other}`"), "`none`, `linear` or `yarn`")),
    }
    if gguf.tensors.contains_key(FREQUENCIES) {
        llama3(gguf, head_dim, config)?;
    }
    Ok(())
}

/// Writes a rule for transformers 5, and for transformers 4.
fn write(config: &mut Json, rule: Json) {
    for (key, value) in rule.as_object().into_iter().flatten() {
        config["rope_parameters"][key] = value.clone();
    }
    let mut older = rule.clone();
    older["type"] = rule["rope_type"].clone();
    config["rope_scaling"] = older;
}

/// The factor under its newer key or its older one; none where it changes nothing.
fn factor(gguf: &Gguf<'_>, of: &Architecture) -> Result<Option<f64>> {
    for key in [of.key("rope.scaling.factor"), of.key("rope.scale_linear")] {
        match gguf.float(&key) {
            None | Some(0.0) => {}
            Some(factor) if factor.is_finite() && factor > 0.0 => {
                return Ok(Some(factor).filter(|factor| *factor != 1.0));
            }
            Some(factor) => return Err(gguf.unsupported(&key, factor.to_string(), "a number above 0")),
        }
    }
    Ok(None)
}

fn yarn(gguf: &Gguf<'_>, of: &Architecture, config: &mut Json) -> Result<()> {
    let Some(factor) = factor(gguf, of)? else { return Ok(()) };
    let mut rule = json!({ "rope_type": "yarn", "factor": factor });
    if let Some(original) = gguf.unsigned(&of.key("rope.scaling.original_context_length")) {
        rule["original_max_position_embeddings"] = json!(original);
    }
    for (key, to) in [("rope.scaling.yarn_beta_fast", "beta_fast"), ("rope.scaling.yarn_beta_slow", "beta_slow")] {
        if let Some(found) = gguf.float(&of.key(key)) {
            rule[to] = json!(found);
        }
    }
    for key in ["rope.scaling.yarn_log_multiplier", "rope.scaling.yarn_ext_factor"] {
        if let Some(found) = gguf.float(&of.key(key)).filter(|_| !of.follows.contains(&key)) {
            return Err(gguf.unsupported(&of.key(key), found.to_string(), "no such key"));
        }
    }
    // llama.cpp computes with this one whatever the key says.
    let (key, usual) = (of.key("rope.scaling.yarn_attn_factor"), 1.0 + 0.1 * factor.ln());
    if let Some(found) = gguf.float(&key).filter(|found| (found - usual).abs() > 1e-4 * usual) {
        return Err(gguf.unsupported(
            &key,
            found.to_string(),
            &format!("none, or {usual}, as follows from the factor"),
        ));
    }
    write(config, rule);
    Ok(())
}

/// Llama 3.1's rule, which llama.cpp's converter turns into a divisor of each frequency. The file keeps the divisors alone: the rule is
/// the one of the published models, low factor 1, high factor 4 and a first context of 8192, that gives them.
fn llama3(gguf: &Gguf<'_>, head_dim: u64, config: &mut Json) -> Result<()> {
    let found = numbers(gguf, FREQUENCIES)?;
    if found.iter().all(|divisor| *divisor == 1.0) {
        return Ok(());
    }
    let refused = || {
        let text = "divisors that no rule of Llama 3.1's kind with its usual constants gives";
        gguf.unsupported(FREQUENCIES, text, "those of `llama3` scaling")
    };
    if found.len() as u64 != head_dim / 2 {
        return Err(refused());
    }
    let theta = config["rope_parameters"]["rope_theta"].as_f64().unwrap_or(10_000.0);
    let factor = f64::from(found.iter().copied().fold(1.0, f32::max));
    let (low, high, original) = (1.0, 4.0, 8192.0);
    let expected = (0..head_dim / 2).map(|i| {
        let length = 2.0 * std::f64::consts::PI * theta.powf(2.0 * i as f64 / head_dim as f64);
        match length {
            _ if length < original / high => 1.0,
            _ if length > original / low => factor,
            _ => {
                let smooth = (original / length - low) / (high - low);
                1.0 / ((1.0 - smooth) / factor + smooth)
            }
        }
    });
    let near = |(found, expected): (&f32, f64)| (f64::from(*found) - expected).abs() <= 1e-4 * expected;
    if !found.iter().zip(expected).all(near) {
        return Err(refused());
    }
    let rule = json!({
        "rope_type": "llama3", "factor": factor, "low_freq_factor": low, "high_freq_factor": high,
        "original_max_position_embeddings": 8192,
    });
    write(config, rule);
    Ok(())
}

/// LongRoPE of Phi 3, if the file has its factors.
pub(super) fn long(gguf: &Gguf<'_>, config: &mut Json) -> Result<()> {
    let [short, long] = LONG_FACTORS;
    if !gguf.tensors.contains_key(short) && !gguf.tensors.contains_key(long) {
        return Ok(());
    }
    let key = "phi3.rope.scaling.original_context_length";
    let original = gguf.needed(key)?;
    config["original_max_position_embeddings"] = json!(original);
    let mut rule = json!({
        "rope_type": "longrope", "short_factor": numbers(gguf, short)?, "long_factor": numbers(gguf, long)?,
    });
    if let Some(factor) = gguf.float("phi3.rope.scaling.attn_factor") {
        rule["attention_factor"] = json!(factor);
    }
    write(config, rule);
    Ok(())
}

fn numbers(gguf: &Gguf<'_>, name: &str) -> Result<Vec<f32>> {
    let Some(info) = gguf.tensors.get(name) else {
        return Err(gguf.unsupported(name, "absent", "a tensor with a number for each frequency"));
    };
    Ok(info.quant.dequantise(&gguf.bytes(info)?))
}
