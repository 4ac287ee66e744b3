//! Detects the format of a file: by column names first, then by the types of prompt, chosen and rejected.

use std::path::Path;

use crate::error::{Error, Result};
use crate::format::Format;
use crate::format::kind::{Columns, Kind};
use crate::format::meta::SYSTEM;

/// Detects the format of a file with these columns.
///
/// # Errors
/// [`Error::ColumnType`] if `chosen`, `rejected` or `prompt` has no usable type, else
/// [`Error::UnknownFormat`].
pub(crate) fn detect(columns: &Columns, path: &Path) -> Result<Format> {
    signature(columns).or_else(|| by_types(columns)).ok_or_else(|| refusal(columns, path))
}

/// Formats that are recognised by column names.
fn signature(columns: &Columns) -> Option<Format> {
    let has = |names: &[&str]| names.iter().all(|name| columns.has(name));
    let fields = |name: &str, fields: &[&str]| columns.kind(name).has_fields(fields);
    if has(&["human_ref_A", "human_ref_B", "labels", "history"]) {
        return Some(Format::Shp);
    }
    if has(&["prompt", "response_0", "response_1", "better_response_id"]) {
        return Some(Format::PkuBetter);
    }
    if has(&["prompt", "response_1", "response_2", "preference_strength"]) {
        return Some(Format::HelpSteer2Preference);
    }
    if has(&["context", "response1", "response2", "overall_preference"]) {
        return Some(Format::HelpSteer3);
    }
    if has(&["prompt", "response", "helpfulness"]) {
        return Some(Format::HelpSteerRatings);
    }
    if has(&["message_tree_id", "message_id", "parent_id", "text", "role", "rank"]) {
        return Some(Format::OpenAssistant);
    }
    if has(&["instruction", "chosen_response", "rejected_response"]) {
        return Some(Format::ArgillaRatings);
    }
    if has(&["instruction"]) && fields("completions", &["response"]) {
        return Some(Format::UltraFeedback);
    }
    if has(&["context"]) && fields("completions", &["rank", "completion"]) {
        return Some(Format::NemoRl);
    }
    if has(&["prompt"]) && fields("answers", &["answer", "rank"]) {
        return Some(Format::Nectar);
    }
    None
}

/// Formats that are recognised by the types of `prompt`, `chosen` and `rejected`.
fn by_types(columns: &Columns) -> Option<Format> {
    let kind = |name| columns.kind(name);
    let (prompt, chosen, rejected) = (kind("prompt"), kind("chosen"), kind("rejected"));
    if chosen.is_messages() && rejected.is_messages() {
        return Some(match prompt {
            _ if kind("conversations").is_messages() => Format::ShareGptRanking,
            prompt if prompt.is_messages() => Format::ExplicitMessages,
            prompt if prompt.is_text() && columns.has("all_rm_scores") => Format::SimpoScored,
            prompt if prompt.is_text() => Format::PromptAndMessages,
            Kind::Absent | Kind::Null => Format::ImplicitMessages,
            _ => return None,
        });
    }
    if !chosen.is_text() || !rejected.is_text() {
        return None;
    }
    Some(match prompt {
        prompt if prompt.is_messages() => Format::ExplicitMessages,
        // A system prompt needs the form of messages.
        prompt if prompt.is_text() && SYSTEM.iter().any(|name| kind(name).speaks()) => Format::Orca,
        prompt if prompt.is_text() => Format::ExplicitText,
        Kind::Absent | Kind::Null => match () {
            () if kind("question").speaks() => Format::Orca,
            () if kind("instruction").speaks() => Format::AlpacaRanking,
            () if kind("query").speaks() || kind("input").speaks() => Format::Orca,
            () if *chosen == Kind::Transcript && *rejected == Kind::Transcript => Format::HhTranscripts,
            () => Format::ImplicitText,
        },
        _ => return None,
    })
}

fn refusal(columns: &Columns, path: &Path) -> Error {
    for column in ["chosen", "rejected", "prompt"] {
        let kind = columns.kind(column);
        if *kind != Kind::Absent && !kind.is_text() && !kind.is_messages() {
            return Error::ColumnType {
                path: path.to_path_buf(),
                column: column.to_owned(),
                found: kind.to_string(),
                expected: match kind {
                    Kind::PrintedMessages => "text or a list of {role, content}; write such lists as JSON".to_owned(),
                    Kind::Other(_) if ["prompt", "rejected"].iter().all(|other| columns.kind(other) == kind) => {
                        "text or a list of {role, content}, one object a row (with pandas, orient=\"records\")"
                            .to_owned()
                    }
                    _ => "text or a list of {role, content}".to_owned(),
                },
            };
        }
    }
    let inner = columns.iter().find(|(_, kind)| kind.has_fields(&["chosen", "rejected"]));
    if let Some((column, _)) = inner {
        let hint = format!("the column `{column}` holds the rows, expected a file of these rows alone");
        return Error::UnknownFormat { path: path.to_path_buf(), columns: columns.describe(), hint };
    }
    let unpaired = columns.has("completion") && (columns.has("label") || columns.has("kto_tag"));
    let hint = if columns.is_empty() {
        "no row is an object, expected objects with at least `chosen` and `rejected`"
    } else if unpaired {
        "these are unpaired responses with a label (KTO), expected pairs"
    } else if columns.has("messages") && !columns.has("chosen") {
        "these are conversations without a preference (a fine-tuning set), expected pairs"
    } else {
        "expected at least `chosen` and `rejected`, both text or both messages"
    };
    let hint = hint.to_owned();
    Error::UnknownFormat { path: path.to_path_buf(), columns: columns.describe(), hint }
}
