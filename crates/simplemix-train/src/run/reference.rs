//! The reference of a run: absent, a model, or log-probabilities out of the cache.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use simplemix_data::Watch;
use simplemix_files::cache_dir_for;
use simplemix_loss::{LossSum, Need, PairLoss};
use simplemix_model::CausalLm;

use super::prepare::required;
use crate::config::TrainConfig;
use crate::error::Result;
use crate::forward::ForwardOptions;
use crate::hypo::Hypo;
use crate::pairs::{NamedSet, PairSet};
use crate::preference::{Reference, ReferenceLogps, ReferenceModel, SyncRule, reference_logps_together};
use crate::reference::ReferenceSource;
use crate::reference_cache::ReferenceKey;
use crate::sharded::{Divide, Sharded};
use crate::team::Team;

/// Makes the reference of a run.
pub(super) struct ReferenceMaker<'a> {
    pub(super) config: &'a TrainConfig,
    pub(super) loss: &'a LossSum,
    /// Hash of the folder of the reference's weights.
    pub(super) model_hash: &'a str,
    pub(super) options: &'a ForwardOptions,
    pub(super) train: &'a PairSet,
    pub(super) eval: &'a [NamedSet],
    pub(super) team: &'a Team,
    /// Names of the weights that the policy trains.
    pub(super) trained: HashSet<&'a str>,
}

