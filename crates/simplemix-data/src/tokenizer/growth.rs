//! Bound on how much longer a tokenizer makes a text: replacements one after the other multiply, so that a few kilobytes of
//! `tokenizer.json` could ask for any amount of memory.

use serde_json::Value;
use tokenizers::Tokenizer;

/// Most times that a text may become longer. What models have makes it two to four times as long.
const MOST: f64 = 256.0;

/// The part of a tokenizer that makes texts too long, and how many times as long.
pub(super) fn excess(tokenizer: &Tokenizer) -> Option<(&'static str, f64)> {
    let value = |part: serde_json::Result<Value>| part.unwrap_or_default();
    let parts = [
        ("normalizer", value(serde_json::to_value(tokenizer.get_normalizer()))),
        ("pre_tokenizer", value(serde_json::to_value(tokenizer.get_pre_tokenizer()))),
        ("post_processor", value(serde_json::to_value(tokenizer.get_post_processor()))),
        ("decoder", value(serde_json::to_value(tokenizer.get_decoder()))),
    ];
    let grown = parts.iter().map(|(name, part)| (*name, growth(part)));
    grown.into_iter().find(|(_, times)| *times > MOST)
}

/// Times that a part and those inside of it may make a text longer.
fn growth(part: &Value) -> f64 {
    let length = |text: &Value| text.as_str().map_or(0, str::len) as f64;
    match part["type"].as_str() {
        Some("Sequence") => {
            let lists = ["normalizers", "pretokenizers", "processors", "decoders"].map(|name| part[name].as_array());
            lists.into_iter().flatten().flatten().map(growth).product()
        }
        Some("Replace") => match &part["pattern"]["String"] {
            // An expression may match between any two bytes.
            Value::Null => 1.0 + length(&part["content"]),
            pattern => (length(&part["content"]) / length(pattern).max(1.0)).max(1.0),
        },
        // A byte that is no letter becomes two.
        Some("ByteLevel") => 2.0,
        Some("TemplateProcessing") => {
            let texts = part["single"].as_array().into_iter().flatten().filter(|piece| !piece["Sequence"].is_null());
            (texts.count() as f64).max(1.0)
        }
        _ => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn growth_multiplies() {
        let replace = |pattern: &str, content: &str| json!({ "type": "Replace", "pattern": { "String": pattern }, "content": content });
        assert_eq!(growth(&replace(" ", "▁")), 3.0);
        assert_eq!(growth(&replace("abc", "")), 1.0);
        let tenfold = replace("a", "aaaaaaaaaa");
        assert_eq!(growth(&json!({ "type": "Sequence", "normalizers": [tenfold, tenfold, tenfold] })), 1000.0);
        let regex = json!({ "type": "Replace", "pattern": { "Regex": "" }, "content": "abc" });
        let inner = json!({ "type": "Sequence", "decoders": [regex, { "type": "Fuse" }] });
        assert_eq!(growth(&json!({ "type": "Sequence", "decoders": [inner, regex] })), 16.0);
        let bytes = json!({ "type": "ByteLevel" });
        assert_eq!(growth(&json!({ "type": "Sequence", "pretokenizers": [bytes, bytes] })), 4.0);
        let piece = json!({ "Sequence": { "id": "A", "type_id": 0 } });
        let twice = json!({ "type": "TemplateProcessing", "single": [piece, piece], "pair": [] });
        assert_eq!(growth(&json!({ "type": "Sequence", "processors": [twice, twice] })), 4.0);
        assert_eq!(growth(&Value::Null), 1.0);
    }
}
