//! Origin and scores of a pair, from the columns of the various formats.

use crate::cell::{Cell, Struct};
use crate::draft::{Draft, DraftText};
use crate::format::turns::Turn;
use crate::pair::Policy;
use crate::problem::Problem;
use crate::schema::REF_REWARDS;

const SOURCE: [&str; 1] = ["source"];
const TASK: [&str; 1] = ["task"];
const GENERATOR: [&str; 1] = ["generator"];
const POLICY: [&str; 1] = ["policy"];

/// Score columns of chosen and rejected, in the names of TRL and UltraFeedback, RLHFlow, OLMo, argilla (two), and QRPO's sets.
const SCORES: [[&str; 6]; 2] = [
    ["score_chosen", "chosen_score", "chosen_rating", "chosen-rating", "chosen_avg_rating", "chosen_rewards"],
    [
        "score_rejected",
        "rejected_score",
        "rejected_rating",
        "rejected-rating",
        "rejected_avg_rating",
        "rejected_rewards",
    ],
];

/// Columns of system prompts, which become the first turn.
pub(crate) const SYSTEM: [&str; 3] = ["system", "system_prompt", "system_message"];

/// Columns that name the models of chosen and rejected. They are also carried along, since `generator` holds one name
/// only.
pub(crate) const MODELS: [[&str; 2]; 2] = [["chosen_model", "chosen-model"], ["rejected_model", "rejected-model"]];

/// Groups of columns that say something about a pair beside its texts, as far as rows may have them: looking for a column in every
/// row costs more than the row's checks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Beside {
    system: bool,
    origin: bool,
    scores: bool,
}

impl Beside {
    /// Any of them.
    pub(crate) const ANY: Self = Self { system: true, origin: true, scores: true };

    /// Those that columns of these names can be.
    pub(crate) fn of_names<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Self {
        let has = |known: &dyn Fn(&str) -> bool| names.clone().any(known);
        let origin = |name: &str| {
            let one = [&SOURCE, &TASK, &GENERATOR, &POLICY].iter().any(|names| names.contains(&name));
            one || MODELS.iter().flatten().any(|known| *known == name)
        };
        Self {
            system: has(&|name| SYSTEM.contains(&name)),
            origin: has(&origin),
            scores: has(&|name| name == REF_REWARDS || SCORES.iter().flatten().any(|known| *known == name)),
        }
    }
}

/// Whether the content of the column is kept in a canonical column.
pub(crate) fn consumes(column: &str) -> bool {
    [&SOURCE, &TASK, &GENERATOR, &POLICY].iter().any(|names| names.contains(&column))
        || SCORES.iter().flatten().any(|name| *name == column)
        || column == REF_REWARDS
}

/// Number in a cell, which may be text; `None` for text that is no number, and for NaN and infinity.
pub(crate) fn number(cell: Cell<'_>) -> Option<f64> {
    let number = cell.as_f64().or_else(|| cell.as_str()?.trim().parse().ok());
    number.filter(|number| number.is_finite())
}

/// Rewards in a cell of `ref_rewards`, and the number of its items that are none: nulls, NaN, infinity and texts without a number.
/// `None` for a cell that holds something other than a list.
pub(crate) fn ref_rewards(cell: Cell<'_>) -> Option<(Vec<f64>, u64)> {
    if cell.is_null() {
        return Some((Vec::new(), 0));
    }
    let list = cell.as_list()?;
    let rewards: Vec<f64> = list.iter().filter_map(number).collect();
    let unread = list.iter().count() - rewards.len();
    Some((rewards, unread as u64))
}

/// Number of scores in a row that are texts without a number, and of rewards that are no numbers.
pub(crate) fn unread_scores(row: Struct<'_>, beside: Beside) -> u64 {
    if !beside.scores {
        return 0;
    }
    let unread = |names: &&[&str; 6]| row.first(*names).as_str().is_some() && number(row.first(*names)).is_none();
    SCORES.iter().filter(unread).count() as u64 + ref_rewards(row.get(REF_REWARDS)).map_or(1, |(_, unread)| unread)
}

/// Puts the system prompt of the row before the turns of the prompt.
fn add_system<'a>(prompt: &mut DraftText<'a>, row: Struct<'a>) -> Result<(), Problem> {
    let (DraftText::Messages(turns), Some(system)) = (prompt, row.first(&SYSTEM).as_str()) else { return Ok(()) };
    match turns.first() {
        _ if system.trim().is_empty() => {}
        Some(first) if first.role == "system" && first.content.trim() == system.trim() => {}
        Some(first) if first.role == "system" => return Err(Problem::UnreadColumn),
        _ => turns.insert(0, Turn::new("system", system)),
    }
    Ok(())
}

/// Fills in the properties that the format left open; a value of the wrong type is ignored.
///
/// # Errors
/// [`Problem::UnreadColumn`] if the row has a system prompt, and its messages have another one.
pub(crate) fn fill<'a>(draft: &mut Draft<'a>, row: Struct<'a>, beside: Beside) -> Result<(), Problem> {
    if beside.system {
        add_system(&mut draft.prompt, row)?;
    }
    let first = |names: &[&str], is_there: bool| if is_there { row.first(names) } else { Cell::Null };
    let text = |names: &[&str]| first(names, beside.origin).as_str().filter(|text| !text.is_empty());
    if draft.source.is_none() {
        draft.source = text(&SOURCE).map(Into::into);
    }
    if draft.task.is_none() {
        draft.task = text(&TASK).map(Into::into);
    }
    for (model, names) in draft.models.iter_mut().zip(&MODELS) {
        *model = model.or_else(|| text(names));
    }
    if draft.generator.is_none() {
        let shared = draft.models[0].filter(|model| draft.models[1] == Some(model));
        draft.generator = text(&GENERATOR).or(shared).map(Into::into);
    }
    if draft.policy.is_none() {
        let word = text(&POLICY).and_then(|word| word.parse::<Policy>().ok());
        draft.policy = word.or_else(|| draft.source.as_deref().and_then(policy_in_name));
    }
    for (score, names) in [&mut draft.score_chosen, &mut draft.score_rejected].into_iter().zip(&SCORES) {
        *score = score.filter(|score| score.is_finite()).or_else(|| number(first(names, beside.scores)));
    }
    if beside.scores {
        draft.ref_rewards = ref_rewards(row.get(REF_REWARDS)).unwrap_or_default().0;
    }
    Ok(())
}

/// Policy in the name of a source, as in `tulu-3-sft-reused-off-policy`.
fn policy_in_name(source: &str) -> Option<Policy> {
    let says = |words: [&str; 2]| words.iter().any(|word| source.contains(word));
    match (says(["on-policy", "on_policy"]), says(["off-policy", "off_policy"])) {
        (true, false) => Some(Policy::On),
        (false, true) => Some(Policy::Off),
        _ => None,
    }
}
