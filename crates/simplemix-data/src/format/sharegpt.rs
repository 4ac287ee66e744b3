//! LLaMA-Factory's ShareGPT ranking form.

use crate::cell::Struct;
use crate::draft::{Draft, DraftText};
use crate::format::turns::turns;
use crate::problem::Problem;

/// Parses `conversations`, the prompt, which ends with a turn of the user, and `chosen` and `rejected`, one turn each.
pub(crate) fn ranking(row: Struct<'_>) -> Result<Draft<'_>, Problem> {
    Ok(Draft::new(
        DraftText::Messages(turns(row.get("conversations"))?),
        DraftText::Messages(turns(row.get("chosen"))?),
        DraftText::Messages(turns(row.get("rejected"))?),
    ))
}
