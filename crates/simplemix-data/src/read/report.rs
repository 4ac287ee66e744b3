//! Report of reading a file.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::draft::Draft;
use crate::format::Format;
use crate::pair::Form;
use crate::problem::Problems;
use crate::read::Container;

/// Report of reading a file: the detected format, and counts of rows and pairs.
#[derive(Debug, Clone, serde::Serialize)]
#[non_exhaustive]
pub struct ReadReport {
    /// The file.
    pub path: PathBuf,
    /// Container of the file.
    pub container: Container,
    /// Format of the rows.
    pub format: Format,
    /// Form of the pairs.
    pub form: Form,
    /// Number of rows read.
    pub rows: u64,
    /// Number of pairs read.
    pub pairs: u64,
    /// Rows that gave no pair, by reason.
    pub refused: Problems,
    /// Turns whose role is spelt in another way than `system`, `user`, `assistant` or `tool`, by `spelling -> role`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub respelt_roles: BTreeMap<String, u64>,
    /// Turns with a role that is none of these and goes to the chat template as it stands, by role.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub other_roles: BTreeMap<String, u64>,
    /// Turns with a field that no chat template reads, which is left out, by field.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub unread_fields: BTreeMap<String, u64>,
    /// Scores that are texts without a number, such as `N/A`; they count as absent.
    pub unread_scores: u64,
}

impl ReadReport {
    pub(crate) fn new(path: &Path, container: Container, format: Format, form: Form) -> Self {
        let path = path.to_path_buf();
        Self {
            path,
            container,
            format,
            form,
            rows: 0,
            pairs: 0,
            refused: Problems::default(),
            respelt_roles: BTreeMap::new(),
            other_roles: BTreeMap::new(),
            unread_fields: BTreeMap::new(),
            unread_scores: 0,
        }
    }

    /// Whether everything was read as it stands: no row refused, no role respelt, no field left out.
    pub fn is_plain(&self) -> bool {
        let Self { refused, respelt_roles, other_roles, unread_fields, unread_scores, .. } = self;
        *unread_scores == 0
            && refused.is_empty()
            && respelt_roles.is_empty()
            && other_roles.is_empty()
            && unread_fields.is_empty()
    }

    /// Departures from the file's own words, beside refused rows, each part after a semicolon.
    pub fn remarks(&self) -> String {
        counted("roles in other spellings", &self.respelt_roles)
            + &counted("other roles, kept as they stand", &self.other_roles)
            + &counted("fields of turns left out", &self.unread_fields)
            + &match self.unread_scores {
                0 => String::new(),
                scores => format!("; scores that are no numbers: {scores}"),
            }
    }

    /// Counts roles and fields of the turns of a pair.
    pub(crate) fn note_turns(&mut self, draft: &Draft<'_>) {
        for turn in draft.turns() {
            if let Some(spelling) = turn.respelt {
                *self.respelt_roles.entry(format!("{spelling} -> {}", turn.role)).or_default() += 1;
            } else if !["system", "user", "assistant", "tool"].contains(&turn.role.as_ref()) {
                *self.other_roles.entry(turn.role.to_string()).or_default() += 1;
            }
            for field in &turn.unread {
                *self.unread_fields.entry((*field).to_owned()).or_default() += 1;
            }
        }
    }
}

/// Largest number of names in a line.
const NAMES: usize = 8;

/// `; WHAT: NAME COUNT, NAME COUNT`; empty without counts.
fn counted(what: &str, counts: &BTreeMap<String, u64>) -> String {
    if counts.is_empty() {
        return String::new();
    }
    let shown: Vec<String> = counts.iter().take(NAMES).map(|(name, count)| format!("{name} {count}")).collect();
    let more = if counts.len() > NAMES { format!(" and {} more", counts.len() - NAMES) } else { String::new() };
    format!("; {what}: {}{more}", shown.join(", "))
}

impl fmt::Display for ReadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, container, format, rows, pairs, refused, .. } = self;
        write!(f, "{path}: {container}, {format}: {rows} rows, {pairs} pairs", path = path.display())?;
        if !refused.is_empty() {
            write!(f, "; refused: {refused}")?;
        }
        f.write_str(&self.remarks())
    }
}
