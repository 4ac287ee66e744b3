//! Low-rank adapters (Hu et al. 2021, arXiv:2106.09685), in peft's files and with peft's numbers.

mod adapter;
mod compose;
mod config;
mod dora;
mod embeddings;
mod experts;
mod matching;
mod other_parts;
mod parts;
mod peft;
mod settings;
mod tensors;

pub(crate) use adapter::{Adapter, Base, Loras};
pub use compose::compose_adapters;
pub use config::{LoraBias, LoraConfig, LoraTargets, LoraTask};
pub(crate) use embeddings::stored as stored_embeddings;
pub(crate) use experts::{ByExpert, Parameter, parameter_name};
pub use matching::ModuleNames;
pub(crate) use parts::Place;
pub use peft::{ADAPTER_CONFIG, ADAPTER_WEIGHTS};
pub use settings::LoraSettings;
pub(crate) use tensors::{Change, EmbeddingLora, Lora};
