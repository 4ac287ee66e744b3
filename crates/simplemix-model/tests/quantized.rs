//! Models with quantised weights against transformers, peft and bitsandbytes: tests/golden/model_quantized.py.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use serde_json::Value;
use simplemix_model::{CausalLm, LoadIn, LoraConfig, Packed, QuantizationSettings, Quantizer, RewardModel, weights};
use tch::{Device, Kind, Tensor};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden")
}

fn base() -> PathBuf {
    golden().join("families/llama_tied")
}

fn facts(form: &str) -> Value {
    let text = std::fs::read_to_string(golden().join("quantized").join(form).join("golden.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).collect()
}

fn settings(form: &str) -> QuantizationSettings {
    let load_in = if form == "int8" { LoadIn::EightBit } else { LoadIn::FourBit };
    QuantizationSettings { load_in, double_quant: form == "nf4_double" }
}

fn packed(facts: &Value) -> Packed {
    let ids: Vec<u32> = numbers(&facts["ids"]).into_iter().map(|id| id as u32).collect();
    let mut packed = Packed::new();
    packed.push(&ids).unwrap();
    packed
}

fn logits(model: &CausalLm, packed: &Packed) -> Tensor {
    tch::no_grad(|| model.logits(&model.hidden_states(packed).unwrap()).unwrap())
}

fn checkpoint(form: &str) -> CausalLm {
    CausalLm::load(&golden().join("quantized").join(form), Kind::Float, Device::Cpu).unwrap()
}

fn off(found: &Tensor, want: &[f64]) -> f64 {
    let want = Tensor::from_slice(want);
    (found.to_kind(Kind::Double).flatten(0, -1) - want).abs().max().double_value(&[])
}

#[test]
fn checkpoints_of_bitsandbytes_are_read() {
    for form in ["nf4", "nf4_double", "fp4", "int8"] {
        let (model, facts) = (checkpoint(form), facts(form));
        assert!(model.is_quantized() && model.notices().is_empty(), "{form}: {:?}", model.notices());
        let packed = packed(&facts);
        let found = logits(&model, &packed);
        let off = off(&found.select(0, -1), &numbers(&facts["last_logits"]));
        assert!(off < 1e-5, "{form}: {off}");
        // The weights are not all in memory at once, and there is no adapter whose gradients could be asked for.
        assert!(model.config().is_quantized());
    }
}

#[test]
fn weights_that_are_quantised_here_are_those_of_the_checkpoint() {
    for form in ["nf4", "nf4_double", "int8"] {
        let own = CausalLm::load_quantized(&base(), Kind::Float, Device::Cpu, &settings(form)).unwrap();
        let (stored, packed) = (checkpoint(form), packed(&facts(form)));
        assert_eq!(logits(&own, &packed), logits(&stored, &packed), "{form}");
        for (name, _) in own.named_parameters() {
            let whole = |model: &CausalLm| {
                let residence = model.residence().unwrap();
                residence.has(name).then(|| residence.whole(name).unwrap())
            };
            assert_eq!(whole(&own), whole(&stored), "{form}: {name}");
        }
    }
}

#[test]
fn loss_and_gradients_are_those_of_peft() {
    for form in ["nf4", "nf4_double", "fp4"] {
        let facts = facts(form);
        let mut reference = checkpoint(form);
        reference.load_adapter("default", &golden().join("lora/all_linear")).unwrap();
        let policy = reference.with_adapter(Some("default")).unwrap();
        policy.set_trainable(true);
        let packed = packed(&facts);
        // A pass that keeps weights for its backward pass is refused.
        let error = policy.hidden_states(&packed).unwrap_err().to_string();
        assert!(error.contains("weights that are quantised"), "{error}");
        let pass = policy.checkpointed(&packed).unwrap();
        let logits = policy.logits(pass.hidden()).unwrap();
        let ids: Vec<i64> = numbers(&facts["ids"]).iter().map(|id| *id as i64).collect();
        let count = ids.len() as i64 - 1;
        let scored = logits.narrow(0, 0, count).log_softmax(-1, Kind::Float);
        let loss = -scored.gather(1, &Tensor::from_slice(&ids[1..]).unsqueeze(1), false).sum(Kind::Float);
        let found = loss.double_value(&[]);
        assert!((found - facts["loss"].as_f64().unwrap()).abs() < 1e-4, "{form}: {found}");
        loss.backward();
        pass.backward().unwrap();
        let gradients = facts["gradients"].as_object().unwrap();
        let trained = policy.trainable_parameters();
        assert_eq!(trained.len(), gradients.len());
        for (name, tensor) in trained {
            let want = numbers(&gradients[&name]);
            let gradient = tensor.grad();
            let norm = gradient.norm().double_value(&[]);
            assert!((norm - want[0]).abs() < 1e-4 * want[0].max(1e-3), "{form}: {name}: {norm}");
            let first = gradient.flatten(0, -1).narrow(0, 0, 3);
            assert!(off(&first, &want[1..]) < 1e-4 * want[0].max(1e-3), "{form}: {name}");
        }
        // The reference is the same weights without the adapter.
        let plain = self::logits(&reference, &packed);
        assert!(off(&plain.select(0, -1), &numbers(&facts["last_logits"])) < 1e-5);
    }
}

#[test]
fn an_adapter_is_merged_into_the_dequantised_weights() {
    let dir = tempfile::tempdir().unwrap();
    for form in ["nf4", "nf4_double"] {
        let facts = facts(form);
        let mut model = checkpoint(form);
        model.load_adapter("default", &golden().join("lora/all_linear")).unwrap();
        let policy = model.with_adapter(Some("default")).unwrap();
        let folder = dir.path().join(form);
        policy.save_merged(&folder, Some(&golden().join("quantized").join(form))).unwrap();
        let config: Value =
            serde_json::from_str(&std::fs::read_to_string(folder.join("config.json")).unwrap()).unwrap();
        assert_eq!((config.get("quantization_config"), &config["dtype"]), (None, &Value::from("float32")));
        let saved = weights::read_all(&folder.join("model.safetensors")).unwrap();
        let row = saved["model.layers.0.mlp.down_proj.weight"].get(0);
        assert!(off(&row, &numbers(&facts["merged_row"])) < 1e-6, "{form}");
        let packed = packed(&facts);
        let (whole, found) = (CausalLm::load(&folder, Kind::Float, Device::Cpu).unwrap(), logits(&policy, &packed));
        assert!(!whole.is_quantized());
        let apart = |a: &Tensor, b: &Tensor| (a - b).abs().max().double_value(&[]);
        assert!(apart(&logits(&whole, &packed), &found) < 1e-4);
        assert!(apart(&logits(&policy.merged().unwrap(), &packed), &found) < 1e-4);
        // Without the adapter, the dequantised model.
        let plain = dir.path().join(format!("{form}-plain"));
        model.save(&plain, None).unwrap();
        let plain = CausalLm::load(&plain, Kind::Float, Device::Cpu).unwrap();
        assert_eq!(logits(&plain, &packed), logits(&model, &packed));
    }
}

#[test]
fn all_kinds_of_adapters_lie_over_quantised_weights() {
    for (adapter, family) in [("dora", "qwen2"), ("gpt2_saved", "gpt2"), ("by_head", "gpt_neox"), ("fused", "phi3")] {
        let base = golden().join("families").join(family);
        let packed = {
            let config = simplemix_model::ModelConfig::from_folder(&base).unwrap();
            let mut packed = Packed::of(&config);
            packed.push(&[3, 17, 42, 5, 60, 1]).unwrap();
            packed
        };
        let load = |settings: &QuantizationSettings| {
            let mut model = CausalLm::load_quantized(&base, Kind::Float, Device::Cpu, settings).unwrap();
            model.load_adapter("a", &golden().join("lora").join(adapter)).unwrap();
            model.with_adapter(Some("a")).unwrap()
        };
        let quantised = load(&LoadIn::EightBit.into());
        assert!(!quantised.is_unadapted().unwrap());
        // As the model that is made of the dequantised weights.
        let dir = tempfile::tempdir().unwrap();
        let plain = dir.path().join("plain");
        quantised.with_adapter(None).unwrap().save(&plain, Some(&base)).unwrap();
        let mut whole = CausalLm::load(&plain, Kind::Float, Device::Cpu).unwrap();
        whole.load_adapter("a", &golden().join("lora").join(adapter)).unwrap();
        let whole = whole.with_adapter(Some("a")).unwrap();
        let apart = (logits(&quantised, &packed) - logits(&whole, &packed)).abs().max().double_value(&[]);
        assert!(apart < 1e-5, "{adapter}: {apart}");
        let train = |model: &CausalLm| {
            model.set_trainable(true);
            let pass = model.checkpointed(&packed).unwrap();
            pass.hidden().square().sum(Kind::Float).backward();
            pass.backward().unwrap();
            let gradients = model.trainable_parameters().into_iter().map(|(_, tensor)| tensor.grad());
            gradients.filter(Tensor::defined).map(|gradient| gradient.norm().double_value(&[])).collect::<Vec<_>>()
        };
        let (found, want) = (train(&quantised), train(&whole));
        assert_eq!(found.len(), want.len(), "{adapter}");
        for (found, want) in found.iter().zip(&want) {
            assert!((found - want).abs() <= 1e-4 * want.max(1e-3), "{adapter}: {found} {want}");
        }
    }
}

#[test]
fn samples_are_those_of_the_dequantised_model() {
    use simplemix_model::{GenerateOptions, Request};
    let model = CausalLm::load_quantized(&base(), Kind::Float, Device::Cpu, &settings("nf4")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let plain = dir.path().join("plain");
    model.save(&plain, Some(&base())).unwrap();
    let whole = CausalLm::load(&plain, Kind::Float, Device::Cpu).unwrap();
    let options = GenerateOptions { max_new_tokens: 12, ..Default::default() };
    let requests = [Request { prompt: vec![3, 17, 42], stream: 0 }, Request { prompt: vec![5], stream: 1 }];
    let sample = |model: &CausalLm| {
        let all = model.generate(&requests, &options, &mut |_, _| {}).unwrap();
        all.into_iter().flatten().map(|response| response.tokens).collect::<Vec<_>>()
    };
    assert_eq!(sample(&model), sample(&whole));
}

#[test]
fn reward_models_are_quantised_too() {
    let settings = settings("nf4");
    let causal = CausalLm::load_quantized(&base(), Kind::Float, Device::Cpu, &settings).unwrap();
    let mut reward = RewardModel::on_top_of(causal).unwrap();
    assert!(reward.is_quantized());
    let task = simplemix_model::LoraTask::SeqCls;
    reward.add_adapter(LoraConfig { rank: 2, task, ..LoraConfig::default() }, 1).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("reward");
    reward.save(&folder, Some(&base())).unwrap();
    let mut quantizer = Quantizer::new(&settings, Device::Cpu).unwrap();
    let again = RewardModel::load_divided(&folder, Kind::Float, Device::Cpu, Some(&mut quantizer)).unwrap();
    assert!(again.is_quantized());
}

#[test]
fn checkpoints_that_do_not_fit_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    let form = golden().join("quantized/nf4");
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(form.join(name), folder.join(name)).unwrap();
    }
    let refused = |settings: &QuantizationSettings| {
        CausalLm::load_quantized(folder, Kind::Float, Device::Cpu, settings).unwrap_err().to_string()
    };
    let error = refused(&settings("nf4"));
    assert!(error.contains("`quantization_config` is set, expected none: weights that are quantised"), "{error}");
    let text = std::fs::read_to_string(folder.join("config.json")).unwrap();
    let off = QuantizationSettings::default();
    std::fs::write(folder.join("config.json"), text.replace("\"bitsandbytes\"", "\"gptq\"")).unwrap();
    let error = refused(&off);
    assert!(error.contains("`quantization_config.bits` is absent, expected 4 or 8"), "{error}");
    std::fs::write(folder.join("config.json"), text.replace("\"intermediate_size\": 48", "\"intermediate_size\": 64"))
        .unwrap();
    let error = refused(&off);
    assert!(
        error.contains("shape of `model.layers.0.mlp.") && error.contains(&folder.display().to_string()),
        "{error}"
    );
    let mut json: Value = serde_json::from_str(&text).unwrap();
    json.as_object_mut().unwrap().remove("quantization_config");
    std::fs::write(folder.join("config.json"), json.to_string()).unwrap();
    let error = refused(&off);
    assert!(error.contains("is [768, 1], expected [32, 48]"), "{error}");
}
