//! TRL's four formats, and the mixed one with a text prompt beside messages.

use crate::cell::{Cell, Struct};
use crate::draft::{Draft, DraftText};
use crate::format::turns::{Turn, split_at_difference, text, turns};
use crate::problem::Problem;

pub(crate) fn explicit_text(row: Struct<'_>) -> Result<Draft<'_>, Problem> {
    let prompt = text(row.get("prompt"), Problem::EmptyPrompt)?;
    let chosen = text(row.get("chosen"), Problem::EmptyChosen)?;
    let rejected = text(row.get("rejected"), Problem::EmptyRejected)?;
    Ok(Draft::new(DraftText::Plain(prompt.into()), DraftText::Plain(chosen.into()), DraftText::Plain(rejected.into())))
}

/// Messages on all three sides, or two texts after a prompt of messages. Turns of the prompt that both sides begin with are
/// left out of them.
pub(crate) fn explicit_messages(row: Struct<'_>) -> Result<Draft<'_>, Problem> {
    let side = |cell, if_missing| match cell {
        Cell::Str(_) => Ok(vec![Turn::new("assistant", text(cell, if_missing)?)]),
        cell => turns(cell),
    };
    let prompt = turns(row.get("prompt"))?;
    let mut chosen = side(row.get("chosen"), Problem::EmptyChosen)?;
    let mut rejected = side(row.get("rejected"), Problem::EmptyRejected)?;
    let repeated = repeated(&prompt, &chosen, &rejected);
    chosen.drain(..repeated);
    rejected.drain(..repeated);
    Ok(Draft::new(DraftText::Messages(prompt), DraftText::Messages(chosen), DraftText::Messages(rejected)))
}

/// Largest number of turns at the end of the prompt with which both responses begin again, before turns of their own.
fn repeated(prompt: &[Turn<'_>], chosen: &[Turn<'_>], rejected: &[Turn<'_>]) -> usize {
    if prompt.last().is_none_or(|turn| turn.role == "assistant") {
        return 0;
    }
    let most = prompt.len().min(chosen.len().saturating_sub(1)).min(rejected.len().saturating_sub(1));
    let again = |&count: &usize| prompt.ends_with(&chosen[..count]) && chosen[..count] == rejected[..count];
    (1..=most).rev().find(again).unwrap_or(0)
}

/// Splits two texts as TRL's `extract_prompt` does: at the first character that differs, or at the space before it.
///
/// Rows that TRL splits wrongly are refused: for equal texts it takes the last character as the response, for a text and
/// a continuation of it, it cuts one character off the shorter one, and for texts that differ from the start it looks at
/// the last character.
pub(crate) fn implicit_text(row: Struct<'_>) -> Result<Draft<'_>, Problem> {
    let chosen = text(row.get("chosen"), Problem::EmptyChosen)?;
    let rejected = text(row.get("rejected"), Problem::EmptyRejected)?;
    let shared: usize =
        chosen.chars().zip(rejected.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum();
    match (shared == chosen.len(), shared == rejected.len()) {
        (true, true) => return Err(Problem::IdenticalSides),
        (true, false) | (false, true) => return Err(Problem::OneSideIsPrefix),
        (false, false) => {}
    }
    let cut = if chosen[..shared].ends_with(' ') { shared - 1 } else { shared };
    if cut == 0 {
        return Err(Problem::NoSharedPrompt);
    }
    Ok(Draft::new(
        DraftText::Plain(chosen[..cut].into()),
        DraftText::Plain(chosen[cut..].into()),
        DraftText::Plain(rejected[cut..].into()),
    ))
}

pub(crate) fn implicit_messages(row: Struct<'_>) -> Result<Draft<'_>, Problem> {
    let split = split_at_difference(turns(row.get("chosen"))?, turns(row.get("rejected"))?)?;
    if split.prompt.is_empty() {
        return Err(Problem::NoSharedPrompt);
    }
    both_answer(&split.chosen, &split.rejected)?;
    Ok(Draft::new(
        DraftText::Messages(split.prompt),
        DraftText::Messages(split.chosen),
        DraftText::Messages(split.rejected),
    ))
}

/// A text prompt beside messages. If the messages repeat the prompt, as they usually do, the shared turns are the prompt;
/// if they hold responses only, the text is.
pub(crate) fn prompt_and_messages(row: Struct<'_>) -> Result<Draft<'_>, Problem> {
    let mut split = split_at_difference(turns(row.get("chosen"))?, turns(row.get("rejected"))?)?;
    both_answer(&split.chosen, &split.rejected)?;
    if split.prompt.iter().all(|turn| turn.role == "system") {
        let prompt = text(row.get("prompt"), Problem::EmptyPrompt)?;
        split.prompt.push(Turn::new("user", prompt));
    } else if let Cell::Str(prompt) = row.get("prompt")
        && !split.prompt.iter().any(|turn| overlap(&turn.content, prompt))
    {
        return Err(Problem::DifferentPrompts);
    }
    Ok(Draft::new(
        DraftText::Messages(split.prompt),
        DraftText::Messages(split.chosen),
        DraftText::Messages(split.rejected),
    ))
}

/// Whether one text, without white space at its ends, is a part of the other.
fn overlap(a: &str, b: &str) -> bool {
    let (a, b) = (a.trim(), b.trim());
    b.is_empty() || !a.is_empty() && (a.contains(b) || b.contains(a))
}

/// Checks that both sides start with a turn of the assistant; otherwise they answer different prompts.
fn both_answer(chosen: &[Turn<'_>], rejected: &[Turn<'_>]) -> Result<(), Problem> {
    let asks = |turns: &[Turn<'_>]| turns.first().is_some_and(|turn| turn.role == "user" || turn.role == "system");
    if asks(chosen) || asks(rejected) { Err(Problem::DifferentPrompts) } else { Ok(()) }
}
