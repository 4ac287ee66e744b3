//! An advice as a page.

use std::fmt::Write;

use simplemix_eval::html::{escape, page};

use super::report::Advice;

pub(super) fn html(advice: &Advice) -> String {
    let mut body = format!("<h1>Before mixing: {}</h1>\n", escape(&advice.model));
    let _ = writeln!(
        body,
        "<p>{} prompts with {} responses each, {} off-policy pairs; {} of the prompts have one.</p>",
        advice.prompts, advice.samples, advice.off_policy_pairs, advice.matched_prompts
    );
    for notice in &advice.notices {
        let _ = writeln!(body, "<p><strong>Note:</strong> {}.</p>", escape(notice));
    }
    for reading in &advice.readings {
        let _ = writeln!(body, "<h2>{}</h2>\n<div class=\"scroll\"><table><tbody>", escape(&reading.name));
        for figure in &reading.figures {
            let (name, value) = (escape(&figure.name), escape(&figure.to_string()));
            let _ = writeln!(body, "<tr><th scope=\"row\">{name}</th><td>{value}</td></tr>");
        }
        let (says, source) = (escape(&reading.says), escape(&reading.source));
        let _ = writeln!(body, "</tbody></table></div>\n<p>{says}</p>\n<p>Source: {source}</p>");
    }
    page(&format!("{}: before mixing", advice.model), &body)
}
