//! Formats of preference data, and the conversion of their rows to pairs.

mod detect;
mod kind;
mod labelled;
mod meta;
mod ranked;
mod sharegpt;
mod table;
mod transcript;
mod tree;
mod trl;
mod turn_fields;
mod turns;
mod turns_text;
mod unread;

pub(crate) use detect::detect;
pub(crate) use kind::{Columns, Kind};
pub(crate) use meta::{Beside, ref_rewards, unread_scores};
pub use ranked::RankedRule;
pub(crate) use table::Shape;
pub(crate) use turn_fields::{TURN_FIELDS, has_media, is_media, template_inputs};
pub(crate) use turns::{Turn, turn};
pub(crate) use unread::Unread;
pub use unread::belongs_to_prompt;

use std::fmt;
use std::str::FromStr;

use crate::cell::Struct;
use crate::draft::Draft;
use crate::pair::Form;
use crate::problem::Problem;
use table::{FORMATS, FormatSpec, Parse};

/// A format of preference data, recognised by its columns.
///
/// Files of every format may also have the canonical columns `source`, `policy`, `generator`, `task` and the scores, or
/// common other names of them, and those whose pairs are messages a column `system`, which becomes the first turn.
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
    /// Like [`Format::PromptAndMessages`], with `all_generated_responses` and `all_rm_scores`: SimPO's on-policy sets. The
    /// highest and the lowest reward are the scores of the pair; if they are equal, the row is refused.
    SimpoScored,
    /// `instruction` and `completions` with models and ratings: UltraFeedback itself. The score is the
    /// `fine-grained_score` (mean of the aspects), else `overall_score`, which is wrong for many responses rated 10.
    UltraFeedback,
    /// `instruction`, `chosen_response`, `rejected_response` and ratings: argilla's binarised preferences.
    ArgillaRatings,
    /// `chosen` and `rejected` as transcripts of `\n\nHuman:` and `\n\nAssistant:`: Anthropic's HH-RLHF.
    HhTranscripts,
    /// A transcript `prompt` and ranked `answers`: Nectar. The score is minus the rank.
    Nectar,
    /// One message per row, linked by `parent_id`: Open-Assistant. The rows of a tree must be consecutive, as in the
    /// published files. The score is minus the rank.
    OpenAssistant,
    /// `history`, `human_ref_A`, `human_ref_B`, `labels`: Stanford Human Preferences.
    Shp,
    /// One rated response per row, the rows of a prompt being consecutive: HelpSteer and HelpSteer2. The score is
    /// `helpfulness`.
    HelpSteerRatings,
    /// `prompt`, `response_1`, `response_2`, `preference_strength`: HelpSteer2's preferences.
    HelpSteer2Preference,
    /// `context`, `response1`, `response2`, `overall_preference`: HelpSteer3.
    HelpSteer3,
    /// `prompt`, `response_0`, `response_1`, `better_response_id`: PKU-SafeRLHF, by helpfulness.
    PkuBetter,
    /// `prompt`, `response_0`, `response_1`, `safer_response_id`: PKU-SafeRLHF, by safety. Never detected, only used when
    /// asked for.
    PkuSafer,
    /// `question` (or `query`, `input`), or `prompt` beside `system`; `chosen`, `rejected` as text: Intel's Orca pairs.
    Orca,
    /// `conversations`, `chosen`, `rejected` with `from` and `value`: LLaMA-Factory's ShareGPT ranking form.
    ShareGptRanking,
    /// `instruction`, `input`, `chosen`, `rejected`: LLaMA-Factory's Alpaca ranking form.
    AlpacaRanking,
    /// `context` and ranked `completions`: NeMo-RL. The score is minus the rank.
    NemoRl,
}

/// Field that holds the rows of a group, see [`Shape::Group`].
pub(crate) const GROUP: &str = "\u{1}group";

impl Format {
    /// All formats, in the order of the documentation.
    pub const ALL: [Format; FORMATS.len()] = {
        let mut all = [Format::ExplicitText; FORMATS.len()];
        let mut place = 0;
        while place < all.len() {
            all[place] = FORMATS[place].format;
            place += 1;
        }
        all
    };

    fn spec(self) -> &'static FormatSpec {
        &FORMATS[self as usize]
    }

    /// Name of the format for `--format` and in reports.
    pub fn name(self) -> &'static str {
        self.spec().name
    }

    /// Form of the pairs that this format gives.
    pub fn form(self) -> Form {
        self.spec().form
    }

    /// Columns that must be there for this format.
    pub(crate) fn required(self) -> &'static [&'static str] {
        self.spec().required
    }

    /// Whether `column` ends up in a canonical column, so that it is not carried along.
    pub(crate) fn consumes(self, column: &str) -> bool {
        let is_system = self.form() == Form::Messages && meta::SYSTEM.contains(&column);
        is_system
            || self.spec().required.contains(&column)
            || self.spec().optional.contains(&column)
            || meta::consumes(column)
    }

    /// Whether `column` must be decoded, carried or not.
    pub(crate) fn reads(self, column: &str) -> bool {
        self.consumes(column) || meta::MODELS.iter().flatten().any(|name| *name == column)
    }

    /// Whether a row gives one pair or none.
    pub(crate) fn gives_one_pair(self) -> bool {
        matches!(self.spec().parse, Parse::One(_))
    }

    pub(crate) fn shape(self) -> Shape {
        self.spec().shape
    }

    /// Adds the pairs of one row (or group of rows, see [`Format::shape`]) to `pairs`.
    pub(crate) fn drafts<'a>(
        self,
        row: Struct<'a>,
        rule: RankedRule,
        beside: Beside,
        pairs: &mut Vec<Draft<'a>>,
    ) -> Result<(), Problem> {
        let first = pairs.len();
        match self.spec().parse {
            Parse::One(parse) => pairs.push(parse(row)?),
            Parse::Ranked(parse) => parse(row, rule, pairs)?,
        }
        pairs[first..].iter_mut().try_for_each(|pair| meta::fill(pair, row, beside))
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Format {
    type Err = String;

    /// Parses the [name](Format::name) of a format; the error lists all names.
    fn from_str(name: &str) -> Result<Self, String> {
        Format::ALL.into_iter().find(|format| format.name() == name).ok_or_else(|| {
            let names: Vec<&str> = Format::ALL.iter().map(|format| format.name()).collect();
            format!("unknown format `{name}`, expected one of {}", names.join(", "))
        })
    }
}
