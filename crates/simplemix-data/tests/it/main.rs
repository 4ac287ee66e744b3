//! Tests of reading, writing, rendering and tokenising through the public interface, on small generated files.
#![allow(clippy::unwrap_used, reason = "tests")]

mod bombs;
mod common;
mod damage;
mod encodings;
mod families;
mod malformed;
mod other_peoples_files;
mod reading;
#[cfg(feature = "object-store")]
mod remote;
mod template;
mod template_constructs;
mod template_golden;
mod tokenizers;
mod tokens;
mod tools;
mod writing;
