//! The tokenizer of a model folder, as `tokenizer.json` has it or as transformers 5 builds it, with every token that the folder
//! declares.

mod added;
mod class;
mod growth;
mod rebuilt;

use std::fmt;
use std::path::Path;

use serde::de::IgnoredAny;
use serde_json::Value;
use tokenizers::Tokenizer;

use crate::error::{Error, Result};
use crate::guard::guarded;
use crate::template::{SpecialTokens, source};
use added::Declared;
use class::{Class, Rebuilt};

/// Reading of a tokenizer that transformers 5 builds anew by its class.
///
/// Classes such as `LlamaTokenizer`, `GPT2Tokenizer`, `Qwen2Tokenizer` and `GemmaTokenizer` take vocabulary and merges from
/// `tokenizer.json`, and their normaliser and pre-tokeniser from their own code.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenizerAs {
    /// As `tokenizer.json` has it, which is what the model was trained with.
    #[default]
    File,
    /// As transformers 5.24 builds it.
    Transformers,
}

/// A tokenizer as it was read.
pub(crate) struct Loaded {
    /// The tokenizer that is used.
    pub(crate) tokenizer: Tokenizer,
    /// This folder's tokenizer under the other reading, where the two are different.
    pub(crate) other: Option<Other>,
    /// Special tokens by name.
    pub(crate) special_tokens: SpecialTokens,
    /// Facts that the user should know.
    pub(crate) notices: Vec<String>,
    /// Everything beside `tokenizer.json` that the ids depend on, for hashes.
    pub(crate) key: String,
}

/// The tokenizer under the reading that is not used.
pub(crate) struct Other {
    pub(crate) tokenizer: Tokenizer,
    /// Name of the class that builds it, or that is not followed.
    pub(crate) class: &'static str,
}

impl fmt::Debug for Other {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Other").field("class", &self.class).finish_non_exhaustive()
    }
}

/// Loads the tokenizer of `dir`. Truncation and padding that `tokenizer.json` asks for are turned off.
pub(crate) fn load(dir: &Path, reading: TokenizerAs) -> Result<Loaded> {
    let path = dir.join("tokenizer.json");
    guarded(&path, || unguarded(dir, &path, reading))
}

fn unguarded(dir: &Path, path: &Path, reading: TokenizerAs) -> Result<Loaded> {
    let wrong = |error: tokenizers::Error| Error::Tokenizer { path: path.to_owned(), message: error.to_string() };
    let text = text(dir, path)?;
    // The tokenizer's own parser panics on some texts that are not JSON.
    serde_json::from_str::<IgnoredAny>(&text).map_err(|error| source::not_json(path, &text, &error))?;
    // Not `from_file`, which is generic and would be compiled once more here.
    let file: Tokenizer = text.parse().map_err(wrong)?;
    if let Some((part, times)) = growth::excess(&file) {
        let found = format!("`{part}`, which makes a text up to {times:.1e} times as long");
        return Err(Error::ModelConfig { path: path.to_owned(), found, expected: "at most 256 times" });
    }
    let read = |name: &str| Ok::<_, Error>(source::read_json(dir, name)?.unwrap_or_default());
    let (config, model) = (read("tokenizer_config.json")?, read("config.json")?);
    let (map, added) = (read("special_tokens_map.json")?, read("added_tokens.json")?);
    let class = Class::of(&config, &model, text.contains("\"ByteLevel\""));
    let given = source::special_tokens(&config, &map);
    let mut defaulted = given.clone();
    if let Class::Rebuilt(class) = &class {
        // A null in the file means that there is no such token.
        let is_open = |name: &str| [&config, &map].iter().all(|file| file.get(name).is_none());
        let open = class.default_tokens().iter().filter(|(name, _)| is_open(name));
        open.for_each(|(name, token)| defaulted.set_default(name, token));
    }

    let as_class = match &class {
        Class::Rebuilt(class) => {
            let declared = Declared::of(&config, &map, &added, &file, &defaulted);
            let built = rebuilt::build(*class, &file, &config, &declared, defaulted.get("unk_token"));
            match reading {
                TokenizerAs::File => built.unwrap_or_default(),
                TokenizerAs::Transformers => built.map_err(wrong)?,
            }
        }
        _ => None,
    };
    let not_reproduced = match &class {
        Class::Unknown(name) => Some(name.as_str()),
        Class::Rebuilt(class) if as_class.is_none() => Some(class.name()),
        _ => None,
    };
    if let (Some(name), TokenizerAs::Transformers) = (not_reproduced, reading) {
        return Err(Error::ModelConfig {
            path: dir.join("tokenizer_config.json"),
            found: format!("`tokenizer_class` {name}, which builds a tokenizer that is not reproduced here"),
            expected: "--tokenizer-as file",
        });
    }
    let declared = Declared::of(&config, &map, &added, &file, &given);
    let mut as_file = file;
    declared.add_to(&mut as_file).map_err(wrong)?;
    let mut notices = notices(not_reproduced, &declared, &as_file);
    let splits = config["split_special_tokens"].as_bool().unwrap_or(false);
    if splits {
        notices.push(
            "`split_special_tokens` in tokenizer_config.json: special tokens inside texts, those of the chat template too, are \
             split into pieces, as in transformers"
                .to_owned(),
        );
    }
    let prepared = |mut tokenizer: Tokenizer| {
        tokenizer.set_encode_special_tokens(splits);
        tokenizer.with_truncation(None).map_err(wrong)?;
        tokenizer.with_padding(None);
        Ok::<_, Error>(tokenizer)
    };
    let as_file = prepared(as_file)?;
    let as_class = as_class.map(prepared).transpose()?.filter(|other| !same(other, &as_file));
    let key = format!("{reading:?} {class:?} {splits} {declared:?}");
    let name = rebuilt_name(&class);
    let (tokenizer, other, special_tokens) = match (reading, as_class) {
        (TokenizerAs::Transformers, Some(built)) => (built, Some(as_file), defaulted),
        (TokenizerAs::Transformers, None) => (as_file, None, defaulted),
        (TokenizerAs::File, other) => (as_file, other, given),
    };
    let other = other.map(|tokenizer| Other { tokenizer, class: name });
    Ok(Loaded { tokenizer, other, special_tokens, notices, key })
}

