//! Times of this crate for benches/model_peers.py, which runs transformers on the same work in turn.
//!
//! speed load MODEL | speed train MODEL PAIRS.json MODE | speed generate MODEL ROWS PROMPT_TOKENS NEW_TOKENS | speed peak
//!
//! MODE: plain (sequences packed), shared (each prompt once), checkpointed (shared, layers computed twice).

#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "an example that measures")]

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use simplemix_model::{CausalLm, GenerateOptions, Packed, Request, Sampling};
use tch::{Device, Kind, Tensor};

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["load", model] => load(model),
        ["train", model, pairs, mode] => train(model, pairs, mode),
        ["generate", model, rows, prompt, new] => generate(model, rows.parse()?, prompt.parse()?, new.parse()?),
        ["peak"] => peak(),
        _ => Err("see the first lines of this file".into()),
    }
}

fn report(value: &serde_json::Value) {
    println!("{value}");
}

fn model(folder: &str) -> Result<CausalLm> {
    Ok(CausalLm::load(Path::new(folder), Kind::Float, Device::Cpu)?)
}

fn load(folder: &str) -> Result {
    let start = Instant::now();
    let model = model(folder)?;
    // Every weight is in memory once it has been read.
    let sum: f64 = model.named_parameters().iter().map(|(_, t)| t.sum(Kind::Float).double_value(&[])).sum();
    report(&serde_json::json!({ "seconds": start.elapsed().as_secs_f64(), "sum": sum, "peak_mb": peak_mb()? }));
    Ok(())
}

/// Forward and backward pass of everything below the output head, over micro-batches of pairs.
fn train(folder: &str, pairs: &str, mode: &str) -> Result {
    let batches: Vec<Vec<[Vec<u32>; 3]>> = serde_json::from_str(&std::fs::read_to_string(pairs)?)?;
    let model = model(folder)?;
    model.set_trainable(true);
    let step = |batch: &[[Vec<u32>; 3]]| -> Result {
        let mut packed = Packed::new();
        for [prompt, chosen, rejected] in batch {
            if mode == "plain" {
                packed.push(&[&prompt[..], chosen].concat())?;
                packed.push(&[&prompt[..], rejected].concat())?;
            } else {
                let first = packed.push(prompt)?;
                packed.push_after(first, chosen)?;
                packed.push_after(first, rejected)?;
            }
        }
        if mode == "checkpointed" {
            let pass = model.checkpointed(&packed)?;
            pass.hidden().square().sum(Kind::Float).backward();
            pass.backward()?;
        } else {
            model.hidden_states(&packed)?.square().sum(Kind::Float).backward();
        }
        Ok(())
    };
    step(&batches[0])?;
    let mut seconds = Vec::new();
    for batch in &batches {
        let start = Instant::now();
        step(batch)?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    report(&serde_json::json!({ "seconds": seconds, "peak_mb": peak_mb()? }));
    Ok(())
}

fn generate(folder: &str, rows: usize, prompt: u32, new: usize) -> Result {
    let model = model(folder)?;
    let requests: Vec<Request> = (0..rows as u32)
        .map(|row| Request { prompt: (0..prompt).map(|i| 100 + (i * 37 + row * 11) % 9000).collect(), stream: 0 })
        .collect();
    let options = GenerateOptions {
        max_new_tokens: new,
        sampling: Sampling::GREEDY,
        batch_rows: rows,
        ..GenerateOptions::default()
    };
    let short = GenerateOptions { max_new_tokens: 1, ..options.clone() };
    model.generate(&requests, &short, &mut |_, _| {})?;
    let start = Instant::now();
    model.generate(&requests, &short, &mut |_, _| {})?;
    let first = start.elapsed().as_secs_f64();
    let start = Instant::now();
    let answers = model.generate(&requests, &options, &mut |_, _| {})?;
    let seconds = start.elapsed().as_secs_f64();
    let tokens: Vec<&[u32]> = answers.iter().map(|all| &all[0].tokens[..]).collect();
    let bytes = 4 * model.config().parameters();
    report(&serde_json::json!({
        "seconds": seconds, "first": first, "tokens": tokens, "weight_bytes": bytes, "peak_mb": peak_mb()?,
    }));
    Ok(())
}

/// GFLOP/s of f32 matrix products, and GB/s of reading memory.
fn peak() -> Result {
    let square = || Tensor::randn([2048, 2048], (Kind::Float, Device::Cpu));
    let (a, b) = (square(), square());
    let mut best = 0f64;
    for _ in 0..8 {
        let start = Instant::now();
        let _ = a.matmul(&b);
        best = best.max(2.0 * 2048f64.powi(3) / start.elapsed().as_secs_f64() / 1e9);
    }
    let long = Tensor::ones([1 << 28], (Kind::Float, Device::Cpu));
    let mut bandwidth = 0f64;
    for _ in 0..5 {
        let start = Instant::now();
        let _ = long.sum(Kind::Float).double_value(&[]);
        bandwidth = bandwidth.max((4u64 << 28) as f64 / start.elapsed().as_secs_f64() / 1e9);
    }
    report(&serde_json::json!({ "gflops": best, "gbytes": bandwidth }));
    Ok(())
}

fn peak_mb() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM")).ok_or("no VmHWM")?;
    Ok(line.split_whitespace().nth(1).ok_or("no VmHWM")?.parse::<f64>()? / 1024.0)
}
