//! Token ids of transformers 5.24 and TRL 1.16 for folders whose tokenizer transformers builds anew, or that declare tokens in
//! several files: tests/golden/data_tokenizers.py.

use std::path::Path;

use serde_json::{Value, json};
use simplemix_data::{Form, Outcome, Pair, PairTokenizer, Policy, TokenizeOptions, TokenizerAs};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/data_tokenizers");

fn golden() -> Value {
    serde_json::from_str(&std::fs::read_to_string(format!("{GOLDEN}/cases.json")).unwrap()).unwrap()
}

/// The folder of a case.
fn folder(case: &Value) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let base = format!("{GOLDEN}/{}.json", case["base"].as_str().unwrap());
    let mut tokenizer: Value = serde_json::from_str(&std::fs::read_to_string(base).unwrap()).unwrap();
    tokenizer["post_processor"] = case["post_processor"].clone();
    let write = |name: &str, value: &Value| std::fs::write(dir.path().join(name), value.to_string()).unwrap();
    write("tokenizer.json", &tokenizer);
    write("tokenizer_config.json", &case["tokenizer_config"]);
    write("config.json", &case["config"]);
    case["files"].as_object().unwrap().iter().for_each(|(name, value)| write(name, value));
    dir
}

fn load(folder: &Path, tokenizer_as: TokenizerAs) -> PairTokenizer {
    PairTokenizer::from_dir(folder, TokenizeOptions { tokenizer_as, ..TokenizeOptions::default() }).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn pairs(golden: &Value) -> Vec<Pair> {
    let text = |row: &Value, key: &str| row[key].as_str().unwrap().into();
    let pair = |row| Pair::new(text(row, "prompt"), text(row, "chosen"), text(row, "rejected"), "s", Policy::Off);
    golden["pairs"].as_array().unwrap().iter().map(pair).collect()
}

#[track_caller]
fn same_pairs(tokenizer: &PairTokenizer, pairs: &[Pair], wanted: &Value, name: &Value) {
    for (pair, wanted) in pairs.iter().zip(wanted.as_array().unwrap()) {
        let Outcome::Kept(found) = tokenizer.encode(pair).unwrap() else { panic!("{name}: {:?}", pair.prompt) };
        let wanted: Vec<Vec<u32>> = wanted.as_array().unwrap().iter().map(ids).collect();
        assert_eq!([found.prompt, found.chosen, found.rejected].to_vec(), wanted, "{name} {:?}", pair.prompt);
    }
}

#[test]
fn ids_are_those_of_transformers_under_both_readings() {
    let golden = golden();
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() > 25);
    let (mut different, pairs) = (0, pairs(&golden));
    for case in cases {
        let (dir, name) = (folder(case), &case["name"]);
        for (reading, key) in [(TokenizerAs::Transformers, "transformers"), (TokenizerAs::File, "file")] {
            let tokenizer = load(dir.path(), reading);
            for (text, wanted) in golden["texts"].as_array().unwrap().iter().zip(case[key].as_array().unwrap()) {
                let found = tokenizer.inner().encode(text.as_str().unwrap(), true).unwrap();
                assert_eq!(found.get_ids(), ids(wanted), "{name}, {key}: {text}: {:?}", found.get_tokens());
            }
            let of_file = &case["pairs_file"];
            let wanted = if key == "file" && !of_file.is_null() { of_file } else { &case["pairs"] };
            // Without an end in the file there are no ids of text.
            if key == "transformers" || case["file"] == case["transformers"] || !of_file.is_null() {
                same_pairs(&tokenizer, &pairs, wanted, name);
            }
        }
        different += usize::from(case["file"] != case["transformers"]);
    }
    assert!(different > 8);
}

/// The case of that name.
fn case<'a>(golden: &'a Value, name: &str) -> &'a Value {
    golden["cases"].as_array().unwrap().iter().find(|case| case["name"] == name).unwrap()
}

#[test]
fn a_difference_between_the_readings_is_told_where_the_data_show_it() {
    let golden = golden();
    let dir = folder(case(&golden, "smollm2"));
    let pair = |prompt: &str| Pair::new(prompt.into(), " two".into(), " four".into(), "s", Policy::Off);
    let with_digits = [pair("the sum"), pair("12 and"), pair("is 1234")];
    let notice = load(dir.path(), TokenizerAs::File).reading_notice(&with_digits).unwrap().unwrap();
    assert!(notice.starts_with("2 of 3 pairs looked at have other token ids in transformers 5"), "{notice}");
    assert!(notice.contains("`GPT2Tokenizer`") && notice.contains("[\"1\", \"2\","), "{notice}");
    let notice = load(dir.path(), TokenizerAs::Transformers).reading_notice(&with_digits).unwrap().unwrap();
    assert!(notice.starts_with("2 of 3 pairs looked at have other token ids by tokenizer.json"), "{notice}");
    let without = [pair("the sum")];
    assert_eq!(load(dir.path(), TokenizerAs::File).reading_notice(&without).unwrap(), None);
    let file = folder(case(&golden, "qwen3, file"));
    assert_eq!(load(file.path(), TokenizerAs::File).reading_notice(&with_digits).unwrap(), None);
    let fingerprints =
        [TokenizerAs::File, TokenizerAs::Transformers].map(|r| load(dir.path(), r).fingerprint().unwrap());
    assert_ne!(fingerprints[0], fingerprints[1]);
}

