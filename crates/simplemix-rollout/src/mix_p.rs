//! DPO-Mix-P: pairs whose two answers come from either side of the policy. Shi, Zhou and Du 2025 (arXiv:2409.19605).
//!
//! One answer is drawn from `pi_theta^(3/2) pi_ref^(-1/2)`, further from the reference than the policy is, the other
//! from `pi_theta^(1/2) pi_ref^(1/2)`, nearer to it. Logits are mixed token by token, before the temperature, as the
//! authors' code does; the samplers are geometric mixtures of next-token distributions, not of whole answers'. A share
//! of the prompts has two plain answers of the policy instead. The reference is the model before the first round.
//!
//! With one answer a sampler the pair is these two; with more, the best and the worst of all of them by score
//! ([`crate::collect()`] does so). Train on the pairs with `soft_label` and the same `reward_margin_scale`.
//!
//! In the first round the policy is the reference, both samplers are the policy itself, and the method is on-policy DPO:
//! see [`MixPNotice`]. The authors train a first round on plain on-policy pairs, and use the mixed ones from the second.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use simplemix_data::{PairTokenizer, TokenizeOptions};
use simplemix_model::{CausalLm, GenerateOptions, Generated, Request};
use tch::{Device, Tensor};

use crate::counter::uniform;
use crate::error::{Error, Result};
use crate::generator::{AnswerSink, Generator, Job, SamplingConfig, mix, stream};
use crate::groups::{answered, in_groups, options};
use crate::local::{LocalSettings, folder_hash, folder_name};
use crate::mix_r::{check_scale, check_share};

/// Weights of the policy's and the reference's logits, of both samplers. Each pair sums to 1.
pub const SAMPLERS: [[f64; 2]; 2] = [[1.5, -0.5], [0.5, 0.5]];

/// Settings of a round.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MixPSettings {
    /// Share of prompts with plain answers only, each prompt by a draw of its own.
    pub plain_share: f64,
    /// Answers of each sampler to a prompt, from 1.
    pub per_sampler: usize,
    /// Factor of a score's difference in the soft label, `sigmoid(scale (r_w - r_l))`; above 0.
    pub reward_margin_scale: f64,
    /// Divides the mixed logits.
    pub temperature: f64,
    /// Tokens after which an answer is cut.
    pub max_new_tokens: usize,
}

impl MixPSettings {
    /// The authors' on Safe-RLHF: no plain pairs, margins times 4 (`alignment/scripts/safe_rlhf` of
    /// srzer/Samplers-in-Online-DPO).
    pub const SAFE_RLHF: Self =
        Self { plain_share: 0.0, per_sampler: 1, reward_margin_scale: 4.0, temperature: 0.7, max_new_tokens: 128 };

    /// The authors' on Iterative-Prompt: 0.3 of the pairs plain, margins as they are (`alignment/scripts/iterative_prompt`
    /// and `choose_type mixed_max_min`).
    pub const ITERATIVE_PROMPT: Self = Self { plain_share: 0.3, reward_margin_scale: 1.0, ..Self::SAFE_RLHF };

    /// # Errors
    /// [`Error::Setting`] naming the first setting out of range.
    pub fn check(&self) -> Result<()> {
        check_share(self.plain_share)?;
        check_scale(self.reward_margin_scale)?;
        if self.per_sampler == 0 {
            return Err(Error::Setting { key: "per_sampler", found: "0".to_owned(), expected: "at least 1" });
        }
        self.sampling(0).check()
    }

    /// How answers are drawn under `seed`: of each prompt twice [`MixPSettings::per_sampler`].
    pub fn sampling(&self, seed: u64) -> SamplingConfig {
        SamplingConfig {
            samples: 2 * self.per_sampler,
            temperature: self.temperature,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            max_new_tokens: self.max_new_tokens,
            seed,
        }
    }
}

/// Something about a round that its user should know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MixPNotice {
    /// Policy and reference have the same weights.
    PolicyIsReference,
}

impl fmt::Display for MixPNotice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PolicyIsReference => f.write_str(
                "policy and reference have the same weights, so both samplers of DPO-Mix-P are the policy itself: this \
                 round is on-policy DPO",
            ),
        }
    }
}

/// Policy and reference as one generator. Of a prompt's answers, an even number, the first half is from the sampler
/// away from the reference, the second from the one towards it; or all are the policy's own.
pub struct MixPGenerator<'a> {
    policy: &'a CausalLm,
    reference: &'a CausalLm,
    tokenizer: &'a PairTokenizer,
    name: String,
    plain_share: f64,
    batch_rows: usize,
}

