//! The table of formats: name, form, columns and parser of each.

use crate::cell::Struct;
use crate::draft::Draft;
use crate::format::{Format, RankedRule, labelled, ranked, sharegpt, transcript, tree, trl};
use crate::pair::Form;
use crate::problem::Problem;

/// Everything that distinguishes one format from another.
pub(super) struct FormatSpec {
    pub(super) format: Format,
    pub(super) name: &'static str,
    /// Form of the pairs.
    pub(super) form: Form,
    /// Columns that must be there.
    pub(super) required: &'static [&'static str],
    /// Columns that are read if they are there.
    pub(super) optional: &'static [&'static str],
    pub(super) shape: Shape,
    pub(super) parse: Parse,
}

/// How rows become pairs.
#[derive(Clone, Copy)]
pub(crate) enum Shape {
    /// Each row by itself.
    Row,
    /// Consecutive rows with the same value in this column, together: one row that holds this column and, under
    /// [`GROUP`](super::GROUP), the rows.
    Group(&'static str),
}

/// Parser of one row, or of one group of rows.
pub(super) enum Parse {
    /// One pair.
    One(for<'a> fn(Struct<'a>) -> Result<Draft<'a>, Problem>),
    /// Pairs of several responses, as many as the rule makes.
    Ranked(for<'a> fn(Struct<'a>, RankedRule, &mut Vec<Draft<'a>>) -> Result<(), Problem>),
}

/// Defaults of most rows of the table.
const ROW: FormatSpec = FormatSpec {
    format: Format::ExplicitText,
    name: "",
    form: Form::Messages,
    required: &[],
    optional: &[],
    shape: Shape::Row,
    parse: Parse::One(trl::explicit_text),
};

/// All formats, in the order of [`Format`].
pub(super) const FORMATS: &[FormatSpec] = &[
    FormatSpec {
        format: Format::ExplicitText,
        name: "explicit-text",
        form: Form::Plain,
        required: &["prompt", "chosen", "rejected"],
        parse: Parse::One(trl::explicit_text),
        ..ROW
    },
    FormatSpec {
        format: Format::ExplicitMessages,
        name: "explicit-messages",
        required: &["prompt", "chosen", "rejected"],
        parse: Parse::One(trl::explicit_messages),
        ..ROW
    },
    FormatSpec {
        format: Format::ImplicitText,
        name: "implicit-text",
        form: Form::Plain,
        required: &["chosen", "rejected"],
        parse: Parse::One(trl::implicit_text),
        ..ROW
    },
    FormatSpec {
        format: Format::ImplicitMessages,
        name: "implicit-messages",
        required: &["chosen", "rejected"],
        parse: Parse::One(trl::implicit_messages),
        ..ROW
    },
    FormatSpec {
        format: Format::PromptAndMessages,
        name: "prompt-and-messages",
        required: &["prompt", "chosen", "rejected"],
        parse: Parse::One(trl::prompt_and_messages),
        ..ROW
    },
    FormatSpec {
        format: Format::SimpoScored,
        name: "simpo-scored",
        required: &["prompt", "chosen", "rejected"],
        optional: &["all_generated_responses", "all_rm_scores"],
        parse: Parse::One(ranked::simpo_scored),
        ..ROW
    },
    FormatSpec {
        format: Format::UltraFeedback,
        name: "ultra-feedback",
        required: &["instruction", "completions"],
        parse: Parse::Ranked(ranked::ultra_feedback),
        ..ROW
    },
    FormatSpec {
        format: Format::ArgillaRatings,
        name: "argilla-ratings",
        required: &["instruction", "chosen_response", "rejected_response"],
        parse: Parse::One(labelled::argilla_ratings),
        ..ROW
    },
    FormatSpec {
        format: Format::HhTranscripts,
        name: "hh-transcripts",
        required: &["chosen", "rejected"],
        parse: Parse::One(transcript::hh),
        ..ROW
    },
    FormatSpec {
        format: Format::Nectar,
        name: "nectar",
        required: &["prompt", "answers"],
        parse: Parse::Ranked(ranked::nectar),
        ..ROW
    },
    FormatSpec {
        format: Format::OpenAssistant,
        name: "open-assistant",
        required: &["message_tree_id", "message_id", "parent_id", "text", "role", "rank"],
        optional: &["deleted"],
        shape: Shape::Group("message_tree_id"),
        parse: Parse::Ranked(tree::open_assistant),
        ..ROW
    },
    FormatSpec {
        format: Format::Shp,
        name: "shp",
        required: &["history", "human_ref_A", "human_ref_B", "labels"],
        optional: &["domain", "score_A", "score_B"],
        parse: Parse::One(labelled::shp),
        ..ROW
    },
    FormatSpec {
        format: Format::HelpSteerRatings,
        name: "help-steer-ratings",
        required: &["prompt", "response", "helpfulness"],
        shape: Shape::Group("prompt"),
        parse: Parse::Ranked(ranked::help_steer_ratings),
        ..ROW
    },
    FormatSpec {
        format: Format::HelpSteer2Preference,
        name: "help-steer2-preference",
        required: &["prompt", "response_1", "response_2", "preference_strength"],
        parse: Parse::One(labelled::help_steer2_preference),
        ..ROW
    },
    FormatSpec {
        format: Format::HelpSteer3,
        name: "help-steer3",
        required: &["context", "response1", "response2", "overall_preference"],
        optional: &["domain"],
        parse: Parse::One(labelled::help_steer3),
        ..ROW
    },
    FormatSpec {
        format: Format::PkuBetter,
        name: "pku-better",
        required: &["prompt", "response_0", "response_1", "better_response_id"],
        parse: Parse::One(labelled::pku_better),
        ..ROW
    },
    FormatSpec {
        format: Format::PkuSafer,
        name: "pku-safer",
        required: &["prompt", "response_0", "response_1", "safer_response_id"],
        parse: Parse::One(labelled::pku_safer),
        ..ROW
    },
    FormatSpec {
        format: Format::Orca,
        name: "orca",
        required: &["chosen", "rejected"],
        optional: &labelled::QUESTIONS,
        parse: Parse::One(labelled::orca),
        ..ROW
    },
    FormatSpec {
        format: Format::ShareGptRanking,
        name: "share-gpt-ranking",
        required: &["conversations", "chosen", "rejected"],
        parse: Parse::One(sharegpt::ranking),
        ..ROW
    },
    FormatSpec {
        format: Format::AlpacaRanking,
        name: "alpaca-ranking",
        required: &["instruction", "chosen", "rejected"],
        optional: &["input", "history"],
        parse: Parse::One(labelled::alpaca_ranking),
        ..ROW
    },
    FormatSpec {
        format: Format::NemoRl,
        name: "nemo-rl",
        required: &["context", "completions"],
        parse: Parse::Ranked(ranked::nemo_rl),
        ..ROW
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_formats() {
        for (place, row) in FORMATS.iter().enumerate() {
            assert_eq!(row.format as usize, place, "{}", row.name);
        }
    }
}
