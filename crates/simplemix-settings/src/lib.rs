#![doc = include_str!("../README.md")]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod choice;
mod error;
mod every;
mod field;
mod keys;
mod nearest;
mod or_auto;
mod place;
pub mod range;
mod read;
mod section;
mod set;
mod tables;
mod value;

pub use error::{Error, Moved, Result};
pub use every::read;
pub use field::{Field, Section};
pub use keys::keys;
pub use nearest::{nearest, nearest_within};
pub use or_auto::OrAuto;
pub use place::{place, placed};
pub use range::Range;
pub use section::Settings;
pub use set::{assignment, merge};
pub use tables::{markdown, toml_template};
pub use value::{Setting, toml_text};

/// Names that the macros need.
#[doc(hidden)]
pub mod private {
    pub use serde;
    pub use toml;
}
