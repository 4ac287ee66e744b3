//! Stages of a pool: each model samples its part, and the responses of all come together in one file.

use std::path::PathBuf;

use serde_json::json;
#[cfg(feature = "server")]
use simplemix_rollout::ServerSettings;
use simplemix_rollout::{GeneratorSettings, LocalSettings, PoolMember, PoolSettings, PoolShare, Quota, SamplingConfig};

use super::{CANDIDATES, Job, Planner};
use crate::error::Result;
use crate::inputs::files;
use crate::pool::{POLICY, PoolModel, PoolSection};
use crate::settings::needed;

/// The policy, as it samples in a round.
pub(super) struct Policy {
    pub(super) by: GeneratorSettings,
    /// Keys of everything that its responses depend on.
    pub(super) inputs: Vec<String>,
    pub(super) sampling: SamplingConfig,
}

/// A file of a pool, and its hash or the key of the stage that writes it.
#[derive(Clone)]
pub(super) struct Member {
    file: PoolMember,
    key: String,
}

impl Planner<'_> {
    /// Adds the stages that sample the responses of a pool and bring them together. Returns the last one.
    pub(super) fn pool(&mut self, suffix: &str, pool: &PoolSection, policy: Option<Policy>) -> Result<usize> {
        pool.check_names(&self.config.collect.select)?;
        let ready = self.ready(pool)?;
        let mut members = ready.clone();
        if let Some(Policy { by, inputs, sampling }) = policy {
            let name = format!("generate{suffix}");
            members.push(self.sampled(pool, &ready, (name, POLICY), sampling, by, inputs)?);
        }
        members.extend(self.others(pool, &ready)?);
        let (take, seed) = (pool.quotas(), self.seed_of(pool));
        let names: Vec<&Option<String>> = members.iter().map(|member| &member.file.generator).collect();
        let material = json!({ "take": texts(&take), "seed": seed, "names": names });
        let keys: Vec<String> = members.iter().map(|member| member.key.clone()).collect();
        let inputs: Vec<&str> = keys.iter().map(String::as_str).collect();
        let files = members.iter().map(|member| member.file.clone()).collect();
        self.add(format!("pool{suffix}"), material, &inputs, |folder| {
            Ok(Job::Pool(PoolSettings { take, seed, ..PoolSettings::new(files, folder.join(CANDIDATES)) }))
        })
    }

    /// Prompts are drawn alike in all rounds, so that other models sample once.
    fn seed_of(&self, pool: &PoolSection) -> u64 {
        pool.seed.wrapping_add(self.config.seed)
    }

    /// The files with responses that are there already.
    fn ready(&mut self, pool: &PoolSection) -> Result<Vec<Member>> {
        let mut ready = Vec::new();
        for model in &pool.models {
            let Some(path) = &model.candidates else { continue };
            let key = self.hash(path)?;
            for path in files(path, self.watch)? {
                let file = PoolMember { generator: model.name.clone(), path };
                ready.push(Member { file, key: key.clone() });
            }
        }
        Ok(ready)
    }

    /// Files of the other models that sample. Their stages are those of the first round.
    fn others(&mut self, pool: &PoolSection, ready: &[Member]) -> Result<Vec<Member>> {
        if let Some(others) = &self.others {
            return Ok(others.clone());
        }
        let mut others = Vec::new();
        for model in pool.models.iter().filter(|model| model.samples()) {
            let name = needed("collect.pool.model.name", model.name.as_deref(), "a name")?;
            let sampling = self.sampling(1);
            let sampling = SamplingConfig { seed: own_seed(sampling.seed, name), ..sampling };
            let (by, inputs) = self.generator(name, model)?;
            let stage = format!("sample-{}", name.replace(|c: char| !(c.is_alphanumeric() || "-._".contains(c)), "_"));
            others.push(self.sampled(pool, ready, (stage, name), sampling, by, inputs)?);
        }
        self.others = Some(others.clone());
        Ok(others)
    }

    /// The generator that a model of the pool is, and the hash of its folder if it runs in this process.
    fn generator(&mut self, name: &str, model: &PoolModel) -> Result<(GeneratorSettings, Vec<String>)> {
        #[cfg(feature = "server")]
        if let Some(servers) = &model.server {
            // Who answers at an address is not known: another address may be another model.
            let places = servers.all().iter().map(|server| format!("{} {:?}", server.url, server.model)).collect();
            let named = |server| ServerSettings { name: Some(name.to_owned()), ..server };
            return Ok((GeneratorSettings::Server(servers.clone().map(named)), places));
        }
        let path: PathBuf =
            self.purpose.resolve(needed("collect.pool.model.model", model.model.as_deref(), "a model folder")?)?;
        let mut settings = LocalSettings::new(&path);
        settings.batch_rows = self.config.collect.batch_rows;
        settings.device = self.config.device;
        settings.load_in = self.config.load_in;
        settings.template_date.clone_from(&self.config.template_date);
        settings.name = Some(name.to_owned());
        Ok((GeneratorSettings::Local(settings), vec![self.hash(&path)?]))
    }

    /// Adds the stage in which a model samples its part. Returns the file of its responses.
    fn sampled(
        &mut self,
        pool: &PoolSection,
        ready: &[Member],
        (stage, name): (String, &str),
        sampling: SamplingConfig,
        by: GeneratorSettings,
        inputs: Vec<String>,
    ) -> Result<Member> {
        let prompts = self.asked()?;
        let share = self.share(pool, ready, name);
        let sampling = match &share {
            Some(share) => SamplingConfig { samples: share.most_responses(), ..sampling },
            None => sampling,
        };
        let keys: Vec<&str> = ready.iter().filter(|_| share.is_some()).map(|member| &*member.key).collect();
        let stage = self.generate(stage, &prompts, sampling, by, inputs, share.map(|share| (share, keys)))?;
        let file = PoolMember { generator: Some(name.to_owned()), path: self.folder(stage).join(CANDIDATES) };
        Ok(Member { file, key: self.key(stage) })
    }

    /// The part of the pool that a model samples; all prompts where there are no quotas.
    fn share(&self, pool: &PoolSection, ready: &[Member], name: &str) -> Option<PoolShare> {
        let take = pool.quotas();
        let others = pool.models.iter().filter(|model| model.samples()).filter_map(|model| model.name.clone());
        let samplers = pool.has_policy().then(|| POLICY.to_owned()).into_iter().chain(others).collect();
        (!take.is_empty()).then(|| PoolShare {
            generator: name.to_owned(),
            samplers,
            take,
            candidates: ready.iter().map(|member| member.file.clone()).collect(),
            seed: self.seed_of(pool),
        })
    }
}

/// Seed of a model of the pool: by one seed, models that are near each other, such as checkpoints of one training, would sample the
/// same responses. It follows from the name, so that another model in the pool changes nothing.
fn own_seed(seed: u64, name: &str) -> u64 {
    let hash = blake3::hash(name.as_bytes());
    let [a, b, c, d, ..] = *hash.as_bytes();
    // 32 bits of it, since servers take seeds of 63.
    seed.wrapping_add(u64::from(u32::from_le_bytes([a, b, c, d])))
}

/// Quotas as texts.
pub(super) fn texts(take: &[Quota]) -> Vec<String> {
    take.iter().map(ToString::to_string).collect()
}
