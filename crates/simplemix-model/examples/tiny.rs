//! Writes the tiny random model that tests use, for scripts that compare with other programs.
//!
//! cargo run -p simplemix-model --example tiny -- FOLDER SEED

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [folder, seed] = &args[..] else { return Err("expected FOLDER SEED".into()) };
    Ok(simplemix_model::tiny::write_folder(Path::new(folder), seed.parse()?)?)
}
