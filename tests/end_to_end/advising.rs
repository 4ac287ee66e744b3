//! `simplemix advise`: measurements before mixing.

use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::bad_input::refused;
use crate::good_runs::succeeds;
use crate::{Dir, exists, stderr};

/// A tiny model, prompts with answers, and off-policy pairs of half of them, right first.
fn prepared() -> Dir {
    let dir = Dir::new();
    dir.model();
    let question = |i: usize| format!(r#"[{{"role":"user","content":"what is {i} + {i}?"}}]"#);
    let prompts = |i: usize| format!(r#"{{"prompt":{},"answer":"{}"}}"#, question(i), 2 * i);
    dir.write("prompts.jsonl", (0..6).map(prompts).collect::<Vec<_>>().join("\n"));
    let said = |text: String| format!(r#"[{{"role":"assistant","content":"{text}"}}]"#);
    let pair = |i: usize| {
        let (good, bad) = (said(format!("It is {}.", 2 * i)), said(format!("It is {}, I think.", 2 * i + 1)));
        format!(r#"{{"prompt":{},"chosen":{good},"rejected":{bad}}}"#, question(i))
    };
    dir.write("off.jsonl", (3..9).map(pair).collect::<Vec<_>>().join("\n"));
    dir
}

fn figure(advice: &Value, reading: &str, name: &str) -> f64 {
    let readings = advice["readings"].as_array().unwrap();
    let reading =
        readings.iter().find(|found| found["name"] == reading).unwrap_or_else(|| panic!("{reading}: {advice:#}"));
    let figures = reading["figures"].as_array().unwrap();
    let found = figures.iter().find(|figure| figure["name"] == name).unwrap_or_else(|| panic!("{name}: {reading:#}"));
    found["value"].as_f64().unwrap_or(f64::NAN)
}

#[test]
fn readings_are_measured_with_their_sources() {
    let dir = prepared();
    let arm = [
        "advise",
        "--model",
        "model",
        "--prompts",
        "prompts.jsonl",
        "--off-policy",
        "off.jsonl",
        "--scorer",
        "exact-answer",
    ];
    let arm =
        [&arm[..], &["--scorer", "0.5*digit-share", "--max-new-tokens", "8", "--limit", "5", "--output", "a"]].concat();
    let advice: Value = serde_json::from_str(&succeeds(&dir, &[&arm[..], &["--json"]].concat())).unwrap();
    assert_eq!(
        (&advice["prompts"], &advice["off_policy_pairs"], &advice["matched_prompts"]),
        (&5.into(), &5.into(), &2.into())
    );
    // The right answer is worth 1, digits half of their share: chosen responses win every comparison with an untrained model's.
    let gap = "share of them whose chosen response your scorer prefers";
    assert_eq!(figure(&advice, "Gaps between chosen and rejected responses", gap), 1.0);
    let stage = |name: &str| figure(&advice, "Stage of alignment", name);
    assert_eq!(stage("comparisons") + stage("ties, left out"), 2.0 * 4.0 * 2.0);
    assert!(stage("share of comparisons won by on-policy responses") <= 0.5);
    // An untrained model of 259 tokens: a perplexity near that of chance, for whatever text.
    let distance = |name: &str| figure(&advice, "Distance of each source from the policy", name);
    for name in ["own responses, perplexity", "off, chosen, perplexity", "off, rejected, perplexity"] {
        assert!((20.0..2000.0).contains(&distance(name)), "{name} {}", distance(name));
    }
    // Byte by byte: "It is 6." against "It is 7, I think."
    let longer = "off-policy, 80th percentile of chosen minus rejected, tokens";
    assert_eq!(figure(&advice, "Lengths", longer), -9.0);
    assert!(advice["readings"].as_array().unwrap().iter().all(|reading| {
        reading["source"].as_str().unwrap().contains("arXiv:") && !reading["says"].as_str().unwrap().is_empty()
    }));

    // Again, as text: nothing is sampled or scored anew, and the numbers are the same.
    let before = std::fs::metadata(dir.path("a/advice.json")).unwrap().len();
    let said = succeeds(&dir, &arm);
    assert!(
        said.contains("Stage of alignment")
            && said.contains("arXiv:2508.10530v2")
            && said.contains("page: a/advice.html")
    );
    assert_eq!(std::fs::metadata(dir.path("a/advice.json")).unwrap().len(), before);
    assert!(exists(&dir.path("a/advice.html")));
}

#[test]
fn advice_that_is_killed_goes_on_to_the_same_numbers() {
    let dir = prepared();
    let arm = ["advise", "--model", "model", "--prompts", "prompts.jsonl", "--off-policy", "off.jsonl"];
    let arm = [&arm[..], &["--scorer", "exact-answer", "--max-new-tokens", "8", "--json", "--output"]].concat();
    let whole: Value = serde_json::from_str(&succeeds(&dir, &[&arm[..], &["whole"]].concat())).unwrap();
    // At moments spread over the work: before, in and behind its stages.
    let killed = [&arm[..], &["killed"]].concat();
    for milliseconds in [40, 150, 400, 900] {
        let mut child = dir.command(&killed).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(milliseconds));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let after: Value = serde_json::from_str(&succeeds(&dir, &killed)).unwrap();
    assert_eq!(after["readings"], whole["readings"]);
}

#[test]
fn prompts_may_be_those_of_the_pairs_and_wrong_requests_are_refused() {
    let dir = prepared();
    let arm = ["advise", "--model", "model", "--off-policy", "off.jsonl", "--max-new-tokens", "4", "--output", "a"];
    let without = dir.simplemix(&arm);
    assert!(without.status.code() == Some(2) && stderr(&without).contains("--scorer"), "{}", stderr(&without));
    let missing =
        ["advise", "--model", "model", "--off-policy", "none.jsonl", "--scorer", "digit-share", "--output", "a"];
    refused(&dir, &missing, &["none.jsonl"]);
    let said = succeeds(&dir, &[&arm[..], &["--scorer", "digit-share", "--limit", "3", "--samples", "3"]].concat());
    assert!(said.contains("3 prompts with 3 responses each, 3 off-policy pairs; 3 of the prompts have one"), "{said}");
    assert!(said.contains("share of prompts whose responses differ in score"), "{said}");
}
