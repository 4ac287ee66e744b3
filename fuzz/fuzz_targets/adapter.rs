//! Any bytes as a folder of peft: an adapter with which a forward pass runs, or an error. The input is
//! adapter_config.json, a zero byte, and the weights file.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use simplemix_model::{ADAPTER_CONFIG, ADAPTER_WEIGHTS, CausalLm, Packed};
use tch::{Device, Kind};

struct Base(CausalLm);
// SAFETY: libFuzzer runs inputs one after the other in one thread.
unsafe impl Send for Base {}
unsafe impl Sync for Base {}

static BASE: OnceLock<Base> = OnceLock::new();

/// The model of a layer that `seeds.py` writes for the target `checkpoint`.
fn base() -> &'static CausalLm {
    let load = || {
        let seed: &[u8] = include_bytes!("../base.seed");
        let middle = seed.iter().position(|&byte| byte == 0).unwrap();
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        std::fs::write(folder.path().join("config.json"), &seed[..middle]).unwrap();
        std::fs::write(folder.path().join("model.safetensors"), &seed[middle + 1..]).unwrap();
        Base(CausalLm::load(folder.path(), Kind::Float, Device::Cpu).unwrap())
    };
    &BASE.get_or_init(load).0
}

fuzz_target!(|input: &[u8]| {
    let middle = input.iter().position(|&byte| byte == 0).unwrap_or(input.len());
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    std::fs::write(folder.path().join(ADAPTER_CONFIG), &input[..middle]).unwrap();
    std::fs::write(folder.path().join(ADAPTER_WEIGHTS), input.get(middle + 1..).unwrap_or_default()).unwrap();
    let Ok(mut model) = base().with_adapter(None) else { return };
    if model.load_adapter("a", folder.path()).is_err() {
        return;
    }
    let model = model.with_adapter(Some("a")).unwrap();
    let mut packed = Packed::new();
    packed.push(&[0]).unwrap();
    let _ = model.hidden_states(&packed);
});
