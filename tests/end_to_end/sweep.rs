//! `simplemix sweep`: many values of some keys, on shared stages.

use std::process::Stdio;

use serde_json::Value;

use crate::bad_input::refused;
use crate::good_runs::succeeds;
use crate::pipeline::{SMALL, prepared};
use crate::{Dir, exists, stderr, stdout};

/// A sweep over the pipeline of the preset `simplemix`, small.
fn sweep<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["sweep"], SMALL, &["--preset", "simplemix", "--eval-prompts", "held.jsonl", "--output", "swept"], more].concat()
}

fn read(dir: &Dir, file: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(dir.path(file)).unwrap()).unwrap()
}

fn names(report: &Value, state: &str) -> Vec<String> {
    let runs = report["runs"].as_array().unwrap().iter().filter(|run| run["state"] == state);
    runs.map(|run| run["name"].as_str().unwrap().to_owned()).collect()
}

/// Folders of stages of a kind.
fn stages(dir: &Dir, kind: &str) -> usize {
    let entries = std::fs::read_dir(dir.path("swept/stages")).unwrap();
    entries.filter(|entry| entry.as_ref().unwrap().file_name().to_str().unwrap().starts_with(kind)).count()
}

#[test]
fn values_share_stages_and_a_failed_run_is_a_row() {
    let dir = prepared();
    // A mixture of 200 pairs needs more than there are.
    let vary = ["--vary", "size=8,12,200", "--vary", "beta=0.1,0.5"];
    let output = dir.simplemix(&sweep(&vary));
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("2 of 6 runs failed; the same command tries them again"), "{}", stderr(&output));
    let report = read(&dir, "swept/sweep.json");
    assert_eq!(names(&report, "done").len(), 4);
    assert_eq!(names(&report, "failed"), ["size-200_beta-0.1", "size-200_beta-0.5"]);
    let failed = report["runs"].as_array().unwrap().iter().find(|run| run["state"] == "failed").unwrap();
    assert!(failed["message"].as_str().unwrap().contains("has"), "{failed}");
    // On-policy pairs once, mixtures once for each size, trainings for each run.
    assert_eq!(["generate", "score", "pair", "mix"].map(|kind| stages(&dir, kind)), [1, 1, 1, 3]);
    // The first run is the middle of all values.
    assert_eq!(report["runs"][0]["name"], "size-12_beta-0.1");
    let best = &report["configurations"][0];
    assert_eq!((report["best_by"].as_str(), best["interval_over"].as_str()), (Some("highest:score"), Some("prompts")));
    assert!(report["configurations"].as_array().unwrap().len() == 4 && report["warning"].is_string(), "{report:#}");
    // Models of the best values stay.
    let kept = report["runs"].as_array().unwrap().iter().filter(|run| run["model"].is_string());
    let kept: Vec<&Value> = kept.map(|run| &run["name"]).collect();
    assert_eq!(kept, [&best["runs"][0]]);
    let page = std::fs::read_to_string(dir.path("swept/report.html")).unwrap();
    for part in ["score over size", "score over beta", "failed: ", "size 12, beta 0.1", "[sweep.vary]"] {
        assert!(page.contains(part), "{part}");
    }
    let compared = succeeds(&dir, &["report", "swept", "-o", "compared"]);
    assert!(compared.contains("4 runs in 4 arms") && compared.contains("size 12, beta 0.1"), "{compared}");
    let view = succeeds(&dir, &["watch", "swept", "--once"]);
    assert!(view.contains("✓ size-12_beta-0.1"), "{view}");

    // Again: what is done is not done again, also where its model is gone; what failed is tried.
    let again = dir.simplemix(&sweep(&vary));
    assert_eq!(stdout(&again).matches("done before").count(), 4, "{}", stdout(&again));
    assert_eq!(read(&dir, "swept/sweep.json")["configurations"], report["configurations"]);
    // A model that is gone is made again by the run's own settings, to the same bits as the report has.
    let gone = names(&report, "done").into_iter().find(|name| best["runs"][0] != name.as_str()).unwrap();
    let folder = format!("swept/runs/{gone}");
    assert!(!exists(&dir.path(&folder).join("model")));
    let summary = read(&dir, &format!("{folder}/summary.json"));
    succeeds(&dir, &["run", &format!("{folder}/pipeline.toml")]);
    assert!(exists(&dir.path(&folder).join("model/config.json")));
    assert_eq!(read(&dir, &format!("{folder}/summary.json"))["evaluation"], summary["evaluation"]);
}

