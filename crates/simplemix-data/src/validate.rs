//! What is odd about pairs that can be read: looked for over all files that are used together.
//!
//! Rows that give no pair are [`crate::Problem`]s of reading. These here are pairs that could be trained on, and perhaps
//! should not be.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use serde::Serialize;

use crate::pair::{Pair, Text};
use crate::problem::Occurrences;

/// Something odd about a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Finding {
    /// A pair of the same texts came before, in this file or another.
    Duplicate,
    /// Its prompt is in another file too: a leak, where one is for training and one for evaluation.
    SharedPrompt,
    /// The rejected response has the higher score.
    ScoreAgainstOrder,
    /// A response is more than twenty times as long as the file's median.
    LengthOutlier,
    /// Turns do not alternate between user and assistant, after at most one of the system.
    RoleOrder,
}

impl Finding {
    /// Every finding.
    pub const ALL: [Self; 5] =
        [Self::Duplicate, Self::SharedPrompt, Self::ScoreAgainstOrder, Self::LengthOutlier, Self::RoleOrder];

    /// The stable name in reports: kebab case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Duplicate => "duplicate",
            Self::SharedPrompt => "shared-prompt",
            Self::ScoreAgainstOrder => "score-against-order",
            Self::LengthOutlier => "length-outlier",
            Self::RoleOrder => "role-order",
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Findings of one file, with counts and first pairs.
pub type Findings = BTreeMap<Finding, Occurrences>;

/// How many times the median length an outlier is.
const OUTLIER: u64 = 20;

/// Looks at the pairs of several files, one after the other.
///
/// # Examples
/// ```
/// use simplemix_data::{Finding, Pair, Policy, Validator};
/// let pair = Pair::new("2 + 2?".into(), "4".into(), "5".into(), "sums", Policy::Off);
/// let mut validator = Validator::default();
/// validator.file();
/// validator.see(&pair);
/// validator.file();
/// validator.see(&pair);
/// let found = validator.finish();
/// assert_eq!(found[1][&Finding::SharedPrompt].count, 1);
/// ```
#[derive(Debug, Clone, Default)]
pub struct Validator {
    files: Vec<FileSeen>,
    pairs: HashMap<u64, ()>,
    /// Of each prompt: the file it was first seen in, and whether it is in another.
    prompts: HashMap<u64, (u32, bool)>,
}

#[derive(Debug, Clone, Default)]
struct FileSeen {
    findings: Findings,
    /// Of each pair: its prompt and its longer response's characters.
    rows: Vec<(u64, u32)>,
}

impl Validator {
    /// The next pairs are of another file.
    pub fn file(&mut self) {
        self.files.push(FileSeen::default());
    }

    /// The next pair.
    pub fn see(&mut self, pair: &Pair) {
        if self.files.is_empty() {
            self.file();
        }
        let number = self.files.len() as u32 - 1;
        let prompt = hash_of(&pair.prompt);
        self.prompts.entry(prompt).and_modify(|(first, shared)| *shared |= *first != number).or_insert((number, false));
        let twice = self.pairs.insert(u64::from_str_radix(&pair.id[..16.min(pair.id.len())], 16).unwrap_or(prompt), ());
        let Some(file) = self.files.last_mut() else { return };
        let row = file.rows.len() as u64;
        let chars = pair.chosen.chars().max(pair.rejected.chars());
        file.rows.push((prompt, u32::try_from(chars).unwrap_or(u32::MAX)));
        for (finding, holds) in [
            (Finding::Duplicate, twice.is_some()),
            (Finding::ScoreAgainstOrder, pair.margin().is_some_and(|margin| margin < 0.0)),
            (Finding::RoleOrder, !alternates(pair)),
        ] {
            if holds {
                add(&mut file.findings, finding, row);
            }
        }
    }

