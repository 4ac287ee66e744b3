#![doc = include_str!("../README.md")]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod adamw;
mod attention;
mod calls;
mod choice;
pub mod device;
mod dropout;
mod error;
mod function;
mod generator;
mod gpus;
mod gradients;
pub mod group;
mod grouped;
mod host;
mod linear;
mod many;
mod memory;
mod native;
mod precision;
mod run_attention;
mod staging;
#[cfg(test)]
mod tests;

pub use adamw::{AdamWTensors, AdamWValues, adamw};
pub use attention::{AttentionKernels, Sequences, Varlen, causal_mask, varlen_attention};
pub use calls::{Call, CallKind, Calls, named, trace};
pub use choice::{DeviceChoice, device_name};
pub use dropout::keyed_dropout;
pub use error::{Error, Result};
pub use function::{function, records};
pub use generator::{generator_state, set_generator_state};
pub use gpus::Gpus;
pub use gradients::{Watched, backward, gradient_kind, set_gradient, set_gradient_kind, watch_gradients};
pub use grouped::{grouped_linear, side_by_side, takes_grouped};
pub use host::{Gate, gated, has_loops, rms_norm, rotated};
pub use linear::linear;
pub use many::{copy_all, norm, zero_all};
pub use memory::{BlocksApart, exchange_memory, has_memory};
pub use precision::{MatmulPrecision, set_half_sums, set_matmul_precision};
pub use run_attention::{Run, has_run_attention, run_attention};
pub use staging::Staging;
