//! Report of a sweep as a page: the best values, curves over each number that varies, and every run.

use std::path::Path;

use simplemix_eval::html::{Cells, Section, Table, Tile, document, escape, figure, notices, number, tiles};
use simplemix_eval::plot::{Band, Panel, Series, banded_svg};

use super::axis::Axis;
use super::grid::{is_seed, labels};
use super::record::RunState;
use super::report::{RunReport, SweepReport};
use super::verdict::{Configuration, Over, words};
use crate::error::Result;

/// Most curves of a figure; the first are those of the best values.
const MOST_CURVES: usize = 8;

/// The page as HTML. `settings` is the text of the settings that it shows.
pub(super) fn html(output: &Path, axes: &[Axis], report: &SweepReport, settings: &str) -> Result<String> {
    let name = output.file_name().map_or_else(|| output.display().to_string(), |name| name.to_string_lossy().into());
    let settings = format!(
        "<details><summary>Every setting</summary>\n<pre tabindex=\"0\">{}</pre></details>\n",
        escape(settings)
    );
    let sections = [
        Section::new("curves", "Curves", curves(axes, report)?),
        Section::new("values", "Values, the best first", configurations(report)),
        Section::new("runs", "Runs", runs(report)),
        Section::new("settings", "Settings", settings),
    ];
    Ok(document(&format!("{name}: sweep"), &head(report), &sections))
}

fn head(report: &SweepReport) -> String {
    let mut large = Vec::new();
    let mut said: Vec<String> = report.warning.iter().cloned().collect();
    if let Some(best) = report.configurations.first() {
        let label = format!("Best by {}", report.best_by);
        large.push(Tile::new(&label, words(&best.values), format!("{}{}", number(best.mean), interval(best))));
        let others = report.configurations.len();
        if others > 1 {
            said.push(format!("As the best of {others}, it is likely to be less good on other data"));
        }
    }
    let failed = report.failed().count();
    let failed = if failed > 0 { format!("{failed} failed") } else { String::new() };
    large.push(Tile::new("Runs done", format!("{} of {}", report.done(), report.runs.len()), failed));
    large.push(Tile::new("Time", format!("{:.1} min", report.seconds / 60.0), ""));
    large.push(Tile::new("Disk", format!("{:.2} GB", report.disk_bytes as f64 / 1e9), ""));
    tiles(&large) + &notices("Findings", &said)
}

fn interval(found: &Configuration) -> String {
    let over = match found.interval_over {
        Some(Over::Seeds) => "seeds",
        Some(Over::Prompts) => "prompts",
        None => return String::new(),
    };
    found
        .interval_95
        .map_or(String::new(), |bounds| format!(" ({} over {over}, 95 %)", bounds.map(number).join(" to ")))
}

/// A figure for each number that takes several values.
fn curves(axes: &[Axis], report: &SweepReport) -> Result<String> {
    let mut text = String::new();
    let others: Vec<(&Axis, String)> = axes.iter().zip(labels(axes)).filter(|(axis, _)| !is_seed(axis)).collect();
    for (at, (axis, label)) in others.iter().enumerate() {
        let Some((panel, bands)) = panel(at, axis, label, report) else { continue };
        let caption = "Band: 95 % interval, where there is one. Curves: the other values; those of the best first.";
        let about = format!("{} over {label}", report.best_by);
        text.push_str(&figure(&banded_svg(&panel, &bands)?, &about, caption));
    }
    match text.is_empty() {
        true => Ok(text),
        false => Ok(format!("<div class=\"figures\">\n{text}</div>\n")),
    }
}

/// The metric over one axis; a curve for each combination of the others.
fn panel(at: usize, axis: &Axis, label: &str, report: &SweepReport) -> Option<(Panel, Vec<Band>)> {
    axis.number(0)?;
    let (mut series, mut bands): (Vec<Series>, Vec<Band>) = (Vec::new(), Vec::new());
    for found in &report.configurations {
        let rest = |other: &Configuration| {
            let mut choice = other.choice.clone();
            choice.remove(at);
            choice
        };
        let is_first = report.configurations.iter().find(|other| rest(other) == rest(found));
        if is_first.is_none_or(|first| first.values != found.values) || series.len() == MOST_CURVES {
            continue;
        }
        let mut points: Vec<(f64, &Configuration)> = (report.configurations.iter())
            .filter(|other| rest(other) == rest(found))
            .filter_map(|other| Some((axis.number(other.choice[at])?, other)))
            .collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        if points.len() < 2 {
            continue;
        }
        let others: Vec<(String, String)> =
            found.values.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, value)| value.clone()).collect();
        let band = points.iter().filter_map(|(x, other)| other.interval_95.map(|[low, high]| (*x, low, high)));
        bands.push(band.collect());
        series
            .push(Series { name: words(&others), points: points.iter().map(|(x, other)| (*x, other.mean)).collect() });
    }
    let title = report.best_by.split_once(':').map_or(report.best_by.as_str(), |(_, metric)| metric);
    let panel =
        Panel { title: format!("{title} over {label}"), x: label.to_owned(), series, smooth: false, baseline: None };
    (!panel.series.is_empty()).then_some((panel, bands))
}

fn configurations(report: &SweepReport) -> String {
    if report.configurations.is_empty() {
        return String::new();
    }
    let mut table = Table::new(
        "Values, the best first",
        &[
            ("Values", Cells::Text),
            ("Runs", Cells::Numbers),
            (&report.best_by, Cells::Numbers),
            ("95 % interval", Cells::Numbers),
            ("over", Cells::Numbers),
        ],
    );
    for found in &report.configurations {
        let bounds = found.interval_95.map_or(String::new(), |bounds| bounds.map(number).join(" to "));
        let over = match found.interval_over {
            Some(Over::Seeds) => "seeds",
            Some(Over::Prompts) => "prompts",
            None => "",
        };
        let (values, runs) = (escape(&words(&found.values)), found.runs.len().to_string());
        table.row([values, runs, number(found.mean), bounds, over.to_owned()]);
    }
    table.html()
}

fn runs(report: &SweepReport) -> String {
    let mut table = Table::new(
        "Runs",
        &[
            ("Run", Cells::Text),
            ("State", Cells::Text),
            ("Value", Cells::Numbers),
            ("Seconds", Cells::Numbers),
            ("Model", Cells::Numbers),
        ],
    );
    for run in &report.runs {
        let name = match &run.state {
            RunState::Done { .. } => format!("<a href=\"runs/{0}/report.html\">{0}</a>", escape(&run.name)),
            _ => escape(&run.name),
        };
        let seconds = run.seconds.map_or(String::new(), |seconds| format!("{seconds:.1}"));
        let model = if run.model.is_some() { "kept" } else { "" };
        table.row([name, escape(&outcome(run)), run.value.map_or(String::new(), number), seconds, model.to_owned()]);
    }
    table.html()
}

/// Outcome of a run in words.
pub(super) fn outcome(run: &RunReport) -> String {
    match &run.state {
        RunState::Done { .. } => "done".to_owned(),
        RunState::Failed { message, .. } => format!("failed: {message}"),
        RunState::LeftOut { reason } => format!("left out: {reason}"),
        RunState::ToDo => "to do".to_owned(),
    }
}
