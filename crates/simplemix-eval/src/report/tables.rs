//! The comparison as Markdown and as CSV.

use std::fmt::Write;

use crate::html::number as number_in_words;
use crate::markdown;
use crate::report::Report;
use crate::report::arms::Arm;
use crate::report::differences::differences;
use crate::report::figures::{Figure, shown};
use crate::report::page::{all_outputs, summary};
use crate::report::plots::ReportPlot;
use crate::report::side_by_side::{Named, side_by_side};

pub(crate) fn markdown(report: &Report, plots: &[ReportPlot], figures: &[Figure]) -> String {
    let mut text = format!("# {}\n\n{}\n\n| arm | runs |", markdown::text(&report.title), summary(report, plots));
    for figure in figures {
        let _ = write!(text, " {} |", markdown::text(&figure.title));
    }
    let _ = writeln!(text, "\n| --- | ---: |{}", " ---: |".repeat(figures.len()));
    for (place, arm) in report.arms.iter().enumerate() {
        let _ = write!(text, "| {} | {} |", markdown::code(&arm.name), arm.runs.len());
        for figure in figures {
            let _ = write!(text, " {} |", shown(figure.of_arms[place]));
        }
        text.push('\n');
    }
    if let Some(comparison) = differences(&report.runs, &report.arms, report.baseline, figures) {
        let _ = write!(text, "\n## {}\n\n| figure |", markdown::text(&comparison.title()));
        for arm in &comparison.arms {
            let _ = write!(text, " {} |", markdown::code(arm));
        }
        let _ = writeln!(text, "\n| --- |{}", " ---: |".repeat(comparison.arms.len()));
        for (figure, values) in &comparison.rows {
            let _ = write!(text, "| {} |", markdown::text(figure));
            for value in values {
                let _ = write!(text, " {} |", value.map_or("-".to_owned(), |value| value.to_string()));
            }
            text.push('\n');
        }
    }
    for plot in plots {
        let _ = write!(text, "\n![{}](plots/{}.svg)\n", markdown::text(&plot.label), plot.name);
    }
    for (prompt, responses) in side_by_side(&all_outputs(report), report.samples) {
        let _ = write!(text, "\n## Responses to\n\n{}", markdown::block("text", prompt));
        for Named { name, output } in responses {
            let score = output.score.map_or(String::new(), |score| format!(", score {}", number_in_words(score)));
            let _ = write!(text, "\n{}{score}\n\n{}", markdown::code(name), markdown::block("text", &output.output));
        }
    }
    text
}

/// Makes CSV with a row for each arm and figure.
pub(crate) fn arms_csv(arms: &[Arm], figures: &[Figure]) -> String {
    let mut rows = vec![["arm", "runs", "figure", "mean", "half_width_95"].map(str::to_owned).to_vec()];
    for figure in figures {
        for (arm, value) in arms.iter().zip(&figure.of_arms) {
            let (mean, half) =
                value.map_or((String::new(), String::new()), |(mean, half)| (number(mean), number(half)));
            rows.push(vec![field(&arm.name), arm.runs.len().to_string(), field(&figure.name), mean, half]);
        }
    }
    csv(rows)
}

/// Makes CSV with a row for each run and a column for each figure.
pub(crate) fn runs_csv(report: &Report, figures: &[Figure]) -> String {
    let headings = ["run", "arm", "seed"].into_iter().map(str::to_owned);
    let mut rows = vec![headings.chain(figures.iter().map(|figure| field(&figure.name))).collect::<Vec<_>>()];
    for arm in &report.arms {
        for run in &arm.runs {
            let data = &report.runs[*run];
            let seed = data.seed().unwrap_or_default();
            let values = figures.iter().map(|figure| figure.of_runs[*run].map(number).unwrap_or_default());
            rows.push([&data.name, &arm.name, seed].into_iter().map(field).chain(values).collect());
        }
    }
    csv(rows)
}

fn number(value: f64) -> String {
    if value.is_finite() { value.to_string() } else { String::new() }
}

/// A text as a cell. A spreadsheet takes what begins with `=`, `+`, `-`, `@`, a tab or a line break for a formula, which can
/// run programs: such a text gets an apostrophe before it, by which spreadsheets know text. A number stays a number.
fn field(text: &str) -> String {
    let is_number = text.parse::<f64>().is_ok() && text.bytes().all(|byte| b"0123456789.eE+-".contains(&byte));
    let begins = ['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠'];
    if !is_number && text.trim_start_matches(' ').starts_with(begins) { format!("'{text}") } else { text.to_owned() }
}

/// Rows as CSV, with quotes where a field needs them (RFC 4180).
fn csv(rows: Vec<Vec<String>>) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in rows {
        writer.write_record(row).expect("memory takes every row, and all rows have the headings' length");
    }
    let bytes = writer.into_inner().expect("memory takes every row");
    String::from_utf8(bytes).expect("fields are text")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_is_a_formula_and_numbers_stay_numbers() {
        for text in ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", " =1", "-x", "＝1"] {
            assert_eq!(field(text), format!("'{text}"));
        }
        for text in ["-1.5e-3", "+7", "7", "a=b", "", "'=1"] {
            assert_eq!(field(text), text);
        }
    }

    #[test]
    fn names_and_responses_are_no_markup_in_markdown() {
        let evil = "<img src=x onerror=alert(1)>|[a](http://b)\n# c";
        let output = crate::ModelOutput {
            instruction: format!("{evil}\n```\n<b>"),
            output: "![x](http://y)\n> q".to_owned(),
            ..crate::ModelOutput::default()
        };
        let arms = vec![Arm { name: evil.to_owned(), runs: Vec::new() }];
        let outputs = vec![(evil.to_owned(), vec![output])];
        let report = Report { title: evil.to_owned(), runs: Vec::new(), arms, outputs, samples: 1, baseline: 0 };
        let text = markdown(&report, &[], &[]);
        let name = "`<img src=x onerror=alert(1)>\\|[a](http://b) # c`";
        assert!(text.contains(&format!("| {name} | 0 |\n")), "{text}");
        assert!(
            text.starts_with("# &lt;img src=x onerror=alert\\(1\\)&gt;\\|\\[a\\]\\(http&#58;//b\\) \\# c\n"),
            "{text}"
        );
        assert!(text.contains("````text\n<img") && text.contains("```\n<b>\n````\n"), "{text}");
        assert!(text.contains("```text\n![x](http://y)\n> q\n```\n"), "{text}");
    }

    #[test]
    fn fields_with_commas_are_quoted() {
        let text = |cell: &str| csv(vec![vec![field(cell), "1".to_owned()]]);
        assert_eq!(text("beta 0.1, \"x\""), "\"beta 0.1, \"\"x\"\"\",1\n");
        assert_eq!(text("two\nlines\r"), "\"two\nlines\r\",1\n");
        assert_eq!((text("plain"), number(f64::NAN), number(0.25)), ("plain,1\n".into(), String::new(), "0.25".into()));
    }
}
