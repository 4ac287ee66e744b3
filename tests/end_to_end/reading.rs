//! Rows and responses as text for reading.

use serde_json::{Value, json};

use crate::good_runs::succeeds;
use crate::{Dir, stderr, stdout};

#[test]
fn pairs_of_any_format_are_shown() {
    let dir = Dir::new();
    dir.pairs("on.jsonl", "on", 5);
    let said = succeeds(&dir, &["show", "on.jsonl", "--rows", "2", "--skip", "1"]);
    let expected = "pair 1: source on, policy off\nprompt\n  [user] on question 1\nchosen\n  a good answer 1\nrejected\n  no 1\n\n\
        pair 2: source on, policy off\nprompt\n  [user] on question 2\nchosen\n  a good answer 2\nrejected\n  no 2\n";
    assert_eq!(said, expected);
    let said = succeeds(&dir, &["show", "on.jsonl", "--only", "rejected", "--rows", "1"]);
    assert_eq!(said, "pair 0: source on, policy off\nrejected\n  no 0\n");

    dir.write("odd.jsonl", "{\"q\":\"2+2?\",\"good\":\"4\",\"bad\":\"line one\\nline two\"}\n");
    dir.write("columns.toml", "prompt = \"q\"\nchosen = \"good\"\nrejected = \"bad\"\n");
    let said = succeeds(&dir, &["show", "odd.jsonl", "--map", "columns.toml", "--only", "rejected"]);
    assert_eq!(said, "pair 0: source odd, policy off\nrejected\n  line one\n  line two\n");
    // Without names for its columns, it is a table.
    let said = succeeds(&dir, &["show", "odd.jsonl", "--only", "q,bad"]);
    assert_eq!(said, "row 0\nq\n  2+2?\nbad\n  line one\n  line two\n");
}

#[test]
fn candidates_are_shown_under_their_prompt() {
    let dir = Dir::new();
    let row = |prompt: &str, response: Value, score: f64| json!({"prompt": [{"role": "user", "content": prompt}], "response": response, "score": score, "finish": "stop"});
    let rows = [row("a?", json!("one"), 1.0), row("a?", Value::Null, 0.5), row("b?", json!("two\u{1b}[31m"), 2.0)];
    dir.write("c.jsonl", rows.map(|row| row.to_string()).join("\n"));
    let said = succeeds(&dir, &["show", "c.jsonl"]);
    let expected = "prompt 0: 2 candidates\nprompt\n  [user] a?\nresponse: finish stop, score 1.0\n  one\n\
        response: finish stop, score 0.5\n  (no text)\n\nprompt 1: 1 candidates\nprompt\n  [user] b?\n\
        response: finish stop, score 2.0\n  two\\u{1b}[31m\n";
    assert_eq!(said, expected);
    let said = succeeds(&dir, &["show", "c.jsonl", "--skip", "1", "--only", "response"]);
    assert!(!said.contains("[user]") && said.contains("two"), "{said}");
    for (args, expected) in [
        (&["show", "c.jsonl", "--skip", "2"][..], "c.jsonl: 2 rows that fit, expected more than --skip 2"),
        (&["show", "c.jsonl", "--only", "chosen"], "--only is chosen, but c.jsonl has the parts prompt, response"),
        (&["show", "c.jsonl", "--source", "on"], "--source is on, but c.jsonl has no sources"),
        (&["show", "nowhere.jsonl"], "nowhere.jsonl"),
    ] {
        let output = dir.simplemix(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(stderr(&output).contains(expected), "{}", stderr(&output));
    }
}

#[test]
fn candidates_are_written_as_json_lines_too() {
    let dir = Dir::new();
    dir.model();
    dir.write("prompts.jsonl", "{\"prompt\":\"say one\"}\n{\"prompt\":\"say two\"}\n");
    let generate = "generate --model model --prompts prompts.jsonl --samples 2 --max-new-tokens 4 -o c.jsonl";
    succeeds(&dir, &generate.split(' ').collect::<Vec<_>>());
    let text = std::fs::read_to_string(dir.path("c.jsonl")).unwrap();
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((rows.len(), &rows[3]["prompt"], &rows[3]["sample"]), (4, &json!("say two"), &json!(1)));
    succeeds(&dir, &["score", "--candidates", "c.jsonl", "--scorer", "length:2", "-o", "s.jsonl.gz"]);
    assert!(succeeds(&dir, &["show", "s.jsonl.gz", "--rows", "1"]).contains(", score_length "));
    // Such a file does not tell its settings.
    let again = dir.simplemix(&generate.split(' ').collect::<Vec<_>>());
    assert_eq!(again.status.code(), Some(2));
    assert!(stderr(&again).contains("c.jsonl: exists, and is not known to be made with these settings"));
}

#[test]
fn two_models_are_compared_side_by_side() {
    let dir = Dir::new();
    dir.model();
    dir.pairs("on.jsonl", "on", 8);
    dir.write("prompts.jsonl", "{\"prompt\":\"say one\"}\n{\"prompt\":\"say two\"}\n{\"prompt\":\"say three\"}\n");
    let train = "train --model model --train on.jsonl --batch-size 4 --learning-rate 1e-1 --output runs/dpo";
    succeeds(&dir, &train.split(' ').collect::<Vec<_>>());
    let args =
        ["compare", "model", "runs/dpo/model", "--prompts", "prompts.jsonl", "--limit", "2", "--max-new-tokens", "6"];
    let said = succeeds(&dir, &args);
    for part in ["prompt 0\n  say one\n", "prompt 1\n  say two\n", "  model ", " | dpo\n", "2 prompts, "] {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert!(!said.contains("say three") && !said.contains('\u{1b}'), "{said}");
    assert_eq!(said, succeeds(&dir, &args), "greedy responses are the same each time");
    let output = dir.simplemix(&[&args[..], &["--json"]].concat());
    let rows: Vec<Value> = stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((rows.len(), &rows[1]["prompt"]), (2, &json!("say two")));
    assert_eq!(
        (&rows[0]["responses"][0]["model"], &rows[0]["responses"][1]["model"]),
        (&json!("model"), &json!("dpo"))
    );
    assert!(rows[0]["responses"][0]["text"].is_string() && rows[0]["equal"].is_boolean());
    // A model beside itself answers alike, and is named by its path.
    let said = succeeds(&dir, &["compare", "model", "./model", "--prompts", "prompts.jsonl", "--max-new-tokens", "4"]);
    assert!(said.contains("3 prompts, 3 with equal responses") && said.contains("| ./model\n"), "{said}");
}
