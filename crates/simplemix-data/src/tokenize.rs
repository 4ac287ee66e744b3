//! Tokenises pairs as TRL 1.16 does for DPO.
//!
//! Three texts are tokenised for a pair: the prompt (for a conversation, rendered with the generation prompt), prompt and
//! chosen, prompt and rejected. The tokens of a response are those that follow the prompt's tokens. Plain responses get
//! the end-of-sequence token appended unless they end in it; conversations end as their template writes them.
//!
//! The tokens of the prompt alone need not be the first tokens of prompt and response together: tokens can merge across
//! the boundary, and a template may render a prompt differently when a response follows. [`Boundary`] selects how this
//! case is handled.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde_json::Value;
use tokenizers::Tokenizer;

use crate::error::{Error, Result};
use crate::guard::guarded;
use crate::message::{Message, TemplateInputs};
use crate::pair::{Form, Pair, Text};
use crate::template::{ChatTemplate, SpecialTokens, day_of, source, today};
use crate::token_set::TokenRow;
use crate::tokenizer::{self, Loaded, Other, TokenizerAs};

/// Tokenising rules. Everything that is not set here follows TRL's default.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct TokenizeOptions {
    /// Maximum number of tokens of prompt and response together; 1024 by default, as in TRL.
    pub max_length: usize,
    /// Handling of longer pairs.
    pub truncation: Truncation,
    /// Handling of prompts whose tokens change when a response follows.
    pub boundary: Boundary,
    /// Reading of a tokenizer that transformers 5 builds anew by its class.
    pub tokenizer_as: TokenizerAs,
    /// Handling of pairs that the chat template refuses.
    pub on_refused: OnTemplateRefusal,
}

impl Default for TokenizeOptions {
    fn default() -> Self {
        Self {
            max_length: 1024,
            truncation: Truncation::KeepStart,
            boundary: Boundary::Trl,
            tokenizer_as: TokenizerAs::File,
            on_refused: OnTemplateRefusal::Fail,
        }
    }
}

/// Handling of a pair that the chat template refuses, as those do that know no system turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnTemplateRefusal {
    /// Fail with [`Error::Refused`], which names the row and the template's words.
    Fail,
    /// Drop the pair and count it under [`DropReason::TemplateRefused`].
    Skip,
}

/// Handling of a pair that is longer than the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Truncation {
    /// Cut off the end of the response, as TRL does, and count the pair as cut.
    KeepStart,
    /// Drop the pair and count it under [`DropReason::TooLong`].
    Drop,
}

/// Handling of a prompt whose tokens are not the first tokens of prompt and response together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Boundary {
    /// Fail with an error that shows the tokens that differ.
    Strict,
    /// Start both responses at the first token that differs in either of them, and leave out the end of the prompt, as
    /// TRL 1.16 does. Counted in [`TokenizedSet::shifted`].
    Trl,
    /// Drop the pair and count it under [`DropReason::Boundary`].
    Drop,
}

/// Reason why a pair was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DropReason {
    /// The prompt alone reaches the length limit.
    PromptFillsLength,
    /// Prompt and response exceed the limit, under [`Truncation::Drop`].
    TooLong,
    /// The tokens of the prompt change when a response follows, under [`Boundary::Drop`].
    Boundary,
    /// The prompt has no tokens, so that the first token of a response has no context.
    EmptyPrompt,
    /// A response has no tokens.
    EmptyResponse,
    /// Both responses have the same tokens, possibly only after being cut.
    IdenticalTokens,
    /// The chat template refuses the conversation, under [`OnTemplateRefusal::Skip`].
    TemplateRefused,
}

impl DropReason {
    /// All reasons.
    pub const ALL: [Self; 7] = [
        DropReason::PromptFillsLength,
        DropReason::TooLong,
        DropReason::Boundary,
        DropReason::EmptyPrompt,
        DropReason::EmptyResponse,
        DropReason::IdenticalTokens,
        DropReason::TemplateRefused,
    ];

