#![doc = include_str!("../README.md")]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod background;
mod difference;
mod drawn;
mod error;
mod execute;
mod inputs;
mod lengths;
mod mix;
#[cfg(feature = "plot")]
mod plot;
mod receipt;
mod settings;
mod sources;

pub use error::{Error, Result};
pub use execute::Mixing;
pub use inputs::{Find, files};
pub use mix::{MixReport, mix, mix_with};
pub use receipt::{Verified, verify, verify_with};
pub use settings::{MixSettings, MixSource, SharedPrompts};

/// Name and version of the program that wrote a file.
const TOOL: &str = concat!("simplemix ", env!("CARGO_PKG_VERSION"));
