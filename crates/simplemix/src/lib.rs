#![doc = include_str!("../README.md")]

mod error;

pub use error::{Error, Result};
pub use simplemix_blend as blend;
pub use simplemix_data as data;
pub use simplemix_eval as eval;
pub use simplemix_files as files;
pub use simplemix_loss as loss;
pub use simplemix_mix as mix;
pub use simplemix_model as model;
pub use simplemix_pipeline as pipeline;
pub use simplemix_rollout as rollout;
pub use simplemix_settings as settings;
pub use simplemix_torch as torch;
pub use simplemix_train as train;
pub use tch;

#[cfg(all(test, target_os = "linux"))]
mod tests {
    /// The build script's arguments are those that docs/gpu.md gives to packages outside: without them, no library of this name
    /// is in the process, and so no CUDA part of one.
    #[test]
    fn programs_load_libtorch_itself() {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
        assert!(maps.contains("/libtorch.so"), "libtorch.so is not among the libraries of this program");
    }
}