    /// Name in reports, in kebab case.
    pub fn name(self) -> &'static str {
        match self {
            DropReason::PromptFillsLength => "prompt-fills-length",
            DropReason::TooLong => "too-long",
            DropReason::Boundary => "boundary",
            DropReason::EmptyPrompt => "empty-prompt",
            DropReason::EmptyResponse => "empty-response",
            DropReason::IdenticalTokens => "identical-tokens",
            DropReason::TemplateRefused => "template-refused",
        }
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A pair as token ids. The sequences to be scored are `prompt` followed by `chosen`, and `prompt` followed by
/// `rejected`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TokenizedPair {
    /// Tokens of the prompt, shared by both responses.
    pub prompt: Vec<u32>,
    /// Tokens of the chosen response.
    pub chosen: Vec<u32>,
    /// Tokens of the rejected response.
    pub rejected: Vec<u32>,
    /// Whether the end of a response was cut off.
    pub cut: bool,
    /// Whether the end of the prompt was left out, under [`Boundary::Trl`].
    pub shifted: bool,
}

/// Result of tokenising one pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The pair is kept, possibly cut.
    Kept(TokenizedPair),
    /// The pair is dropped.
    Dropped(DropReason),
}

/// Tokenised pairs, and counts of the dropped ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenizedSet {
    /// Kept pairs, each with its index in the input, in order.
    pub pairs: Vec<(usize, TokenizedPair)>,
    /// Number of dropped pairs, by reason.
    pub dropped: BTreeMap<DropReason, usize>,
    /// Number of kept pairs with a truncated response.
    pub cut: usize,
    /// Number of kept pairs that lost the end of the prompt, under [`Boundary::Trl`].
    pub shifted: usize,
}

impl TokenizedSet {
    /// Adds the outcome of the pair at `index`.
    fn add(&mut self, index: usize, outcome: Outcome) {
        match outcome {
            Outcome::Kept(pair) => {
                self.cut += usize::from(pair.cut);
                self.shifted += usize::from(pair.shifted);
                self.pairs.push((index, pair));
            }
            Outcome::Dropped(reason) => *self.dropped.entry(reason).or_default() += 1,
        }
    }
}

/// Pairs that are tokenised between two reports of progress.
const PAIRS_AT_A_TIME: usize = 1024;

/// Tells the progress of tokenising.
fn tell(done: usize, total: usize) {
    tracing::trace!(target: "simplemix::progress", stage = "tokenising", done, total);
}

/// Tokenizer of a model, with its chat template and the tokenising rules. It can be shared between threads.
pub struct PairTokenizer {
    path: PathBuf,
    dir: PathBuf,
    tokenizer: Tokenizer,
    /// The tokenizer under the reading that is not used, where it is different.
    other: Option<Other>,
    /// Number of tokens that the tokenizer adds after every text.
    added_after: usize,
    notices: Vec<String>,
    key: String,
    template: Option<ChatTemplate>,
    special_tokens: SpecialTokens,
    eos_ids: Vec<u32>,
    options: TokenizeOptions,
}

