//! No code: this package only depends on all that the crates of the workspace depend on.
//!
//! Cargo resolves the features of dependencies for the packages that a command names. So
//! `cargo check -p simplemix-train` builds Arrow, serde and tch with other features than
//! `cargo check --workspace` does, and builds them again. `cargo check -p simplemix-train -p same-features` uses
//! the build of the whole workspace, while the features of simplemix-train itself stay as selected.
