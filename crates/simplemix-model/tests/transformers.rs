//! Numbers of transformers on tiny random checkpoints of every family: tests/golden/model_families.py.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use serde_json::Value;
use simplemix_model::{
    CausalLm, GenerateOptions, GenerationConfig, Packed, Request, RewardModel, Sampling, Targets, weights,
};
use tch::{Device, Kind, Tensor};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/families").join(name)
}

fn case(name: &str) -> (CausalLm, Value) {
    let golden = std::fs::read_to_string(folder(name).join("golden.json")).unwrap();
    (CausalLm::load(&folder(name), Kind::Float, Device::Cpu).unwrap(), serde_json::from_str(&golden).unwrap())
}

/// Greedy answers under the processors of a `generation_config.json`: tests/golden/model_processors.py.
#[test]
fn greedy_answers_follow_the_processors_of_a_generation_config() {
    let path = folder("llama_tied").join("../../model_processors.json");
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let model = CausalLm::load(&folder("llama_tied"), Kind::Float, Device::Cpu).unwrap();
    let mut plain = Vec::new();
    let mut others = 0;
    for (at, case) in golden["cases"].as_array().unwrap().iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("generation_config.json"), case["config"].to_string()).unwrap();
        let options = GenerateOptions {
            max_new_tokens: golden["max_new_tokens"].as_u64().unwrap() as usize,
            stop_tokens: vec![golden["end"].as_u64().unwrap() as u32],
            processors: GenerationConfig::read(dir.path()).unwrap().processors,
            sampling: Sampling::GREEDY,
            ..GenerateOptions::default()
        };
        let request = Request { prompt: ids(&case["prompt"]), stream: 0 };
        let answer =
            model.generate(std::slice::from_ref(&request), &options, &mut |_, _| {}).unwrap().remove(0).remove(0);
        assert_eq!(answer.tokens, ids(&case["greedy"]), "{}", case["config"]);
        // Log-probabilities stay the model's own.
        let (mut packed, mut targets) = (Packed::new(), Targets::default());
        let prompt = packed.push(&request.prompt).unwrap();
        packed.push_response(prompt, &answer.tokens, &mut targets).unwrap();
        let own = -loss(&model, &model.hidden_states(&packed).unwrap(), &targets).double_value(&[]);
        let told: f64 = answer.logps.iter().map(|&logp| f64::from(logp)).sum();
        assert!((own - told).abs() < 1e-3 * own.abs(), "{own} {told}");
        match at {
            0..4 => plain.push(answer.tokens),
            at => others += usize::from(answer.tokens != plain[at % 4]),
        }
    }
    assert!(others > 15, "{others} answers are not the model's own likeliest");
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).collect()
}

