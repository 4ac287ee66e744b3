//! From pairs to token ids, as TRL 1.16 prepares them for DPO.
//!
//! Three texts are tokenised for a pair: the prompt (of a conversation: rendered with the generation prompt), prompt and
//! chosen, prompt and rejected. A response's tokens are what follows the prompt's. Plain responses get the
//! end-of-sequence token appended unless they end in it; conversations get what their template writes.
//!
//! The prompt's tokens need not be the first tokens of prompt and response together: tokens can merge across the
//! boundary, and a template may render a prompt differently when an answer follows. [`Boundary`] says what is done then.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde_json::Value;
use tokenizers::Tokenizer;

use crate::error::{Error, Result};
use crate::pair::{Message, Pair, Text};
use crate::template::{ChatTemplate, SpecialTokens, source};

/// How pairs are turned into tokens. What is not given here is TRL's default.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct TokenizeOptions {
    /// Tokens of prompt and response together, at most. TRL's default is 1024.
    pub max_length: usize,
    /// What becomes of longer pairs.
    pub truncation: Truncation,
    /// What happens where the prompt's tokens change once a response follows.
    pub boundary: Boundary,
}

impl Default for TokenizeOptions {
    fn default() -> Self {
        Self { max_length: 1024, truncation: Truncation::KeepStart, boundary: Boundary::Trl }
    }
}

/// What becomes of a pair whose prompt and response are longer than the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Truncation {
    /// The end of the response is cut off, as in TRL, and the pair is counted as cut.
    KeepStart,
    /// The pair is dropped, and counted under [`DropReason::TooLong`].
    Drop,
}

/// What happens where the tokens of the prompt alone are not the first tokens of prompt and response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Boundary {
    /// An error that shows the tokens that differ.
    Strict,
    /// As TRL 1.16: the responses start where the tokens first differ, in either of them, and the end of the prompt
    /// alone is left out. Counted, see [`TokenizedSet::shifted`].
    Trl,
    /// The pair is dropped, and counted under [`DropReason::Boundary`].
    Drop,
}

/// Why a pair was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DropReason {
    /// The prompt alone reaches the length limit, so that no token of a response would be left.
    PromptFillsLength,
    /// Prompt and response exceed the limit, under [`Truncation::Drop`].
    TooLong,
    /// The prompt's tokens change once a response follows, under [`Boundary::Drop`].
    Boundary,
    /// There is no token of the prompt, so that the first token of a response has no context.
    EmptyPrompt,
    /// A response has no token.
    EmptyResponse,
    /// Both responses have the same tokens, perhaps only after the cut.
    IdenticalTokens,
}

impl DropReason {
    /// Every reason.
    pub const ALL: [Self; 6] = [
        DropReason::PromptFillsLength,
        DropReason::TooLong,
        DropReason::Boundary,
        DropReason::EmptyPrompt,
        DropReason::EmptyResponse,
        DropReason::IdenticalTokens,
    ];

    /// The stable name in reports: kebab case.
    pub fn name(self) -> &'static str {
        match self {
            DropReason::PromptFillsLength => "prompt-fills-length",
            DropReason::TooLong => "too-long",
            DropReason::Boundary => "boundary",
            DropReason::EmptyPrompt => "empty-prompt",
            DropReason::EmptyResponse => "empty-response",
            DropReason::IdenticalTokens => "identical-tokens",
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
    /// Tokens of the prompt, which both responses share.
    pub prompt: Vec<u32>,
    /// Tokens of the chosen response.
    pub chosen: Vec<u32>,
    /// Tokens of the rejected response.
    pub rejected: Vec<u32>,
    /// True if the length limit cut the end off a response.
    pub cut: bool,
    /// True if the end of the prompt alone was left out, under [`Boundary::Trl`].
    pub shifted: bool,
}

/// What became of one pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is kept, perhaps cut.
    Kept(TokenizedPair),
    /// It is not used.
    Dropped(DropReason),
}

