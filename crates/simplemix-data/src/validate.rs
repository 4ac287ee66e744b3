//! Checks for suspicious pairs, over all files that are used together.
//!
//! A row that gives no pair is a [`crate::Problem`] of reading. A [`Finding`] is about a pair that could be trained on, but
//! perhaps should not be.
//!
//! Two hashes and a length of each pair are kept until the end, 20 bytes; what occurs several times is then found by sorting.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt;

use serde::Serialize;

use crate::markers::Markers;
use crate::message::fields_text;
use crate::near::NearDuplicates;
use crate::pair::{Pair, Text};
use crate::problem::Occurrences;

/// Suspicious property of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Finding {
    /// A pair with the same texts came before, in this file or another.
    Duplicate,
    /// The prompt is in another file too: a leak, if one file is for training and the other for evaluation.
    SharedPrompt,
    /// A nearly equal prompt is in another file; found only with [`Validator::with_similar_prompts`].
    SimilarPrompt,
    /// The rejected response has the higher score.
    ScoreAgainstOrder,
    /// A response is more than twenty times as long as the median of the file.
    LengthOutlier,
    /// Turns do not alternate between user and assistant, after at most one system turn.
    RoleOrder,
    /// Both responses begin with the text of the prompt, which a model would then be trained to repeat.
    PromptRepeated,
    /// A text holds a special token, such as `<|im_end|>`, which tokenizers take for the token itself. In bare text the
    /// prompt, and the end of a response, may have them.
    SpecialToken,
}

impl Finding {
    /// All findings.
    pub const ALL: [Self; 8] = [
        Self::Duplicate,
        Self::SharedPrompt,
        Self::SimilarPrompt,
        Self::ScoreAgainstOrder,
        Self::LengthOutlier,
        Self::RoleOrder,
        Self::PromptRepeated,
        Self::SpecialToken,
    ];

    /// Name in reports, in kebab case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Duplicate => "duplicate",
            Self::SharedPrompt => "shared-prompt",
            Self::SimilarPrompt => "similar-prompt",
            Self::ScoreAgainstOrder => "score-against-order",
            Self::LengthOutlier => "length-outlier",
            Self::RoleOrder => "role-order",
            Self::PromptRepeated => "prompt-repeated",
            Self::SpecialToken => "special-token",
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Findings in one file, with counts and first rows.
pub type Findings = BTreeMap<Finding, Occurrences>;

/// Length of an outlier, as a multiple of the median length.
const OUTLIER: u64 = 20;

/// Checks the pairs of several files, one file after the other.
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
    near: Option<Near>,
    markers: Markers,
}

/// Prompts that are compared with similar ones.
#[derive(Debug, Clone)]
struct Near {
    duplicates: NearDuplicates,
    /// Number of each prompt.
    numbers: HashMap<u64, u32>,
    /// Files that each prompt is in, by its number.
    spreads: Vec<Spread>,
    /// Pairs of numbers of similar prompts.
    similar: Vec<(u32, u32)>,
}

/// Files that hold a prompt.
#[derive(Debug, Clone, Copy)]
enum Spread {
    In(u32),
    Several,
}

impl Spread {
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::In(a), Self::In(b)) if a == b => self,
            _ => Self::Several,
        }
    }

    /// Whether a file other than `file` is among them.
    fn elsewhere(self, file: u32) -> bool {
        match self {
            Self::In(one) => one != file,
            Self::Several => true,
        }
    }
}

#[derive(Debug, Clone, Default)]
struct FileSeen {
    findings: Findings,
    /// Hash of each row's prompt.
    prompts: Vec<u64>,
    /// Hash of each row's pair, zero for a prompt alone. Shorter than `prompts` where prompts alone come last.
    pairs: Vec<u64>,
    /// Characters of the longer response of each pair, with the same rows as `pairs`.
    chars: Vec<u32>,
}

