//! Turns of a conversation, from the layouts in which files store them.

use std::borrow::Cow;

use crate::cell::{Cell, List, Struct, Turn};
use crate::draft::DraftText;
use crate::problem::Problem;

/// The text of a cell, or the problem with it.
pub(crate) fn text(cell: Cell<'_>, if_missing: Problem) -> Result<&str, Problem> {
    match cell {
        Cell::Str(text) => Ok(text),
        Cell::Null => Err(if_missing),
        _ => Err(Problem::WrongType),
    }
}

/// A prompt that is one turn of the user.
pub(crate) fn user(cell: Cell<'_>) -> Result<DraftText<'_>, Problem> {
    Ok(DraftText::Messages(vec![Turn::new("user", text(cell, Problem::EmptyPrompt)?)]))
}

/// A response that is one turn of the assistant.
pub(crate) fn answer(cell: Cell<'_>, if_missing: Problem) -> Result<DraftText<'_>, Problem> {
    Ok(DraftText::Messages(vec![Turn::new("assistant", text(cell, if_missing)?)]))
}

/// Turns from a list of `{role, content}` or `{from, value}`, or from a struct of such lists.
pub(crate) fn turns(cell: Cell<'_>) -> Result<Vec<Turn<'_>>, Problem> {
    match cell {
        Cell::Null => Ok(Vec::new()),
        Cell::List(list) => list.iter().map(|turn| turn_of(turn.as_struct().ok_or(Problem::WrongType)?)).collect(),
        Cell::Struct(fields) => match columns(fields) {
            Some((roles, contents)) => transposed(roles, contents),
            None => Ok(vec![turn_of(fields)?]),
        },
        _ => Err(Problem::WrongType),
    }
}

/// Lists of roles and contents, as `datasets` stores `Sequence({"role": ..., "content": ...})`.
fn columns(fields: Struct<'_>) -> Option<(List<'_>, List<'_>)> {
    Some((fields.first(&["role", "from"]).as_list()?, fields.first(&["content", "value"]).as_list()?))
}

fn transposed<'a>(roles: List<'a>, contents: List<'a>) -> Result<Vec<Turn<'a>>, Problem> {
    if roles.len() != contents.len() {
        return Err(Problem::WrongType);
    }
    roles.iter().zip(contents.iter()).map(|(role, content)| turn(role, content)).collect()
}

fn turn_of(fields: Struct<'_>) -> Result<Turn<'_>, Problem> {
    turn(fields.first(&["role", "from"]), fields.first(&["content", "value"]))
}

fn turn<'a>(role: Cell<'a>, content: Cell<'a>) -> Result<Turn<'a>, Problem> {
    let role = role.as_str().ok_or(Problem::MissingRole)?;
    let content = content.as_str().ok_or(Problem::MissingContent)?;
    Ok(Turn::new(canonical_role(role), content))
}

/// Canonical name of a role of ShareGPT, Open-Assistant and others.
fn canonical_role(role: &str) -> Cow<'_, str> {
    match role {
        "human" | "prompter" => "user".into(),
        "gpt" | "function_call" => "assistant".into(),
        "observation" => "tool".into(),
        other => other.into(),
    }
}

/// Shared beginning of two conversations, and the rest of each.
pub(crate) struct Split<'a> {
    pub(crate) prompt: Vec<Turn<'a>>,
    pub(crate) chosen: Vec<Turn<'a>>,
    pub(crate) rejected: Vec<Turn<'a>>,
}

/// Splits at the first turn that differs, as TRL's `extract_prompt` does.
///
/// If nothing differs, or one side is the beginning of the other, TRL takes the last shared turn as a response. Here, the
/// row is refused, since no response is left to compare.
pub(crate) fn split_at_difference<'a>(
    mut chosen: Vec<Turn<'a>>,
    mut rejected: Vec<Turn<'a>>,
) -> Result<Split<'a>, Problem> {
    let shared = chosen.iter().zip(&rejected).take_while(|(a, b)| a == b).count();
    if chosen.is_empty() {
        return Err(Problem::EmptyChosen);
    }
    if rejected.is_empty() {
        return Err(Problem::EmptyRejected);
    }
    match (shared == chosen.len(), shared == rejected.len()) {
        (true, true) => return Err(Problem::IdenticalSides),
        (true, false) | (false, true) => return Err(Problem::OneSideIsPrefix),
        (false, false) => {}
    }
    let chosen_rest = chosen.split_off(shared);
    let rejected_rest = rejected.split_off(shared);
    Ok(Split { prompt: chosen, chosen: chosen_rest, rejected: rejected_rest })
}
