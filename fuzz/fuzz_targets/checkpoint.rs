//! Any bytes as a model folder: a model whose forward pass runs, or an error; never a panic, never memory that the files
//! do not hold.
#![no_main]

use libfuzzer_sys::fuzz_target;
use simplemix_model::{CausalLm, Packed};
use tch::{Device, Kind};

fuzz_target!(|files: (&[u8], &[u8])| {
    let (config, weights) = files;
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    std::fs::write(folder.path().join("config.json"), config).unwrap();
    std::fs::write(folder.path().join("model.safetensors"), weights).unwrap();
    let Ok(model) = CausalLm::load(folder.path(), Kind::Float, Device::Cpu) else { return };
    let mut packed = Packed::new();
    packed.push(&[0]).unwrap();
    let _ = model.hidden_states(&packed);
});