fn ids(value: &Value) -> Vec<u32> {
    numbers(value).iter().map(|&id| id as u32).collect()
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

/// Negative log-probability of all tokens after the first.
fn loss(model: &CausalLm, hidden: &Tensor, targets: &Targets) -> Tensor {
    let rows = hidden.index_select(0, &Tensor::from_slice(&targets.rows));
    let logps = model.logits(&rows).unwrap().log_softmax(-1, Kind::Float);
    -logps.gather(1, &Tensor::from_slice(&targets.tokens).unsqueeze(1), false).sum(Kind::Float)
}

/// Norm of a gradient, and its product with the golden script's direction.
fn summary(gradient: &Tensor) -> Vec<f64> {
    let count = gradient.numel() as i64;
    let direction = Tensor::arange(count, (Kind::Double, Device::Cpu)).cos().to_kind(Kind::Float);
    values(&Tensor::stack(&[gradient.norm(), gradient.flatten(0, -1).dot(&direction)], 0))
}

#[track_caller]
fn same_gradients(model: &CausalLm, golden: &Value) {
    for (parameter, tensor) in model.named_parameters() {
        if model.config().is_buffer(parameter) {
            assert!(golden["gradients"].get(parameter).is_none() && !tensor.requires_grad(), "{parameter}");
            continue;
        }
        let want = numbers(&golden["gradients"][parameter]);
        close(&summary(&tensor.grad()), &want, parameter);
    }
}

fn check(name: &str) {
    let (model, golden) = case(name);
    let ids = ids(&golden["ids"]);
    model.set_trainable(true);
    let (mut packed, mut targets) = (Packed::new(), Targets::default());
    let first = packed.push(&ids[..1]).unwrap();
    packed.push_response(first, &ids[1..], &mut targets).unwrap();
    // The last token is not fed with a response; it is asked for on its own below.
    let of_all = loss(&model, &model.hidden_states(&packed).unwrap(), &targets);
    close(&values(&of_all), &[golden["loss"].as_f64().unwrap()], "loss");
    of_all.backward();
    same_gradients(&model, &golden);

    // Again, computing every layer twice.
    for (_, parameter) in model.named_parameters() {
        parameter.shallow_clone().zero_grad();
    }
    let pass = model.checkpointed(&packed).unwrap();
    loss(&model, pass.hidden(), &targets).backward();
    pass.backward().unwrap();
    same_gradients(&model, &golden);

    let _guard = tch::no_grad_guard();
    let mut whole = Packed::new();
    whole.push(&ids).unwrap();
    let states = model.layer_states(&whole).unwrap();
    for (layer, (states, want)) in states.iter().zip(golden["layers"].as_array().unwrap()).enumerate() {
        close(&values(states), &numbers(want), &format!("hidden states {layer}"));
    }
    assert_eq!(states.len(), golden["layers"].as_array().unwrap().len());
    let hidden = model.hidden_states(&whole).unwrap();
    let last = model.logits(&hidden.narrow(0, ids.len() as i64 - 1, 1)).unwrap();
    close(&values(&last), &numbers(&golden["last_logits"]), "logits");

    let options =
        GenerateOptions { max_new_tokens: 12, sampling: Sampling::GREEDY, batch_rows: 4, ..GenerateOptions::default() };
    // Beside a longer prompt, so that rows of the cache start in different columns.
    let longer = [&ids[..], &ids[..5]].concat();
    let requests = [Request { prompt: longer, stream: 1 }, Request { prompt: ids, stream: 0 }];
    let answers = model.generate(&requests, &options, &mut |_, _| {}).unwrap();
    let greedy: Vec<f64> = answers[1][0].tokens.iter().map(|&t| f64::from(t)).collect();
    assert_eq!(greedy, numbers(&golden["greedy"]));

    if let Some(longer) = golden.get("longer") {
        // In one pass with the shorter sequence.
        let ids = self::ids(&longer["ids"]);
        let mut both = whole.clone();
        both.push(&ids).unwrap();
        let hidden = model.hidden_states(&both).unwrap();
        let of = |row: i64| values(&model.logits(&hidden.narrow(0, row, 1)).unwrap());
        close(&of(both.len() as i64 - 1), &numbers(&longer["last_logits"]), "logits of a longer sequence");
        close(&of(whole.len() as i64 - 1), &numbers(&golden["last_logits"]), "logits beside a longer sequence");
    }
    if let Some(chunks) = golden.get("chunks") {
        chunks_are_transformers(&model, chunks);
        samples_do_not_depend_on_the_batch(&model);
    }
    if name.starts_with("gemma4") {
        samples_do_not_depend_on_the_batch(&model);
    }
    shared_prompt(&model);
    shared_prompt_has_the_gradients_of_both(&model);
    saved(&model, &whole, name);
    if let Some(router) = golden.get("router") {
        routers_lose_what_transformers_says(&model, router);
    }
    if let Some(rewards) = golden.get("rewards") {
        let model = RewardModel::load(&folder(name).join("reward"), Kind::Float, Device::Cpu).unwrap();
        let sequences: Vec<Vec<u32>> = rewards["ids"].as_array().unwrap().iter().map(self::ids).collect();
        let sequences: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
        let scores = model.score(&sequences).unwrap();
        close(&scores, &numbers(&rewards["scores"]), "rewards");
        // One that is made of the language model has the class's name too.
        let saved = tempfile::tempdir().unwrap();
        let made = saved.path().join("reward");
        RewardModel::on_top_of(self::case(name).0).unwrap().save(&made, None).unwrap();
        let class = |folder: &Path| {
            let text = std::fs::read_to_string(folder.join("config.json")).unwrap();
            serde_json::from_str::<Value>(&text).unwrap()["architectures"].clone()
        };
        assert_eq!(class(&made), class(&folder(name).join("reward")));
    }
}

/// Sequences that end around the edges of chunks, in one pass, with gradients.
fn chunks_are_transformers(model: &CausalLm, golden: &Value) {
    tch::with_grad(|| {
        let (mut packed, mut rows) = (Packed::new(), Vec::new());
        for length in ids(&golden["lengths"]) {
            packed.push(&(0..length).map(|i| 1 + (7 * i + length) % 63).collect::<Vec<_>>()).unwrap();
            rows.push(packed.len() as i64 - 1);
        }
        for checkpointed in [false, true] {
            for (_, parameter) in model.named_parameters() {
                parameter.shallow_clone().zero_grad();
            }
            let score = |hidden: &Tensor| {
                let logits = model.logits(&hidden.index_select(0, &Tensor::from_slice(&rows))).unwrap();
                for (row, want) in golden["last_logits"].as_array().unwrap().iter().enumerate() {
                    let what = format!("logits of sequence {row}");
                    close(&values(&logits.select(0, row as i64)), &numbers(want), &what);
                }
                let weights = Tensor::arange(64, (Kind::Float, Device::Cpu)).cos();
                (logits.log_softmax(-1, Kind::Float) * weights).sum(Kind::Float).backward();
            };
            if checkpointed {
                let pass = model.checkpointed(&packed).unwrap();
                score(pass.hidden());
                pass.backward().unwrap();
            } else {
                score(&model.hidden_states(&packed).unwrap());
            }
            same_gradients(model, golden);
        }
    });
}

/// Loss of the routers over two responses to one prompt, which counts for each of them.
fn routers_lose_what_transformers_says(model: &CausalLm, golden: &Value) {
    let responses: [Vec<u32>; 2] = [(20..28).collect(), (40..45).collect()];
    let pack = |shared: bool| {
        let (mut packed, mut targets) = (Packed::of(model.config()).whole(), Targets::default());
        let prompt: Vec<u32> = (1..9).collect();
        let first = packed.push(&prompt).unwrap();
        packed.push_response(first, &responses[0], &mut targets).unwrap();
        let second = if shared { first } else { packed.push(&prompt).unwrap() };
        packed.push_response(second, &responses[1], &mut targets).unwrap();
        packed
    };
    let fresh = || model.named_parameters().iter().for_each(|(_, tensor)| tensor.shallow_clone().zero_grad());
    let same = |golden: &Value| {
        for (name, tensor) in model.named_parameters() {
            match golden.get(name) {
                Some(want) => close(&summary(&tensor.grad()), &numbers(want), name),
                None => assert!(!tensor.grad().defined() || tensor.grad().norm().double_value(&[]) == 0.0, "{name}"),
            }
        }
    };
    tch::with_grad(|| {
        for shared in [true, false] {
            let packed = pack(shared);
            fresh();
            let (_, loss) = model.routed_states(&packed, &mut []).unwrap();
            let loss = loss.expect("a loss of the routers");
            close(&values(&loss), &[golden["loss"].as_f64().unwrap()], "loss of the routers");
            loss.backward();
            same(&golden["gradients"]);
            fresh();
            let pass = model.routed_checkpointed(&packed, &mut []).unwrap();
            let loss = pass.router_loss().expect("a loss of the routers");
            close(&values(loss), &[golden["loss"].as_f64().unwrap()], "loss of the routers");
            (loss + pass.hidden().sum(Kind::Float) * 0.0).backward();
            pass.backward().unwrap();
            same(&golden["gradients"]);
        }
    });
}

/// Prompts of several samples each, some of which end early, in batches of other sizes and beside other rows.
fn samples_do_not_depend_on_the_batch(model: &CausalLm) {
    let prompt = |length: u32| (0..length).map(|i| 1 + (5 * i + length) % 63).collect::<Vec<_>>();
    let requests: Vec<Request> =
        [1, 3, 66, 130].into_iter().map(|length| Request { prompt: prompt(length), stream: length.into() }).collect();
    let answers = |batch_rows: usize| {
        let sampling = Sampling { temperature: 0.8, ..Sampling::default() };
        let stop_tokens = (20..30).collect();
        let options = GenerateOptions {
            samples: 3,
            max_new_tokens: 14,
            batch_rows,
            stop_tokens,
            sampling,
            ..GenerateOptions::default()
        };
        model.generate(&requests, &options, &mut |_, _| {}).unwrap()
    };
    let alone = answers(1);
    for batch_rows in [2, 5, 12] {
        for (alone, together) in alone.iter().flatten().zip(answers(batch_rows).iter().flatten()) {
            assert_eq!(alone.tokens, together.tokens, "{batch_rows} rows");
            let off = alone.logps.iter().zip(&together.logps).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(off < 1e-4, "{batch_rows} rows: {off}");
        }
    }
    // They are what a pass over prompt and response says.
    for (request, answer) in
        requests.iter().zip(&alone).flat_map(|(request, all)| all.iter().map(move |a| (request, a)))
    {
        let (mut packed, mut targets) = (Packed::new(), Targets::default());
        let prompt = packed.push(&request.prompt).unwrap();
        packed.push_response(prompt, &answer.tokens, &mut targets).unwrap();
        let own = -loss(model, &model.hidden_states(&packed).unwrap(), &targets).double_value(&[]);
        let told: f64 = answer.logps.iter().map(|&logp| f64::from(logp)).sum();
        assert!((own - told).abs() < 1e-3 * own.abs().max(1.0), "{own} {told}");
    }
    let lengths: std::collections::BTreeSet<usize> = alone.iter().flatten().map(|answer| answer.tokens.len()).collect();
    assert!(lengths.len() > 2, "{lengths:?}");
}

/// Two responses of one prompt, against the two plain sequences.
fn shared_prompt(model: &CausalLm) {
    let (prompt, chosen, rejected): (Vec<u32>, Vec<u32>, Vec<u32>) =
        ((1..9).collect(), (20..28).collect(), (40..45).collect());
    let run = |shared: bool| {
        let (mut packed, mut targets) = (Packed::of(model.config()), Targets::default());
        let first = packed.push(&prompt).unwrap();
        packed.push_response(first, &chosen, &mut targets).unwrap();
        let second = if shared { first } else { packed.push(&prompt).unwrap() };
        packed.push_response(second, &rejected, &mut targets).unwrap();
        values(&model.hidden_states(&packed).unwrap().index_select(0, &Tensor::from_slice(&targets.rows)))
    };
    for (a, b) in run(true).iter().zip(run(false)) {
        assert!((a - b).abs() < 1e-5 * b.abs().max(1.0), "{a} {b}");
    }
}

/// Gradients of two responses of one prompt, where layers are computed again and where they are not, against those of the two plain
/// sequences.
fn shared_prompt_has_the_gradients_of_both(model: &CausalLm) {
    let (prompt, chosen, rejected): (Vec<u32>, Vec<u32>, Vec<u32>) =
        ((1..9).collect(), (20..28).collect(), (40..45).collect());
    let run = |shared: bool, checkpointed: bool| {
        for (_, parameter) in model.named_parameters() {
            parameter.shallow_clone().zero_grad();
        }
        let (mut packed, mut targets) = (Packed::of(model.config()), Targets::default());
        let first = packed.push(&prompt).unwrap();
        packed.push_response(first, &chosen, &mut targets).unwrap();
        let second = if shared { first } else { packed.push(&prompt).unwrap() };
        packed.push_response(second, &rejected, &mut targets).unwrap();
        tch::with_grad(|| match checkpointed {
            true => {
                let pass = model.checkpointed(&packed).unwrap();
                loss(model, pass.hidden(), &targets).backward();
                pass.backward().unwrap();
            }
            false => loss(model, &model.hidden_states(&packed).unwrap(), &targets).backward(),
        });
        model.trainable_parameters().iter().map(|(_, tensor)| tensor.grad().copy()).collect::<Vec<_>>()
    };
    let wanted = run(false, false);
    for checkpointed in [false, true] {
        let names = model.trainable_parameters();
        for ((got, want), (name, _)) in run(true, checkpointed).iter().zip(&wanted).zip(&names) {
            let off = (got - want).norm().double_value(&[]) / want.norm().double_value(&[]).max(1e-3);
            assert!(off < 1e-4, "{name}: {off}");
        }
    }
}

/// Written in shards and read again.
fn saved(model: &CausalLm, packed: &Packed, name: &str) {
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("copy");
    model.save_in_shards(&copy, Some(&folder(name)), 5_000).unwrap();
    assert!(copy.join("model.safetensors.index.json").is_file());
    let back = CausalLm::load(&copy, Kind::Float, Device::Cpu).unwrap();
    assert_eq!(values(&model.hidden_states(packed).unwrap()), values(&back.hidden_states(packed).unwrap()));
    // In one file, which then holds what transformers wrote.
    let whole = dir.path().join("whole");
    model.save(&whole, Some(&folder(name))).unwrap();
    let [found, wanted] =
        [whole, folder(name)].map(|folder| weights::read_all(&folder.join(weights::WEIGHTS)).unwrap());
    assert_eq!(found.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>());
    for (name, wanted) in wanted {
        assert!(found[&name].size() == wanted.size() && found[&name] == wanted, "{name}");
    }
}

macro_rules! families {
    ($($name:ident),* $(,)?) => { $( #[test] fn $name() { check(stringify!($name)); } )* };
}

families! {
    apertus, arcee, cohere, cohere2, exaone4, exaone4_whole, gemma2, gemma3, gemma3_whole, gemma4, gemma4_plain, gemma4_whole, glm, glm4, gpt2, gpt2_plain,
    glm4_moe, glm4_moe_plain, gpt_neox, gpt_neox_serial, granite, internvl, lfm2, lfm2_plain, llama3_rope, llama_dynamic, llama_linear_rope, llama_long_rope,
    llama_tied, llama_untied_bias, llava, ministral3, mistral3, mistral3_ministral, mistral_whole, mistral_window,
    mixtral, mixtral_whole,
    olmo2, olmo3, olmoe, olmoe_normed, phi3, phi3_long, phi3_longer, qwen2, qwen2_5_vl, qwen2_vl, qwen2_window, qwen3, qwen3_5, qwen3_5_hybrid,
    qwen3_5_whole, qwen3_moe, qwen3_moe_steps, qwen3_vl, qwen3_yarn,
    seed_oss, smollm3, smolvlm,
}

#[test]
fn every_folder_has_its_test() {
    let here = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transformers.rs")).unwrap();
    for entry in std::fs::read_dir(folder("")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(here.contains(&format!("{name},")), "{name}");
    }
}

/// Copies a golden folder's files, `change`s config.json, and adds tensors.
fn changed(name: &str, add: &[(&str, Tensor)], change: impl Fn(&mut Value)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut config: Value =
        serde_json::from_str(&std::fs::read_to_string(folder(name).join("config.json")).unwrap()).unwrap();
    change(&mut config);
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    let mut tensors = weights::read_all(&folder(name).join(weights::WEIGHTS)).unwrap();
    tensors.extend(add.iter().map(|(name, tensor)| ((*name).to_owned(), tensor.shallow_clone())));
    let tensors: Vec<(String, Tensor)> = tensors.into_iter().collect();
    weights::save(&dir.path().join(weights::WEIGHTS), &tensors).unwrap();
    dir
}

fn logits_of(model: &CausalLm) -> Vec<f64> {
    let _guard = tch::no_grad_guard();
    let mut packed = Packed::new();
    packed.push(&[3, 17, 42]).unwrap();
    values(&model.logits(&model.hidden_states(&packed).unwrap()).unwrap())
}

fn loaded(folder: &Path) -> CausalLm {
    CausalLm::load(folder, Kind::Float, Device::Cpu).unwrap()
}

#[test]
fn a_tied_head_with_other_weights_is_used_and_kept() {
    let tied = loaded(&folder("llama_tied"));
    let other = Tensor::arange(64 * 32, (Kind::Float, Device::Cpu)).sin().view([64, 32]);
    // The witness: the same tensors under a configuration that says so.
    let untied = changed("llama_tied", &[("lm_head.weight", other.shallow_clone())], |config| {
        config["tie_word_embeddings"] = false.into();
    });
    let wanted = logits_of(&loaded(untied.path()));
    assert_ne!(wanted, logits_of(&tied));
    let dir = changed("llama_tied", &[("lm_head.weight", other)], |_| ());
    let model = loaded(dir.path());
    assert_eq!(logits_of(&model), wanted);
    let [notice] = model.notices() else { panic!("{:?}", model.notices()) };
    assert!(notice.contains("ties the output head to the embedding"), "{notice}");
    let copy = dir.path().join("copy");
    model.save(&copy, Some(dir.path())).unwrap();
    let copy = loaded(&copy);
    assert_eq!((logits_of(&copy), copy.notices()), (wanted, &[][..]));
}

#[test]
fn a_tied_head_with_equal_weights_is_the_embedding() {
    let tied = loaded(&folder("llama_tied"));
    let embedding = tied.named_parameters().iter().find(|(name, _)| name.ends_with("embed_tokens.weight")).unwrap();
    let dir = changed("llama_tied", &[("lm_head.weight", embedding.1.copy())], |_| ());
    let model = loaded(dir.path());
    assert_eq!((logits_of(&model), model.notices()), (logits_of(&tied), &[][..]));
    assert_eq!(model.named_parameters().len(), tied.named_parameters().len());
}

#[test]
fn a_base_model_and_a_head_alone_are_read_as_transformers_reads_them() {
    let wanted = logits_of(&loaded(&folder("llama_tied")));
    let renamed = |rename: &dyn Fn(&str) -> String| {
        let dir = changed("llama_tied", &[], |_| ());
        let tensors = weights::read_all(&dir.path().join(weights::WEIGHTS)).unwrap();
        let tensors: Vec<(String, Tensor)> =
            tensors.into_iter().map(|(name, tensor)| (rename(&name), tensor)).collect();
        weights::save(&dir.path().join(weights::WEIGHTS), &tensors).unwrap();
        dir
    };
    let base = renamed(&|name| name.replacen("model.", "", 1));
    assert_eq!(logits_of(&loaded(base.path())), wanted);
    let head = renamed(&|name| name.replace("model.embed_tokens.weight", "lm_head.weight"));
    assert_eq!(logits_of(&loaded(head.path())), wanted);
    let wrapped = renamed(&|name| format!("_orig_mod.module.{name}"));
    let model = loaded(wrapped.path());
    assert_eq!(logits_of(&model), wanted);
    let [notice] = model.notices() else { panic!("{:?}", model.notices()) };
    assert!(notice.contains("begins with `_orig_mod.module.`"), "{notice}");
    // Another word is not guessed at.
    let other = renamed(&|name| format!("student.{name}"));
    let error = CausalLm::load(other.path(), Kind::Float, Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("the name of every tensor begins with `student.`"), "{error}");
}

/// transformers loads such files and names these tensors in a report.
#[test]
fn tensors_that_the_model_has_no_place_for_are_ignored_and_named() {
    let wanted = logits_of(&loaded(&folder("llama_tied")));
    let extra = || Tensor::ones([2, 3], (Kind::Float, Device::Cpu));
    let dir = changed(
        "llama_tied",
        &[("mtp.fc.weight", extra()), ("model.layers.2.mlp.up_proj.weight", extra()), ("vision_tower.a.bias", extra())],
        |_| (),
    );
    let model = loaded(dir.path());
    assert_eq!(logits_of(&model), wanted);
    let [notice] = model.notices() else { panic!("{:?}", model.notices()) };
    assert!(
        notice
            .ends_with("not saved again: `model.layers.*.mlp.up_proj.weight`, `mtp.fc.weight`, `vision_tower.a.bias`"),
        "{notice}"
    );
    let copy = dir.path().join("copy");
    model.save(&copy, Some(dir.path())).unwrap();
    assert_eq!(loaded(&copy).notices(), &[] as &[String]);
    // One that is needed is not made up.
    let dir = changed("llama_tied", &[], |_| ());
    let mut tensors = weights::read_all(&dir.path().join(weights::WEIGHTS)).unwrap();
    let norm = tensors.remove("model.norm.weight").unwrap();
    tensors.insert("model.final_norm.weight".to_owned(), norm);
    weights::save(&dir.path().join(weights::WEIGHTS), &tensors.into_iter().collect::<Vec<_>>()).unwrap();
    let error = CausalLm::load(dir.path(), Kind::Float, Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("`model.norm.weight` is missing"), "{error}");
}

/// A golden folder's files with other tensors.
fn with_tensors(name: &str, change: impl Fn(&mut std::collections::BTreeMap<String, Tensor>)) -> tempfile::TempDir {
    let dir = changed(name, &[], |_| ());
    let path = dir.path().join(weights::WEIGHTS);
    let mut tensors = weights::read_all(&path).unwrap();
    change(&mut tensors);
    weights::save(&path, &tensors.into_iter().collect::<Vec<_>>()).unwrap();
    dir
}

#[test]
fn constants_of_xielu_may_be_absent_and_may_not_be_others() {
    let wanted = logits_of(&loaded(&folder("apertus")));
    let without = with_tensors("apertus", |tensors| {
        tensors.retain(|name, _| !name.ends_with("act_fn.beta") && !name.ends_with("act_fn.eps"));
    });
    assert_eq!(logits_of(&loaded(without.path())), wanted);
    let half = with_tensors("apertus", |tensors| {
        tensors.insert("model.layers.1.mlp.act_fn.eps".to_owned(), Tensor::from(-1e-6).to_kind(Kind::BFloat16));
    });
    assert_eq!(logits_of(&loaded(half.path())), wanted);
    let others = with_tensors("apertus", |tensors| {
        tensors.insert("model.layers.1.mlp.act_fn.beta".to_owned(), Tensor::from(0.75f32));
    });
    let error = CausalLm::load(others.path(), Kind::Float, Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("`model.layers.1.mlp.act_fn.beta` is [0.75], expected 0.5"), "{error}");
}

#[test]
fn names_and_masks_of_older_files_are_read() {
    // The first files of GPT-2 have no prefix, and hold masks.
    let gpt2 = with_tensors("gpt2", |tensors| {
        *tensors = std::mem::take(tensors)
            .into_iter()
            .map(|(name, tensor)| (name.replacen("transformer.", "", 1), tensor))
            .collect();
        tensors.insert("h.0.attn.bias".to_owned(), Tensor::ones([1, 1, 32, 32], (Kind::Float, Device::Cpu)));
    });
    assert_eq!(logits_of(&loaded(gpt2.path())), logits_of(&loaded(&folder("gpt2"))));
    let neox = with_tensors("gpt_neox", |tensors| {
        let head = tensors.remove("embed_out.weight").unwrap();
        tensors.insert("lm_head.weight".to_owned(), head);
        let mask = Tensor::from(-1e9f32);
        tensors.insert("gpt_neox.layers.1.attention.masked_bias".to_owned(), mask);
    });
    assert_eq!(logits_of(&loaded(neox.path())), logits_of(&loaded(&folder("gpt_neox"))));
}

#[test]
fn learned_positions_end() {
    let model = loaded(&folder("gpt2"));
    assert_eq!(model.config().longest(), Some(32));
    let of = |length: usize| {
        let mut packed = Packed::new();
        packed.push(&vec![7; length]).unwrap();
        model.hidden_states(&packed).map(|hidden| hidden.size()).map_err(|error| error.to_string())
    };
    assert_eq!(of(32).unwrap(), [32, 32]);
    let message =
        "length of a sequence is 33, expected at most 32: this model has learned vectors for so many positions";
    assert!(of(33).unwrap_err().starts_with(message), "{:?}", of(33));
    let error = model.config().check_sequence(&[1; 30], 3).unwrap_err().to_string();
    assert!(error.starts_with(message), "{error}");
    // An answer may fill them.
    let request = [Request { prompt: vec![5; 25], stream: 0 }];
    let answer = |max_new_tokens| {
        let options = GenerateOptions { max_new_tokens, sampling: Sampling::GREEDY, ..GenerateOptions::default() };
        model.generate(&request, &options, &mut |_, _| {})
    };
    assert_eq!(answer(7).unwrap()[0][0].tokens.len(), 7);
    assert!(answer(20).unwrap_err().to_string().starts_with(message));
}

#[test]
fn a_reward_model_needs_a_class_of_transformers() {
    for name in ["granite", "cohere", "cohere2", "apertus", "lfm2"] {
        let error = RewardModel::on_top_of(loaded(&folder(name))).unwrap_err().to_string();
        let message =
            format!("`model_type` of a reward model is `{name}`, expected one for which transformers has a class");
        assert!(error.starts_with(&message), "{error}");
        let error = RewardModel::load(&folder(name), Kind::Float, Device::Cpu).unwrap_err().to_string();
        assert!(error.starts_with(&message), "{error}");
    }
    let error = RewardModel::on_top_of(loaded(&folder("gemma4"))).unwrap_err().to_string();
    assert!(error.starts_with("`model_type` of a reward model is `gemma4_text`, expected"), "{error}");
    RewardModel::on_top_of(loaded(&folder("gpt2"))).unwrap();
}

/// Gradients of embeddings where the padding token is in the text: tests/golden/model_padding.py.
#[test]
fn the_embedding_of_the_padding_token_is_trained_where_transformers_trains_it() {
    let golden = std::fs::read_to_string(folder("").join("../model_padding.json")).unwrap();
    let golden: Value = serde_json::from_str(&golden).unwrap();
    let ids = ids(&golden["ids"]);
    let (mut packed, mut targets) = (Packed::new(), Targets::default());
    let first = packed.push(&ids[..1]).unwrap();
    packed.push_response(first, &ids[1..], &mut targets).unwrap();
    for case in golden["cases"].as_array().unwrap() {
        let name = case["model"].as_str().unwrap();
        let dir = changed(name, &[], |config| {
            match config.get_mut("text_config") {
                Some(text) => text["pad_token_id"] = case["pad_token_id"].clone(),
                None => config["pad_token_id"] = case["pad_token_id"].clone(),
            };
        });
        let mut model = loaded(dir.path());
        if let Some(adapter) = case["adapter"].as_str() {
            model.load_adapter("default", &folder("").join("../lora").join(adapter)).unwrap();
            model = model.with_adapter(Some("default")).unwrap();
        }
        model.set_trainable(true);
        for is_checkpointed in [false, true] {
            let trained = model.trainable_parameters();
            trained.iter().for_each(|(_, tensor)| tensor.shallow_clone().zero_grad());
            if is_checkpointed {
                let pass = model.checkpointed(&packed).unwrap();
                loss(&model, pass.hidden(), &targets).backward();
                pass.backward().unwrap();
            } else {
                loss(&model, &model.hidden_states(&packed).unwrap(), &targets).backward();
            }
            let wanted = case["gradients"].as_object().unwrap();
            assert!(!wanted.is_empty(), "{name}");
            for (parameter, wanted) in wanted {
                let own = trained.iter().find(|(own, _)| own == parameter).unwrap();
                close(
                    &summary(&own.1.grad()),
                    &numbers(wanted),
                    &format!("{name}, {}: {parameter}", case["pad_token_id"]),
                );
            }
        }
    }
}

/// Released folders hold keys and values of layers that read those of others, and transformers ignores them.
#[test]
fn keys_of_layers_that_read_those_of_others_are_ignored() {
    let wanted = logits_of(&loaded(&folder("gemma4")));
    let extra = |shape: &[i64]| Tensor::ones(shape, (Kind::Float, Device::Cpu));
    let names = ["k_proj", "v_proj"].map(|name| format!("model.layers.3.self_attn.{name}.weight"));
    let dir = changed("gemma4", &[(&names[0], extra(&[16, 32])), (&names[1], extra(&[16, 32]))], |_| ());
    let model = loaded(dir.path());
    assert_eq!(logits_of(&model), wanted);
    let [notice] = model.notices() else { panic!("{:?}", model.notices()) };
    assert!(notice.contains("the model has no place for 2 of the tensors"), "{notice}");
}
