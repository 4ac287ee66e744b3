//! Which of the scored responses to a prompt become pairs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use simplemix_data::{Pair, Policy};

use crate::error::{Error, Result};
use crate::generator::{Candidate, Prompt};

/// How pairs are chosen from the responses to a prompt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Select {
    /// One pair: the best and the worst. SIMPLEMIX, the SimPO recipe.
    #[default]
    BestWorst,
    /// One pair: of those whose gap is within the bounds the one with the largest. Unlike best against worst it has a pair
    /// where only the extremes are too far apart.
    MaxMinGap,
    /// Every pair whose gap is within the bounds, largest gaps first. RS-DPO (arXiv:2402.10038).
    AllGaps,
    /// The best that reach the threshold against the worst that do not, in turn.
    Threshold,
    /// As all gaps, with the reference on the better side only: DNO (arXiv:2404.03715) learns from a teacher's response
    /// where it beats the policy's own, and from own ones that beat each other.
    Dno,
}

/// A rule with its bounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SelectSettings {
    /// The rule.
    pub select: Select,
    /// The reference response is one more candidate. Always so with the rule `dno`.
    pub reference: bool,
    /// Least gap between the scores of a pair; any above 0 if 0.
    pub min_gap: f64,
    /// Largest gap; none if there is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_gap: Option<f64>,
    /// Score from which a response is good, for the rule `threshold`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    /// Most pairs of a prompt, for rules that give several; none if there is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_pairs: Option<u64>,
    /// Only responses that ended by themselves. One that was cut at the limit of new tokens is trained on with an end that
    /// its model did not write, unless training cuts it shorter still.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub finished: bool,
}

impl Default for SelectSettings {
    /// Best against worst, of own answers only, whatever the gap.
    fn default() -> Self {
        Self {
            select: Select::BestWorst,
            reference: false,
            min_gap: 0.0,
            max_gap: None,
            threshold: None,
            max_pairs: None,
            finished: false,
        }
    }
}

impl SelectSettings {
    /// A rule of the literature: `simplemix`, `simpo`, `rs-dpo` or `dno`.
    ///
    /// # Errors
    /// [`Error::Setting`] for other names.
    pub fn preset(name: &str) -> Result<Self> {
        let plain = Self::default();
        match name {
            // SimPO drops prompts whose samples are all the same (github.com/princeton-nlp/SimPO, on_policy_data_gen), which
            // best against worst always does here.
            "simplemix" | "simpo" => Ok(plain),
            // The threshold depends on the reward model: `min_gap` is to be given.
            "rs-dpo" => Ok(Self { select: Select::AllGaps, ..plain }),
            // Large margins only: one point of a judge's scale unless `min_gap` says otherwise.
            "dno" => Ok(Self { select: Select::Dno, reference: true, min_gap: 1.0, ..plain }),
            _ => Err(Error::Setting {
                key: "preset",
                found: format!("`{name}`"),
                expected: "simplemix, simpo, rs-dpo or dno",
            }),
        }
    }

    /// # Errors
    /// [`Error::Setting`] naming the first setting out of range.
    pub fn check(&self) -> Result<()> {
        let refuse = |key, found: String, expected| Err(Error::Setting { key, found, expected });
        if !(self.min_gap.is_finite() && self.min_gap >= 0.0) {
            return refuse("min_gap", self.min_gap.to_string(), "a number from 0");
        }
        if let Some(max) = self.max_gap.filter(|max| !(max.is_finite() && *max > 0.0 && *max >= self.min_gap)) {
            return refuse("max_gap", max.to_string(), "a number above 0 and no less than `min_gap`");
        }
        if self.max_pairs == Some(0) {
            return refuse("max_pairs", "0".to_owned(), "at least 1");
        }
        match (self.select, self.threshold) {
            (Select::Threshold, None) => refuse("threshold", "none".to_owned(), "a score, for the rule `threshold`"),
            (Select::Threshold, Some(threshold)) if threshold.is_finite() => Ok(()),
            (_, None) => Ok(()),
            (_, Some(threshold)) => refuse("threshold", threshold.to_string(), "none, but for the rule `threshold`"),
        }
    }

    /// Whether reference responses take part.
    pub fn uses_reference(&self) -> bool {
        self.reference || self.select == Select::Dno
    }
}

