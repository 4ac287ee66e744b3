//! Adapters: peft's numbers (tests/golden/model_lora.py), files in and out, merging, dropped inputs, bad settings.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use simplemix_model::{
    CausalLm, GenerateOptions, LoraConfig, LoraTargets, ModelConfig, ModuleNames, Packed, Request, RewardModel,
    Sampling, Targets, tiny, weights,
};
use tch::{Device, Kind, Tensor};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name)
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.detach().to_kind(Kind::Double).flatten(0, -1).try_into().unwrap()
}

fn off(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs() / b.abs().max(1.0)).fold(0.0, f64::max)
}

fn last_logits(model: &CausalLm, ids: &[u32]) -> Vec<f64> {
    let mut packed = Packed::new();
    packed.push(ids).unwrap();
    let _guard = tch::no_grad_guard();
    let hidden = model.hidden_states(&packed).unwrap();
    values(&model.logits(&hidden.narrow(0, ids.len() as i64 - 1, 1)).unwrap())
}

/// Negative log-probability of all tokens after the first, with its gradients, by the head as losses take it.
fn backward(model: &CausalLm, ids: &[u32]) -> f64 {
    let (mut packed, mut targets) = (Packed::new(), Targets::default());
    let first = packed.push(&ids[..1]).unwrap();
    packed.push_response(first, &ids[1..], &mut targets).unwrap();
    let pass = model.checkpointed(&packed).unwrap();
    let rows = pass.hidden().index_select(0, &Tensor::from_slice(&targets.rows));
    let head = model.head().unwrap();
    let logits = rows.linear(head.weight(), None::<&Tensor>) * model.config().logit_scale;
    let logits = match model.config().logit_soft_cap {
        Some(cap) => (logits / cap).tanh() * cap,
        None => logits,
    };
    let logps = logits.log_softmax(-1, Kind::Float);
    let loss = -logps.gather(1, &Tensor::from_slice(&targets.tokens).unsqueeze(1), false).sum(Kind::Float);
    loss.backward();
    head.backward().unwrap();
    pass.backward().unwrap();
    loss.double_value(&[])
}

/// A case of tests/golden/model_lora.py.
struct Golden {
    folder: PathBuf,
    numbers: Value,
}

impl Golden {
    fn read(name: &str) -> Self {
        let folder = golden("lora").join(name);
        let text = std::fs::read_to_string(folder.join("golden.json")).unwrap();
        Self { folder, numbers: serde_json::from_str(&text).unwrap() }
    }

    fn base(&self) -> PathBuf {
        golden("families").join(self.numbers["model"].as_str().unwrap())
    }

    fn list(&self, key: &str) -> Vec<f64> {
        self.numbers[key].as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).collect()
    }

    fn ids(&self) -> Vec<u32> {
        self.list("ids").iter().map(|&id| id as u32).collect()
    }

    fn check_gradients(&self, loss: f64, parameters: &[(String, Tensor)]) {
        assert!((loss - self.numbers["loss"].as_f64().unwrap()).abs() < 1e-3, "{loss}");
        for (name, tensor) in parameters {
            let want = self.numbers["gradient_norms"][name].as_f64().unwrap_or_else(|| panic!("{name}"));
            let gradient = tensor.grad();
            let got = if gradient.defined() { gradient.norm().double_value(&[]) } else { 0.0 };
            assert!((got - want).abs() <= 1e-4 * want.max(1.0), "{name}: {got} {want}");
        }
        assert_eq!(parameters.len(), self.numbers["gradient_norms"].as_object().unwrap().len());
    }

    /// peft's files hold the same tensors as ours.
    fn check_files(&self, ours: &Path) {
        let read = |folder: &Path| weights::read_all(&folder.join("adapter_model.safetensors")).unwrap();
        let (theirs, ours) = (read(&self.folder), read(ours));
        // A second name of the trained embeddings, which peft writes where the vocabulary was resized.
        let names: Vec<&String> = theirs.keys().filter(|name| !name.contains("modules_to_save")).collect();
        assert_eq!(names, ours.keys().collect::<Vec<_>>());
        for (name, tensor) in ours {
            assert!(off(&values(&tensor), &values(&theirs[&name])) < 1e-6, "{name}");
        }
    }
}