impl fmt::Debug for PairTokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PairTokenizer")
            .field("path", &self.path)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl PairTokenizer {
    /// Loads `tokenizer.json`, the chat template, special tokens and end-of-sequence ids from a Hugging Face model folder.
    /// Truncation and padding that `tokenizer.json` asks for are turned off.
    ///
    /// # Errors
    /// [`Error::ModelFile`] if there is no `tokenizer.json`, [`Error::Tokenizer`] or [`Error::Damaged`] if it cannot be loaded,
    /// [`Error::Template`] if the chat template does not parse, [`Error::ModelConfig`] for a damaged JSON file,
    /// [`Error::Value`] if `max_length` is 0.
    pub fn from_dir(dir: impl AsRef<Path>, options: TokenizeOptions) -> Result<Self> {
        Self::from_folder(dir.as_ref(), options)
    }

    fn from_folder(dir: &Path, options: TokenizeOptions) -> Result<Self> {
        if options.max_length == 0 {
            let (found, expected) = ("0".to_owned(), "a limit of at least 2 tokens");
            return Err(Error::Value { row: 0, column: "max_length", found, expected });
        }
        let path = dir.join("tokenizer.json");
        let Loaded { tokenizer, other, special_tokens, notices, key } = tokenizer::load(dir, options.tokenizer_as)?;
        let added_after = guarded(&path, || added_after(&tokenizer).map_err(tokenizer_error(&path)))?;
        let template = match ChatTemplate::from_dir(dir) {
            Ok(template) => Some(dated(template.with_special_tokens(special_tokens.clone()), today())?),
            Err(Error::NoTemplate { .. }) => None,
            Err(error) => return Err(error),
        };
        let eos_ids = eos_ids(dir, &tokenizer, &special_tokens)?;
        let dir = dir.to_path_buf();
        Ok(Self { path, dir, tokenizer, other, added_after, notices, key, template, special_tokens, eos_ids, options })
    }

    /// Replaces the chat template of the folder.
    #[must_use]
    pub fn with_template(mut self, template: ChatTemplate) -> Self {
        let template = template.with_special_tokens(self.special_tokens.clone());
        self.template = Some(match template.date() {
            None => dated(template, today()).expect("today is a date"),
            Some(_) => template,
        });
        self
    }

    /// Replaces the end-of-sequence token of the folder by another token of its vocabulary. Those of its configurations still end a
    /// response too.
    ///
    /// # Errors
    /// [`Error::Value`] if there is no such token.
    pub fn with_eos_token(mut self, token: &str) -> Result<Self> {
        let id = self.tokenizer.token_to_id(token).ok_or_else(|| Error::Value {
            row: 0,
            column: "eos_token",
            found: format!("`{token}`"),
            expected: "a token of the tokenizer",
        })?;
        self.special_tokens.set("eos_token", token);
        let tokens = self.special_tokens.clone();
        self.template = self.template.map(|template| template.with_special_tokens(tokens));
        self.eos_ids.push(id);
        self.eos_ids.sort_unstable();
        self.eos_ids.dedup();
        Ok(self)
    }

    /// Fixes the date that the chat template sees, as `2026-01-31`; without it, the day on which the folder was loaded.
    ///
    /// # Errors
    /// [`Error::Value`] if it is no such date.
    pub fn with_date(mut self, date: &str) -> Result<Self> {
        let day = day_of(date)?;
        self.template = self.template.map(|template| dated(template, day)).transpose()?;
        Ok(self)
    }

    /// The date that the chat template sees, if it looks at the date.
    pub fn date(&self) -> Option<String> {
        let (year, month, day) = self.template.as_ref().filter(|template| template.uses_date())?.date()?;
        Some(format!("{year:04}-{month:02}-{day:02}"))
    }

    /// A sentence that says how many of `pairs` are plain text and do without the chat template that there is; `None` if no pair
    /// is.
    pub fn plain_text_notice(&self, pairs: &[Pair]) -> Option<String> {
        let plain = pairs.iter().filter(|pair| pair.form() == Form::Plain).count();
        (plain > 0 && self.template.is_some()).then(|| {
            format!(
                "{plain} pairs are plain text and are taken as they stand, as TRL does, without the model's chat template; \
                 --messages makes them messages"
            )
        })
    }

    /// Facts about the tokenizer's folder that the user should know.
    pub fn folder_notices(&self) -> &[String] {
        &self.notices
    }

    /// A sentence that says how many of `pairs` have other token ids in transformers 5, or by `tokenizer.json`: by the reading that
    /// [`TokenizerAs`] does not select. At most 256 of the pairs are looked at. `None` if there is no difference.
    ///
    /// # Errors
    /// [`Error::Tokenizer`].
    pub fn reading_notice(&self, pairs: &[Pair]) -> Result<Option<String>> {
        self.differences("pairs", pairs, |pair| {
            // A pair that the template refuses is reported where it is tokenised.
            let text = |response| self.joined(&pair.prompt, response, &pair.inputs).ok();
            [&pair.chosen, &pair.rejected].into_iter().filter_map(text).collect()
        })
    }

    /// Like [`PairTokenizer::reading_notice`], of prompts that responses will be sampled to.
    ///
    /// # Errors
    /// [`Error::Tokenizer`].
    pub fn prompts_reading_notice(&self, prompts: &[(&Text, &TemplateInputs)]) -> Result<Option<String>> {
        self.differences("prompts", prompts, |(prompt, inputs)| {
            self.prompt_text(prompt, inputs).ok().into_iter().collect()
        })
    }

    /// Like [`PairTokenizer::reading_notice`], of texts that are tokenised by themselves, without special tokens.
    ///
    /// # Errors
    /// [`Error::Tokenizer`].
    pub fn texts_reading_notice(&self, texts: &[String]) -> Result<Option<String>> {
        self.differences("texts", texts, |text| vec![(text.clone(), false)])
    }

    /// Looks at the `texts` of some of `all`, which are `things`, under both readings.
    fn differences<T: Sync>(
        &self,
        things: &str,
        all: &[T],
        texts: impl Fn(&T) -> Vec<(String, bool)> + Sync,
    ) -> Result<Option<String>> {
        let Some(other) = &self.other else { return Ok(None) };
        let looked_at: Vec<&T> = all.iter().step_by(all.len().div_ceil(256).max(1)).collect();
        let found: Vec<Option<String>> =
            looked_at.par_iter().map(|one| self.difference(other, &texts(one))).collect::<Result<_>>()?;
        let different = found.iter().flatten().count();
        let Some(example) = found.into_iter().flatten().next() else { return Ok(None) };
        let (number, class) = (looked_at.len(), other.class);
        Ok(Some(match self.options.tokenizer_as {
            TokenizerAs::File => format!(
                "{different} of {number} {things} looked at have other token ids in transformers 5, which builds this tokenizer anew \
                 as `{class}` and leaves the pre-tokenizer of tokenizer.json aside: {example}; --tokenizer-as transformers takes \
                 its ids"
            ),
            TokenizerAs::Transformers => format!(
                "{different} of {number} {things} looked at have other token ids by tokenizer.json than in transformers 5, which \
                 builds this tokenizer anew as `{class}`: {example}; --tokenizer-as file takes those of the file"
            ),
        }))
    }

    /// The first tokens of `texts` that differ between the two readings, in words.
    fn difference(&self, other: &Other, texts: &[(String, bool)]) -> Result<Option<String>> {
        for (text, special) in texts {
            let ours = self.ids(text, *special)?;
            let theirs = match encoded(&other.tokenizer, &self.path, text, *special) {
                Ok(theirs) => theirs,
                Err(error) => return Ok(Some(format!("ids here, and an error there, `{error}`"))),
            };
            if ours != theirs {
                let start = common_prefix(&ours, &theirs);
                let show = |tokenizer: &Tokenizer, ids: &[u32]| {
                    let tokens: Vec<String> =
                        ids.iter().skip(start).take(3).filter_map(|&id| tokenizer.id_to_token(id)).collect();
                    format!("{tokens:?}")
                };
                let (here, there) = (show(&self.tokenizer, &ours), show(&other.tokenizer, &theirs));
                return Ok(Some(format!("{here} here, {there} there")));
            }
        }
        Ok(None)
    }

    /// Sentences that say how many prompts begin with two begin-of-sequence tokens, and how many responses end in two
    /// end-of-sequence tokens.
    pub fn repeated_notices<'a>(&self, rows: impl Iterator<Item = TokenRow<'a>>) -> Vec<String> {
        let id = |name: &str| self.special_tokens.get(name).and_then(|token| self.tokenizer.token_to_id(token));
        let (bos, eos) = (id("bos_token"), id("eos_token"));
        let (mut begins, mut ends) = (0, 0);
        for row in rows {
            begins += usize::from(bos.is_some_and(|bos| row.prompt.starts_with(&[bos, bos])));
            let twice = |ids: &[u32]| eos.is_some_and(|eos| ids.ends_with(&[eos, eos]));
            ends += [row.chosen, row.rejected].into_iter().filter(|ids| twice(ids)).count();
        }
        let name = |name: &str| self.special_tokens.get(name).unwrap_or_default();
        let begins = (begins > 0).then(|| {
            format!(
                "{begins} prompts begin with `{}` twice, as in TRL: their text begins with it, and the tokenizer adds it",
                name("bos_token")
            )
        });
        let ends = (ends > 0).then(|| {
            format!(
                "{ends} responses end in `{}` twice, as in TRL: it is appended to text, and the tokenizer or the text has it too",
                name("eos_token")
            )
        });
        begins.into_iter().chain(ends).collect()
    }

    /// The tokenising rules.
    pub fn options(&self) -> &TokenizeOptions {
        &self.options
    }

    /// Hash of tokenizer, template, special tokens and, where the template looks at it, the date, in hex.
    ///
    /// # Errors
    /// [`Error::Io`] if `tokenizer.json` cannot be read.
    pub fn fingerprint(&self) -> Result<String> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&simplemix_files::read(&self.path).map_err(Error::io(&self.path, "read"))?);
        hasher.update(self.template.as_ref().map_or("", ChatTemplate::source).as_bytes());
        hasher.update(self.template.as_ref().and_then(ChatTemplate::tool_use_source).unwrap_or_default().as_bytes());
        hasher.update(format!("{:?}", self.special_tokens).as_bytes());
        hasher.update(self.key.as_bytes());
        hasher.update(self.date().unwrap_or_default().as_bytes());
        Ok(hasher.finalize().to_hex().to_string())
    }

    /// Ids that end a response: `eos_token_id` of `generation_config.json` and `config.json`, and the tokenizer's
    /// `eos_token`; sorted, without duplicates.
    pub fn eos_ids(&self) -> &[u32] {
        &self.eos_ids
    }

    /// The tokenizer without template and rules.
    pub fn inner(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Token ids of a prompt for generation: plain text with the tokenizer's special tokens, except those that it adds at the end,
    /// since a response follows; a conversation rendered by the chat template with the generation prompt. Never cut.
    ///
    /// # Errors
    /// [`Error::NoTemplate`] or [`Error::Template`] for conversations, [`Error::Tokenizer`].
    pub fn encode_prompt(&self, prompt: &Text) -> Result<Vec<u32>> {
        self.encode_prompt_with(prompt, &TemplateInputs::default())
    }

    /// Like [`PairTokenizer::encode_prompt`], with tools, documents and arguments for the chat template.
    ///
    /// # Errors
    /// See [`PairTokenizer::encode_prompt`].
    pub fn encode_prompt_with(&self, prompt: &Text, inputs: &TemplateInputs) -> Result<Vec<u32>> {
        let (text, special) = self.prompt_text(prompt, inputs)?;
        let mut ids = self.ids(&text, special)?;
        if special {
            ids.truncate(ids.len().saturating_sub(self.added_after));
        }
        Ok(ids)
    }

    /// Text of a prompt, and whether the tokenizer adds its special tokens to it.
    fn prompt_text(&self, prompt: &Text, inputs: &TemplateInputs) -> Result<(String, bool)> {
        match prompt {
            Text::Plain(text) => Ok((text.clone(), true)),
            Text::Messages(turns) => Ok((self.template()?.render_with(turns, inputs, true)?, false)),
        }
    }

    /// Numbers of tokens of texts as they stand, without the tokens that the tokenizer adds.
    ///
    /// # Errors
    /// [`Error::Tokenizer`].
    pub fn token_counts(&self, texts: &[String]) -> Result<Vec<usize>> {
        texts.par_iter().map(|text| Ok(self.ids(text, false)?.len())).collect()
    }

    /// Decodes token ids to text, without special tokens.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the decoder fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        guarded(&self.path, || self.tokenizer.decode(ids, true).map_err(tokenizer_error(&self.path)))
    }

    /// Tokenises one pair.
    ///
    /// # Errors
    /// [`Error::Boundary`] under [`Boundary::Strict`], [`Error::NoTemplate`] or [`Error::Refused`] for conversations,
    /// [`Error::NoEos`] for plain text, [`Error::Tokenizer`].
    pub fn encode(&self, pair: &Pair) -> Result<Outcome> {
        match self.encode_pair(pair) {
            Err(Error::Template { name, message }) => match self.options.on_refused {
                OnTemplateRefusal::Fail => Err(Error::Refused { place: pair.place(), name, message }),
                OnTemplateRefusal::Skip => Ok(Outcome::Dropped(DropReason::TemplateRefused)),
            },
            encoded => encoded,
        }
    }

    fn encode_pair(&self, pair: &Pair) -> Result<Outcome> {
        let prompt = self.encode_prompt_with(&pair.prompt, &pair.inputs)?;
        let chosen = self.encode_conversation(&pair.prompt, &pair.chosen, &pair.inputs)?;
        let rejected = self.encode_conversation(&pair.prompt, &pair.rejected, &pair.inputs)?;
        let kept =
            [(&chosen, "chosen"), (&rejected, "rejected")].map(|(ids, side)| (common_prefix(&prompt, ids), ids, side));
        let start = kept.iter().map(|(length, ..)| *length).min().unwrap_or(0);
        let shifted = start < prompt.len();
        if shifted {
            match self.options.boundary {
                Boundary::Drop => return Ok(Outcome::Dropped(DropReason::Boundary)),
                Boundary::Trl => {}
                Boundary::Strict => {
                    let (_, joined, side) =
                        kept.into_iter().find(|(length, ..)| *length == start).expect("start is one of these");
                    return Err(self.boundary_error(pair, side, start, &prompt, joined));
                }
            }
        }
        Ok(self.fit(&prompt[..start], &chosen[start..], &rejected[start..], shifted))
    }

    /// Tokenises many pairs in parallel; the result does not depend on the number of threads. Progress is told in events of
    /// `tracing` with the target `simplemix::progress`: `stage` is `tokenising`, `done` and `total` are numbers of pairs.
    ///
    /// # Errors
    /// See [`PairTokenizer::encode`]; the error of the first pair that fails.
    pub fn encode_all(&self, pairs: &[Pair]) -> Result<TokenizedSet> {
        let mut set = TokenizedSet::default();
        tell(0, pairs.len());
        for start in (0..pairs.len()).step_by(PAIRS_AT_A_TIME) {
            let some = &pairs[start..pairs.len().min(start + PAIRS_AT_A_TIME)];
            let outcomes: Vec<Result<Outcome>> = some.par_iter().map(|pair| self.encode(pair)).collect();
            for (index, outcome) in outcomes.into_iter().enumerate() {
                set.add(start + index, outcome?);
            }
            tell(start + some.len(), pairs.len());
        }
        Ok(set)
    }

    fn fit(&self, prompt: &[u32], chosen: &[u32], rejected: &[u32], shifted: bool) -> Outcome {
        if prompt.is_empty() {
            return Outcome::Dropped(DropReason::EmptyPrompt);
        }
        let Some(room) = self.options.max_length.checked_sub(prompt.len()).filter(|&room| room > 0) else {
            return Outcome::Dropped(DropReason::PromptFillsLength);
        };
        if chosen.is_empty() || rejected.is_empty() {
            return Outcome::Dropped(DropReason::EmptyResponse);
        }
        let cut = chosen.len() > room || rejected.len() > room;
        if cut && self.options.truncation == Truncation::Drop {
            return Outcome::Dropped(DropReason::TooLong);
        }
        let chosen = &chosen[..chosen.len().min(room)];
        let rejected = &rejected[..rejected.len().min(room)];
        if chosen == rejected {
            return Outcome::Dropped(DropReason::IdenticalTokens);
        }
        Outcome::Kept(TokenizedPair {
            prompt: prompt.to_vec(),
            chosen: chosen.to_vec(),
            rejected: rejected.to_vec(),
            cut,
            shifted,
        })
    }

    /// Token ids of a prompt and a response, as in training: plain text ends in the end-of-sequence token, a conversation
    /// as its template writes it. Never cut.
    ///
    /// # Errors
    /// [`Error::NoTemplate`] or [`Error::Template`] for conversations, [`Error::NoEos`] for plain text,
    /// [`Error::Tokenizer`].
    pub fn encode_with_response(&self, prompt: &Text, response: &Text) -> Result<Vec<u32>> {
        self.encode_conversation(prompt, response, &TemplateInputs::default())
    }

    /// Like [`PairTokenizer::encode_with_response`], with tools, documents and arguments for the chat template.
    ///
    /// # Errors
    /// See [`PairTokenizer::encode_with_response`].
    pub fn encode_conversation(&self, prompt: &Text, response: &Text, inputs: &TemplateInputs) -> Result<Vec<u32>> {
        let (text, special) = self.joined(prompt, response, inputs)?;
        self.ids(&text, special)
    }

    /// Text of a prompt and a response, and whether the tokenizer adds its special tokens to it.
    fn joined(&self, prompt: &Text, response: &Text, inputs: &TemplateInputs) -> Result<(String, bool)> {
        match (prompt, response) {
            (Text::Plain(prompt), Text::Plain(response)) => {
                let Some(eos) = self.special_tokens.get("eos_token") else {
                    return Err(Error::NoEos { path: self.dir.join("tokenizer_config.json") });
                };
                let eos = if response.ends_with(eos) { "" } else { eos };
                Ok(([prompt, response, eos].concat(), true))
            }
            (prompt, response) => {
                let turns: Vec<Message> = turns(prompt, "user").chain(turns(response, "assistant")).collect();
                Ok((self.template()?.render_with(&turns, inputs, false)?, false))
            }
        }
    }

    fn template(&self) -> Result<&ChatTemplate> {
        self.template.as_ref().ok_or_else(|| Error::NoTemplate { dir: self.dir.clone() })
    }

    fn ids(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>> {
        encoded(&self.tokenizer, &self.path, text, add_special_tokens)
    }

    fn boundary_error(
        &self,
        pair: &Pair,
        side: &'static str,
        position: usize,
        prompt: &[u32],
        joined: &[u32],
    ) -> Error {
        let show = |ids: &[u32]| {
            let tokens = ids.iter().skip(position).take(4);
            let tokens: Vec<String> =
                tokens.map(|&id| self.tokenizer.id_to_token(id).unwrap_or_else(|| id.to_string())).collect();
            format!("{tokens:?}")
        };
        let (alone, joined) = (show(prompt), show(joined));
        Error::Boundary { id: pair.id.clone(), side, position, prompt_tokens: prompt.len(), alone, joined }
    }
}

