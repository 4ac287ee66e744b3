//! Servers with the OpenAI interface: vLLM, SGLang, llama.cpp, Ollama and others.
//!
//! [`ServerClient`] sends one request and retries it where that helps, [`pool`] runs many requests at the same time, and
//! [`ServerGenerator`] samples responses with both.

mod client;
mod generator;
mod key;
mod lenient;
pub(crate) mod pool;
mod reason;
mod reply;
mod request;
mod settings;
mod stream;
mod token_ids;
mod told;
mod unread;
mod waiting;

pub use client::ServerClient;
pub use generator::ServerGenerator;
#[cfg(fuzzing)]
pub(crate) use reply::parse as parse_reply;
pub use reply::{Reply, TokenLogp};
pub use request::Ask;
pub use settings::{Endpoint, OnRefused, ServerSettings};
