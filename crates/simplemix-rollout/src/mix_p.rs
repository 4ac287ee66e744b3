//! DPO-Mix-P: pairs whose two responses come from either side of the policy. Shi, Zhou and Du 2025 (arXiv:2409.19605).
//!
//! One response is sampled from `pi_theta^(3/2) pi_ref^(-1/2)`, further from the reference than the policy is, the other
//! from `pi_theta^(1/2) pi_ref^(1/2)`, nearer to it. Logits are mixed token by token, before the temperature, as in the
//! authors' code: the samplers are geometric mixtures of next-token distributions, not of distributions over whole
//! responses. For a share of the prompts both responses are sampled from the policy itself. The reference is the model
//! before the first round.
//!
//! With one response per sampler the pair is these two. With more, it is the best and the worst of all of them by score.
//! Train on the pairs with the loss `soft_label` and the same `reward_margin_scale`.
//!
//! In the first round the policy is the reference, both samplers are the policy itself, and the method is on-policy DPO;
//! [`Generator::remark`] says so. The authors train a first round on plain on-policy pairs and use mixed ones from the
//! second round on.

use std::borrow::Borrow;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use simplemix_data::PairTokenizer;
use simplemix_files::hash_model_folder;
use simplemix_model::{CausalLm, GenerateOptions, Generated, Request};
use tch::Tensor;

use crate::error::{Error, Result};
use crate::generator::{CandidateSink, Generator, Job, Prompt, SamplingConfig};
use crate::groups::{check, in_groups, options, sampled};
use crate::local::{LocalSettings, device_mark, quantised_mark};
use crate::random::{mix, stream, uniform};

/// Weights of the policy's and of the reference's logits in each sampler. Each pair sums to 1.
const SAMPLERS: [[f64; 2]; 2] = [[1.5, -0.5], [0.5, 0.5]];

const SAME_WEIGHTS: &str = "policy and reference have the same weights, so both samplers of DPO-Mix-P are the policy \
                            itself: this round is on-policy DPO";

/// Settings of the two models of DPO-Mix-P.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MixPSettings {
    /// The policy: folder, name, batch size, element type and device.
    pub policy: LocalSettings,
    /// Folder of the reference, which is the model before the first round.
    pub reference: PathBuf,
    /// Share of prompts whose responses all come from the policy itself, drawn for each prompt.
    #[serde(default)]
    pub plain_share: f64,
}

/// Policy and reference as one generator. The number of samples must be even: the first half comes from the sampler away
/// from the reference, the second half from the one towards it. For `plain_share` of the prompts all come from the policy.
///
/// [`MixPGenerator::load`] owns models and tokenizer, [`MixPGenerator::new`] also takes references to them.
pub struct MixPGenerator<M = CausalLm, T = PairTokenizer> {
    policy: M,
    reference: M,
    tokenizer: T,
    name: String,
    fingerprint: String,
    plain_share: f64,
    batch_rows: usize,
}

impl MixPGenerator {
    /// Loads both folders, onto the policy's device. The tokenizer is the policy's.
    ///
    /// # Errors
    /// [`Error::Setting`], [`Error::Data`] or [`Error::Model`] with the setting or the file that cannot be used.
    pub fn load(settings: &MixPSettings) -> Result<Self> {
        let MixPSettings { policy: local, reference, plain_share } = settings;
        local.check()?;
        let device = local.device.open().map_err(simplemix_model::Error::from)?;
        let kind = local.dtype.kind(device);
        let hashes = [hash_model_folder(&local.model)?, hash_model_folder(reference)?];
        let tokenizer = local.tokenizer()?;
        let load = |folder: &Path| CausalLm::load_quantized(folder, kind, device, &local.load_in.into());
        let policy = load(&local.model)?;
        let reference = load(reference)?;
        let loaded = Self::new(policy, reference, tokenizer, local.name(), *plain_share, local.batch_rows)?;
        let fingerprint = format!(
            "mix-p {} {} {plain_share} {kind:?} {} {} {:?}{}",
            hashes[0],
            hashes[1],
            device_mark(device),
            local.batch_rows,
            local.tokenizer_as,
            quantised_mark(local.load_in)
        );
        Ok(Self { fingerprint, ..loaded })
    }
}

