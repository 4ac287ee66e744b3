//! The families of preference data that are read, and how a row of each becomes pairs.

mod detect;
mod kind;
mod labelled;
mod meta;
mod ranked;
mod sharegpt;
mod transcript;
mod tree;
mod trl;
mod turns;

pub(crate) use detect::detect;
pub(crate) use kind::Columns;
pub use ranked::RankedRule;

use std::fmt;
use std::str::FromStr;

use crate::cell::Struct;
use crate::draft::Draft;
use crate::pair::Form;
use crate::problem::Problem;

/// A family of preference data.
///
/// Each is told by its columns; all may also carry the canonical `source`, `policy`, `generator`, `task` and score
/// columns, and their usual other names.
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
    /// `chosen`, `rejected` as messages that begin with the shared prompt (TRL's implicit conversational form;
    /// RLHFlow's sets with `chosen_score` and `rejected_score`).
    ImplicitMessages,
    /// `prompt` as text beside `chosen` and `rejected` as messages: UltraFeedback binarised, argilla's cleaned set,
    /// and the Tulu and OLMo mixes.
    PromptAndMessages,
    /// As before, with `all_generated_responses` and `all_rm_scores`: SimPO's on-policy sets. The highest and the
    /// lowest reward are the pair's scores; where they are equal the row is refused.
    SimpoScored,
    /// `instruction` and `completions` with models and ratings: UltraFeedback itself. The score is the
    /// `fine-grained_score` (mean of the aspects), else `overall_score`, which was wrong for many tens.
    UltraFeedback,
    /// `instruction`, `chosen_response`, `rejected_response` and ratings: argilla's binarised preferences.
    ArgillaRatings,
    /// `chosen` and `rejected` as transcripts of `\n\nHuman:` and `\n\nAssistant:`: Anthropic's HH-RLHF.
    HhTranscripts,
    /// A transcript `prompt` and ranked `answers`: Nectar. The score is minus the rank.
    Nectar,
    /// One message a row, linked by `parent_id`: Open-Assistant. The rows of a tree must follow each other, as they do
    /// in the published files. The score is minus the rank.
    OpenAssistant,
    /// `history`, `human_ref_A`, `human_ref_B`, `labels`: Stanford Human Preferences.
    Shp,
    /// One rated response a row, the rows of a prompt following each other: HelpSteer and HelpSteer2. The score is
    /// `helpfulness`.
    HelpSteerRatings,
    /// `prompt`, `response_1`, `response_2`, `preference_strength`: HelpSteer2's preferences.
    HelpSteer2Preference,
    /// `context`, `response1`, `response2`, `overall_preference`: HelpSteer3.
    HelpSteer3,
    /// `prompt`, `response_0`, `response_1`, `better_response_id`: PKU-SafeRLHF, by helpfulness.
    PkuBetter,
    /// The same, by `safer_response_id`; only recognised when told.
    PkuSafer,
    /// `system`, `question` (or `input`), `chosen`, `rejected`: Intel's Orca pairs.
    Orca,
    /// `conversations`, `chosen`, `rejected` with `from` and `value`: LLaMA-Factory's ShareGPT ranking form.
    ShareGptRanking,
    /// `instruction`, `input`, `chosen`, `rejected`: LLaMA-Factory's Alpaca ranking form.
    AlpacaRanking,
    /// `context` and ranked `completions`: NeMo-RL. The score is minus the rank.
    NemoRl,
}

/// The field that holds the rows of a group, see [`Shape::Group`].
pub(crate) const GROUP: &str = "\u{1}group";

/// How rows become pairs.
pub(crate) enum Shape {
    /// Each row by itself.
    Row,
    /// Rows with the same value in this column that follow each other, together: one row that holds this column and,
    /// under [`GROUP`], the rows.
    Group(&'static str),
}

impl Format {
    /// All formats, in the order of the documentation.
    pub const ALL: [Format; 21] = [
        Format::ExplicitText,
        Format::ExplicitMessages,
        Format::ImplicitText,
        Format::ImplicitMessages,
        Format::PromptAndMessages,
        Format::SimpoScored,
        Format::UltraFeedback,
        Format::ArgillaRatings,
        Format::HhTranscripts,
        Format::Nectar,
        Format::OpenAssistant,
        Format::Shp,
        Format::HelpSteerRatings,
        Format::HelpSteer2Preference,
        Format::HelpSteer3,
        Format::PkuBetter,
        Format::PkuSafer,
        Format::Orca,
        Format::ShareGptRanking,
        Format::AlpacaRanking,
        Format::NemoRl,
    ];

