//! How far a model is from its reference: the mean log-ratio of its own answers.

use std::path::{Path, PathBuf};

use serde::Serialize;
use simplemix_data::{Pair, PairTokenizer, Policy, TokenizeOptions};
use simplemix_eval::{mean, standard_error};
use simplemix_rollout::{Candidate, Generator, LocalModel, LocalSettings, Prompt, SamplingConfig};
use simplemix_train::PairSet;

use crate::failure::{Fails, Failure, Result};
use crate::progress::bar;
use crate::scoring::log_probabilities;

/// What is estimated, and on how much.
#[derive(Debug, Clone)]
pub(crate) struct DivergenceSettings {
    pub(crate) model: PathBuf,
    pub(crate) reference: PathBuf,
    /// Tokens of an answer.
    pub(crate) max_new_tokens: usize,
    /// Tokens of prompt and answer that are scored.
    pub(crate) max_length: usize,
    /// Tokens of a forward pass.
    pub(crate) micro_batch_tokens: usize,
    pub(crate) seed: u64,
}

/// An estimate of the divergence of a model from its reference.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Divergence {
    /// Nats an answer.
    pub(crate) mean: f64,
    /// Standard error of the mean.
    pub(crate) standard_error: f64,
    /// Nats a token.
    pub(crate) per_token: f64,
    pub(crate) answers: usize,
}

/// An answer's log-ratio, model over reference, with its length and its prompt's task.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ratio {
    pub(crate) task: Option<String>,
    pub(crate) nats: f64,
    pub(crate) tokens: usize,
}

/// The log-ratios of two answers of the model to each prompt, at temperature 1, scored as pairs are.
pub(crate) fn log_ratios(settings: &DivergenceSettings, prompts: &[Prompt]) -> Result<Vec<Ratio>> {
    let answers = answers(settings, prompts)?;
    let pair = |(prompt, answers): (&Prompt, &Vec<Candidate>)| {
        let [a, b] = [0, 1].map(|side| prompt.prompt.response(&answers[side].text));
        let mut pair = Pair::new(prompt.prompt.clone(), a, b, "sampled", Policy::On);
        pair.task.clone_from(&prompt.task);
        pair
    };
    let pairs: Vec<Pair> = prompts.iter().zip(&answers).map(pair).collect();
    let options = TokenizeOptions { max_length: settings.max_length, ..TokenizeOptions::default() };
    let set = PairSet::tokenize(&pairs, &PairTokenizer::from_dir(&settings.model, options).input()?).input()?;
    let logps = |model: &Path, name: &str| log_probabilities(model, &set, settings.micro_batch_tokens, name);
    let (policy, reference) = (logps(&settings.model, "model")?, logps(&settings.reference, "reference")?);
    let mut ratios = Vec::with_capacity(2 * set.len());
    for (entry, (policy, reference)) in set.table.pairs.iter().zip(policy.iter().zip(&reference)) {
        for side in 0..2 {
            ratios.push(Ratio {
                task: pairs[entry.row].task.clone(),
                nats: policy[side] - reference[side],
                tokens: entry.responses[side],
            });
        }
    }
    if ratios.is_empty() {
        return Err(Failure::input(format!("divergence: no answer could be scored; {}", set.summary())));
    }
    Ok(ratios)
}

fn answers(settings: &DivergenceSettings, prompts: &[Prompt]) -> Result<Vec<Vec<Candidate>>> {
    let mut local = LocalModel::load(&LocalSettings::new(&settings.model)).input()?;
    let sampling = SamplingConfig {
        samples: 2,
        temperature: 1.0,
        top_p: 1.0,
        max_new_tokens: settings.max_new_tokens,
        seed: settings.seed,
        ..SamplingConfig::simplemix()
    };
    let bar = bar("sampling", 2 * prompts.len() as u64);
    let answers = local.generate(prompts, &sampling, &mut |done, _| bar.set_position(done as u64)).run()?;
    bar.finish_and_clear();
    Ok(answers)
}

impl Divergence {
    /// The mean of some ratios, at least one.
    pub(crate) fn of<'a>(ratios: impl IntoIterator<Item = &'a Ratio>) -> Self {
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
