//! Readings of likelihoods and lengths: how far each source lies from what the policy says itself.

use std::collections::BTreeMap;

use simplemix_data::{Pair, Policy, Watch};
use simplemix_eval::quantile;
use simplemix_files::secret::storable;
use simplemix_rollout::CandidateGroup;
use simplemix_train::PairSet;

use super::report::{Figure, Reading};
use super::{Likelihood, Measuring};
use crate::error::{Error, Result};
use crate::scoring::log_probabilities;

/// Sides of a pair, with the words for them.
const SIDES: [&str; 2] = ["chosen", "rejected"];

/// Likelihoods of both responses of each pair; `None` for pairs that cannot be scored.
type Sides = Vec<Option<[Likelihood; 2]>>;

/// Likelihoods of the policy's own responses, and of each off-policy source's.
pub(super) fn measure(
    measuring: &Measuring,
    on: &[CandidateGroup],
    off: &[Pair],
    watch: &mut dyn Watch,
) -> Result<Vec<Reading>> {
    let (pairs, singles) = own_pairs(on);
    let own: Vec<Likelihood> = measured(measuring, "on-policy", &pairs, watch)?
        .into_iter()
        .zip(singles)
        .flat_map(|(sides, is_single)| sides.into_iter().flatten().take(if is_single { 1 } else { 2 }))
        .collect();
    let sides = measured(measuring, "off-policy", off, watch)?;
    let mut figures = vec![
        Figure::mean("own responses, nats a token", &per_token(&own)),
        Figure::new("own responses, perplexity", perplexity(&own)),
    ];
    let mut sources: BTreeMap<&str, [Vec<Likelihood>; 2]> = BTreeMap::new();
    for (pair, sides) in off.iter().zip(&sides) {
        let Some([chosen, rejected]) = sides else { continue };
        let of_source = sources.entry(&pair.source).or_default();
        of_source[0].push(*chosen);
        of_source[1].push(*rejected);
    }
    for (source, sides) in &sources {
        for (side, found) in SIDES.iter().zip(sides) {
            figures.push(Figure::mean(format!("{source}, {side}, nats a token"), &per_token(found)));
            figures.push(Figure::new(format!("{source}, {side}, perplexity"), perplexity(found)));
        }
        let prefers =
            sides[0].iter().zip(&sides[1]).map(|(chosen, rejected)| f64::from(u8::from(chosen.nats > rejected.nats)));
        let prefers: Vec<f64> = prefers.collect();
        figures.push(Figure::mean(format!("{source}, share of pairs whose chosen response is the likelier"), &prefers));
    }
    let unscored = sides.iter().filter(|sides| sides.is_none()).count();
    if unscored > 0 {
        figures.push(Figure::new("off-policy pairs that training would leave out", unscored as f64));
    }
    Ok(vec![Reading {
        name: "Distance of each source from the policy".to_owned(),
        figures,
        says: "Likelihoods are the policy's at temperature 1, of its own responses at the temperature that they were sampled with. Offline \
               losses need pairs that cover what the policy may come to say, on-policy ones only what is near it; responses that the \
               policy finds unlikely lie outside. No source names a distance that is too far."
            .to_owned(),
        source: "Song et al. 2024, arXiv:2406.01462; Tajwar et al. 2024, arXiv:2404.14367".to_owned(),
    }])
}

/// The policy's own responses two by two, and whether the second only repeats the first.
fn own_pairs(on: &[CandidateGroup]) -> (Vec<Pair>, Vec<bool>) {
    let mut pairs = Vec::new();
    for group in on {
        let texts: Vec<&str> = group.rows.iter().filter_map(|row| row.response.as_deref()).collect();
        for two in texts.chunks(2) {
            let prompt = &group.prompt;
            let [a, b] = [two[0], *two.last().unwrap_or(&two[0])].map(|text| prompt.prompt.response(text));
            let pair = Pair::new(prompt.prompt.clone(), a, b, "on", Policy::On).with_inputs(prompt.inputs.clone());
            pairs.push((pair, two.len() == 1));
        }
    }
    pairs.into_iter().unzip()
}

