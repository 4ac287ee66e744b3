//! Pre-tokenizers of byte-level BPE by llama.cpp's names, with the expressions of the models' own `tokenizer.json`.

use serde_json::{Value as Json, json};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer as _};

use super::error::Result;
use super::reader::Gguf;

/// Way in which text is split before merges.
pub(super) struct PreTokenizer {
    names: &'static [&'static str],
    split: Split,
    /// Whether a whole word that is a token is not merged up.
    pub(super) ignores_merges: bool,
    /// Whether a text begins with a token of its own where the file does not say.
    pub(super) adds_bos: bool,
}

enum Split {
    /// GPT-2's expression.
    Gpt2,
    /// Single digits, then GPT-2's expression.
    Digits,
    /// An expression.
    By(&'static str),
}

/// Contractions, words with one sign before them, digits `N` at a time, other signs, lines and spaces.
macro_rules! words {
    ($digits:literal) => {
        concat!(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
            $digits,
            r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        )
    };
}

/// Words whose capitals come first, with `END` after them, and digits as in `words`.
macro_rules! cased {
    ($end:literal, $digits:literal) => {
        concat!(
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
            $end,
            r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
            $end,
            r"|\p{N}",
            $digits,
            r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        )
    };
}

const THREE_DIGITS: &str = words!("{1,3}");
const ONE_DIGIT: &str = words!("");
const TEKKEN: &str = cased!("", "");
const GPT_4O: &str = cased!("(?i:'s|'t|'re|'ve|'m|'ll|'d)?", "{1,3}");
const SEED_CODER: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+";

const fn plain(names: &'static [&'static str], split: Split) -> PreTokenizer {
    PreTokenizer { names, split, ignores_merges: false, adds_bos: false }
}

const ALL: &[PreTokenizer] = &[
    plain(
        &["gpt-2", "gpt2", "phi-2", "gigachat", "a.x-4.0", "mellum", "mpt", "olmo", "exaone4", "jais", "trillion"],
        Split::Gpt2,
    ),
    plain(
        &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"],
        Split::Digits,
    ),
    PreTokenizer {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"],
        split: Split::By(THREE_DIGITS),
        ignores_merges: true,
        adds_bos: true,
    },
    plain(&["dbrx", "smaug-bpe", "glm4", "chatglm-bpe"], Split::By(THREE_DIGITS)),
    plain(
        &["qwen2", "deepseek-r1-qwen", "kormo", "stablelm2", "hunyuan", "megrez", "grok-2", "solar-open"],
        Split::By(ONE_DIGIT),
    ),
    PreTokenizer { names: &["tekken"], split: Split::By(TEKKEN), ignores_merges: true, adds_bos: true },
    plain(&["gpt-4o", "llama4", "kanana2"], Split::By(GPT_4O)),
    plain(&["seed-coder"], Split::By(SEED_CODER)),
];

impl PreTokenizer {
    /// That of a file; GPT-2's where it names none.
    pub(super) fn of(gguf: &Gguf<'_>) -> Result<&'static Self> {
        const KEY: &str = "tokenizer.ggml.pre";
        let name = gguf.text(KEY).unwrap_or("gpt-2");
        ALL.iter().find(|known| known.names.contains(&name)).ok_or_else(|| {
            let known: Vec<String> = ALL.iter().flat_map(|known| known.names).map(|name| format!("`{name}`")).collect();
            gguf.unsupported(KEY, format!("`{name}`"), &format!("one of {}", known.join(", ")))
        })
    }

    /// The name of the first rule that splits a text of many kinds of characters as `own`, of a `tokenizer.json`, does.
    pub(super) fn like(own: &Json, ignores_merges: bool) -> Option<&'static str> {
        let wanted = splits(own)?;
        let is_like = |known: &&Self| {
            known.ignores_merges == ignores_merges && splits(&known.to_json()).is_some_and(|found| found == wanted)
        };
        ALL.iter().find(is_like)?.names.first().copied()
    }

