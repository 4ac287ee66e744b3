//! The `simplemix` binary.
fn main() {}