#[test]
fn a_class_that_is_not_reproduced_is_named_or_refused() {
    let golden = golden();
    let mut case = case(&golden, "smollm2").clone();
    case["tokenizer_config"]["tokenizer_class"] = "RobertaTokenizerFast".into();
    let dir = folder(&case);
    let notices = load(dir.path(), TokenizerAs::File).folder_notices().to_vec();
    assert!(notices.len() == 1 && notices[0].contains("`RobertaTokenizer`, which is not reproduced"), "{notices:?}");
    let options = TokenizeOptions { tokenizer_as: TokenizerAs::Transformers, ..TokenizeOptions::default() };
    let error = PairTokenizer::from_dir(dir.path(), options).unwrap_err().to_string();
    assert!(error.contains("`tokenizer_class` RobertaTokenizer, which builds a tokenizer that is not reproduced here, expected --tokenizer-as file"), "{error}");
}

/// A class whose tokenizer fails on texts: the file's is used, and the failure is told.
#[test]
fn a_class_that_fails_does_not_fail_the_file() {
    let golden = golden();
    let mut case = case(&golden, "qwen3, file").clone();
    case["config"]["model_type"] = "gemma2".into();
    case["tokenizer_config"]["tokenizer_class"] = "GemmaTokenizer".into();
    let dir = folder(&case);
    let tokenizer = load(dir.path(), TokenizerAs::File);
    let notice = tokenizer.reading_notice(&pairs(&golden)).unwrap().unwrap();
    assert!(notice.contains("`GemmaTokenizer`") && notice.starts_with("3 of 3 pairs"), "{notice}");
    assert_eq!(tokenizer.inner().encode("the", true).unwrap().get_ids(), ids(&json!([291])));
}

#[test]
fn facts_about_the_folder_are_told() {
    let golden = golden();
    let told = |name: &str| load(folder(case(&golden, name)).path(), TokenizerAs::File).folder_notices().join("\n");
    let moved = told("token of the configuration, another id");
    assert!(
        moved.starts_with("1 tokens have other ids than the folder declares, such as `<tool>`: 316 in place of 999"),
        "{moved}"
    );
    assert!(told("split").starts_with("`split_special_tokens` in tokenizer_config.json"));
    assert_eq!(told("qwen3, file"), "");
}

/// Two begin tokens and two end tokens are TRL's, and counted; the prompt keeps no end.
#[test]
fn repeated_begins_and_ends_are_counted() {
    let golden = golden();
    let pairs = pairs(&golden);
    let told = |name: &str| {
        let tokenizer = load(folder(case(&golden, name)).path(), TokenizerAs::File);
        let set = tokenizer.encode_all(&pairs).unwrap();
        assert_eq!(set.shifted, 0, "{name}");
        tokenizer.repeated_notices(set.rows())
    };
    let both = told("begins and ends");
    assert!(both[0].starts_with("1 prompts begin with `<s>` twice, as in TRL"), "{both:?}");
    assert!(both[1].starts_with("6 responses end in `</s>` twice, as in TRL"), "{both:?}");
    let ends = told("ends");
    assert!(ends.len() == 1 && ends[0].starts_with("6 responses end"), "{ends:?}");
    // A text that holds two of them.
    let own = told("llama of bytes under llama's name");
    assert!(own.len() == 2 && own[1].starts_with("1 responses end in `</s>` twice"), "{own:?}");

    let tokenizer = load(folder(case(&golden, "begins and ends")).path(), TokenizerAs::File);
    let [bos, eos] = ["<s>", "</s>"].map(|token| tokenizer.inner().token_to_id(token).unwrap());
    let prompt = tokenizer.encode_prompt(&"the answer".into()).unwrap();
    assert!(prompt[0] == bos && !prompt.contains(&eos), "{prompt:?}");
    let ends_at_once = Pair::new("two".into(), "</s> and".into(), " or".into(), "s", Policy::Off);
    let Outcome::Kept(found) = tokenizer.encode(&ends_at_once).unwrap() else { panic!("dropped") };
    assert!(!found.prompt.contains(&eos) && found.chosen[0] == eos, "{found:?}");
    assert_eq!(ends_at_once.form(), Form::Plain);
}

#[test]
fn a_pointer_in_place_of_a_file_is_named() {
    let golden = golden();
    let dir = folder(case(&golden, "smollm2"));
    std::fs::write(dir.path().join("tokenizer.json"), "version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
        .unwrap();
    let error = PairTokenizer::from_dir(dir.path(), TokenizeOptions::default()).unwrap_err().to_string();
    assert!(
        error.contains("tokenizer.json: Git LFS's pointer to the file") && error.contains("git lfs pull"),
        "{error}"
    );
    let config = json!({"model_max_length": 1}).to_string().replace('1', "Infinity");
    std::fs::write(dir.path().join("tokenizer_config.json"), config).unwrap();
    std::fs::copy(format!("{GOLDEN}/bytes.json"), dir.path().join("tokenizer.json")).unwrap();
    let error = PairTokenizer::from_dir(dir.path(), TokenizeOptions::default()).unwrap_err().to_string();
    assert!(error.contains("tokenizer_config.json: `model_max_length` is Infinity"), "{error}");
    std::fs::remove_file(dir.path().join("tokenizer.json")).unwrap();
    std::fs::write(dir.path().join("tokenizer.model"), "x").unwrap();
    let error = PairTokenizer::from_dir(dir.path(), TokenizeOptions::default()).unwrap_err().to_string();
    assert!(error.contains("`tokenizer.model` alone is not read") && error.contains("save_pretrained"), "{error}");
}
