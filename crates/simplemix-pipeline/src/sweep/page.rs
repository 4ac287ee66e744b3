//! Report of a sweep as a page: the best values, curves over each number that varies, and every run.

use std::fmt::Write;
use std::path::Path;

use simplemix_eval::html::{escape, figure, number, page};
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
    let mut body = format!("<h1>{}</h1>\n", escape(&name));
    body.push_str(&head(report));
    body.push_str(&curves(axes, report)?);
    body.push_str(&configurations(report));
    body.push_str(&runs(report));
    let _ = writeln!(body, "<h2>Settings</h2>\n<pre tabindex=\"0\">{}</pre>", escape(settings));
    Ok(page(&format!("{name}: sweep"), &body))
}

fn head(report: &SweepReport) -> String {
    let mut text = String::new();
    if let Some(best) = report.configurations.first() {
        let (best_by, words, mean) = (escape(&report.best_by), escape(&words(&best.values)), number(best.mean));
        let _ = writeln!(text, "<p>Best by <code>{best_by}</code>: {words}, {mean}{}.</p>", interval(best));
        let others = report.configurations.len();
        if others > 1 {
            let _ = writeln!(text, "<p>As the best of {others}, it is likely to be less good on other data.</p>");
        }
    }
    if let Some(warning) = &report.warning {
        let _ = writeln!(text, "<p><strong>Note:</strong> {}.</p>", escape(warning));
    }
    let (done, all) = (report.done(), report.runs.len());
    let _ = writeln!(
        text,
        "<p>{done} of {all} runs done, {} failed; {:.1} minutes, {:.2} GB.</p>",
        report.failed().count(),
        report.seconds / 60.0,
        report.disk_bytes as f64 / 1e9
    );
    text
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
        false => Ok(format!("<h2>Curves</h2>\n<div class=\"figures\">\n{text}</div>\n")),
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
    let metric = escape(&report.best_by);
    let rows = report.configurations.iter().map(|found| {
        let bounds = found.interval_95.map_or(String::new(), |bounds| bounds.map(number).join(" to "));
        let over = match found.interval_over {
            Some(Over::Seeds) => "seeds",
            Some(Over::Prompts) => "prompts",
            None => "",
        };
        vec![escape(&words(&found.values)), found.runs.len().to_string(), number(found.mean), bounds, over.to_owned()]
    });
    let headings = ["Values", "Runs", metric.as_str(), "95 % interval", "over"];
    format!("<h2>Values, the best first</h2>\n{}", table(&headings, rows))
}

fn runs(report: &SweepReport) -> String {
    let rows = report.runs.iter().map(|run| {
        let name = match &run.state {
            RunState::Done { .. } => format!("<a href=\"runs/{0}/report.html\">{0}</a>", escape(&run.name)),
            _ => escape(&run.name),
        };
        let seconds = run.seconds.map_or(String::new(), |seconds| format!("{seconds:.1}"));
        let model = if run.model.is_some() { "kept" } else { "" };
        vec![name, escape(&outcome(run)), run.value.map_or(String::new(), number), seconds, model.to_owned()]
    });
    format!("<h2>Runs</h2>\n{}", table(&["Run", "State", "Value", "Seconds", "Model"], rows))
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

/// A table of cells that are HTML; the first of a row is its heading, the second is text.
fn table(headings: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut text = String::from("<div class=\"scroll\"><table><thead><tr>");
    for heading in headings {
        let _ = write!(text, "<th scope=\"col\">{heading}</th>");
    }
    text.push_str("</tr></thead><tbody>\n");
    for row in rows {
        for (at, cell) in row.iter().enumerate() {
            let _ = match at {
                0 => write!(text, "<tr><th scope=\"row\">{cell}</th>"),
                1 => write!(text, "<td class=\"text\">{cell}</td>"),
                _ => write!(text, "<td>{cell}</td>"),
            };
        }
        text.push_str("</tr>\n");
    }
    text + "</tbody></table></div>\n"
}
