//! Multimodal models: their text part is read under old and new names, and a saved model has every other tensor and file. Numbers
//! are held to transformers in tests/transformers.rs, on the same folders.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use serde_json::Value;
use simplemix_model::{CausalLm, LoraConfig, LoraTargets, ModelConfig, Packed, RewardModel, weights};
use tch::{Device, Kind, Tensor};

const ALL: [&str; 10] = [
    "gemma3_whole",
    "gemma4_whole",
    "internvl",
    "llava",
    "mistral3",
    "qwen2_5_vl",
    "qwen2_vl",
    "qwen3_5_whole",
    "qwen3_vl",
    "smolvlm",
];

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/families").join(name)
}

fn loaded(folder: &Path) -> CausalLm {
    CausalLm::load(folder, Kind::Float, Device::Cpu).unwrap()
}

fn config(folder: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(folder.join("config.json")).unwrap()).unwrap()
}

/// Type, shape and bytes of every tensor of a folder, by name.
fn raw(folder: &Path) -> BTreeMap<String, (String, Vec<usize>, Vec<u8>)> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "safetensors") {
            let bytes = std::fs::read(&path).unwrap();
            for (name, view) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
                all.insert(name, (format!("{:?}", view.dtype()), view.shape().to_vec(), view.data().to_vec()));
            }
        }
    }
    all
}

type Rename<'a> = &'a dyn Fn(&str) -> String;

/// A copy of a golden folder with other names of tensors, and another `config.json`.
fn renamed(name: &str, rename: Rename<'_>, change: &dyn Fn(&mut Value)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut json = config(&golden(name));
    change(&mut json);
    std::fs::write(dir.path().join("config.json"), json.to_string()).unwrap();
    std::fs::copy(golden(name).join("preprocessor_config.json"), dir.path().join("preprocessor_config.json")).unwrap();
    let tensors = weights::read_all(&golden(name).join(weights::WEIGHTS)).unwrap();
    let tensors: Vec<(String, Tensor)> = tensors.into_iter().map(|(name, tensor)| (rename(&name), tensor)).collect();
    weights::save(&dir.path().join(weights::WEIGHTS), &tensors).unwrap();
    dir
}

fn logits(model: &CausalLm) -> Vec<f64> {
    let _guard = tch::no_grad_guard();
    let mut packed = Packed::new();
    packed.push(&[3, 17, 42]).unwrap();
    let logits = model.logits(&model.hidden_states(&packed).unwrap()).unwrap();
    logits.to_kind(Kind::Double).flatten(0, -1).try_into().unwrap()
}

/// Adds one to every weight of the model.
fn train(model: &CausalLm) {
    let _guard = tch::no_grad_guard();
    for (_, parameter) in model.trainable_parameters() {
        let _ = parameter.shallow_clone().g_add_scalar_(1.0);
    }
}

#[test]
fn a_saved_model_has_every_other_tensor_and_file() {
    for name in ALL {
        let dir = tempfile::tempdir().unwrap();
        let copy = dir.path().join("copy");
        let model = loaded(&golden(name));
        train(&model);
        // In shards, so that tensors of both kinds are in several files.
        model.save_in_shards(&copy, Some(&golden(name)), 9_000).unwrap();
        let (before, after) = (raw(&golden(name)), raw(&copy));
        assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>(), "{name}");
        let changed = before.iter().filter(|(tensor, data)| after[*tensor] != **data).count();
        assert_eq!(changed, model.trainable_parameters().len(), "{name}: tensors of the text part alone change");
        assert!(before.len() > changed + 10, "{name}");
        let file = "preprocessor_config.json";
        assert_eq!(std::fs::read(golden(name).join(file)).unwrap(), std::fs::read(copy.join(file)).unwrap());
        assert_eq!(config(&copy), config(&golden(name)), "{name}");
        let back = loaded(&copy);
        assert_eq!(logits(&back), logits(&model), "{name}");
        let [notice] = back.notices() else { panic!("{name}: {:?}", back.notices()) };
        let part = model.config().part_of().unwrap();
        let expected = format!("the text part of a `{part}` model, {} weights, is read", model.config().parameters());
        assert!(notice.contains(&expected), "{notice}");
    }
}

