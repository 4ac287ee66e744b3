//! `simplemix mix` in its various ways.

use std::fmt::Write;

use serde_json::Value;

use crate::{Dir, exists, stderr, stdout};

#[track_caller]
fn mixes(dir: &Dir, args: &str) -> String {
    let output = dir.simplemix(&[&["mix"], &args.split_whitespace().collect::<Vec<_>>()[..]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    stdout(&output)
}

#[track_caller]
fn refuses(dir: &Dir, args: &str, says: &str) {
    let output = dir.simplemix(&[&["mix"], &args.split_whitespace().collect::<Vec<_>>()[..]].concat());
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains(says), "{}", stderr(&output));
}

fn report(dir: &Dir, name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(dir.path(name)).unwrap()).unwrap()
}

/// `count` pairs in plain text with tasks; prompts are numbered from `first`.
fn with_tasks(dir: &Dir, name: &str, first: usize, count: usize) {
    let mut text = String::new();
    for i in first..first + count {
        let task = if i % 2 == 0 { "math" } else { "poetry" };
        writeln!(text, r#"{{"prompt":"question {i}","chosen":" yes {name}","rejected":" no","task":"{task}"}}"#)
            .unwrap();
    }
    dir.write(name, text);
}

fn column(dir: &Dir, name: &str, column: &str) -> Vec<String> {
    let text = std::fs::read_to_string(dir.path(name)).unwrap();
    let value = |line: &str| serde_json::from_str::<Value>(line).unwrap()[column].as_str().unwrap().to_owned();
    text.lines().map(value).collect()
}

const SOURCES: &str = "--source off=off.jsonl --source on=on.jsonl";

fn sources(dir: &Dir) {
    with_tasks(dir, "off.jsonl", 0, 60);
    with_tasks(dir, "on.jsonl", 30, 60);
}

#[test]
fn a_receipt_that_says_something_else_does_not_hold() {
    let dir = Dir::new();
    sources(&dir);
    mixes(&dir, &format!("{SOURCES} --size 40 -o m.jsonl --report m.json"));
    let receipt: Value = serde_json::from_str(&std::fs::read_to_string(dir.path("m.json")).unwrap()).unwrap();
    let says = |change: &dyn Fn(&mut Value), message: &str| {
        let mut changed = receipt.clone();
        change(&mut changed);
        assert_ne!(changed, receipt, "{message}");
        dir.write("changed.json", changed.to_string());
        let output = dir.simplemix(&["mix", "--verify", "changed.json"]);
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(stderr(&output).contains(message), "{message}: {}", stderr(&output));
    };
    says(&|r| r["origins"][0]["name"] = "other".into(), "`origins` is ");
    says(&|r| r["origins"][0]["rows"] = 7.into(), "`origins` is ");
    says(&|r| r["origins"] = Value::Array(Vec::new()), "`origins` is [], but its settings lead to ");
    says(&|r| r["mixture"]["seed"] = 9.into(), "`mixture` is ");
    says(&|r| r["settings"]["seed"] = 9.into(), "`mixture` is ");
    says(&|r| r["plan"][0]["rows"] = 3.into(), "other rows now");
    says(&|r| r["length_unit"] = "tokens".into(), "`length_unit` is ");
    says(&|r| r["output"] = "else.jsonl".into(), "`output` is ");
    // Nothing is made where a receipt says.
    says(&|r| r["settings"]["output"] = "folder/m.jsonl".into(), "`output` is ");
    let left = ["cache", "changed.json", "m.json", "m.jsonl", "off.jsonl", "on.jsonl"];
    assert!(dir.entries().iter().all(|name| left.contains(&name.as_str())), "{:?}", dir.entries());
}

#[test]
fn a_receipt_is_checked_against_files_and_bytes() {
    let dir = Dir::new();
    sources(&dir);
    mixes(&dir, &format!("{SOURCES} --size 40 -o m.parquet --report m.json --plot m.svg"));
    assert!(std::fs::read_to_string(dir.path("m.svg")).unwrap().contains("<svg"));
    let said = mixes(&dir, "--verify m.json");
    assert!(said.contains("holds: 40 pairs, 2 sources unchanged, m.parquet is what was written then"), "{said}");
    std::fs::remove_file(dir.path("m.parquet")).unwrap();
    assert!(mixes(&dir, "--verify m.json").contains("m.parquet is gone"));
    // The one that was written first is stale, as after a crash between the two.
    for (at, stale) in
        [(1, "m.json is stale, since m.parquet was written after it"), (-1, "m.parquet is stale, since it was")]
    {
        dir.write("m.parquet", "else");
        let written = std::fs::metadata(dir.path("m.json")).unwrap().modified().unwrap();
        let second = std::time::Duration::from_secs(1);
        let time = if at > 0 { written + second } else { written - second };
        std::fs::File::options().write(true).open(dir.path("m.parquet")).unwrap().set_modified(time).unwrap();
        let output = dir.simplemix(&["mix", "--verify", "m.json"]);
        assert_eq!(output.status.code(), Some(1));
        let said = stderr(&output);
        assert!(said.contains("m.parquet is not what was written then") && said.contains(stale), "{said}");
    }
    with_tasks(&dir, "on.jsonl", 31, 60);
    refuses(&dir, "--verify m.json", "on.jsonl: source `on` has changed");
    refuses(&dir, "--verify off.jsonl", "off.jsonl: not a receipt");
    assert_eq!(dir.entries().iter().filter(|name| name.starts_with('.')).count(), 0);
}

#[test]
fn batches_and_ranks_hold_their_shares() {
    let dir = Dir::new();
    sources(&dir);
    mixes(&dir, &format!("{SOURCES} --size 96 --batch 8 --order batch-shuffled --ranks 4 -o m.jsonl --report m.json"));
    let names = column(&dir, "m.jsonl", "source");
    for batch in names.chunks(8) {
        assert_eq!(batch.iter().filter(|name| *name == "on").count(), 4, "{batch:?}");
    }
    let report = report(&dir, "m.json");
    assert_eq!(report["achieved"]["batch_discrepancy"], 0.0);
    assert_eq!(report["achieved"]["sources"][0]["ranks"], serde_json::json!([12, 12, 12, 12]));
    assert_eq!(report["promise"]["batches"], true);
}

#[test]
fn settings_come_from_a_file_with_schedule_and_routing() {
    let dir = Dir::new();
    sources(&dir);
    let source = "[[source]]\nname = \"off\"\npath = \"off.jsonl\"\n[[source]]\nname = \"on\"\npath = \"on.jsonl\"\n";
    dir.write(
        "over.toml",
        format!("size = 80\nseed = 3\n{source}[schedule]\ncurve = \"linear\"\npoints = [{{at = 0, weights = [1, 0]}}, {{at = 1, weights = [0, 1]}}]\n"),
    );
    mixes(&dir, "--config over.toml -o m.jsonl");
    let names = column(&dir, "m.jsonl", "source");
    let on = |part: &[String]| part.iter().filter(|name| *name == "on").count();
    assert_eq!((on(&names[..40]), on(&names)), (10, 40));
    dir.write(
        "route.toml",
        format!("size = 40\n{source}[routing.default]\noff = 1\non = 0\n[routing.tasks.math]\noff = 0.25\non = 0.75\n"),
    );
    mixes(&dir, "--config route.toml -o r.jsonl --report r.json");
    let rows: Vec<(String, String)> =
        column(&dir, "r.jsonl", "source").into_iter().zip(column(&dir, "r.jsonl", "task")).collect();
    let count = |source: &str, task: &str| rows.iter().filter(|(s, t)| s == source && t == task).count();
    assert_eq!((count("off", "math"), count("on", "math"), count("off", "poetry")), (5, 15, 20));
    assert_eq!(report(&dir, "r.json")["mixture"]["sources"][0]["name"], "off/math");
    mixes(&dir, "--verify r.json");
    dir.write("wrong.toml", "sise = 4\n");
    refuses(&dir, "--config wrong.toml -o m.jsonl", "sise");
}

#[test]
fn prompts_are_kept_apart_or_together() {
    let dir = Dir::new();
    sources(&dir);
    // 30 prompts are in both.
    mixes(
        &dir,
        &format!("{SOURCES} --prompts disjoint --until all-exhausted --order interleaved -o d.jsonl --report d.json"),
    );
    let report = report(&dir, "d.json");
    let kept: u64 = (0..2).map(|i| report["plan"][i]["available"].as_u64().unwrap()).sum();
    assert_eq!(kept, 90);
    mixes(&dir, &format!("{SOURCES} --prompts adjacent -o a.jsonl"));
    let prompts = column(&dir, "a.jsonl", "prompt");
    assert_eq!(prompts.len(), 60);
    assert!(prompts.chunks(2).all(|two| two[0] == two[1]));
    mixes(&dir, &format!("{SOURCES} --prompts apart --size 40 -o f.jsonl"));
    let prompts = column(&dir, "f.jsonl", "prompt");
    assert!((0..30).all(|i| (i + 1..i + 10).all(|j| prompts[i] != prompts[j])));
    refuses(&dir, &format!("{SOURCES} --prompts apart --size 90 -o n.jsonl"), "--size is 90, expected at most 60");
    dir.write("apart.toml", "size = 90\nprompts = \"apart\"\n");
    refuses(&dir, &format!("{SOURCES} --config apart.toml -o n.jsonl"), "`size` is 90, expected at most 60");
    refuses(&dir, &format!("{SOURCES} --set prompts=together -o f.jsonl"), "together");
    mixes(&dir, &format!("{SOURCES} --weights off=1,on=3 --prompts crossed -o c.jsonl --report c.json"));
    let names = column(&dir, "c.jsonl", "source");
    let from_on = names.iter().filter(|name| *name == "on>off").count();
    assert!(names.len() == 30 && (15..30).contains(&from_on), "{from_on} of {}", names.len());
    let text = std::fs::read_to_string(dir.path("c.jsonl")).unwrap();
    assert!(text.lines().all(|line| line.contains("yes on.jsonl") == line.contains("on>off")));
    mixes(&dir, "--verify c.json");
}

#[test]
fn shares_can_be_drawn_counted_or_in_tokens() {
    let dir = Dir::new();
    sources(&dir);
    dir.model();
    mixes(&dir, "--source off=off.jsonl:7 --source on=on.jsonl:3 --shares quota -o q.jsonl");
    assert_eq!(column(&dir, "q.jsonl", "source").iter().filter(|name| *name == "on").count(), 3);
    mixes(&dir, &format!("{SOURCES} --shares bernoulli --size 40 -o b.jsonl"));
    assert_eq!(column(&dir, "b.jsonl", "source").len(), 40);
    mixes(&dir, &format!("{SOURCES} --shares tokens --size-tokens 400 --tokenizer model -o t.jsonl --report t.json"));
    let report = report(&dir, "t.json");
    assert_eq!(report["length_unit"], "tokens");
    let share = report["achieved"]["sources"][0]["token_share"].as_f64().unwrap();
    assert!((share - 0.5).abs() < 0.06, "{share}");
    refuses(&dir, &format!("{SOURCES} --shares some -o t.jsonl"), "--shares is `some`, expected exact, bernoulli");
    refuses(&dir, &format!("{SOURCES} --order batch-shuffled -o n.jsonl"), "--batch is absent");
    refuses(&dir, "-o t.jsonl --config none.toml", "none.toml");
    assert!(!exists(&dir.path("none")));
}

/// Rows beyond the memory that is allowed go through a file, and the result is the same.
#[test]
fn little_memory_changes_nothing() {
    let dir = Dir::new();
    sources(&dir);
    mixes(&dir, &format!("{SOURCES} --size 50 -o a.parquet"));
    mixes(&dir, &format!("{SOURCES} --size 50 --memory 0 -o b.parquet"));
    assert_eq!(std::fs::read(dir.path("a.parquet")).unwrap(), std::fs::read(dir.path("b.parquet")).unwrap());
}

#[test]
fn a_source_may_be_a_folder_of_shards() {
    let dir = Dir::new();
    sources(&dir);
    std::fs::create_dir(dir.path("shards")).unwrap();
    with_tasks(&dir, "shards/0.jsonl", 0, 20);
    with_tasks(&dir, "shards/1.jsonl", 20, 40);
    let mixed = |off: &str| {
        mixes(
            &dir,
            &format!("--source off={off} --source on=on.jsonl --size 50 -o m.jsonl --report m.json --overwrite"),
        );
        column(&dir, "m.jsonl", "prompt")
    };
    assert_eq!(mixed("shards"), mixed("off.jsonl"));
    mixed("shards/*.jsonl");
    mixes(&dir, "--verify m.json");
    with_tasks(&dir, "shards/2.jsonl", 70, 1);
    refuses(&dir, "--verify m.json", "source `off` has changed");
}

#[test]
fn text_becomes_messages_when_asked_for_or_beside_messages_and_then_it_is_said() {
    let dir = Dir::new();
    sources(&dir);
    dir.pairs("turns.jsonl", "turns", 20);
    let is_text = |name: &str| {
        let text = std::fs::read_to_string(dir.path(name)).unwrap();
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["prompt"].is_string()).collect::<Vec<_>>()
    };
    mixes(&dir, &format!("{SOURCES} -o text.jsonl"));
    assert!(is_text("text.jsonl").iter().all(|text| *text));
    mixes(&dir, &format!("{SOURCES} --messages -o asked.jsonl"));
    assert!(!is_text("asked.jsonl").iter().any(|text| *text));
    let beside = format!("mix {SOURCES} --source turns=turns.jsonl -o beside.jsonl");
    let output = dir.simplemix(&beside.split_whitespace().collect::<Vec<_>>());
    let said = stderr(&output) + &stdout(&output);
    assert!(!said.contains("canonical columns only"), "{said}");
    dir.write("more.jsonl", r#"{"prompt":"q","chosen":"a","rejected":"b","rated_on":"2024-01-02","prompt_id":"x"}"#);
    let output = dir.simplemix(&["mix", "--source", "a=more.jsonl", "-o", "more.parquet"]);
    let left = stderr(&output) + &stdout(&output);
    assert!(left.contains("a mixture has the canonical columns only; left out: prompt_id, rated_on"), "{left}");
    assert!(said.contains("plain text becomes messages, since other sources have messages: off, on"), "{said}");
    assert!(!is_text("beside.jsonl").iter().any(|text| *text));
}

#[test]
fn no_file_is_overwritten_unasked_and_no_source_at_all() {
    let dir = Dir::new();
    sources(&dir);
    mixes(&dir, &format!("{SOURCES} --size 40 -o m.jsonl"));
    let before = std::fs::read(dir.path("m.jsonl")).unwrap();
    refuses(&dir, &format!("{SOURCES} --size 20 -o m.jsonl"), "--output m.jsonl: exists");
    assert_eq!(std::fs::read(dir.path("m.jsonl")).unwrap(), before);
    mixes(&dir, &format!("{SOURCES} --size 20 -o m.jsonl --overwrite"));
    assert_eq!(column(&dir, "m.jsonl", "source").len(), 20);
    let apart = "is ./on.jsonl, expected a file that is none of the sources";
    refuses(&dir, &format!("{SOURCES} -o ./on.jsonl --overwrite"), &format!("--output {apart}"));
    refuses(&dir, &format!("{SOURCES} -o n.jsonl --report ./on.jsonl"), &format!("--report {apart}"));
}

#[test]
fn weights_are_read_or_refused_as_weights() {
    let dir = Dir::new();
    sources(&dir);
    mixes(&dir, "--source off=off.jsonl:75% --source on=on.jsonl:2.5e-1 --size 40 -o m.jsonl");
    assert_eq!(column(&dir, "m.jsonl", "source").iter().filter(|name| *name == "on").count(), 10);
    for weight in ["inf", "0,5", "1e400", ""] {
        let says = format!("weight of source `off` is `{weight}`, expected a number >= 0");
        refuses(&dir, &format!("--source off=off.jsonl:{weight} --source on=on.jsonl:1 -o n.jsonl"), &says);
    }
}

#[test]
fn splits_in_one_folder_are_not_mixed_up() {
    let dir = Dir::new();
    sources(&dir);
    for split in ["train", "test"] {
        std::fs::create_dir_all(dir.path("hub/data")).unwrap();
        with_tasks(&dir, &format!("hub/data/{split}-00000-of-00001.jsonl"), 0, 20);
    }
    let says = "hub/data: holds files of the splits test, train, expected files of one split";
    refuses(&dir, "--source off=hub --source on=on.jsonl -o m.jsonl", says);
    mixes(&dir, "--source off=hub/data/train-* --source on=on.jsonl --size 20 -o m.jsonl");
    // A shard without rows beside the others.
    dir.write("hub/data/train-00001-of-00002.jsonl", "\n");
    mixes(&dir, "--source off=hub/data/train-* --source on=on.jsonl --size 20 -o n.jsonl");
}
