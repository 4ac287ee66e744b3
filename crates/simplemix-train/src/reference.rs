//! Settings of the reference.

use std::path::PathBuf;

use simplemix_settings::{choice, section};

section! {
    /// Reference that the policy is held near.
    pub struct ReferenceSettings("reference") {
        /// Source of the reference's log-probabilities: a file in the cache, one computation at the start, or every batch,
        /// which takes a second model in memory unless an adapter is trained.
        source: ReferenceSource = ReferenceSource::Cached, was "reference";
        /// Reference model: a folder, or an id on the hub; the model before training if not set.
        model: Option<PathBuf> = None, was "reference_model";
        /// Folder of cached log-probabilities; a folder in simplemix's cache if not set.
        cache_folder: Option<PathBuf> = None, was "reference_cache";
        /// TR-DPO: updates after which the reference moves towards the policy; 0 keeps it fixed (arXiv:2404.09656).
        sync_every: u64 = 0, unit "updates", was "sync_reference_every";
        /// TR-DPO: share of the policy in the moved reference.
        sync_mixup: f64 = 0.6, in between(0.0, 1.0), from "TRL", was "sync_reference_mixup";
    }
}

choice! {
    /// Source of the reference's log-probabilities.
    pub enum ReferenceSource {
        /// A file in the cache, made if there is none.
        Cached = "cached";
        /// Computed at the start.
        Computed = "computed";
        /// Computed for every batch.
        OnTheFly = "on-the-fly", old "on_the_fly";
    }
}
