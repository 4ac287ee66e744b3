//! Selection of pairs among the scored responses to a prompt.

mod delta;
mod mix_r;
mod ranking;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use simplemix_data::{Pair, Policy};

pub(crate) use self::mix_r::log_pair_weight;
use self::ranking::Ranking;
use crate::error::{Error, Result};
use crate::generator::{Candidate, Prompt};

/// Rule by which pairs are chosen from the responses to a prompt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Select {
    /// One pair: the best and the worst response. SIMPLEMIX and the SimPO recipe.
    #[default]
    BestWorst,
    /// One pair: the one with the largest gap within the bounds. It also exists where the best and the worst response are
    /// too far apart.
    MaxMinGap,
    /// Every pair whose gap is within the bounds, largest gaps first. RS-DPO (arXiv:2402.10038).
    AllGaps,
    /// The best responses that reach the threshold against the worst that do not, in turn.
    Threshold,
    /// As [`Select::AllGaps`], with the reference on the chosen side only. DNO (arXiv:2404.03715) learns from a teacher's
    /// response that beats the policy's, and from responses of the policy that beat each other.
    Dno,
    /// One pair, drawn with a probability that grows with its gap. DPO-Mix-R (arXiv:2409.19605).
    ///
    /// In the paper one response is sampled in proportion to `e^r`, the other to `e^-r`, mixed with uniform pairs, over all
    /// possible responses; together a pair has the weight `2 + e^D + e^-D` with `D = scale * (r - r')`. Nobody can sum over
    /// all texts, and the paper runs no language model this way. Here the candidates, plain samples of the policy, stand
    /// for all responses: one pair of them is drawn with that weight. So the samplers are the policy tilted by the reward,
    /// `pi(y) e^r` and `pi(y) e^-r`, approximated better with more candidates. Train on the pairs with the loss
    /// `soft_label` and the same scale.
    MixR,
    /// By who wrote a response, without scores: those of the stronger models against those of the weaker ones, in turn. Delta
    /// learning (arXiv:2507.06187).
    Delta,
}

/// Rule of selection, and its bounds.
///
/// # Examples
/// ```
/// use simplemix_rollout::{Select, SelectSettings};
/// let settings = SelectSettings { select: Select::AllGaps, min_gap: 0.5, ..SelectSettings::default() };
/// assert!(settings.check().is_ok());
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SelectSettings {
    /// The rule.
    pub select: Select,
    /// Whether the reference response takes part as one more response. Always with the rule `dno`.
    pub reference: bool,
    /// Smallest gap between the scores of a pair, >= 0. With 0 any gap above 0 is large enough.
    pub min_gap: f64,
    /// Largest gap between the scores of a pair; by default there is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_gap: Option<f64>,
    /// Score from which a response is good. Needed by the rule `threshold`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    /// Largest number of pairs of a prompt, for rules that give several; by default there is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_pairs: Option<u64>,
    /// Whether only responses take part that ended by themselves: not those that were cut at the limit of new tokens or by a
    /// filter, nor those whose end is unknown. They would be trained on with an end that their model did not write, unless
    /// training cuts them shorter still.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub finished: bool,
    /// Factor that turns a gap into log-odds, > 0. Needed by the rule `mix-r`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reward_margin_scale: Option<f64>,
    /// Share of prompts, from 0 to 1, whose pair the rule `mix-r` draws uniformly; the others' weights are `e^D + e^-D`. By
    /// default it is the theory's: uniform pairs have the weight 2 beside these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uniform_share: Option<f64>,
    /// Random seed of the rule `mix-r`.
    #[serde(skip_serializing_if = "is_zero")]
    pub seed: u64,
    /// Models, as in the column `generator`, whose responses the rule `delta` puts on the chosen side.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub chosen_generators: Vec<String>,
    /// Models, as in the column `generator`, whose responses the rule `delta` puts on the rejected side.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rejected_generators: Vec<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(seed: &u64) -> bool {
    *seed == 0
}

impl SelectSettings {
    /// Checks that every setting is in range and belongs to the rule.
    ///
    /// # Errors
    /// [`Error::Setting`] with the first setting that does not.
    pub fn check(&self) -> Result<()> {
        let refuse = |key, found: String, expected| Err(Error::Setting { key, found, expected });
        if !(self.min_gap.is_finite() && self.min_gap >= 0.0) {
            return refuse("min_gap", self.min_gap.to_string(), "a number >= 0");
        }
        if let Some(max) = self.max_gap.filter(|max| !(max.is_finite() && *max > 0.0 && *max >= self.min_gap)) {
            return refuse("max_gap", max.to_string(), "a number > 0 and >= `min_gap`");
        }
        if self.max_pairs == Some(0) {
            return refuse("max_pairs", "0".to_owned(), "at least 1");
        }
        self.check_threshold()?;
        self.check_mix_r()?;
        delta::check(self)
    }