/// Why a prompt gave no pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum NoPair {
    /// All answers have the same score, so none is better.
    AllAlike,
    /// Answers with different scores are the same text.
    SameText,
    /// A score is missing or not a number.
    NotANumber,
    /// There are fewer than two candidates.
    TooFew,
    /// No gap is as large as the least one asked for.
    GapTooSmall,
    /// Gaps that are large enough are larger than the largest allowed.
    GapTooLarge,
    /// All responses reach the threshold, or none does.
    OneSideOfThreshold,
    /// There is no scored reference, and it was to take part.
    NoReference,
}

impl NoPair {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::AllAlike => "all answers score alike",
            Self::SameText => "best and worst answer are the same text",
            Self::NotANumber => "a score is not a number",
            Self::TooFew => "fewer than two candidates",
            Self::GapTooSmall => "no gap is large enough",
            Self::GapTooLarge => "gaps are too large",
            Self::OneSideOfThreshold => "all on one side of the threshold",
            Self::NoReference => "no scored reference",
        }
    }
}

/// A response as rules see it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scored<'a> {
    /// The response.
    pub text: &'a str,
    /// Its score.
    pub score: Option<f64>,
    /// Whether it is the reference.
    pub is_reference: bool,
}

/// The policy's own answers with their scores.
pub(crate) fn own_answers<'a>(answers: &'a [Candidate], scores: &[Option<f64>]) -> Vec<Scored<'a>> {
    let scored = answers.iter().zip(scores);
    scored.map(|(answer, &score)| Scored { text: &answer.text, score, is_reference: false }).collect()
}

/// Places of chosen and rejected.
pub type Choice = (usize, usize);

/// Pairs of the responses to one prompt, by place, or why there is none. On equal scores the shorter text comes first,
/// then the earlier.
///
/// # Errors
/// The reason, which is to be counted.
///
/// # Examples
/// ```
/// use simplemix_rollout::{NoPair, Scored, SelectSettings, choose};
/// let scored = |text, score| Scored { text, score: Some(score), is_reference: false };
/// let responses = [scored("four", 1.0), scored("5", 0.0), scored("4", 1.0)];
/// assert_eq!(choose(&responses, &SelectSettings::default()), Ok(vec![(2, 1)]));
/// assert_eq!(choose(&[responses[0], responses[2]], &SelectSettings::default()), Err(NoPair::AllAlike));
/// ```
pub fn choose(candidates: &[Scored<'_>], settings: &SelectSettings) -> Result<Vec<Choice>, NoPair> {
    let mut scores = Vec::with_capacity(candidates.len());
    for candidate in candidates {
        scores.push(candidate.score.filter(|score| score.is_finite()).ok_or(NoPair::NotANumber)?);
    }
    if settings.uses_reference() && !candidates.iter().any(|candidate| candidate.is_reference) {
        return Err(NoPair::NoReference);
    }
    if candidates.len() < 2 {
        return Err(NoPair::TooFew);
    }
    let length = |at: usize| candidates[at].text.len();
    let shorter = |a: usize, b: usize| length(a).cmp(&length(b)).then(a.cmp(&b));
    let mut best: Vec<usize> = (0..candidates.len()).collect();
    best.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(shorter(a, b)));
    let mut worst: Vec<usize> = (0..candidates.len()).collect();
    worst.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]).then(shorter(a, b)));
    if scores[best[0]] <= scores[worst[0]] {
        return Err(NoPair::AllAlike);
    }
    let of_pair = |(a, b): Choice| -> Result<Choice, NoPair> {
        let gap = scores[a] - scores[b];
        if gap < settings.min_gap || gap <= 0.0 {
            Err(NoPair::GapTooSmall)
        } else if candidates[a].text.trim() == candidates[b].text.trim() {
            Err(NoPair::SameText)
        } else if settings.max_gap.is_some_and(|max| gap > max) {
            Err(NoPair::GapTooLarge)
        } else {
            Ok((a, b))
        }
    };
    let most = settings.max_pairs.map_or(usize::MAX, |most| most as usize);
    match settings.select {
        Select::BestWorst => of_pair((best[0], worst[0])).map(|pair| vec![pair]),
        Select::Threshold => {
            let threshold = settings.threshold.unwrap_or(f64::NAN);
            let good = best.iter().filter(|&&at| scores[at] >= threshold);
            let bad = worst.iter().filter(|&&at| scores[at] < threshold);
            let pairs: Vec<_> = good.zip(bad).map(|(&a, &b)| of_pair((a, b))).collect();
            first_or_reason(pairs, most, NoPair::OneSideOfThreshold)
        }
        Select::MaxMinGap | Select::AllGaps | Select::Dno => {
            let mut pairs: Vec<Choice> = best
                .iter()
                .flat_map(|&a| worst.iter().map(move |&b| (a, b)))
                .filter(|&(a, b)| scores[a] > scores[b])
                .filter(|&(_, b)| settings.select != Select::Dno || !candidates[b].is_reference)
                .collect();
            // Stable, so that equal gaps stay in the order of the best.
            pairs.sort_by(|x, y| (scores[y.0] - scores[y.1]).total_cmp(&(scores[x.0] - scores[x.1])));
            let most = if settings.select == Select::MaxMinGap { 1 } else { most };
            first_or_reason(pairs.into_iter().map(of_pair).collect(), most, NoPair::AllAlike)
        }
    }
}

