//! Servers with the OpenAI interface: vLLM, SGLang, llama.cpp, Ollama and others.
//!
//! [`ServerClient`] sends one request and retries it where that helps, [`pool`] runs many requests at the same time, and
//! [`ServerGenerator`] samples responses with both. [`SeveralServers`] shares the requests of one collection between servers.

mod admin;
mod client;
mod connection;
mod generator;
mod key;
mod lenient;
mod member;
pub(crate) mod pool;
mod process;
mod reason;
mod reply;
mod request;
mod round;
mod round_generator;
mod servers;
mod settings;
mod several;
mod stream;
mod token_ids;
mod told;
mod unread;
mod verify;
mod waiting;
mod weights;
mod yardstick;

pub use client::ServerClient;
pub use generator::ServerGenerator;
pub use reply::{Reply, TokenLogp};
pub use request::Ask;
pub use round::{RoundModel, RoundSettings, Served, put_weights};
pub use round_generator::RoundGenerator;
pub use servers::Servers;
pub use settings::{Endpoint, OnRefused, ServerSettings};
pub use several::SeveralServers;
pub use verify::{Evidence, ServedReport};
pub use weights::{Software, WeightsBy, WeightsSettings};
pub use yardstick::{Before, OwnResponse, Yardstick};
#[cfg(feature = "local")]
pub use yardstick::{YardstickReport, YardstickSettings, measure};

/// Parses the answer of a server, for the target in `fuzz/`.
#[cfg(fuzzing)]
pub(crate) fn parse_reply(body: &[u8], chat: bool) {
    if let Ok(reply) = reply::parse(body, chat) {
        let _ = reply.logp();
    }
}
