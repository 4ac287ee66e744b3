//! The stages with their time and what came of them.

use std::path::Path;

use simplemix_eval::html::{Cells, Table, escape};

use super::text::duration;
use crate::plan::{Job, Plan, Stage};
use crate::report::StageReport;
use crate::summary::Summary;

/// Most figures of a stage that are shown unfolded.
const SHOWN: usize = 6;

pub(super) fn html(output: &Path, plan: &Plan, summary: &Summary) -> String {
    let mut table =
        Table::new("Stages", &[("Stage", Cells::Text), ("Time", Cells::Numbers), ("What came of it", Cells::Text)]);
    for (stage, done) in plan.stages.iter().zip(&summary.stages) {
        table.row([link(stage, output), duration(done.seconds), figures(&done.report)]);
    }
    table.html()
}

/// The figures of a report, of many the first ones with the others folded.
fn figures(report: &StageReport) -> String {
    let all: Vec<String> = report.figures().iter().map(|figure| escape(figure)).collect();
    match all.split_at_checked(SHOWN) {
        Some((shown, rest)) if rest.len() > 1 => {
            format!("{} <details><summary>{} more</summary>{}</details>", shown.join(", "), rest.len(), rest.join(", "))
        }
        _ => all.join(", "),
    }
}

/// A stage's name, linked to its own report where it has one.
fn link(stage: &Stage, output: &Path) -> String {
    let file = match &stage.job {
        Job::Train(_) => "run/report.html",
        Job::Mix(_) => "shares.svg",
        _ => return escape(&stage.name),
    };
    let address = address(&stage.folder.join(file), output);
    format!("<a href=\"{}\">{}</a>", escape(&address), escape(&stage.name))
}

/// Address of a file on the page: relative where it lies in the output, so that the folder can be moved as a whole.
pub(super) fn address(path: &Path, output: &Path) -> String {
    let path = match path.strip_prefix(output) {
        Ok(inside) => inside.to_owned(),
        Err(_) => path.canonicalize().unwrap_or_else(|_| path.to_owned()),
    };
    path.display().to_string()
}
