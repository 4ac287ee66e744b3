//! The synthetic language: prompts of three kinds, programs that write answers to them, and known rewards.
//!
//! | prompt | answer | reward |
//! | --- | --- | --- |
//! | `123+456=` | `#0579` after seven characters of working | 1 if the digits after `#` are the sum |
//! | `<abcde=` | `#edcba` after six characters of working | 1 if the letters after `#` are the reverse |
//! | `?aBcD=` | ten letters | 0 to 1, see [`reward`] |
//!
//! The first two are the task `reasoning`, the third is `open`. All answers to a prompt have the same length, so that no
//! arm gains by length. The first character of the working names its style.

use std::collections::BTreeSet;

use rand::RngExt;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;
use simplemix::data::Text;
use simplemix::rollout::{Prompt, Rule};

/// Characters that are a token each, in the order of their ids; the end of a sequence comes after them.
pub(crate) const CHARACTERS: &str = "0123456789abcdefghijklABCDEFGHIJKLuvwxyzUVWXYZ+=#<?.:;";
/// Letters that prompts are made of.
const LETTERS: &[u8; 24] = b"abcdefghijklABCDEFGHIJKL";
/// Letters that the policies' corpus hardly has, lower case and upper case.
const FOREIGN: [&[u8; 6]; 2] = [b"uvwxyz", b"UVWXYZ"];
/// Letters of an open-ended answer.
const OPEN_LETTERS: usize = 10;
/// Foreign letters of an open-ended answer that earn the whole of their half of the reward.
const FOREIGN_WANTED: f64 = 3.0;
/// Longest answer in tokens, with room to fail to end.
pub(crate) const MAX_NEW_TOKENS: usize = 16;

pub(crate) const REASONING: &str = "reasoning";
pub(crate) const OPEN: &str = "open";
pub(crate) const TASKS: [&str; 2] = [REASONING, OPEN];

/// Use of a prompt. No prompt has two uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    Pretraining,
    Pairs,
    HeldOut,
    TuningPairs,
    TuningHeldOut,
}

/// Hash of a prompt, FNV-1a with a last mixing step, modulo 8.
fn bucket(prompt: &str) -> u64 {
    let hash = prompt
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    (hash ^ (hash >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 61
}

impl Use {
    fn has(self, prompt: &str) -> bool {
        match (self, bucket(prompt)) {
            (Self::Pretraining, 0..=3) => true,
            (own, number) => [Self::Pairs, Self::HeldOut, Self::TuningPairs, Self::TuningHeldOut]
                .iter()
                .zip(4..)
                .any(|(other, theirs)| *other == own && theirs == number),
        }
    }
}

/// A prompt of a task.
pub(crate) fn prompt(task: &str, part: Use, rng: &mut ChaCha8Rng) -> String {
    loop {
        let text = match task {
            OPEN => format!("?{}=", letters(4, rng)),
            _ if rng.random_bool(0.7) => {
                format!("{:03}+{:03}=", rng.random_range(0..1000), rng.random_range(0..1000))
            }
            _ => format!("<{}=", letters(5, rng)),
        };
        if part.has(&text) {
            return text;
        }
    }
}

/// `count` different prompts of a task, for sampling; none of `before`.
pub(crate) fn prompts(
    task: &str,
    part: Use,
    count: usize,
    before: &mut BTreeSet<String>,
    rng: &mut ChaCha8Rng,
) -> Vec<Prompt> {
    let mut all = Vec::with_capacity(count);
    while all.len() < count {
        let text = prompt(task, part, rng);
        if before.insert(text.clone()) {
            all.push(Prompt::new(text.as_str(), text.as_str()).with_task(task));
        }
    }
    all
}

fn letters(count: usize, rng: &mut ChaCha8Rng) -> String {
    let mut all = *LETTERS;
    all.shuffle(rng);
    all.iter().take(count).map(|&letter| char::from(letter)).collect()
}

/// Way of writing the working of a reasoning answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Style {
    /// Dots: the answer alone.
    Direct,
    /// Digits and carries from the right; the reverse once as a draft.
    Chain,
    /// Sums of the columns from the left; the letters as they are asked.
    Columns,
}

pub(crate) const STYLES: [Style; 3] = [Style::Direct, Style::Chain, Style::Columns];

impl Style {
    pub(crate) fn of(answer: &str) -> Option<Self> {
        match answer.chars().next()? {
            '.' => Some(Self::Direct),
            ':' => Some(Self::Chain),
            ';' => Some(Self::Columns),
            _ => None,
        }
    }
}

/// A program that writes answers, of which corpora are made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Writer {
    /// Shares of the styles in the order of [`STYLES`].
    pub(crate) styles: [f64; 3],
    /// Probability of an error in each column, or letter.
    pub(crate) error: f64,
    /// Range of the quality of open-ended answers, 0 to 1.
    pub(crate) quality: (f64, f64),
    /// Probability that an open-ended letter is foreign.
    pub(crate) foreign: f64,
}

