//! Causal language models from Hugging Face folders on libtorch: policies, references, sampling.
//!
//! | to | use |
//! | --- | --- |
//! | load and save a model folder | [`CausalLm::load`], [`CausalLm::save`] |
//! | compute hidden states of ragged input without padding | [`Packed`], [`CausalLm::hidden_states`] |
//! | sample answers | [`CausalLm::generate`] |
//! | turn a GGUF file into a model folder | [`gguf::import_gguf`] |
//! | fetch a model from the hub | `hub::resolve` (feature `hub`) |
//! | have a model of a few kilobytes for tests | [`tiny`] |
//!
//! Weights are the checkpoint's own, under its own names; what is saved loads in transformers, vLLM and peft.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod attention;
mod causal_lm;
mod config;
mod decoder;
mod error;
mod generate;
pub mod gguf;
#[cfg(feature = "hub")]
pub mod hub;
mod packed;
mod random;
mod rope;
mod sample;
pub mod tiny;
pub mod weights;

pub use causal_lm::CausalLm;
pub use config::{MODEL_TYPES, ModelConfig, RopeConfig, RopeScaling};
pub use error::{Error, Result};
pub use generate::{Finish, GenerateOptions, Generated, Request};
pub use packed::{Packed, Segment, Targets};
pub use sample::Sampling;
