//! `simplemix inspect`, `convert` and `tokenize`.

use serde_json::Value;

use crate::{Dir, exists, stderr, stdout};

#[track_caller]
fn says(dir: &Dir, args: &str) -> String {
    let output = dir.simplemix(&args.split_whitespace().collect::<Vec<_>>());
    assert!(output.status.success(), "{}", stderr(&output));
    stdout(&output)
}

#[track_caller]
fn refuses(dir: &Dir, args: &str, text: &str) {
    let output = dir.simplemix(&args.split_whitespace().collect::<Vec<_>>());
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains(text), "{}", stderr(&output));
}

fn scored(dir: &Dir, name: &str) {
    let row = |i: usize| {
        let (chosen, rejected) = (i as f64 / 10.0, (i % 4) as f64 / 10.0);
        format!(
            r#"{{"prompt":"p{i}","chosen":" yes {i}","rejected":" no","score_chosen":{chosen},"score_rejected":{rejected},"task":"{}"}}"#,
            ["math", "chat"][i % 2]
        )
    };
    dir.write(name, (0..12).map(row).collect::<Vec<_>>().join("\n"));
}

#[test]
fn a_file_is_described_with_histograms_and_findings() {
    let dir = Dir::new();
    dir.model();
    scored(&dir, "a.jsonl");
    dir.pairs("b.jsonl", "b", 5);
    let text = says(&dir, "inspect a.jsonl b.jsonl --tokenizer model");
    assert!(text.contains("task       math") && text.contains("tokens") && text.contains('█'), "{text}");
    let json = says(&dir, "inspect a.jsonl --json");
    let found: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&found["pairs"], &found["tasks"]["chat"]), (&Value::from(12), &Value::from(6)));
    assert_eq!(found["score_margin"]["histogram"].as_array().unwrap().len(), 10);
    // The first rows' scores stand against their order: 0.1 < 0.1 is none, but ties and losses are.
    assert_eq!(found["findings"].get("score-against-order"), None);
    refuses(&dir, "inspect a.jsonl --deny nonsense", "--deny is `nonsense`, expected identical-sides");
    says(&dir, "inspect a.jsonl b.jsonl --deny shared-prompt");
    std::fs::copy(dir.path("a.jsonl"), dir.path("c.jsonl")).unwrap();
    refuses(
        &dir,
        "inspect a.jsonl c.jsonl --deny shared-prompt",
        "a.jsonl: 12 rows are shared-prompt, first [0, 1, 2, 3, 4]",
    );
    refuses(&dir, "inspect c.jsonl a.jsonl --deny any", "c.jsonl");
}

