//! An advice as a page.

use simplemix_eval::html::{Cells, Table, escape, notices, page};

use super::report::Advice;

pub(super) fn html(advice: &Advice) -> String {
    let mut body = format!(
        "<h1>Before mixing: {}</h1>\n<p class=\"lead\">{} prompts with {} responses each, {} off-policy pairs; {} of the prompts have \
         one.</p>\n",
        escape(&advice.model),
        advice.prompts,
        advice.samples,
        advice.off_policy_pairs,
        advice.matched_prompts
    );
    body.push_str(&notices("Notices", &advice.notices));
    for reading in &advice.readings {
        let mut table = Table::new(&reading.name, &[("Figure", Cells::Text), ("Value", Cells::Numbers)]);
        for figure in &reading.figures {
            table.row([escape(&figure.name), escape(&figure.to_string())]);
        }
        let (name, says, source) = (escape(&reading.name), escape(&reading.says), escape(&reading.source));
        body.push_str(&format!("<h2>{name}</h2>\n{}<p>{says}</p>\n<p>Source: {source}</p>\n", table.html()));
    }
    page(&format!("{}: before mixing", advice.model), &body)
}
