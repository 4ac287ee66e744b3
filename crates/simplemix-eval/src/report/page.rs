//! The comparison as an HTML page.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::html::{
    Cells, Response, Section, Table, Tile, document, escape, exchange, figure, list, notices, number, tiles,
};
use crate::outputs::ModelOutput;
use crate::report::Report;
use crate::report::arms::is_of_a_repetition;
use crate::report::differences::differences;
use crate::report::figures::{Figure, shown};
use crate::report::plots::{ReportPlot, STRETCHES, Section as Place};
use crate::report::side_by_side::side_by_side;

/// Most arms that have a tile.
const TILES: usize = 6;

pub(crate) fn html(report: &Report, plots: &[ReportPlot], figures: &[Figure]) -> String {
    let introduction = format!(
        "<p class=\"lead\">{}</p>\n{}{}",
        escape(&counts(report)),
        main_figure(report, figures),
        notices("Notices", &all_notices(report))
    );
    let (benchmarks, main): (Vec<&Figure>, Vec<&Figure>) = figures.iter().partition(|figure| figure.is_benchmark);
    let sections = [
        Section::new("arms", "Arms", arms(report, &main) + &format!("<p>{}</p>\n", escape(&summary(report, plots)))),
        Section::new("differences", "Differences", difference(report, figures)),
        Section::new("benchmarks", "Benchmarks", of_benchmarks(report, &benchmarks, plots)),
        Section::new("curves", "Learning curves", plots_of(plots, Place::Curves)),
        Section::new("sources", "Margins by source", plots_of(plots, Place::Sources)),
        Section::new("categories", "By category", plots_of(plots, Place::Categories)),
        Section::new("length", "Length and win rate", plots_of(plots, Place::Length)),
        Section::new("responses", "Responses side by side", responses(report)),
        Section::new("settings", "Settings", settings(report)),
    ];
    document(&report.title, &introduction, &sections)
}

fn counts(report: &Report) -> String {
    let count = |n: usize, what: &str| if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") };
    format!("{} in {}.", count(report.runs.len(), "run"), count(report.arms.len(), "arm"))
}

pub(crate) fn summary(report: &Report, plots: &[ReportPlot]) -> String {
    let curves = format!(
        " Curves show means over {STRETCHES} stretches of the updates; bands reach from the lowest to the highest run."
    );
    format!(
        "{} Figures are means over the runs of an arm, ± half of the 95 % interval (Student's t) if there \
         are several. Training metrics are means over the last tenth of the updates, evaluation metrics are last values.{}",
        counts(report),
        if plots.is_empty() { "" } else { &curves }
    )
}

/// The first figure of each arm in large.
fn main_figure(report: &Report, figures: &[Figure]) -> String {
    let Some(figure) = figures.first().filter(|_| report.arms.len() <= TILES) else { return String::new() };
    let of = report.arms.iter().zip(&figure.of_arms);
    let tile = |(arm, value): (&crate::report::Arm, &Option<(f64, f64)>)| {
        value.map(|_| Tile::new(&arm.name, shown(*value), figure.title.clone()))
    };
    tiles(&of.filter_map(tile).collect::<Vec<_>>())
}

/// Notices of the runs, each once.
fn all_notices(report: &Report) -> Vec<String> {
    let mut texts: Vec<String> = Vec::new();
    for text in report.runs.iter().flat_map(|run| &run.notices) {
        if !texts.contains(text) {
            texts.push(text.clone());
        }
    }
    texts
}

fn arms(report: &Report, figures: &[&Figure]) -> String {
    let mut table = Table::new("Arms", &[("arm", Cells::Text), ("runs", Cells::Numbers)]);
    figures.iter().for_each(|figure| table.column(&figure.title, Cells::Numbers));
    for (place, arm) in report.arms.iter().enumerate() {
        let values = figures.iter().map(|figure| shown(figure.of_arms[place]));
        table.row([escape(&arm.name), arm.runs.len().to_string()].into_iter().chain(values));
    }
    table.html()
}

fn difference(report: &Report, figures: &[Figure]) -> String {
    let Some(found) = differences(&report.runs, &report.arms, report.baseline, figures) else { return String::new() };
    let mut table = Table::new(&found.title(), &[("figure", Cells::Text)]);
    found.arms.iter().for_each(|arm| table.column(arm, Cells::Numbers));
    for (title, values) in &found.rows {
        let cells = values.iter().map(|value| match value {
            None => String::new(),
            Some(value) if value.is_beyond_chance() => format!("<strong>{value}</strong>"),
            Some(value) => value.to_string(),
        });
        table.row(std::iter::once(escape(title)).chain(cells));
    }
    format!(
        "<p>Mean of the arm minus mean of <strong>{}</strong>, ± half of the 95 % interval over runs: of differences of equal seeds \
         (Student's t), or of independent runs (Welch). Bold: the interval does not hold 0; of twenty such differences one is bold \
         by chance. A single run has no interval.</p>\n{}",
        escape(&found.baseline),
        table.html()
    )
}