#[test]
fn nearly_equal_prompts_of_two_files_are_found() {
    let dir = Dir::new();
    let prompt = |last: &str| {
        let words: Vec<String> = (0..60).map(|i| format!("word{i}")).collect();
        format!(r#"{{"prompt":"{} {last}","chosen":" yes","rejected":" no"}}"#, words.join(" "))
    };
    dir.write("train.jsonl", prompt("please"));
    dir.write("eval.jsonl", prompt("thanks"));
    assert!(!says(&dir, "inspect train.jsonl eval.jsonl").contains("similar-prompt"));
    assert!(says(&dir, "inspect train.jsonl eval.jsonl --similar").contains("similar-prompt"));
    refuses(&dir, "inspect train.jsonl eval.jsonl --deny similar-prompt", "similar-prompt, first [0]");
    // A file of prompts alone, without pairs.
    let words = prompt("thanks").replace(r#","chosen":" yes","rejected":" no""#, "");
    dir.write("held.jsonl", format!("{words}\n{}", r#"{"prompt":"Something else?"}"#));
    let found = says(&dir, "inspect train.jsonl --held-out held.jsonl --similar");
    assert!(found.contains("similar-prompt 1") && !found.contains("held.jsonl"), "{found}");
    refuses(&dir, "inspect train.jsonl --held-out held.jsonl --deny similar-prompt", "similar-prompt, first [0]");
    dir.write("held.jsonl", r#"{"prompt":"Something else?"}"#);
    // The former name of the flag.
    says(&dir, "inspect train.jsonl --held-back held.jsonl --deny similar-prompt,shared-prompt");
}

#[test]
fn files_are_converted_and_filtered() {
    let dir = Dir::new();
    std::fs::create_dir(dir.path("shards")).unwrap();
    scored(&dir, "shards/0.jsonl");
    scored(&dir, "shards/1.jsonl");
    says(&dir, "convert shards -o all.parquet");
    let found: Value = serde_json::from_str(&says(&dir, "inspect all.parquet --json")).unwrap();
    assert_eq!(found["pairs"], 24);
    let text = says(&dir, "convert shards/*.jsonl -o some.jsonl --distinct --margin-min 0.3 --task math");
    assert!(text.contains("left out: task 12") && text.contains("left out: duplicate"), "{text}");
    let rows: Vec<Value> = std::fs::read_to_string(dir.path("some.jsonl"))
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let ids: Vec<&str> = rows.iter().map(|row| row["prompt"].as_str().unwrap()).collect();
    assert_eq!(ids, ["p4", "p6", "p8", "p10"]);
    dir.write("filter.toml", "margin_top = 0.25\n");
    says(&dir, "convert shards/0.jsonl --filter filter.toml -o top.jsonl");
    assert_eq!(std::fs::read_to_string(dir.path("top.jsonl")).unwrap().lines().count(), 3);
    refuses(&dir, "convert shards/none-* -o x.parquet", "nothing to read");
    refuses(&dir, "convert shards/0.jsonl --margin-min 99 -o x.parquet", "no pair passes the filters: margin 12");
    refuses(
        &dir,
        "convert shards/0.jsonl -o top.jsonl",
        "--output top.jsonl: exists; choose another name, or give --overwrite",
    );
    says(&dir, "convert shards/0.jsonl -o top.jsonl --overwrite");
    refuses(&dir, "convert shards top.jsonl -o ./top.jsonl --overwrite", "expected a file that is none of the inputs");
    refuses(&dir, "convert shards/0.jsonl --margin-min 99 -o x.csv", "x.csv");
    assert!(!exists(&dir.path("x.parquet")));
}

#[test]
fn columns_that_all_files_have_are_carried() {
    let dir = Dir::new();
    let row = |more: &str| format!(r#"{{"prompt":"q","chosen":"a","rejected":"b",{more}}}"#);
    dir.write("a.jsonl", row(r#""x":1,"y":"one","z":true"#));
    dir.write("b.jsonl", row(r#""y":"two","x":2.5,"z":false"#));
    let output = dir.simplemix(&["convert", "a.jsonl", "b.jsonl", "-o", "o.jsonl"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("or with other types, are left out: x"), "{}", stderr(&output));
    let text = std::fs::read_to_string(dir.path("o.jsonl")).unwrap();
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&rows[1]["y"], &rows[1]["z"], rows[1].get("x")), (&Value::from("two"), &Value::from(false), None));
}

#[test]
fn odd_columns_and_origins_can_be_told() {
    let dir = Dir::new();
    dir.write("odd.jsonl", r#"{"question": "2 + 2?", "better": " 4", "worse": " 5"}"#);
    dir.write("map.toml", "prompt = \"question\"\nchosen = \"better\"\nrejected = \"worse\"\n");
    refuses(&dir, "convert odd.jsonl -o x.jsonl", "odd.jsonl");
    says(&dir, "convert odd.jsonl --map map.toml --policy on --source-name sums --messages -o x.jsonl");
    let row: Value = serde_json::from_str(&std::fs::read_to_string(dir.path("x.jsonl")).unwrap()).unwrap();
    assert_eq!((&row["policy"], &row["source"]), (&Value::from("on"), &Value::from("sums")));
    assert_eq!(row["chosen"][0]["role"], "assistant");
    refuses(&dir, "convert odd.jsonl --format nothing -o y.jsonl", "--format is `nothing`");
    refuses(&dir, "convert odd.jsonl --ranked some -o y.jsonl", "--ranked is `some`, expected best-worst");
}

#[test]
fn pairs_become_tokens_with_an_account() {
    let dir = Dir::new();
    dir.model();
    dir.pairs("p.jsonl", "a", 9);
    let text = says(&dir, "tokenize p.jsonl --tokenizer model -o p.arrow");
    assert!(text.starts_with("9 of 9 pairs: "), "{text}");
    assert!(exists(&dir.path("p.arrow")));
    let account: Value =
        serde_json::from_str(&says(&dir, "tokenize p.jsonl --tokenizer model --max-length 20 --json")).unwrap();
    assert_eq!(account["kept"], 0);
    assert_eq!(account["dropped"]["prompt-fills-length"], 9);
    dir.write("q.jsonl", r#"{"prompt":"q","chosen":"a","rejected":"a"}"#);
    refuses(&dir, "tokenize q.jsonl --tokenizer model", "no usable pairs: q.jsonl");
    let beside = says(&dir, "tokenize q.jsonl p.jsonl --tokenizer model --json");
    assert!(beside.contains("refused: identical-sides 1"), "{beside}");
    refuses(&dir, "tokenize p.jsonl --tokenizer model -o p.txt", "expected a name ending in .arrow");
    refuses(&dir, "tokenize p.jsonl --tokenizer none", "none");
    refuses(
        &dir,
        "tokenize p.jsonl --tokenizer model --boundary soft",
        "unknown variant `soft`, expected one of `strict`, `trl`, `drop`",
    );
}

#[test]
fn prompts_are_compared_whatever_their_form_and_special_tokens_are_found() {
    let dir = Dir::new();
    dir.model();
    dir.write("text.jsonl", r#"{"prompt":"a question ","chosen":"yes","rejected":"no"}"#);
    let turns = r#"{"prompt":[{"role":"user","content":"a question"}],"chosen":[{"role":"assistant","content":"yes [INST] x"}],"rejected":[{"role":"assistant","content":"no"}]}"#;
    dir.write("turns.jsonl", turns);
    refuses(&dir, "inspect text.jsonl turns.jsonl --deny shared-prompt", "text.jsonl: 1 rows are shared-prompt");
    refuses(&dir, "inspect text.jsonl --held-out turns.jsonl --deny shared-prompt", "1 rows are shared-prompt");
    refuses(&dir, "inspect turns.jsonl --deny special-token", "turns.jsonl: 1 rows are special-token");
    // A tokenizer's own special tokens count in place of those of well-known ones.
    says(&dir, "inspect turns.jsonl --tokenizer model --deny special-token");
    dir.write("ends.jsonl", turns.replace("[INST]", "<|im_end|>"));
    refuses(&dir, "inspect ends.jsonl --tokenizer model --deny special-token", "1 rows are special-token");
    dir.write("again.jsonl", r#"{"prompt":"Q: 1?\nA:","chosen":"Q: 1?\nA: 2","rejected":"Q: 1?\nA: 3"}"#);
    refuses(&dir, "inspect again.jsonl --deny any", "again.jsonl: 1 rows are prompt-repeated");
}
