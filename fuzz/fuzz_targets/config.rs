//! Any text as config.json: a configuration whose tensors can be listed and that is read again from what it writes, or an
//! error.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use simplemix_model::ModelConfig;

fuzz_target!(|text: &str| {
    let Ok(config) = ModelConfig::from_json(text, Path::new("config.json")) else { return };
    let written = config.to_json().to_string();
    let again = ModelConfig::from_json(&written, Path::new("config.json"));
    assert!(again.is_ok(), "{again:?} of {written}");
    let _ = config.parameters();
});
