//! Delta learning: pairs by who wrote a response. Geng et al. 2025 (arXiv:2507.06187), and Olmo 3 (arXiv:2512.13961).

use super::{Choice, NoPair, Scored, Select, SelectSettings};
use crate::error::{Error, Result};

/// Checks that the settings of this rule belong to it.
pub(super) fn check(settings: &SelectSettings) -> Result<()> {
    let refuse = |key, found: String, expected| Err(Error::Setting { key, found, expected });
    let sides =
        [("chosen_generators", &settings.chosen_generators), ("rejected_generators", &settings.rejected_generators)];
    if settings.select != Select::Delta {
        return match sides.iter().find(|(_, names)| !names.is_empty()) {
            Some((key, names)) => refuse(key, names.join(", "), "no value, except with the rule `delta`"),
            None => Ok(()),
        };
    }
    if let Some((key, _)) = sides.iter().find(|(_, names)| names.is_empty()) {
        return refuse(key, "not set".to_owned(), "at least one model, for the rule `delta`");
    }
    if let Some(name) = settings.chosen_generators.iter().find(|name| settings.rejected_generators.contains(name)) {
        return refuse("rejected_generators", name.clone(), "no model that `chosen_generators` has");
    }
    let other = "no value with the rule `delta`, which needs no scores";
    match (settings.min_gap > 0.0, settings.max_gap, settings.reference) {
        (true, ..) => refuse("min_gap", settings.min_gap.to_string(), other),
        (_, Some(max), _) => refuse("max_gap", max.to_string(), other),
        (.., true) => refuse("reference", "true".to_owned(), "false with the rule `delta`"),
        _ => Ok(()),
    }
}

/// The responses of the two sides in turn: models in the order of the settings, responses of a model in their own order.
pub(super) fn pairs(responses: &[Scored<'_>], settings: &SelectSettings) -> Result<Vec<Choice>, NoPair> {
    let by = |names: &[String]| -> Vec<usize> {
        let of = |name: &String| {
            let name = name.clone();
            (0..responses.len()).filter(move |&at| responses[at].generator == Some(name.as_str()))
        };
        names.iter().flat_map(of).collect()
    };
    let (strong, weak) = (by(&settings.chosen_generators), by(&settings.rejected_generators));
    if strong.is_empty() || weak.is_empty() {
        return Err(NoPair::NotBothGenerators);
    }
    let in_turn = strong.into_iter().zip(weak).map(|(chosen, rejected)| Choice { chosen, rejected });
    let differs = |choice: &Choice| responses[choice.chosen].text.trim() != responses[choice.rejected].text.trim();
    let pairs: Vec<Choice> = in_turn.filter(differs).take(settings.most_pairs()).collect();
    if pairs.is_empty() { Err(NoPair::SameText) } else { Ok(pairs) }
}

#[cfg(test)]
mod tests {
    use super::super::choose;
    use super::*;

    fn settings() -> SelectSettings {
        SelectSettings {
            select: Select::Delta,
            chosen_generators: vec!["32B".to_owned(), "14B".to_owned()],
            rejected_generators: vec!["0.6B".to_owned()],
            ..SelectSettings::default()
        }
    }

    fn by<'a>(responses: &[(&'a str, &'a str)]) -> Vec<Scored<'a>> {
        let one = |(text, name): &(&'a str, &'a str)| Scored {
            text,
            score: None,
            is_reference: false,
            generator: Some(name),
        };
        responses.iter().map(one).collect()
    }

    #[test]
    fn stronger_models_meet_weaker_ones_in_turn() {
        let responses =
            by(&[("a", "0.6B"), ("b", "14B"), ("c", "32B"), ("d", "0.6B"), ("e", "7B"), ("f", "0.6B"), ("g", "32B")]);
        let pairs = |settings: &SelectSettings| {
            choose("p", &responses, settings).map(|pairs| {
                pairs.into_iter().map(|pair| (responses[pair.chosen].text, responses[pair.rejected].text)).collect()
            })
        };
        assert_eq!(pairs(&settings()), Ok(vec![("c", "a"), ("g", "d"), ("b", "f")]));
        let one = SelectSettings { max_pairs: Some(1), ..settings() };
        assert_eq!(pairs(&one), Ok(vec![("c", "a")]));
        assert_eq!(choose("p", &by(&[("a", "32B"), ("b", "7B")]), &settings()), Err(NoPair::NotBothGenerators));
        assert_eq!(choose("p", &by(&[("a", "32B"), ("a ", "0.6B")]), &settings()), Err(NoPair::SameText));
    }

    #[test]
    fn settings_of_other_rules_are_refused() {
        settings().check().unwrap();
        let text = |settings: SelectSettings| settings.check().unwrap_err().to_string();
        let other = SelectSettings { select: Select::BestWorst, ..settings() };
        assert_eq!(text(other), "`chosen_generators` is 32B, 14B, expected no value, except with the rule `delta`");
        let none = SelectSettings { rejected_generators: Vec::new(), ..settings() };
        assert_eq!(text(none), "`rejected_generators` is not set, expected at least one model, for the rule `delta`");
        let both = SelectSettings { rejected_generators: vec!["14B".to_owned()], ..settings() };
        assert_eq!(text(both), "`rejected_generators` is 14B, expected no model that `chosen_generators` has");
        for refused in [
            SelectSettings { min_gap: 1.0, ..settings() },
            SelectSettings { max_gap: Some(1.0), ..settings() },
            SelectSettings { reference: true, ..settings() },
            SelectSettings { threshold: Some(1.0), ..settings() },
        ] {
            assert!(text(refused).contains("rule `"), "refused by name");
        }
    }
}
