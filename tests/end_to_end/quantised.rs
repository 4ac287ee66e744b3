//! `--load-in` and `load_in`: models that are not trained, held in 4 or 8 bits. They do what the same models do whose weights were
//! dequantised before.

use serde_json::{Value, json};
use simplemix_model::{CausalLm, LoadIn, RewardModel};
use tch::{Device, Kind};

use crate::Dir;
use crate::bad_input::refused;
use crate::good_runs::{lines, succeeds};
use crate::pipeline::{prepared, run, stage, stage_folder, summary};

/// Writes the dequantised weights of the model folder `model`, held as `form`, to the folder `name`.
fn dequantised(dir: &Dir, form: LoadIn, name: &str) {
    let model = dir.path("model");
    let quantised = CausalLm::load_quantized(&model, Kind::Float, Device::Cpu, &form.into()).unwrap();
    quantised.save(&dir.path(name), Some(&model)).unwrap();
}

fn numbers(rows: &[Value], column: &str) -> Vec<f64> {
    rows.iter().map(|row| row[column].as_f64().unwrap()).collect()
}

/// Largest difference.
fn apart(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
fn models_in_a_few_bits_score_and_respond_as_their_dequantised_weights() {
    let dir = Dir::new();
    dir.model();
    dir.pairs("p.jsonl", "a", 6);
    for (form, word) in [(LoadIn::FourBit, "4bit"), (LoadIn::EightBit, "8bit")] {
        let whole = format!("whole-{word}");
        dequantised(&dir, form, &whole);
        let logps = |model: &str, more: &[&str], output: &str| {
            succeeds(&dir, &[&["logps", "--model", model, "--data", "p.jsonl", "-o", output], more].concat());
            let rows = lines(&dir, output);
            [numbers(&rows, "ref_chosen_logps"), numbers(&rows, "ref_rejected_logps")].concat()
        };
        let found = logps("model", &["--load-in", word], &format!("l-{word}.jsonl"));
        let expected = logps(&whole, &[], &format!("e-{word}.jsonl"));
        let full = logps("model", &[], &format!("f-{word}.jsonl"));
        assert!(apart(&found, &expected) < 1e-3, "{found:?} {expected:?}");
        assert!(apart(&found, &full) > 10.0 * apart(&found, &expected), "{found:?} {full:?}");

        let responses = |model: &str, more: &[&str]| {
            let compare = ["compare", model, model, "--prompts", "p.jsonl", "--max-new-tokens", "8", "--json"];
            let said = succeeds(&dir, &[&compare[..], more].concat());
            let rows = said.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            rows.map(|row| row["responses"][1]["text"].clone()).collect::<Vec<_>>()
        };
        assert_eq!(responses("model", &["--load-in", word]), responses(&whole, &[]));

        // The reference in a few bits has the numbers of its dequantised weights once more.
        let margin = |more: &[&str]| {
            let eval =
                ["eval", "preferences", "--model", "model", "--reference", &whole, "--data", "p.jsonl", "--json"];
            let said = succeeds(&dir, &[&eval[..], more].concat());
            serde_json::from_str::<Value>(&said).unwrap()["all"]["margin"].as_f64().unwrap().abs()
        };
        assert!(margin(&["--load-in", word]) < 0.1 * margin(&[]));
    }
}

#[test]
fn reward_models_in_a_few_bits_score_as_their_dequantised_weights() {
    let dir = Dir::new();
    dir.model();
    dir.pairs("p.jsonl", "a", 8);
    let train =
        "train --model model --train p.jsonl --objective reward --learning-rate 1e-2 --max-steps 2 --batch-size 4";
    succeeds(&dir, &[&train.split(' ').collect::<Vec<_>>()[..], &["--output", "reward"]].concat());
    let folder = dir.path("reward/model");
    let quantised = RewardModel::load_quantized(&folder, Kind::Float, Device::Cpu, &LoadIn::FourBit.into()).unwrap();
    quantised.save(&dir.path("whole"), Some(&folder)).unwrap();
    let rows =
        (0..5).map(|i| json!({ "prompt": format!("question {i}"), "response": format!("answer {i}") }).to_string());
    dir.write("c.jsonl", rows.collect::<Vec<_>>().join("\n"));
    let mean = |more: &[&str], output: &str| {
        let score = ["score", "--candidates", "c.jsonl", "-o", output, "--json"];
        let said = succeeds(&dir, &[&score[..], more].concat());
        serde_json::from_str::<Value>(&said).unwrap()["means"]["score_reward_model"].as_f64().unwrap()
    };
    let own = ["--scorer", "reward-model:reward/model"];
    let found = mean(&[&own[..], &["--load-in", "4bit"]].concat(), "a.parquet");
    let expected = mean(&["--scorer", "reward-model:whole"], "b.parquet");
    let full = mean(&own, "c.parquet");
    assert!((found - expected).abs() < 1e-5, "{found} {expected}");
    assert!((found - full).abs() > 10.0 * (found - expected).abs(), "{found} {full}");
    // In a file of scorers.
    dir.write("s.toml", "[[scorer]]\nkind = \"reward-model\"\nmodel = \"reward/model\"\nload_in = \"4bit\"\n");
    assert_eq!(mean(&["--scorers", "s.toml"], "d.parquet"), found);
    // A score that was kept is not that of other weights.
    let again = ["score", "--candidates", "c.jsonl", "--scorer", "reward-model:reward/model", "-o", "c.parquet"];
    assert!(!dir.simplemix(&[&again[..], &["--load-in", "4bit"]].concat()).status.success());
    let none = ["score", "--candidates", "c.jsonl", "--scorer", "digit-share", "--load-in", "4bit", "-o", "e.parquet"];
    refused(&dir, &none, &["--load-in is given, but no scorer is a model in this process"]);
}

#[test]
fn a_pipeline_samples_and_measures_in_a_few_bits() {
    let dir = prepared();
    dequantised(&dir, LoadIn::FourBit, "whole");
    let evaluated = ["--eval-prompts", "held.jsonl", "--set", "evaluate.kl_prompts=2"];
    let four = ["--set", "load_in='4bit'", "--output", "four"];
    let more = |own: &[&'static str]| [&["--preset", "simplemix"], &evaluated[..], own].concat();
    run(&dir, &more(&four));
    // The last flag holds.
    run(&dir, &more(&["--model", "whole", "--output", "whole-run"]));
    run(&dir, &more(&["--output", "full"]));
    let summaries = ["four", "whole-run", "full"].map(|output| summary(&dir, output));
    for name in ["generate", "answer-before"] {
        let [four, whole, full] = summaries.each_ref().map(|summary| {
            let folder = stage_folder(summary, name);
            let candidates = dir.path(folder).join("candidates.parquet");
            let rows = simplemix_rollout::CandidateReader::open(&candidates).unwrap();
            let groups: Vec<_> = rows.map(|group| group.unwrap()).collect();
            groups.iter().flat_map(|group| group.rows.iter().map(|row| row.response.clone())).collect::<Vec<_>>()
        });
        assert_eq!(four, whole, "{name}");
        assert_eq!(four.len(), full.len());
    }
    let key = |at: usize, name: &str| stage(&summaries[at], name)["key"].clone();
    for name in ["generate", "answer-before", "divergence"] {
        assert_ne!(key(0, name), key(2, name), "{name}");
    }
    let said = run(&dir, &more(&four));
    assert!(said.contains("done before"), "{said}");
    refused(&dir, &["run", "--model", "model", "--set", "load_in='5bit'", "--output", "x"], &["load_in", "5bit"]);
}

/// A checkpoint of bitsandbytes with as many tokens as the tiny model's tokenizer has.
fn bitsandbytes(dir: &Dir) {
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/quantized/nf4");
    let folder = dir.path("quantised");
    simplemix_model::tiny::write_folder(&folder, 1).unwrap();
    let text = std::fs::read_to_string(golden.join("config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    config["vocab_size"] = 259.into();
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let file = std::fs::read(golden.join("model.safetensors")).unwrap();
    let (length, rest) = file.split_at(8);
    let (header, data) = rest.split_at(u64::from_le_bytes(length.try_into().unwrap()) as usize);
    let mut header: Value = serde_json::from_slice(header).unwrap();
    let mut written = Vec::new();
    for (name, tensor) in header.as_object_mut().unwrap().iter_mut().filter(|(name, _)| *name != "__metadata__") {
        let [from, to] = [0, 1].map(|end| tensor["data_offsets"][end].as_u64().unwrap() as usize);
        let start = written.len();
        if name == "model.embed_tokens.weight" {
            let row = (to - from) / 64;
            (0..259).for_each(|token| written.extend(&data[from + token % 64 * row..][..row]));
            tensor["shape"][0] = 259.into();
        } else {
            written.extend(&data[from..to]);
        }
        tensor["data_offsets"] = json!([start, written.len()]);
    }
    let mut header = header.to_string();
    while !header.len().is_multiple_of(8) {
        header.push(' ');
    }
    let all = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &written].concat();
    std::fs::write(folder.join("model.safetensors"), all).unwrap();
}

#[test]
fn quantised_checkpoints_are_read_without_a_flag() {
    let dir = Dir::new();
    bitsandbytes(&dir);
    dir.pairs("p.jsonl", "a", 3);
    let short = ["--max-length", "100"];
    succeeds(&dir, &[&["logps", "--model", "quantised", "--data", "p.jsonl", "-o", "l.jsonl"], &short[..]].concat());
    let model = CausalLm::load(&dir.path("quantised"), Kind::Float, Device::Cpu).unwrap();
    model.save(&dir.path("whole"), Some(&dir.path("quantised"))).unwrap();
    succeeds(&dir, &[&["logps", "--model", "whole", "--data", "p.jsonl", "-o", "w.jsonl"], &short[..]].concat());
    let of = |file: &str| numbers(&lines(&dir, file), "ref_chosen_logps");
    assert!(apart(&of("l.jsonl"), &of("w.jsonl")) < 1e-3);
    let compare = ["compare", "quantised", "whole", "--prompts", "p.jsonl", "--max-new-tokens", "4", "--json"];
    let said = succeeds(&dir, &compare);
    assert!(said.lines().all(|line| line.contains("\"equal\":true")), "{said}");
    let twice = ["logps", "--model", "quantised", "--data", "p.jsonl", "--load-in", "4bit", "-o", "x.jsonl"];
    refused(&dir, &twice, &["quantization_config", "quantised again"]);
}