    fn check_threshold(&self) -> Result<()> {
        let refuse = |found: String, expected| Err(Error::Setting { key: "threshold", found, expected });
        match (self.select, self.threshold) {
            (Select::Threshold, None) => refuse("not set".to_owned(), "a score, for the rule `threshold`"),
            (Select::Threshold, Some(threshold)) if threshold.is_finite() => Ok(()),
            (Select::Threshold, Some(threshold)) => refuse(threshold.to_string(), "a number"),
            (_, None) => Ok(()),
            (_, Some(threshold)) => refuse(threshold.to_string(), "no value, except with the rule `threshold`"),
        }
    }

    fn check_mix_r(&self) -> Result<()> {
        let refuse = |key, found: String, expected| Err(Error::Setting { key, found, expected });
        let (scale, share) = (self.reward_margin_scale, self.uniform_share);
        if self.select != Select::MixR {
            let other = "no value, except with the rule `mix-r`";
            return match (scale, share) {
                (Some(scale), _) => refuse("reward_margin_scale", scale.to_string(), other),
                (None, Some(share)) => refuse("uniform_share", share.to_string(), other),
                (None, None) => Ok(()),
            };
        }
        match (scale, share) {
            (None, _) => refuse("reward_margin_scale", "not set".to_owned(), "a number > 0, for the rule `mix-r`"),
            (Some(scale), _) if !(scale > 0.0 && scale.is_finite()) => {
                refuse("reward_margin_scale", scale.to_string(), "a number > 0")
            }
            (_, Some(share)) if !(0.0..=1.0).contains(&share) => {
                refuse("uniform_share", share.to_string(), "a number from 0 to 1")
            }
            _ => Ok(()),
        }
    }

    /// Refuses the rule `delta` for responses of one model.
    ///
    /// # Errors
    /// [`Error::Setting`].
    pub fn check_for_one_model(&self) -> Result<()> {
        if self.select != Select::Delta {
            return Ok(());
        }
        let expected =
            "another rule for the responses of one model; `simplemix pair` takes a file with those of several";
        Err(Error::Setting { key: "select", found: "`delta`".to_owned(), expected })
    }

    /// Largest number of pairs of a prompt.
    fn most_pairs(&self) -> usize {
        self.max_pairs.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX))
    }

    /// Policy of the pairs: models that the rule `delta` names are others than the one in training.
    pub(crate) fn policy(&self) -> Policy {
        if self.select == Select::Delta { Policy::Off } else { Policy::On }
    }

    /// Whether the responses of a model take part.
    pub(crate) fn names(&self, generator: Option<&str>) -> bool {
        let mut named = self.chosen_generators.iter().chain(&self.rejected_generators);
        self.select != Select::Delta || named.any(|name| Some(name.as_str()) == generator)
    }

    /// Whether reference responses take part.
    pub fn uses_reference(&self) -> bool {
        self.reference || self.select == Select::Dno
    }
}

/// Reason for which a prompt gave no pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum NoPair {
    /// All responses have the same score.
    AllAlike,
    /// Responses with different scores have the same text.
    SameText,
    /// A score is missing or NaN.
    NotANumber,
    /// There are fewer than two responses.
    TooFew,
    /// Every gap is below the smallest one allowed.
    GapTooSmall,
    /// Every gap that is large enough is above the largest one allowed.
    GapTooLarge,
    /// All responses reach the threshold, or none does.
    OneSideOfThreshold,
    /// The reference should take part, and there is no scored reference.
    NoReference,
    /// The prompt is white space only.
    BlankPrompt,
    /// No model of the chosen side, or none of the rejected side, has responded.
    NotBothGenerators,
}

impl NoPair {
    /// Text in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::AllAlike => "all responses have the same score",
            Self::SameText => "best and worst response have the same text",
            Self::NotANumber => "a score is missing or NaN",
            Self::TooFew => "fewer than two responses",
            Self::GapTooSmall => "no gap is large enough",
            Self::GapTooLarge => "gaps are too large",
            Self::OneSideOfThreshold => "all responses on one side of the threshold",
            Self::NoReference => "no scored reference",
            Self::BlankPrompt => "the prompt is blank",
            Self::NotBothGenerators => "no response by a model of each side",
        }
    }
}

/// A response with its score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Scored<'a> {
    /// Text of the response.
    pub(crate) text: &'a str,
    /// Score, if there is one.
    pub(crate) score: Option<f64>,
    /// Whether this is the reference response.
    pub(crate) is_reference: bool,
    /// Model that wrote it.
    pub(crate) generator: Option<&'a str>,
}

