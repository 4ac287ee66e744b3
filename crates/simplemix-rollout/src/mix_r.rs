//! DPO-Mix-R: pairs whose two answers rewards have drawn apart. Shi, Zhou and Du 2025 (arXiv:2409.19605).
//!
//! The paper draws the first answer in proportion to `e^r`, the second to `e^-r`, mixed with plain pairs, over all
//! answers there are; both together give a pair the weight `2 + e^D + e^-D` with `D = r - r'`. Over texts nobody can sum,
//! and the paper runs no language model this way. What is done here puts the prompt's candidates, plain samples of the
//! policy, in the place of all answers: one pair of them is drawn with that weight. So the samplers are the policy tilted
//! by the reward, `pi(y) e^r` and `pi(y) e^-r`, the better approximated the more candidates there are.
//!
//! Whichever of the two has the higher score is chosen. Train on the pairs with `soft_label` and the same scale.

use serde::{Deserialize, Serialize};

use crate::counter::uniform;
use crate::error::{Error, Result};
use crate::generator::{Candidate, Prompt, stream};
use crate::select::{Choice, NoPair, Scored, Selection, own_answers, pair_of};

/// Settings of DPO-Mix-R.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MixRSettings {
    /// Factor of the scores, above 0: with it a difference becomes a log-odds.
    pub reward_margin_scale: f64,
    /// Share of prompts whose pair is a plain one, any two candidates alike; the others' is drawn by `e^D + e^-D`. None
    /// takes the theory's, in which plain pairs have the weight 2 beside these.
    pub plain_share: Option<f64>,
    /// Everything drawn follows from it and a prompt's id.
    pub seed: u64,
}

impl MixRSettings {
    /// # Errors
    /// [`Error::Setting`] naming the first setting out of range.
    pub fn check(&self) -> Result<()> {
        check_scale(self.reward_margin_scale)?;
        check_share(self.plain_share.unwrap_or(0.0))
    }
}

pub(crate) fn check_scale(scale: f64) -> Result<()> {
    if scale > 0.0 && scale.is_finite() {
        return Ok(());
    }
    Err(Error::Setting { key: "reward_margin_scale", found: scale.to_string(), expected: "a number above 0" })
}

pub(crate) fn check_share(share: f64) -> Result<()> {
    if (0.0..=1.0).contains(&share) {
        return Ok(());
    }
    Err(Error::Setting { key: "plain_share", found: share.to_string(), expected: "a number from 0 to 1" })
}

/// One pair a prompt, drawn from its scored candidates. Pairs of the same text or score are never drawn; prompts that
/// have no others are dropped and counted.
///
/// # Errors
/// [`Error::Setting`] for settings out of range.
pub fn mix_r(
    prompts: &[Prompt],
    answers: &[Vec<Candidate>],
    scores: &[Vec<Option<f64>>],
    settings: &MixRSettings,
    source: &str,
    generator: &str,
) -> Result<Selection> {
    settings.check()?;
    let mut selection = Selection::default();
    for ((prompt, answers), scores) in prompts.iter().zip(answers).zip(scores) {
        let scored = own_answers(answers, scores);
        match drawn(&prompt.id, &scored, settings) {
            Ok(choice) => {
                let mut pair = pair_of(prompt, &scored, choice, source);
                pair.generator = Some(generator.to_owned());
                selection.pairs.push(pair);
            }
            Err(reason) => *selection.dropped.entry(reason).or_default() += 1,
        }
    }
    Ok(selection)
}

