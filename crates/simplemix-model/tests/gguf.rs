//! The GGUF importer on files made here, on damaged ones, and on the demo's real one where the cache has it.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking and says why it skips")]

mod support;

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use simplemix_model::gguf::{GgufError, GgufType, export_gguf, import_gguf};
use simplemix_model::{CausalLm, ModelConfig, Packed, RopeScaling};
use support::{File, text};
use tch::{Device, Kind, Tensor};

fn import(bytes: &[u8]) -> (Result<(), GgufError>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("m.gguf");
    std::fs::write(&input, bytes).unwrap();
    (import_gguf(&input, &dir.path().join("out"), &mut |_, _| {}).map(drop), dir)
}

#[track_caller]
fn refused(file: &File, part: &str) {
    let (result, dir) = import(&file.bytes());
    let text = result.unwrap_err().to_string();
    assert!(text.contains(part), "`{part}` is not in: {text}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "something was left behind");
}

#[test]
fn a_small_file_becomes_a_model_that_runs() {
    let (result, dir) = import(&File::small().bytes());
    result.unwrap();
    let folder = dir.path().join("out");
    let model = CausalLm::load(&folder, Kind::Float, Device::Cpu).unwrap();
    assert!(model.config().tie_word_embeddings);
    let mut packed = Packed::new();
    packed.push(&[0, 1, 2]).unwrap();
    assert_eq!(model.logits(&model.hidden_states(&packed).unwrap()).unwrap().size(), [3, 6]);
    let tokenizer = tokenizers::Tokenizer::from_file(folder.join("tokenizer.json")).unwrap();
    assert_eq!(tokenizer.encode("ab a11<|end|>", false).unwrap().get_ids(), [2, 3, 0, 4, 4, 5]);
}

/// Files that tests/golden/gguf_models.py wrote with the gguf package, and transformers' logits of the weights in them.
#[test]
fn architectures_are_those_of_transformers() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/gguf");
    let text = std::fs::read_to_string(golden.join("golden.json")).unwrap();
    let cases: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(cases.len(), 21);
    for (architecture, case) in &cases {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("model");
        import_gguf(&golden.join(format!("{architecture}.gguf")), &folder, &mut |_, _| {}).unwrap();
        let model = CausalLm::load(&folder, Kind::Float, Device::Cpu).unwrap();
        let numbers = |key: &str| case[key].as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).collect::<Vec<_>>();
        let ids: Vec<u32> = numbers("ids").iter().map(|&id| id as u32).collect();
        let mut packed = Packed::of(model.config());
        packed.push(&ids).unwrap();
        let hidden = model.hidden_states(&packed).unwrap().narrow(0, ids.len() as i64 - 1, 1);
        let logits: Vec<f64> = model.logits(&hidden).unwrap().to_kind(Kind::Double).flatten(0, -1).try_into().unwrap();
        let want = numbers("last_logits");
        assert_eq!(logits.len(), want.len());
        let off = logits.iter().zip(&want).map(|(a, b)| (a - b).abs() / b.abs().max(1.0)).fold(0.0, f64::max);
        assert!(off < 1e-4, "{architecture}: {off}");
    }
}

fn last_logits(folder: &Path) -> Tensor {
    let model = CausalLm::load(folder, Kind::Float, Device::Cpu).unwrap();
    let mut packed = Packed::of(model.config());
    packed.push(&[3, 17, 42, 5, 60, 1]).unwrap();
    tch::no_grad(|| model.logits(&model.hidden_states(&packed).unwrap()).unwrap())
}

/// Writes a tokenizer of single letters, two merges and a special token.
fn letters(folder: &Path) {
    let mut vocab: serde_json::Map<String, serde_json::Value> =
        (0..58).map(|id| (char::from(b'A' + id as u8).to_string(), id.into())).collect();
    vocab.extend([("ab".to_owned(), 58.into()), ("abba".to_owned(), 59.into()), ("ba".to_owned(), 60.into())]);
    let byte_level = serde_json::json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true
    });
    let tokenizer = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
        "added_tokens": [{
            "id": 61, "content": "<|end|>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            "special": true
        }],
        "pre_tokenizer": byte_level, "post_processor": null, "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "", "end_of_word_suffix": "",
            "fuse_unk": false, "byte_fallback": false, "ignore_merges": false, "vocab": vocab,
            "merges": [["a", "b"], ["b", "a"], ["ab", "ba"]]
        }
    });
    std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let config = serde_json::json!({ "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|end|>" });
    std::fs::write(folder.join("tokenizer_config.json"), config.to_string()).unwrap();
}

