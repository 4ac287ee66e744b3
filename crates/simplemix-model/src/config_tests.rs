//! Reading `config.json`.

use super::*;
use crate::config::{DeltaRule, Experts, Routing, ShortConvolution};

const SMOLLM2: &str = r#"{"architectures":["LlamaForCausalLM"],"model_type":"llama","vocab_size":49152,
    "hidden_size":576,"intermediate_size":1536,"num_hidden_layers":30,"num_attention_heads":9,
    "num_key_value_heads":3,"hidden_act":"silu","rms_norm_eps":1e-5,"rope_theta":100000,"rope_scaling":null,
    "tie_word_embeddings":true,"max_position_embeddings":8192,"transformers_version":"4.42.3"}"#;

fn read(text: &str) -> Result<ModelConfig> {
    ModelConfig::from_json(text, Path::new("m/config.json"))
}

#[test]
fn counts_the_weights_of_smollm2_135m() {
    // Published: 134,515,008 weights.
    assert_eq!(read(SMOLLM2).unwrap().parameters(), 134_515_008);
}

#[test]
fn what_was_read_is_written() {
    let config = read(SMOLLM2).unwrap();
    assert_eq!(read(&config.to_json().to_string()).unwrap(), config);
    assert_eq!(config.to_json()["transformers_version"], "4.42.3");
}

#[test]
fn refuses_by_name_what_it_does_not_compute() {
    for (from, to, message) in [
        ("silu", "relu", "`hidden_act` is `relu`, expected `silu` or `gelu_pytorch_tanh`"),
        (
            "\"rope_scaling\":null",
            "\"rope_scaling\":{\"rope_type\":\"proportional\"}",
            "`rope_scaling.rope_type` is `proportional`, expected `default`, `dynamic`, `linear`, `llama3`, `longrope` or `yarn`",
        ),
        (
            "\"rope_scaling\":null",
            "\"rope_scaling\":{\"type\":\"linear\",\"factor\":-1}",
            "`rope_scaling.factor` is -1, expected a number above 0",
        ),
        (
            "\"num_key_value_heads\":3",
            "\"num_key_value_heads\":4",
            "`num_key_value_heads` is 4, expected a divisor of 9 query heads",
        ),
        (
            "\"vocab_size\":49152",
            "\"vocab_size\":\"many\"",
            "`vocab_size` is `many`, expected a number from 1 to 16777216",
        ),
        ("\"rope_theta\":100000", "\"rope_theta\":0.5", "`rope_theta` is 0.5, expected a number above 1"),
        (
            "\"rope_scaling\":null",
            "\"quantization_config\":{\"bits\":4}",
            "`quantization_config.quant_method` is absent, expected `bitsandbytes`, `gptq` or `awq`; or take the model in bf16, f16 \
             or f32",
        ),
        (
            "\"rope_scaling\":null",
            "\"is_causal\":false",
            "`is_causal` is false, expected `true`: tokens that see later ones are not computed",
        ),
        (
            "\"rope_scaling\":null",
            "\"is_causal\":null",
            "`is_causal` is null, expected `true`: tokens that see later ones are not computed",
        ),
        (
            "\"rope_scaling\":null",
            "\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"linear\",\"factor\":2}}",
            "`rope_parameters.full_attention` is {\"rope_type\":\"linear\",\"factor\":2}, expected one rule for all layers in a \
             model of this family",
        ),
        ("\"hidden_size\":576", "\"hidden_size\":null", "`hidden_size` is null, expected a number from 1 to 16777216"),
        (
            "\"rope_theta\":100000",
            "\"rope_theta\":Infinity",
            "`rope_theta` is Infinity, expected a finite number: Python writes this one, and it is not JSON; put a number there, \
             or null",
        ),
        (
            "\"rope_scaling\":null",
            "\"head_dim\":2,\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":2}",
            "`rope_scaling.type` is `dynamic`, expected another rule: this one needs heads with at least 4 rotated entries",
        ),
        (
            "\"rope_scaling\":null",
            "\"partial_rotary_factor\":0.5,\"rope_scaling\":{\"type\":\"yarn\",\"factor\":2}",
            "`partial_rotary_factor` is 0.5, expected 1: models of this family rotate whole heads",
        ),
        (
            "\"rope_scaling\":null",
            "\"rope_scaling\":{\"type\":\"yarn\",\"mscale\":1}",
            "`rope_scaling.factor` is absent, expected a number above 0",
        ),
        (
            "\"rope_scaling\":null",
            "\"rope_scaling\":{\"type\":\"longrope\",\"short_factor\":[1],\"long_factor\":[1]},\"head_dim\":4",
            "`rope_scaling.short_factor` is [1], expected 2 numbers above 0",
        ),
        (
            "\"model_type\":\"llama\"",
            "\"model_type\":\"ministral3\",\"rope_parameters\":{\"rope_type\":\"default\"}",
            "`rope_parameters.llama_4_scaling_beta` is absent, expected a number from 0",
        ),
        (
            "\"model_type\":\"llama\"",
            "\"model_type\":\"ministral3\",\"rope_parameters\":{\"rope_type\":\"default\",\"llama_4_scaling_beta\":1}",
            "`rope_parameters.original_max_position_embeddings` is absent, expected a number from 1 to 16777216",
        ),
        (
            "\"model_type\":\"llama\"",
            "\"model_type\":\"smollm3\",\"no_rope_layers\":[1,0]",
            "`no_rope_layers` is [1,0], expected at least 30 of 0 and 1, one for each layer",
        ),
        (
            "\"model_type\":\"llama\"",
            "\"model_type\":\"qwen2\",\"layer_types\":[\"sliding_attention\"]",
            "`layer_types` is [\"sliding_attention\"], expected 30 of `full_attention` and `sliding_attention`",
        ),
    ] {
        let error = read(&SMOLLM2.replace(from, to)).unwrap_err();
        assert_eq!(error.to_string(), format!("m/config.json: {message}"));
    }
}

