//! A real model against transformers (tests/golden/model_smollm2.py), where `cargo xtask fetch` has left it in the cache.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking, and says that it is skipped")]

use std::path::{Path, PathBuf};

use serde_json::Value;
use simplemix_model::{CausalLm, GenerateOptions, Packed, Request, Sampling, Targets};
use tch::{Device, Kind, Tensor};

fn folder() -> Option<PathBuf> {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/simplemix"));
    let cache = std::env::var_os("SIMPLEMIX_CACHE").map(PathBuf::from).or_else(home)?;
    Some(cache.join("demo/smollm2-135m-instruct")).filter(|folder| folder.is_dir())
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).collect()
}

#[test]
fn smollm2_is_what_transformers_says() {
    let Some(folder) = folder() else {
        eprintln!("skipped: no SmolLM2 in the cache; `cargo xtask fetch` gets it");
        return;
    };
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/model_smollm2.json");
    let cases: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(golden).unwrap()).unwrap();
    let model = CausalLm::load(&folder, Kind::Float, Device::Cpu).unwrap();
    let _guard = tch::no_grad_guard();
    let mut requests = Vec::new();
    for case in &cases {
        let ids: Vec<u32> = numbers(&case["ids"]).iter().map(|&id| id as u32).collect();
        let (mut packed, mut targets) = (Packed::new(), Targets::default());
        let first = packed.push(&ids[..1]).unwrap();
        packed.push_response(first, &ids[1..], &mut targets).unwrap();
        let hidden = model.hidden_states(&packed).unwrap().index_select(0, &Tensor::from_slice(&targets.rows));
        let logps = model.logits(&hidden).unwrap().log_softmax(-1, Kind::Double);
        let logps = logps.gather(1, &Tensor::from_slice(&targets.tokens).unsqueeze(1), false).squeeze_dim(1);
        let logps: Vec<f64> = logps.try_into().unwrap();
        for (got, want) in logps.iter().zip(numbers(&case["logps"])) {
            assert!((got - want).abs() < 1e-3 * want.abs().max(1.0), "{got} {want}");
        }
        requests.push(Request { prompt: ids, stream: 0 });
    }
    let options =
        GenerateOptions { max_new_tokens: 24, sampling: Sampling::GREEDY, batch_rows: 2, ..GenerateOptions::default() };
    let answers = model.generate(&requests, &options, &mut |_, _| {}).unwrap();
    for (case, answers) in cases.iter().zip(&answers) {
        let greedy: Vec<f64> = answers[0].tokens.iter().map(|&token| f64::from(token)).collect();
        assert_eq!(greedy, numbers(&case["greedy"]));
    }
}