/// Files of the gguf package, as folders, as files again, and as folders once more.
#[test]
fn a_folder_that_is_exported_is_the_same_model_again() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/gguf");
    let written = ["llama", "qwen2", "qwen3", "gemma2", "gemma3", "olmo2", "smollm3", "granite", "arcee"];
    let mut refused = 0;
    for entry in std::fs::read_dir(&golden).unwrap() {
        let file = entry.unwrap().path();
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        if file.extension().is_none_or(|end| end != "gguf") {
            continue;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        import_gguf(&file, &path("model"), &mut |_, _| {}).unwrap();
        // The vocabularies of the files are no tokenizer's.
        letters(&path("model"));
        let exported = export_gguf(&path("model"), &path("f32.gguf"), GgufType::F32, &mut |_, _| {});
        if !written.contains(&name.as_str()) {
            let error = exported.unwrap_err().to_string();
            assert!(error.contains("config.json: `model_type` is `") && error.contains("one of `llama`"), "{error}");
            assert!(!path("f32.gguf").exists());
            refused += 1;
            continue;
        }
        let report = exported.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!((report.architecture, report.unpacked), (name.as_str(), 0));
        import_gguf(&path("f32.gguf"), &path("again"), &mut |_, _| {}).unwrap();
        export_gguf(&path("again"), &path("again.gguf"), GgufType::F32, &mut |_, _| {}).unwrap();
        import_gguf(&path("again.gguf"), &path("third"), &mut |_, _| {}).unwrap();
        let read = |folder: &str, part: &str| std::fs::read(path(folder).join(part)).unwrap();
        for part in ["model.safetensors", "tokenizer.json", "config.json", "generation_config.json"] {
            assert!(read("again", part) == read("third", part), "{name}: {part}");
        }
        assert!(read("model", "model.safetensors") == read("again", "model.safetensors"), "{name}");
        let ids = |folder: &str| {
            let tokenizer = tokenizers::Tokenizer::from_file(path(folder).join("tokenizer.json")).unwrap();
            tokenizer.encode("abba<|end|>cab", true).unwrap().get_ids().to_vec()
        };
        assert_eq!(ids("model"), ids("again"));
        // The numbers of the files are Q8_0 where rows have whole blocks, and come back as they were.
        let report = export_gguf(&path("model"), &path("q8.gguf"), GgufType::Q8_0, &mut |_, _| {}).unwrap();
        import_gguf(&path("q8.gguf"), &path("eight"), &mut |_, _| {}).unwrap();
        let off = (last_logits(&path("model")) - last_logits(&path("eight"))).abs().max().double_value(&[]);
        assert!(off < 2e-2, "{name}: {off}; {report}");
        let error = export_gguf(&path("model"), &path("q8.gguf"), GgufType::F16, &mut |_, _| {}).unwrap_err();
        assert!(error.to_string().contains("exists already"), "{error}");
    }
    assert_eq!(refused, 12);
}