#[test]
fn a_folder_of_the_text_part_alone_says_so() {
    let dir = renamed("qwen3_vl", &str::to_owned, &|_| ());
    let tensors = weights::read_all(&dir.path().join(weights::WEIGHTS)).unwrap();
    let text: Vec<_> = tensors.into_iter().filter(|(name, _)| !name.contains("visual")).collect();
    weights::save(&dir.path().join(weights::WEIGHTS), &text).unwrap();
    let model = loaded(dir.path());
    let [notice] = model.notices() else { panic!("{:?}", model.notices()) };
    assert!(notice.ends_with("is read; no other tensors are here, so a saved model has none either"), "{notice}");
}

#[test]
fn names_of_parameters_are_those_of_transformers_class() {
    for (name, expected) in [
        ("gemma3_whole", "model.language_model.layers.1.self_attn.q_norm.weight"),
        ("qwen2_vl", "model.language_model.layers.1.self_attn.q_proj.bias"),
        ("smolvlm", "model.text_model.layers.1.mlp.up_proj.weight"),
        ("mistral3", "lm_head.weight"),
    ] {
        let model = loaded(&golden(name));
        assert!(model.named_parameters().iter().any(|(name, _)| name == expected), "{name}");
        let json: Value =
            serde_json::from_str(&std::fs::read_to_string(golden(name).join("golden.json")).unwrap()).unwrap();
        for (parameter, _) in model.named_parameters() {
            assert!(json["gradients"].get(parameter).is_some(), "{name}: {parameter}");
        }
    }
}