impl<M: Borrow<CausalLm>, T: Borrow<PairTokenizer>> MixPGenerator<M, T> {
    /// A generator from two models and a tokenizer, owned or borrowed. `name` is the value of the `generator` column,
    /// `batch_rows` the number of responses sampled at the same time, each with both models.
    ///
    /// # Errors
    /// [`Error::Setting`] if `plain_share` is out of range, [`Error::Model`] if the models have different vocabularies.
    pub fn new(
        policy: M,
        reference: M,
        tokenizer: T,
        name: impl Into<String>,
        plain_share: f64,
        batch_rows: usize,
    ) -> Result<Self> {
        if !(0.0..=1.0).contains(&plain_share) {
            let found = plain_share.to_string();
            return Err(Error::Setting { key: "plain_share", found, expected: "a number from 0 to 1" });
        }
        let (ours, theirs) = (policy.borrow().config().vocab_size, reference.borrow().config().vocab_size);
        if ours != theirs {
            return Err(Error::Model(simplemix_model::Error::Input {
                what: "vocabulary of the reference",
                found: theirs.to_string(),
                expected: format!("{ours}, as the policy's"),
            }));
        }
        let name = name.into();
        Ok(Self { policy, reference, tokenizer, fingerprint: name.clone(), name, plain_share, batch_rows })
    }

    fn sample_group(&self, jobs: &[Job], sampling: &SamplingConfig, sink: &mut dyn CandidateSink) -> Result<()> {
        let tokenizer = self.tokenizer.borrow();
        let question = |job: &Job| {
            let stream = stream(&job.prompt.id);
            let is_plain = is_plain(self.plain_share, sampling.seed, stream);
            let prompt = tokenizer.encode_prompt_with(&job.prompt.prompt, &job.prompt.inputs)?;
            Ok(MixedRequest { request: Request { prompt, stream }, is_plain })
        };
        let requests = jobs.iter().map(question).collect::<Result<Vec<_>>>()?;
        let options = options(tokenizer, sampling, self.batch_rows);
        let models = [self.policy.borrow(), self.reference.borrow()];
        let responses = draw(models, &requests, &options, &mut |done, _| sink.pending(done))?;
        sink.keep(sampled(tokenizer, jobs, &responses, sampling.seed)?)
    }
}

impl<M: Borrow<CausalLm>, T: Borrow<PairTokenizer>> Generator for MixPGenerator<M, T> {
    fn name(&self) -> &str {
        &self.name
    }

    fn fingerprint(&self) -> String {
        match self.template_date() {
            Some(date) => format!("{} {date}", self.fingerprint),
            None => self.fingerprint.clone(),
        }
    }

    fn template_date(&self) -> Option<String> {
        self.tokenizer.borrow().date()
    }

    fn batch_rows(&self) -> Option<usize> {
        Some(self.batch_rows)
    }

    /// Warns if policy and reference have the same weights. All of them are compared if they are equal.
    fn remark(&self) -> Option<String> {
        same_weights(self.policy.borrow(), self.reference.borrow()).unwrap_or(false).then(|| SAME_WEIGHTS.to_owned())
    }

    fn check(&self, prompt: &Prompt, sampling: &SamplingConfig) -> Result<()> {
        [self.policy.borrow(), self.reference.borrow()]
            .into_iter()
            .try_for_each(|model| check(model.config(), self.tokenizer.borrow(), prompt, sampling))
    }