#[test]
fn a_window_that_layers_ask_for_must_be_given() {
    let types = vec!["\"sliding_attention\""; 30].join(",");
    let layers = format!("\"model_type\":\"qwen2\",\"layer_types\":[{types}]");
    let error = read(&SMOLLM2.replace("\"model_type\":\"llama\"", &layers)).unwrap_err().to_string();
    assert!(error.contains("`sliding_window` is absent, expected a window for the layers"), "{error}");
    let layers = format!("{layers},\"use_sliding_window\":true");
    let config = read(&SMOLLM2.replace("\"model_type\":\"llama\"", &layers)).unwrap();
    assert!(config.layers.iter().all(|layer| layer.window == Some(4096)));
}

/// transformers' reading of absent keys and of rules under two names: tests/golden/model_configs.py.
#[test]
fn what_a_file_leaves_open_is_read_as_transformers_reads_it() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/model_configs.json");
    let golden: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert!(golden.len() > 30);
    for case in golden {
        let config = read(&case["config"].to_string()).unwrap();
        let named = &case["config"];
        assert_eq!(config.num_key_value_heads, case["num_key_value_heads"].as_i64().unwrap(), "{named}");
        assert_eq!(config.rms_norm_eps, case["rms_norm_eps"].as_f64().unwrap(), "{named}");
        assert_eq!(config.max_position_embeddings, case["max_position_embeddings"].as_i64().unwrap(), "{named}");
        assert_eq!(config.tie_word_embeddings, case["tied"].as_bool().unwrap(), "{named}");
        assert_eq!(config.attention_soft_cap.is_some(), case["attention_capped"].as_bool().unwrap(), "{named}");
        let windows: Vec<Value> = config.layers.iter().map(|layer| layer.window.into()).collect();
        assert_eq!(Value::from(windows), case["windows"], "{named}");
        let rotated: Vec<bool> = config.layers.iter().map(|layer| layer.rope.is_some()).collect();
        assert!(case.get("rotated").is_none_or(|wanted| *wanted == serde_json::json!(rotated)), "{named}");
        let sizes = |rule: DeltaRule| {
            serde_json::json!([rule.key_heads, rule.value_heads, rule.key_dim, rule.value_dim, rule.kernel])
        };
        assert_eq!(config.delta_rule.map_or(Value::Null, sizes), case["delta_rule"], "{named}");
        let sizes = |of: ShortConvolution| serde_json::json!([of.kernel, of.bias]);
        assert_eq!(config.short_convolution.map_or(Value::Null, sizes), case["short_convolution"], "{named}");
        let (experts, wanted) = (config.experts.map_or(Value::Null, |of| experts(of, &config)), &case["experts"]);
        assert_eq!(experts, *wanted, "{named}");
        assert!(case.get("feed_forward").is_none_or(|width| *width == config.intermediate_size), "{named}");
        let layers = (0..config.num_hidden_layers).map(|layer| {
            let projections = config.projections(layer);
            let outputs = |name: &str| projections.iter().find(|(own, ..)| *own == name).map(|(_, shape, _)| shape[0]);
            ["self_attn.q_proj", "mlp.up_proj", "self_attn.k_proj", "self_attn.v_proj"].map(outputs)
        });
        let wanted = case.get("layers");
        assert!(wanted.is_none_or(|wanted| *wanted == serde_json::json!(layers.collect::<Vec<_>>())), "{named}");
        let table = config.decoder_tensors().into_iter().find(|(name, _)| name == crate::config::LAYER_TABLE);
        let table = table.map_or(Value::Null, |(_, shape)| serde_json::json!(shape));
        assert_eq!(table, case["table"], "{named}");
        let growth = config.ropes.first().and_then(|rope| rope.query_growth);
        let growth = growth.map_or(Value::Null, |growth| serde_json::json!([growth.beta, growth.context as f64]));
        let wanted = case["query_growth"]
            .as_array()
            .map_or(Value::Null, |pair| serde_json::json!(pair.iter().filter_map(Value::as_f64).collect::<Vec<f64>>()));
        assert_eq!(growth, wanted, "{named}");
        same_ropes(&config, &case);
        same_defaults(named, &case["shape"]);
    }
}

