//! HyPO: the loss of offline pairs plus `lambda` times the divergence `KL(policy || reference)` of whole responses,
//! estimated from fresh samples. Song et al. 2024 (arXiv:2406.01462).
//!
//! In every update the policy samples responses to the prompts of the update's pairs; they are not scored. Let `R_i` be
//! the log-ratio of response `i` and `b_i` the mean log-ratio of the prompt's other responses. Then the mean of
//! `(R_i - b_i) grad ln pi(y_i)` is an unbiased estimate of the divergence's gradient, and the mean of `R_i` is one of
//! the divergence. Both require samples from the policy itself, so the temperature is 1 and the distribution is not
//! truncated. A response that reaches the limit of new tokens counts up to there: the divergence is that of truncated
//! responses.
//!
//! Letters: P prompts, k responses to each.

use simplemix_loss::{Checks, ScoreOptions, fused_logps, kl_from_samples, score_forward};
use simplemix_model::{CausalLm, Finish, GenerateOptions, ModelConfig, Packed, Request, Sampling, Targets};
use simplemix_settings::{Settings, section};

use crate::error::{Error, Result};
use crate::forward::{ForwardOptions, Pass};
use crate::team::Team;

section! {
    /// HyPO: the divergence from the reference on sampled responses, in addition to the loss (arXiv:2406.01462).
    #[derive(Copy)]
    pub struct HypoSettings("hypo") {
        /// Weight of the KL divergence to the reference, estimated from responses that the policy samples in every update;
        /// 0 switches it off.
        lambda: f64 = 0.0, in at_least(0.0), was "hypo_lambda";
        /// Responses sampled for each prompt; from 2 on, the mean of the others is each one's baseline.
        samples: usize = 2, in at_least(1.0), unit "responses", was "hypo_samples";
        /// Prompts sampled in an update, those of its first pairs; 0 for the prompts of all pairs.
        prompts: usize = 0, unit "prompts", was "hypo_prompts";
        /// Maximum length of a sampled response; longer ones are cut.
        max_new_tokens: usize = 128, in at_least(1.0), unit "tokens", was "hypo_max_new_tokens";
        /// Bound of a response's log-ratio in the gradient; the paper has none.
        clip: Option<f64> = None, in above(0.0), unit "nats", was "hypo_clip";
    }
}

/// Divergence from a reference, to be added to a preference loss.
#[derive(Debug)]
pub(crate) struct Hypo {
    settings: HypoSettings,
    reference: CausalLm,
    stop_tokens: Vec<u32>,
    seed: u64,
}

/// Token ids of the responses to a prompt.
#[derive(Debug, Clone)]
pub(crate) struct Sampled<'a> {
    pub(crate) prompt: &'a [u32],
    pub(crate) responses: Vec<Vec<u32>>,
    /// Number of responses that ended by themselves.
    pub(crate) ended: usize,
}

/// Sums over sampled responses.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct HypoSums {
    responses: f64,
    log_ratios: f64,
    tokens: f64,
    ended: f64,
}

impl HypoSettings {
    /// Number of prompts that are sampled in an update of `pairs` pairs.
    pub(crate) fn prompts_of(&self, pairs: usize) -> usize {
        if self.prompts == 0 { pairs } else { self.prompts.min(pairs) }
    }

    /// Most prompts of a forward pass over responses to prompts of up to `longest` tokens, each laid out `copies` times.
    pub(crate) fn pass_prompts(&self, longest: usize, copies: usize, micro_batch_tokens: usize, pairs: usize) -> usize {
        let scored = self.samples * self.max_new_tokens;
        (micro_batch_tokens / (copies * longest + scored)).clamp(1, self.prompts_of(pairs).max(1))
    }

    /// Most copies of a prompt of `longest` tokens or fewer in a pass of `model`: one for all responses, unless their lengths can
    /// have different rotary frequencies.
    pub(crate) fn copies(&self, model: &ModelConfig, longest: usize) -> usize {
        if model.same_frequencies(1, longest + self.max_new_tokens) { 1 } else { self.samples }
    }

    /// Batch size of generation in an update of `pairs` pairs.
    pub(crate) fn rows(&self, pairs: usize) -> usize {
        (self.samples * self.prompts_of(pairs)).clamp(1, BATCH_ROWS)
    }
}

/// Largest batch size of generation.
const BATCH_ROWS: usize = 64;