fn check(name: &str) {
    let case = Golden::read(name);
    let (folder, ids, base) = (&case.folder, case.ids(), case.base());
    let mut reference = CausalLm::load(&base, Kind::Float, Device::Cpu).unwrap();
    reference.load_adapter("default", folder).unwrap();
    let before = last_logits(&reference, &ids);
    let policy = reference.with_adapter(Some("default")).unwrap();
    let logits = case.list("last_logits");
    assert!(off(&last_logits(&policy, &ids), &logits) < 1e-4);

    policy.set_trainable(true);
    let loss = backward(&policy, &ids);
    case.check_gradients(loss, &policy.trainable_parameters());
    assert!(policy.named_parameters().iter().all(|(_, tensor)| !tensor.requires_grad()));
    let trained = LoraConfig::from_folder(folder).unwrap().tensors(policy.config()).unwrap();
    let named = policy.trainable_parameters().into_iter().map(|(name, tensor)| (name, tensor.size()));
    assert_eq!(named.collect::<Vec<_>>(), trained);
    policy.set_trainable(false);

    // The reference is the same weights without the adapter; merging leaves both as they are.
    assert!(off(&last_logits(&policy.merged().unwrap(), &ids), &logits) < 1e-4);
    assert_eq!(last_logits(&reference, &ids), before);
    assert!(off(&last_logits(&policy, &ids), &logits) < 1e-4);

    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("copy");
    policy.save_adapter("default", &copy, Some("somewhere")).unwrap();
    case.check_files(&copy);
    let mut again = CausalLm::load(&base, Kind::Float, Device::Cpu).unwrap();
    again.load_adapter("copy", &copy).unwrap();
    assert_eq!(last_logits(&again.with_adapter(Some("copy")).unwrap(), &ids), last_logits(&policy, &ids));

    let merged = dir.path().join("merged");
    policy.save_merged(&merged, Some(&base)).unwrap();
    let merged = CausalLm::load(&merged, Kind::Float, Device::Cpu).unwrap();
    assert!(off(&last_logits(&merged, &ids), &logits) < 1e-4);
    // Steps of decoding give what a pass over all tokens gives.
    let sampling = Sampling { temperature: 0.0, ..Sampling::default() };
    let options = GenerateOptions { max_new_tokens: 4, sampling, ..GenerateOptions::default() };
    let request = [Request { prompt: ids.clone(), stream: 0 }];
    let greedy = |model: &CausalLm| model.generate(&request, &options, &mut |_, _| {}).unwrap()[0][0].tokens.clone();
    assert_eq!(greedy(&policy), greedy(&merged));
}

#[test]
fn layers_by_regular_expression_with_ranks_and_alphas_of_their_own() {
    check("regex_patterns");
}

/// Matrices of experts, which lie in one tensor for each of transformers' tensors of experts.
#[test]
fn experts_and_their_router() {
    check("experts_all");
    check("experts_named");
    check("experts_alone");
    check("experts_in_groups");
}

