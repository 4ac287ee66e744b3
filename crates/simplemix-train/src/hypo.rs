//! HyPO: beside the loss of offline pairs, `lambda` times the divergence `KL(policy || reference)` of whole responses,
//! estimated from fresh samples. Song et al. 2024 (arXiv:2406.01462).
//!
//! Once an update, the policy answers the prompts of the update's pairs; nobody scores the answers. With the log-ratio
//! `R_i` of an answer and the mean `b_i` over the prompt's other answers, the mean of `(R_i - b_i) grad ln pi(y_i)` is an
//! unbiased estimate of the divergence's gradient, and the mean of `R_i` one of the divergence. Both hold for samples
//! from the policy itself alone, so the temperature is 1 and nothing is cut from the distribution. An answer that
//! reaches the limit of new tokens counts as far as it goes: the divergence is that of responses so cut.
//!
//! Letters: P prompts, k answers to each.

use simplemix_loss::{fused_logps, kl_from_samples, score_forward};
use simplemix_model::{CausalLm, Finish, GenerateOptions, Packed, Request, Sampling, Targets};

use crate::error::{Error, Result};
use crate::forward::{ForwardOptions, Pass, head};

/// Settings of the term.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HypoSettings {
    /// Weight of the divergence, above 0.
    pub lambda: f64,
    /// Answers to each prompt. From 2 on each has the mean of the others as its baseline.
    pub samples: usize,
    /// Prompts of an update: those of its first pairs; 0 for those of all.
    pub prompts: usize,
    /// Tokens after which an answer is cut.
    pub max_new_tokens: usize,
    /// Bound of an answer's log-ratio in the gradient, nats; none in the paper. The estimate that is logged has none.
    pub clip: Option<f64>,
}

/// The term with all that it needs.
#[derive(Debug)]
pub struct Hypo {
    settings: HypoSettings,
    reference: CausalLm,
    stop_tokens: Vec<u32>,
    seed: u64,
}

/// A prompt of an update, by its place in it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) place: usize,
    pub(crate) prompt: &'a [u32],
}

/// Token ids of a prompt's answers, and how many of them have an end.
#[derive(Debug, Clone)]
pub(crate) struct Answered<'a> {
    pub(crate) prompt: &'a [u32],
    pub(crate) answers: Vec<Vec<u32>>,
    pub(crate) ended: usize,
}

/// Sums over answers, to be added up over processes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct HypoSums {
    answers: f64,
    log_ratios: f64,
    tokens: f64,
    ended: f64,
}

impl HypoSettings {
    /// # Errors
    /// [`Error::Setting`] naming the first setting out of range, by its key in a settings file.
    pub fn check(&self) -> Result<()> {
        const POSITIVE: &str = "a number above 0";
        for (key, value, fits) in [
            ("hypo_lambda", self.lambda, self.lambda > 0.0 && self.lambda.is_finite()),
            ("hypo_clip", self.clip.unwrap_or(1.0), self.clip.is_none_or(|clip| clip > 0.0 && clip.is_finite())),
        ] {
            if !fits {
                return Err(Error::Setting { key, found: value.to_string(), expected: POSITIVE });
            }
        }
        for (key, value) in [("hypo_samples", self.samples), ("hypo_max_new_tokens", self.max_new_tokens)] {
            if value == 0 {
                return Err(Error::Setting { key, found: "0".to_owned(), expected: "at least 1" });
            }
        }
        Ok(())
    }

    /// Prompts of an update of `pairs` pairs.
    pub(crate) fn prompts_of(&self, pairs: usize) -> usize {
        if self.prompts == 0 { pairs } else { self.prompts.min(pairs) }
    }

    /// The most tokens of a forward pass over answers to prompts of up to `longest` tokens, and those scored of them.
    pub(crate) fn pass_tokens(&self, longest: usize, micro_batch_tokens: usize, pairs: usize) -> (usize, usize) {
        let scored = self.samples * self.max_new_tokens;
        let prompts = (micro_batch_tokens / (longest + scored)).clamp(1, self.prompts_of(pairs).max(1));
        (prompts * (longest + scored), prompts * scored)
    }

    /// Rows that are generated together in an update of `pairs` pairs.
    pub(crate) fn rows(&self, pairs: usize) -> usize {
        (self.samples * self.prompts_of(pairs)).clamp(1, BATCH_ROWS)
    }
}

/// Rows generated together, at most.
const BATCH_ROWS: usize = 64;

impl Hypo {
    /// `reference` stays as it is, or shares its tensors with one that moves; `stop_tokens` end an answer; what is drawn
    /// follows from `seed` and the update's number.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the setting out of range.
    pub fn new(settings: HypoSettings, reference: CausalLm, stop_tokens: Vec<u32>, seed: u64) -> Result<Self> {
        settings.check()?;
        Ok(Self { settings, reference, stop_tokens, seed })
    }

    /// The settings.
    pub fn settings(&self) -> &HypoSettings {
        &self.settings
    }

