//! LLaMA-Factory's ShareGPT ranking form.

use crate::cell::{Cell, Struct};
use crate::draft::{Draft, DraftText};
use crate::format::turns::{Turn, turns};
use crate::problem::Problem;

/// Parses `conversations`, the prompt, which ends with a turn of the user, and `chosen` and `rejected`, one turn each.
///
/// A `system` column that is not empty becomes the first turn.
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