impl Writer {
    pub(crate) fn answer(&self, prompt: &str, rng: &mut ChaCha8Rng) -> String {
        match asked(prompt) {
            Asked::Sum(a, b) => self.sum(a, b, rng),
            Asked::Reverse(letters) => self.reverse(letters, rng),
            Asked::Open(letters) => self.open(letters, rng),
            Asked::Nothing => String::new(),
        }
    }

    fn style(&self, rng: &mut ChaCha8Rng) -> Style {
        let mut left = rng.random::<f64>() * self.styles.iter().sum::<f64>();
        let drawn = STYLES.iter().zip(self.styles).find(|(_, share)| {
            left -= share;
            left < 0.0
        });
        drawn.map_or(Style::Direct, |(style, _)| *style)
    }

    fn sum(&self, a: u32, b: u32, rng: &mut ChaCha8Rng) -> String {
        let (mut carry, mut digits, mut chain, mut columns) = (0, String::new(), String::new(), String::new());
        for place in [1, 10, 100] {
            let column = a / place % 10 + b / place % 10;
            columns.insert_str(0, &format!("{column:02}"));
            let mut found = column + carry;
            if rng.random_bool(self.error) {
                found = if rng.random_bool(0.5) { found + 1 } else { found.saturating_sub(1) }.min(19);
            }
            carry = found / 10;
            digits.insert_str(0, &(found % 10).to_string());
            chain.push_str(&format!("{}{carry}", found % 10));
        }
        match self.style(rng) {
            Style::Direct => format!(".......#{carry}{digits}"),
            Style::Chain => format!(":{chain}#{carry}{digits}"),
            Style::Columns => format!(";{columns}#{carry}{digits}"),
        }
    }

    fn reverse(&self, letters: &str, rng: &mut ChaCha8Rng) -> String {
        let mut slip = |letter: char| match rng.random_bool(self.error * 0.6) {
            true => LETTERS.choose(rng).map_or(letter, |&other| char::from(other)),
            false => letter,
        };
        let reversed: String = letters.chars().rev().map(&mut slip).collect();
        match self.style(rng) {
            Style::Direct => format!("......#{reversed}"),
            Style::Chain => format!(":{reversed}#{reversed}"),
            Style::Columns => format!(";{letters}#{reversed}"),
        }
    }

    fn open(&self, asked: &str, rng: &mut ChaCha8Rng) -> String {
        let quality = rng.random_range(self.quality.0..=self.quality.1);
        let mut todo: Vec<char> = asked.chars().filter(|_| rng.random_bool(0.2 + 0.8 * quality)).collect();
        todo.shuffle(rng);
        let (mut answer, mut upper) = (String::new(), rng.random_bool(0.5));
        for _ in 0..OPEN_LETTERS {
            let fit = todo.iter().position(|letter| letter.is_ascii_uppercase() == upper);
            let letter = match fit.filter(|_| rng.random_bool(0.3 + 0.6 * quality)) {
                Some(place) => todo.swap_remove(place),
                None => self.filler(upper, quality, &answer, &todo, rng),
            };
            answer.push(letter);
            upper ^= rng.random_bool(0.5 + 0.5 * quality);
        }
        answer
    }

