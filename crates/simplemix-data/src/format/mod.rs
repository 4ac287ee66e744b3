//! The families of preference data that are read, and how a row of each becomes a pair.

mod detect;
mod sharegpt;
mod trl;
mod turns;

pub(crate) use detect::{Columns, detect};

use std::fmt;
use std::str::FromStr;

use crate::cell::Struct;
use crate::draft::Draft;
use crate::pair::{Form, Policy};
use crate::problem::Problem;

/// A family of preference data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Format {
    /// `prompt`, `chosen`, `rejected` as text (TRL's explicit standard form).
    ExplicitText,
    /// `prompt`, `chosen`, `rejected` as messages (TRL's explicit conversational form, and our own files).
    ExplicitMessages,
    /// `chosen`, `rejected` as text that begins with the shared prompt (TRL's implicit standard form).
    ImplicitText,
    /// `chosen`, `rejected` as messages that begin with the shared prompt (TRL's implicit conversational form).
    ImplicitMessages,
    /// `prompt` as text beside `chosen` and `rejected` as messages: UltraFeedback binarised and its kin.
    UltraFeedbackBinarized,
    /// `conversations`, `chosen`, `rejected` with `from` and `value`: LLaMA-Factory's ShareGPT ranking form.
    ShareGptRanking,
}

impl Format {
    /// All formats, in the order of the documentation.
    pub const ALL: [Format; 6] = [
        Format::ExplicitText,
        Format::ExplicitMessages,
        Format::ImplicitText,
        Format::ImplicitMessages,
        Format::UltraFeedbackBinarized,
        Format::ShareGptRanking,
    ];

    /// The name that `--format` takes and reports show: kebab case.
    pub fn name(self) -> &'static str {
        match self {
            Format::ExplicitText => "explicit-text",
            Format::ExplicitMessages => "explicit-messages",
            Format::ImplicitText => "implicit-text",
            Format::ImplicitMessages => "implicit-messages",
            Format::UltraFeedbackBinarized => "ultra-feedback-binarized",
            Format::ShareGptRanking => "share-gpt-ranking",
        }
    }

    /// The form of the pairs that this format gives.
    pub fn form(self) -> Form {
        match self {
            Format::ExplicitText | Format::ImplicitText => Form::Plain,
            _ => Form::Messages,
        }
    }

    /// Columns that must be there for this format.
    pub(crate) fn required(self) -> &'static [&'static str] {
        match self {
            Format::ExplicitText | Format::ExplicitMessages | Format::UltraFeedbackBinarized => {
                &["prompt", "chosen", "rejected"]
            }
            Format::ImplicitText | Format::ImplicitMessages => &["chosen", "rejected"],
            Format::ShareGptRanking => &["conversations", "chosen", "rejected"],
        }
    }

    /// Columns that are read beside the required ones.
    fn optional(self) -> &'static [&'static str] {
        match self {
            Format::ShareGptRanking => &["system"],
            _ => &[],
        }
    }

    /// True if `column` ends up in a canonical column, so that it is not carried as a further one.
    pub(crate) fn consumes(self, column: &str) -> bool {
        self.required().contains(&column) || self.optional().contains(&column) || META_COLUMNS.contains(&column)
    }

    /// The pair in one row.
    pub(crate) fn draft<'a>(self, row: Struct<'a>) -> Result<Draft<'a>, Problem> {
        let mut draft = match self {
            Format::ExplicitText => trl::explicit_text(row),
            Format::ExplicitMessages => trl::explicit_messages(row),
            Format::ImplicitText => trl::implicit_text(row),
            Format::ImplicitMessages => trl::implicit_messages(row),
            Format::UltraFeedbackBinarized => trl::prompt_and_messages(row),
            Format::ShareGptRanking => sharegpt::ranking(row),
        }?;
        fill_meta(&mut draft, row);
        Ok(draft)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Format {
    type Err = String;

    /// The format of this [name](Format::name); the error lists all names.
    fn from_str(name: &str) -> Result<Self, String> {
        Format::ALL.into_iter().find(|format| format.name() == name).ok_or_else(|| {
            let names: Vec<&str> = Format::ALL.iter().map(|format| format.name()).collect();
            format!("no format is called `{name}`; there are {}", names.join(", "))
        })
    }
}

const META_COLUMNS: [&str; 8] =
    ["source", "policy", "generator", "task", "score_chosen", "score_rejected", "chosen_score", "rejected_score"];

/// Origin and scores from the columns that many families share; a value of another type is as good as none.
fn fill_meta<'a>(draft: &mut Draft<'a>, row: Struct<'a>) {
    let text = |names: &[&str]| row.first(names).as_str().filter(|text| !text.is_empty()).map(Into::into);
    draft.source = draft.source.take().or_else(|| text(&["source"]));
    draft.task = draft.task.take().or_else(|| text(&["task"]));
    draft.generator = draft.generator.take().or_else(|| text(&["generator"])).or_else(|| {
        let models = (row.get("chosen_model").as_str()?, row.get("rejected_model").as_str()?);
        (models.0 == models.1).then(|| models.0.into())
    });
    draft.policy = draft.policy.or_else(|| row.get("policy").as_str()?.parse::<Policy>().ok());
    draft.score_chosen = draft.score_chosen.or_else(|| row.first(&["score_chosen", "chosen_score"]).as_f64());
    draft.score_rejected = draft.score_rejected.or_else(|| row.first(&["score_rejected", "rejected_score"]).as_f64());
}
