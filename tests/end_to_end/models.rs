//! Models that cannot be used as they are given, or not with the data: refused before any work, exit code 2.

use std::path::Path;

use serde_json::{Value, json};

use crate::bad_input::refused;
use crate::{Dir, stderr};

/// Changes a JSON file of the model folder.
fn change(folder: &Path, file: &str, change: impl FnOnce(&mut Value)) {
    let path = folder.join(file);
    let mut value: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    change(&mut value);
    std::fs::write(path, value.to_string()).unwrap();
}

#[test]
fn tokens_that_the_model_has_not_are_refused_before_any_work() {
    let dir = Dir::new();
    change(&dir.model(), "tokenizer.json", |tokenizer| {
        let mut token = tokenizer["added_tokens"][0].clone();
        token["id"] = 259.into();
        token["content"] = "zebra".into();
        tokenizer["added_tokens"].as_array_mut().unwrap().push(token);
    });
    dir.pairs("fine.jsonl", "a", 8);
    dir.pairs("p.jsonl", "a zebra", 8);
    let parts = ["token id is 259, expected below 259, the size of the model's vocabulary"];
    let train = ["train", "--model", "model", "--train", "p.jsonl", "--output", "run"];
    refused(&dir, &train, &["pair 0 of the training pairs", parts[0]]);
    let eval = ["train", "--model", "model", "--train", "fine.jsonl", "--eval", "p.jsonl", "--output", "run"];
    refused(&dir, &eval, &["pair 0 of the held-out pairs", parts[0]]);
    refused(&dir, &["logps", "--model", "model", "--data", "p.jsonl", "-o", "l.jsonl"], &parts);
    let generate = ["generate", "--model", "model", "--prompts", "p.jsonl", "--max-new-tokens", "4", "-o", "c.parquet"];
    let output = dir.simplemix(&generate);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains(parts[0]), "{}", stderr(&output));
    // Tokens that the data does not use are no matter.
    let fine = dir.simplemix(&["logps", "--model", "model", "--data", "fine.jsonl", "-o", "l.jsonl"]);
    assert!(fine.status.success(), "{}", stderr(&fine));
}

