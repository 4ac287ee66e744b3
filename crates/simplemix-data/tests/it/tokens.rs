//! Token ids, one for one as TRL 1.16 prepares them: tests/golden/data_tokens.py.

use serde_json::Value;
use simplemix_data::{
    Boundary, ChatTemplate, DropReason, Outcome, Pair, PairTokenizer, ReadOptions, TokenSet, TokenizeOptions,
    read_pairs,
};

use crate::common::{chat, file};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/data_tokens");

fn tokenizer(max_length: usize, boundary: Boundary) -> PairTokenizer {
    PairTokenizer::from_dir(FOLDER, TokenizeOptions { max_length, boundary, ..TokenizeOptions::default() }).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// The rows of a golden case, read as a user's file is.
fn pairs(case: &Value) -> Vec<Pair> {
    let rows: Vec<String> = case["rows"].as_array().unwrap().iter().map(Value::to_string).collect();
    let (_dir, path) = file("rows.jsonl", rows.join("\n"));
    read_pairs(&path, &ReadOptions::default()).unwrap()
}

#[test]
fn ids_are_those_of_trl() {
    let golden: Value =
        serde_json::from_str(&std::fs::read_to_string(format!("{FOLDER}/tokens.json")).unwrap()).unwrap();
    let cases = golden.as_array().unwrap();
    assert_eq!(cases.len(), 9);
    for case in cases {
        let name = &case["name"];
        let mut tokenizer = tokenizer(case["max_length"].as_u64().unwrap() as usize, Boundary::Trl);
        if let Some(template) = case["template"].as_str() {
            tokenizer = tokenizer.with_template(ChatTemplate::from_str(template).unwrap());
        }
        let pairs = pairs(case);
        assert_eq!(pairs.len(), case["rows"].as_array().unwrap().len(), "{name}");
        let set = tokenizer.encode_all(&pairs).unwrap();
        let kept = case["kept"].as_array().unwrap();
        let found: Vec<usize> = set.pairs.iter().map(|(index, _)| *index).collect();
        let expected: Vec<usize> = kept.iter().map(|row| row[0].as_u64().unwrap() as usize).collect();
        assert_eq!(found, expected, "{name} {}", case["max_length"]);
        for ((index, pair), row) in set.pairs.iter().zip(kept) {
            assert_eq!(pair.prompt, ids(&row[1]), "{name} {index}: prompt");
            assert_eq!(pair.chosen, ids(&row[2]), "{name} {index}: chosen");
            assert_eq!(pair.rejected, ids(&row[3]), "{name} {index}: rejected");
        }
        assert_eq!(set.shifted > 0, name == "shifting" || name == "texts" || name == "implicit_texts", "{name}");
    }
}

#[test]
fn a_boundary_that_moves_is_an_error_dropped_or_followed() {
    let pair =
        Pair::new("the sum of t".into(), "wo and two".into(), "hree and one".into(), "s", simplemix_data::Policy::Off);
    let error = tokenizer(64, Boundary::Strict).encode(&pair).unwrap_err().to_string();
    assert!(error.contains("chosen") || error.contains("rejected"), "{error}");
    assert_eq!(tokenizer(64, Boundary::Drop).encode(&pair).unwrap(), Outcome::Dropped(DropReason::Boundary));
    assert!(matches!(tokenizer(64, Boundary::Trl).encode(&pair).unwrap(), Outcome::Kept(kept) if kept.shifted));
}

#[test]
fn a_token_set_is_made_once_and_read_from_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let pairs: Vec<Pair> = (0..300).map(|i| chat(&format!("what is {i}?"), &format!("it is {i}"), "no")).collect();
    let tokenizer = tokenizer(32, Boundary::Trl);
    let made = tokenizer.encode_cached(&pairs, folder.path()).unwrap();
    assert!(!made.was_cached());
    let plain = tokenizer.encode_all(&pairs).unwrap();
    assert_eq!(made.len(), plain.pairs.len());
    for (row, (index, pair)) in plain.pairs.iter().enumerate() {
        let found = made.get(row);
        assert_eq!(
            (found.index, found.prompt, found.chosen, found.rejected),
            (*index as u64, &pair.prompt[..], &pair.chosen[..], &pair.rejected[..])
        );
    }
    let again = tokenizer.encode_cached(&pairs, folder.path()).unwrap();
    assert!(again.was_cached());
    assert_eq!(again.get(299).chosen, made.get(299).chosen);
    assert_eq!((again.dropped(), again.cut()), (&plain.dropped, plain.cut as u64));
    // Another setting, and other pairs, are other sets.
    let other =
        PairTokenizer::from_dir(FOLDER, TokenizeOptions { max_length: 31, ..tokenizer.options().clone() }).unwrap();
    assert!(!other.encode_cached(&pairs, folder.path()).unwrap().was_cached());
    assert!(!tokenizer.encode_cached(&pairs[1..], folder.path()).unwrap().was_cached());
    let files = std::fs::read_dir(folder.path())
        .unwrap()
        .filter(|f| f.as_ref().unwrap().path().extension().is_some_and(|e| e == "arrow"))
        .count();
    assert_eq!(files, 3);
}

#[test]
fn a_damaged_token_set_is_an_error_or_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let pairs = [chat("a", "b", "c"), chat("d", "e", "f")];
    let tokenizer = tokenizer(32, Boundary::Trl);
    let path = tokenizer.encode_cached(&pairs, folder.path()).unwrap().path().to_owned();
    let whole = std::fs::read(&path).unwrap();
    for length in (0..whole.len()).step_by(7) {
        std::fs::write(&path, &whole[..length]).unwrap();
        assert!(TokenSet::open(&path).is_err(), "{length}");
    }
    assert!(!tokenizer.encode_cached(&pairs, folder.path()).unwrap().was_cached());
    assert_eq!(std::fs::read(&path).unwrap(), whole);
}
