//! LLaMA-Factory's ShareGPT ranking form.

use crate::cell::{Cell, Struct, Turn};
use crate::draft::{Draft, DraftText};
use crate::format::turns::turns;
use crate::problem::Problem;

/// `conversations` is the prompt and ends with the user; `chosen` and `rejected` are one turn each.
///
/// A `system` column, if not empty, becomes the first turn, as a system turn in `conversations` does.
pub(crate) fn ranking(row: Struct<'_>) -> Result<Draft<'_>, Problem> {
    let mut prompt = turns(row.get("conversations"))?;
    if let Cell::Str(system) = row.get("system")
        && !system.is_empty()
        && prompt.first().is_none_or(|turn| turn.role != "system")
    {
        prompt.insert(0, Turn::new("system", system));
    }
    Ok(Draft::new(
        DraftText::Messages(prompt),
        DraftText::Messages(turns(row.get("chosen"))?),
        DraftText::Messages(turns(row.get("rejected"))?),
    ))
}