/// Text of `tokenizer.json`.
fn text(dir: &Path, path: &Path) -> Result<String> {
    if !path.is_file() {
        let hint = if dir.join("tokenizer.model").is_file() {
            "`tokenizer.model` alone is not read; write the other with transformers: \
             AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
        } else {
            "expected a Hugging Face model folder with a fast tokenizer"
        };
        return Err(Error::ModelFile { dir: dir.to_path_buf(), file: "tokenizer.json", hint });
    }
    simplemix_files::read_to_string(path).map_err(Error::io(path, "read"))
}

fn rebuilt_name(class: &Class) -> &'static str {
    match class {
        Class::Rebuilt(class) => Rebuilt::name(*class),
        _ => "TokenizersBackend",
    }
}

/// Facts about a folder's tokens; `class` builds the tokenizer in a way that is not reproduced.
fn notices(class: Option<&str>, declared: &Declared, tokenizer: &Tokenizer) -> Vec<String> {
    let mut notices = Vec::new();
    if let Some(name) = class {
        notices.push(format!(
            "transformers 5 builds this tokenizer anew as `{name}`, which is not reproduced here: the ids are those of \
             tokenizer.json and may differ from its"
        ));
    }
    let moved: Vec<_> = declared.moved(tokenizer).collect();
    if let Some((text, declared, id)) = moved.first() {
        notices.push(format!(
            "{} tokens have other ids than the folder declares, such as `{text}`: {id} in place of {declared}; transformers \
             numbers them so too",
            moved.len()
        ));
    }
    notices
}

/// Whether two tokenizers of one vocabulary are built of the same parts.
fn same(a: &Tokenizer, b: &Tokenizer) -> bool {
    let parts = |tokenizer: &Tokenizer| {
        let model = match tokenizer.get_model() {
            tokenizers::models::ModelWrapper::BPE(model) => {
                format!("{:?} {} {} {}", model.unk_token, model.fuse_unk, model.byte_fallback, model.ignore_merges)
            }
            _ => String::new(),
        };
        let mut added: Vec<_> = tokenizer.get_added_tokens_decoder().into_iter().collect();
        added.sort_by_key(|(id, _)| *id);
        let parts = (tokenizer.get_normalizer(), tokenizer.get_pre_tokenizer(), tokenizer.get_post_processor());
        (model, added, serde_json::to_value(parts).unwrap_or(Value::Null))
    };
    parts(a) == parts(b)
}