impl ReferenceMaker<'_> {
    /// Loads the reference, or its log-probabilities for all pairs.
    pub(super) fn make(&self, policy: &CausalLm, watch: &mut dyn Watch) -> Result<Reference> {
        let config = self.config;
        if !self.loss.needs(Need::Reference) {
            return Ok(Reference::Absent);
        }
        let on_the_fly = config.reference.source == ReferenceSource::OnTheFly;
        let own = config.reference.model.is_none();
        self.team.does_at_length("preparing the reference");
        let adapts = policy.active_adapter().is_some();
        let folder = config.reference.model.as_deref().or(config.model.as_deref());
        let mut sharded = None;
        let model = match folder {
            // A second model, since the policy's weights will change.
            Some(folder) if !own || (on_the_fly && !adapts) => {
                let model;
                (model, sharded) = self.load(folder, policy)?;
                // Those of the policy's own folder have been said.
                let unsaid = model.notices().iter().filter(|_| !own);
                unsaid.for_each(|notice| watch.notice(notice));
                model
            }
            None if on_the_fly && !adapts => return required("model", None).map(|_| Reference::Absent),
            // The policy's own weights, without the adapter.
            _ => policy.with_adapter(None)?,
        };
        if on_the_fly {
            let rule = SyncRule { every: config.reference.sync_every, mixup: config.reference.sync_mixup };
            let rule = (rule.every > 0).then_some(rule);
            let model = Box::new(model);
            return Ok(Reference::Model(ReferenceModel { model, rule, sharded }));
        }
        // Pairs in memory may come with a model that no setting names; nothing is kept of it.
        let cache = folder.and_then(|_| self.cache());
        let total = self.train.len() + self.eval.iter().map(|(_, set)| set.len()).sum::<usize>();
        let mut done = 0;
        let mut logps = |set: &PairSet, watch: &mut dyn Watch| {
            let known = self.known(set, &model, cache.as_deref(), &mut |of_set| {
                watch.progress("reference", (done + of_set) as u64, total as u64);
            });
            done += set.len();
            known
        };
        let train = logps(self.train, watch)?;
        let eval = self.eval.iter().map(|(_, set)| logps(set, watch)).collect::<Result<_>>()?;
        Ok(Reference::Known(train, eval))
    }

    /// HyPO's term, if it is on.
    pub(super) fn hypo(&self, policy: &CausalLm, reference: &Reference, stop_tokens: Vec<u32>) -> Result<Option<Hypo>> {
        let Some(settings) = self.config.hypo() else { return Ok(None) };
        self.team.does_at_length("preparing HyPO's reference");
        let frozen = self.frozen(policy, reference)?;
        Hypo::new(settings, frozen, stop_tokens, self.config.seed).map(Some)
    }

    /// The reference as a model: a second handle to the model that is in memory already, or the model from its folder.
    fn frozen(&self, policy: &CausalLm, reference: &Reference) -> Result<CausalLm> {
        if let Reference::Model(ReferenceModel { model, .. }) = reference {
            return Ok(model.with_adapter(None)?);
        }
        let own = self.config.reference.model.as_deref();
        if own.is_none() && policy.active_adapter().is_some() {
            return Ok(policy.with_adapter(None)?);
        }
        let folder = required("model", own.or(self.config.model.as_deref()))?;
        Ok(self.load(folder, policy)?.0)
    }

    /// Loads a second model, whose weights are divided among the processes if those of the policy are. What the policy trains lies in
    /// rows of its own, as in the policy, so that a reference can move.
    fn load(&self, folder: &Path, policy: &CausalLm) -> Result<(CausalLm, Option<Arc<Sharded>>)> {
        let (kind, device) = (policy.kind(), policy.device());
        if !self.config.parallel.shard.divides_weights(self.team) {
            return Ok((CausalLm::load_quantized(folder, kind, device, &self.config.quantization)?, None));
        }
        let is_trained = |name: &str| self.trained.contains(name);
        let (has_gradients, sharded) = (false, None);
        let mut divide = Divide { team: self.team, kind, device, is_trained: &is_trained, has_gradients, sharded };
        let mut model = CausalLm::load_divided(folder, kind, device, Some(&mut divide))?;
        let sharded = divide.rest(model.config(), model.named_parameters())?;
        model.set_residence(sharded.clone());
        Ok((model, Some(sharded)))
    }

    /// Folder of cached log-probabilities, if they are to be cached.
    fn cache(&self) -> Option<PathBuf> {
        let reference = &self.config.reference;
        match reference.source {
            ReferenceSource::Cached => reference.cache_folder.clone().or_else(|| cache_dir_for("logps").ok()),
            _ => None,
        }
    }

    /// Reads log-probabilities from the cache, or computes them and writes them there.
    fn known(
        &self,
        set: &PairSet,
        model: &CausalLm,
        cache: Option<&Path>,
        progress: &mut dyn FnMut(usize),
    ) -> Result<ReferenceLogps> {
        let compute =
            |progress: &mut dyn FnMut(usize)| reference_logps_together(self.team, model, set, self.options, progress);
        let Some(cache) = cache else { return compute(progress) };
        let quantised = match &self.config.quantization {
            settings if settings.is_on() => format!(" {settings:?}"),
            _ => String::new(),
        };
        let settings = format!("{:?} {:?} ld_alpha {:?}{quantised}", model.kind(), set.feed(), self.options.ld_alpha);
        let key = ReferenceKey::new(self.model_hash, set, &settings);
        let known = key.load(cache, set.len());
        // All compute if one process lacks it.
        let is_missing = self.team.any(known.is_none())?;
        if let Some(logps) = known.filter(|_| !is_missing) {
            self.team.agree("content of the cached log-probabilities", &hash(&logps))?;
            tracing::info!(key = key.as_str(), "reference log-probabilities from {}", cache.display());
            return Ok(logps);
        }
        let logps = compute(progress)?;
        // The run does not depend on the cache.
        if self.team.is_first()
            && let Err(error) = key.store(cache, &logps)
        {
            tracing::warn!("reference log-probabilities are not cached: {error}");
        }
        Ok(logps)
    }
}

/// Hash of log-probabilities, whose bits may depend on the device that has computed them.
fn hash(logps: &ReferenceLogps) -> String {
    let mut hasher = blake3::Hasher::new();
    for logp in logps.iter().flat_map(|&pair| <[f64; 2]>::from(pair)) {
        hasher.update(&logp.to_le_bytes());
    }
    hasher.finalize().to_hex().to_string()
}
