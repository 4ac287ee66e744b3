//! Servers with the OpenAI interface: vLLM, SGLang, llama.cpp, Ollama and others.
//!
//! [`ServerClient`] sends one request and retries it where that helps, [`pool`] runs many requests at the same time, and
//! [`ServerGenerator`] samples responses with both.

mod client;
mod generator;
mod key;
pub(crate) mod pool;
mod reply;
mod settings;
mod waiting;

pub use client::{Ask, ServerClient};
pub use generator::ServerGenerator;
pub use reply::{Reply, TokenLogp};
pub use settings::{Endpoint, OnRefused, ServerSettings};
