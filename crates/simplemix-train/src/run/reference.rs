//! The reference of a run: absent, a model, or log-probabilities out of the cache.

use std::path::{Path, PathBuf};

use simplemix_data::Watch;
use simplemix_files::cache_dir_for;
use simplemix_loss::{LossSum, Need, PairLoss};
use simplemix_model::CausalLm;
use simplemix_settings::{choice, section};

use super::prepare::required;
use crate::config::TrainConfig;
use crate::error::Result;
use crate::forward::ForwardOptions;
use crate::pairs::{NamedSet, PairSet};
use crate::preference::{Reference, ReferenceLogps, SyncRule, reference_logps};
use crate::reference_cache::ReferenceKey;

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

/// Makes the reference of a run.
pub(super) struct ReferenceMaker<'a> {
    pub(super) config: &'a TrainConfig,
    pub(super) loss: &'a LossSum,
    pub(super) options: &'a ForwardOptions,
    pub(super) train: &'a PairSet,
    pub(super) eval: &'a [NamedSet],
}

impl ReferenceMaker<'_> {
    pub(super) fn make(&self, policy: &CausalLm, watch: &mut dyn Watch) -> Result<Reference> {
        let config = self.config;
        if !self.loss.needs(Need::Reference) {
            return Ok(Reference::Absent);
        }
        let on_the_fly = config.reference.source == ReferenceSource::OnTheFly;
        let own = config.reference.model.is_none();
        let adapts = policy.active_adapter().is_some();
        let folder = config.reference.model.as_deref().or(config.model.as_deref());
        let model = match folder {
            // A model of its own, since the policy's weights will move.
            Some(folder) if !own || (on_the_fly && !adapts) => CausalLm::load(folder, policy.kind(), policy.device())?,
            None if on_the_fly && !adapts => return required("model", None).map(|_| Reference::Absent),
            // The policy's own weights, without the adapter.
            _ => policy.with_adapter(None)?,
        };
        if on_the_fly {
            let rule = SyncRule { every: config.reference.sync_every, mixup: config.reference.sync_mixup };
            return Ok(Reference::Model(Box::new(model), (rule.every > 0).then_some(rule)));
        }
        let total = self.train.len() + self.eval.iter().map(|(_, set)| set.len()).sum::<usize>();
        let mut done = 0;
        let mut logps = |set: &PairSet, watch: &mut dyn Watch| {
            let known = self.known(set, &model, folder, &mut |of_set| {
                watch.progress("reference", (done + of_set) as u64, total as u64);
            });
            done += set.len();
            known
        };
        let train = logps(self.train, watch)?;
        let eval = self.eval.iter().map(|(_, set)| logps(set, watch)).collect::<Result<_>>()?;
        Ok(Reference::Known(train, eval))
    }

    /// The reference as a model that stays while the policy moves; a second handle of the one that is held already, if
    /// there is one.
    pub(super) fn frozen(&self, policy: &CausalLm, reference: &Reference) -> Result<CausalLm> {
        if let Reference::Model(model, _) = reference {
            return Ok(model.with_adapter(None)?);
        }
        let own = self.config.reference.model.as_deref();
        if own.is_none() && policy.active_adapter().is_some() {
            return Ok(policy.with_adapter(None)?);
        }
        let folder = required("model", own.or(self.config.model.as_deref()))?;
        Ok(CausalLm::load(folder, policy.kind(), policy.device())?)
    }

    /// Log-probabilities out of the cache, or computed and kept there.
    fn known(
        &self,
        set: &PairSet,
        model: &CausalLm,
        folder: Option<&Path>,
        progress: &mut dyn FnMut(usize),
    ) -> Result<ReferenceLogps> {
        let compute = |progress: &mut dyn FnMut(usize)| reference_logps(model, set, self.options, progress);
        let cache = match self.config.reference.source {
            ReferenceSource::Cached => {
                self.config.reference.cache_folder.clone().or_else(|| cache_dir_for("logps").ok())
            }
            _ => None,
        };
        let (Some(cache), Some(folder)) = (cache, folder) else { return compute(progress) };
        let settings = format!("{:?} {:?} ld_alpha {:?}", model.kind(), set.feed(), self.options.ld_alpha);
        let key = ReferenceKey::new(folder, set, &settings)?;
        if let Some(logps) = key.load(&cache, set.len()) {
            tracing::info!(key = key.as_str(), "reference log-probabilities from {}", cache.display());
            return Ok(logps);
        }
        let logps = compute(progress)?;
        // The run does not depend on the cache.
        if let Err(error) = key.store(&cache, &logps) {
            tracing::warn!("reference log-probabilities are not cached: {error}");
        }
        Ok(logps)
    }
}