    /// Answers to the prompts of update `step`, from the policy as it is.
    pub(crate) fn draw<'a>(&self, policy: &CausalLm, asked: &[Asked<'a>], step: u64) -> Result<Vec<Answered<'a>>> {
        // A stream for each place of each update, so that neither resuming nor the number of processes changes it.
        let stream = |place: usize| (step << 24) + place as u64;
        let requests: Vec<Request> =
            asked.iter().map(|a| Request { prompt: a.prompt.to_vec(), stream: stream(a.place) }).collect();
        let options = GenerateOptions {
            samples: self.settings.samples,
            max_new_tokens: self.settings.max_new_tokens,
            stop_tokens: self.stop_tokens.clone(),
            sampling: Sampling { seed: self.seed, ..Sampling::default() },
            batch_rows: self.settings.rows(asked.len()),
            ..GenerateOptions::default()
        };
        let answers = policy.generate(&requests, &options, &mut |_, _| {})?;
        let answered = asked.iter().zip(answers).map(|(asked, answers)| Answered {
            prompt: asked.prompt,
            ended: answers.iter().filter(|answer| answer.finish == Finish::Stop).count(),
            answers: answers.into_iter().map(|answer| answer.tokens).collect(),
        });
        Ok(answered.collect())
    }

    /// Adds the gradient of `weight` times the summed divergence at each of the prompts to the policy's.
    pub(crate) fn accumulate(
        &self,
        policy: &CausalLm,
        answered: &[Answered<'_>],
        weight: f64,
        options: &ForwardOptions,
    ) -> Result<HypoSums> {
        let options = ForwardOptions { token_metrics: false, wpo: None, ld_alpha: None, ..*options };
        let mut sums = HypoSums::default();
        for part in parts(answered, options.micro_batch_tokens) {
            let (packed, targets) = pack(part)?;
            let shape = [part.len() as i64, self.settings.samples as i64];
            let reference = tch::no_grad(|| {
                let pass = Pass::packed(&self.reference, &packed, &targets, &options)?;
                let scores = score_forward(head(&self.reference), &pass.rows, &pass.positions, pass.scoring(&options));
                Ok::<_, Error>(scores.map(|scores| scores.logps.view(shape)))
            })?;
            let pass = Pass::packed(policy, &packed, &targets, &options)?;
            let mut estimate = 0.0;
            let fused = reference.and_then(|reference| {
                fused_logps(head(policy), &pass.rows, &pass.positions, pass.scoring(&options), |logps| {
                    let term = kl_from_samples(&logps.view(shape), &reference, self.settings.clip)?;
                    estimate = term.estimate;
                    // The term is a mean over the part's prompts.
                    Ok(term.surrogate * (weight * part.len() as f64))
                })
            });
            let (_, surrogate) = match fused {
                Err(simplemix_loss::Error::NonFinite { .. }) => return Ok(HypoSums::not_a_number()),
                fused => fused?,
            };
            pass.backward(&surrogate)?;
            let answers = part.iter().flat_map(|prompt| &prompt.answers);
            let count = (part.len() * self.settings.samples) as f64;
            sums.answers += count;
            sums.log_ratios += estimate * count;
            sums.tokens += answers.map(Vec::len).sum::<usize>() as f64;
            sums.ended += part.iter().map(|prompt| prompt.ended).sum::<usize>() as f64;
        }
        Ok(sums)
    }
}

impl HypoSums {
    fn not_a_number() -> Self {
        Self { answers: 1.0, log_ratios: f64::NAN, ..Self::default() }
    }

    pub(crate) fn to_array(self) -> [f64; 4] {
        [self.answers, self.log_ratios, self.tokens, self.ended]
    }

    pub(crate) fn from_array([answers, log_ratios, tokens, ended]: [f64; 4]) -> Self {
        Self { answers, log_ratios, tokens, ended }
    }

    /// What is logged, the names of answers as TRL's `GRPOTrainer` has them: the divergence in nats, tokens of an
    /// answer, the share of answers that were cut, and the tokens that the update has generated.
    pub(crate) fn metrics(self) -> Vec<(&'static str, f64)> {
        let answers = self.answers;
        vec![
            ("kl", self.log_ratios / answers),
            ("completions/mean_length", self.tokens / answers),
            ("completions/clipped_ratio", 1.0 - self.ended / answers),
            ("completions/tokens", self.tokens),
        ]
    }
}

/// Prompts in order, as many at a time as have at most `budget` tokens with their answers, but one at least.
fn parts<'a, 'b>(answered: &'b [Answered<'a>], budget: usize) -> Vec<&'b [Answered<'a>]> {
    let tokens = |a: &Answered<'_>| a.prompt.len() + a.answers.iter().map(Vec::len).sum::<usize>();
    let (mut parts, mut start, mut held) = (Vec::new(), 0, 0);
    for (i, prompt) in answered.iter().enumerate() {
        if i > start && held + tokens(prompt) > budget {
            parts.push(&answered[start..i]);
            (start, held) = (i, 0);
        }
        held += tokens(prompt);
    }
    if start < answered.len() {
        parts.push(&answered[start..]);
    }
    parts
}

/// Each prompt once, followed by its answers.
fn pack(answered: &[Answered<'_>]) -> Result<(Packed, Targets)> {
    let (mut packed, mut targets) = (Packed::new(), Targets::default());
    for Answered { prompt, answers, .. } in answered {
        let first = packed.push(prompt)?;
        for answer in answers {
            packed.push_response(first, answer, &mut targets)?;
        }
    }
    Ok((packed, targets))
}

#[cfg(test)]
#[path = "hypo_tests.rs"]
mod tests;
