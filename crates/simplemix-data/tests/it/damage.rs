//! Damaged tokenizers: one error that names the file, for every cut and for every byte.

use std::path::Path;

use simplemix_data::{Error, PairTokenizer, Text, TokenizeOptions};

/// Loads the tokenizer of these bytes, and encodes and decodes a text.
fn try_out(folder: &Path, bytes: &[u8]) -> Result<(), Error> {
    std::fs::write(folder.join("tokenizer.json"), bytes).unwrap();
    let tokenizer = PairTokenizer::from_dir(folder, TokenizeOptions::default())?;
    let ids = tokenizer.encode_prompt(&Text::from("Two words, é ▁ 漢\u{1f600}\n\t12"))?;
    tokenizer.decode(&ids).map(drop)
}

#[test]
fn a_damaged_tokenizer_is_one_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokenizer.json").display().to_string();
    let check = |bytes: &[u8]| {
        // Not every byte matters, so the tokenizer may work.
        let Err(error) = try_out(dir.path(), bytes) else { return };
        assert!(error.to_string().starts_with(&path), "{error}");
    };
    for name in ["data_tokenizers/bytes.json", "data_tokenizers/pieces.json", "data_tokens/tokenizer.json"] {
        let whole = std::fs::read(format!("../../tests/golden/{name}")).unwrap();
        for at in (0..whole.len()).step_by(131) {
            check(&whole[..at]);
            let mut damaged = whole.clone();
            damaged[at] ^= 0x01;
            check(&damaged);
        }
    }
}

#[test]
fn replacements_that_multiply_a_text() {
    let dir = tempfile::tempdir().unwrap();
    let whole = std::fs::read_to_string("../../tests/golden/data_tokenizers/bytes.json").unwrap();
    let mut tokenizer: serde_json::Value = serde_json::from_str(&whole).unwrap();
    let tenfold = serde_json::json!({ "type": "Replace", "pattern": { "String": "o" }, "content": "oooooooooo" });
    tokenizer["normalizer"] = serde_json::json!({ "type": "Sequence", "normalizers": vec![tenfold; 30] });
    let error = try_out(dir.path(), tokenizer.to_string().as_bytes()).unwrap_err().to_string();
    assert!(error.contains("`normalizer`, which makes a text up to 1.0e30 times"), "{error}");
}

/// The tokenizer panics on it.
#[test]
fn a_special_token_that_is_not_declared() {
    let dir = tempfile::tempdir().unwrap();
    let whole = std::fs::read_to_string("../../tests/golden/data_tokenizers/bytes.json").unwrap();
    let mut tokenizer: serde_json::Value = serde_json::from_str(&whole).unwrap();
    let token = serde_json::json!({ "SpecialToken": { "id": "<x>", "type_id": 0 } });
    let text = serde_json::json!({ "Sequence": { "id": "A", "type_id": 0 } });
    tokenizer["post_processor"] = serde_json::json!({
        "type": "TemplateProcessing", "single": [token, text], "pair": [text], "special_tokens": {},
    });
    let error = try_out(dir.path(), tokenizer.to_string().as_bytes()).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
}
