//! How a file is to be read.

use std::collections::BTreeMap;

use crate::format::{Format, RankedRule};
use crate::pair::{Form, Policy};

/// How a file is to be read. The default suits most files: the format is recognised, everything else is kept.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ReadOptions {
    /// The format, or `None` to recognise it.
    pub format: Option<Format>,
    /// How rows get their `source`.
    pub source: SourceRule,
    /// How rows get their `policy`.
    pub policy: PolicyRule,
    /// [`Form::Messages`] turns bare text into messages; `None` and [`Form::Plain`] leave each format its own form.
    pub form: Option<Form>,
    /// Which pairs a list of scored or ranked responses gives.
    pub ranked: RankedRule,
    /// What becomes of columns that the canonical schema does not know.
    pub extra_columns: ExtraColumns,
    /// Columns under other names than the format's, as `format's name -> file's name`.
    pub columns: BTreeMap<String, String>,
    /// Rows to a batch, at most; fewer where rows are long. At least 1; 1024 by default.
    pub batch_rows: usize,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            format: None,
            source: SourceRule::FileStem,
            policy: PolicyRule::Default(Policy::Off),
            form: None,
            ranked: RankedRule::BestWorst,
            extra_columns: ExtraColumns::Carry,
            columns: BTreeMap::new(),
            batch_rows: 1024,
        }
    }
}

impl ReadOptions {
    /// These options, with every row given to the source `name`, whatever its `source` column says.
    #[must_use]
    pub fn with_source(mut self, name: impl Into<String>) -> Self {
        self.source = SourceRule::Always(name.into());
        self
    }

    /// These options, with every row's policy set, whatever its `policy` column says.
    #[must_use]
    pub fn with_policy(mut self, policy: Policy) -> Self {
        self.policy = PolicyRule::Always(policy);
        self
    }

    /// These options, with the format told rather than recognised.
    #[must_use]
    pub fn with_format(mut self, format: Format) -> Self {
        self.format = Some(format);
        self
    }
}

/// How rows get the name of their source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceRule {
    /// From the `source` column, else from the file's name up to its first dot.
    FileStem,
    /// From the `source` column, else this.
    Default(String),
    /// Always this.
    Always(String),
}

impl SourceRule {
    pub(crate) fn fallback<'a>(&'a self, stem: &'a str) -> &'a str {
        match self {
            SourceRule::FileStem => stem,
            SourceRule::Default(name) | SourceRule::Always(name) => name,
        }
    }
}

/// How rows get their policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyRule {
    /// From the `policy` column; else from the source's name, if it says `on-policy` or `off-policy`; else this.
    Default(Policy),
    /// Always this.
    Always(Policy),
    /// On-policy if the columns that name the models say that both responses are by one of these, else off-policy.
    Models(Vec<String>),
}

impl PolicyRule {
    /// Settles the policy of a pair that names these `models` (of chosen and rejected) and says `told`.
    pub(crate) fn decide(&self, told: Option<Policy>, models: [Option<&str>; 2]) -> Policy {
        match self {
            PolicyRule::Default(policy) => told.unwrap_or(*policy),
            PolicyRule::Always(policy) => *policy,
            PolicyRule::Models(ours) => {
                let ours = |model: &Option<&str>| model.is_some_and(|model| ours.iter().any(|name| name == model));
                if models.iter().all(ours) { Policy::On } else { Policy::Off }
            }
        }
    }
}

/// What becomes of columns that the canonical schema does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtraColumns {
    /// They follow the canonical columns, untouched. A foreign `id` becomes `original_id`.
    Carry,
    /// They are left out, and where the container allows not even decoded.
    Drop,
}