    fn sample(
        &mut self,
        jobs: &mut dyn Iterator<Item = Result<Job>>,
        sampling: &SamplingConfig,
        sink: &mut dyn CandidateSink,
    ) -> Result<()> {
        sampling.check()?;
        if let Some(key) = sampling.given_processor() {
            let expected = "no value with DPO-Mix-P, which mixes the models' own distributions";
            return Err(Error::Setting { key, found: "given".to_owned(), expected });
        }
        if !sampling.samples.is_multiple_of(2) {
            let expected = "an even number, half from each sampler";
            return Err(Error::Setting { key: "samples", found: sampling.samples.to_string(), expected });
        }
        for model in [self.policy.borrow(), self.reference.borrow()] {
            model.notices().iter().for_each(|notice| sink.notice(&format!("{}: {notice}", self.name)));
        }
        in_groups(jobs, self.batch_rows, sampling.samples, &mut |jobs| {
            if sink.is_interrupted() {
                return Err(Error::Interrupted);
            }
            self.sample_group(jobs, sampling, sink)
        })
    }
}

/// A prompt, and whether all its responses come from the policy.
pub(crate) struct MixedRequest {
    pub(crate) request: Request,
    pub(crate) is_plain: bool,
}

/// Whether all responses to a prompt come from the policy: drawn from the prompt's own stream.
pub(crate) fn is_plain(share: f64, seed: u64, stream: u64) -> bool {
    // No token is drawn at this position.
    uniform(seed, stream, u64::MAX) < share
}

/// Samples `options.samples` responses to each prompt: half from each sampler, or all from the policy, which is the first
/// of `models`.
pub(crate) fn draw(
    models: [&CausalLm; 2],
    prompts: &[MixedRequest],
    options: &GenerateOptions,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Vec<Vec<Generated>>> {
    let [policy, reference] = models;
    let indices = |plain: bool| (0..prompts.len()).filter(|&i| prompts[i].is_plain == plain).collect::<Vec<_>>();
    // Each sampler has its own stream: with the same uniform numbers their responses would be alike.
    let requests = |indices: &[usize], sampler: u64| -> Vec<Request> {
        let request = |&i: &usize| {
            let Request { prompt, stream } = prompts[i].request.clone();
            Request { prompt, stream: if sampler == 0 { stream } else { mix(stream ^ sampler) } }
        };
        indices.iter().map(request).collect()
    };
    let total = prompts.len() * options.samples;
    let mut responses: Vec<Vec<Generated>> = prompts.iter().map(|_| Vec::with_capacity(options.samples)).collect();
    let mut done = 0;
    let mut keep = |indices: &[usize], drawn: Vec<Vec<Generated>>| {
        let count = drawn.iter().map(Vec::len).sum::<usize>();
        indices.iter().zip(drawn).for_each(|(&i, drawn)| responses[i].extend(drawn));
        count
    };
    let (plain, mixed) = (indices(true), indices(false));
    if !plain.is_empty() {
        let drawn = policy.generate(&requests(&plain, 0), options, &mut |now, _| progress(now, total))?;
        done += keep(&plain, drawn);
    }
    if !mixed.is_empty() {
        let options = GenerateOptions { samples: options.samples / 2, ..options.clone() };
        for (sampler, weights) in SAMPLERS.into_iter().enumerate() {
            let requests = requests(&mixed, sampler as u64);
            let report = &mut |now, _| progress(done + now, total);
            let drawn = policy.generate_mixed(reference, weights, &requests, &options, report)?;
            done += keep(&mixed, drawn);
        }
    }
    Ok(responses)
}

/// Whether two models give the same numbers because they have the same weights. An adapter counts as none while it changes
/// nothing, as before training.
fn same_weights(a: &CausalLm, b: &CausalLm) -> simplemix_model::Result<bool> {
    let equal = |x: &Tensor, y: &Tensor| x.size() == y.size() && x.equal(&y.to_device(x.device()).to_kind(x.kind()));
    let (ours, theirs) = (a.named_parameters(), b.named_parameters());
    Ok(a.is_unadapted()?
        && b.is_unadapted()?
        && ours.len() == theirs.len()
        && ours.iter().zip(theirs).all(|((_, x), (_, y))| equal(x, y)))
}

#[cfg(test)]
#[path = "mix_p_tests.rs"]
mod tests;