#[test]
fn settings_that_a_file_cannot_say_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let (model, file) = (dir.path().join("model"), dir.path().join("m.gguf"));
    simplemix_model::tiny::write_folder(&model, 1).unwrap();
    let refused = |change: &dyn Fn(&mut serde_json::Value)| {
        let path = model.join("config.json");
        let before = std::fs::read_to_string(&path).unwrap();
        let mut config: serde_json::Value = serde_json::from_str(&before).unwrap();
        change(&mut config);
        std::fs::write(&path, config.to_string()).unwrap();
        let error = export_gguf(&model, &file, GgufType::Auto, &mut |_, _| {}).unwrap_err();
        std::fs::write(&path, before).unwrap();
        assert!(error.is_input());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "something was left behind");
        error.to_string()
    };
    let error = refused(&|config| {
        config["rope_scaling"] = serde_json::json!({
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 2.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64
        });
    });
    assert!(error.contains("rope_freqs.weight"), "{error}");
    let error =
        refused(&|config| config["rope_scaling"] = serde_json::json!({ "rope_type": "dynamic", "factor": 2.0 }));
    assert!(error.contains("`rope_parameters.rope_type` is ") && error.contains("expected `default`"), "{error}");
    // As it is, it is written, with its tokenizer.
    let report = export_gguf(&model, &file, GgufType::Auto, &mut |_, _| {}).unwrap();
    assert_eq!(std::fs::metadata(&file).unwrap().len(), report.bytes);
    let again = dir.path().join("again");
    import_gguf(&file, &again, &mut |_, _| {}).unwrap();
    let [own, back] = [&model, &again].map(|folder| {
        let tokenizer = tokenizers::Tokenizer::from_file(folder.join("tokenizer.json")).unwrap();
        tokenizer.encode("What is 12 + 345?\n\nI'll see.", true).unwrap().get_ids().to_vec()
    });
    assert_eq!(own, back);
}

/// The vocabulary and the ids of tests/golden/gguf_pieces.py, which joins pieces as llama.cpp does.
#[test]
fn pieces_are_joined_by_their_scores() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/gguf_pieces.json");
    let golden: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let list = |key: &str| golden[key].as_array().unwrap().clone();
    let pieces: Vec<Vec<u8>> = list("pieces").iter().map(|piece| text(piece.as_str().unwrap())).collect();
    let scores: Vec<Vec<u8>> =
        list("scores").iter().map(|x| (x.as_f64().unwrap() as f32).to_le_bytes().into()).collect();
    let kinds: Vec<Vec<u8>> = list("kinds").iter().map(|x| (x.as_i64().unwrap() as i32).to_le_bytes().into()).collect();
    let count = pieces.len() as u64;
    let file = |prefix: bool| {
        let mut file = File::small()
            .set("tokenizer.ggml.model", 8, text("llama"))
            .set("tokenizer.ggml.tokens", 9, support::list(8, &pieces))
            .set("tokenizer.ggml.scores", 9, support::list(6, &scores))
            .set("tokenizer.ggml.token_type", 9, support::list(5, &kinds))
            .set("tokenizer.ggml.bos_token_id", 4, 1u32.to_le_bytes().into())
            .set("tokenizer.ggml.eos_token_id", 4, 2u32.to_le_bytes().into())
            .set("tokenizer.ggml.unknown_token_id", 4, 0u32.to_le_bytes().into())
            .set("tokenizer.ggml.add_space_prefix", 7, vec![u8::from(prefix)]);
        file.tensors[0].1 = vec![32, count];
        file.tensors[0].3 = 0.5f32.to_le_bytes().repeat(32 * count as usize);
        file
    };
    let tokenizer = |file: &File| {
        let (result, dir) = import(&file.bytes());
        result.unwrap();
        tokenizers::Tokenizer::from_file(dir.path().join("out/tokenizer.json")).unwrap()
    };
    let (with, without) = (tokenizer(&file(true)), tokenizer(&file(false)));
    for case in list("texts") {
        let text = case["text"].as_str().unwrap();
        let want: Vec<u32> = case["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
        let ids = with.encode(text, false).unwrap().get_ids().to_vec();
        assert_eq!(ids, want, "{text}");
        assert_eq!(with.decode(&ids, true).unwrap(), text);
        assert_eq!(without.encode(format!(" {text}"), false).unwrap().get_ids(), want, "{text}");
    }
    // Folders with such a tokenizer become files with the same.
    for prefix in [true, false] {
        let (result, dir) = import(&file(prefix).bytes());
        result.unwrap();
        let path = |name: &str| dir.path().join(name);
        export_gguf(&path("out"), &path("again.gguf"), GgufType::F32, &mut |_, _| {}).unwrap();
        import_gguf(&path("again.gguf"), &path("again"), &mut |_, _| {}).unwrap();
        let read = |folder: &str| std::fs::read_to_string(path(folder).join("tokenizer.json")).unwrap();
        assert_eq!(read("out"), read("again"));
    }
    // A text begins with a token of its own, and special ones are matched whole.
    assert_eq!(with.encode("the</s>", true).unwrap().get_ids()[0], 1);
    assert_eq!(with.encode("the</s>", true).unwrap().get_ids().last(), Some(&2));
    let mut long = pieces.clone();
    long[5] = text(&"a".repeat(2000));
    let long = file(true).set("tokenizer.ggml.tokens", 9, support::list(8, &long));
    refused(
        &long,
        "`tokenizer.ggml.tokens` is a list with a piece of 2000 bytes, expected pieces of at most 1024 bytes",
    );
    let refused_text = file(true).set("tokenizer.ggml.remove_extra_whitespaces", 7, vec![1]);
    refused(&refused_text, "`tokenizer.ggml.remove_extra_whitespaces` is true");
}