    /// What was found, file by file; rows are numbers of pairs, counted from 0 in their file.
    pub fn finish(mut self) -> Vec<Findings> {
        for file in &mut self.files {
            let mut lengths: Vec<u32> = file.rows.iter().map(|(_, chars)| *chars).collect();
            lengths.sort_unstable();
            let median = lengths.get(lengths.len() / 2).copied().unwrap_or(0);
            for (row, (prompt, chars)) in file.rows.iter().enumerate() {
                if self.prompts.get(prompt).is_some_and(|(_, shared)| *shared) {
                    add(&mut file.findings, Finding::SharedPrompt, row as u64);
                }
                if u64::from(*chars) > OUTLIER * u64::from(median.max(50)) {
                    add(&mut file.findings, Finding::LengthOutlier, row as u64);
                }
            }
        }
        self.files.into_iter().map(|file| file.findings).collect()
    }
}

fn add(findings: &mut Findings, finding: Finding, row: u64) {
    let entry = findings.entry(finding).or_default();
    entry.count += 1;
    if entry.first_rows.len() < Occurrences::KEPT {
        entry.first_rows.push(row);
    }
}

/// Whether prompt and responses are one of the system at most, then user and assistant in turn.
fn alternates(pair: &Pair) -> bool {
    let Text::Messages(prompt) = &pair.prompt else { return true };
    let sides = [&pair.chosen, &pair.rejected];
    sides.iter().all(|side| {
        let Text::Messages(response) = side else { return true };
        let roles: Vec<&str> = prompt.iter().chain(response.iter()).map(|turn| turn.role.as_str()).collect();
        let rest = match roles.first() {
            Some(&"system" | &"developer") => &roles[1..],
            _ => &roles[..],
        };
        // Tools speak between calls, so a conversation with them has no fixed order.
        rest.contains(&"tool")
            || rest.iter().enumerate().all(|(i, role)| *role == if i % 2 == 0 { "user" } else { "assistant" })
    })
}

fn hash_of(text: &Text) -> u64 {
    let mut hasher = blake3::Hasher::new();
    let mut part = |text: &str| {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.trim().as_bytes());
    };
    match text {
        Text::Plain(text) => part(text),
        Text::Messages(turns) => turns.iter().for_each(|turn| {
            part(&turn.role);
            part(&turn.content);
        }),
    }
    let [a, b, c, d, e, f, g, h, ..] = *hasher.finalize().as_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pair::{Message, Policy};

    fn pair(prompt: &str, chosen: &str) -> Pair {
        let turn = |role: &str, text: &str| Text::Messages(vec![Message::new(role, text)]);
        Pair::new(turn("user", prompt), turn("assistant", chosen), turn("assistant", "no"), "s", Policy::Off)
    }

    #[test]
    fn oddities_are_found_with_their_rows() {
        let mut validator = Validator::default();
        validator.file();
        for i in 0..30 {
            validator.see(&pair(&format!("p{i}"), "yes"));
        }
        validator.see(&pair("p3", "yes"));
        validator.see(&pair("long", &"x".repeat(2000)));
        let mut against = pair("scored", "yes");
        (against.score_chosen, against.score_rejected) = (Some(1.0), Some(2.0));
        validator.see(&against);
        let mut turned = pair("turned", "yes");
        turned.prompt = Text::Messages(vec![Message::user("a"), Message::user("b")]);
        validator.see(&turned);
        validator.file();
        validator.see(&pair("p7", "another answer"));
        validator.see(&pair("fresh", "yes"));
        let found = validator.finish();
        let rows = |file: usize, finding: Finding| found[file].get(&finding).map(|o| o.first_rows.clone());
        assert_eq!(rows(0, Finding::Duplicate), Some(vec![30]));
        assert_eq!(rows(0, Finding::LengthOutlier), Some(vec![31]));
        assert_eq!(rows(0, Finding::ScoreAgainstOrder), Some(vec![32]));
        assert_eq!(rows(0, Finding::RoleOrder), Some(vec![33]));
        assert_eq!(rows(0, Finding::SharedPrompt), Some(vec![7]));
        assert_eq!(rows(1, Finding::SharedPrompt), Some(vec![0]));
        assert_eq!(rows(1, Finding::Duplicate), None);
    }

    #[test]
    fn a_system_turn_and_tools_are_in_order() {
        let mut with_system = pair("x", "yes");
        with_system.prompt = Text::Messages(vec![Message::new("system", "s"), Message::user("u")]);
        assert!(alternates(&with_system));
        with_system.prompt =
            Text::Messages(vec![Message::user("u"), Message::assistant("call"), Message::new("tool", "42")]);
        assert!(alternates(&with_system));
    }
}
