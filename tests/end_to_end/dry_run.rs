//! Memory as `train --dry-run` tells it: from `config.json` alone, and near what a run takes.

use std::process::Stdio;

use serde_json::{Value, json};
use simplemix_model::{CausalLm, ModelConfig};
use tch::Device;

use crate::{Dir, stderr, stdout};

/// Standard output, and the peak of resident memory and the processor time at the last look before the process ended, in
/// megabytes and seconds.
fn watched(dir: &Dir, args: &[&str]) -> (String, f64, f64) {
    let child = dir.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (id, mut peak, mut seconds) = (child.id(), 0.0f64, 0.0);
    let waiting = std::thread::spawn(move || child.wait_with_output().unwrap());
    while !waiting.is_finished() {
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
        peak = kilobytes.and_then(|kilobytes| kilobytes.parse::<f64>().ok()).map_or(peak, |kb| kb * 1024.0 / 1e6);
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let ticks = stat.rsplit(')').next().map(|rest| rest.split_whitespace().skip(11).take(2).collect::<Vec<_>>());
        let ticks = ticks.unwrap_or_default().iter().filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>();
        seconds = ticks.max(seconds * 100.0) / 100.0;
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let output = waiting.join().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    (stdout(&output), peak, seconds)
}

/// The number of gigabytes in a line of the estimate.
fn gigabytes(said: &str, what: &str) -> f64 {
    let line =
        said.lines().find(|line| line.trim_start().starts_with(what)).unwrap_or_else(|| panic!("{what}: {said}"));
    line.trim_end().strip_suffix(" GB").unwrap().rsplit(' ').next().unwrap().parse().unwrap()
}

fn llama(shape: &Value) -> Value {
    let mut config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0, "max_position_embeddings": 8192, "tie_word_embeddings": false,
    });
    for (key, value) in shape.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

/// Replaces the configuration of the tiny model, whose tokenizer stays, and removes its weights.
fn without_weights(dir: &Dir, config: &Value) {
    let model = dir.model();
    std::fs::remove_file(model.join("model.safetensors")).unwrap();
    std::fs::write(model.join("config.json"), config.to_string()).unwrap();
}

const TRAIN: &[&str] = &["train", "--model", "model", "--train", "pairs.jsonl", "--output", "run", "--batch-size", "4"];

#[test]
fn a_dry_run_of_a_large_model_needs_its_configuration_alone() {
    let dir = Dir::new();
    without_weights(
        &dir,
        &llama(&json!({
            "vocab_size": 128_256, "hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32,
            "num_attention_heads": 32, "num_key_value_heads": 8,
        })),
    );
    dir.pairs("pairs.jsonl", "plain", 8);
    let estimate = |more: &[&str]| watched(&dir, &[TRAIN, &["--dry-run"], more].concat());
    let (said, peak, seconds) = estimate(&["--set", "dtype=\"bfloat16\""]);
    // 8,030,261,248 weights: 2 bytes, gradients of 4, and 4 for the copy and each moment.
    assert!(said.contains("8030261248 weights trained"), "{said}");
    assert_eq!([gigabytes(&said, "weights"), gigabytes(&said, "gradients")], [16.06, 32.12]);
    assert_eq!(gigabytes(&said, "optimizer"), 96.36);
    assert!(peak < 500.0, "{peak} MB for an estimate");
    assert!(seconds < 1.5, "{seconds} s of processor time for an estimate");
    // Adapters of rank 16 on all linear layers: 41,943,040 weights.
    let (said, ..) = estimate(&["--lora-rank", "16"]);
    assert!(said.contains("41943040 of 8030261248 weights trained"), "{said}");
    assert_eq!([gigabytes(&said, "gradients"), gigabytes(&said, "optimizer")], [0.17, 0.34]);
    // Without --dry-run the weights are missed before anything is written.
    let output = dir.simplemix(TRAIN);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("model.safetensors") && !dir.path("run").exists(), "{}", stderr(&output));
}

/// The tables of benches/dry_run_memory.py hold the estimate to a tenth; here a small model is held to a quarter of what is not
/// the program.
#[test]
fn a_run_takes_about_what_was_estimated() {
    let dir = Dir::new();
    let config = llama(&json!({
        "vocab_size": 4096, "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": true,
    }));
    let (tiny, model) = (dir.model(), dir.path("small"));
    let shape = ModelConfig::from_json(&config.to_string(), &dir.path("config.json")).unwrap();
    std::fs::write(tiny.join("config.json"), config.to_string()).unwrap();
    CausalLm::random(shape, 1, Device::Cpu).unwrap().save(&model, Some(&tiny)).unwrap();
    let row = |i: usize| {
        let text = |length: usize| format!("{i:04}{}", "words ".repeat(length / 6));
        json!({ "prompt": text(200), "chosen": text(150), "rejected": text(120) }).to_string()
    };
    dir.write("pairs.jsonl", (0..4).map(row).collect::<Vec<_>>().join("\n"));
    let args = ["train", "--model", "small", "--train", "pairs.jsonl", "--batch-size", "2", "--max-steps", "2"];
    for (name, more) in [("whole", &[][..]), ("adapter", &["--lora-rank", "8"])] {
        let args = [&args[..], more, &["--output", name]].concat();
        let (said, program, _) = watched(&dir, &[&args[..], &["--dry-run"]].concat());
        let (_, peak, _) = watched(&dir, &args);
        let expected = gigabytes(&said, "expected peak memory") * 1e3;
        let (expected, taken) = (expected - program, peak - program);
        assert!(taken > 100.0, "{name}: {taken} MB beside the program");
        assert!((0.75..1.33).contains(&(expected / taken)), "{name}: {expected} of {taken} MB, beside {program}");
    }
}
