//! Servers with OpenAI's interface: vLLM, SGLang, llama.cpp, Ollama and others.
//!
//! [`ServerClient`] asks one question and tries again where that helps; [`pool`] keeps many questions under way;
//! [`ServerGenerator`] answers prompts with both.

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
