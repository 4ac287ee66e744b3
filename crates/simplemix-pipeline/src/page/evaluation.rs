//! Scores before and after, as a table and as bars.

use simplemix_eval::html::{Cells, Table, escape, figure, number};
use simplemix_eval::plot::{Bar, BarPanel, bars_svg};

use crate::error::Result;
use crate::summary::Evaluation;

const COLUMNS: [(&str, Cells); 10] = [
    ("Responses", Cells::Text),
    ("Task", Cells::Text),
    ("Prompts", Cells::Numbers),
    ("Mean score", Cells::Numbers),
    ("95 % interval", Cells::Numbers),
    ("Better", Cells::Numbers),
    ("Worse", Cells::Numbers),
    ("p", Cells::Numbers),
    ("Tokens", Cells::Numbers),
    ("KL", Cells::Numbers),
];

const LEGEND: &str = "<p>Better and worse: prompts whose response scores higher or lower than before training; \
    p: probability of a split at least as uneven by chance (McNemar's test, or the sign test). Tokens: mean length of a \
    response. KL: divergence of the responses' distribution from the first model's, in nats a response.</p>\n";

pub(super) fn html(lines: &[Evaluation]) -> Result<String> {
    if lines.is_empty() {
        return Ok(String::new());
    }
    let mut table = Table::new("Evaluation", &COLUMNS);
    for line in lines {
        let cell = |value: Option<f64>| value.map_or(String::new(), number);
        let count = |value: Option<u64>| value.map_or(String::new(), |count| count.to_string());
        table.row([
            escape(&line.when),
            escape(line.task.as_deref().unwrap_or("all")),
            count(Some(line.prompts)),
            cell(Some(line.mean_score)),
            line.interval_95.map_or(String::new(), |bounds| bounds.map(number).join(" to ")),
            count(line.better),
            count(line.worse),
            cell(line.p_value),
            cell(line.mean_tokens),
            cell(line.kl),
        ]);
    }
    Ok(table.html() + LEGEND + &bars(lines)?)
}

/// Bars of the scores by task, before and after each round.
fn bars(lines: &[Evaluation]) -> Result<String> {
    let bar = |line: &Evaluation| Bar {
        group: line.task.clone().unwrap_or_else(|| "all prompts".to_owned()),
        series: line.when.clone(),
        value: line.mean_score,
        interval: line.interval_95,
    };
    let bars: Vec<Bar> = lines.iter().map(bar).filter(|bar| bar.value.is_finite()).collect();
    if bars.is_empty() {
        return Ok(String::new());
    }
    let said: Vec<String> =
        bars.iter().map(|bar| format!("{}, {}: {}", bar.group, bar.series, number(bar.value))).collect();
    let label = format!("Mean score on held-out prompts: {}", said.join("; "));
    let panel =
        BarPanel { title: "Mean score on held-out prompts".to_owned(), x: "score".to_owned(), bars, mark: None };
    Ok(format!("<div class=\"figures\">\n{}</div>\n", figure(&bars_svg(&panel)?, &label, "")))
}