#[test]
fn seeds_are_repetitions_and_a_budget_leaves_out_the_last() {
    let dir = prepared();
    let off = ["--set", "train.eval.files=held-pairs.jsonl", "--best-by", "eval_rewards/accuracies"];
    dir.pairs("held-pairs.jsonl", "kept", 6);
    let small = ["sweep", "--preset", "off-policy", "--model", "model", "--off-policy", "off.jsonl", "--size", "8"];
    let set = ["--set", "train.batch.batch_size=4", "--set", "train.tokens.max_length=128", "--output", "swept"];
    let vary = ["--vary", "learning_rate=1e-4,1e-3", "--vary", "seed=1,2", "--max-runs", "3", "--keep", "all"];
    let all = [&small[..], &set, &off, &vary].concat();
    let said = succeeds(&dir, &[&all[..], &["--dry-run"]].concat());
    assert!(said.contains("runs to do: 3, at most") && said.contains("left out: max_runs"), "{said}");
    assert!(!exists(&dir.path("swept")));
    succeeds(&dir, &all);
    let report = read(&dir, "swept/sweep.json");
    assert_eq!(names(&report, "done").len(), 3);
    assert_eq!(names(&report, "left-out"), ["learning-rate-0.001_seed-2"]);
    let both =
        report["configurations"].as_array().unwrap().iter().find(|found| found["runs"].as_array().unwrap().len() == 2);
    assert_eq!(
        (&both.unwrap()["interval_over"], both.unwrap()["values"][0][1].as_str()),
        (&"seeds".into(), Some("0.0001"))
    );
    assert_eq!(report["runs"].as_array().unwrap().iter().filter(|run| run["model"].is_string()).count(), 3);
    // One more run of the same sweep: only that is done.
    let more = succeeds(&dir, &[&all[..], &["--max-runs", "4"]].concat());
    assert_eq!(more.matches("done before").count(), 3, "{more}");
    assert_eq!(names(&read(&dir, "swept/sweep.json"), "done").len(), 4);
    // A metric that is not there is named with those that are.
    let wrong = dir.simplemix(&[&all[..], &["--best-by", "eval_los", "--output", "other"]].concat());
    assert_eq!(wrong.status.code(), Some(2));
    let wrong = dir.simplemix(&[&all[..], &["--best-by", "lowest:eval_los", "--output", "other"]].concat());
    assert!(stderr(&wrong).contains("which the runs do not have, expected one of"), "{}", stderr(&wrong));
}

#[test]
fn hours_and_disk_are_a_budget_too() {
    let dir = prepared();
    dir.pairs("held-pairs.jsonl", "kept", 6);
    let small = ["sweep", "--preset", "off-policy", "--model", "model", "--off-policy", "off.jsonl", "--size", "8"];
    let set = ["--set", "train.batch.batch_size=4", "--set", "train.tokens.max_length=128", "--output", "swept"];
    let eval = ["--set", "train.eval.files=held-pairs.jsonl", "--best-by", "eval_rewards/accuracies"];
    let all = [&small[..], &set, &eval, &["--vary", "learning_rate=1e-5,1e-4,1e-3"]].concat();
    let after = |more: &[&str]| {
        succeeds(&dir, &[&all[..], more].concat());
        let report = read(&dir, "swept/sweep.json");
        let left = report["runs"].as_array().unwrap().iter().filter(|run| run["state"] == "left-out");
        let reasons: Vec<String> = left.map(|run| run["reason"].as_str().unwrap().to_owned()).collect();
        (names(&report, "done"), reasons)
    };
    // Less than a run takes: the first one begins, since nothing is known of its time.
    let (done, reasons) = after(&["--max-hours", "1e-6"]);
    assert_eq!(done, ["learning-rate-0.0001"]);
    assert!(reasons.len() == 2 && reasons.iter().all(|reason| reason.ends_with("(max_hours)")), "{reasons:?}");
    // Less than is there already.
    let (done, reasons) = after(&["--max-disk-gb", "1e-6"]);
    assert_eq!(done, ["learning-rate-0.0001"]);
    assert!(reasons.len() == 2 && reasons.iter().all(|reason| reason.ends_with("(max_disk_gb)")), "{reasons:?}");
    // Enough of both.
    let (done, reasons) = after(&["--max-hours", "1", "--max-disk-gb", "10"]);
    assert_eq!((done.len(), reasons.len()), (3, 0));
}

