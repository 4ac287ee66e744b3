//! SIMPLEMIX: mix on-policy and off-policy preference pairs, train with DPO, evaluate.
//!
//! Li and Khashabi (ICML 2025, arXiv:2505.02363) find that pairs sampled from the model in training help where answers
//! can be checked, pairs written by others help on open-ended tasks, and half of each with plain DPO beats either. This
//! crate is a front door: every part is a crate of its own.
//!
//! | stage | module | crate |
//! | --- | --- | --- |
//! | read, write and tokenise pairs | [`data`] | `simplemix-data` |
//! | sample, score and pair answers | [`rollout`] | `simplemix-rollout` |
//! | mix sources in exact shares | [`mix`] | `simplemix-mix` |
//! | load, run and save models | [`model`] | `simplemix-model` |
//! | preference losses | [`loss`] | `simplemix-loss` |
//! | train | [`train`] | `simplemix-train` |
//! | figures of merit, tables, plots | [`eval`] | `simplemix-eval` |
//! | write files whole, lock, hash, find the cache | [`files`] | `simplemix-files` |
//!
//! `cargo run --release --example mix_dpo` does all of it in a few minutes on a laptop.

pub use simplemix_data as data;
pub use simplemix_eval as eval;
pub use simplemix_files as files;
pub use simplemix_loss as loss;
pub use simplemix_mix as mix;
pub use simplemix_model as model;
pub use simplemix_rollout as rollout;
pub use simplemix_train as train;