#[test]
fn experts_as_peft_names_them() {
    let case = Golden::read("experts_all");
    let mut model = CausalLm::load(&case.base(), Kind::Float, Device::Cpu).unwrap();
    let lora = LoraConfig { rank: 2, alpha: 4.0, ..LoraConfig::default() };
    model.add_adapter("all", lora.clone(), 3).unwrap();
    let dir = tempfile::tempdir().unwrap();
    model.save_adapter("all", &dir.path().join("all"), None).unwrap();
    let settings = |folder: &Path| {
        let text = std::fs::read_to_string(folder.join("adapter_config.json")).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()
    };
    // As peft writes `all-linear` out, but for the order of its sets.
    let (ours, theirs) = (settings(&dir.path().join("all")), settings(&case.folder));
    let set = |settings: &Value, key: &str| {
        let all = settings[key].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned());
        all.collect::<std::collections::BTreeSet<String>>()
    };
    for key in ["target_modules", "target_parameters"] {
        assert_eq!(set(&ours, key), set(&theirs, key), "{key}");
    }
    for key in ["rank_pattern", "alpha_pattern"] {
        let number = |settings: &Value| settings[key][r".*\.gate_up_proj"].as_f64();
        assert_eq!((number(&ours), ours[key].as_object().unwrap().len()), (number(&theirs), 1), "{key}");
    }
    let mut says = |config: LoraConfig, expected: &str| {
        let error = model.add_adapter("refused", config, 5).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    let named = |names: &[&str]| LoraTargets::Named(names.iter().map(|name| (*name).to_owned()).collect());
    let parameters = |name: &str| vec![name.to_owned()];
    says(LoraConfig { targets: named(&["gate_proj", "q_proj"]), ..lora.clone() }, "`gate_proj` without `up_proj`");
    says(LoraConfig { dropout: 0.1, ..lora.clone() }, "adapter of experts is dropout of 0.1");
    says(LoraConfig { dora: true, ..lora.clone() }, "adapter of experts is DoRA");
    let pattern = LoraTargets::Pattern(".*_proj".to_owned());
    says(LoraConfig { targets: pattern, ..lora.clone() }, "of a model with experts is `.*_proj`");
    let wrong = LoraConfig { parameters: parameters("q_proj.weight"), ..lora.clone() };
    says(wrong, "`q_proj.weight`, which matches no such tensor");
    let mut plain = CausalLm::random(tiny::config(), 1, Device::Cpu).unwrap();
    let error = plain.add_adapter("a", LoraConfig { parameters: parameters("down_proj"), ..lora }, 1).unwrap_err();
    assert!(error.to_string().contains("the model has no experts"), "{error}");
}

#[test]
fn some_layers_with_their_biases() {
    check("some_layers");
}

#[test]
fn all_biases() {
    check("all_biases");
}

#[test]
fn modules_trained_whole_untie_the_head() {
    check("saved_modules");
    check("saved_embedding");
}

#[test]
fn a_head_that_is_kept_tied() {
    check("kept_tied");
    let case = Golden::read("kept_tied");
    let mut model = CausalLm::load(&case.base(), Kind::Float, Device::Cpu).unwrap();
    model.load_adapter("a", &case.folder).unwrap();
    let merged = model.with_adapter(Some("a")).unwrap().merged().unwrap();
    assert!(merged.config().tie_word_embeddings);
}

#[test]
fn matrices_beside_embedding_and_head() {
    check("embeddings");
}

#[test]
fn lengths_and_directions_apart() {
    check("dora");
    check("dora_head");
}

#[test]
fn modules_that_files_name_or_lay_out_in_another_way() {
    check("neox_head");
    check("gpt2_saved");
}

/// A model whose adapter is refused keeps its own embeddings.
#[test]
fn a_refused_adapter_leaves_the_model_as_it_was() {
    let case = Golden::read("resized_saved");
    let dir = tempfile::tempdir().unwrap();
    let mut tensors = weights::read_all(&case.folder.join("adapter_model.safetensors")).unwrap();
    assert!(tensors.remove("base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight").is_some());
    let tensors: Vec<(String, Tensor)> = tensors.into_iter().collect();
    weights::save(&dir.path().join("adapter_model.safetensors"), &tensors).unwrap();
    std::fs::copy(case.folder.join("adapter_config.json"), dir.path().join("adapter_config.json")).unwrap();
    let mut model = CausalLm::load(&case.base(), Kind::Float, Device::Cpu).unwrap();
    let before = model.config().vocab_size;
    let error = model.load_adapter("a", dir.path()).unwrap_err().to_string();
    assert!(error.contains("v_proj.lora_B.weight` is missing"), "{error}");
    assert_eq!((model.config().vocab_size, model.head().unwrap().weight().size()[0]), (before, before));
}

#[test]
fn a_vocabulary_of_the_adapters_own() {
    check("resized");
    check("resized_saved");
}

#[test]
fn linear_layers_that_lie_turned_in_files() {
    check("turned");
    check("turned_dora");
    check("turned_saved");
    let folder = golden("lora").join("turned");
    let mut model = CausalLm::load(&golden("families").join("gpt2_plain"), Kind::Float, Device::Cpu).unwrap();
    model.load_adapter("a", &folder).unwrap();
    let dir = tempfile::tempdir().unwrap();
    model.save_adapter("a", &dir.path().join("copy"), None).unwrap();
    let settings = |folder: &Path| -> Value {
        serde_json::from_str(&std::fs::read_to_string(folder.join("adapter_config.json")).unwrap()).unwrap()
    };
    for folder in [folder, dir.path().join("copy")] {
        assert_eq!(settings(&folder)["fan_in_fan_out"], true);
    }
}

