//! Formats with two responses and a label that says which is better, or with other names for the three parts.

use crate::cell::{Cell, Struct};
use crate::draft::{Draft, DraftText};
use crate::format::meta::number as score;
use crate::format::transcript::extra_id_turns;
use crate::format::turns::{Turn, answer, text, turns, user};
use crate::problem::Problem;

/// Columns that may hold the question of [`orca`]; the first that is not null counts.
pub(crate) const QUESTIONS: [&str; 4] = ["prompt", "question", "query", "input"];

/// Orca: a question beside plain `chosen` and `rejected`.
pub(crate) fn orca(row: Struct<'_>) -> Result<Draft<'_>, Problem> {
    Ok(Draft::new(
        user(row.first(&QUESTIONS))?,
        answer(row.get("chosen"), Problem::EmptyChosen)?,
        answer(row.get("rejected"), Problem::EmptyRejected)?,
    ))
}

/// Alpaca ranking: the pairs of turns in `history`, then `instruction`, a newline and `input`.
pub(crate) fn alpaca_ranking(row: Struct<'_>) -> Result<Draft<'_>, Problem> {
    let instruction = text(row.get("instruction"), Problem::EmptyPrompt)?;
    let mut prompt = Vec::new();
    if let Cell::List(history) = row.get("history") {
        for round in history.iter() {
            let round = round.as_list().filter(|round| round.len() == 2).ok_or(Problem::WrongType)?;
            for (role, content) in ["user", "assistant"].into_iter().zip(round.iter()) {
                prompt.push(Turn::new(role, text(content, Problem::MissingContent)?));
            }
        }
    }
    prompt.push(match row.get("input").as_str() {
        Some(input) if !input.is_empty() => Turn::new("user", format!("{instruction}\n{input}")),
        _ => Turn::new("user", instruction),
    });
    Ok(Draft::new(
        DraftText::Messages(prompt),
        answer(row.get("chosen"), Problem::EmptyChosen)?,
        answer(row.get("rejected"), Problem::EmptyRejected)?,
    ))
}

pub(crate) fn argilla_ratings(row: Struct<'_>) -> Result<Draft<'_>, Problem> {
    Ok(Draft::new(
        user(row.get("instruction"))?,
        answer(row.get("chosen_response"), Problem::EmptyChosen)?,
        answer(row.get("rejected_response"), Problem::EmptyRejected)?,
    ))
}

/// SHP: `labels` 1 prefers `human_ref_A`; the scores are the votes of the responses, the task is the forum.
pub(crate) fn shp(row: Struct<'_>) -> Result<Draft<'_>, Problem> {
    let a_wins = match number(row.get("labels"))? {
        1.0 => true,
        0.0 => false,
        _ => return Err(Problem::Unlabelled),
    };
    let mut draft = of_two(user(row.get("history"))?, [row.get("human_ref_A"), row.get("human_ref_B")], !a_wins)?;
    let votes = [score(row.get("score_A")), score(row.get("score_B"))];
    draft.score_chosen = votes[usize::from(!a_wins)];
    draft.score_rejected = votes[usize::from(a_wins)];
    draft.task = row.get("domain").as_str().map(Into::into);
    Ok(draft)
}

/// HelpSteer2: a negative strength prefers `response_1`; the absolute value is the margin.
pub(crate) fn help_steer2_preference(row: Struct<'_>) -> Result<Draft<'_>, Problem> {
    let strength = number(row.get("preference_strength"))?;
    let prompt = extra_id_turns(text(row.get("prompt"), Problem::EmptyPrompt)?);
    by_sign(DraftText::Messages(prompt), [row.get("response_1"), row.get("response_2")], strength)
}

/// HelpSteer3: a negative preference prefers `response1`; the absolute value is the margin, the task is the domain.
pub(crate) fn help_steer3(row: Struct<'_>) -> Result<Draft<'_>, Problem> {
    let preference = number(row.get("overall_preference"))?;
    let prompt = match row.get("context") {
        context @ Cell::Str(_) => user(context)?,
        context => DraftText::Messages(turns(context)?),
    };
    let mut draft = by_sign(prompt, [row.get("response1"), row.get("response2")], preference)?;
    draft.task = row.get("domain").as_str().map(Into::into);
    Ok(draft)
}

/// PKU-SafeRLHF, by helpfulness.
pub(crate) fn pku_better(row: Struct<'_>) -> Result<Draft<'_>, Problem> {
    pku(row, "better_response_id")
}

/// PKU-SafeRLHF, by safety.
pub(crate) fn pku_safer(row: Struct<'_>) -> Result<Draft<'_>, Problem> {
    pku(row, "safer_response_id")
}

/// A pair whose column `label` names the better response, 0 or 1.
fn pku<'a>(row: Struct<'a>, label: &str) -> Result<Draft<'a>, Problem> {
    let second_wins = match number(row.get(label))? {
        0.0 => false,
        1.0 => true,
        _ => return Err(Problem::Unlabelled),
    };
    of_two(user(row.get("prompt"))?, [row.get("response_0"), row.get("response_1")], second_wins)
}

fn by_sign<'a>(prompt: DraftText<'a>, responses: [Cell<'a>; 2], sign: f64) -> Result<Draft<'a>, Problem> {
    if sign == 0.0 {
        return Err(Problem::Tie);
    }
    let mut draft = of_two(prompt, responses, sign > 0.0)?;
    draft.score_chosen = Some(sign.abs());
    draft.score_rejected = Some(0.0);
    Ok(draft)
}

fn of_two<'a>(prompt: DraftText<'a>, responses: [Cell<'a>; 2], second_wins: bool) -> Result<Draft<'a>, Problem> {
    let [first, second] = responses;
    let (chosen, rejected) = if second_wins { (second, first) } else { (first, second) };
    Ok(Draft::new(prompt, answer(chosen, Problem::EmptyChosen)?, answer(rejected, Problem::EmptyRejected)?))
}

fn number(cell: Cell<'_>) -> Result<f64, Problem> {
    score(cell).ok_or(Problem::Unlabelled)
}