fn of_benchmarks(report: &Report, figures: &[&Figure], plots: &[ReportPlot]) -> String {
    if figures.is_empty() {
        return String::new();
    }
    let mut table = Table::new("Benchmarks", &[("task, metric", Cells::Text)]);
    report.arms.iter().for_each(|arm| table.column(&arm.name, Cells::Numbers));
    for figure in figures {
        let value = |value: &Option<(f64, f64)>| value.map_or(String::new(), |_| shown(*value));
        table.row(std::iter::once(escape(&figure.title)).chain(figure.of_arms.iter().map(value)));
    }
    format!(
        "<p>Results of lm-eval and lighteval. ± is half of the 95 % interval: over the runs of an arm, or, for a single run, 1.96 \
         standard errors over the benchmark's examples.</p>\n{}{}",
        table.html(),
        plots_of(plots, Place::Benchmarks)
    )
}

fn plots_of(plots: &[ReportPlot], section: Place) -> String {
    let own: String =
        plots.iter().filter(|plot| plot.section == section).map(|plot| figure(&plot.svg, &plot.label, "")).collect();
    if own.is_empty() { own } else { format!("<div class=\"figures\">\n{own}</div>\n") }
}

/// Responses of each arm's first run that has some, and those of further models.
pub(crate) fn all_outputs(report: &Report) -> Vec<(String, Vec<ModelOutput>)> {
    let of_arms = report.arms.iter().filter_map(|arm| {
        let outputs = arm.runs.iter().map(|run| &report.runs[*run].outputs).find(|outputs| !outputs.is_empty())?;
        Some((arm.name.clone(), outputs.clone()))
    });
    of_arms.chain(report.outputs.iter().cloned()).collect()
}

fn responses(report: &Report) -> String {
    let all = all_outputs(report);
    let mut html = String::new();
    for (place, (prompt, responses)) in side_by_side(&all, report.samples).into_iter().enumerate() {
        let score = |score: Option<f64>| score.map_or(String::new(), |score| format!("score {}", number(score)));
        let notes: Vec<String> = responses.iter().map(|named| score(named.output.score)).collect();
        let shown: Vec<Response<'_>> = responses
            .iter()
            .zip(&notes)
            .map(|(named, note)| Response { name: named.name, note, text: &named.output.output })
            .collect();
        html.push_str(&exchange(prompt, &shown, place == 0));
    }
    html
}

/// Settings in which the arms differ, then those that they share.
fn settings(report: &Report) -> String {
    let firsts: Vec<_> = report.arms.iter().map(|arm| &report.runs[arm.runs[0]].settings).collect();
    let keys: BTreeSet<&String> = firsts.iter().flat_map(|settings| settings.keys()).collect();
    if keys.is_empty() {
        return String::new();
    }
    let counts = |key: &&String| !is_of_a_repetition(key);
    let differs = |key: &&String| firsts.iter().any(|settings| settings.get(*key) != firsts[0].get(*key));
    let (different, shared): (Vec<&String>, Vec<&String>) = keys.into_iter().filter(counts).partition(differs);
    let mut table = Table::new("Settings that differ", &[("setting", Cells::Text)]);
    report.arms.iter().for_each(|arm| table.column(&arm.name, Cells::Text));
    for key in different {
        let value = |settings: &&std::collections::BTreeMap<String, String>| {
            escape(settings.get(key).map_or("", String::as_str))
        };
        table.row(std::iter::once(escape(key)).chain(firsts.iter().map(value)));
    }
    let lines: Vec<String> = shared.iter().map(|key| format!("{key} = {}", firsts[0][*key])).collect();
    let mut html = table.html();
    let _ = writeln!(
        html,
        "<details><summary>Settings that all arms share</summary>\n<pre tabindex=\"0\">{}</pre></details>",
        escape(&lines.join("\n"))
    );
    let runs: Vec<String> = (report.arms.iter())
        .map(|arm| {
            let names: Vec<&str> = arm.runs.iter().map(|run| report.runs[*run].name.as_str()).collect();
            format!("{}: {}", arm.name, names.join(", "))
        })
        .collect();
    let _ = writeln!(html, "<details><summary>Runs of each arm</summary>\n{}</details>", list(&runs));
    html
}
