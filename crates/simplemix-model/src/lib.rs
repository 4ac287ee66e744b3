//! Causal language models from Hugging Face folders on libtorch: policies, references, sampling.
//!
//! | to | use |
//! | --- | --- |
//! | load and save a model folder | [`CausalLm::load`], [`CausalLm::save`] |
//! | compute hidden states of ragged input without padding | [`Packed`], [`CausalLm::hidden_states`] |
//! | the same with little memory for the backward pass | [`CausalLm::checkpointed`] |
//! | train an adapter, with the reference in the same weights | [`CausalLm::add_adapter`], [`CausalLm::with_adapter`] |
//! | hold frozen weights in 4 or 8 bits | [`QuantizationSettings`], [`Quantizer`] |
//! | make one adapter of those of several rounds | [`compose_adapters`] |
//! | sample answers | [`CausalLm::generate`], [`CausalLm::generate_mixed`] |
//! | follow what a `generation_config.json` asks for | [`GenerationConfig::read`], [`Processors`] |
//! | score answers | [`RewardModel`] |
//! | turn a GGUF file into a model folder, and back | [`gguf::import_gguf`], [`gguf::export_gguf`] |
//! | fetch a model from the hub | [`hub::resolve`], with the feature `hub` |
//! | name a model folder | [`model_name`] |
//! | have a model of a few kilobytes for tests | [`tiny`] |
//!
//! Weights are the checkpoint's own, under its own names; what is saved loads in transformers, vLLM and peft.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod activation;
mod adapters;
mod attention;
mod causal_lm;
mod checkpoint;
mod checkpointing;
mod config;
mod config_file;
mod convolution;
mod decoder;
mod delta_rule;
mod dtype;
mod error;
mod experts;
mod family;
mod few_rows;
mod folder;
mod folder_weights;
mod generate;
mod generation_config;
pub mod gguf;
mod head;
mod host;
pub mod hub;
#[cfg(feature = "hub")]
mod hub_files;
#[cfg(feature = "push")]
mod hub_push;
mod linear;
mod lora;
mod memory;
mod name;
mod network;
mod not_a_model;
mod packed;
mod processors;
mod quantized;
mod random;
mod residence;
mod rest;
mod retokenized;
mod reward;
mod rope;
mod safetensors_file;
mod safetensors_reader;
mod sample;
mod stand_by;
pub mod tiny;
mod vectors;
pub mod weights;

pub use attention::AttentionRoute;
pub use causal_lm::CausalLm;
pub use checkpointing::Checkpointed;
pub use config::{
    Activation, Biases, DeltaRule, Experts, FeedForward, LayerConfig, LayerKind, ModelConfig, NormKind, Norms,
    PerLayerEmbedding, QkNorm, Qkv, QueryGrowth, RopeConfig, RopePairs, RopeScaling, Routing, ShortConvolution,
};
pub use dtype::Dtype;
pub use error::{Error, Result};
pub use family::{FAMILIES, Family, MODEL_TYPES, MULTIMODAL_TYPES};
pub use generate::{Finish, GenerateOptions, Generated, Request, StopStrings};
pub use generation_config::GenerationConfig;
pub use head::HeadWeight;
pub use lora::{
    ADAPTER_CONFIG, ADAPTER_WEIGHTS, LoraBias, LoraConfig, LoraSettings, LoraTargets, LoraTask, ModuleNames,
    compose_adapters,
};
pub use memory::{PassCosts, PassMemory, RunTokens, Trained};
pub use name::model_name;
pub use packed::{Packed, Segment, Targets};
pub use processors::Processors;
pub use quantized::{LoadIn, QuantizationSettings, Quantizer};
pub use residence::{Divider, Residence, Resident, Stage};
pub use retokenized::TokenizerChanges;
pub use reward::RewardModel;
pub use sample::Sampling;
pub use simplemix_torch::{DeviceChoice, Gpus, device_name};
