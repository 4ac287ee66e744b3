//! Generate, score, select: on-policy pairs from prompts.

use crate::error::{Error, Result};
use crate::generator::{Candidate, Finish, Generator, Prompt, SamplingConfig};
use crate::scorer::Scorer;
use crate::select::{Selection, best_worst};

/// Everything that collecting gave.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Collected {
    /// Answers, by prompt.
    pub answers: Vec<Vec<Candidate>>,
    /// Their scores.
    pub scores: Vec<Vec<f64>>,
    /// Pairs, and prompts that gave none.
    pub selection: Selection,
}

impl Collected {
    /// Mean score over all answers.
    pub fn mean_score(&self) -> f64 {
        let (sum, count) =
            self.scores.iter().flatten().fold((0.0, 0.0), |(sum, count), score| (sum + score, count + 1.0));
        if count == 0.0 { 0.0 } else { sum / count }
    }

    /// Answers that were cut at the limit of new tokens.
    pub fn cut(&self) -> usize {
        self.answers.iter().flatten().filter(|answer| answer.finish == Finish::Length).count()
    }
}

/// Answers every prompt, scores the answers and pairs best with worst under the name `source`.
///
/// # Errors
/// [`Error::Setting`], [`Error::Prompt`], [`Error::Answers`], or what the generator reports.
pub fn collect(
    generator: &mut dyn Generator,
    scorer: &dyn Scorer,
    prompts: &[Prompt],
    sampling: &SamplingConfig,
    source: &str,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Collected> {
    sampling.check()?;
    let answers = generator.generate(prompts, sampling, progress)?;
    let expected = |answers: &Vec<Vec<Candidate>>| {
        answers.len() == prompts.len() && answers.iter().all(|of_prompt| of_prompt.len() == sampling.samples)
    };
    if !expected(&answers) {
        return Err(Error::Answers {
            generator: generator.name().to_owned(),
            found: format!("{} answers to {} prompts", answers.iter().flatten().count(), answers.len()),
            expected: format!("{} to each of {}", sampling.samples, prompts.len()),
        });
    }
    let scores = prompts
        .iter()
        .zip(&answers)
        .map(|(prompt, answers)| answers.iter().map(|answer| scorer.score(prompt, &answer.text)).collect())
        .collect::<Result<Vec<Vec<f64>>>>()?;
    let selection = best_worst(prompts, &answers, &scores, source, generator.name());
    Ok(Collected { answers, scores, selection })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exact::ExactAnswer;

    /// Answers right with its first sample, wrong with the others.
    struct Half;

    impl Generator for Half {
        fn name(&self) -> &str {
            "half"
        }

        fn generate(
            &mut self,
            prompts: &[Prompt],
            sampling: &SamplingConfig,
            progress: &mut dyn FnMut(usize, usize),
        ) -> Result<Vec<Vec<Candidate>>> {
            progress(prompts.len(), prompts.len());
            let answer = |prompt: &Prompt, i: usize| Candidate {
                text: if i == 0 { prompt.answer.clone().unwrap_or_default() } else { format!("no idea {i}") },
                tokens: 1,
                logp: None,
                finish: if i == 0 { Finish::Stop } else { Finish::Length },
            };
            Ok(prompts.iter().map(|p| (0..sampling.samples).map(|i| answer(p, i)).collect()).collect())
        }
    }

    fn prompt(answer: &str) -> Prompt {
        Prompt { id: answer.into(), prompt: "?".into(), task: None, answer: Some(answer.into()) }
    }

    #[test]
    fn right_answers_are_chosen() {
        let sampling = SamplingConfig { samples: 3, temperature: 1.0, top_p: 1.0, max_new_tokens: 4, seed: 0 };
        let prompts = [prompt("7"), prompt("8")];
        let collected = collect(&mut Half, &ExactAnswer, &prompts, &sampling, "on", &mut |_, _| {}).unwrap();
        assert_eq!(collected.selection.pairs.len(), 2);
        assert_eq!(collected.selection.pairs[1].chosen, "8".into());
        assert_eq!(collected.selection.pairs[1].generator.as_deref(), Some("half"));
        assert!((collected.mean_score() - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!(collected.cut(), 4);
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let sampling = SamplingConfig { samples: 2, temperature: -1.0, top_p: 1.0, max_new_tokens: 4, seed: 0 };
        let error = collect(&mut Half, &ExactAnswer, &[], &sampling, "on", &mut |_, _| {}).unwrap_err();
        assert_eq!(error.to_string(), "`temperature` is -1, expected a number from 0");
    }
}