#[test]
fn fused_heads_and_layers_side_by_side() {
    check("by_head");
    check("side_by_side");
}

#[test]
fn an_activation_with_weights() {
    check("ungated");
}

#[test]
fn a_scaled_embedding_and_scaled_logits() {
    check("scaled");
}

#[test]
fn an_adapter_of_a_reward_model() {
    adapted_reward("reward");
    adapted_reward("turned_reward");
}

fn adapted_reward(name: &str) {
    let case = Golden::read(name);
    let load = || RewardModel::on_top_of(CausalLm::load(&case.base(), Kind::Float, Device::Cpu).unwrap()).unwrap();
    let mut model = load();
    model.load_adapter(&case.folder).unwrap();
    let (ids, want) = (case.ids(), case.list("last_logits")[0]);
    let score = |model: &RewardModel| model.score(&[&ids]).unwrap()[0];
    assert!((score(&model) - want).abs() < 1e-4);
    model.set_trainable(true);
    let mut packed = Packed::new();
    packed.push(&ids).unwrap();
    let loss = model.scores(&packed, &[ids.len() as i64 - 1]).unwrap().sum(Kind::Float);
    loss.backward();
    case.check_gradients(loss.double_value(&[]), &model.trainable_parameters());
    model.set_trainable(false);

    let dir = tempfile::tempdir().unwrap();
    let (adapter, merged) = (dir.path().join("adapter"), dir.path().join("merged"));
    model.save_adapter(&adapter, None).unwrap();
    case.check_files(&adapter);
    let settings: Value =
        serde_json::from_str(&std::fs::read_to_string(adapter.join("adapter_config.json")).unwrap()).unwrap();
    assert_eq!(
        (&settings["task_type"], &settings["modules_to_save"]),
        (&"SEQ_CLS".into(), &serde_json::json!(["classifier", "score"]))
    );
    let mut again = load();
    again.load_adapter(&adapter).unwrap();
    assert_eq!(score(&again), score(&model));
    model.save(&merged, Some(&case.base())).unwrap();
    assert!((score(&RewardModel::load(&merged, Kind::Float, Device::Cpu).unwrap()) - want).abs() < 1e-4);
    // Neither kind of model takes the other's adapter.
    let mut causal = CausalLm::load(&case.base(), Kind::Float, Device::Cpu).unwrap();
    let error = causal.load_adapter("a", &adapter).unwrap_err().to_string();
    assert!(error.contains("`task_type` of an adapter is `SEQ_CLS`, expected `CAUSAL_LM`"), "{error}");
}

#[test]
fn all_linear_layers() {
    check("all_linear");
}

#[test]
fn named_layers_with_a_rank_stabilised_scale() {
    check("named_rslora");
}

#[test]
fn layers_with_the_gated_delta_rule() {
    check("delta_rule");
}

#[test]
fn layers_with_short_convolutions() {
    check("short_convolution");
}

#[test]
fn layers_with_embeddings_of_their_own() {
    check("own_embeddings");
}

#[test]
fn fused_projections() {
    check("fused");
}