/// transformers 5.24 reads all of these; what is saved has the names that were there.
#[test]
fn older_and_newer_names_are_read_and_kept() {
    let newer = |name: &str| {
        let name = match name.strip_prefix("language_model.lm_head.") {
            Some(rest) => return format!("lm_head.{rest}"),
            None => name.replacen("language_model.model.", "model.language_model.", 1),
        };
        if name.starts_with("model.") { name } else { format!("model.{name}") }
    };
    let duplicated = |name: &str| newer(name).replacen("model.language_model.", "model.language_model.model.", 1);
    let bare = |name: &str| newer(name).trim_start_matches("model.").to_owned();
    let wrapped = |name: &str| format!("module.{name}");
    let qwen = |name: &str| match name.strip_prefix("model.") {
        Some(rest) => format!("model.language_model.{rest}"),
        None => format!("model.{name}").replace("model.lm_head", "lm_head"),
    };
    let cases: [(&str, Rename<'_>); 7] = [
        ("gemma3_whole", &newer),
        ("llava", &newer),
        ("llava", &duplicated),
        ("llava", &bare),
        ("mistral3", &wrapped),
        ("qwen2_vl", &qwen),
        ("qwen2_5_vl", &qwen),
    ];
    for (name, rename) in cases {
        let dir = renamed(name, rename, &|_| ());
        let model = loaded(dir.path());
        assert_eq!(logits(&model), logits(&loaded(&golden(name))), "{name}");
        let copy = dir.path().join("copy");
        model.save(&copy, Some(dir.path())).unwrap();
        let bare = |name: &String| name.trim_start_matches("module.").to_owned();
        let (before, after) = (raw(dir.path()), raw(&copy));
        assert_eq!(before.keys().map(bare).collect::<Vec<_>>(), after.keys().cloned().collect::<Vec<_>>(), "{name}");
        assert_eq!(logits(&loaded(&copy)), logits(&model));
    }
    // Names that transformers does not read for a class.
    let dir = renamed("qwen3_vl", &|name| name.replacen("model.language_model.", "language_model.model.", 1), &|_| ());
    let error = CausalLm::load(dir.path(), Kind::Float, Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("`model.language_model.embed_tokens.weight` is missing"), "{error}");
}

#[test]
fn settings_of_older_files_stand_beside_the_others() {
    let flat = |json: &mut Value| {
        let mut part = json["text_config"].take();
        let rule = part["rope_parameters"].take();
        part["rope_theta"] = rule["rope_theta"].clone();
        part["rope_scaling"] = serde_json::json!({ "type": "mrope", "mrope_section": rule["mrope_section"] });
        for (key, value) in part.as_object().unwrap().iter().filter(|(key, _)| *key != "model_type") {
            json[key] = value.clone();
        }
        json.as_object_mut().unwrap().remove("text_config");
    };
    for name in ["qwen2_vl", "qwen2_5_vl"] {
        let dir = renamed(name, &str::to_owned, &flat);
        let model = loaded(dir.path());
        assert_eq!(logits(&model), logits(&loaded(&golden(name))), "{name}");
        let copy = dir.path().join("copy");
        model.save(&copy, Some(dir.path())).unwrap();
        assert_eq!(config(&copy), config(dir.path()));
    }
    let dir = renamed("gemma3_whole", &str::to_owned, &flat);
    let error = ModelConfig::from_folder(dir.path()).unwrap_err().to_string();
    assert!(error.contains("`text_config` is absent, expected an object"), "{error}");
}

#[test]
fn the_text_parts_name_has_the_default_of_the_class() {
    for (name, is_fixed) in
        [("gemma3_whole", true), ("mistral3", false), ("qwen3_5_whole", true), ("qwen3_vl", true), ("smolvlm", false)]
    {
        let without = |json: &mut Value| {
            json["text_config"].as_object_mut().unwrap().remove("model_type");
        };
        let dir = renamed(name, &str::to_owned, &without);
        assert_eq!(logits(&loaded(dir.path())), logits(&loaded(&golden(name))), "{name}");
        let other = |json: &mut Value| json["text_config"]["model_type"] = "mamba".into();
        let dir = renamed(name, &str::to_owned, &other);
        match ModelConfig::from_folder(dir.path()) {
            Ok(config) => assert!(is_fixed && config.part_of().is_some(), "{name}"),
            Err(error) => {
                let error = error.to_string();
                assert!(
                    !is_fixed && error.contains("`text_config.model_type` is `mamba`, expected one of "),
                    "{error}"
                );
            }
        }
    }
    // A key that transformers reads in the text model's own class alone.
    let capped = renamed("gemma3_whole", &str::to_owned, &|json| {
        json["text_config"]["final_logit_softcapping"] = 0.5.into();
    });
    assert_eq!(logits(&loaded(capped.path())), logits(&loaded(&golden("gemma3_whole"))));
    // Keys inside are named as such, and those of the whole model count.
    for (key, change) in [
        (
            "text_config.hidden_act",
            &(|json: &mut Value| json["text_config"]["hidden_act"] = "tanh".into()) as &dyn Fn(&mut Value),
        ),
        ("text_config.num_key_value_heads", &|json| json["text_config"]["num_key_value_heads"] = 3.into()),
        ("quantization_config.quant_method", &|json| json["quantization_config"] = serde_json::json!({})),
        ("model_type", &|json| json["model_type"] = "mllama".into()),
    ] {
        let dir = renamed("mistral3", &str::to_owned, change);
        let error = ModelConfig::from_folder(dir.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("`{key}` is ")), "{error}");
    }
}

