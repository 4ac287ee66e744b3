//! Conversations stored as one text.

use crate::cell::Struct;
use crate::draft::{Draft, DraftText};
use crate::format::turns::{Turn, text};
use crate::problem::Problem;

const HUMAN: &str = "\n\nHuman:";
const ASSISTANT: &str = "\n\nAssistant:";

/// HH-RLHF: the prompt ends with the last `\n\nAssistant:` of chosen, and rejected must start with it.
pub(crate) fn hh(row: Struct<'_>) -> Result<Draft<'_>, Problem> {
    let chosen = text(row.get("chosen"), Problem::EmptyChosen)?;
    let rejected = text(row.get("rejected"), Problem::EmptyRejected)?;
    let end = chosen.rfind(ASSISTANT).ok_or(Problem::LastTurnNotAssistant)? + ASSISTANT.len();
    let (prompt, chosen) = chosen.split_at(end);
    let rejected = rejected.strip_prefix(prompt).ok_or(Problem::DifferentPrompts)?;
    if rejected.contains(HUMAN) || chosen.contains(HUMAN) {
        return Err(Problem::LastTurnNotAssistant);
    }
    let answer = |text: &'_ str| vec![Turn::new("assistant", text.trim().to_owned())];
    Ok(Draft::new(
        DraftText::Messages(human_assistant_turns(prompt)),
        DraftText::Messages(answer(chosen)),
        DraftText::Messages(answer(rejected)),
    ))
}

/// Splits a transcript into turns, leaving out an empty last one, which only invites a response. Text before the first
/// mark is a turn of the user; the mark may lack its empty line there.
pub(crate) fn human_assistant_turns(transcript: &str) -> Vec<Turn<'_>> {
    let mut turns: Vec<Turn<'_>> = Vec::new();
    let mut rest = transcript.trim_start().strip_prefix(HUMAN.trim_start()).unwrap_or(transcript);
    let mut role = "user";
    loop {
        let marks = [(HUMAN, "user"), (ASSISTANT, "assistant")];
        let next = marks.iter().filter_map(|(mark, role)| Some((rest.find(mark)?, mark.len(), *role))).min();
        let content = &rest[..next.map_or(rest.len(), |(at, ..)| at)];
        if !content.trim().is_empty() {
            turns.push(Turn::new(role, content.trim()));
        }
        match next {
            Some((at, length, next_role)) => {
                rest = &rest[at + length..];
                role = next_role;
            }
            None => return turns,
        }
    }
}

const MARK: &str = "<extra_id_1>";

/// Splits a HelpSteer prompt into turns: text of the user, then `<extra_id_1>Assistant` or `<extra_id_1>User`, a newline
/// and the turn, and so on.
pub(crate) fn extra_id_turns(prompt: &str) -> Vec<Turn<'_>> {
    let mut parts = prompt.split(MARK);
    let first = parts.next().unwrap_or_default();
    let mut turns = vec![Turn::new("user", if prompt.contains(MARK) { first.trim_end() } else { first })];
    for part in parts {
        let (speaker, content) = part.split_once('\n').unwrap_or((part, ""));
        let role = if speaker.trim() == "Assistant" { "assistant" } else { "user" };
        if !content.trim().is_empty() {
            turns.push(Turn::new(role, content.trim_end()));
        }
    }
    turns
}
