//! Plot of a mixture's shares.

use simplemix_eval::plot::{Panel, Series, svg};
use simplemix_mix::{Mixture, SourceConfig};

use crate::error::Result;

/// The sources' shares up to each pair, as SVG.
pub(crate) fn shares(mixture: &Mixture) -> Result<String> {
    Ok(svg(&panels(mixture))?)
}

/// The sources' shares up to each pair.
fn panels(mixture: &Mixture) -> [Panel; 2] {
    const POINTS: u64 = 400;
    let total = mixture.len();
    let at: Vec<u64> = (1..=POINTS.min(total)).map(|i| i * total / POINTS.min(total)).collect();
    let curves = |value: &dyn Fn(usize, u64) -> f64| -> Vec<Series> {
        let sources = mixture.config().sources.iter().enumerate();
        let series = |(i, source): (usize, &SourceConfig)| Series {
            name: source.name.clone(),
            points: at.iter().map(|&pairs| (pairs as f64, value(i, pairs))).collect(),
        };
        sources.map(series).collect()
    };
    let panel = |title: &str, series| Panel {
        title: title.to_owned(),
        x: "pairs".to_owned(),
        series,
        smooth: false,
        baseline: None,
    };
    let shares = curves(&|i, pairs| mixture.count(i, pairs) as f64 / pairs as f64);
    let ahead = curves(&|i, pairs| mixture.count(i, pairs) as f64 - mixture.due(i, pairs));
    [panel("Share of the pairs so far", shares), panel("Pairs ahead of the share", ahead)]
}