/// The whole model's key decides whether the head is tied; for some classes that of the text part too, which older files have.
#[test]
fn the_head_is_tied_as_the_class_says() {
    let tied = |name: &str, change: &dyn Fn(&mut Value)| {
        ModelConfig::from_folder(renamed(name, &str::to_owned, change).path()).unwrap().tie_word_embeddings
    };
    let remove = |json: &mut Value| {
        json.as_object_mut().unwrap().remove("tie_word_embeddings");
    };
    let part = |json: &mut Value| {
        remove(json);
        json["text_config"]["tie_word_embeddings"] = true.into();
    };
    let null = |json: &mut Value| json["tie_word_embeddings"] = Value::Null;
    for (name, absent, of_part) in
        [("mistral3", true, true), ("smolvlm", false, false), ("llava", false, true), ("qwen2_vl", false, true)]
    {
        assert_eq!((tied(name, &remove), tied(name, &part), tied(name, &null)), (absent, of_part, false), "{name}");
    }
    // Heads that differ untie a model, in what is written too.
    let dir = renamed("mistral3", &str::to_owned, &|json| json["tie_word_embeddings"] = true.into());
    let model = loaded(dir.path());
    assert_eq!(logits(&model), logits(&loaded(&golden("mistral3"))));
    assert_eq!(model.notices().len(), 2);
    let copy = dir.path().join("copy");
    model.save(&copy, Some(dir.path())).unwrap();
    assert_eq!(config(&copy)["tie_word_embeddings"], false);
    assert_eq!(loaded(&copy).notices().len(), 1);
}

#[test]
fn files_beside_weights_are_copied_and_weights_in_other_forms_are_not() {
    let dir = renamed("llava", &str::to_owned, &|_| ());
    let templates = dir.path().join("additional_chat_templates");
    std::fs::create_dir(&templates).unwrap();
    std::fs::create_dir(dir.path().join("onnx")).unwrap();
    std::fs::write(templates.join("tool_use.jinja"), "{{ tools }}").unwrap();
    let files =
        ["params.json", "tekken.json", "processing.py", "consolidated.safetensors", "pytorch_model.bin", ".hidden"];
    files.iter().for_each(|name| std::fs::write(dir.path().join(name), *name).unwrap());
    let copy = dir.path().join("copy");
    loaded(dir.path()).save(&copy, None).unwrap();
    let mut names: Vec<String> =
        std::fs::read_dir(&copy).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let expected = [
        "additional_chat_templates",
        "config.json",
        "model.safetensors",
        "params.json",
        "preprocessor_config.json",
        "processing.py",
        "tekken.json",
    ];
    assert_eq!(names, expected);
    let template = copy.join("additional_chat_templates/tool_use.jinja");
    assert_eq!(std::fs::read_to_string(template).unwrap(), "{{ tools }}");
}

#[test]
fn a_folder_that_is_gone_is_an_error_before_anything_is_written() {
    let dir = renamed("llava", &str::to_owned, &|_| ());
    let model = loaded(dir.path());
    let elsewhere = tempfile::tempdir().unwrap();
    let copy = elsewhere.path().join("copy");
    // The tokenizer's folder may be another; the tensors are those of the folder that was loaded.
    model.save(&copy, Some(&golden("gemma3_whole"))).unwrap();
    assert_eq!(raw(&copy), raw(dir.path()));
    assert_eq!(config(&copy)["model_type"], "llava");
    let tensors: Vec<_> = weights::read_all(&dir.path().join(weights::WEIGHTS)).unwrap().into_iter().collect();
    weights::save(&dir.path().join(weights::WEIGHTS), &tensors[10..]).unwrap();
    for _ in 0..2 {
        let again = elsewhere.path().join("again");
        let error = model.save(&again, None).unwrap_err().to_string();
        assert!(error.contains("are to be copied from here, and cannot be"), "{error}");
        assert!(!again.exists());
        std::fs::remove_file(dir.path().join(weights::WEIGHTS)).unwrap_or_default();
    }
    let random = CausalLm::random(model.config().clone(), 1, Device::Cpu).unwrap();
    let error = random.save(&elsewhere.path().join("random"), None).unwrap_err().to_string();
    assert!(error.contains("the text part of a `llava` model, from no folder"), "{error}");
}