/// Likelihoods of pairs, kept in a file from which a later call takes them.
fn measured(measuring: &Measuring, name: &str, pairs: &[Pair], watch: &mut dyn Watch) -> Result<Sides> {
    let set = PairSet::tokenize(pairs, &measuring.tokenizer).map_err(Error::Prepare)?;
    let key = blake3::hash(format!("{} {}", measuring.key, set.hash()).as_bytes()).to_hex();
    let file = measuring.kept.join(format!("likelihood-{name}-{}.json", &key[..16]));
    if let Some(kept) = simplemix_files::read_to_string(&file).ok().and_then(|text| serde_json::from_str(&text).ok()) {
        return Ok(kept);
    }
    let mut sides: Sides = vec![None; pairs.len()];
    if !set.is_empty() {
        let logps = log_probabilities(&measuring.model, &set, measuring.scoring, name, watch)?;
        for (entry, logps) in set.table.pairs.iter().zip(&logps) {
            let of = |nats, tokens| Likelihood { nats, tokens };
            sides[entry.row] =
                Some([of(logps.chosen, entry.responses.chosen), of(logps.rejected, entry.responses.rejected)]);
        }
    }
    let text = serde_json::to_string(&sides).map_err(|error| Error::serialise("likelihoods")(&error))?;
    simplemix_files::write(&file, storable(&text))?;
    Ok(sides)
}

fn per_token(found: &[Likelihood]) -> Vec<f64> {
    found.iter().map(|found| found.nats / found.tokens.max(1) as f64).collect()
}

/// The perplexity over all tokens.
fn perplexity(found: &[Likelihood]) -> f64 {
    let (nats, tokens) =
        found.iter().fold((0.0, 0), |(nats, tokens), found| (nats + found.nats, tokens + found.tokens));
    (-nats / tokens as f64).exp()
}

/// Lengths of both kinds of pairs, and the differences between their sides.
pub(super) fn lengths(measuring: &Measuring, made: &[Pair], off: &[Pair]) -> Result<Reading> {
    let mut figures = Vec::new();
    for (name, pairs) in [("on-policy", made), ("off-policy", off)] {
        let set = PairSet::tokenize(pairs, &measuring.tokenizer).map_err(Error::Prepare)?;
        let sides: Vec<[f64; 2]> = set
            .table
            .pairs
            .iter()
            .map(|entry| [entry.responses.chosen as f64, entry.responses.rejected as f64])
            .collect();
        for (at, side) in SIDES.iter().enumerate() {
            let tokens: Vec<f64> = sides.iter().map(|sides| sides[at]).collect();
            figures.push(Figure::mean(format!("{name}, {side}, tokens"), &tokens));
        }
        let mut differences: Vec<f64> = sides.iter().map(|[chosen, rejected]| chosen - rejected).collect();
        differences.sort_by(f64::total_cmp);
        let longer: Vec<f64> = differences.iter().map(|gap| f64::from(u8::from(*gap > 0.0))).collect();
        figures.push(Figure::mean(format!("{name}, share of pairs whose chosen response is the longer"), &longer));
        let percentile = quantile(&differences, 0.8);
        figures.push(Figure::new(format!("{name}, 80th percentile of chosen minus rejected, tokens"), percentile));
        if set.cut > 0 {
            figures.push(Figure::new(format!("{name}, pairs with a response that was cut"), set.cut as f64));
        }
    }
    Ok(Reading {
        name: "Lengths".to_owned(),
        figures,
        says: "Where chosen responses are the longer ones, the model learns length. Olmo 3's pairs had an 80th percentile of 538 to 564 \
               tokens; it leaves out pairs of chat and of several turns that differ by more than 100 (`mix \
               --max-length-difference`). For other tasks no source names a limit."
            .to_owned(),
        source: "Park et al. 2024, arXiv:2403.19159; OLMo team 2025, arXiv:2512.13961".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn perplexity_is_over_tokens_and_means_are_over_responses() {
        let found = [Likelihood { nats: -2.0, tokens: 1 }, Likelihood { nats: -4.0, tokens: 4 }];
        assert_eq!(per_token(&found), [-2.0, -1.0]);
        // exp(6 / 5)
        assert!((perplexity(&found) - 3.320_116_922_736_547).abs() < 1e-12);
    }
}