impl Validator {
    /// Also looks for [`Finding::SimilarPrompt`]: prompts in different files whose sets of three-word shingles have an
    /// estimated Jaccard similarity of at least `threshold`, usually 0.8. Case, punctuation, white space and system turns
    /// are ignored. Needs about 0.7 kB of memory per prompt.
    #[must_use]
    pub fn with_similar_prompts(mut self, threshold: f64) -> Self {
        let duplicates = NearDuplicates::new(threshold);
        self.near = Some(Near { duplicates, numbers: HashMap::new(), spreads: Vec::new(), similar: Vec::new() });
        self
    }

    /// Looks for these special tokens of a tokenizer, in place of those of well-known ones.
    #[must_use]
    pub fn with_special_tokens(mut self, tokens: Vec<String>) -> Self {
        self.markers = Markers::of_tokenizer(tokens);
        self
    }

    /// Starts the next file.
    pub fn file(&mut self) {
        self.files.push(FileSeen::default());
    }

    /// Checks the next pair of the file.
    pub fn see(&mut self, pair: &Pair) {
        if self.files.is_empty() {
            self.file();
        }
        let row = self.prompt(&pair.prompt);
        let Some(file) = self.files.last_mut() else { return };
        let id = u64::from_str_radix(&pair.id[..16.min(pair.id.len())], 16).unwrap_or(file.prompts[row]);
        let chars = pair.chosen.chars().max(pair.rejected.chars());
        file.pairs.resize(row, 0);
        file.pairs.push(id);
        file.chars.resize(row, 0);
        file.chars.push(u32::try_from(chars).unwrap_or(u32::MAX));
        for (finding, holds) in [
            (Finding::ScoreAgainstOrder, pair.margin().is_some_and(|margin| margin < 0.0)),
            (Finding::RoleOrder, !alternates(pair)),
            (Finding::PromptRepeated, repeats_prompt(pair)),
            (Finding::SpecialToken, self.markers.are_in(pair)),
        ] {
            if holds {
                add(&mut file.findings, finding, row);
            }
        }
    }

    /// Checks the next prompt of a file of prompts, for findings about prompts only.
    pub fn see_prompt(&mut self, prompt: &Text) {
        if self.files.is_empty() {
            self.file();
        }
        self.prompt(prompt);
    }

    /// Records that the current file has this prompt, and returns the number of its row.
    fn prompt(&mut self, text: &Text) -> usize {
        let (prompt, here) = (hash_of(text), Spread::In(self.files.len() as u32 - 1));
        if let Some(near) = &mut self.near {
            near.see(prompt, text, here);
        }
        let file = self.files.last_mut().expect("a file was begun before its prompts");
        file.prompts.push(prompt);
        file.prompts.len() - 1
    }

    /// Returns the findings of each file; rows are numbers of pairs, counted from 0 in the file.
    pub fn finish(mut self) -> Vec<Findings> {
        self.find_duplicates();
        let shared = self.shared();
        let similar = self.near.as_ref().map(Near::files).unwrap_or_default();
        for (number, file) in (0u32..).zip(&mut self.files) {
            let most = OUTLIER * u64::from(file.median().max(50));
            for (row, prompt) in file.prompts.iter().enumerate() {
                if shared.binary_search(prompt).is_ok() {
                    add(&mut file.findings, Finding::SharedPrompt, row);
                }
                if similar.get(prompt).is_some_and(|spread| spread.elsewhere(number)) {
                    add(&mut file.findings, Finding::SimilarPrompt, row);
                }
                if file.chars.get(row).is_some_and(|chars| u64::from(*chars) > most) {
                    add(&mut file.findings, Finding::LengthOutlier, row);
                }
            }
        }
        self.files.into_iter().map(|file| file.findings).collect()
    }

    /// Finds pairs that came before.
    fn find_duplicates(&mut self) {
        let several = repeated(self.files.iter().flat_map(|file| file.pairs.iter().copied()).collect());
        let mut seen = vec![false; several.len()];
        for file in &mut self.files {
            for (row, pair) in file.pairs.iter().enumerate().filter(|(_, pair)| **pair != 0) {
                if let Ok(place) = several.binary_search(pair)
                    && std::mem::replace(&mut seen[place], true)
                {
                    add(&mut file.findings, Finding::Duplicate, row);
                }
            }
        }
    }