/// Many tokenised pairs, and an account of the others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenizedSet {
    /// Kept pairs, each with its index in the input, in order.
    pub pairs: Vec<(usize, TokenizedPair)>,
    /// How many were dropped, by reason.
    pub dropped: BTreeMap<DropReason, usize>,
    /// How many of the kept pairs had the end of a response cut off.
    pub cut: usize,
    /// How many of the kept pairs lost the end of their prompt at the boundary.
    pub shifted: usize,
}

/// A tokenizer with the chat template and the rules that turn pairs into token ids. Safe to share between threads.
pub struct PairTokenizer {
    path: PathBuf,
    dir: PathBuf,
    tokenizer: Tokenizer,
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
    /// Loads `tokenizer.json`, and beside it the chat template, special tokens and end-of-sequence ids, from a model
    /// folder in Hugging Face's layout. Truncation and padding that `tokenizer.json` may ask for are switched off.
    ///
    /// # Errors
    /// [`Error::ModelFile`] if there is no `tokenizer.json`, [`Error::Tokenizer`] if it cannot be loaded,
    /// [`Error::Template`] if the chat template does not parse, [`Error::ModelConfig`] for a damaged JSON file,
    /// [`Error::Value`] if `max_length` is 0.
    pub fn from_dir(dir: impl AsRef<Path>, options: TokenizeOptions) -> Result<Self> {
        let dir = dir.as_ref();
        if options.max_length == 0 {
            let (found, expected) = ("0".to_owned(), "a limit of at least 2 tokens");
            return Err(Error::Value { row: 0, column: "max_length", found, expected });
        }
        let path = dir.join("tokenizer.json");
        if !path.is_file() {
            let hint = "expected a Hugging Face model folder with a fast tokenizer";
            return Err(Error::ModelFile { dir: dir.to_path_buf(), file: "tokenizer.json", hint });
        }
        let mut tokenizer = Tokenizer::from_file(&path).map_err(tokenizer_error(&path))?;
        tokenizer.with_truncation(None).map_err(tokenizer_error(&path))?;
        tokenizer.with_padding(None);
        let config = source::tokenizer_config(dir)?;
        let special_tokens = source::special_tokens(dir, config.as_ref())?;
        let template = match ChatTemplate::from_dir(dir) {
            Ok(template) => Some(template),
            Err(Error::NoTemplate { .. }) => None,
            Err(error) => return Err(error),
        };
        let eos_ids = eos_ids(dir, &tokenizer, &special_tokens)?;
        Ok(Self { path, dir: dir.to_path_buf(), tokenizer, template, special_tokens, eos_ids, options })
    }

    /// This tokenizer with another chat template than the folder's.
    #[must_use]
    pub fn with_template(mut self, template: ChatTemplate) -> Self {
        self.template = Some(template.with_special_tokens(self.special_tokens.clone()));
        self
    }

    /// The rules in force.
    pub fn options(&self) -> &TokenizeOptions {
        &self.options
    }

