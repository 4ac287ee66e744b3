//! DPO-Mix-R: one pair, drawn by the difference of its scores. Shi, Zhou and Du 2025 (arXiv:2409.19605).

use super::ranking::Ranking;
use super::{Choice, NoPair};
use crate::random::{stream, uniform};

/// Draws one pair of the prompt `id`. Pairs with equal scores or texts are never drawn.
pub(super) fn draw(id: &str, ranking: &Ranking<'_>) -> Result<Choice, NoPair> {
    let (seed, stream) = (ranking.settings.seed, stream(id));
    let is_uniform = ranking.settings.uniform_share.map(|share| uniform(seed, stream, 0) < share);
    // Settings with this rule and no scale are refused by `SelectSettings::check`.
    let scale = ranking.settings.reward_margin_scale.unwrap_or(1.0);
    let log_weight = |pair: Choice| {
        let d = scale * ranking.gap(pair);
        match is_uniform {
            Some(true) => 0.0,
            Some(false) => log_tilted_weight(d),
            None => log_pair_weight(d),
        }
    };
    let pairs = allowed(ranking)?;
    let log_weights: Vec<f64> = pairs.iter().map(|&pair| log_weight(pair)).collect();
    Ok(pairs[position(&log_weights, uniform(seed, stream, 1))])
}

/// Every pair that may be drawn, at least one; otherwise the reason against the first.
fn allowed(ranking: &Ranking<'_>) -> Result<Vec<Choice>, NoPair> {
    let count = ranking.scores.len();
    let all = (0..count).flat_map(|chosen| (0..count).map(move |rejected| Choice { chosen, rejected }));
    let (mut pairs, mut reason) = (Vec::new(), None);
    for pair in all.filter(|&pair| ranking.gap(pair) > 0.0) {
        match ranking.allowed(pair) {
            Ok(pair) => pairs.push(pair),
            Err(refused) => reason = reason.or(Some(refused)),
        }
    }
    if pairs.is_empty() { Err(reason.unwrap_or(NoPair::AllAlike)) } else { Ok(pairs) }
}

/// Position drawn by the uniform number `u` among at least one weight.
fn position(log_weights: &[f64], u: f64) -> usize {
    let most = log_weights.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = log_weights.iter().map(|log_weight| (log_weight - most).exp()).collect();
    let mut left = u * weights.iter().sum::<f64>();
    let drawn = weights.iter().position(|weight| {
        left -= weight;
        left < 0.0
    });
    // Rounding may leave a little after the last weight.
    drawn.unwrap_or(weights.len() - 1)
}

/// `ln(2 + e^d + e^-d) = ln(1 / (sigmoid(d) sigmoid(-d)))`: weight of a pair under uniform and tilted samplers together.
pub(crate) fn log_pair_weight(d: f64) -> f64 {
    d.abs() + 2.0 * (-d.abs()).exp().ln_1p()
}

