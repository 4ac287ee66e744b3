//! Options of reading.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use arrow::datatypes::FieldRef;

use crate::error::Result;
use crate::format::{Format, RankedRule};
use crate::pair::{Form, Policy};
use crate::read::PairReader;
use crate::schema::{Layout, schema};

/// Options of reading a file. The defaults suit most files: the format is detected and all columns are kept.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ReadOptions {
    /// Format of the file; `None` to detect it.
    pub format: Option<Format>,
    /// Rule for the `source` of a row.
    pub source: SourceRule,
    /// Rule for the `policy` of a row.
    pub policy: PolicyRule,
    /// Form of the pairs: [`Form::Messages`] turns bare text into messages; `None` and [`Form::Plain`] keep the form of the
    /// format.
    pub form: Option<Form>,
    /// Rule that makes pairs of a list of scored or ranked responses.
    pub ranked: RankedRule,
    /// Handling of columns that are not in the canonical schema.
    pub extra_columns: ExtraColumns,
    /// Names of the further columns to carry, as and in the order of the output; `None` for all.
    pub carried: Option<Vec<String>>,
    /// Columns with other names than in the format: name in the format -> name in the file.
    pub columns: BTreeMap<String, String>,
    /// Fields of turns and template inputs that batches have in any case, so that several files give the same columns; else
    /// those that the file has.
    pub layout: Option<Layout>,
    /// Maximum number of rows per batch, at least 1; 1024 by default. Batches of long rows have fewer.
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
            carried: None,
            columns: BTreeMap::new(),
            layout: None,
            batch_rows: 1024,
        }
    }
}

impl ReadOptions {
    /// Assigns all rows to the source `name`, ignoring the `source` column.
    #[must_use]
    pub fn with_source(mut self, name: impl Into<String>) -> Self {
        self.source = SourceRule::Always(name.into());
        self
    }

    /// Sets the policy of all rows, ignoring the `policy` column.
    #[must_use]
    pub fn with_policy(mut self, policy: Policy) -> Self {
        self.policy = PolicyRule::Always(policy);
        self
    }

    /// Sets the format instead of detecting it.
    #[must_use]
    pub fn with_format(mut self, format: Format) -> Self {
        self.format = Some(format);
        self
    }

    /// Options with which all these files give the same columns, and the names of those that are left out for it: further columns
    /// that not all files have, or with other types.
    ///
    /// Bare text becomes messages where any file has messages. The head of each file is read.
    ///
    /// # Errors
    /// A file cannot be opened with these options.
    pub fn alike(mut self, files: &[PathBuf]) -> Result<(Self, Vec<String>)> {
        let (mut layout, mut carried) = (Layout::from(Form::Plain), Vec::new());
        for file in files {
            let reader = PairReader::open(file, &self)?;
            if reader.report().form == Form::Messages {
                self.form = Some(Form::Messages);
                layout.form = Form::Messages;
            }
            layout.add_all(reader.layout());
            // The form may change with a later file, so only the carried columns are compared.
            let canonical = schema(reader.layout().clone()).fields().len();
            carried.push(reader.schema().fields().iter().skip(canonical).cloned().collect::<Vec<FieldRef>>());
        }
        self.layout = Some(layout);
        let is_in_all = |field: &FieldRef| carried.iter().all(|columns| columns.contains(field));
        let names = |columns: &Vec<FieldRef>, in_all: bool| -> Vec<String> {
            columns.iter().filter(|field| is_in_all(field) == in_all).map(|field| field.name().clone()).collect()
        };
        let left_out: BTreeSet<String> = carried.iter().flat_map(|columns| names(columns, false)).collect();
        self.carried = carried.first().map(|columns| names(columns, true));
        Ok((self, left_out.into_iter().collect()))
    }
}

/// Rule for the source of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceRule {
    /// The `source` column, else the file's name up to the first dot.
    FileStem,
    /// The `source` column, else this name.
    Default(String),
    /// Always this name.
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

/// Rule for the policy of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyRule {
    /// The `policy` column; else the source's name, if it contains `on-policy` or `off-policy`; else this policy.
    Default(Policy),
    /// Always this policy.
    Always(Policy),
    /// On-policy if the file says that both responses were written by one of these models, else off-policy.
    Models(Vec<String>),
}

impl PolicyRule {
    /// Policy of a pair whose responses are by these `models` and whose policy column says `told`.
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

/// Handling of columns that are not in the canonical schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtraColumns {
    /// Append them to the canonical columns, unchanged. A foreign `id` becomes `original_id`.
    Carry,
    /// Leave them out and, if the container allows, do not decode them.
    Drop,
}
