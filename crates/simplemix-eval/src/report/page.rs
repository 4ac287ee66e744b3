//! The comparison as an HTML page.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::html::{escape, figure, page};
use crate::outputs::ModelOutput;
use crate::report::Report;
use crate::report::arms::OF_A_REPETITION;
use crate::report::figures::{Figure, shown};
use crate::report::plots::{ReportPlot, STRETCHES, Section};
use crate::report::side_by_side::side_by_side;

pub(crate) fn html(report: &Report, plots: &[ReportPlot], figures: &[Figure]) -> String {
    let mut body = format!("<h1>{}</h1>\n<p>{}</p>\n", escape(&report.title), escape(&summary(report, plots)));
    let sections = [
        ("arms", "Arms", arms(report, figures)),
        ("curves", "Learning curves", plots_of(plots, Section::Curves)),
        ("sources", "Margins by source", plots_of(plots, Section::Sources)),
        ("categories", "By category", plots_of(plots, Section::Categories)),
        ("length", "Length and win rate", plots_of(plots, Section::Length)),
        ("responses", "Responses side by side", responses(report)),
        ("settings", "Settings", settings(report)),
    ];
    let present = || sections.iter().filter(|(_, _, content)| !content.is_empty());
    body.push_str("<nav aria-label=\"Sections\"><ul>\n");
    for (id, title, _) in present() {
        let _ = writeln!(body, "<li><a href=\"#{id}\">{title}</a></li>");
    }
    body.push_str("</ul></nav>\n");
    for (id, title, content) in present() {
        let _ = writeln!(body, "<section aria-labelledby=\"{id}\">\n<h2 id=\"{id}\">{title}</h2>\n{content}</section>");
    }
    page(&report.title, &body)
}

pub(crate) fn summary(report: &Report, plots: &[ReportPlot]) -> String {
    let count = |n: usize, what: &str| if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") };
    let (runs, arms) = (count(report.runs.len(), "run"), count(report.arms.len(), "arm"));
    let curves = format!(
        " Curves show means over {STRETCHES} stretches of the updates; bands reach from the lowest to the highest run."
    );
    format!(
        "{runs} in {arms}. Figures are means over the runs of an arm, ± half of the 95 % interval (Student's t) if there \
         are several. Training metrics are means over the last tenth of the updates, evaluation metrics are last values.{}",
        if plots.is_empty() { "" } else { &curves }
    )
}

fn arms(report: &Report, figures: &[Figure]) -> String {
    let mut html = region("Arms");
    html.push_str("<table>\n<thead><tr><th scope=\"col\">arm</th><th scope=\"col\">runs</th>");
    for figure in figures {
        let _ = write!(html, "<th scope=\"col\">{}</th>", escape(&figure.title));
    }
    html.push_str("</tr></thead>\n<tbody>\n");
    for (place, arm) in report.arms.iter().enumerate() {
        let _ = write!(html, "<tr><th scope=\"row\">{}</th><td>{}</td>", escape(&arm.name), arm.runs.len());
        for figure in figures {
            let _ = write!(html, "<td>{}</td>", shown(figure.of_arms[place]));
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</tbody>\n</table></div>\n");
    html
}

/// Opens a region that can be scrolled by keyboard, for tables wider than the screen.
fn region(name: &str) -> String {
    format!("<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{} as a table\">", escape(name))
}

fn plots_of(plots: &[ReportPlot], section: Section) -> String {
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
        let open = if place == 0 { " open" } else { "" };
        let _ = writeln!(html, "<details{open}><summary>{}</summary>", escape(&first_line(prompt)));
        let _ = writeln!(
            html,
            "<p class=\"prompt\"><strong>Prompt</strong> {}</p>\n<div class=\"responses\">",
            escape(prompt)
        );
        for (name, output) in responses {
            let (name, output) = (escape(name), escape(output));
            let _ =
                writeln!(html, "<section aria-label=\"Response of {name}\"><h3>{name}</h3><p>{output}</p></section>");
        }
        html.push_str("</div></details>\n");
    }
    html
}

fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() > 100 { line.chars().take(99).chain(['…']).collect() } else { line.to_owned() }
}

/// Settings in which the arms differ, then those that they share.
fn settings(report: &Report) -> String {
    let firsts: Vec<_> = report.arms.iter().map(|arm| &report.runs[arm.runs[0]].settings).collect();
    let keys: BTreeSet<&String> = firsts.iter().flat_map(|settings| settings.keys()).collect();
    if keys.is_empty() {
        return String::new();
    }
    let counts = |key: &&String| !OF_A_REPETITION.contains(&key.as_str());
    let differs = |key: &&String| firsts.iter().any(|settings| settings.get(*key) != firsts[0].get(*key));
    let (different, shared): (Vec<&String>, Vec<&String>) = keys.into_iter().filter(counts).partition(differs);
    let mut html = String::new();
    if !different.is_empty() {
        html.push_str(&region("Settings that differ"));
        html.push_str("<table>\n<thead><tr><th scope=\"col\">setting</th>");
        for arm in &report.arms {
            let _ = write!(html, "<th scope=\"col\">{}</th>", escape(&arm.name));
        }
        html.push_str("</tr></thead>\n<tbody>\n");
        for key in different {
            let _ = write!(html, "<tr><th scope=\"row\">{}</th>", escape(key));
            for settings in &firsts {
                let _ =
                    write!(html, "<td class=\"text\">{}</td>", escape(settings.get(key).map_or("", String::as_str)));
            }
            html.push_str("</tr>\n");
        }
        html.push_str("</tbody>\n</table></div>\n");
    }
    let lines: Vec<String> = shared.iter().map(|key| format!("{key} = {}", firsts[0][*key])).collect();
    let _ = writeln!(
        html,
        "<details><summary>Settings that all arms share</summary>\n<pre tabindex=\"0\">{}</pre></details>",
        escape(&lines.join("\n"))
    );
    html
}