    fn filler(&self, upper: bool, quality: f64, answer: &str, todo: &[char], rng: &mut ChaCha8Rng) -> char {
        let pool: Vec<char> = match rng.random_bool(self.foreign) {
            true => FOREIGN[usize::from(upper)].iter().map(|&letter| char::from(letter)).collect(),
            false => {
                LETTERS.iter().map(|&letter| char::from(letter)).filter(|l| l.is_ascii_uppercase() == upper).collect()
            }
        };
        let is_new = |letter: &&char| !answer.contains(**letter) && !todo.contains(letter);
        let new: Vec<char> = pool.iter().filter(is_new).copied().collect();
        let from = if !new.is_empty() && rng.random_bool(quality) { &new } else { &pool };
        from.choose(rng).copied().unwrap_or('a')
    }
}

/// Content of a prompt.
enum Asked<'a> {
    Sum(u32, u32),
    Reverse(&'a str),
    Open(&'a str),
    Nothing,
}

fn asked(prompt: &str) -> Asked<'_> {
    let Some(text) = prompt.strip_suffix('=') else { return Asked::Nothing };
    if let Some(letters) = text.strip_prefix('<') {
        return Asked::Reverse(letters);
    }
    if let Some(letters) = text.strip_prefix('?') {
        return Asked::Open(letters);
    }
    let numbers = text.split_once('+').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    numbers.map_or(Asked::Nothing, |(a, b)| Asked::Sum(a, b))
}

/// Whether a prompt asks for a sum.
pub(crate) fn is_sum(prompt: &str) -> bool {
    matches!(asked(prompt), Asked::Sum(..))
}

/// Reward of an answer, 0 to 1. Reasoning: 1 if it is right. Open-ended, of the first ten characters: half for foreign
/// letters, up to three; a fifth for the share of the asked letters that it has, 0.15 for the share of different letters,
/// 0.15 for the share of changes between lower and upper case.
pub(crate) fn reward(prompt: &str, answer: &str) -> f64 {
    let right = |truth: &str| f64::from(u8::from(answer.split_once('#').is_some_and(|(_, stated)| stated == truth)));
    match asked(prompt) {
        Asked::Sum(a, b) => right(&format!("{:04}", a + b)),
        Asked::Reverse(letters) => right(&letters.chars().rev().collect::<String>()),
        Asked::Open(letters) => open_reward(letters, answer),
        Asked::Nothing => 0.0,
    }
}

fn open_reward(asked: &str, answer: &str) -> f64 {
    let written: Vec<char> = answer.chars().take(OPEN_LETTERS).filter(char::is_ascii_alphabetic).collect();
    let covered = asked.chars().filter(|letter| written.contains(letter)).count() as f64 / asked.len().max(1) as f64;
    let different = written.iter().collect::<BTreeSet<_>>().len() as f64 / OPEN_LETTERS as f64;
    let changes =
        written.windows(2).filter(|two| two[0].is_ascii_uppercase() != two[1].is_ascii_uppercase()).count() as f64;
    let base = 0.4 * covered + 0.3 * different + 0.3 * changes / (OPEN_LETTERS - 1) as f64;
    let foreign = written.iter().filter(|letter| is_foreign(**letter)).count() as f64;
    0.5 * base + 0.5 * (foreign / FOREIGN_WANTED).min(1.0)
}

pub(crate) fn is_foreign(letter: char) -> bool {
    FOREIGN.iter().any(|letters| letters.iter().any(|&foreign| char::from(foreign) == letter))
}

/// Text of a prompt of this language.
pub(crate) fn text(prompt: &Text) -> &str {
    match prompt {
        Text::Plain(text) => text,
        Text::Messages(_) => "",
    }
}

/// The rewards as a scorer.
pub(crate) struct World;

impl Rule for World {
    fn name(&self) -> &str {
        "world"
    }

    fn score(&self, prompt: &Prompt, response: &str) -> simplemix::rollout::Result<f64> {
        Ok(reward(text(&prompt.prompt), response))
    }
}