/// Places of a prompt's chosen and rejected answer.
pub(crate) fn drawn(id: &str, scored: &[Scored<'_>], settings: &MixRSettings) -> Result<Choice, NoPair> {
    let mut scores = Vec::with_capacity(scored.len());
    for answer in scored {
        scores.push(answer.score.filter(|score| score.is_finite()).ok_or(NoPair::NotANumber)?);
    }
    if scores.len() < 2 {
        return Err(NoPair::TooFew);
    }
    let stream = stream(id);
    let plain = settings.plain_share.map(|share| uniform(settings.seed, stream, 0) < share);
    let mut pairs = Vec::new();
    let mut same_text = false;
    for chosen in 0..scores.len() {
        for rejected in (0..scores.len()).filter(|&rejected| scores[chosen] > scores[rejected]) {
            if scored[chosen].text.trim() == scored[rejected].text.trim() {
                same_text = true;
                continue;
            }
            let d = settings.reward_margin_scale * (scores[chosen] - scores[rejected]);
            let log_weight = match plain {
                Some(true) => 0.0,
                Some(false) => log_apart(d),
                None => log_pair_weight(d),
            };
            pairs.push((chosen, rejected, log_weight));
        }
    }
    let most = pairs.iter().map(|pair| pair.2).fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = pairs.iter().map(|pair| (pair.2 - most).exp()).collect();
    let mut left = uniform(settings.seed, stream, 1) * weights.iter().sum::<f64>();
    let at = weights.iter().position(|weight| {
        left -= weight;
        left < 0.0
    });
    // Rounding may leave a little after the last.
    match at.or(pairs.len().checked_sub(1)) {
        Some(at) => Ok((pairs[at].0, pairs[at].1)),
        None if same_text => Err(NoPair::SameText),
        None => Err(NoPair::AllAlike),
    }
}

/// `ln(2 + e^d + e^-d) = ln(1 / (sigmoid(d) sigmoid(-d)))`: the weight of a pair under plain and drawn-apart samplers
/// together.
pub(crate) fn log_pair_weight(d: f64) -> f64 {
    d.abs() + 2.0 * (-d.abs()).exp().ln_1p()
}

/// `ln(e^d + e^-d)`: under those that are drawn apart alone.
fn log_apart(d: f64) -> f64 {
    d.abs() + (-2.0 * d.abs()).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use simplemix_data::Policy;

    use super::*;
    use crate::generator::Finish;

    const SETTINGS: MixRSettings = MixRSettings { reward_margin_scale: 2.0, plain_share: None, seed: 3 };
    const SCORES: [f64; 4] = [0.1, 1.0, -0.4, 0.5];

    fn scored<'a>(texts: &[&'a str], scores: &[f64]) -> Vec<Scored<'a>> {
        let one = |(text, score): (&&'a str, &f64)| Scored { text, score: Some(*score), is_reference: false };
        texts.iter().zip(scores).map(one).collect()
    }

    /// How often each pair comes over many prompts, against its weight: chi-squared of six pairs, five degrees of
    /// freedom, of which 99.9 % of draws stay below 20.5.
    fn chi_squared(settings: &MixRSettings, weight: impl Fn(f64) -> f64) -> f64 {
        let texts = scored(&["a", "b", "c", "d"], &SCORES);
        let mut counts = [[0.0; 4]; 4];
        for i in 0..20_000 {
            let (chosen, rejected) = drawn(&format!("prompt {i}"), &texts, settings).unwrap();
            counts[chosen][rejected] += 1.0;
        }
        let all: Vec<(usize, usize)> =
            (0..4).flat_map(|i| (0..4).map(move |j| (i, j))).filter(|&(i, j)| SCORES[i] > SCORES[j]).collect();
        let weights: Vec<f64> = all.iter().map(|&(i, j)| weight(2.0 * (SCORES[i] - SCORES[j]))).collect();
        let total: f64 = weights.iter().sum();
        let cells = all.iter().zip(&weights).map(|(&(i, j), weight)| {
            let expected = 20_000.0 * weight / total;
            (counts[i][j] - expected).powi(2) / expected
        });
        cells.sum()
    }

    #[test]
    fn pairs_are_drawn_by_their_weight() {
        let theory = chi_squared(&SETTINGS, |d| 2.0 + d.exp() + (-d).exp());
        assert!(theory < 20.5, "{theory}");
        let plain = chi_squared(&MixRSettings { plain_share: Some(1.0), ..SETTINGS }, |_| 1.0);
        assert!(plain < 20.5, "{plain}");
        let apart = chi_squared(&MixRSettings { plain_share: Some(0.0), ..SETTINGS }, |d| d.exp() + (-d).exp());
        assert!(apart < 20.5, "{apart}");
        // And the test would tell one from the other.
        assert!(chi_squared(&SETTINGS, |d| d.exp() + (-d).exp()) > 100.0);
    }

    #[test]
    fn pairs_have_scores_and_prompts_without_one_are_counted() {
        let prompt = |id: &str| Prompt::new(id, "?");
        let answers = |texts: [&str; 2]| {
            let answer =
                |text: &str| Candidate { text: text.into(), tokens: 1, logp: None, finish: Finish::Stop, seed: None };
            texts.map(answer).to_vec()
        };
        let prompts = ["a", "b", "c", "d"].map(prompt);
        let answers = [answers(["x", "y"]), answers(["x", "y"]), answers(["x", "x "]), answers(["x", "y"])];
        let scores = [[0.0, 2.0], [1.0, 1.0], [1.0, 2.0], [f64::NAN, 0.0]].map(|pair| pair.map(Some).to_vec());
        let selection = mix_r(&prompts, &answers, &scores, &SETTINGS, "on", "tiny").unwrap();
        assert_eq!(selection.pairs.len(), 1);
        let pair = &selection.pairs[0];
        assert_eq!((pair.score_chosen, pair.score_rejected, pair.policy), (Some(2.0), Some(0.0), Policy::On));
        assert_eq!(pair.chosen, "y".into());
        let reasons: Vec<_> = selection.dropped.into_iter().collect();
        assert_eq!(reasons, [(NoPair::AllAlike, 1), (NoPair::SameText, 1), (NoPair::NotANumber, 1)]);
    }

    #[test]
    fn huge_differences_and_settings_out_of_range() {
        assert_eq!(drawn("p", &scored(&["a", "b"], &[1e300, -1e300]), &SETTINGS).unwrap(), (0, 1));
        assert!((log_pair_weight(1.0) - (2.0 + 1f64.exp() + (-1f64).exp()).ln()).abs() < 1e-15);
        let text = |settings: MixRSettings| settings.check().unwrap_err().to_string();
        let scale = MixRSettings { reward_margin_scale: 0.0, ..SETTINGS };
        assert_eq!(text(scale), "`reward_margin_scale` is 0, expected a number above 0");
        let share = MixRSettings { plain_share: Some(1.5), ..SETTINGS };
        assert_eq!(text(share), "`plain_share` is 1.5, expected a number from 0 to 1");
    }
}
