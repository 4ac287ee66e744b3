//! Writes the tiny random model that tests use, for scripts that compare with other programs.
//!
//! cargo run -p simplemix-model --example tiny -- FOLDER SEED [CONFIG.json]

use std::path::Path;

use simplemix_model::{ModelConfig, tiny};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (folder, seed, config) = match &args[..] {
        [folder, seed] => (folder, seed, tiny::config()),
        [folder, seed, config] => {
            let text = std::fs::read_to_string(config)?;
            (folder, seed, ModelConfig::from_json(&text, Path::new(config))?)
        }
        _ => return Err("expected FOLDER SEED [CONFIG.json]".into()),
    };
    Ok(tiny::write_folder_of(Path::new(folder), config, seed.parse()?)?)
}
