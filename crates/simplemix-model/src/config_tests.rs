//! Reading `config.json`.

use super::*;

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
        (
            "\"llama\"",
            "\"mamba\"",
            "`model_type` is `mamba`, expected one of gemma2, gemma3_text, llama, mistral, olmo2, phi3, qwen2, qwen3",
        ),
        ("silu", "relu", "`hidden_act` is `relu`, expected `silu` or `gelu_pytorch_tanh`"),
        (
            "\"rope_scaling\":null",
            "\"rope_scaling\":{\"rope_type\":\"yarn\"}",
            "`rope_scaling.rope_type` is `yarn`, expected `default`, `linear`, `llama3` or `longrope`",
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
            "`quantization_config` is {\"bits\":4}, expected `null`",
        ),
    ] {
        let error = read(&SMOLLM2.replace(from, to)).unwrap_err();
        assert_eq!(error.to_string(), format!("m/config.json: {message}"));
    }
}

#[test]
fn every_family_is_listed() {
    let error = read("{}").unwrap_err().to_string();
    assert!(error.ends_with(&crate::MODEL_TYPES.join(", ")), "{error}");
    for kind in crate::MODEL_TYPES {
        // Whatever else such a file needs, its family is known.
        let text = SMOLLM2.replace("\"llama\"", &format!("\"{kind}\""));
        assert!(!read(&text).is_err_and(|e| e.to_string().contains("model_type")), "{kind}");
    }
}