/// Turns of a text; bare text is one turn of `role`.
fn turns<'a>(text: &'a Text, role: &'a str) -> Box<dyn Iterator<Item = Message> + 'a> {
    match text {
        Text::Plain(text) => Box::new(std::iter::once(Message::new(role, text.as_str()))),
        Text::Messages(turns) => Box::new(turns.iter().cloned()),
    }
}

fn common_prefix(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// The template with a fixed date, so that all pairs of a run see the same one.
fn dated(template: ChatTemplate, (year, month, day): (i32, u32, u32)) -> Result<ChatTemplate> {
    if template.uses_date() { template.with_date(year, month, day) } else { Ok(template) }
}

/// Number of special tokens that the tokenizer adds after a text.
fn added_after(tokenizer: &Tokenizer) -> tokenizers::Result<usize> {
    let encoding = tokenizer.encode("a", true)?;
    Ok(encoding.get_special_tokens_mask().iter().rev().take_while(|&&special| special == 1).count())
}

/// Token ids of a text; `path` is that of the tokenizer.
fn encoded(tokenizer: &Tokenizer, path: &Path, text: &str, add_special_tokens: bool) -> Result<Vec<u32>> {
    guarded(path, || {
        // `encode_fast` leaves out character offsets, which are not needed.
        let encoding = tokenizer.encode_fast(text, add_special_tokens).map_err(tokenizer_error(path))?;
        Ok(encoding.get_ids().to_vec())
    })
}

fn tokenizer_error(path: &Path) -> impl FnOnce(tokenizers::Error) -> Error {
    let path = path.to_path_buf();
    move |error| Error::Tokenizer { path, message: error.to_string() }
}

fn eos_ids(dir: &Path, tokenizer: &Tokenizer, tokens: &SpecialTokens) -> Result<Vec<u32>> {
    let mut ids: Vec<u32> =
        tokens.get("eos_token").and_then(|token| tokenizer.token_to_id(token)).into_iter().collect();
    for file in ["generation_config.json", "config.json"] {
        let Some(config) = source::read_json(dir, file)? else { continue };
        let values = match &config["eos_token_id"] {
            Value::Null => continue,
            Value::Array(values) => values.clone(),
            value => vec![value.clone()],
        };
        for value in values {
            let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
            ids.push(id.ok_or_else(|| Error::ModelConfig {
                path: dir.join(file),
                found: format!("`eos_token_id` {value}"),
                expected: "a token id or a list of them",
            })?);
        }
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}
