//! Trains an adapter on one text, and writes it as peft does, beside a merged model.
//!
//! cargo run -p simplemix-model --example adapter -- MODEL_FOLDER OUTPUT_FOLDER

#![allow(clippy::print_stdout, reason = "an example")]

use std::error::Error;
use std::path::PathBuf;

use simplemix_model::{CausalLm, LoraConfig, Packed, Targets};
use tch::{Device, Kind, Tensor};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(model), Some(output)) = (args.next(), args.next()) else {
        return Err("usage: adapter MODEL_FOLDER OUTPUT_FOLDER".into());
    };
    let mut reference = CausalLm::load(&model, Kind::Float, Device::Cpu)?;
    reference.add_adapter("default", LoraConfig { rank: 8, ..LoraConfig::default() }, 1)?;
    // Equal weights with the adapter on; `reference` stays what it was.
    let policy = reference.with_adapter(Some("default"))?;
    policy.set_trainable(true);
    let parameters = policy.trainable_parameters();
    println!("{} weights in training", parameters.iter().map(|(_, tensor)| tensor.numel()).sum::<usize>());

    let tokens: Vec<u32> = (0..24).map(|i| (i * 7 + 3) % 60).collect();
    for _ in 0..20 {
        let loss = -log_prob(&policy, &tokens)?;
        loss.backward();
        let _guard = tch::no_grad_guard();
        for (_, tensor) in &parameters {
            let mut tensor = tensor.shallow_clone();
            tensor -= tensor.grad() * 1e-3;
            tensor.zero_grad();
        }
    }
    let _guard = tch::no_grad_guard();
    println!("log-probability before {:.6}", log_prob(&reference, &tokens)?.double_value(&[]));
    println!("log-probability after {:.6}", log_prob(&policy, &tokens)?.double_value(&[]));
    policy.save_adapter("default", &output.join("adapter"), model.to_str())?;
    policy.save_merged(&output.join("merged"), Some(&model))?;
    Ok(())
}

/// Log-probability of all tokens after the first.
fn log_prob(model: &CausalLm, tokens: &[u32]) -> Result<Tensor, Box<dyn Error>> {
    let (mut packed, mut targets) = (Packed::new(), Targets::default());
    let first = packed.push(&tokens[..1])?;
    packed.push_response(first, &tokens[1..], &mut targets)?;
    let rows = model.hidden_states(&packed)?.index_select(0, &Tensor::from_slice(&targets.rows));
    let logps = model.logits(&rows)?.log_softmax(-1, Kind::Float);
    Ok(logps.gather(1, &Tensor::from_slice(&targets.tokens).unsqueeze(1), false).sum(Kind::Float))
}
