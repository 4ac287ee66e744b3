//! The example `quickstart`: three JSON lines to a model folder.

use std::process::Command;

use crate::{Dir, example, exists, stderr, stdout};

const PAIRS: &str = r#"{"prompt": "What is 2 + 2?", "chosen": "2 + 2 = 4", "rejected": "I am not sure."}
{"prompt": "Name a prime number.", "chosen": "7 is prime.", "rejected": "9 is prime."}
{"prompt": "Which season is the best?", "chosen": "Spring.", "rejected": "No."}
"#;

#[test]
fn three_lines_become_a_model() {
    let Some(example) = example("quickstart") else { return };
    let dir = Dir::new();
    dir.model();
    dir.write("mine.jsonl", PAIRS);
    let call = |args: &[&str]| {
        let mut command = Command::new(&example);
        command.current_dir(dir.path("")).env("SIMPLEMIX_CACHE", dir.path("cache")).args(args).output().unwrap()
    };
    let output = call(&["model", "mine.jsonl", "runs/mine"]);
    let said = stdout(&output);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(said.contains("update 1 of 3: loss 0.6931") && said.contains("model: runs/mine/model"), "{said}");
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        assert!(exists(&dir.path("runs/mine/model").join(file)), "{file}");
    }
    let weights = |folder: &str| std::fs::read(dir.path(folder).join("model.safetensors")).unwrap();
    assert!(weights("model") != weights("runs/mine/model"));

    // An error that main returns is its text.
    let output = call(&["model", "none.jsonl", "runs/other"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).starts_with("Error: none.jsonl: "), "{}", stderr(&output));
    assert!(stderr(&call(&["model"])).starts_with("Error: expected a model folder"));
}
