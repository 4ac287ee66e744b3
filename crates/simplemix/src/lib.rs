#![doc = include_str!("../README.md")]

mod error;

pub use error::{Error, Result};
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