/// A weight that is merged while it is written is `W + B A * scale` in f32, rounded once, as peft's `merge_and_unload` computes it; every
/// other weight is as it was, and so is the folder that a merged model saves.
#[test]
fn weights_are_merged_as_they_are_written() {
    let dir = tempfile::tempdir().unwrap();
    tiny::write_folder(&dir.path().join("base"), 3).unwrap();
    for kind in [Kind::Float, Kind::BFloat16] {
        let path = |name: &str| dir.path().join(format!("{name} {kind:?}"));
        let mut model = CausalLm::load(&dir.path().join("base"), kind, Device::Cpu).unwrap();
        let targets = LoraTargets::Named(["q_proj", "down_proj"].map(str::to_owned).into());
        model.add_adapter("a", LoraConfig { rank: 2, alpha: 3.0, targets, ..LoraConfig::default() }, 1).unwrap();
        let policy = model.with_adapter(Some("a")).unwrap();
        for (index, (_, tensor)) in policy.trainable_parameters().into_iter().enumerate() {
            let numel = tensor.numel() as i64;
            let values = (Tensor::arange(numel, (Kind::Float, Device::Cpu)) + index as i64).sin() * 0.1;
            tensor.shallow_clone().copy_(&values.view_as(&tensor));
        }
        policy.save_merged(&path("written"), Some(&dir.path().join("base"))).unwrap();
        policy.merged().unwrap().save(&path("held"), Some(&dir.path().join("base"))).unwrap();
        let names = |folder: &Path| {
            let mut names: Vec<_> = folder.read_dir().unwrap().map(|file| file.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names(&path("written")), names(&path("held")));
        for name in names(&path("held")) {
            let bytes = |folder: &str| std::fs::read(path(folder).join(&name)).unwrap();
            assert!(bytes("written") == bytes("held"), "{kind:?} {name:?}");
        }
        let saved = weights::read_all(&path("written").join(weights::WEIGHTS)).unwrap();
        let matrices: BTreeMap<String, Tensor> = policy.trainable_parameters().into_iter().collect();
        let mut changed = 0;
        for (name, weight) in model.named_parameters() {
            let module = name.strip_suffix(".weight").unwrap();
            let of = |matrix: &str| matrices.get(&format!("base_model.model.{module}.lora_{matrix}.weight"));
            let expected = match (of("A"), of("B")) {
                (Some(a), Some(b)) => (weight.to_kind(Kind::Float) + b.matmul(a) * 1.5).to_kind(kind),
                _ => weight.shallow_clone(),
            };
            changed += usize::from(saved[name] != *weight);
            assert!(saved[name] == expected, "{kind:?} {name}");
        }
        assert_eq!(changed, 4);
    }
}

/// Peak of resident memory in bytes; with `again`, counted from now on.
fn peak(again: bool) -> usize {
    if again {
        std::fs::write("/proc/self/clear_refs", "5").unwrap();
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")).unwrap();
    line.parse::<usize>().unwrap() * 1024
}

/// A second model of half a gigabyte is not made: `cargo test --test lora -- --ignored`. Measured were 118 MB more at the peak,
/// with the code and buffers of libtorch's first product; the largest tensor has 17 MB.
#[test]
#[ignore = "half a gigabyte; the peak is that of the process, so no other test may run beside it"]
fn merging_makes_no_second_model() {
    let mut json = tiny::config().to_json();
    for (key, value) in
        [("hidden_size", 1024), ("intermediate_size", 4096), ("num_hidden_layers", 8), ("head_dim", 256)]
    {
        json[key] = value.into();
    }
    let config = ModelConfig::from_json(&json.to_string(), Path::new("config.json")).unwrap();
    let weights = config.parameters() as usize * 4;
    let mut model = CausalLm::random(config, 1, Device::Cpu).unwrap();
    model.add_adapter("a", LoraConfig { rank: 8, ..LoraConfig::default() }, 1).unwrap();
    let policy = model.with_adapter(Some("a")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let before = peak(true);
    policy.save_merged(&dir.path().join("merged"), None).unwrap();
    let more = peak(false).saturating_sub(before);
    assert!(weights > 480 << 20 && more < weights / 3, "{more} bytes more for {weights} bytes of weights");
}

fn adapted(config: LoraConfig) -> CausalLm {
    let mut model = CausalLm::random(tiny::config(), 3, Device::Cpu).unwrap();
    model.add_adapter("a", config, 5).unwrap();
    model.with_adapter(Some("a")).unwrap()
}

#[test]
fn a_new_adapter_changes_nothing_and_its_first_gradient_is_of_b() {
    let policy = adapted(LoraConfig::default());
    let reference = policy.with_adapter(None).unwrap();
    assert_eq!(last_logits(&policy, &[1, 2, 3]), last_logits(&reference, &[1, 2, 3]));
    policy.set_trainable(true);
    backward(&policy, &[1, 2, 3]);
    for (name, tensor) in policy.trainable_parameters() {
        let norm = tensor.grad().norm().double_value(&[]);
        assert_eq!(norm > 0.0, name.contains("lora_B"), "{name}: {norm}");
        // peft draws A from U(-1 / sqrt(I), 1 / sqrt(I)).
        if name.contains("lora_A") {
            let bound = (tensor.size()[1] as f64).powf(-0.5);
            assert!(tensor.abs().max().double_value(&[]) <= bound);
            assert!((tensor.std(true).double_value(&[]) / (bound / 3f64.sqrt()) - 1.0).abs() < 0.1, "{name}");
        }
    }
}

#[test]
fn inputs_are_dropped_in_training_alike_when_computed_twice() {
    let plain = adapted(LoraConfig { dropout: 0.5, ..LoraConfig::default() });
    tch::no_grad(|| {
        for (name, tensor) in plain.trainable_parameters() {
            if name.contains("lora_B") {
                let _ = tensor.shallow_clone().fill_(0.1);
            }
        }
    });
    let ids: Vec<u32> = (1..30).collect();
    let policy = plain.in_training(9);
    let (first, second) = (last_logits(&policy, &ids), last_logits(&policy, &ids));
    assert_eq!(first, second, "a function of the seed, not of the pass");
    assert!(off(&first, &last_logits(&plain.in_training(10), &ids)) > 1e-3, "another seed drops others");
    assert_eq!(last_logits(&plain, &ids), last_logits(&plain, &ids));

    // Gradients of one pass with autograd's graph and with layers computed again.
    let gradients = |checkpointed: bool| {
        let policy = plain.in_training(9);
        policy.set_trainable(true);
        let mut packed = Packed::new();
        packed.push(&ids).unwrap();
        if checkpointed {
            let pass = policy.checkpointed(&packed).unwrap();
            pass.hidden().square().sum(Kind::Float).backward();
            pass.backward().unwrap();
        } else {
            policy.hidden_states(&packed).unwrap().square().sum(Kind::Float).backward();
        }
        let all = policy.trainable_parameters();
        all.into_iter()
            .map(|(_, mut t)| {
                let g = values(&t.grad());
                t.zero_grad();
                g
            })
            .collect::<Vec<_>>()
    };
    for (a, b) in gradients(true).iter().zip(&gradients(false)) {
        assert!(off(a, b) < 1e-4);
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let mut model = CausalLm::random(tiny::config(), 3, Device::Cpu).unwrap();
    let named = |names: &[&str]| LoraTargets::Named(names.iter().map(|&name| name.to_owned()).collect());
    let mut says = |config: LoraConfig, text: &str| {
        let error = model.add_adapter("a", config, 5).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    };
    let base = LoraConfig::default();
    says(
        LoraConfig { targets: named(&["q_proj", "query"]), ..base.clone() },
        "target of an adapter is `query`, which matches no linear layer, expected `all-linear`, or names among q_proj, \
         k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj",
    );
    says(LoraConfig { targets: named(&[]), ..base.clone() }, "at least one");
    // A part of a name is no name.
    says(LoraConfig { targets: named(&["proj"]), ..base.clone() }, "`proj`");
    says(LoraConfig { rank: 0, ..base.clone() }, "rank of an adapter is 0");
    says(LoraConfig { dropout: 1.0, ..base.clone() }, "dropout of an adapter is 1");
    says(
        LoraConfig { targets: LoraTargets::Pattern(r"model\.layers\.0\..*".to_owned()), ..base.clone() },
        r"target of an adapter is `model\.layers\.0\..*`, which matches `model.layers.0.input_layernorm`",
    );
    let slow = LoraTargets::Pattern(r"(?:.(?=.)|..(?=.))*X".to_owned());
    says(LoraConfig { targets: slow, ..base.clone() }, "pattern of an adapter is `");
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    says(
        LoraConfig { modules_to_save: names(&["head"]), targets: named(&["lm_head"]), ..base.clone() },
        "module that is trained whole is `lm_head`, expected modules that are neither lists of layers nor adapted",
    );
    says(
        LoraConfig { tie: true, targets: named(&["embed_tokens"]), ..base.clone() },
        "`ensure_weight_tying` with matrices beside",
    );
    says(
        LoraConfig { modules_to_save: names(&["classification"]), ..base.clone() },
        "`classification`, which matches no module",
    );
    says(
        LoraConfig { modules_to_save: names(&["mlp", "up_proj"]), ..base.clone() },
        "up_proj`, inside of `model.layers.0.mlp`",
    );
    says(LoraConfig { modules_to_save: names(&["layers"]), ..base.clone() }, "which match no linear layer");
    says(LoraConfig { rank_pattern: vec![("proj".to_owned(), 2)], ..base.clone() }, "`proj`, which matches no layer");
    says(LoraConfig { rank_pattern: vec![("q_proj".to_owned(), 0)], ..base.clone() }, "rank of an adapter is 0");
    says(LoraConfig { layers: vec![2], targets: named(&["q_proj"]), ..base.clone() }, "layer of an adapter is 2");
    says(LoraConfig { layers: vec![1], ..base.clone() }, "layers of an adapter is [1]");
    says(LoraConfig { exclude: ModuleNames::Named(names(&["q"])), ..base.clone() }, "`q`, which matches no layer");
    model.add_adapter("a", base.clone(), 5).unwrap();
    assert!(model.add_adapter("a", base, 5).unwrap_err().to_string().contains("not in use"));
    assert!(model.with_adapter(Some("b")).unwrap_err().to_string().contains("one of a"));

    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("peft");
    model.save_adapter("a", &folder, None).unwrap();
    let path = folder.join("adapter_config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    for (key, value) in [
        ("lora_bias", "true"),
        ("trainable_token_indices", "[1]"),
        ("rank_pattern", "[1]"),
        ("alpha_pattern", "{\"q_proj\":\"high\"}"),
        ("layers_to_transform", "[\"one\"]"),
        ("modules_to_save", "[1]"),
        ("fan_in_fan_out", "1"),
    ] {
        let mut settings: Value = serde_json::from_str(&text).unwrap();
        settings[key] = serde_json::from_str(value).unwrap();
        std::fs::write(&path, settings.to_string()).unwrap();
        let error = model.load_adapter("b", &folder).unwrap_err().to_string();
        assert!(error.contains(&format!("adapter_config.json: `{key}` is {value}")), "{error}");
    }
    // Texts are quoted in another way.
    for (key, value, expected) in [
        (
            "target_modules",
            "(q_proj",
            "`target_modules` is `(q_proj`, expected regular expressions that can be followed",
        ),
        ("exclude_modules", "[a&&b]", "`exclude_modules` is `[a&&b]`"),
        ("bias", "some", "`bias` is `some`, expected `none`, `all` or `lora_only`"),
        ("task_type", "SEQ_2_SEQ_LM", "`task_type` is `SEQ_2_SEQ_LM`, expected `CAUSAL_LM` or `SEQ_CLS`"),
    ] {
        let mut settings: Value = serde_json::from_str(&text).unwrap();
        settings[key] = value.into();
        std::fs::write(&path, settings.to_string()).unwrap();
        let error = model.load_adapter("b", &folder).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let with = |key: &str, value: &str| {
        let mut settings: Value = serde_json::from_str(&text).unwrap();
        settings[key] = serde_json::from_str(value).unwrap();
        std::fs::write(&path, settings.to_string()).unwrap();
    };
    // With these peft changes the base weights on loading; `mica` trains one matrix.
    for name in ["pissa", "pissa_niter_16", "olora", "OLoRA", "corda", "loftq", "lora_ga", "mica", "another"] {
        with("init_lora_weights", &format!("\"{name}\""));
        let error = model.load_adapter("b", &folder).unwrap_err().to_string();
        assert!(error.contains(&format!("adapter_config.json: `init_lora_weights` is `{name}`")), "{error}");
    }
    with("lora_dropout", "\"0.1\"");
    let error = model.load_adapter("b", &folder).unwrap_err().to_string();
    assert!(error.contains("`lora_dropout` is `0.1`, expected a number"), "{error}");
    for (index, value) in ["true", "false", "\"gaussian\"", "\"eva\"", "\"orthogonal\""].into_iter().enumerate() {
        with("init_lora_weights", value);
        model.load_adapter(&format!("fine{index}"), &folder).unwrap();
    }
    std::fs::write(&path, text.replace("\"r\": 16", "\"r\": 8")).unwrap();
    let error = model.load_adapter("b", &folder).unwrap_err().to_string();
    assert!(error.contains("lora_A.weight` is [16, 64], expected [8, 64]"), "{error}");
}
