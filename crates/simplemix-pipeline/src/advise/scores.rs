//! Readings of scores: how often the policy is right, gaps between chosen and rejected responses, and the stage of alignment.

use std::collections::BTreeMap;

use simplemix_data::Pair;
use simplemix_eval::{Share, mean};
use simplemix_rollout::{CandidateGroup, SCORE};

use super::report::{Figure, Reading};

/// Scores of a prompt's responses; those without one are left out.
fn scores(group: &CandidateGroup) -> Vec<f64> {
    group.rows.iter().filter_map(|row| row.scores.get(SCORE).copied().flatten()).collect()
}

/// How often the policy is right, or how its scores spread.
pub(super) fn rightness(on: &[CandidateGroup]) -> Reading {
    let all: Vec<Vec<f64>> = on.iter().map(scores).filter(|scores| !scores.is_empty()).collect();
    let is_binary = all.iter().flatten().all(|score| *score == 0.0 || *score == 1.0);
    let share = |of: &dyn Fn(&Vec<f64>) -> bool| Share::of(all.iter().map(of)).value();
    let differs = |scores: &Vec<f64>| scores.iter().any(|score| *score != scores[0]);
    let means: Vec<f64> = all.iter().map(|scores| mean(scores)).collect();
    let mut figures = match is_binary {
        true => vec![
            Figure::mean("share of responses that are right", &means),
            Figure::new("share of prompts with right and wrong responses", share(&differs)),
            Figure::new(
                "share of prompts with right responses only",
                share(&|scores| scores.iter().all(|s| *s == 1.0)),
            ),
            Figure::new(
                "share of prompts with wrong responses only",
                share(&|scores| scores.iter().all(|s| *s == 0.0)),
            ),
        ],
        false => vec![
            Figure::mean("mean score of a response", &means),
            Figure::new("share of prompts whose responses differ in score", share(&differs)),
        ],
    };
    if is_binary {
        let most = all.iter().map(Vec::len).max().unwrap_or_default();
        let powers = std::iter::successors(Some(1), |k| Some(k * 2)).take_while(|k| *k < most).chain([most]);
        figures.extend(powers.filter(|k| *k > 0).map(|k| {
            let right = |scores: &&Vec<f64>| scores.len() >= k;
            let each: Vec<f64> = all.iter().filter(right).map(|scores| pass_at(k, scores)).collect();
            Figure::mean(format!("pass@{k}"), &each)
        }));
    }
    Reading {
        name: "How often the policy is right".to_owned(),
        figures,
        says: "A prompt gives an on-policy pair only if its responses differ in score. SIMPLEMIX finds on-policy pairs better where \
               answers can be checked, and off-policy pairs better on open-ended tasks; it names no share of right responses from \
               which on that holds."
            .to_owned(),
        source: "Li and Khashabi 2025, arXiv:2505.02363; pass@k: the estimate of Chen et al. 2021, arXiv:2107.03374, eq. 1"
            .to_owned(),
    }
}

/// Probability that one of `k` responses is right, without bias from these: `1 - C(n - c, k) / C(n, k)`.
fn pass_at(k: usize, scores: &[f64]) -> f64 {
    let (n, right) = (scores.len(), scores.iter().filter(|score| **score == 1.0).count());
    if n - right < k {
        return 1.0;
    }
    1.0 - (n - right + 1..=n).map(|i| 1.0 - k as f64 / i as f64).product::<f64>()
}

/// Gaps between the scores of chosen and rejected responses, of both kinds of pairs.
pub(super) fn gaps(made: &[Pair], off: &[CandidateGroup], file: &[Pair]) -> Reading {
    let gap = |pair: &Pair| Some(pair.score_chosen? - pair.score_rejected?);
    let on: Vec<f64> = made.iter().filter_map(gap).collect();
    let off: Vec<f64> = off.iter().filter_map(|group| Some(by_sample(group, 0)? - by_sample(group, 1)?)).collect();
    let own: Vec<f64> = file.iter().filter_map(gap).collect();
    let mut figures = vec![
        Figure::new("on-policy pairs", on.len() as f64),
        Figure::mean("gap of on-policy pairs, by your scorer", &on),
        Figure::new("off-policy pairs with a scored prompt", off.len() as f64),
        Figure::mean("gap of off-policy pairs, by your scorer", &off),
    ];
    if !off.is_empty() {
        let share = |of: &dyn Fn(f64) -> bool| Share::of(off.iter().map(|gap| of(*gap))).value();
        figures.push(Figure::new("share of them whose chosen response your scorer prefers", share(&|gap| gap > 0.0)));
        figures.push(Figure::new("share of them that your scorer rates alike", share(&|gap| gap == 0.0)));
    }
    if !own.is_empty() {
        figures.push(Figure::mean("gap of off-policy pairs, by the file's own scores", &own));
    }
    Reading {
        name: "Gaps between chosen and rejected responses".to_owned(),
        figures,
        says: "Pairs of the best and the worst of several responses have the largest gaps; DPO-Mix-R draws pairs by their gap, RS-DPO \
               keeps those above a threshold that is tuned. Delta learning trains on pairs whose chosen response is weaker than the \
               policy's own: the difference teaches, not the level. No source names a gap that is enough."
            .to_owned(),
        source: "Shi, Zhou and Du 2025, arXiv:2409.19605; Khaki et al. 2024, arXiv:2402.10038; Geng et al. 2025, \
                 arXiv:2507.06187"
            .to_owned(),
    }
}

