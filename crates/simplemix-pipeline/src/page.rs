//! The report of a pipeline as a page.

use std::fmt::Write;
use std::path::Path;

use simplemix_eval::html::{escape, number, page};

use crate::error::Result;
use crate::plan::{Job, Plan, Stage};
use crate::settings::PipelineSettings;
use crate::summary::{Evaluation, Summary};

/// The page as HTML, to be written to `output`.
pub(crate) fn report(output: &Path, settings: &PipelineSettings, plan: &Plan, summary: &Summary) -> Result<String> {
    let name = output.file_name().map_or_else(|| output.display().to_string(), |name| name.to_string_lossy().into());
    let mut body = format!("<h1>{}</h1>\n", escape(&name));
    let _ = writeln!(body, "<p>Result: <code>{}</code></p>", escape(&summary.model.display().to_string()));
    if !summary.evaluation.is_empty() {
        body.push_str(&evaluation(&summary.evaluation));
    }
    body.push_str(&stages(output, plan, summary));
    let _ = writeln!(body, "<h2>Settings</h2>\n<pre tabindex=\"0\">{}</pre>", escape(&settings.to_toml()?));
    Ok(page(&format!("{name}: pipeline"), &body))
}

const HEADINGS: [&str; 10] =
    ["Responses", "Task", "Prompts", "Mean score", "95 % interval", "Better", "Worse", "p", "Tokens", "KL"];

const LEGEND: &str = "<p>Better and worse: prompts whose response scores higher or lower than before training; \
    p: probability of a split at least as uneven by chance (McNemar's test, or the sign test). Tokens: mean length of a \
    response. KL: divergence of the responses' distribution from the first model's, in nats a response.</p>\n";

fn evaluation(lines: &[Evaluation]) -> String {
    let mut text = String::from("<h2>Evaluation</h2>\n<div class=\"scroll\"><table><thead><tr>");
    for heading in HEADINGS {
        let _ = write!(text, "<th scope=\"col\">{heading}</th>");
    }
    text.push_str("</tr></thead><tbody>\n");
    for line in lines {
        let cell = |value: Option<f64>| value.map_or(String::new(), number);
        let count = |value: Option<u64>| value.map_or(String::new(), |count| count.to_string());
        let _ = write!(text, "<tr><th scope=\"row\">{}</th>", escape(&line.when));
        let _ = write!(text, "<td class=\"text\">{}</td>", escape(line.task.as_deref().unwrap_or("all")));
        for cell in [
            count(Some(line.prompts)),
            cell(Some(line.mean_score)),
            line.interval_95.map_or(String::new(), |bounds| bounds.map(number).join(" to ")),
            count(line.better),
            count(line.worse),
            cell(line.p_value),
            cell(line.mean_tokens),
            cell(line.kl),
        ] {
            let _ = write!(text, "<td>{cell}</td>");
        }
        text.push_str("</tr>\n");
    }
    text + "</tbody></table></div>\n" + LEGEND
}

fn stages(output: &Path, plan: &Plan, summary: &Summary) -> String {
    let mut text = String::from("<h2>Stages</h2>\n<div class=\"scroll\"><table><thead><tr>");
    for heading in ["Stage", "Seconds", "Report"] {
        let _ = write!(text, "<th scope=\"col\">{heading}</th>");
    }
    text.push_str("</tr></thead><tbody>\n");
    for (stage, done) in plan.stages.iter().zip(&summary.stages) {
        let (link, report) = (link(stage, output), escape(&done.report.to_string()));
        let _ = writeln!(
            text,
            "<tr><th scope=\"row\">{link}</th><td>{:.1}</td><td class=\"text\">{report}</td></tr>",
            done.seconds
        );
    }
    text + "</tbody></table></div>\n"
}

/// A stage's name, linked to its own report where it has one.
fn link(stage: &Stage, output: &Path) -> String {
    let file = match &stage.job {
        Job::Train(_) => "run/report.html",
        Job::Mix(_) => "shares.svg",
        _ => return escape(&stage.name),
    };
    let path = stage.folder.join(file);
    // Relative where it lies in the output, so that the folder can be moved as a whole.
    let path = match path.strip_prefix(output) {
        Ok(inside) => inside.to_owned(),
        Err(_) => path.canonicalize().unwrap_or(path),
    };
    format!("<a href=\"{}\">{}</a>", escape(&path.display().to_string()), escape(&stage.name))
}
