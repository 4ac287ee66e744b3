//! Servers with the OpenAI interface: vLLM, SGLang, llama.cpp, Ollama and others.
//!
//! [`ServerClient`] sends one request and retries it where that helps, [`pool`] runs many requests at the same time, and
//! [`ServerGenerator`] samples responses with both. [`SeveralServers`] shares the requests of one collection between servers.

mod client;
mod connection;
mod generator;
mod key;
mod lenient;
mod member;
pub(crate) mod pool;
mod reason;
mod reply;
mod request;
mod servers;
mod settings;
mod several;
mod stream;
mod token_ids;
mod told;
mod unread;
mod waiting;

pub use client::ServerClient;
pub use generator::ServerGenerator;
pub use reply::{Reply, TokenLogp};
pub use request::Ask;
pub use servers::Servers;
pub use settings::{Endpoint, OnRefused, ServerSettings};
pub use several::SeveralServers;

/// Parses the answer of a server, for the target in `fuzz/`.
#[cfg(fuzzing)]
pub(crate) fn parse_reply(body: &[u8], chat: bool) {
    if let Ok(reply) = reply::parse(body, chat) {
        let _ = reply.logp();
    }
}
