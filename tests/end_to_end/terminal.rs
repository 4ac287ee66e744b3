//! Names, texts and errors of others on the terminal: no character of theirs controls it.

use serde_json::{Value, json};

use crate::{Dir, stderr, stdout};

/// Effects that a name must not have: colours, a cleared screen, a title, a bell, a line of its own, another order, an overwritten line.
const EVIL: &str = "x\u{1b}[31m\u{1b}[2J\u{1b}]0;t\u{7}\u{9b}1m\u{7f}\u{202e}\u{2066}\nerror: forged\rgone";

/// A character that acts, apart from the end of a line.
fn acting(text: &str) -> Option<char> {
    let acts =
        |c: &char| (c.is_control() && *c != '\n') || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().find(acts)
}

#[track_caller]
fn is_clean(dir: &Dir, args: &[&str]) -> String {
    let output = dir.command(args).env("RUST_LOG", "trace").output().unwrap();
    let said = stdout(&output) + &stderr(&output);
    assert_eq!(acting(&said), None, "{args:?}: {said:?}");
    assert!(!said.lines().any(|line| line.starts_with("error: forged")), "{args:?}: {said}");
    said
}

#[test]
fn names_and_texts_of_others_do_not_control_the_terminal() {
    let dir = Dir::new();
    let row = |i: usize| {
        json!({"prompt": format!("{EVIL} {i}"), "chosen": EVIL, "rejected": format!("no {i}"), "source": EVIL, "task": EVIL,
            "generator": EVIL, EVIL: 1})
    };
    let rows: String = (0..3).map(|i| row(i).to_string() + "\n").collect();
    dir.write("rows.jsonl", rows);
    let said = is_clean(&dir, &["inspect", "rows.jsonl"]);
    assert!(said.contains("\\u{1b}[31m"), "{said}");
    is_clean(&dir, &["show", "rows.jsonl", "--rows", "2"]);
    is_clean(&dir, &["show", "rows.jsonl", "--only", EVIL]);
    is_clean(&dir, &["convert", "rows.jsonl", "-o", "out.jsonl"]);
    is_clean(&dir, &["mix", "--source", "a=rows.jsonl", "--source", "b=out.jsonl", "--size", "4", "-o", "m.jsonl"]);
    // The data are as they were.
    let kept = std::fs::read_to_string(dir.path("out.jsonl")).unwrap();
    let kept: Value = serde_json::from_str(kept.lines().next().unwrap()).unwrap();
    assert_eq!(kept["source"], EVIL);
    // JSON for programs has the same values, and nothing that acts.
    let report = is_clean(&dir, &["inspect", "rows.jsonl", "--json"]);
    let report: Value =
        serde_json::from_str(report.lines().find(|line| line.starts_with('[') || line.starts_with('{')).unwrap())
            .unwrap();
    assert!(report.to_string().contains(&serde_json::to_string(EVIL).unwrap()), "{report}");
}

#[test]
fn errors_with_words_of_others_do_not_control_the_terminal() {
    let dir = Dir::new();
    dir.pairs("p.jsonl", "a", 4);
    let columns = json!({EVIL: 1, "other": 2}).to_string();
    dir.write("columns.jsonl", columns);
    let name = "evil\u{1b}[31m\u{202e}\nerror: forged.jsonl";
    dir.write(name, "{}");
    for args in [
        vec!["inspect", "columns.jsonl"],
        vec!["inspect", name],
        vec!["inspect", EVIL],
        vec!["inspect", "p.jsonl", "--format", EVIL],
        vec!["inspect", EVIL, EVIL, "--no-such-flag", EVIL],
        vec![EVIL],
        vec!["train", "--beta", EVIL],
        vec!["train", "--set", EVIL],
        vec!["mix", "--source", EVIL, "-o", "m.jsonl"],
        vec!["generate", "--model", EVIL, "--prompts", "p.jsonl", "-o", "c.jsonl"],
    ] {
        is_clean(&dir, &args);
    }
    let model = dir.model();
    let template = format!("{{{{ raise_exception({}) }}}}", serde_json::to_string(EVIL).unwrap());
    std::fs::write(model.join("chat_template.jinja"), template).unwrap();
    let said = is_clean(&dir, &["tokenize", "p.jsonl", "--tokenizer", "model", "-o", "t.arrow"]);
    assert!(said.contains("\\u{1b}[31m"), "{said}");
}
