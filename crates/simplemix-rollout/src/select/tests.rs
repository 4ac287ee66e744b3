//! Rules, bounds and reasons.

use super::*;
use crate::preset::Preset;

fn scored<'a>(texts: &[&'a str], scores: &[f64]) -> Vec<Scored<'a>> {
    let one =
        |(text, score): (&&'a str, &f64)| Scored { text, score: Some(*score), is_reference: false, generator: None };
    texts.iter().zip(scores).map(one).collect()
}

fn with(select: Select) -> SelectSettings {
    SelectSettings { select, ..SelectSettings::default() }
}

/// Indices of the chosen and of the rejected response of each pair.
fn pairs(responses: &[Scored<'_>], settings: &SelectSettings) -> Result<Vec<(usize, usize)>, NoPair> {
    let pairs = choose("p", responses, settings)?;
    Ok(pairs.into_iter().map(|pair| (pair.chosen, pair.rejected)).collect())
}

#[test]
fn best_meets_worst() {
    let responses = scored(&["3", "four: 4", "4", "five"], &[0.5, 1.0, 1.0, 0.0]);
    assert_eq!(pairs(&responses, &SelectSettings::default()), Ok(vec![(2, 3)]));
}

#[test]
fn prompts_that_teach_nothing_are_told_apart() {
    let reason = |texts: &[&str], scores: &[f64], settings: &SelectSettings| {
        pairs(&scored(texts, scores), settings).unwrap_err()
    };
    let plain = SelectSettings::default();
    assert_eq!(reason(&["a", "b"], &[1.0, 1.0], &plain), NoPair::AllAlike);
    assert_eq!(reason(&["a", "a "], &[1.0, 0.0], &plain), NoPair::SameText);
    assert_eq!(reason(&["a", "b"], &[1.0, f64::NAN], &plain), NoPair::NotANumber);
    assert_eq!(reason(&["a"], &[1.0], &plain), NoPair::TooFew);
    assert_eq!(reason(&[], &[], &plain), NoPair::TooFew);
    let bounds = SelectSettings { min_gap: 0.5, max_gap: Some(0.8), ..plain.clone() };
    assert_eq!(reason(&["a", "b"], &[0.4, 0.0], &bounds), NoPair::GapTooSmall);
    assert_eq!(reason(&["a", "b"], &[1.0, 0.0], &bounds), NoPair::GapTooLarge);
    let threshold = SelectSettings { threshold: Some(0.5), ..with(Select::Threshold) };
    assert_eq!(reason(&["a", "b"], &[0.4, 0.0], &threshold), NoPair::OneSideOfThreshold);
    assert_eq!(reason(&["a", "b"], &[0.4, 0.0], &with(Select::Dno)), NoPair::NoReference);
    assert_eq!(pairs(&scored(&["a", "b"], &[0.5, 0.0]), &bounds), Ok(vec![(0, 1)]), "bounds are inclusive");
}

#[test]
fn the_largest_gap_within_bounds_is_not_always_best_against_worst() {
    let settings = SelectSettings { max_gap: Some(2.5), ..with(Select::MaxMinGap) };
    assert_eq!(pairs(&scored(&["a", "b", "c"], &[5.0, 3.0, 1.0]), &settings), Ok(vec![(0, 1)]));
    let same = scored(&["a", "a", "c"], &[5.0, 1.0, 2.0]);
    assert_eq!(pairs(&same, &with(Select::MaxMinGap)), Ok(vec![(0, 2)]), "texts differ");
}

#[test]
fn every_gap_within_bounds_is_a_pair() {
    let responses = scored(&["a", "b", "c"], &[3.0, 1.0, 2.0]);
    assert_eq!(pairs(&responses, &with(Select::AllGaps)), Ok(vec![(0, 1), (0, 2), (2, 1)]));
    let some = SelectSettings { min_gap: 1.5, ..with(Select::AllGaps) };
    assert_eq!(pairs(&responses, &some), Ok(vec![(0, 1)]));
    let two = SelectSettings { max_pairs: Some(2), ..with(Select::AllGaps) };
    assert_eq!(pairs(&responses, &two), Ok(vec![(0, 1), (0, 2)]));
}

#[test]
fn a_threshold_pairs_good_with_bad_in_turn() {
    let responses = scored(&["a", "b", "c", "d", "e"], &[1.0, 0.0, 0.9, 0.2, 0.8]);
    let settings = SelectSettings { threshold: Some(0.5), ..with(Select::Threshold) };
    assert_eq!(pairs(&responses, &settings), Ok(vec![(0, 1), (2, 3)]));
    let one = SelectSettings { max_pairs: Some(1), ..settings };
    assert_eq!(pairs(&responses, &one), Ok(vec![(0, 1)]));
}

#[test]
fn a_teacher_is_never_rejected() {
    let mut responses = scored(&["own", "other", "teacher"], &[6.0, 2.0, 4.0]);
    responses[2].is_reference = true;
    let dno = Preset::Dno.select();
    assert_eq!(pairs(&responses, &dno), Ok(vec![(0, 1), (2, 1)]));
    // With the rule all-gaps it is.
    let all = SelectSettings { select: Select::AllGaps, ..dno };
    assert_eq!(pairs(&responses, &all), Ok(vec![(0, 1), (0, 2), (2, 1)]));
}

#[test]
fn settings_out_of_range_are_named() {
    let message = |settings: SelectSettings| settings.check().unwrap_err().to_string();
    let plain = SelectSettings::default();
    assert!(message(SelectSettings { min_gap: f64::NAN, ..plain.clone() }).contains("`min_gap` is NaN"));
    assert!(message(SelectSettings { min_gap: 2.0, max_gap: Some(1.0), ..plain.clone() }).contains("`max_gap` is 1"));
    assert!(message(with(Select::Threshold)).contains("`threshold` is not set"));
    assert!(message(SelectSettings { threshold: Some(1.0), ..plain.clone() }).contains("except with the rule"));
}