#[test]
fn what_is_not_read_is_named() {
    refused(&File::small().set("general.architecture", 8, text("mamba")), "`general.architecture` is `mamba`");
    refused(&File::small().set("tokenizer.ggml.model", 8, text("t5")), "`tokenizer.ggml.model` is `t5`");
    refused(&File::small().set("tokenizer.ggml.model", 8, text("llama")), "`tokenizer.ggml.scores` is absent");
    refused(&File::small().set("tokenizer.ggml.pre", 8, text("kimi-k2")), "`tokenizer.ggml.pre` is `kimi-k2`");
    let long = File::small().set("llama.rope.scaling.type", 8, text("longrope"));
    refused(&long, "`llama.rope.scaling.type` is `longrope`, expected `none`, `linear` or `yarn`");
    let mut divided = File::small();
    divided.tensors.push(("rope_freqs.weight".into(), vec![8], 0, 3.0f32.to_le_bytes().repeat(8)));
    refused(&divided, "`rope_freqs.weight` is divisors that no rule of Llama 3.1's kind");
    refused(&File { version: 9, ..File::small() }, "version 9");
    let mut odd = File::small();
    odd.tensors[0].2 = 16;
    refused(&odd, "`token_embd.weight` is IQ2_XXS, expected F32, F16, BF16, Q4_0, Q4_1, Q5_0");
    odd.tensors[0].2 = 15;
    refused(&odd, "`token_embd.weight` is Q8_K");
    odd.tensors[0].2 = 77;
    refused(&odd, "`token_embd.weight` is of an unknown type, 77");
    refused(&File { version: 3u32.swap_bytes(), ..File::small() }, "a big-endian file");
    let part =
        File::small().set("split.count", 2, 3u16.to_le_bytes().into()).set("split.no", 2, 1u16.to_le_bytes().into());
    refused(
        &part,
        "`split.count` is 3, and this is part 2, expected a whole model: join its parts with `llama-gguf-split",
    );
    let causal = File::small().set("llama.attention.causal", 7, vec![0]);
    refused(&causal, "`llama.attention.causal` is false, expected `true`");
    let experts = File::small().set("llama.expert_count", 4, 8u32.to_le_bytes().into());
    refused(&experts, "`llama.expert_count` is 8, expected none, or 0");
    let narrow = File::small().set("llama.rope.dimension_count", 4, 8u32.to_le_bytes().into());
    refused(&narrow, "`llama.rope.dimension_count` is 8, expected 16, the width of a head");
    let beyond = File::small().set("tokenizer.ggml.eot_token_id", 4, 6u32.to_le_bytes().into());
    refused(&beyond, "`tokenizer.ggml.eot_token_id` is 6, expected below 6");
    refused(&with_float(File::small(), "llama.rope.scale_linear", -1.0), "`llama.rope.scale_linear` is -1");
}

/// A file of the golden folder with another value under a key.
fn golden(name: &str, key: &str, changed: impl Fn(&mut [u8])) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/gguf").join(format!("{name}.gguf"));
    with_value(std::fs::read(path).unwrap(), key, changed)
}

fn with_value(mut bytes: Vec<u8>, key: &str, changed: impl Fn(&mut [u8])) -> Vec<u8> {
    let at = bytes.windows(key.len()).position(|window| window == key.as_bytes()).unwrap() + key.len();
    changed(&mut bytes[at..]);
    bytes
}