    /// The name that `--format` takes and reports show.
    pub fn name(self) -> &'static str {
        match self {
            Format::ExplicitText => "explicit-text",
            Format::ExplicitMessages => "explicit-messages",
            Format::ImplicitText => "implicit-text",
            Format::ImplicitMessages => "implicit-messages",
            Format::PromptAndMessages => "prompt-and-messages",
            Format::SimpoScored => "simpo-scored",
            Format::UltraFeedback => "ultra-feedback",
            Format::ArgillaRatings => "argilla-ratings",
            Format::HhTranscripts => "hh-transcripts",
            Format::Nectar => "nectar",
            Format::OpenAssistant => "open-assistant",
            Format::Shp => "shp",
            Format::HelpSteerRatings => "help-steer-ratings",
            Format::HelpSteer2Preference => "help-steer2-preference",
            Format::HelpSteer3 => "help-steer3",
            Format::PkuBetter => "pku-better",
            Format::PkuSafer => "pku-safer",
            Format::Orca => "orca",
            Format::ShareGptRanking => "share-gpt-ranking",
            Format::AlpacaRanking => "alpaca-ranking",
            Format::NemoRl => "nemo-rl",
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
            Format::ExplicitText | Format::ExplicitMessages | Format::PromptAndMessages | Format::SimpoScored => {
                &["prompt", "chosen", "rejected"]
            }
            Format::ImplicitText | Format::ImplicitMessages | Format::HhTranscripts | Format::Orca => {
                &["chosen", "rejected"]
            }
            Format::UltraFeedback => &["instruction", "completions"],
            Format::ArgillaRatings => &["instruction", "chosen_response", "rejected_response"],
            Format::Nectar => &["prompt", "answers"],
            Format::OpenAssistant => &["message_tree_id", "message_id", "parent_id", "text", "role", "rank"],
            Format::Shp => &["history", "human_ref_A", "human_ref_B", "labels"],
            Format::HelpSteerRatings => &["prompt", "response", "helpfulness"],
            Format::HelpSteer2Preference => &["prompt", "response_1", "response_2", "preference_strength"],
            Format::HelpSteer3 => &["context", "response1", "response2", "overall_preference"],
            Format::PkuBetter => &["prompt", "response_0", "response_1", "better_response_id"],
            Format::PkuSafer => &["prompt", "response_0", "response_1", "safer_response_id"],
            Format::ShareGptRanking => &["conversations", "chosen", "rejected"],
            Format::AlpacaRanking => &["instruction", "chosen", "rejected"],
            Format::NemoRl => &["context", "completions"],
        }
    }

    /// Columns that are read beside the required ones.
    fn optional(self) -> &'static [&'static str] {
        match self {
            Format::SimpoScored => &["all_generated_responses", "all_rm_scores"],
            Format::OpenAssistant => &["deleted"],
            Format::Shp => &["domain", "score_A", "score_B"],
            Format::HelpSteer3 => &["domain"],
            Format::Orca => &["system", "question", "input"],
            Format::ShareGptRanking => &["system"],
            Format::AlpacaRanking => &["system", "input", "history"],
            _ => &[],
        }
    }

    /// True if `column` ends up in a canonical column, so that it is not carried as a further one.
    pub(crate) fn consumes(self, column: &str) -> bool {
        self.required().contains(&column) || self.optional().contains(&column) || meta::consumes(column)
    }

    /// True if `column` must be decoded, whether it is carried or not.
    pub(crate) fn reads(self, column: &str) -> bool {
        self.consumes(column) || meta::MODELS.iter().flatten().any(|name| *name == column)
    }

    pub(crate) fn shape(self) -> Shape {
        match self {
            Format::OpenAssistant => Shape::Group("message_tree_id"),
            Format::HelpSteerRatings => Shape::Group("prompt"),
            _ => Shape::Row,
        }
    }

    /// Adds the pairs of one row (or group of rows, see [`Format::shape`]) to `pairs`.
    pub(crate) fn drafts<'a>(
        self,
        row: Struct<'a>,
        rule: RankedRule,
        pairs: &mut Vec<Draft<'a>>,
    ) -> Result<(), Problem> {
        let first = pairs.len();
        match self {
            Format::ExplicitText => pairs.push(trl::explicit_text(row)?),
            Format::ExplicitMessages => pairs.push(trl::explicit_messages(row)?),
            Format::ImplicitText => pairs.push(trl::implicit_text(row)?),
            Format::ImplicitMessages => pairs.push(trl::implicit_messages(row)?),
            Format::PromptAndMessages => pairs.push(trl::prompt_and_messages(row)?),
            Format::SimpoScored => pairs.push(ranked::simpo_scored(row)?),
            Format::UltraFeedback => ranked::ultra_feedback(row, rule, pairs)?,
            Format::ArgillaRatings => pairs.push(labelled::argilla_ratings(row)?),
            Format::HhTranscripts => pairs.push(transcript::hh(row)?),
            Format::Nectar => ranked::nectar(row, rule, pairs)?,
            Format::OpenAssistant => tree::open_assistant(row, rule, pairs)?,
            Format::Shp => pairs.push(labelled::shp(row)?),
            Format::HelpSteerRatings => ranked::help_steer_ratings(row, rule, pairs)?,
            Format::HelpSteer2Preference => pairs.push(labelled::help_steer2_preference(row)?),
            Format::HelpSteer3 => pairs.push(labelled::help_steer3(row)?),
            Format::PkuBetter => pairs.push(labelled::pku(row, "better_response_id")?),
            Format::PkuSafer => pairs.push(labelled::pku(row, "safer_response_id")?),
            Format::Orca => pairs.push(labelled::orca(row)?),
            Format::ShareGptRanking => pairs.push(sharegpt::ranking(row)?),
            Format::AlpacaRanking => pairs.push(labelled::alpaca_ranking(row)?),
            Format::NemoRl => ranked::nemo_rl(row, rule, pairs)?,
        }
        pairs[first..].iter_mut().for_each(|pair| meta::fill(pair, row));
        Ok(())
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