#[test]
fn element_types_of_the_other_tensors_stay() {
    let dir = renamed("internvl", &str::to_owned, &|json| json["text_config"]["torch_dtype"] = "float32".into());
    let mut tensors: Vec<_> = weights::read_all(&dir.path().join(weights::WEIGHTS)).unwrap().into_iter().collect();
    for (name, tensor) in &mut tensors {
        *tensor = tensor.to_kind(if name.starts_with("vision") { Kind::Half } else { Kind::BFloat16 });
    }
    weights::save(&dir.path().join(weights::WEIGHTS), &tensors).unwrap();
    let before = raw(dir.path());
    for kind in [Kind::Float, Kind::BFloat16] {
        let copy = dir.path().join(format!("{kind:?}"));
        CausalLm::load(dir.path(), kind, Device::Cpu).unwrap().save(&copy, Some(dir.path())).unwrap();
        let after = raw(&copy);
        let is_vision = |name: &str| name.starts_with("vision") || name.starts_with("multi");
        assert!(before.iter().filter(|(name, _)| is_vision(name)).all(|(name, data)| after[name] == *data));
        let expected = if kind == Kind::Float { "F32" } else { "BF16" };
        assert_eq!(after["language_model.model.norm.weight"].0, expected);
        // transformers makes all weights this one, so it holds every number of both.
        let json = config(&copy);
        assert_eq!((&json["dtype"], &json["text_config"]["torch_dtype"]), (&"float32".into(), &"float32".into()));
    }
}

#[test]
fn an_adapter_changes_the_text_part_alone() {
    let folder = golden("gemma3_whole");
    let mut model = loaded(&folder);
    let targets = LoraTargets::Named(["q_proj", "v_proj"].map(str::to_owned).into());
    let lora = LoraConfig { rank: 2, targets, ..LoraConfig::default() };
    model.add_adapter("default", lora, 1).unwrap();
    let policy = model.with_adapter(Some("default")).unwrap();
    for (name, tensor) in policy.trainable_parameters() {
        assert!(name.starts_with("base_model.model.model.language_model.layers."), "{name}");
        let _guard = tch::no_grad_guard();
        let _ = tensor.shallow_clone().fill_(0.3);
    }
    let dir = tempfile::tempdir().unwrap();
    let merged = dir.path().join("merged");
    policy.save_merged(&merged, Some(&folder)).unwrap();
    let (before, after) = (raw(&folder), raw(&merged));
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    let changed: Vec<&String> = before.keys().filter(|name| before[*name] != after[*name]).collect();
    assert_eq!(changed.len(), 2 * model.config().num_hidden_layers);
    assert!(changed.iter().all(|name| name.starts_with("language_model.model.layers.")), "{changed:?}");
    let (merged, unmerged) = (logits(&loaded(&merged)), logits(&policy));
    assert!(merged.iter().zip(&unmerged).all(|(a, b)| (a - b).abs() < 1e-4 * b.abs().max(1.0)));
    assert_eq!(logits(&policy.merged().unwrap()), merged);
    // Suffixes match the vision tower's layers too where peft reads them, so its file names the text part's alone.
    let saved = dir.path().join("adapter");
    policy.save_adapter("default", &saved, None).unwrap();
    let json: Value =
        serde_json::from_str(&std::fs::read_to_string(saved.join("adapter_config.json")).unwrap()).unwrap();
    let named = json["target_modules"].as_array().unwrap();
    let expected = |(i, name): (usize, &str)| format!("model.language_model.layers.{i}.self_attn.{name}");
    let layers = 0..model.config().num_hidden_layers;
    let all: Vec<String> = layers.flat_map(|i| ["q_proj", "v_proj"].map(|name| expected((i, name)))).collect();
    assert_eq!(named.iter().map(|name| name.as_str().unwrap()).collect::<Vec<_>>(), all);
}