/// Score of the sample with this number.
fn by_sample(group: &CandidateGroup, sample: i64) -> Option<f64> {
    let row = group.rows.iter().find(|row| row.sample == sample)?;
    row.scores.get(SCORE).copied().flatten()
}

/// Comparisons of a prompt's on-policy responses with its off-policy ones.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Votes {
    on: u64,
    off: u64,
    ties: u64,
}

impl Votes {
    fn of(on: &[f64], off: &[f64]) -> Self {
        let mut votes = Self::default();
        for (a, b) in on.iter().flat_map(|a| off.iter().map(move |b| (a, b))) {
            match a.total_cmp(b) {
                std::cmp::Ordering::Greater => votes.on += 1,
                std::cmp::Ordering::Less => votes.off += 1,
                std::cmp::Ordering::Equal => votes.ties += 1,
            }
        }
        votes
    }
}

/// The stage of Sun et al.: the share of comparisons that on-policy responses win against off-policy ones to the same prompt. None
/// without off-policy responses to these prompts.
pub(super) fn stage_measure(on: &[CandidateGroup], off: &[CandidateGroup]) -> Option<Reading> {
    let by_id: BTreeMap<&str, &CandidateGroup> = off.iter().map(|group| (group.prompt.id.as_str(), group)).collect();
    let votes: Vec<Votes> = on
        .iter()
        .filter_map(|group| Some(Votes::of(&scores(group), &scores(by_id.get(group.prompt.id.as_str())?))))
        .collect();
    if votes.is_empty() {
        return None;
    }
    let (share, half) = won(&votes);
    let ties: u64 = votes.iter().map(|votes| votes.ties).sum();
    Some(Reading {
        name: "Stage of alignment".to_owned(),
        figures: vec![
            Figure { half_width_95: half, ..Figure::new("share of comparisons won by on-policy responses", share) },
            Figure::new("prompts", votes.len() as f64),
            Figure::new("comparisons", votes.iter().map(|votes| votes.on + votes.off).sum::<u64>() as f64),
            Figure::new("ties, left out", ties as f64),
        ],
        says: "Below 0.5 the model is in the stage of preference injection, in which diverse off-policy pairs taught more; from 0.5 on \
               in that of preference fine-tuning, in which on-policy pairs did. Measured there with PairRM on 2,000 prompts of \
               UltraFeedback: Zephyr 0.40, after one round 0.66, then 0.69; Llama-3 above and Phi-2 below 0.5 throughout. The value \
               depends on the scorer. Here every on-policy response is compared with the chosen and with the rejected one."
            .to_owned(),
        source: "Sun et al. 2026, arXiv:2508.10530v2, boundary measurement (Algorithm 1, table 3), read in notes on the paper, not in the paper"
            .to_owned(),
    })
}

/// Share of comparisons that on-policy responses win, with half its 95 % width over prompts (the ratio estimate of Cochran 1977).
fn won(votes: &[Votes]) -> (f64, Option<f64>) {
    let (won, all): (Vec<f64>, Vec<f64>) = votes.iter().map(|v| (v.on as f64, (v.on + v.off) as f64)).unzip();
    let (n, total) = (votes.len() as f64, all.iter().sum::<f64>());
    let share = won.iter().sum::<f64>() / total;
    let squares: f64 = won.iter().zip(&all).map(|(a, b)| (a - share * b).powi(2)).sum();
    let half = 1.96 * (n / (n - 1.0) * squares).sqrt() / total;
    (share, half.is_finite().then_some(half))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pass_at_k_is_the_share_of_draws_with_a_right_one() {
        // One of 4 responses is right: 1/4, 3/6, 4/4 of the draws of 1, 2 and 4 hold it; of two right ones 5/6 of the draws of 2.
        let one = [0.0, 1.0, 0.0, 0.0];
        let found = [1, 2, 4].map(|k| pass_at(k, &one));
        for (found, expected) in found.iter().zip([0.25, 0.5, 1.0]) {
            assert!((found - expected).abs() < 1e-12, "{found}");
        }
        assert!((pass_at(2, &[1.0, 0.0, 1.0, 0.0]) - 5.0 / 6.0).abs() < 1e-12);
        assert_eq!((pass_at(2, &[0.0; 4]), pass_at(1, &[1.0; 3])), (0.0, 1.0));
    }

    #[test]
    fn comparisons_are_counted_by_prompt() {
        let votes = Votes::of(&[1.0, 0.0, 0.5], &[0.5, 0.0]);
        assert_eq!(votes, Votes { on: 3, off: 1, ties: 2 });
        let (share, half) = won(&[Votes { on: 3, off: 1, ties: 0 }, Votes { on: 1, off: 3, ties: 0 }]);
        // Two prompts of 4 comparisons, 1 away from the mean each: 1.96 * sqrt(2 * 2) / 8.
        assert!((share - 0.5).abs() < 1e-12 && (half.unwrap() - 0.49).abs() < 1e-12);
        assert_eq!(won(&[Votes { on: 1, off: 0, ties: 0 }]), (1.0, None));
    }
}
