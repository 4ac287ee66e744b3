//! Responses to held-out prompts before and after training, side by side with their scores.

use std::collections::BTreeMap;

use simplemix_eval::html::{Response, exchange};
use simplemix_rollout::{CandidateReader, SCORE};

use super::text::{cut, plain};
use crate::error::Result;
use crate::plan::{Plan, SCORED, Stage};

/// Prompts of each kind that are shown: most improved, most worsened, unchanged.
const EACH: usize = 3;

struct Graded {
    prompt: String,
    task: Option<String>,
    response: String,
    score: f64,
}

pub(super) fn html(plan: &Plan) -> Result<String> {
    let ([first, .., last], stages) = (plan.grades.as_slice(), &plan.stages) else { return Ok(String::new()) };
    let (before, after) = (graded(&stages[*first])?, graded(&stages[*last])?);
    let mut both: Vec<(&Graded, &Graded)> =
        after.iter().filter_map(|(id, after)| Some((before.get(id)?, after))).collect();
    both.sort_by(|a, b| (b.1.score - b.0.score).total_cmp(&(a.1.score - a.0.score)));
    let change = |pair: &&(&Graded, &Graded)| pair.1.score - pair.0.score;
    let better: Vec<_> = both.iter().filter(|pair| change(pair) > 0.0).take(EACH).collect();
    let worse: Vec<_> = both.iter().rev().filter(|pair| change(pair) < 0.0).take(EACH).collect();
    let same: Vec<_> = both.iter().filter(|pair| change(pair) == 0.0).take(EACH).collect();
    let count = |wanted: fn(f64) -> bool| both.iter().filter(|pair| wanted(change(pair))).count();
    let groups = [
        ("Better", better, count(|change| change > 0.0)),
        ("Worse", worse, count(|change| change < 0.0)),
        ("As before", same, count(|change| change == 0.0)),
    ];
    let mut html = String::new();
    for (title, shown, all) in groups.into_iter().filter(|(_, shown, _)| !shown.is_empty()) {
        html.push_str(&format!("<h3>{title}: {} of {all}</h3>\n", shown.len()));
        for (place, (before, after)) in shown.into_iter().enumerate() {
            let prompt =
                after.task.as_ref().map_or_else(|| after.prompt.clone(), |task| format!("[{task}] {}", after.prompt));
            let notes = [before, after].map(|graded| format!("score {:.3}", graded.score));
            let responses = [
                Response { name: "before", note: &notes[0], text: &before.response },
                Response { name: "after", note: &notes[1], text: &after.response },
            ];
            html.push_str(&exchange(&prompt, &responses, place == 0));
        }
    }
    Ok(html)
}

/// The scored response to each prompt by the prompt's id.
fn graded(stage: &Stage) -> Result<BTreeMap<String, Graded>> {
    let mut found = BTreeMap::new();
    for group in CandidateReader::open(&stage.folder.join(SCORED))? {
        let group = group?;
        let Some(row) = group.rows.first() else { continue };
        if let Some(score) = row.scores.get(SCORE).copied().flatten() {
            let graded = Graded {
                prompt: plain(&group.prompt.prompt),
                task: group.prompt.task.clone(),
                response: cut(row.response.as_deref().unwrap_or_default()),
                score,
            };
            found.insert(group.prompt.id, graded);
        }
    }
    Ok(found)
}