#[test]
fn a_sweep_that_is_killed_goes_on() {
    let dir = prepared();
    let vary = ["--vary", "share=0,1/2,1", "--json"];
    let mut child = dir.command(&sweep(&vary)).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // At the latest when the first run is done.
    let mut waited = 0;
    while !exists(&dir.path("swept/runs/share-1-2/run.json")) && waited < 600 && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(20));
        waited += 1;
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let output = dir.simplemix(&sweep(&vary));
    assert!(output.status.success(), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(names(&report, "done"), ["share-1-2", "share-0", "share-1"]);
    assert!(stderr(&output).contains("share-1-2: done before"), "{}", stderr(&output));
    let shares = |name: &str| {
        let summary = read(&dir, &format!("swept/runs/{name}/summary.json"));
        let mix = summary["stages"].as_array().unwrap().iter().find(|stage| stage["stage"] == "mix").unwrap().clone();
        mix["report"]["sources"].as_array().unwrap().len()
    };
    assert_eq!(["share-0", "share-1-2", "share-1"].map(shares), [1, 2, 1]);
}

#[test]
fn a_sweep_that_cannot_be_is_refused_before_any_work() {
    let dir = prepared();
    let refuse = |more: &[&str], parts: &[&str]| refused(&dir, &sweep(more), parts);
    refuse(&[], &["`sweep.vary` is empty"]);
    refuse(&["--vary", "train.loss.betta=1,2"], &["train.loss.betta"]);
    refuse(&["--vary", "beta=0.1,-1"], &["run with beta -1: `train.loss.beta` is -1"]);
    refuse(&["--vary", "train.log.tensorboard=true,false"], &["`train.log.tensorboard`", "all runs would be the same"]);
    refuse(&["--vary", "beta=0.1,0.2", "--keep", "best", "--stages", "s"], &["`best` beside `stages`"]);
    refuse(&["--vary", "beta=0.1", "--vary", "train.loss.beta=0.2"], &["`train.loss.beta` is given twice"]);
    let unclear = dir.simplemix(&sweep(&["--vary", "beta=0.1,0.2", "--best-by", "kl"]));
    assert_eq!(unclear.status.code(), Some(2));
    assert!(stderr(&unclear).contains("`lowest:kl` or `highest:kl`"), "{}", stderr(&unclear));
    assert!(!exists(&dir.path("swept")));
    let nothing =
        ["sweep", "--preset", "off-policy", "--model", "model", "--off-policy", "off.jsonl", "--output", "swept"];
    refused(
        &dir,
        &[&nothing[..], &["--vary", "beta=0.1,0.2"]].concat(),
        &["`evaluate.prompts`, or `train.eval.files`"],
    );
    // The settings of a sweep as a file, from which it starts again.
    let shown = succeeds(&dir, &sweep(&["--vary", "beta=0.1,0.2", "--max-runs", "1", "--show"]));
    dir.write("sweep.toml", &shown);
    let said = succeeds(&dir, &["sweep", "sweep.toml", "--dry-run"]);
    assert!(
        said.lines().any(|line| line.starts_with("beta-0.1 ") && line.contains("to do"))
            && said.contains("left out: max_runs"),
        "{said}"
    );
}
