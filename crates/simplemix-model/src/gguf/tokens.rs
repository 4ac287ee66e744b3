//! A model folder's tokenizer as GGUF metadata: byte-level BPE, or SentencePiece's pieces.
//!
//! The pre-tokenizer's name is that of the first of llama.cpp's rules that splits a text of many kinds of characters as the tokenizer
//! does. Scores of pieces follow from the order of the merges; that they give the same merges again is checked by reading the file.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use serde_json::Value as Json;
use tokenizers::Tokenizer;

use super::error::{GgufError, Result};
use super::pre_tokenizer::PreTokenizer;
use super::writer::Entry;

const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;

/// Score of a piece that no merge makes: it is never looked up.
const UNMADE: f32 = -1e6;

/// Files of a folder that say what its tokenizer is.
pub(super) struct Source<'a> {
    pub(super) folder: &'a Path,
    tokenizer: Json,
    config: Json,
}

type Metadata = Vec<(String, Entry)>;

/// Token at an end of a sequence, and whether texts get it.
struct End {
    id: Option<usize>,
    is_added: bool,
}

impl<'a> Source<'a> {
    pub(super) fn read(folder: &'a Path) -> Result<Self> {
        let tokenizer = json(&folder.join("tokenizer.json"))?;
        let config = folder.join("tokenizer_config.json");
        let config = if config.is_file() { json(&config)? } else { Json::Null };
        Ok(Self { folder, tokenizer, config })
    }

    fn refused(&self, key: &str, found: impl Into<String>, expected: &str) -> GgufError {
        let path = self.folder.join("tokenizer.json");
        GgufError::Unsupported { path, key: key.to_owned(), found: found.into(), expected: expected.to_owned() }
    }

    /// Metadata of the tokenizer of a vocabulary of `entries`; ids that `model`, a `config.json`, names are those of it.
    pub(super) fn metadata(&self, entries: usize, model: &Json) -> Result<Metadata> {
        let kind = self.tokenizer["model"]["type"].as_str().unwrap_or("absent");
        if kind != "BPE" {
            return Err(self.refused("model.type", format!("`{kind}`"), "`BPE`"));
        }
        let has_pieces = self.tokenizer["model"]["byte_fallback"] == true;
        let (tokens, kinds) = self.tokens(entries, has_pieces)?;
        let ids: HashMap<&str, usize> = tokens.iter().enumerate().map(|(id, token)| (token.as_str(), id)).collect();
        let merges = self.merges()?;
        let mut all: Metadata = Vec::new();
        let mut add = |key: &str, entry: Entry| all.push((format!("tokenizer.ggml.{key}"), entry));
        match has_pieces {
            true => {
                add("model", Entry::Text("llama".to_owned()));
                add("scores", Entry::F32s(scores(&tokens, &ids, &merges)));
                add("add_space_prefix", Entry::Bool(self.prefixes()?));
            }
            false => {
                add("model", Entry::Text("gpt2".to_owned()));
                add("pre", Entry::Text(self.pre_tokenizer()?.to_owned()));
                add("merges", Entry::Texts(merges.iter().map(|[a, b]| format!("{a} {b}")).collect()));
            }
        }
        let [bos, eos] = self.around(&ids, model)?;
        for (name, end) in [("bos", &bos), ("eos", &eos)] {
            if let Some(id) = end.id {
                add(&format!("{name}_token_id"), Entry::U32(id as u32));
            }
            add(&format!("add_{name}_token"), Entry::Bool(end.is_added));
        }
        if let Some(id) = self.named("unk_token").and_then(|text| ids.get(text.as_str()).copied()) {
            add("unknown_token_id", Entry::U32(id as u32));
        }
        if let Some(id) = self.named("pad_token").and_then(|text| ids.get(text.as_str()).copied()) {
            add("padding_token_id", Entry::U32(id as u32));
        }
        if let Some(end) = self.end_of_turn(eos.id)? {
            add("eot_token_id", Entry::U32(end));
        }
        add("tokens", Entry::Texts(tokens));
        add("token_type", Entry::I32s(kinds));
        if let Some(template) = self.chat_template()? {
            all.push(("tokenizer.chat_template".to_owned(), Entry::Text(template)));
        }
        Ok(all)
    }

