//! The first pairs of each source of the last mixture.

use std::collections::BTreeMap;

use simplemix_data::{Pair, PairReader, ReadOptions};
use simplemix_eval::html::{Response, escape, exchange};

use super::text::plain;
use crate::error::Result;
use crate::plan::{Job, Plan};

/// Pairs shown of each source.
const EACH: usize = 2;
/// Most pairs that are read to find those of every source.
const MOST_READ: usize = 20_000;

pub(super) fn html(plan: &Plan) -> Result<String> {
    let mixture = plan.stages.iter().rev().find_map(|stage| match &stage.job {
        Job::Mix(settings) => settings.output.as_ref(),
        _ => None,
    });
    let Some(mixture) = mixture else { return Ok(String::new()) };
    let mut sources: BTreeMap<String, Vec<Pair>> = BTreeMap::new();
    let (mut reader, mut read) = (PairReader::open(mixture, &ReadOptions::default())?, 0);
    while let Some(pairs) = reader.next_pairs()? {
        read += pairs.len();
        for pair in pairs {
            let kept = sources.entry(pair.source.clone()).or_default();
            if kept.len() < EACH {
                kept.push(pair);
            }
        }
        if read > MOST_READ {
            break;
        }
    }
    let mut html = String::new();
    for (source, pairs) in &sources {
        html.push_str(&format!("<h3>{}</h3>\n", escape(source)));
        for (place, pair) in pairs.iter().enumerate() {
            let note = |score: Option<f64>| score.map_or(String::new(), |score| format!("score {score:.3}"));
            let (chosen, rejected) = (note(pair.score_chosen), note(pair.score_rejected));
            let texts = [plain(&pair.chosen), plain(&pair.rejected)];
            let responses = [
                Response { name: "chosen", note: &chosen, text: &texts[0] },
                Response { name: "rejected", note: &rejected, text: &texts[1] },
            ];
            html.push_str(&exchange(&plain(&pair.prompt), &responses, place == 0));
        }
    }
    Ok(html)
}