    /// As `tokenizer.json` has it.
    pub(super) fn to_json(&self) -> Json {
        match self.split {
            Split::Gpt2 => byte_level(true),
            Split::Digits => json!({
                "type": "Sequence",
                "pretokenizers": [{ "type": "Digits", "individual_digits": true }, byte_level(true)],
            }),
            Split::By(expression) => json!({
                "type": "Sequence",
                "pretokenizers": [
                    { "type": "Split", "pattern": { "Regex": expression }, "behavior": "Isolated", "invert": false },
                    byte_level(false),
                ],
            }),
        }
    }
}

/// Contractions, numbers of many digits, capitals, white space of all kinds, signs, and letters of several scripts.
const SAMPLE: &str = "I'LL can't won't  pay 1234567 euros, 3.14 or 42km...\n\n  to aBCd HTTPServer camelCase\t\tx=y+(z)/[w]\r\n \n\
                      \u{dc}ber stra\u{df}e na\u{ef}ve \u{4f60}\u{597d}\u{4e16}\u{754c} \u{43f}\u{440}\u{438}\u{432}\u{435}\u{442} \
                      \u{645}\u{631}\u{62d}\u{628}\u{627} e\u{301}\u{915}\u{93e} \u{1f600}\u{1f468}\u{200d}\u{1f469} <|x|> #tag @me /a/b 100%  \u{662}\u{663} 'S '\u{17f} end ";

/// Places between which a rule of a `tokenizer.json` splits [`SAMPLE`].
fn splits(rule: &Json) -> Option<Vec<(usize, usize)>> {
    let rule: PreTokenizerWrapper = serde_json::from_value(rule.clone()).ok()?;
    let mut string = PreTokenizedString::from(SAMPLE);
    rule.pre_tokenize(&mut string).ok()?;
    let found = string.get_splits(OffsetReferential::Original, OffsetType::Byte);
    Some(found.into_iter().map(|(_, place, _)| place).collect())
}

/// Bytes as characters, split by GPT-2's expression or not.
pub(super) fn byte_level(splits: bool) -> Json {
    json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": splits })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words of `Python 3.11's regex` package with the expressions of the models' own tokenizer.json.
    #[test]
    fn texts_are_split_as_the_models_tokenizers_do() {
        let text = "I'LL pay 12345 euros...\n\n  to aBCd";
        let split = |name: &str| {
            let known = ALL.iter().find(|known| known.names.contains(&name)).unwrap();
            let wrapper: PreTokenizerWrapper = serde_json::from_value(known.to_json()).unwrap();
            let mut string = PreTokenizedString::from(text);
            wrapper.pre_tokenize(&mut string).unwrap();
            let splits = string.get_splits(OffsetReferential::Original, OffsetType::Byte);
            splits.into_iter().map(|(_, (from, to), _)| text[from..to].to_owned()).collect::<Vec<_>>()
        };
        let tail = ["...\n\n", " ", " to", " aBCd"];
        let with = |middle: &[&'static str]| [&["I", "'LL", " pay", " "], middle, &[" euros"], &tail[..]].concat();
        assert_eq!(split("llama-bpe"), with(&["123", "45"]));
        assert_eq!(split("qwen2"), with(&["1", "2", "3", "4", "5"]));
        let cased = ["I", "'LL", " pay", " ", "1", "2", "3", "4", "5", " euros", "...\n\n", " ", " to", " a", "BCd"];
        assert_eq!(split("tekken"), cased);
        assert_eq!(split("gpt-4o")[..2], ["I'LL", " pay"]);
        assert_eq!(split("gpt-2")[..6], ["I", "'", "LL", " pay", " 12345", " euros"]);
        assert_eq!(split("smollm")[3..10], [" pay", " ", "1", "2", "3", "4", "5"]);
    }
}