impl<'a> MixPGenerator<'a> {
    /// `name` is what pairs will have as their generator; `batch_rows` answers are made together, each with both models.
    ///
    /// # Errors
    /// [`Error::Setting`] for a share out of range, [`Error::Model`] if the models have different vocabularies.
    pub fn new(
        policy: &'a CausalLm,
        reference: &'a CausalLm,
        tokenizer: &'a PairTokenizer,
        name: impl Into<String>,
        plain_share: f64,
        batch_rows: usize,
    ) -> Result<Self> {
        check_share(plain_share)?;
        let (ours, theirs) = (policy.config().vocab_size, reference.config().vocab_size);
        if ours != theirs {
            return Err(Error::Model(simplemix_model::Error::Input {
                what: "vocabulary of the reference",
                found: theirs.to_string(),
                expected: format!("{ours}, as the policy's"),
            }));
        }
        Ok(Self { policy, reference, tokenizer, name: name.into(), plain_share, batch_rows })
    }

    /// What the user should know of the models, before time is spent. Compares all weights if they are equal.
    pub fn notice(&self) -> Option<MixPNotice> {
        same_weights(self.policy, self.reference).then_some(MixPNotice::PolicyIsReference)
    }
}

impl MixPGenerator<'_> {
    /// Answers all of `jobs` together: the last bits of a log-probability depend on what else is in the batch.
    fn together(&self, jobs: &[Job], sampling: &SamplingConfig, sink: &mut dyn AnswerSink) -> Result<()> {
        let asked = |job: &Job| {
            let stream = stream(&job.prompt.id);
            let plain = is_plain(self.plain_share, sampling.seed, stream);
            let prompt = self.tokenizer.encode_prompt(&job.prompt.prompt)?;
            Ok(Asked { request: Request { prompt, stream }, plain })
        };
        let asked = jobs.iter().map(asked).collect::<Result<Vec<_>>>()?;
        let options = options(self.tokenizer, sampling, self.batch_rows);
        let answers = draw([self.policy, self.reference], &asked, &options, &mut |done, _| sink.under_way(done))?;
        sink.answered(answered(self.tokenizer, jobs, &answers, sampling.seed)?)
    }
}

impl Generator for MixPGenerator<'_> {
    fn name(&self) -> &str {
        &self.name
    }

    fn remark(&self) -> Option<String> {
        self.notice().map(|notice| notice.to_string())
    }

    fn answer(
        &mut self,
        jobs: &mut dyn Iterator<Item = Result<Job>>,
        sampling: &SamplingConfig,
        sink: &mut dyn AnswerSink,
    ) -> Result<()> {
        sampling.check()?;
        if !sampling.samples.is_multiple_of(2) {
            let expected = "an even number, half from each sampler";
            return Err(Error::Setting { key: "samples", found: sampling.samples.to_string(), expected });
        }
        in_groups(jobs, self.batch_rows, sampling.samples, &mut |jobs| {
            if sink.stopped() {
                return Err(Error::Interrupted);
            }
            self.together(jobs, sampling, sink)
        })
    }
}

/// Two model folders, and how they are run together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MixPFolders {
    /// The policy: folder, name, rows and element type.
    pub policy: LocalSettings,
    /// Folder of the reference: the model before the first round.
    pub reference: PathBuf,
    /// Share of prompts with plain answers only.
    #[serde(default)]
    pub plain_share: f64,
}

/// Policy and reference out of their folders. Its answers go into one file only under the same two models and share.
pub struct MixPModel {
    policy: CausalLm,
    reference: CausalLm,
    tokenizer: PairTokenizer,
    name: String,
    plain_share: f64,
    batch_rows: usize,
    fingerprint: String,
}

impl MixPModel {
    /// Loads both folders, on a GPU if there is one; the tokenizer is the policy's.
    ///
    /// # Errors
    /// [`Error::Setting`], [`Error::Data`] or [`Error::Model`] naming what is wrong.
    pub fn load(folders: &MixPFolders) -> Result<Self> {
        let MixPFolders { policy: settings, reference, plain_share } = folders;
        if settings.batch_rows == 0 {
            return Err(Error::Setting { key: "batch_rows", found: "0".into(), expected: "at least 1" });
        }
        let device = Device::cuda_if_available();
        let kind = settings.dtype.kind(device);
        let hashes = [folder_hash(&settings.model)?, folder_hash(reference)?];
        let fingerprint =
            format!("mix-p {} {} {plain_share} {kind:?} {device:?} {}", hashes[0], hashes[1], settings.batch_rows);
        let model = Self {
            tokenizer: PairTokenizer::from_dir(&settings.model, TokenizeOptions::default())?,
            policy: CausalLm::load(&settings.model, kind, device)?,
            reference: CausalLm::load(reference, kind, device)?,
            name: settings.name.clone().unwrap_or_else(|| folder_name(&settings.model)),
            plain_share: *plain_share,
            batch_rows: settings.batch_rows,
            fingerprint,
        };
        model.generator()?;
        Ok(model)
    }

