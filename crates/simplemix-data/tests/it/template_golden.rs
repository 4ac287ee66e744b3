//! Chat templates of real models, byte for byte as `transformers` renders them.
//!
//! The golden file is made by `tests/golden/data_templates.py` in the repository.

use serde_json::Value;
use simplemix_data::{ChatTemplate, RenderOptions, SpecialTokens};

#[test]
fn real_templates_render_as_in_transformers() {
    let path = std::env::var_os("SIMPLEMIX_TEMPLATE_GOLDEN")
        .unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/data_templates.json").into());
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let mut tokens = SpecialTokens::default();
    for (name, token) in golden["tokens"].as_object().unwrap() {
        tokens.set(name, token.as_str().unwrap());
    }
    let templates = golden["templates"].as_object().unwrap();
    assert!(templates.len() >= 15);
    let mut failures = Vec::new();
    for (name, entry) in templates {
        let text = entry["template"].as_str().unwrap();
        let template = match ChatTemplate::from_str(text) {
            Ok(template) => template.with_special_tokens(tokens.clone()).with_date(2026, 1, 5).unwrap(),
            Err(error) => {
                failures.push(format!("{name}: {error}"));
                continue;
            }
        };
        for (index, case) in golden["cases"].as_array().unwrap().iter().enumerate() {
            let rendered = template.render_json(&case["messages"], &options(&case["arguments"]));
            let matches = match (&rendered, entry["texts"][index].as_str()) {
                (Ok(text), Some(expected)) => text == expected,
                (Err(_), None) => true,
                _ => false,
            };
            if !matches {
                failures.push(format!("{name} case {index}: {rendered:?}\nexpected {}", entry["texts"][index]));
            }
        }
    }
    assert!(failures.is_empty(), "{} differ:\n{}", failures.len(), failures.join("\n"));
}

fn options(arguments: &Value) -> RenderOptions {
    let mut options = RenderOptions::default();
    for (name, value) in arguments.as_object().unwrap() {
        match name.as_str() {
            "add_generation_prompt" => options.add_generation_prompt = value.as_bool().unwrap(),
            "tools" => options.tools = Some(value.clone()),
            _ => drop(options.arguments.insert(name.clone(), value.clone())),
        }
    }
    options
}