    /// Texts of all tokens in the order of their ids, and their types. Entries of the model that have no token are unused ones.
    fn tokens(&self, entries: usize, has_pieces: bool) -> Result<(Vec<String>, Vec<i32>)> {
        let mut tokens: Vec<String> = (0..entries).map(|id| format!("[PAD{id}]")).collect();
        let mut kinds = vec![UNUSED; entries];
        let mut set = |text: &str, id: Option<u64>, kind: i32| {
            let place = id.and_then(|id| usize::try_from(id).ok()).filter(|id| *id < entries);
            let Some(place) = place else {
                let expected = format!("an id below {entries}, the model's vocabulary");
                return Err(self.refused("model.vocab", format!("`{text}` of id {id:?}"), &expected));
            };
            text.clone_into(&mut tokens[place]);
            kinds[place] = kind;
            Ok(())
        };
        let unknown = self.tokenizer["model"]["unk_token"].as_str();
        for (text, id) in self.tokenizer["model"]["vocab"].as_object().into_iter().flatten() {
            let kind = match text.as_str() {
                text if has_pieces && Some(text) == unknown => UNKNOWN,
                text if has_pieces && text.len() == 6 && text.starts_with("<0x") => BYTE,
                _ => NORMAL,
            };
            set(text, id.as_u64(), kind)?;
        }
        for token in self.tokenizer["added_tokens"].as_array().into_iter().flatten() {
            let text = token["content"].as_str().unwrap_or_default();
            let kind = match token["special"] == true {
                true if has_pieces && Some(text) == unknown => UNKNOWN,
                true => CONTROL,
                false => USER_DEFINED,
            };
            set(text, token["id"].as_u64(), kind)?;
        }
        Ok((tokens, kinds))
    }

    fn merges(&self) -> Result<Vec<[String; 2]>> {
        let refused = || self.refused("model.merges", "a list with another thing", "pairs of tokens");
        let pair = |merge: &Json| match merge {
            Json::String(text) => text.split_once(' ').map(|(a, b)| [a.to_owned(), b.to_owned()]),
            Json::Array(two) => match &two[..] {
                [Json::String(a), Json::String(b)] => Some([a.clone(), b.clone()]),
                _ => None,
            },
            _ => None,
        };
        let all = self.tokenizer["model"]["merges"].as_array().ok_or_else(refused)?;
        all.iter().map(|merge| pair(merge).ok_or_else(refused)).collect()
    }