    /// See [`MixPGenerator::notice`].
    pub fn notice(&self) -> Option<MixPNotice> {
        same_weights(&self.policy, &self.reference).then_some(MixPNotice::PolicyIsReference)
    }

    fn generator(&self) -> Result<MixPGenerator<'_>> {
        let Self { policy, reference, tokenizer, name, plain_share, batch_rows, .. } = self;
        MixPGenerator::new(policy, reference, tokenizer, name.as_str(), *plain_share, *batch_rows)
    }
}

impl Generator for MixPModel {
    fn name(&self) -> &str {
        &self.name
    }

    fn remark(&self) -> Option<String> {
        self.notice().map(|notice| notice.to_string())
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }

    fn answer(
        &mut self,
        jobs: &mut dyn Iterator<Item = Result<Job>>,
        sampling: &SamplingConfig,
        sink: &mut dyn AnswerSink,
    ) -> Result<()> {
        self.generator()?.answer(jobs, sampling, sink)
    }
}

/// A prompt, and whether its answers are the policy's own.
pub(crate) struct Asked {
    pub(crate) request: Request,
    pub(crate) plain: bool,
}

/// Whether a prompt has plain answers: a draw of its own, whatever else there is.
pub(crate) fn is_plain(share: f64, seed: u64, stream: u64) -> bool {
    // Not a place that tokens are drawn at.
    uniform(seed, stream, u64::MAX) < share
}

/// `options.samples` answers to each prompt: half from each sampler, or all from the policy, the first of `models`.
pub(crate) fn draw(
    models: [&CausalLm; 2],
    asked: &[Asked],
    options: &GenerateOptions,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Vec<Vec<Generated>>> {
    let [policy, reference] = models;
    let of = |plain: bool| (0..asked.len()).filter(|&at| asked[at].plain == plain).collect::<Vec<_>>();
    // The two samplers draw from streams of their own: the same uniform numbers would make their answers alike.
    let requests = |places: &[usize], sampler: u64| -> Vec<Request> {
        let request = |&at: &usize| {
            let Request { prompt, stream } = asked[at].request.clone();
            Request { prompt, stream: if sampler == 0 { stream } else { mix(stream ^ sampler) } }
        };
        places.iter().map(request).collect()
    };
    let total = asked.len() * options.samples;
    let mut answers: Vec<Vec<Generated>> = asked.iter().map(|_| Vec::with_capacity(options.samples)).collect();
    let mut before = 0;
    let mut keep = |places: &[usize], made: Vec<Vec<Generated>>| {
        before += made.iter().map(Vec::len).sum::<usize>();
        places.iter().zip(made).for_each(|(&at, made)| answers[at].extend(made));
        before
    };
    let (plain, mixed, mut done) = (of(true), of(false), 0);
    if !plain.is_empty() {
        let made = policy.generate(&requests(&plain, 0), options, &mut |now, _| progress(now, total))?;
        done = keep(&plain, made);
    }
    if !mixed.is_empty() {
        let options = GenerateOptions { samples: options.samples / 2, ..options.clone() };
        for (sampler, weights) in SAMPLERS.into_iter().enumerate() {
            let requests = requests(&mixed, sampler as u64);
            let told = &mut |now, _| progress(done + now, total);
            let made = policy.generate_mixed(reference, weights, &requests, &options, told)?;
            done = keep(&mixed, made);
        }
    }
    Ok(answers)
}

/// Whether two models give the same numbers because they have the same weights; an adapter counts unless its second
/// matrices are all zero, as they are before training.
fn same_weights(a: &CausalLm, b: &CausalLm) -> bool {
    let adapted = |model: &CausalLm| {
        let matrices = model.trainable_parameters();
        let mut second = matrices.iter().filter(|(name, _)| name.contains("lora_B"));
        model.active_adapter().is_some() && second.any(|(_, tensor)| tensor.abs().max().double_value(&[]) > 0.0)
    };
    let equal = |x: &Tensor, y: &Tensor| x.size() == y.size() && x.equal(&y.to_device(x.device()).to_kind(x.kind()));
    let (ours, theirs) = (a.named_parameters(), b.named_parameters());
    !adapted(a)
        && !adapted(b)
        && ours.len() == theirs.len()
        && ours.iter().zip(theirs).all(|((_, x), (_, y))| equal(x, y))
}

#[cfg(test)]
#[path = "mix_p_tests.rs"]
mod tests;