/// The first pairs that are allowed; else the reason against the first that is not.
fn first_or_reason(pairs: Vec<Result<Choice, NoPair>>, most: usize, none: NoPair) -> Result<Vec<Choice>, NoPair> {
    let reason = pairs.iter().find_map(|pair| pair.err()).unwrap_or(none);
    let kept: Vec<Choice> = pairs.into_iter().filter_map(Result::ok).take(most).collect();
    if kept.is_empty() { Err(reason) } else { Ok(kept) }
}

/// Pairs, and what became of the other prompts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Selection {
    /// On-policy pairs with scores.
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
    scores: &[Vec<Option<f64>>],
    source: &str,
    generator: &str,
) -> Selection {
    let mut selection = Selection::default();
    for ((prompt, answers), scores) in prompts.iter().zip(answers).zip(scores) {
        let scored = own_answers(answers, scores);
        match choose(&scored, &SelectSettings::default()) {
            Ok(pairs) => selection.pairs.extend(pairs.into_iter().map(|choice| {
                let mut pair = pair_of(prompt, &scored, choice, source);
                pair.generator = Some(generator.to_owned());
                pair
            })),
            Err(reason) => *selection.dropped.entry(reason).or_default() += 1,
        }
    }
    selection
}

/// A chosen pair of a prompt, with its scores.
pub(crate) fn pair_of(prompt: &Prompt, scored: &[Scored<'_>], (chosen, rejected): Choice, source: &str) -> Pair {
    let response = |at: usize| prompt.prompt.response(scored[at].text);
    let mut pair = Pair::new(prompt.prompt.clone(), response(chosen), response(rejected), source, Policy::On);
    pair.task = prompt.task.clone();
    pair.score_chosen = scored[chosen].score;
    pair.score_rejected = scored[rejected].score;
    pair
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scored<'a>(texts: &[&'a str], scores: &[f64]) -> Vec<Scored<'a>> {
        let one = |(text, score): (&&'a str, &f64)| Scored { text, score: Some(*score), is_reference: false };
        texts.iter().zip(scores).map(one).collect()
    }

    fn with(select: Select) -> SelectSettings {
        SelectSettings { select, ..SelectSettings::default() }
    }

    #[test]
    fn best_meets_worst() {
        let candidates = scored(&["3", "four: 4", "4", "five"], &[0.5, 1.0, 1.0, 0.0]);
        assert_eq!(choose(&candidates, &SelectSettings::default()), Ok(vec![(2, 3)]));
    }

    #[test]
    fn prompts_that_teach_nothing_are_told_apart() {
        let reason = |texts: &[&str], scores: &[f64], settings: SelectSettings| {
            choose(&scored(texts, scores), &settings).unwrap_err()
        };
        let plain = SelectSettings::default();
        assert_eq!(reason(&["a", "b"], &[1.0, 1.0], plain), NoPair::AllAlike);
        assert_eq!(reason(&["a", "a "], &[1.0, 0.0], plain), NoPair::SameText);
        assert_eq!(reason(&["a", "b"], &[1.0, f64::NAN], plain), NoPair::NotANumber);
        assert_eq!(reason(&["a"], &[1.0], plain), NoPair::TooFew);
        assert_eq!(reason(&[], &[], plain), NoPair::TooFew);
        let bounds = SelectSettings { min_gap: 0.5, max_gap: Some(0.8), ..plain };
        assert_eq!(reason(&["a", "b"], &[0.4, 0.0], bounds), NoPair::GapTooSmall);
        assert_eq!(reason(&["a", "b"], &[1.0, 0.0], bounds), NoPair::GapTooLarge);
        let threshold = SelectSettings { threshold: Some(0.5), ..with(Select::Threshold) };
        assert_eq!(reason(&["a", "b"], &[0.4, 0.0], threshold), NoPair::OneSideOfThreshold);
        assert_eq!(reason(&["a", "b"], &[0.4, 0.0], with(Select::Dno)), NoPair::NoReference);
        assert_eq!(choose(&scored(&["a", "b"], &[0.5, 0.0]), &bounds), Ok(vec![(0, 1)]), "bounds are inclusive");
    }

    #[test]
    fn the_largest_gap_within_bounds_is_not_always_best_against_worst() {
        let settings = SelectSettings { max_gap: Some(2.5), ..with(Select::MaxMinGap) };
        assert_eq!(choose(&scored(&["a", "b", "c"], &[5.0, 3.0, 1.0]), &settings), Ok(vec![(0, 1)]));
        let same = scored(&["a", "a", "c"], &[5.0, 1.0, 2.0]);
        assert_eq!(choose(&same, &with(Select::MaxMinGap)), Ok(vec![(0, 2)]), "of distinct texts");
    }

    #[test]
    fn every_gap_within_bounds_is_a_pair() {
        let candidates = scored(&["a", "b", "c"], &[3.0, 1.0, 2.0]);
        assert_eq!(choose(&candidates, &with(Select::AllGaps)), Ok(vec![(0, 1), (0, 2), (2, 1)]));
        let some = SelectSettings { min_gap: 1.5, ..with(Select::AllGaps) };
        assert_eq!(choose(&candidates, &some), Ok(vec![(0, 1)]));
        let two = SelectSettings { max_pairs: Some(2), ..with(Select::AllGaps) };
        assert_eq!(choose(&candidates, &two), Ok(vec![(0, 1), (0, 2)]));
    }

    #[test]
    fn a_threshold_pairs_good_with_bad_in_turn() {
        let candidates = scored(&["a", "b", "c", "d", "e"], &[1.0, 0.0, 0.9, 0.2, 0.8]);
        let settings = SelectSettings { threshold: Some(0.5), ..with(Select::Threshold) };
        assert_eq!(choose(&candidates, &settings), Ok(vec![(0, 1), (2, 3)]));
        let one = SelectSettings { max_pairs: Some(1), ..settings };
        assert_eq!(choose(&candidates, &one), Ok(vec![(0, 1)]));
    }

    #[test]
    fn a_teacher_is_never_rejected() {
        let mut candidates = scored(&["own", "other", "teacher"], &[6.0, 2.0, 4.0]);
        candidates[2].is_reference = true;
        let dno = SelectSettings::preset("dno").unwrap();
        assert_eq!(choose(&candidates, &dno), Ok(vec![(0, 1), (2, 1)]));
        // Unlike with every gap.
        let all = SelectSettings { select: Select::AllGaps, ..dno };
        assert_eq!(choose(&candidates, &all), Ok(vec![(0, 1), (0, 2), (2, 1)]));
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let message = |settings: SelectSettings| settings.check().unwrap_err().to_string();
        let plain = SelectSettings::default();
        assert!(message(SelectSettings { min_gap: f64::NAN, ..plain }).contains("`min_gap` is NaN"));
        assert!(message(SelectSettings { min_gap: 2.0, max_gap: Some(1.0), ..plain }).contains("`max_gap` is 1"));
        assert!(message(with(Select::Threshold)).contains("`threshold` is none"));
        assert!(message(SelectSettings { threshold: Some(1.0), ..plain }).contains("but for the rule"));
        assert!(SelectSettings::preset("best").is_err());
    }
}