/// Bytes of a number, or of the first of a list, after its key.
fn first_float(bytes: &mut [u8], of_list: bool, value: f32) {
    let at = if of_list { 4 + 4 + 8 } else { 4 };
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

#[test]
fn what_an_architecture_does_not_compute_is_named() {
    #[track_caller]
    fn named(bytes: &[u8], part: &str) {
        let text = import(bytes).0.unwrap_err().to_string();
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
    let beta = golden("apertus", "xielu.beta", |bytes| first_float(bytes, true, 0.75));
    named(&beta, "`xielu.beta` is 0.75, expected 0.5");
    let factor = golden("olmo3", "olmo2.rope.scaling.yarn_attn_factor", |bytes| first_float(bytes, false, 1.5));
    named(&factor, "`olmo2.rope.scaling.yarn_attn_factor` is 1.5, expected none, or 1.138");
    let flags = golden("olmo3", "olmo2.block_count", |bytes| bytes[4..8].copy_from_slice(&2u32.to_le_bytes()));
    named(&flags, "`olmo2.attention.sliding_window_pattern` is a list of 3, expected a number, or 2 flags");
    let eps = golden("cohere2", "cohere2.attention.layer_norm_epsilo", |bytes| bytes[0] = b'm');
    named(&eps, "`cohere2.attention.layer_norm_epsilon` is absent or no number");
    let plain = golden("mistral3", "mistral3.attention.temperature_scale", |bytes| first_float(bytes, false, 0.0));
    named(&plain, "`mistral3.rope.scaling.yarn_log_multiplier` is 1, expected none without");
    let parallel = File::small().set("llama.use_parallel_residual", 7, vec![1]);
    refused(&parallel, "`llama.use_parallel_residual` is true, expected `false`");
    let number = |n: i32| n.to_le_bytes().to_vec();
    let sections = |n: i32| support::list(5, &[number(n), number(0), number(0), number(0)]);
    refused(
        &File::small().set("llama.rope.dimension_sections", 9, sections(8)),
        "`llama.rope.dimension_sections` is a list of widths, expected none",
    );
    assert!(import(&File::small().set("llama.rope.dimension_sections", 9, sections(0)).bytes()).0.is_ok());
    refused(&with_float(File::small(), "llama.rope.freq_base_swa", 5e5), "`llama.rope.freq_base_swa` is 500000");
    let next = File::small().set("llama.nextn_predict_layers", 4, 1u32.to_le_bytes().into());
    refused(&next, "`llama.nextn_predict_layers` is 1, expected none, or 0");
    let scaled = with_float(File::small(), "llama.attention.temperature_scale", 0.1);
    refused(&scaled, "`llama.attention.temperature_scale` is 0.1");
}

/// Keys of a file that make another model of an architecture.
#[test]
fn an_architecture_may_be_two_families() {
    let config = |bytes: &[u8]| {
        let (result, dir) = import(bytes);
        result.unwrap();
        ModelConfig::from_folder(&dir.path().join("out")).unwrap()
    };
    let windows = |config: &ModelConfig| config.layers.iter().filter(|layer| layer.window.is_some()).count();
    let without_window = |name: &str, key: &str| config(&golden(name, key, |bytes| bytes[4] = 0));
    for (name, key, family) in [
        ("gemma3", "gemma3.attention.sliding_window", "gemma3_text"),
        ("exaone4", "exaone4.attention.sliding_window", "exaone4"),
        ("olmo3", "olmo2.attention.sliding_window", "olmo2"),
    ] {
        let whole = without_window(name, key);
        assert_eq!((whole.model_type.as_str(), windows(&whole)), (family, 0));
        assert!(whole.layers.iter().all(|layer| layer.rope.is_some()));
    }
    // Read by transformers 4 too.
    let usual = config(&golden("olmo3", "olmo2.rope.freq_base_swa", |bytes| first_float(bytes, false, 5e5)));
    assert!(usual.to_json().get("rope_parameters").is_none());
    assert_eq!((usual.ropes[0].theta, usual.ropes[1].theta, windows(&usual)), (5e4, 5e5, 2));
    assert!(matches!(usual.ropes[0].scaling, RopeScaling::Yarn { .. }));
    assert_eq!(usual.ropes[1].scaling, RopeScaling::Default);
    let plain = golden("mistral3", "mistral3.attention.temperature_scale", |bytes| first_float(bytes, false, 0.0));
    let plain = with_value(plain, "mistral3.rope.scaling.yarn_log_multiplier", |bytes| first_float(bytes, false, 0.0));
    let plain = config(&plain);
    assert_eq!((plain.model_type.as_str(), windows(&plain)), ("mistral", 0));
    assert!(plain.ropes[0].query_growth.is_none());
}

fn with_float(file: File, key: &str, value: f32) -> File {
    file.set(key, 6, value.to_le_bytes().into())
}

/// The rotary rules of the imported model.
#[track_caller]
fn rule(file: &File) -> RopeScaling {
    let (result, dir) = import(&file.bytes());
    result.unwrap();
    let config = ModelConfig::from_folder(&dir.path().join("out")).unwrap();
    assert_eq!(config.ropes.len(), 1);
    assert_eq!(config.ropes[0].theta, 5000.0);
    config.ropes[0].scaling.clone()
}

/// As llama.cpp reads them: linear where no rule is named, by either key, and 0 and 1 change nothing.
#[test]
fn rotary_frequencies_are_scaled_by_either_key() {
    let file = || with_float(File::small(), "llama.rope.freq_base", 5000.0);
    let (new, old, kind) = ("llama.rope.scaling.factor", "llama.rope.scale_linear", "llama.rope.scaling.type");
    let linear = RopeScaling::Linear { factor: 4.0 };
    assert_eq!(rule(&file()), RopeScaling::Default);
    assert_eq!(rule(&with_float(file(), old, 4.0)), linear);
    assert_eq!(rule(&with_float(file(), new, 4.0)), linear);
    assert_eq!(rule(&with_float(file(), new, 4.0).set(kind, 8, text("linear"))), linear);
    assert_eq!(rule(&with_float(with_float(file(), new, 4.0), old, 8.0)), linear);
    assert_eq!(rule(&with_float(with_float(file(), new, 0.0), old, 4.0)), linear);
    assert_eq!(rule(&with_float(file(), new, 4.0).set(kind, 8, text("none"))), RopeScaling::Default);
    assert_eq!(rule(&with_float(file(), old, 1.0)), RopeScaling::Default);
}

#[test]
fn the_end_of_a_turn_ends_responses_too() {
    let ends = |file: File| {
        let (result, dir) = import(&file.bytes());
        result.unwrap();
        let text = std::fs::read_to_string(dir.path().join("out/generation_config.json")).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap()["eos_token_id"].to_string()
    };
    let eot = |id: u32| File::small().set("tokenizer.ggml.eot_token_id", 4, id.to_le_bytes().into());
    assert_eq!((ends(File::small()), ends(eot(5)), ends(eot(4))), ("5".into(), "5".into(), "[5,4]".into()));
}

#[test]
fn tokens_that_the_file_adds_are_added() {
    let ids = |file: File| {
        let (result, dir) = import(&file.bytes());
        result.unwrap();
        let tokenizer = tokenizers::Tokenizer::from_file(dir.path().join("out/tokenizer.json")).unwrap();
        tokenizer.encode("ab", true).unwrap().get_ids().to_vec()
    };
    let bos = || File::small().set("tokenizer.ggml.bos_token_id", 4, 4u32.to_le_bytes().into());
    let adds = |file: File, name: &str| file.set(&format!("tokenizer.ggml.add_{name}_token"), 7, vec![1]);
    assert_eq!(ids(bos()), [2]);
    assert_eq!(ids(adds(bos(), "bos")), [4, 2]);
    assert_eq!(ids(adds(bos(), "eos")), [2, 5]);
    assert_eq!(ids(adds(adds(bos(), "bos"), "eos")), [4, 2, 5]);
}

#[test]
fn tensors_that_do_not_fit_are_listed() {
    let mut file = File::small();
    file.tensors.remove(2);
    file.tensors[4].1 = vec![64, 32];
    file.tensors.push(("rope_table.weight".into(), vec![8], 0, vec![0; 32]));
    for part in
        ["`blk.0.attn_k.weight` is missing", "`blk.0.ffn_gate.weight` is [64, 32]", "`rope_table.weight` is not part"]
    {
        refused(&file, part);
    }
    let mut far = File::small();
    far.tensors.last_mut().unwrap().3.truncate(8);
    far.tensors.last_mut().unwrap().1 = vec![1 << 40];
    refused(&far, "whole rows inside the file's");
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    let whole = File::small().bytes();
    for length in (0..whole.len() - 32).step_by(37) {
        let (result, dir) = import(&whole[..length]);
        assert!(result.is_err(), "{length}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}

#[test]
fn an_existing_folder_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("m.gguf");
    std::fs::write(&input, File::small().bytes()).unwrap();
    let error = import_gguf(&input, dir.path(), &mut |_, _| {}).unwrap_err();
    assert!(matches!(error, GgufError::Files(simplemix_files::Error::Exists { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Bytes changed at random end in an error or a model, never in a panic or a huge allocation.
    #[test]
    fn damage_never_panics(changes in prop::collection::vec((0usize..1200, any::<u8>()), 1..6)) {
        let mut bytes = File::small().bytes();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        let _ = import(&bytes);
    }
}

/// The demo's model in the cache, under the rule of `cargo xtask`.
fn real() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let cache = variable("SIMPLEMIX_CACHE").or_else(|| {
        let caches = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")))?;
        Some(caches.join("simplemix"))
    })?;
    Some(cache.join("demo/smollm2-135m-instruct.q4_1.gguf")).filter(|path| path.is_file())
}

/// Token ids of a thousand strings against those of transformers: tests/golden/gguf_tokens.py.
#[test]
fn the_real_tokenizer_gives_the_ids_of_transformers() {
    let Some(input) = real() else {
        eprintln!("skipped: no SmolLM2 in the cache; `cargo xtask fetch` gets it");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("smollm2");
    import_gguf(&input, &folder, &mut |_, _| {}).unwrap();
    let tokenizer = tokenizers::Tokenizer::from_file(folder.join("tokenizer.json")).unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/gguf_tokens.json");
    let golden: Vec<serde_json::Value> = serde_json::from_str(&std::fs::read_to_string(golden).unwrap()).unwrap();
    assert_eq!(golden.len(), 1000);
    for row in &golden {
        let text = row["text"].as_str().unwrap();
        let ids: Vec<String> = tokenizer.encode(text, false).unwrap().get_ids().iter().map(u32::to_string).collect();
        assert_eq!(ids.len() as u64, row["count"].as_u64().unwrap(), "{text:?}");
        assert_eq!(digest(&ids.join(",")), row["sha256"].as_str().unwrap(), "{text:?}");
    }
}

/// First eight hex digits of SHA-256.
fn digest(text: &str) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(text.as_bytes()).iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_file_that_is_cut_short_meanwhile_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let (input, output) = (dir.path().join("m.gguf"), dir.path().join("out"));
    std::fs::write(&input, File::small().bytes()).unwrap();
    let length = input.metadata().unwrap().len();
    let file = std::fs::OpenOptions::new().write(true).open(&input).unwrap();
    // Called after a tensor was written, so the next one is behind the end.
    let error = import_gguf(&input, &output, &mut |_, _| file.set_len(length / 2).unwrap()).unwrap_err().to_string();
    assert!(error.contains("m.gguf: byte ") && error.contains("cut short meanwhile"), "{error}");
    assert!(!output.exists());
}

#[test]
fn a_count_that_only_a_sparse_file_has_room_for() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("m.gguf");
    let value = [&1u64.to_le_bytes()[..], b"k", &9u32.to_le_bytes(), &0u32.to_le_bytes(), &(1u64 << 30).to_le_bytes()];
    let header = [b"GGUF", &3u32.to_le_bytes()[..], &0u64.to_le_bytes(), &1u64.to_le_bytes()];
    std::fs::write(&input, [header.concat(), value.concat()].concat()).unwrap();
    std::fs::OpenOptions::new().write(true).open(&input).unwrap().set_len(1 << 40).unwrap();
    let error = import_gguf(&input, &dir.path().join("out"), &mut |_, _| {}).unwrap_err().to_string();
    assert!(error.contains("a count of 1073741824, expected at most 16777216"), "{error}");
}