impl Hypo {
    /// Creates the term. `reference` stays as it is, or shares its tensors with one that moves. `stop_tokens` end a
    /// response. Samples follow from `seed` and the number of the update.
    ///
    /// # Errors
    /// [`Error::Setting`] naming a setting out of range.
    pub(crate) fn new(settings: HypoSettings, reference: CausalLm, stop_tokens: Vec<u32>, seed: u64) -> Result<Self> {
        settings.check_ranges()?;
        Ok(Self { settings, reference, stop_tokens, seed })
    }

    /// Settings of the term.
    pub(crate) fn settings(&self) -> &HypoSettings {
        &self.settings
    }

    /// Samples responses to the prompts of update `step` from the policy.
    /// Each prompt comes with its place in the update; `progress` is told prompts that are done, and all.
    pub(crate) fn sample<'a>(
        &self,
        policy: &CausalLm,
        prompts: &[(usize, &'a [u32])],
        step: u64,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Vec<Sampled<'a>>> {
        // Every prompt of every update has a random stream of its own, so that neither resuming nor other processes change
        // anything.
        let stream = |place: usize| (step << 24) + place as u64;
        let request = |(place, prompt): &(usize, &[u32])| Request { prompt: prompt.to_vec(), stream: stream(*place) };
        let requests: Vec<Request> = prompts.iter().map(request).collect();
        let options = GenerateOptions {
            samples: self.settings.samples,
            max_new_tokens: self.settings.max_new_tokens,
            stop_tokens: self.stop_tokens.clone(),
            sampling: Sampling { seed: self.seed, ..Sampling::default() },
            batch_rows: self.settings.rows(prompts.len()),
            ..GenerateOptions::default()
        };
        // Processes take different numbers of steps, none of which waits for another.
        let _whole = policy.resident_all()?;
        let responses = policy.generate(&requests, &options, progress)?;
        let sampled = prompts.iter().zip(responses).map(|((_, prompt), responses)| Sampled {
            prompt,
            ended: responses.iter().filter(|response| response.finish == Finish::Stop).count(),
            responses: responses.into_iter().map(|response| response.tokens).collect(),
        });
        Ok(sampled.collect())
    }

    /// Adds the gradient of `weight` times the divergence, summed over the prompts, to the policy's gradients.
    pub(crate) fn accumulate(
        &self,
        policy: &CausalLm,
        sampled: &[Sampled<'_>],
        weight: f64,
        options: &ForwardOptions,
        team: &Team,
    ) -> Result<HypoSums> {
        let options = ForwardOptions { token_metrics: false, wpo: None, ld_alpha: None, ..*options };
        let parts = parts(policy.config(), sampled, options.micro_batch_tokens);
        let together = policy.is_divided();
        let all = if together { team.most(parts.len(), "counting HyPO's passes")? } else { parts.len() };
        let mut sums = HypoSums::default();
        for number in 0..all {
            let Some(part) = parts.get(number) else {
                self.reference.idle_pass(false)?;
                policy.idle_pass(true)?;
                continue;
            };
            match self.accumulate_part(policy, part, weight, &options)? {
                Some(estimate) => sums.add(part, estimate),
                // The other processes' passes need this one.
                None if together => sums.spoil(),
                None => return Ok(HypoSums::nan()),
            }
        }
        Ok(sums)
    }

    /// Runs the prompts of one forward pass. Returns the mean log-ratio of their responses; none for NaN.
    fn accumulate_part(
        &self,
        policy: &CausalLm,
        part: &[Sampled<'_>],
        weight: f64,
        options: &ForwardOptions,
    ) -> Result<Option<f64>> {
        let shape = [part.len() as i64, self.settings.samples as i64];
        let reference = tch::no_grad(|| {
            let (packed, targets) = pack(self.reference.config(), part)?;
            let pass = Pass::packed(&self.reference, &packed, &targets, options)?;
            let scores = score_forward(pass.head(), &pass.rows, &pass.positions, now(&pass, options));
            Ok::<_, Error>(scores.map(|scores| scores.logps.view(shape)))
        })?;
        let (packed, targets) = pack(policy.config(), part)?;
        let pass = Pass::packed(policy, &packed, &targets, options)?;
        let mut estimate = 0.0;
        let fused = reference.and_then(|reference| {
            fused_logps(pass.head(), &pass.rows, &pass.positions, now(&pass, options), |logps| {
                let term = kl_from_samples(&logps.view(shape), &reference, self.settings.clip)?;
                estimate = term.estimate;
                // The term is a mean over the part's prompts.
                Ok(term.surrogate * (weight * part.len() as f64))
            })
        });
        let (_, surrogate) = match fused {
            Err(simplemix_loss::Error::NonFinite { .. }) => {
                pass.abandon()?;
                return Ok(None);
            }
            fused => fused?,
        };
        pass.backward(&surrogate)?;
        Ok(Some(estimate))
    }
}

/// Scoring with NaN as an error, which ends the regulariser.
fn now<'a>(pass: &'a Pass<'_>, options: &ForwardOptions) -> ScoreOptions<'a> {
    ScoreOptions { checks: Checks::Now, ..pass.scoring(options) }
}

impl HypoSums {
    /// Sums of which every mean is NaN.
    fn nan() -> Self {
        Self { responses: 1.0, log_ratios: f64::NAN, ..Self::default() }
    }

    /// Makes every mean NaN.
    fn spoil(&mut self) {
        (self.responses, self.log_ratios) = (self.responses.max(1.0), f64::NAN);
    }

    /// Adds the responses of a part, whose mean log-ratio is `estimate`.
    fn add(&mut self, part: &[Sampled<'_>], estimate: f64) {
        let responses = || part.iter().flat_map(|prompt| &prompt.responses);
        let count = responses().count() as f64;
        self.responses += count;
        self.log_ratios += estimate * count;
        self.tokens += responses().map(Vec::len).sum::<usize>() as f64;
        self.ended += part.iter().map(|prompt| prompt.ended).sum::<usize>() as f64;
    }

    /// Sums over all processes.
    pub(crate) fn of_all(self, team: &Team) -> Result<Self> {
        let own = [self.responses, self.log_ratios, self.tokens, self.ended];
        let sums = team.sums(&own, "adding up HyPO's divergence")?;
        Ok(Self { responses: sums[0], log_ratios: sums[1], tokens: sums[2], ended: sums[3] })
    }

    /// Metrics under the names of TRL's `GRPOTrainer`: the divergence in nats, tokens of a response, the share of
    /// truncated responses, and the tokens that were sampled in the update.
    pub(crate) fn metrics(self) -> Vec<(&'static str, f64)> {
        vec![
            ("kl", self.log_ratios / self.responses),
            ("completions/mean_length", self.tokens / self.responses),
            ("completions/clipped_ratio", 1.0 - self.ended / self.responses),
            ("completions/tokens", self.tokens),
        ]
    }
}

/// Splits prompts in order so that each part has at most `budget` tokens with the responses as they are laid out for `model`, or one
/// prompt.
fn parts<'a, 'b>(model: &ModelConfig, sampled: &'b [Sampled<'a>], budget: usize) -> Vec<&'b [Sampled<'a>]> {
    let tokens = |s: &Sampled<'_>| {
        let lengths: Vec<usize> = s.responses.iter().map(|response| s.prompt.len() + response.len()).collect();
        let is_first = |at: &usize| !lengths[..*at].iter().any(|&length| model.same_frequencies(length, lengths[*at]));
        let copies = (0..lengths.len()).filter(is_first).count();
        copies * s.prompt.len() + s.responses.iter().map(Vec::len).sum::<usize>()
    };
    let (mut parts, mut start, mut held) = (Vec::new(), 0, 0);
    for (i, prompt) in sampled.iter().enumerate() {
        if i > start && held + tokens(prompt) > budget {
            parts.push(&sampled[start..i]);
            (start, held) = (i, 0);
        }
        held += tokens(prompt);
    }
    if start < sampled.len() {
        parts.push(&sampled[start..]);
    }
    parts
}

/// Packs each prompt once for a model, followed by its responses.
fn pack(model: &ModelConfig, sampled: &[Sampled<'_>]) -> Result<(Packed, Targets)> {
    let (mut packed, mut targets) = (Packed::of(model), Targets::default());
    for Sampled { prompt, responses, .. } in sampled {
        let first = packed.push(prompt)?;
        for response in responses {
            packed.push_response(first, response, &mut targets)?;
        }
    }
    Ok((packed, targets))
}

#[cfg(test)]
#[path = "hypo_tests.rs"]
mod tests;