    /// Hashes of prompts that are in several files, sorted.
    fn shared(&self) -> Vec<u64> {
        if self.files.len() < 2 {
            return Vec::new();
        }
        let of_file = |file: &FileSeen| {
            let mut prompts = file.prompts.clone();
            prompts.sort_unstable();
            prompts.dedup();
            prompts
        };
        repeated(self.files.iter().flat_map(of_file).collect())
    }
}

impl FileSeen {
    /// Median length of the pairs, or of rows.
    fn median(&self) -> u32 {
        let mut lengths = self.chars.clone();
        lengths.resize(self.prompts.len(), 0);
        let middle = lengths.len() / 2;
        if lengths.is_empty() { 0 } else { *lengths.select_nth_unstable(middle).1 }
    }
}

/// Values that occur several times, sorted.
fn repeated(mut values: Vec<u64>) -> Vec<u64> {
    values.sort_unstable();
    let mut several: Vec<u64> =
        values.chunk_by(|a, b| a == b).filter(|equal| equal.len() > 1).map(|equal| equal[0]).collect();
    several.shrink_to_fit();
    several
}

impl Near {
    /// Compares a prompt of the file `here` with the earlier ones, unless it is one of them.
    fn see(&mut self, prompt: u64, text: &Text, here: Spread) {
        let number = self.spreads.len() as u32;
        if let Some(&known) = self.numbers.get(&prompt) {
            let spread = &mut self.spreads[known as usize];
            *spread = spread.and(here);
            return;
        }
        self.numbers.insert(prompt, number);
        self.spreads.push(here);
        let similar = self.duplicates.add(&asked(text));
        self.similar.extend(similar.into_iter().map(|other| (other, number)));
    }

    /// Files with similar prompts, for the hash of each prompt that has any.
    fn files(&self) -> HashMap<u64, Spread> {
        let mut files: HashMap<u32, Spread> = HashMap::new();
        for &(a, b) in &self.similar {
            for (this, other) in [(a, b), (b, a)] {
                let spread = self.spreads[other as usize];
                files.entry(this).and_modify(|files| *files = files.and(spread)).or_insert(spread);
            }
        }
        self.numbers.iter().filter_map(|(prompt, number)| Some((*prompt, *files.get(number)?))).collect()
    }
}

/// Text of a prompt without its system turn.
fn asked(prompt: &Text) -> Cow<'_, str> {
    match prompt {
        Text::Plain(text) => text.into(),
        Text::Messages(turns) => {
            let said = turns.iter().filter(|turn| turn.role != "system").map(|turn| turn.content.as_str());
            said.collect::<Vec<_>>().join("\n").into()
        }
    }
}

fn add(findings: &mut Findings, finding: Finding, row: usize) {
    let entry = findings.entry(finding).or_default();
    entry.count += 1;
    if entry.first_rows.len() < Occurrences::KEPT {
        entry.first_rows.push(row as u64);
    }
}

/// Whether prompt and responses are at most one system turn, then user and assistant in turn.
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
        // Conversations with tool calls have no fixed order.
        rest.contains(&"tool")
            || rest.iter().enumerate().all(|(i, role)| *role == if i % 2 == 0 { "user" } else { "assistant" })
    })
}

/// Whether both responses begin with the text of the prompt, or of its last turn.
fn repeats_prompt(pair: &Pair) -> bool {
    fn last(text: &Text) -> &str {
        match text {
            Text::Plain(text) => text.trim(),
            Text::Messages(turns) => turns.last().map_or("", |turn| turn.content.trim()),
        }
    }
    fn first(text: &Text) -> &str {
        match text {
            Text::Plain(text) => text.trim_start(),
            Text::Messages(turns) => turns.first().map_or("", |turn| turn.content.trim_start()),
        }
    }
    let prompt = last(&pair.prompt);
    !prompt.is_empty() && [&pair.chosen, &pair.rejected].iter().all(|side| first(side).starts_with(prompt))
}