/// `ln(e^d + e^-d)`: weight of a pair under the tilted samplers alone.
fn log_tilted_weight(d: f64) -> f64 {
    d.abs() + (-2.0 * d.abs()).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use simplemix_data::Policy;

    use super::super::{Scored, Select, SelectSettings, choose, select_pairs};
    use super::*;
    use crate::finish::Finish;
    use crate::generator::{Candidate, Prompt};

    const SETTINGS: SelectSettings = SelectSettings {
        select: Select::MixR,
        reference: false,
        min_gap: 0.0,
        max_gap: None,
        threshold: None,
        max_pairs: None,
        finished: false,
        reward_margin_scale: Some(2.0),
        uniform_share: None,
        seed: 3,
        chosen_generators: Vec::new(),
        rejected_generators: Vec::new(),
    };
    const SCORES: [f64; 4] = [0.1, 1.0, -0.4, 0.5];

    fn scored<'a>(texts: &[&'a str], scores: &[f64]) -> Vec<Scored<'a>> {
        let one = |(text, score): (&&'a str, &f64)| Scored {
            text,
            score: Some(*score),
            is_reference: false,
            generator: None,
        };
        texts.iter().zip(scores).map(one).collect()
    }

    fn drawn(id: &str, responses: &[Scored<'_>], settings: &SelectSettings) -> Choice {
        let pairs = choose(id, responses, settings).unwrap();
        assert_eq!(pairs.len(), 1);
        pairs[0]
    }

    /// Chi-squared of how often each of six pairs comes over many prompts, against its weight: five degrees of freedom, of
    /// which 99.9 % of draws stay below 20.5.
    fn chi_squared(settings: &SelectSettings, weight: impl Fn(f64) -> f64) -> f64 {
        let texts = scored(&["a", "b", "c", "d"], &SCORES);
        let mut counts = [[0.0; 4]; 4];
        for i in 0..20_000 {
            let Choice { chosen, rejected } = drawn(&format!("prompt {i}"), &texts, settings);
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
        let uniform = chi_squared(&SelectSettings { uniform_share: Some(1.0), ..SETTINGS }, |_| 1.0);
        assert!(uniform < 20.5, "{uniform}");
        let tilted = chi_squared(&SelectSettings { uniform_share: Some(0.0), ..SETTINGS }, |d| d.exp() + (-d).exp());
        assert!(tilted < 20.5, "{tilted}");
        // The test tells one from the other.
        assert!(chi_squared(&SETTINGS, |d| d.exp() + (-d).exp()) > 100.0);
    }

    #[test]
    fn only_pairs_within_the_bounds_are_drawn() {
        let texts = scored(&["a", "b", "c", "d"], &SCORES);
        let settings = SelectSettings { min_gap: 1.0, max_gap: Some(1.5), ..SETTINGS };
        for i in 0..20 {
            assert_eq!(drawn(&format!("prompt {i}"), &texts, &settings), Choice { chosen: 1, rejected: 2 });
        }
        let none = SelectSettings { min_gap: 2.0, ..SETTINGS };
        assert_eq!(choose("p", &texts, &none), Err(NoPair::GapTooSmall));
    }

    #[test]
    fn pairs_have_scores_and_prompts_without_one_are_counted() {
        let prompt = |id: &str| Prompt::new(id, "?");
        let candidates = |texts: [&str; 2]| {
            let candidate = |text: &str| Candidate::new(text, Finish::Stop);
            texts.map(candidate).to_vec()
        };
        let prompts = ["a", "b", "c", "d"].map(prompt);
        let candidates = [["x", "y"], ["x", "y"], ["x", "x "], ["x", "y"]].map(candidates);
        let scores = [[0.0, 2.0], [1.0, 1.0], [1.0, 2.0], [f64::NAN, 0.0]].map(|pair| pair.map(Some).to_vec());
        let selection = select_pairs(&prompts, &candidates, &scores, &SETTINGS, "on", "tiny").unwrap();
        assert_eq!(selection.pairs.len(), 1);
        let pair = &selection.pairs[0];
        assert_eq!((pair.score_chosen, pair.score_rejected, pair.policy), (Some(2.0), Some(0.0), Policy::On));
        assert_eq!((&pair.chosen, pair.generator.as_deref()), (&"y".into(), Some("tiny")));
        let reasons: Vec<_> = selection.dropped.into_iter().collect();
        assert_eq!(reasons, [(NoPair::AllAlike, 1), (NoPair::SameText, 1), (NoPair::NotANumber, 1)]);
    }

    #[test]
    fn huge_differences_and_settings_out_of_range() {
        let huge = drawn("p", &scored(&["a", "b"], &[1e300, -1e300]), &SETTINGS);
        assert_eq!(huge, Choice { chosen: 0, rejected: 1 });
        assert!((log_pair_weight(1.0) - (2.0 + 1f64.exp() + (-1f64).exp()).ln()).abs() < 1e-15);
        let text = |settings: SelectSettings| settings.check().unwrap_err().to_string();
        let scale = SelectSettings { reward_margin_scale: Some(0.0), ..SETTINGS };
        assert_eq!(text(scale), "`reward_margin_scale` is 0, expected a number > 0");
        let none = SelectSettings { reward_margin_scale: None, ..SETTINGS };
        assert_eq!(text(none), "`reward_margin_scale` is not set, expected a number > 0, for the rule `mix-r`");
        let share = SelectSettings { uniform_share: Some(1.5), ..SETTINGS };
        assert_eq!(text(share), "`uniform_share` is 1.5, expected a number from 0 to 1");
        let other = SelectSettings { select: Select::BestWorst, ..SETTINGS };
        assert_eq!(text(other), "`reward_margin_scale` is 2, expected no value, except with the rule `mix-r`");
    }
}
