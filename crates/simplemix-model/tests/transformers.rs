//! Numbers of transformers on tiny random checkpoints: tests/golden/model_llama.py.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use serde_json::Value;
use simplemix_model::{CausalLm, GenerateOptions, Packed, Request, Sampling, Targets};
use tch::{Device, Kind, Tensor};

fn case(name: &str) -> (CausalLm, Value) {
    let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/llama_tiny").join(name);
    let golden = std::fs::read_to_string(folder.join("golden.json")).unwrap();
    (CausalLm::load(&folder, Kind::Float, Device::Cpu).unwrap(), serde_json::from_str(&golden).unwrap())
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).collect()
}

#[track_caller]
fn close(got: &[f64], want: &[f64], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    let scale = want.iter().fold(1e-3f64, |m, w| m.max(w.abs()));
    for (g, w) in got.iter().zip(want) {
        assert!((g - w).abs() <= 1e-4 * scale, "{what}: {g} {w}");
    }
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.detach().to_kind(Kind::Double).flatten(0, -1).try_into().unwrap()
}

fn check(name: &str) {
    let (mut model, golden) = case(name);
    let ids: Vec<u32> = numbers(&golden["ids"]).iter().map(|&id| id as u32).collect();
    model.set_trainable(true);
    let (mut packed, mut targets) = (Packed::new(), Targets::default());
    let first = packed.push(&ids[..1]).unwrap();
    packed.push_response(first, &ids[1..], &mut targets).unwrap();
    // The last token is not fed with a response; it is asked for on its own below.
    let hidden = model.hidden_states(&packed).unwrap();
    let rows = hidden.index_select(0, &Tensor::from_slice(&targets.rows));
    let logps = model.logits(&rows).unwrap().log_softmax(-1, Kind::Float);
    let loss = -logps.gather(1, &Tensor::from_slice(&targets.tokens).unsqueeze(1), false).sum(Kind::Float);
    close(&values(&loss), &[golden["loss"].as_f64().unwrap()], "loss");
    loss.backward();
    for (parameter, tensor) in model.named_parameters() {
        let want = golden["gradient_norms"][parameter].as_f64().unwrap();
        close(&values(&tensor.grad().norm()), &[want], parameter);
    }

    let _guard = tch::no_grad_guard();
    let mut whole = Packed::new();
    whole.push(&ids).unwrap();
    let hidden = model.hidden_states(&whole).unwrap();
    close(
        &values(&hidden.square().sum_dim_intlist([1i64].as_slice(), false, Kind::Float).sqrt()),
        &numbers(&golden["hidden_norms"]),
        "hidden",
    );
    let last = model.logits(&hidden.narrow(0, ids.len() as i64 - 1, 1)).unwrap();
    close(&values(&last), &numbers(&golden["last_logits"]), "logits");

    let options = GenerateOptions {
        samples: 1,
        max_new_tokens: 12,
        stop_tokens: Vec::new(),
        sampling: Sampling::GREEDY,
        batch_rows: 4,
    };
    let answers = model.generate(&[Request { prompt: ids, stream: 0 }], &options, &mut |_, _| {}).unwrap();
    let greedy: Vec<f64> = answers[0][0].tokens.iter().map(|&t| f64::from(t)).collect();
    assert_eq!(greedy, numbers(&golden["greedy"]));
}

#[test]
fn tied_head() {
    check("tied");
}

#[test]
fn untied_head_biases_and_a_head_width_of_its_own() {
    check("untied_bias");
}

#[test]
fn rope_stretched_as_in_llama_3() {
    check("llama3_rope");
}