    /// llama.cpp's name of the way in which texts are split.
    fn pre_tokenizer(&self) -> Result<&'static str> {
        let normalizer = self.tokenizer["normalizer"]["type"].as_str();
        if !matches!(normalizer, None | Some("NFC")) {
            let found = normalizer.unwrap_or_default().to_owned();
            return Err(self.refused(
                "normalizer.type",
                format!("`{found}`"),
                "none, or `NFC`, which llama.cpp leaves out",
            ));
        }
        let ignores = self.tokenizer["model"]["ignore_merges"] == true;
        PreTokenizer::like(&self.tokenizer["pre_tokenizer"], ignores).ok_or_else(|| {
            self.refused(
                "pre_tokenizer",
                "a rule that splits texts in a way of its own",
                "a rule that llama.cpp has a name for",
            )
        })
    }

    /// Whether a space is put before a text of pieces.
    fn prefixes(&self) -> Result<bool> {
        let (normalizer, pre) = (&self.tokenizer["normalizer"], &self.tokenizer["pre_tokenizer"]);
        let steps = match normalizer["type"].as_str() {
            Some("Sequence") => normalizer["normalizers"].as_array().cloned().unwrap_or_default(),
            None => Vec::new(),
            Some(_) => vec![normalizer.clone()],
        };
        let known = |step: &&Json| matches!(step["type"].as_str(), Some("Prepend" | "Replace"));
        if let Some(other) = steps.iter().find(|step| !known(step)) {
            return Err(self.refused(
                "normalizer",
                other["type"].to_string(),
                "`Prepend` and `Replace` of white space",
            ));
        }
        let by_pre =
            pre["type"] == "Metaspace" && pre["prepend_scheme"].as_str().is_none_or(|scheme| scheme != "never");
        Ok(by_pre || steps.iter().any(|step| step["type"] == "Prepend"))
    }

    /// Text of a special token.
    fn named(&self, key: &str) -> Option<String> {
        let token = &self.config[key];
        token.as_str().or_else(|| token["content"].as_str()).map(str::to_owned)
    }

    /// Ids of the tokens at the ends of sequences, and whether a text gets them.
    fn around(&self, ids: &HashMap<&str, usize>, model: &Json) -> Result<[End; 2]> {
        let made = Tokenizer::from_file(self.folder.join("tokenizer.json"));
        let tokenizer =
            made.map_err(|error| self.refused("version", error.to_string(), "a tokenizer that can be read"))?;
        let encode = |special: bool| {
            let encoded = tokenizer.encode("a", special);
            encoded.map(|encoding| encoding.get_ids().to_vec()).unwrap_or_default()
        };
        let (plain, with) = (encode(false), encode(true));
        let at = with.windows(plain.len().max(1)).position(|ids| ids == plain).unwrap_or(0);
        let (before, after) = (with.get(..at).unwrap_or_default(), with.get(at + plain.len()..).unwrap_or_default());
        let of_model = |key: &str| {
            let id = model[key].as_u64().or_else(|| model[key][0].as_u64());
            id.and_then(|id| usize::try_from(id).ok()).filter(|id| *id < ids.len())
        };
        let id = |token: &str, key: &str| {
            self.named(token).and_then(|text| ids.get(text.as_str()).copied()).or_else(|| of_model(key))
        };
        let (bos, eos) = (id("bos_token", "bos_token_id"), id("eos_token", "eos_token_id"));
        for (added, own) in [(before, bos), (after, eos)] {
            match added {
                [] => {}
                [id] if Some(*id as usize) == own => {}
                _ => {
                    let expected = "none, or the tokens of the beginning and the end of a sequence around a text";
                    return Err(self.refused(
                        "post_processor",
                        format!("one that adds the tokens {added:?}"),
                        expected,
                    ));
                }
            }
        }
        let end = |id, added: &[u32]| End { id, is_added: !added.is_empty() };
        Ok([end(bos, before), end(eos, after)])
    }

    /// The first token beside `eos` that ends an answer, if generation knows one.
    fn end_of_turn(&self, eos: Option<usize>) -> Result<Option<u32>> {
        let path = self.folder.join("generation_config.json");
        if !path.is_file() {
            return Ok(None);
        }
        let all = json(&path)?["eos_token_id"].as_array().cloned().unwrap_or_default();
        let other = all.iter().filter_map(Json::as_u64).find(|id| Some(*id as usize) != eos);
        Ok(other.and_then(|id| u32::try_from(id).ok()))
    }

    fn chat_template(&self) -> Result<Option<String>> {
        let path = self.folder.join("chat_template.jinja");
        if path.is_file() {
            return simplemix_files::read_to_string(&path).map(Some).map_err(|source| GgufError::Io {
                path,
                action: "read",
                source,
            });
        }
        let own = &self.config["chat_template"];
        let default = own.as_array().into_iter().flatten().find(|named| named["name"] == "default");
        Ok(own.as_str().or_else(|| default?["template"].as_str()).map(str::to_owned))
    }

    /// Parts of the tokenizer that a reading of the file has to give again.
    pub(super) fn check(&self, again: &Json) -> Result<()> {
        let merges = |json: &Json| -> Vec<[String; 2]> {
            let source = Source { folder: self.folder, tokenizer: json.clone(), config: Json::Null };
            source.merges().unwrap_or_default()
        };
        if merges(&self.tokenizer) != merges(again) {
            let expected = "merges in the order of the scores of their pieces, which is all that the file says of them";
            return Err(self.refused("model.merges", "a list in another order", expected));
        }
        let texts = |json: &Json| -> HashSet<String> {
            let all = json["added_tokens"].as_array().into_iter().flatten();
            all.filter_map(|token| token["content"].as_str().map(str::to_owned)).collect()
        };
        match texts(&self.tokenizer).difference(&texts(again)).next() {
            Some(lost) => {
                Err(self.refused("added_tokens", format!("a list with `{lost}`"), "tokens of ids in the model"))
            }
            None => Ok(()),
        }
    }
}

/// Scores that fall with the places of the merges that make a piece. Pieces whose merges stand among each other's have one score: those
/// are in the order of the ids of their parts.
fn scores(tokens: &[String], ids: &HashMap<&str, usize>, merges: &[[String; 2]]) -> Vec<f32> {
    let made: Vec<Option<usize>> = merges.iter().map(|[a, b]| ids.get(format!("{a}{b}").as_str()).copied()).collect();
    let mut last = HashMap::new();
    for (rank, id) in made.iter().enumerate() {
        last.insert(*id, rank);
    }
    let mut scores = vec![UNMADE; tokens.len()];
    let (mut score, mut end) = (0f32, None);
    for (rank, id) in made.iter().enumerate() {
        if end.is_none_or(|end| rank > end) {
            score = -(rank as f32);
        }
        end = end.max(last.get(id).copied());
        if let Some(own) = id.and_then(|id| scores.get_mut(id)) {
            *own = score;
        }
    }
    scores
}

fn json(path: &Path) -> Result<Json> {
    let io = |source| GgufError::Io { path: path.to_owned(), action: "read", source };
    let text = simplemix_files::read_to_string(path).map_err(io)?;
    serde_json::from_str(&text).map_err(|error| GgufError::Unsupported {
        path: path.to_owned(),
        key: "*".to_owned(),
        found: error.to_string(),
        expected: "JSON".to_owned(),
    })
}
