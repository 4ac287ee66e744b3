//! Pairs out of scored answers.

use std::collections::BTreeMap;

use simplemix_data::{Message, Pair, Policy, Text};

use crate::generator::{Candidate, Prompt};

/// Why a prompt gave no pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NoPair {
    /// All answers have the same score, so none is better.
    AllAlike,
    /// Best and worst answer are the same text.
    SameText,
    /// A score is not a number.
    NotANumber,
}

impl NoPair {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::AllAlike => "all answers score alike",
            Self::SameText => "best and worst answer are the same text",
            Self::NotANumber => "a score is not a number",
        }
    }
}

/// Pairs, and what became of the other prompts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Selection {
    /// One pair a prompt, on-policy, with scores.
    pub pairs: Vec<Pair>,
    /// Prompts without a pair, by reason.
    pub dropped: BTreeMap<NoPair, usize>,
}

/// Best against worst: the highest score is chosen, the lowest rejected, the shorter text first on ties, then the
/// earlier sample. Prompts whose answers all score alike are dropped and counted.
///
/// SIMPLEMIX makes its on-policy pairs this way.
pub fn best_worst(
    prompts: &[Prompt],
    answers: &[Vec<Candidate>],
    scores: &[Vec<f64>],
    source: &str,
    generator: &str,
) -> Selection {
    let mut selection = Selection::default();
    for ((prompt, answers), scores) in prompts.iter().zip(answers).zip(scores) {
        match extremes(answers, scores) {
            Ok((best, worst)) => {
                let response = |at: usize| response(&prompt.prompt, &answers[at].text);
                let mut pair = Pair::new(prompt.prompt.clone(), response(best), response(worst), source, Policy::On);
                pair.generator = Some(generator.to_owned());
                pair.task = prompt.task.clone();
                pair.score_chosen = Some(scores[best]);
                pair.score_rejected = Some(scores[worst]);
                selection.pairs.push(pair);
            }
            Err(reason) => *selection.dropped.entry(reason).or_default() += 1,
        }
    }
    selection
}

/// Places of the best and the worst answer.
fn extremes(answers: &[Candidate], scores: &[f64]) -> Result<(usize, usize), NoPair> {
    if scores.iter().any(|score| !score.is_finite()) {
        return Err(NoPair::NotANumber);
    }
    let length = |at: usize| answers[at].text.len();
    let order = 0..answers.len().min(scores.len());
    let best = order.clone().min_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(length(a).cmp(&length(b))));
    let worst = order.min_by(|&a, &b| scores[a].total_cmp(&scores[b]).then(length(a).cmp(&length(b))));
    match (best, worst) {
        (Some(best), Some(worst)) if scores[best] > scores[worst] => {
            if answers[best].text.trim() == answers[worst].text.trim() {
                Err(NoPair::SameText)
            } else {
                Ok((best, worst))
            }
        }
        _ => Err(NoPair::AllAlike),
    }
}

/// A response in the form of its prompt.
pub(crate) fn response(prompt: &Text, text: &str) -> Text {
    match prompt {
        Text::Plain(_) => Text::Plain(text.to_owned()),
        Text::Messages(_) => Text::Messages(vec![Message::assistant(text)]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generator::Finish;

    fn prompt() -> Prompt {
        Prompt { id: "a".into(), prompt: "2 + 2?".into(), task: Some("math".into()), answer: None }
    }

    fn candidates(texts: &[&str]) -> Vec<Candidate> {
        let candidate = |text: &&str| Candidate { text: (*text).into(), tokens: 1, logp: None, finish: Finish::Stop };
        texts.iter().map(candidate).collect()
    }

    fn select(texts: &[&str], scores: &[f64]) -> Selection {
        best_worst(&[prompt()], &[candidates(texts)], &[scores.to_vec()], "on", "tiny")
    }

    #[test]
    fn best_meets_worst() {
        let selection = select(&["3", "four: 4", "4", "five"], &[0.5, 1.0, 1.0, 0.0]);
        let pair = &selection.pairs[0];
        assert_eq!((&pair.chosen, &pair.rejected), (&Text::from("4"), &Text::from("five")));
        assert_eq!((pair.score_chosen, pair.score_rejected), (Some(1.0), Some(0.0)));
        assert_eq!((pair.policy, pair.task.as_deref()), (Policy::On, Some("math")));
    }

    #[test]
    fn prompts_that_teach_nothing_are_counted() {
        let reasons = |texts, scores| select(texts, scores).dropped.into_keys().collect::<Vec<_>>();
        assert_eq!(reasons(&["a", "b"], &[1.0, 1.0]), [NoPair::AllAlike]);
        assert_eq!(reasons(&["a", "a "], &[1.0, 0.0]), [NoPair::SameText]);
        assert_eq!(reasons(&["a", "b"], &[1.0, f64::NAN]), [NoPair::NotANumber]);
        assert_eq!(reasons(&[], &[]), [NoPair::AllAlike]);
    }
}