fn experts(of: Experts, config: &ModelConfig) -> Value {
    let (normed, groups) = match of.routing {
        Routing::Softmax { normed, .. } => (normed, Value::Null),
        Routing::Sigmoid { normed, groups, groups_per_token, scale } => {
            (normed, serde_json::json!([groups, groups_per_token, scale]))
        }
    };
    let sparse: Vec<bool> = config.layers.iter().map(|layer| layer.is_sparse).collect();
    serde_json::json!({
        "count": of.count, "per_token": of.per_token, "width": of.width, "shared": of.shared_width, "sparse": sparse, "normed": normed,
        "coef": of.aux_loss_coef, "groups": groups,
    })
}

/// Settings of experts that are not computed, or cannot be.
#[test]
fn experts_that_cannot_be_are_named() {
    for (more, expected) in [
        (r#""model_type":"olmoe","clip_qkv":8.0"#, "`clip_qkv` is 8.0, expected `null`"),
        (r#""model_type":"mixtral","router_jitter_noise":0.1"#, "`router_jitter_noise` is 0.1, expected 0"),
        (r#""model_type":"qwen3_moe","num_experts":4"#, "`num_experts_per_tok` is absent, expected at most 4 experts"),
        (r#""model_type":"qwen3_moe","num_experts":5000"#, "`num_experts` is 5000, expected at most 4096"),
        (r#""model_type":"qwen3_moe","mlp_only_layers":[-1]"#, "`mlp_only_layers` is [-1], expected a list of numbers"),
        (
            r#""model_type":"qwen3_moe","router_aux_loss_coef":-1"#,
            "`router_aux_loss_coef` is -1, expected a number from 0",
        ),
        (r#""model_type":"glm4_moe","head_dim":8,"n_group":3"#, "`n_group` is 3, expected a divisor of 128 experts"),
        (
            r#""model_type":"glm4_moe","head_dim":8,"n_group":64,"topk_group":2"#,
            "`topk_group` is 2, expected at most 64 groups, with room",
        ),
        (
            r#""model_type":"glm4_moe","head_dim":8,"first_k_dense_replace":-1"#,
            "`first_k_dense_replace` is -1, expected a number of layers",
        ),
    ] {
        let error = read(&format!("{{{more}}}")).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

fn same_ropes(config: &ModelConfig, case: &Value) {
    let wanted = case["ropes"].as_array().unwrap();
    assert_eq!(config.ropes.len(), wanted.len());
    for (rope, wanted) in config.ropes.iter().zip(wanted) {
        let rope = crate::rope::Rope::new(rope, tch::Device::Cpu);
        let others = wanted["by_length"].as_array().into_iter().flatten();
        for (length, wanted) in std::iter::once((1, wanted)).chain(others.map(|w| (w["length"].as_i64().unwrap(), w))) {
            let want: Vec<f64> = wanted["inv_freq"].as_array().unwrap().iter().filter_map(Value::as_f64).collect();
            let got = rope.inverse_frequencies(length);
            assert_eq!(got.len(), want.len());
            let close = got.iter().zip(&want).all(|(got, want)| (got - want).abs() <= 1e-6 * want);
            assert!(close, "{} at {length}: {got:?} {want:?}", case["config"]);
        }
        assert!((rope.factor() - wanted["factor"].as_f64().unwrap()).abs() < 1e-12, "{}", case["config"]);
    }
}

/// Shape keys that are left out too.
fn same_defaults(named: &Value, shape: &Value) {
    let kind = &named["model_type"];
    if kind == "glm4_moe" {
        // Sizes that transformers takes by default give heads of 42 and two thirds numbers.
        return;
    }
    let config = read(&serde_json::json!({ "model_type": kind }).to_string()).unwrap();
    let number = |key: &str| shape[key].as_i64().unwrap();
    assert_eq!(config.vocab_size, number("vocab_size"), "{kind}");
    assert_eq!(config.hidden_size, number("hidden_size"), "{kind}");
    assert_eq!(config.intermediate_size, number("intermediate_size"), "{kind}");
    assert_eq!(config.num_hidden_layers as i64, number("num_hidden_layers"), "{kind}");
    assert_eq!(config.num_attention_heads, number("num_attention_heads"), "{kind}");
    let width = shape["head_dim"].as_i64().unwrap_or(config.hidden_size / config.num_attention_heads);
    assert_eq!(config.head_dim, width, "{kind}");
}

/// transformers' reading of multimodal models whose text part leaves keys out: tests/golden/model_multimodal_configs.py.
#[test]
fn what_a_text_part_leaves_open_is_read_as_transformers_reads_it() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/model_multimodal_configs.json");
    let golden: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let names: Vec<&str> = golden.iter().map(|case| case["model_type"].as_str().unwrap()).collect();
    assert_eq!(names, crate::MULTIMODAL_TYPES);
    for case in golden {
        let kind = case["model_type"].as_str().unwrap();
        let of = |whole: &Value, part: &Value| {
            let mut file = whole.clone();
            (file["model_type"], file["text_config"]) = (kind.into(), part.clone());
            read(&file.to_string()).unwrap_or_else(|error| panic!("{kind}: {error}"))
        };
        let both = |part: &Value| {
            let pairs = case["text"].as_object().unwrap().iter().chain(part.as_object().unwrap());
            Value::Object(pairs.map(|(key, value)| (key.clone(), value.clone())).collect())
        };
        let (empty, shape) = (serde_json::json!({}), &case["shape"]);
        // Sections of the rotation have a default of their own, which fits the class's heads.
        let config = of(&empty, &both(&empty));
        assert_eq!((config.model_type.as_str(), config.part_of()), (case["family"].as_str().unwrap(), Some(kind)));
        let heads = config.num_attention_heads;
        let found = serde_json::json!({
            "vocab_size": config.vocab_size, "hidden_size": config.hidden_size, "intermediate_size": config.intermediate_size,
            "num_hidden_layers": config.num_hidden_layers, "num_attention_heads": heads,
            "num_key_value_heads": config.num_key_value_heads, "head_dim": config.head_dim,
            "max_position_embeddings": config.max_position_embeddings, "rms_norm_eps": config.rms_norm_eps,
        });
        let mut wanted = shape.clone();
        if wanted["head_dim"].is_null() {
            wanted["head_dim"] = (config.hidden_size / heads).into();
        }
        assert_eq!(found, wanted, "{kind}");
        assert_eq!(config.pad_token_id, case["pad_token_id"].as_i64(), "{kind}");
        let small = both(&case["small"]);
        let config = of(&empty, &small);
        let rope = crate::rope::Rope::new(&config.ropes[config.layers[0].rope.unwrap_or(0)], tch::Device::Cpu);
        let want: Vec<f64> = case["inv_freq"].as_array().unwrap().iter().filter_map(Value::as_f64).collect();
        let got = rope.inverse_frequencies(1);
        assert_eq!(got.len(), want.len(), "{kind}");
        assert!(got.iter().zip(&want).all(|(got, want)| (got - want).abs() <= 1e-6 * want), "{kind}: {got:?} {want:?}");
        // Where transformers refuses a null, nothing is to be held.
        for tie in case["tied"].as_array().unwrap().iter().filter(|tie| !tie["tied"].is_null()) {
            let part = small.as_object().unwrap().iter().chain(tie["text"].as_object().unwrap());
            let part = Value::Object(part.map(|(key, value)| (key.clone(), value.clone())).collect());
            let config = of(&tie["whole"], &part);
            assert_eq!(config.tie_word_embeddings, tie["tied"].as_bool().unwrap(), "{kind}: {tie}");
        }
    }
}

#[test]
fn settings_of_gemma_4_are_followed_or_refused() {
    let file = |more: &str| {
        let text = format!(
            r#"{{"model_type":"gemma4_text","vocab_size":16,"hidden_size":32,"intermediate_size":8,"num_hidden_layers":4,
                "num_attention_heads":4,"num_key_value_heads":2,"head_dim":8,"vocab_size_per_layer_input":16,
                "layer_types":["sliding_attention","full_attention","sliding_attention","full_attention"]{more}}}"#
        );
        read(&text)
    };
    let shared = file(r#","num_kv_shared_layers":2"#).unwrap();
    assert_eq!(shared.layers.iter().map(|layer| layer.keys_of).collect::<Vec<_>>(), [None, None, Some(0), Some(1)]);
    for (more, message) in [
        (
            r#","enable_moe_block":true"#,
            "`enable_moe_block` is true, expected `false`: Gemma 4's mixture of experts is not computed",
        ),
        (
            r#","use_bidirectional_attention":"all""#,
            "`use_bidirectional_attention` is `all`, expected null or `vision`, which is for images alone: tokens that see later \
             ones are not computed",
        ),
        (r#","num_kv_shared_layers":4"#, "`num_kv_shared_layers` is 4, expected a number from 0 to 3"),
        (
            r#","num_kv_shared_layers":3"#,
            "`num_kv_shared_layers` is 3, expected one that leaves a layer of `full_attention` with keys of its own",
        ),
        (
            r#","vocab_size_per_layer_input":15"#,
            "`vocab_size_per_layer_input` is 15, expected at least 16, the entries of the vocabulary",
        ),
        (
            r#","global_head_dim":7"#,
            "`global_head_dim` is 7, expected even widths of heads up to 65536, and a divisor of 4 query heads",
        ),
        (
            r#","per_layer_config":{"1":{"head_dim":6}}"#,
            "`per_layer_config` is {\"1\":{\"head_dim\":6}}, expected the same sizes in all layers of a kind",
        ),
        (
            r#","per_layer_config":{"1":{"sliding_window":6}}"#,
            "`per_layer_config.*.sliding_window` is 6, expected absent: layers differ in `head_dim` and `num_key_value_heads` alone",
        ),
        (
            r#","per_layer_config":{"full_attention":{}}"#,
            "`per_layer_config.full_attention` is {}, expected settings of a layer, by its number",
        ),
        (
            r#","rope_scaling":{"type":"linear","factor":2}"#,
            "`rope_scaling` is {\"type\":\"linear\",\"factor\":2}, expected absent: a rule for each kind of layer is in \
             `rope_parameters`",
        ),
        (
            r#","rope_parameters":{"full_attention":{"rope_theta":5}}"#,
            "`rope_parameters.sliding_attention` is absent, expected the rule of such layers",
        ),
        (
            r#","rope_parameters":{"full_attention":{"rope_theta":5,"rope_type":"yarn"}}"#,
            "`rope_parameters.full_attention.rope_type` is `yarn`, expected `default` or `proportional`",
        ),
    ] {
        let error = file(more).unwrap_err().to_string();
        assert_eq!(error, format!("m/config.json: {message}"));
    }
}

#[test]
fn every_family_is_listed() {
    let [families, classes] = [crate::MODEL_TYPES, crate::MULTIMODAL_TYPES].map(|names| names.join(", "));
    for (text, found) in [("{}", "absent"), (r#"{"model_type":"mamba"}"#, "`mamba`")] {
        let error = read(text).unwrap_err().to_string();
        let expected = format!("one of {families}; or of {classes}, whose text part is read");
        assert_eq!(error, format!("m/config.json: `model_type` is {found}, expected {expected}"));
    }
    for kind in crate::MODEL_TYPES {
        // Whatever else such a file needs, its family is known.
        let text = SMOLLM2.replace("\"llama\"", &format!("\"{kind}\""));
        assert!(!read(&text).is_err_and(|e| e.to_string().contains("model_type")), "{kind}");
    }
    for kind in crate::MULTIMODAL_TYPES {
        let part = SMOLLM2.replace("\"llama\"", "null");
        let read = read(&format!(r#"{{"model_type":"{kind}","text_config":{part}}}"#));
        assert!(!read.is_err_and(|e| e.to_string().contains("model_type")), "{kind}");
    }
}

#[test]
fn numbers_of_any_size_are_refused_or_counted() {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/model_configs.json");
    let cases: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(golden).unwrap()).unwrap();
    for case in cases {
        let config = case["config"].as_object().unwrap();
        let numbers = config.iter().filter(|(_, value)| value.is_number()).map(|(key, _)| key);
        for key in numbers {
            for value in [0.0, -1.0, 0.5, 3.0, 65_536.0, 16_777_216.0, 1e18, 1e300] {
                for all in [false, true] {
                    let mut changed = config.clone();
                    let number = if value < 1e17 && value != 0.5 { Value::from(value as i64) } else { value.into() };
                    let takes = |name: &String| name == key || all && config[name].is_number();
                    let names: Vec<String> = config.keys().filter(|name| takes(name)).cloned().collect();
                    names.into_iter().for_each(|name| drop(changed.insert(name, number.clone())));
                    if let Ok(read) = read(&Value::Object(changed).to_string()) {
                        assert!(read.parameters() > 0);
                    }
                }
            }
        }
    }
    let huge = SMOLLM2.replace(":576", ":16777216").replace(":9,", ":65536,").replace(":3,", ":65536,");
    let huge = huge.replace("\"hidden_act\"", "\"head_dim\":65536,\"hidden_act\"").replace(":30,", ":4096,");
    let error = read(&huge).unwrap_err().to_string();
    assert!(error.contains("`hidden_size` is 16777216, expected one that gives at most 10^15 weights"), "{error}");
}
