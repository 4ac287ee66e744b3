//! Runs of the text part of a multimodal model: the tiny model inside of a LLaVA is trained as it is alone, and the result is the
//! multimodal model.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use simplemix_data::{Metrics, Watch};
use simplemix_model::{CausalLm, weights};
use simplemix_train::{Outcome, Resume, Run, TrainConfig};
use tch::{Device, Kind, Tensor};

use crate::{Dir, furthest, metrics_differ, over, pairs, start, train, weights_of};

/// Names of the text part in an older file.
fn older(name: &str) -> String {
    format!("language_model.{name}")
}

/// Writes the tiny model as the text part of another, beside it.
fn wrapped(dir: &Dir) -> PathBuf {
    let (plain, whole) = (dir.model(), dir.path("whole"));
    std::fs::create_dir(&whole).unwrap();
    for entry in std::fs::read_dir(&plain).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, whole.join(path.file_name().unwrap())).unwrap();
    }
    let part: Value = serde_json::from_str(&std::fs::read_to_string(plain.join("config.json")).unwrap()).unwrap();
    let config = json!({
        "architectures": ["LlavaForConditionalGeneration"], "model_type": "llava", "text_config": part,
        "vision_config": { "model_type": "clip_vision_model", "hidden_size": 8 }, "image_token_index": 32_000,
        "torch_dtype": "float32",
    });
    std::fs::write(whole.join("config.json"), config.to_string()).unwrap();
    std::fs::write(whole.join("processor_config.json"), "{\"patch_size\": 14}").unwrap();
    let mut tensors: Vec<(String, Tensor)> = weights::read_all(&plain.join(weights::WEIGHTS))
        .unwrap()
        .into_iter()
        .map(|(name, tensor)| (older(&name), tensor))
        .collect();
    let vision = Tensor::arange(24, (Kind::Float, Device::Cpu)).view([2, 12]).to_kind(Kind::Half);
    tensors.push(("vision_tower.layers.0.self_attn.q_proj.weight".to_owned(), vision));
    weights::save(&whole.join(weights::WEIGHTS), &tensors).unwrap();
    whole
}

/// Asserts that a run's model has the weights of another run, and all the rest of the multimodal model.
fn same(plain: &Path, whole: &Path, source: &Path) {
    let (plain, found) = (weights_of(plain), weights_of(whole));
    let before = weights::read_all(&source.join(weights::WEIGHTS)).unwrap();
    assert_eq!(found.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
    let mut others = 0;
    for (name, tensor) in &found {
        match name.strip_prefix("language_model.") {
            Some(inner) => assert_eq!(*tensor, plain[inner], "{name}"),
            None => {
                others += 1;
                assert_eq!((tensor, tensor.kind()), (&before[name], before[name].kind()), "{name}");
            }
        }
    }
    assert_eq!(others, 1);
    let text = |folder: &Path, file: &str| std::fs::read_to_string(folder.join(file)).unwrap();
    for file in ["processor_config.json", "tokenizer.json"] {
        assert_eq!(text(&whole.join("model"), file), text(source, file));
    }
    let config: Value = serde_json::from_str(&text(&whole.join("model"), "config.json")).unwrap();
    assert_eq!((&config["model_type"], &config["vision_config"]["hidden_size"]), (&"llava".into(), &8.into()));
}

#[test]
fn the_text_part_is_trained_as_it_is_alone() {
    let dir = Dir::new();
    let whole = wrapped(&dir);
    for (name, text) in [
        ("weights", "reference.source = 'on-the-fly'"),
        ("adapter", "lora = { rank = 4, targets = ['q_proj'] }"),
        ("responses", "objective = 'sft'"),
    ] {
        let (alone, inside) = (format!("{name}-alone"), format!("{name}-inside"));
        let plain = train(dir.with(&alone, text));
        let config = TrainConfig { model: Some(whole.clone()), ..dir.with(&inside, text) };
        let found = train(config);
        let off = metrics_differ(&plain.records().unwrap(), &found.records().unwrap());
        assert_eq!(off, 0.0, "{name}");
        same(&dir.path(&alone), &dir.path(&inside), &whole);
        let notices = std::fs::read_to_string(dir.path(&inside).join("notices.json")).unwrap();
        assert!(notices.contains("the text part of a `llava` model, "), "{notices}");
    }
    let adapter = std::fs::read_to_string(dir.path("adapter-inside/adapter/adapter_config.json")).unwrap();
    assert!(adapter.contains("\"model.language_model.layers.1.self_attn.q_proj\""), "{adapter}");
    // The result is trained further.
    let again = TrainConfig { model: Some(dir.path("weights-inside/model")), ..dir.config("again") };
    assert_eq!(train(again).outcome, Outcome::Finished);
    let model = CausalLm::load(&dir.path("again/model"), Kind::Float, Device::Cpu).unwrap();
    assert_eq!(model.config().part_of(), Some("llava"));
}

/// Moves a file when the first update is done.
struct Moves<'a>(&'a Path, &'a Path);

impl Watch for Moves<'_> {
    fn metrics(&mut self, _: &Metrics<'_>) {
        if self.0.exists() {
            std::fs::rename(self.0, self.1).unwrap();
        }
    }
}

#[test]
fn a_run_goes_on_and_needs_the_folder_at_its_end() {
    let dir = Dir::new();
    let whole = wrapped(&dir);
    let config = |output: &str| TrainConfig { model: Some(whole.clone()), ..dir.config(output) };
    train(config("through"));
    assert_eq!(start(config("cut"), false, 2).outcome, Outcome::Stopped);
    // A checkpoint holds what is trained.
    let kept = std::fs::read_dir(dir.path("cut/checkpoints")).unwrap().next().unwrap().unwrap().path();
    let kept = weights::read_all(&kept.join(weights::WEIGHTS)).unwrap();
    assert!(kept.keys().all(|name| name.starts_with("model.language_model.") || name == "lm_head.weight"), "{kept:?}");
    start(config("cut"), true, u64::MAX);
    assert_eq!(furthest(&dir.path("through"), &dir.path("cut")), 0.0);
    // Nothing is written where the rest of the model is gone, and the run ends well once it is back.
    let run = Run::with_pairs(config("gone"), &whole, &pairs(24), &pairs(4)).unwrap();
    let away = dir.path("away");
    let error = run.start(Resume::No, &mut Moves(&whole.join(weights::WEIGHTS), &away)).unwrap_err().to_string();
    assert!(error.contains("put the folder back as it was when it was loaded"), "{error}");
    assert!(!dir.path("gone/model").exists());
    std::fs::rename(&away, whole.join(weights::WEIGHTS)).unwrap();
    start(config("gone"), true, u64::MAX);
    assert_eq!(furthest(&dir.path("through"), &dir.path("gone")), 0.0);
}

#[test]
fn a_reward_model_that_transformers_has_no_class_for_is_refused_before_weights_are_read() {
    let dir = Dir::new();
    let whole = wrapped(&dir);
    std::fs::remove_file(whole.join(weights::WEIGHTS)).unwrap();
    let config = over(TrainConfig { model: Some(whole.clone()), ..dir.config("x") }, "objective = 'reward'");
    let error = Run::with_pairs(config, &whole, &pairs(8), &[]).unwrap_err().to_string();
    assert!(error.contains("`model_type` of a reward model is `llava`"), "{error}");
}
