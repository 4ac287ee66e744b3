//! TRL's four formats, and the mixed one with a text prompt beside messages.

use crate::cell::Struct;
use crate::draft::{Draft, DraftText};
use crate::format::turns::{Turn, split_at_difference, text, turns};
use crate::problem::Problem;

pub(crate) fn explicit_text(row: Struct<'_>) -> Result<Draft<'_>, Problem> {
    let prompt = text(row.get("prompt"), Problem::EmptyPrompt)?;
    let chosen = text(row.get("chosen"), Problem::EmptyChosen)?;
    let rejected = text(row.get("rejected"), Problem::EmptyRejected)?;
    Ok(Draft::new(DraftText::Plain(prompt.into()), DraftText::Plain(chosen.into()), DraftText::Plain(rejected.into())))
}

pub(crate) fn explicit_messages(row: Struct<'_>) -> Result<Draft<'_>, Problem> {
    Ok(Draft::new(
        DraftText::Messages(turns(row.get("prompt"))?),
        DraftText::Messages(turns(row.get("chosen"))?),
        DraftText::Messages(turns(row.get("rejected"))?),
    ))
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
    }
    Ok(Draft::new(
        DraftText::Messages(split.prompt),
        DraftText::Messages(split.chosen),
        DraftText::Messages(split.rejected),
    ))
}

/// Checks that both sides start with a turn of the assistant; otherwise they answer different prompts.
fn both_answer(chosen: &[Turn<'_>], rejected: &[Turn<'_>]) -> Result<(), Problem> {
    let asks = |turns: &[Turn<'_>]| turns.first().is_some_and(|turn| turn.role == "user" || turn.role == "system");
    if asks(chosen) || asks(rejected) { Err(Problem::DifferentPrompts) } else { Ok(()) }
}
