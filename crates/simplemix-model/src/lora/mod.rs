//! Low-rank adapters (Hu et al. 2021, arXiv:2106.09685), in peft's files and with peft's numbers.

mod config;
mod peft;
mod settings;
mod tensors;

pub use config::{LoraConfig, LoraTargets};
pub use peft::{ADAPTER_CONFIG, ADAPTER_WEIGHTS};
pub use settings::LoraSettings;
pub(crate) use tensors::{Adapter, Lora};
