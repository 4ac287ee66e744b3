//! Results of the demo: a table, a figure, and whether margins moved as the method says.

use std::path::Path;

use anyhow::Result;
use simplemix::eval::plot::{Panel, Series, write_svg};
use simplemix::eval::{Share, mcnemar, table};
use simplemix::train::Record;

const SOURCES: [(&str, &str); 2] = [("off", "off-policy"), ("on", "on-policy")];

/// Before and after, aligned.
pub(crate) fn report(records: &[Record], before: &[bool], after: &[bool]) -> String {
    let share = |outcomes: &[bool]| {
        let share = Share::of(outcomes.iter().copied());
        let (low, high) = share.interval(1.96);
        format!("{:.3} [{low:.2}, {high:.2}]", share.value())
    };
    let changed = |from: bool| before.iter().zip(after).filter(|(b, a)| **b == from && **a != from).count() as u64;
    let (gained, lost) = (changed(false), changed(true));
    let mut rows = vec![vec!["reasoning, exact answer".into(), share(before), share(after)]];
    rows.push(vec![
        format!("  {gained} gained, {lost} lost"),
        String::new(),
        format!("p = {:.2} (McNemar)", mcnemar(gained, lost)),
    ]);
    let eval = |name: String| records.iter().rev().find_map(|r| r.get(&name));
    for (source, name) in SOURCES {
        let margin = eval(format!("eval_rewards/margins@{source}"));
        let accuracy = eval(format!("eval_rewards/accuracies@{source}"));
        if let (Some(margin), Some(accuracy)) = (margin, accuracy) {
            let before = "0 (all ties)".to_owned();
            rows.push(vec![format!("held-out {name} pairs, margin"), before, format!("{margin:+.4}")]);
            rows.push(vec!["  accuracy".to_owned(), String::new(), format!("{accuracy:.3}")]);
        }
    }
    for (source, name) in SOURCES {
        if let Some((first, last)) = ends(records, &format!("rewards/margins@{source}")) {
            rows.push(vec![
                format!("{name} training batches, margin, first and last third"),
                format!("{first:+.4}"),
                format!("{last:+.4}"),
            ]);
        }
    }
    table(&["", "before", "after"], &rows)
}

/// Whether margins rose on both sources.
pub(crate) fn verdict(records: &[Record]) -> String {
    let fell: Vec<&str> = SOURCES
        .iter()
        .filter(|(source, _)| ends(records, &format!("rewards/margins@{source}")).is_none_or(|(a, b)| b <= a))
        .map(|(_, name)| *name)
        .collect();
    match fell[..] {
        [] => "Margins rose on both sources, as they should.".to_owned(),
        _ => format!(
            "Margins did NOT rise on: {}. At this size that can be chance; it is not what the method promises.",
            fell.join(", ")
        ),
    }
}

/// Mean of a metric over the first and the last third of the updates.
fn ends(records: &[Record], name: &str) -> Option<(f64, f64)> {
    let values: Vec<f64> = records.iter().filter_map(|r| r.get(name)).collect();
    let third = values.len().div_ceil(3);
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    (!values.is_empty()).then(|| (mean(&values[..third]), mean(&values[values.len() - third..])))
}

/// Loss, margins and accuracies of the training batches.
pub(crate) fn figure(records: &[Record], path: &Path) -> Result<()> {
    let curve = |name: &str, metric: &str| Series {
        name: name.to_owned(),
        points: records.iter().filter_map(|r| Some((r.step as f64, r.get(metric)?))).collect(),
    };
    let panel = |title: &str, series, baseline| Panel {
        title: title.into(),
        x: "update".into(),
        series,
        smooth: true,
        baseline,
    };
    let by_source = |metric: &str| SOURCES.iter().map(|(s, name)| curve(name, &format!("{metric}@{s}"))).collect();
    let panels = [
        panel("DPO loss", vec![curve("loss", "loss")], Some(std::f64::consts::LN_2)),
        panel("Reward margin", by_source("rewards/margins"), Some(0.0)),
        panel("Preference accuracy", by_source("rewards/accuracies"), Some(0.5)),
    ];
    Ok(write_svg(path, &panels)?)
}
