//! Reasons for refusing a row, and counts of them.

use std::collections::BTreeMap;
use std::fmt;

/// Reason why a row gave no pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Problem {
    /// Chosen and rejected are equal up to white space at the ends.
    IdenticalSides,
    /// The prompt is missing or only white space.
    EmptyPrompt,
    /// The chosen response is missing, null or only white space.
    EmptyChosen,
    /// The rejected response is missing, null or only white space.
    EmptyRejected,
    /// A turn has no role, or the role is not text.
    MissingRole,
    /// The content of a turn is null or not text.
    MissingContent,
    /// A part of a turn's content is not text, such as an image.
    ContentPart,
    /// A column such as `images` or `audio` holds something beside the texts.
    Images,
    /// `tools` or `documents` is no list of objects, or `chat_template_kwargs` no object of a template's own arguments.
    TemplateInputs,
    /// A turn has a field, such as `tool_calls`, that no earlier row of the file has, so that its column is missing.
    LateField,
    /// The last turn of a response is not the assistant's.
    LastTurnNotAssistant,
    /// Without a prompt column, one side is the beginning of the other, so that no response is left.
    OneSideIsPrefix,
    /// Without a prompt column, the sides differ from their first turn or character on.
    NoSharedPrompt,
    /// The sides answer different prompts.
    DifferentPrompts,
    /// All responses are rated the same.
    Tie,
    /// There is no usable label, score or rank.
    Unlabelled,
    /// A value of this row has a type that the format does not allow.
    WrongType,
    /// A text is JSON of turns, or turns as Python prints them, where the other rows of its column are texts.
    TurnsAsText,
    /// A column that belongs to the prompt, such as `system` or `history`, says something that the format does not read.
    UnreadColumn,
    /// A JSON string holds an escaped lone surrogate, which is not text.
    LoneSurrogate,
    /// More than a GiB of text in one row.
    TooLarge,
}

impl Problem {
    /// All problems.
    pub const ALL: [Self; 21] = [
        Self::IdenticalSides,
        Self::EmptyPrompt,
        Self::EmptyChosen,
        Self::EmptyRejected,
        Self::MissingRole,
        Self::MissingContent,
        Self::ContentPart,
        Self::Images,
        Self::TemplateInputs,
        Self::LateField,
        Self::LastTurnNotAssistant,
        Self::OneSideIsPrefix,
        Self::NoSharedPrompt,
        Self::DifferentPrompts,
        Self::Tie,
        Self::Unlabelled,
        Self::WrongType,
        Self::TurnsAsText,
        Self::UnreadColumn,
        Self::LoneSurrogate,
        Self::TooLarge,
    ];

    /// Name in reports, in kebab case.
    pub fn name(self) -> &'static str {
        match self {
            Problem::IdenticalSides => "identical-sides",
            Problem::EmptyPrompt => "empty-prompt",
            Problem::EmptyChosen => "empty-chosen",
            Problem::EmptyRejected => "empty-rejected",
            Problem::MissingRole => "missing-role",
            Problem::MissingContent => "missing-content",
            Problem::ContentPart => "content-part",
            Problem::Images => "images",
            Problem::TemplateInputs => "template-inputs",
            Problem::LateField => "late-field",
            Problem::LastTurnNotAssistant => "last-turn-not-assistant",
            Problem::OneSideIsPrefix => "one-side-is-prefix",
            Problem::NoSharedPrompt => "no-shared-prompt",
            Problem::DifferentPrompts => "different-prompts",
            Problem::Tie => "tie",
            Problem::Unlabelled => "unlabelled",
            Problem::WrongType => "wrong-type",
            Problem::TurnsAsText => "turns-as-text",
            Problem::UnreadColumn => "unread-column",
            Problem::LoneSurrogate => "lone-surrogate",
            Problem::TooLarge => "too-large",
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Counts of problems, with the first rows of each.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
#[serde(transparent)]
pub struct Problems(BTreeMap<Problem, Occurrences>);

/// Rows with the same problem.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Occurrences {
    /// Number of rows.
    pub count: u64,
    /// The first [`Occurrences::KEPT`] of the rows, counted from 0 in the file.
    pub first_rows: Vec<u64>,
}

impl Occurrences {
    /// Number of row numbers that are kept.
    pub const KEPT: usize = 5;
}

impl Problems {
    /// Counts `problem` in `row`.
    pub fn add(&mut self, problem: Problem, row: u64) {
        let entry = self.0.entry(problem).or_default();
        entry.count += 1;
        if entry.first_rows.len() < Occurrences::KEPT {
            entry.first_rows.push(row);
        }
    }

    /// Number of rows with `problem`.
    pub fn count(&self, problem: Problem) -> u64 {
        self.0.get(&problem).map_or(0, |entry| entry.count)
    }

    /// Number of problems of all kinds.
    pub fn total(&self) -> u64 {
        self.0.values().map(|entry| entry.count).sum()
    }

    /// Iterates over the problems and their rows, in a fixed order.
    pub fn iter(&self) -> impl Iterator<Item = (Problem, &Occurrences)> {
        self.0.iter().map(|(problem, entry)| (*problem, entry))
    }

    /// Whether there are no problems.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (problem, entry)) in self.iter().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            write!(f, "{comma}{problem} {count}", count = entry.count)?;
        }
        Ok(())
    }
}