/// Hash of a prompt without white space at the ends of its texts. One turn of the user is the same prompt as its bare text.
fn hash_of(text: &Text) -> u64 {
    let mut hasher = blake3::Hasher::new();
    let mut part = |text: &str| {
        let text = text.trim();
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    };
    match text {
        Text::Plain(text) => part(text),
        Text::Messages(turns) => match &turns[..] {
            [turn] if turn.role == "user" && fields_text(&turn.fields).is_none() => part(&turn.content),
            turns => turns.iter().for_each(|turn| {
                part(&turn.role);
                part(&turn.content);
                if let Some(fields) = fields_text(&turn.fields) {
                    part(&fields);
                }
            }),
        },
    }
    let [a, b, c, d, e, f, g, h, ..] = *hasher.finalize().as_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Message;
    use crate::pair::Policy;

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
    fn prompts_that_differ_a_little_are_found_over_files_only() {
        let mut validator = Validator::default().with_similar_prompts(0.8);
        let long = "Tom has twelve apples and gives five of them to Ann, who eats two; how many apples are left over?";
        validator.file();
        validator.see(&pair(long, "yes"));
        validator.see(&pair("What is the name of the river that runs through Prague and Dresden?", "yes"));
        validator.see(&pair("what is the name of the river, that runs through Prague and Dresden", "yes"));
        validator.file();
        validator.see(&pair("Something else", "yes"));
        validator.see(&pair(&long.to_lowercase().replace("over?", "over"), "yes"));
        let found = validator.finish();
        let rows = |file: usize| found[file].get(&Finding::SimilarPrompt).map(|o| o.first_rows.clone());
        assert_eq!((rows(0), rows(1)), (Some(vec![0]), Some(vec![1])));
        assert!(!found[0].contains_key(&Finding::SharedPrompt));
    }

    #[test]
    fn a_prompt_is_the_same_as_text_and_as_a_message() {
        let plain = |prompt: &str| Pair::new(prompt.into(), "yes".into(), "no".into(), "s", Policy::Off);
        let mut validator = Validator::default();
        validator.file();
        validator.see(&plain("  a question\n"));
        validator.see(&plain("another"));
        validator.file();
        validator.see(&pair("a question", "yes"));
        let found = validator.finish();
        let rows = |file: usize| found[file].get(&Finding::SharedPrompt).map(|o| o.first_rows.clone());
        assert_eq!((rows(0), rows(1)), (Some(vec![0]), Some(vec![0])));
    }

    #[test]
    fn prompts_that_both_responses_repeat_are_found() {
        let plain = |chosen: &str, rejected: &str| {
            Pair::new("Q: 1?\nA:".into(), chosen.into(), rejected.into(), "s", Policy::Off)
        };
        assert!(repeats_prompt(&plain("Q: 1?\nA: 2", "Q: 1?\nA: 3")));
        assert!(!repeats_prompt(&plain("Q: 1?\nA: 2", " 3")));
        let mut turns = pair("1?", "1? It is 2.");
        assert!(!repeats_prompt(&turns));
        turns.rejected = Text::Messages(vec![Message::assistant("1? I do not know.")]);
        assert!(repeats_prompt(&turns));
    }

    #[test]
    fn special_tokens_are_found_where_no_template_writes_them() {
        let found = |validator: Validator, pair: &Pair| {
            let mut validator = validator;
            validator.see(pair);
            validator.finish()[0].contains_key(&Finding::SpecialToken)
        };
        let well_known = |pair: &Pair| found(Validator::default(), pair);
        assert!(well_known(&pair("what does <|im_end|> mean?", "yes")));
        assert!(well_known(&pair("a", "b [INST] c")));
        assert!(!well_known(&pair("a <b> | c", "[x] <|y")));
        let own = |pair: &Pair| found(Validator::default().with_special_tokens(vec!["<end>".to_owned()]), pair);
        assert!(own(&pair("a", "b<end>")));
        assert!(!own(&pair("<|im_end|>", "b")));
        // Bare text is what the tokenizer sees: a rendered prompt and the end of a response are as they should be.
        let plain =
            |chosen: &str| Pair::new("<|user|>a<|assistant|>".into(), chosen.into(), "no".into(), "s", Policy::Off);
        assert!(!well_known(&plain("b<|end|>\n")));
        assert!(well_known(&plain("b<|end|>c")));
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
