//! Divergence of a model from its reference: the mean log-ratio of its own responses.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use simplemix_data::{Pair, PairTokenizer, Policy, TokenizeOptions, TokenizerAs, Watch};
use simplemix_eval::{mean, standard_error};
use simplemix_rollout::{Candidate, LocalGenerator, LocalSettings, Prompt, SamplingConfig, together};
use simplemix_train::{PairSet, Team};

use crate::error::{Error, Result};
use crate::ranks::peers;
use crate::scoring::{ScoringOptions, log_probabilities_together};

/// Settings of an estimate of the divergence.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DivergenceSettings {
    /// Model folder.
    pub model: PathBuf,
    /// Folder of the reference.
    pub reference: PathBuf,
    /// Limit of a response, in tokens.
    pub max_new_tokens: usize,
    /// Tokens of prompt and response that are scored.
    pub max_length: usize,
    /// Device, and tokens of a forward pass.
    pub scoring: ScoringOptions,
    /// Random seed.
    pub seed: u64,
    /// Reading of a tokenizer that transformers 5 builds anew by its class.
    pub tokenizer_as: TokenizerAs,
    /// Date that the chat template sees, such as 2026-01-31; today's if it is not set.
    pub template_date: Option<String>,
}

impl DivergenceSettings {
    /// Settings of the model that samples.
    pub(crate) fn local(&self) -> LocalSettings {
        LocalSettings {
            tokenizer_as: self.tokenizer_as,
            template_date: self.template_date.clone(),
            device: self.scoring.device,
            load_in: self.scoring.load_in,
            ..LocalSettings::new(&self.model)
        }
    }

    /// The tokenizer for what is scored.
    fn tokenizer(&self) -> Result<PairTokenizer> {
        let options = TokenizeOptions {
            max_length: self.max_length,
            tokenizer_as: self.tokenizer_as,
            ..TokenizeOptions::default()
        };
        let tokenizer = PairTokenizer::from_dir(&self.model, options)?;
        Ok(match &self.template_date {
            Some(date) => tokenizer.with_date(date)?,
            None => tokenizer,
        })
    }
}

/// An estimate of the divergence of a model from its reference.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Divergence {
    /// Mean log-ratio of a response, in nats.
    pub mean: f64,
    /// Standard error of the mean.
    pub standard_error: f64,
    /// Mean log-ratio of a token, in nats.
    pub per_token: f64,
    /// Number of responses.
    pub answers: usize,
}

/// Log-ratio of a response, model over reference.
#[derive(Debug, Clone, PartialEq)]
pub struct Ratio {
    /// Task of the prompt.
    pub task: Option<String>,
    /// Log-ratio of the response, in nats.
    pub nats: f64,
    /// Length of the response, in tokens.
    pub tokens: usize,
}

/// Log-ratios of two responses of the model to each prompt, at temperature 1, scored as pairs are.
///
/// # Errors
/// [`Error::NoRatio`] if none of the responses can be scored, and whatever sampling and scoring report.
pub fn log_ratios(settings: &DivergenceSettings, prompts: &[Prompt], watch: &mut dyn Watch) -> Result<Vec<Ratio>> {
    log_ratios_together(&Team::default(), settings, prompts, watch)
}

/// As [`log_ratios`], each process of `team` its share; all get all.
///
/// # Errors
/// As there, and if the processes have other models or prompts, or one of them has failed.
pub fn log_ratios_together(
    team: &Team,
    settings: &DivergenceSettings,
    prompts: &[Prompt],
    watch: &mut dyn Watch,
) -> Result<Vec<Ratio>> {
    let answers = answers(team, settings, prompts, watch)?;
    let pair = |(prompt, answers): (&Prompt, &Vec<Candidate>)| {
        let [a, b] = [0, 1].map(|side| prompt.prompt.response(answers[side].text.as_deref().unwrap_or_default()));
        let mut pair = Pair::new(prompt.prompt.clone(), a, b, "sampled", Policy::On).with_inputs(prompt.inputs.clone());
        pair.task.clone_from(&prompt.task);
        pair
    };
    let pairs: Vec<Pair> = prompts.iter().zip(&answers).map(pair).collect();
    let set = PairSet::tokenize(&pairs, &settings.tokenizer()?).map_err(Error::Prepare)?;
    let mut logps =
        |model: &Path, name: &str| log_probabilities_together(team, model, &set, settings.scoring, name, watch);
    let (policy, reference) = (logps(&settings.model, "model")?, logps(&settings.reference, "reference")?);
    let mut ratios = Vec::with_capacity(2 * set.len());
    for (entry, (policy, reference)) in set.table.pairs.iter().zip(policy.iter().zip(&reference)) {
        let ratio = |nats, tokens| Ratio { task: pairs[entry.row].task.clone(), nats, tokens };
        ratios.push(ratio(policy.chosen - reference.chosen, entry.responses.chosen));
        ratios.push(ratio(policy.rejected - reference.rejected, entry.responses.rejected));
    }
    if ratios.is_empty() {
        return Err(Error::NoRatio { summary: set.summary() });
    }
    Ok(ratios)
}

fn answers(
    team: &Team,
    settings: &DivergenceSettings,
    prompts: &[Prompt],
    watch: &mut dyn Watch,
) -> Result<Vec<Vec<Candidate>>> {
    team.does_at_length("loading a model");
    let local = Box::new(LocalGenerator::load(&settings.local())?);
    let sampling = SamplingConfig::plain(2, settings.max_new_tokens, settings.seed);
    let answers = together(peers(team), Some(local), Vec::new(), watch, |generator, _, watch| {
        let mut progress = |done: usize, total: usize| watch.progress("sampling", done as u64, total as u64);
        generator.map_or(Ok(Vec::new()), |generator| generator.generate(prompts, &sampling, &mut progress))
    })?;
    if team.size() == 1 {
        return Ok(answers.unwrap_or_default());
    }
    let failed = Error::serialise("responses");
    let own = serde_json::to_string(&answers).map_err(|error| failed(&error))?;
    let told = team.told(&own, "hearing all responses")?;
    serde_json::from_str(&told).map_err(|error| failed(&error))
}

impl Divergence {
    /// The mean over `ratios`, of which there is at least one.
    pub fn of<'a>(ratios: impl IntoIterator<Item = &'a Ratio>) -> Self {
        let (nats, tokens): (Vec<f64>, Vec<usize>) = ratios.into_iter().map(|ratio| (ratio.nats, ratio.tokens)).unzip();
        Self {
            mean: mean(&nats),
            standard_error: standard_error(&nats),
            per_token: nats.iter().sum::<f64>() / tokens.iter().sum::<usize>().max(1) as f64,
            answers: nats.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_of_answers_and_of_tokens() {
        let ratio = |nats, tokens| Ratio { task: None, nats, tokens };
        let found = Divergence::of(&[ratio(1.0, 2), ratio(3.0, 6)]);
        assert_eq!(found, Divergence { mean: 2.0, standard_error: 1.0, per_token: 0.5, answers: 2 });
    }
}
