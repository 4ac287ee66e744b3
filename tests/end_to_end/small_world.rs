//! The example `small_world`: every arm once, on random models; then the report.

use std::process::Command;

use crate::{Dir, example, stderr, stdout};

#[test]
fn every_arm_of_the_small_world_runs_once() {
    let Some(example) = example("small_world") else { return };
    let dir = Dir::new();
    let call = |args: &[&str]| {
        let mut command = Command::new(&example);
        command.current_dir(dir.path("")).env("SIMPLEMIX_CACHE", dir.path("cache")).env("OMP_WAIT_POLICY", "PASSIVE");
        command.args(["--results", "results.jsonl", "--work", "work"]).args(args).output().unwrap()
    };
    let smoke = || call(&["--smoke", "--lanes", "1"]);
    let output = smoke();
    assert!(output.status.success(), "{}", stderr(&output));
    let lines = || -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(dir.path("results.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let arms: Vec<String> = lines().iter().map(|row| row["arm"].as_str().unwrap().to_owned()).collect();
    let all = "start off on half off-then-on on-then-off on-30 iterative hypo dpo-mix-p";
    assert_eq!(arms.join(" "), all);
    for row in &lines()[1..] {
        assert!(row["updates"].as_u64().unwrap() > 0 && row["pairs_found"].as_u64().unwrap() > 0, "{row}");
    }

    // A second call finds all of it.
    let output = smoke();
    assert!(stdout(&output).starts_with("all runs are done"), "{}", stdout(&output));
    assert_eq!(lines().len(), arms.len());

    // A page without a place for tables is refused; tables stand between the marks.
    dir.write("page.md", "Evidence.\n");
    let report = || call(&["--report", "--page", "page.md"]);
    let output = report();
    assert!(!output.status.success() && stderr(&output).contains("page.md: has no lines `<!-- begin"));
    dir.write(
        "page.md",
        "Evidence.\n\n<!-- begin: cargo run --release --example small_world -- --report -->\n<!-- end -->\n\nMore.\n",
    );
    let output = report();
    assert!(output.status.success(), "{}", stderr(&output));
    let page = std::fs::read_to_string(dir.path("page.md")).unwrap();
    assert!(page.starts_with("Evidence.") && page.ends_with("<!-- end -->\n\nMore.\n"), "{page}");
    assert!(page.contains("| `claims` | 0 | not known before tuning |"), "{page}");

    // A line that is none of its own is an error with its number.
    dir.write("results.jsonl", "{}\n");
    let output = smoke();
    assert!(stderr(&output).contains("results.jsonl: line 1 is no result"), "{}", stderr(&output));
}