    /// Tokenizer, template and special tokens, as one hash in hex.
    ///
    /// # Errors
    /// [`Error::Io`] if `tokenizer.json` is gone.
    pub fn fingerprint(&self) -> Result<String> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&std::fs::read(&self.path).map_err(Error::io(&self.path, "read"))?);
        hasher.update(self.template.as_ref().map_or("", ChatTemplate::source).as_bytes());
        hasher.update(format!("{:?}", self.special_tokens).as_bytes());
        Ok(hasher.finalize().to_hex().to_string())
    }

    /// Ids that end an answer: `eos_token_id` of `generation_config.json` and `config.json`, and the tokenizer's
    /// `eos_token`; sorted, each once.
    pub fn eos_ids(&self) -> &[u32] {
        &self.eos_ids
    }

    /// The tokenizer itself.
    pub fn inner(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Token ids of a prompt that is to be answered: plain text with the tokenizer's own special tokens, a conversation
    /// through the chat template with the beginning of an answer. Not cut.
    ///
    /// # Errors
    /// [`Error::NoTemplate`] or [`Error::Template`] for conversations, [`Error::Tokenizer`].
    pub fn encode_prompt(&self, prompt: &Text) -> Result<Vec<u32>> {
        match prompt {
            Text::Plain(text) => self.ids(text, true),
            Text::Messages(turns) => self.ids(&self.template()?.render(turns, true)?, false),
        }
    }

    /// Text of token ids, without special tokens.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the decoder fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.tokenizer.decode(ids, true).map_err(tokenizer_error(&self.path))
    }

    /// Token ids of one pair, or why it is dropped.
    ///
    /// # Errors
    /// [`Error::Boundary`] under [`Boundary::Strict`], [`Error::NoTemplate`] or [`Error::Template`] for conversations,
    /// [`Error::NoEos`] for plain text, [`Error::Tokenizer`].
    pub fn encode(&self, pair: &Pair) -> Result<Outcome> {
        let prompt = self.encode_prompt(&pair.prompt)?;
        // Nothing that follows can help a prompt that fills the limit; TRL drops it after tokenising all three texts.
        let chosen = self.encode_with_response(&pair.prompt, &pair.chosen)?;
        let rejected = self.encode_with_response(&pair.prompt, &pair.rejected)?;
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

    /// Token ids of many pairs, in parallel; order and result do not depend on the number of threads.
    ///
    /// # Errors
    /// As [`PairTokenizer::encode`], of the first pair that fails.
    pub fn encode_all(&self, pairs: &[Pair]) -> Result<TokenizedSet> {
        let outcomes: Vec<Result<Outcome>> = pairs.par_iter().map(|pair| self.encode(pair)).collect();
        let mut set = TokenizedSet::default();
        for (index, outcome) in outcomes.into_iter().enumerate() {
            match outcome? {
                Outcome::Kept(pair) => {
                    set.cut += usize::from(pair.cut);
                    set.shifted += usize::from(pair.shifted);
                    set.pairs.push((index, pair));
                }
                Outcome::Dropped(reason) => *set.dropped.entry(reason).or_default() += 1,
            }
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

    /// Token ids of a prompt with a response to it, as they stand in training: plain text ends in the end-of-sequence
    /// token, a conversation in what its template writes. Not cut.
    ///
    /// # Errors
    /// [`Error::NoTemplate`] or [`Error::Template`] for conversations, [`Error::NoEos`] for plain text,
    /// [`Error::Tokenizer`].
    pub fn encode_with_response(&self, prompt: &Text, response: &Text) -> Result<Vec<u32>> {
        match (prompt, response) {
            (Text::Plain(prompt), Text::Plain(response)) => {
                let Some(eos) = self.special_tokens.get("eos_token") else {
                    return Err(Error::NoEos { path: self.dir.join("tokenizer_config.json") });
                };
                let eos = if response.ends_with(eos) { "" } else { eos };
                self.ids(&[prompt, response, eos].concat(), true)
            }
            (prompt, response) => {
                let turns: Vec<Message> = turns(prompt, "user").chain(turns(response, "assistant")).collect();
                self.ids(&self.template()?.render(&turns, false)?, false)
            }
        }
    }

    fn template(&self) -> Result<&ChatTemplate> {
        self.template.as_ref().ok_or_else(|| Error::NoTemplate { dir: self.dir.clone() })
    }

    fn ids(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>> {
        // The fast form leaves out character offsets, which are not used here.
        let encoding = self.tokenizer.encode_fast(text, add_special_tokens).map_err(tokenizer_error(&self.path))?;
        Ok(encoding.get_ids().to_vec())
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

/// The turns of a text; a bare one is one turn of `role`.
fn turns<'a>(text: &'a Text, role: &'a str) -> Box<dyn Iterator<Item = Message> + 'a> {
    match text {
        Text::Plain(text) => Box::new(std::iter::once(Message::new(role, text.as_str()))),
        Text::Messages(turns) => Box::new(turns.iter().cloned()),
    }
}

fn common_prefix(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
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
