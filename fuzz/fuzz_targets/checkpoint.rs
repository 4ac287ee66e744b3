//! Any bytes as a model folder: a model whose forward pass runs, or an error; never a panic, never memory that the files
//! do not hold. The input is config.json, a zero byte, and the weights file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use simplemix_model::{CausalLm, Packed};
use tch::{Device, Kind};

fuzz_target!(|input: &[u8]| {
    let middle = input.iter().position(|&byte| byte == 0).unwrap_or(input.len());
    let (config, weights) = input.split_at(middle);
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    std::fs::write(folder.path().join("config.json"), config).unwrap();
    std::fs::write(folder.path().join("model.safetensors"), weights.get(1..).unwrap_or_default()).unwrap();
    let Ok(model) = CausalLm::load(folder.path(), Kind::Float, Device::Cpu) else { return };
    let mut packed = Packed::new();
    packed.push(&[0]).unwrap();
    let _ = model.hidden_states(&packed);
});
