//! The mixture: what was asked for, mixed and trained on, by source, and what each task is made of.

use simplemix_eval::Curves;
use simplemix_eval::html::{Cells, Table, escape, figure};
use simplemix_eval::plot::{Bar, BarPanel, bars_svg};
use simplemix_mix::Achieved;

use super::{mixtures, percent};
use crate::error::Result;
use crate::summary::Summary;

const SHARE: &str = "share@";

/// The part of the page; `curves` are those of the last training.
pub(super) fn html(summary: &Summary, curves: Option<&Curves>) -> Result<String> {
    let Some(mixture) = mixtures(summary).last() else { return Ok(String::new()) };
    let mut table = Table::new(
        "Mixture",
        &[
            ("Source", Cells::Text),
            ("Asked", Cells::Numbers),
            ("Mixed", Cells::Numbers),
            ("Trained on", Cells::Numbers),
            ("Pairs", Cells::Numbers),
            ("Share of tokens", Cells::Numbers),
        ],
    );
    for source in &mixture.sources {
        table.row([
            escape(&source.name),
            percent(source.asked),
            percent(source.share),
            trained(curves, &source.name).map_or(String::new(), percent),
            source.tally.pairs.to_string(),
            percent(source.token_share),
        ]);
    }
    let rounds = mixtures(summary).count();
    let which =
        if rounds > 1 { format!("<p>The mixture of the last of {rounds} rounds.</p>\n") } else { String::new() };
    let drawn = [shares(mixture, curves)?, tasks(mixture)?].concat();
    Ok(format!("{which}{}<div class=\"figures\">\n{drawn}</div>\n", table.html()))
}

/// Mean share of a source over the updates.
fn trained(curves: Option<&Curves>, source: &str) -> Option<f64> {
    let points = curves?.get(&format!("{SHARE}{source}"))?;
    Some(points.iter().map(|(_, share)| share).sum::<f64>() / points.len().max(1) as f64)
}

fn shares(mixture: &Achieved, curves: Option<&Curves>) -> Result<String> {
    let mut bars = Vec::new();
    for source in &mixture.sources {
        let values = [
            ("asked", Some(source.asked)),
            ("mixed", Some(source.share)),
            ("trained on", trained(curves, &source.name)),
        ];
        for (series, value) in values {
            bars.extend(value.map(|value| Bar {
                group: source.name.clone(),
                series: series.to_owned(),
                value: value * 100.0,
                interval: None,
            }));
        }
    }
    draw("Share of the pairs", "percent", bars)
}

/// Pairs of each task by source; nothing where there is one task alone.
fn tasks(mixture: &Achieved) -> Result<String> {
    let mut bars = Vec::new();
    for source in &mixture.sources {
        for (task, tally) in &source.tasks {
            bars.push(Bar {
                group: if task.is_empty() { "(no task)".to_owned() } else { task.clone() },
                series: source.name.clone(),
                value: tally.pairs as f64,
                interval: None,
            });
        }
    }
    let mut names: Vec<&str> = bars.iter().map(|bar| bar.group.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    if names.len() < 2 { Ok(String::new()) } else { draw("Pairs by task", "pairs", bars) }
}

fn draw(title: &str, x: &str, bars: Vec<Bar>) -> Result<String> {
    if bars.iter().all(|bar| !bar.value.is_finite()) {
        return Ok(String::new());
    }
    let said: Vec<String> = bars.iter().map(|bar| format!("{}, {}: {:.1}", bar.group, bar.series, bar.value)).collect();
    let label = format!("{title}: {}", said.join("; "));
    let panel = BarPanel { title: title.to_owned(), x: x.to_owned(), bars, mark: None };
    Ok(figure(&bars_svg(&panel)?, &label, ""))
}