#[test]
fn reward_models_are_those_that_transformers_has() {
    let dir = tempfile::tempdir().unwrap();
    let folder = golden("gemma3_whole");
    let model = RewardModel::on_top_of(loaded(&folder)).unwrap();
    let saved = dir.path().join("reward");
    model.save(&saved, Some(&folder)).unwrap();
    assert_eq!(config(&saved)["architectures"][0], "Gemma3ForSequenceClassification");
    let (mut before, after) = (raw(&folder), raw(&saved));
    before.insert("score.weight".to_owned(), after["score.weight"].clone());
    assert_eq!(before, after);
    let back = RewardModel::load(&saved, Kind::Float, Device::Cpu).unwrap();
    assert_eq!(back.score(&[&[3, 4, 5]]).unwrap(), [0.0]);
    let again = dir.path().join("again");
    back.save(&again, None).unwrap();
    assert_eq!(raw(&again), after);
    let error = RewardModel::on_top_of(loaded(&golden("llava"))).unwrap_err().to_string();
    assert!(
        error.contains("`model_type` of a reward model is `llava`, expected one for which transformers has a class"),
        "{error}"
    );
}

/// Files as peft 0.21 writes them for `target_modules = ["q_proj"]`, which matches layers of the vision tower too.
#[test]
fn an_adapter_that_peft_made_by_names_is_read_without_its_other_parts() {
    let folder = golden("gemma3_whole");
    let layers = loaded(&folder).config().num_hidden_layers;
    let tensor = |shape: [i64; 2], value: f64| Tensor::full(shape, value, (Kind::Float, Device::Cpu));
    let adapter = |prefix: &str, vision: f64| {
        let dir = tempfile::tempdir().unwrap();
        let json = serde_json::json!({ "peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "out_proj"] });
        std::fs::write(dir.path().join("adapter_config.json"), json.to_string()).unwrap();
        let mut tensors: Vec<(String, Tensor)> = Vec::new();
        let mut add = |module: String, shape: [i64; 2], value: f64| {
            let name = |matrix: &str| format!("base_model.model.{module}.lora_{matrix}.weight");
            tensors.push((name("A"), tensor([2, shape[1]], 0.1)));
            tensors.push((name("B"), tensor([shape[0], 2], value)));
        };
        (0..layers).for_each(|i| add(format!("{prefix}.layers.{i}.self_attn.q_proj"), [32, 16], 0.2));
        add("model.vision_tower.encoder.layers.0.self_attn.q_proj".to_owned(), [8, 8], vision);
        add("model.vision_tower.encoder.layers.0.self_attn.out_proj".to_owned(), [8, 8], vision);
        weights::save(&dir.path().join("adapter_model.safetensors"), &tensors).unwrap();
        dir
    };
    let with = |prefix: &str| {
        let mut model = loaded(&folder);
        model.load_adapter("a", adapter(prefix, 0.0).path()).unwrap();
        let [_, notice] = model.notices() else { panic!("{:?}", model.notices()) };
        assert!(
            notice.contains(": 4 tensors of the adapter are beside other parts of the model than its text"),
            "{notice}"
        );
        logits(&model.with_adapter(Some("a")).unwrap())
    };
    let today = with("model.language_model");
    assert_ne!(today, logits(&loaded(&folder)));
    // Names of adapters that were made with transformers before 4.52.
    assert_eq!(with("language_model.model"), today);
    let trained = adapter("model.language_model", 0.3);
    let error = loaded(&folder).load_adapter("a", trained.path()).unwrap_err().to_string();
    assert!(error.contains("out_proj.lora_B.weight` changes another part of the model than its text"), "{error}");
    // A name that belongs to the text part and is not in it is no other part.
    let unknown = adapter("model.language_model.inner", 0.0);
    let error = loaded(&folder).load_adapter("a", unknown.path()).unwrap_err().to_string();
    assert!(error.contains("q_proj.lora_A.weight` is not part of the model"), "{error}");
}
