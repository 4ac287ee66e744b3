//! The comparison as Markdown and as CSV.

use std::fmt::Write;

use crate::report::Report;
use crate::report::arms::Arm;
use crate::report::figures::{Figure, shown};
use crate::report::page::{all_outputs, summary};
use crate::report::plots::ReportPlot;
use crate::report::side_by_side::side_by_side;

pub(crate) fn markdown(report: &Report, plots: &[ReportPlot], figures: &[Figure]) -> String {
    let mut text = format!("# {}\n\n{}\n\n| arm | runs |", report.title, summary(report, plots));
    for figure in figures {
        let _ = write!(text, " {} |", cell(&figure.title));
    }
    let _ = writeln!(text, "\n| --- | ---: |{}", " ---: |".repeat(figures.len()));
    for (place, arm) in report.arms.iter().enumerate() {
        let _ = write!(text, "| {} | {} |", cell(&arm.name), arm.runs.len());
        for figure in figures {
            let _ = write!(text, " {} |", shown(figure.of_arms[place]));
        }
        text.push('\n');
    }
    for plot in plots {
        let _ = write!(text, "\n![{}](plots/{}.svg)\n", plot.label.replace(['[', ']', '\n'], " "), plot.name);
    }
    for (prompt, responses) in side_by_side(&all_outputs(report), report.samples) {
        let _ = write!(text, "\n## Responses to\n\n{}", quoted(prompt));
        for (name, output) in responses {
            let _ = write!(text, "\n**{}**\n\n{}", name, quoted(output));
        }
    }
    text
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn quoted(text: &str) -> String {
    text.lines().map(|line| format!("> {line}\n")).collect()
}

/// Makes CSV with a row for each arm and figure.
pub(crate) fn arms_csv(arms: &[Arm], figures: &[Figure]) -> String {
    let mut text = String::from("arm,runs,figure,mean,half_width_95\n");
    for figure in figures {
        for (arm, value) in arms.iter().zip(&figure.of_arms) {
            let (mean, half) =
                value.map_or((String::new(), String::new()), |(mean, half)| (number(mean), number(half)));
            let _ = writeln!(text, "{},{},{},{mean},{half}", field(&arm.name), arm.runs.len(), field(&figure.name));
        }
    }
    text
}

/// Makes CSV with a row for each run and a column for each figure.
pub(crate) fn runs_csv(report: &Report, figures: &[Figure]) -> String {
    let mut text = String::from("run,arm,seed");
    for figure in figures {
        let _ = write!(text, ",{}", field(&figure.name));
    }
    text.push('\n');
    for arm in &report.arms {
        for run in &arm.runs {
            let data = &report.runs[*run];
            let seed = data.settings.get("seed").map_or("", String::as_str);
            let _ = write!(text, "{},{},{}", field(&data.name), field(&arm.name), field(seed));
            for figure in figures {
                let _ = write!(text, ",{}", figure.of_runs[*run].map(number).unwrap_or_default());
            }
            text.push('\n');
        }
    }
    text
}

fn number(value: f64) -> String {
    if value.is_finite() { value.to_string() } else { String::new() }
}

/// Quotes a field if it needs quotes (RFC 4180).
fn field(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_with_commas_are_quoted() {
        assert_eq!(field("beta 0.1, \"x\""), "\"beta 0.1, \"\"x\"\"\"");
        assert_eq!((field("plain"), number(f64::NAN), number(0.25)), ("plain".into(), String::new(), "0.25".into()));
    }
}