/// A pair, by the indices of its responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Choice {
    /// Index of the chosen response.
    pub(crate) chosen: usize,
    /// Index of the rejected response.
    pub(crate) rejected: usize,
}

/// Chooses pairs among the responses to the prompt `id`. Among responses with equal scores the one with the shorter text
/// comes first, then the earlier one. Only the rule `mix-r` uses the id.
///
/// # Errors
/// The reason for which there is no pair.
pub(crate) fn choose(id: &str, responses: &[Scored<'_>], settings: &SelectSettings) -> Result<Vec<Choice>, NoPair> {
    let ranking = || Ranking::new(responses, settings);
    match settings.select {
        Select::BestWorst => ranking()?.best_worst(),
        Select::Threshold => ranking()?.across_threshold(),
        Select::MaxMinGap => ranking()?.by_gap(1),
        Select::AllGaps | Select::Dno => ranking()?.by_gap(settings.most_pairs()),
        Select::MixR => mix_r::draw(id, &ranking()?).map(|choice| vec![choice]),
        Select::Delta => delta::pairs(responses, settings),
    }
}

/// Pairs of many prompts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Selection {
    /// On-policy pairs with scores.
    pub pairs: Vec<Pair>,
    /// Number of prompts without a pair, by reason.
    pub dropped: BTreeMap<NoPair, usize>,
}

/// Selects pairs in memory. `candidates[i]` and `scores[i]` belong to `prompts[i]`; candidates without text take no part. `source` and
/// `generator` are the values of those columns. All scores of a prompt are the pairs' [reference rewards](Pair::ref_rewards).
///
/// # Errors
/// [`Error::Setting`] if a setting is out of range.
///
/// # Examples
/// ```
/// use simplemix_rollout::{Candidate, Finish, Prompt, SelectSettings, select_pairs};
/// let candidates = ["four", "5", "4"].map(|text| Candidate::new(text, Finish::Stop)).to_vec();
/// let scores = vec![Some(1.0), Some(0.0), Some(1.0)];
/// let prompts = [Prompt::new("sum-1", "What is 2 + 2?")];
/// let settings = SelectSettings::default();
/// let selection = select_pairs(&prompts, &[candidates], &[scores], &settings, "on_policy", "my-model")?;
/// // The shorter of the two best responses is chosen.
/// assert_eq!((&selection.pairs[0].chosen, &selection.pairs[0].rejected), (&"4".into(), &"5".into()));
/// # Ok::<(), simplemix_rollout::Error>(())
/// ```
pub fn select_pairs(
    prompts: &[Prompt],
    candidates: &[Vec<Candidate>],
    scores: &[Vec<Option<f64>>],
    settings: &SelectSettings,
    source: &str,
    generator: &str,
) -> Result<Selection> {
    settings.check()?;
    settings.check_for_one_model()?;
    let mut selection = Selection::default();
    for ((prompt, candidates), scores) in prompts.iter().zip(candidates).zip(scores) {
        let scored: Vec<Scored<'_>> = candidates
            .iter()
            .zip(scores)
            .filter_map(|(candidate, &score)| {
                let text = candidate.text.as_deref().filter(|text| !text.trim().is_empty())?;
                Some(Scored { text, score, is_reference: false, generator: None })
            })
            .collect();
        match choose(&prompt.id, &scored, settings) {
            Ok(pairs) => selection.pairs.extend(pairs.into_iter().map(|choice| {
                let mut pair = pair_of(prompt, &scored, choice, (source, Policy::On));
                pair.ref_rewards = rewards(scores.iter().copied());
                pair.generator = Some(generator.to_owned());
                pair
            })),
            Err(reason) => *selection.dropped.entry(reason).or_default() += 1,
        }
    }
    Ok(selection)
}

/// Scores that are numbers.
pub(crate) fn rewards(scores: impl Iterator<Item = Option<f64>>) -> Vec<f64> {
    scores.flatten().filter(|score| score.is_finite()).collect()
}

/// The pair of a choice, with its scores.
pub(crate) fn pair_of(
    prompt: &Prompt,
    scored: &[Scored<'_>],
    choice: Choice,
    (source, policy): (&str, Policy),
) -> Pair {
    let Choice { chosen, rejected } = choice;
    let response = |i: usize| prompt.prompt.response(scored[i].text);
    let mut pair = Pair::new(prompt.prompt.clone(), response(chosen), response(rejected), source, policy)
        .with_inputs(prompt.inputs.clone());
    pair.task = prompt.task.clone();
    pair.score_chosen = scored[chosen].score;
    pair.score_rejected = scored[rejected].score;
    pair
}

#[cfg(test)]
mod tests;