#[test]
fn what_is_no_model_folder_is_named_with_what_to_do() {
    let dir = Dir::new();
    dir.pairs("p.jsonl", "a", 8);
    let train = |model: &str, parts: &[&str]| {
        refused(&dir, &["train", "--model", model, "--train", "p.jsonl", "--output", "run"], parts);
    };
    train("nothing", &["nothing: no such folder"]);
    dir.write("m.gguf", b"GGUF\x03\0\0\0");
    train("m.gguf", &["a GGUF file", "simplemix import-gguf m.gguf FOLDER"]);
    let folder = dir.model();
    change(&folder, "config.json", |config| config["rope_scaling"] = json!({ "rope_type": "spiral", "factor": 2.0 }));
    train("model", &["`rope_scaling.rope_type` is `spiral`"]);
    let text = std::fs::read_to_string(folder.join("config.json")).unwrap();
    std::fs::write(folder.join("config.json"), text.replace("\"rope_scaling\":{", "\"rope_scaling\":{\"x\":Infinity,"))
        .unwrap();
    train("model", &["config.json: `x` is Infinity", "Python writes"]);
    std::fs::remove_file(folder.join("config.json")).unwrap();
    std::fs::write(folder.join("adapter_config.json"), r#"{"base_model_name_or_path":"the/base"}"#).unwrap();
    train("model", &["an adapter of peft", "`the/base`", "--adapter"]);
}

/// Digits that the file splits one by one, and the class that does not: like SmolLM2.
fn with_digits(dir: &Dir) {
    let folder = dir.model();
    change(&folder, "tokenizer.json", |tokenizer| {
        let bytes = tokenizer["pre_tokenizer"].clone();
        let digits = json!({ "type": "Digits", "individual_digits": true });
        tokenizer["pre_tokenizer"] = json!({ "type": "Sequence", "pretokenizers": [digits, bytes] });
        tokenizer["model"]["merges"] = json!([["1", "2"]]);
        for token in tokenizer["added_tokens"].as_array().unwrap().clone() {
            tokenizer["model"]["vocab"][token["content"].as_str().unwrap()] = token["id"].clone();
        }
        tokenizer["model"]["vocab"]["12"] = 259.into();
    });
    change(&folder, "tokenizer_config.json", |config| config["tokenizer_class"] = "GPT2Tokenizer".into());
    dir.pairs("p.jsonl", "12", 8);
}

#[test]
fn tokenizers_that_transformers_builds_anew_are_read_as_asked() {
    let dir = Dir::new();
    with_digits(&dir);
    let tokens = |reading: &[&str]| {
        let args = [&["tokenize", "p.jsonl", "--tokenizer", "model", "--json"], reading].concat();
        let summary: Value = serde_json::from_slice(&dir.simplemix(&args).stdout).unwrap();
        (summary["tokens"]["prompt"].as_u64().unwrap(), summary["notices"].to_string())
    };
    let (file, said) = tokens(&[]);
    assert!(said.contains("8 of 8 pairs looked at have other token ids in transformers 5"), "{said}");
    let (transformers, said) = tokens(&["--tokenizer-as", "transformers"]);
    assert!(said.contains("have other token ids by tokenizer.json"), "{said}");
    assert_eq!(file, transformers + 8);

    // Inspecting counts as tokenising does; 16 responses say 12 nowhere, prompts once each.
    let inspect = |reading: &[&str]| {
        let output = dir.simplemix(&[&["inspect", "p.jsonl", "--tokenizer", "model", "--json"], reading].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let (by_file, by_class) = (inspect(&[]), inspect(&["--tokenizer-as", "transformers"]));
    let median = |found: &Value| found["tokens"]["prompt"]["median"].as_f64().unwrap();
    assert_eq!(median(&by_file), median(&by_class) + 1.0);
    assert!(by_file["notices"].to_string().contains("8 of 8 pairs looked at have other token ids in transformers 5"));
    assert_eq!(dir.simplemix(&["inspect", "p.jsonl", "--tokenizer-as", "file"]).status.code(), Some(2));

    // A mixture by tokens, and its receipt.
    dir.pairs("a.jsonl", "12", 8);
    let text = std::fs::read_to_string(dir.path("a.jsonl")).unwrap();
    dir.write("a.jsonl", text.replace("a good answer", "12 12 12"));
    let tokens = |reading: &[&str]| {
        let mix = ["mix", "--source", "a=a.jsonl", "--size", "8", "-o", "m.jsonl", "--report", "r.json", "--overwrite"];
        let output = dir.simplemix(&[&mix[..], &["--tokenizer", "model"], reading].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        let receipt: Value = serde_json::from_slice(&std::fs::read(dir.path("r.json")).unwrap()).unwrap();
        let verified = dir.simplemix(&["mix", "--verify", "r.json"]);
        assert!(verified.status.success(), "{}", stderr(&verified));
        (receipt["achieved"]["sources"][0]["tokens"].as_u64().unwrap(), stderr(&output), receipt["settings"].clone())
    };
    let (by_file, said, settings) = tokens(&[]);
    assert!(said.contains("8 of 16 texts looked at have other token ids in transformers 5"), "{said}");
    assert!(settings.get("tokenizer_as").is_none());
    let (by_class, _, settings) = tokens(&["--tokenizer-as", "transformers"]);
    // Three times 12 in each of 8 pairs.
    assert_eq!((by_file, &settings["tokenizer_as"]), (by_class + 24, &json!("transformers")));
    let mix = ["mix", "--source", "a=a.jsonl", "-o", "n.jsonl", "--tokenizer-as", "transformers"];
    refused(&dir, &mix, &["--tokenizer-as is set, without `tokenizer`"]);

    // A reward model.
    let train =
        "train --model model --train p.jsonl --objective reward --learning-rate 1e-3 --max-steps 1 --output reward";
    let output = dir.simplemix(&train.split(' ').collect::<Vec<_>>());
    assert!(output.status.success(), "{}", stderr(&output));
    dir.write("c.jsonl", r#"{"prompt": [{"role": "user", "content": "12?"}], "response": "12 or 12"}"#);
    let score = "score --candidates c.jsonl --scorer reward-model:reward/model -o s.parquet --json";
    let output = dir.simplemix(&score.split(' ').collect::<Vec<_>>());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let notices = report["notices"].to_string();
    assert!(
        notices.contains("model: 1 of 1 pairs looked at") || notices.contains("reward: 1 of 1 pairs looked at"),
        "{notices}"
    );
    let as_class = [&score.split(' ').collect::<Vec<_>>()[..], &["--tokenizer-as", "transformers"]].concat();
    // Work of another reading is other work, and the model has no such token.
    refused(&dir, &as_class, &["s.parquet: exists"]);
    let none = "score --candidates c.jsonl --scorer digit-share -o t.parquet --tokenizer-as transformers";
    refused(&dir, &none.split(' ').collect::<Vec<_>>(), &["no scorer has a tokenizer"]);

    // A run notes it; its model has no such token.
    let train = ["train", "--model", "model", "--train", "p.jsonl", "--output", "run", "--max-steps", "1"];
    let output = dir.simplemix(&train);
    assert!(output.status.success(), "{}", stderr(&output));
    let notices = std::fs::read_to_string(dir.path("run/notices.json")).unwrap();
    assert!(notices.contains("--tokenizer-as transformers takes its ids"), "{notices}");
    let train = ["train", "--model", "model", "--train", "p.jsonl", "--output", "r", "--tokenizer-as", "transformers"];
    refused(&dir, &train, &["token id is 259"]);
    let generate = ["generate", "--model", "model", "--prompts", "p.jsonl", "--max-new-tokens", "2", "--samples", "1"];
    let output = dir.simplemix(&[&generate[..], &["-o", "c.parquet"]].concat());
    assert!(output.status.success() && stderr(&output).contains("8 of 8 prompts looked at"), "{}", stderr(&output));
}

/// The tiny model as the text part of a LLaVA, beside a projector.
fn multimodal(folder: &Path) {
    change(folder, "config.json", |config| {
        *config = json!({
            "architectures": ["LlavaForConditionalGeneration"], "model_type": "llava", "text_config": config.clone(),
            "vision_config": { "model_type": "clip_vision_model" },
        });
    });
    let file = folder.join("model.safetensors");
    let tensors = simplemix_model::weights::read_all(&file).unwrap();
    let mut tensors: Vec<_> =
        tensors.into_iter().map(|(name, tensor)| (format!("language_model.{name}"), tensor)).collect();
    tensors.push(("multi_modal_projector.linear_1.weight".to_owned(), tch::Tensor::from_slice(&[1.0f32, 2.0])));
    simplemix_model::weights::save(&file, &tensors).unwrap();
}

#[test]
fn every_command_says_what_the_weights_hold_beside_the_model() {
    let dir = Dir::new();
    dir.pairs("p.jsonl", "a", 8);
    multimodal(&dir.model());
    // 259 rows of 64; two layers of 4096 + 4096 + 4096 + 30720 in matrices and 128 in norms; the last norm's 64.
    let notice =
        "the text part of a `llava` model, 102912 weights, is read; its other tensors, 1 in all, are not loaded";
    let says = |args: &[&str]| {
        let output = dir.simplemix(args);
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(notice), "{args:?}: {}", stderr(&output));
        stderr(&output)
    };
    let train = ["train", "--model", "model", "--train", "p.jsonl", "--output", "run", "--batch-size", "4"];
    let dry = dir.simplemix(&[&train[..], &["--dry-run"]].concat());
    let said = format!("{}{}", stderr(&dry), String::from_utf8_lossy(&dry.stdout));
    assert!(said.contains("102912 weights trained"), "{said}");
    assert!(said.contains("those of the text part of a `llava` model; the others stay as they are"), "{said}");
    says(&train);
    says(&["logps", "--model", "model", "--data", "p.jsonl", "-o", "l.jsonl"]);
    says(&["eval", "preferences", "--model", "run/model", "--data", "p.jsonl"]);
    says(&["generate", "--model", "model", "--prompts", "p.jsonl", "--max-new-tokens", "4", "-o", "c.parquet"]);
    // transformers has no class for it.
    let reward = dir.simplemix(&[&train[..5], &["--output", "r", "--objective", "reward"]].concat());
    assert_eq!(reward.status.code(), Some(2), "{}", stderr(&reward));
    assert!(stderr(&reward).contains("`model_type` of a reward model is `llava`"), "{}", stderr(&reward));
}
