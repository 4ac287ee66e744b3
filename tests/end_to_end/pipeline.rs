//! `simplemix run`: all stages as one, each done once.

#![expect(clippy::disallowed_methods, reason = "kills come at moments")]

use std::process::Stdio;
use std::time::Instant;

use serde_json::{Value, json};

use crate::good_runs::{lines, succeeds};
use crate::server::{Does, Mock, echo};
use crate::{Dir, exists, stderr};

/// Settings that make the presets small.
pub(crate) const SMALL: &[&str] = &[
    "--model",
    "model",
    "--prompts",
    "prompts.jsonl",
    "--off-policy",
    "off.jsonl",
    "--scorer",
    "digit-share",
    "--size",
    "8",
    "--set",
    "train.batch.batch_size=4",
    "--set",
    "train.tokens.max_length=256",
    "--set",
    "train.optimizer.learning_rate=1e-3",
    "--set",
    "collect.sampling.max_new_tokens=10",
];

pub(crate) fn prepared() -> Dir {
    let dir = Dir::new();
    dir.model();
    dir.pairs("off.jsonl", "written", 24);
    for (name, count) in [("prompts.jsonl", 12), ("held.jsonl", 5)] {
        let rows: Vec<String> = (0..count)
            .map(|i| {
                format!(
                    r#"{{"prompt":[{{"role":"user","content":"{name}: what is {i} + {i}?"}}],"answer":"{}"}}"#,
                    2 * i
                )
            })
            .collect();
        dir.write(name, rows.join("\n"));
    }
    dir
}

pub(crate) fn run(dir: &Dir, more: &[&str]) -> String {
    succeeds(dir, &[&["run"], &small(more)[..], more].concat())
}

/// The flags of [`SMALL`] that the preset in `more` has a use for; others are refused.
fn small(more: &[&str]) -> Vec<&'static str> {
    let preset = more.iter().skip_while(|word| **word != "--preset").nth(1).copied().unwrap_or_default();
    let unused: &[&str] = match preset {
        "off-policy" | "hypo" | "tulu3" | "olmo2" | "olmo3-instruct" | "olmo3-think" | "small" => {
            &["--prompts", "--scorer", "collect.sampling.max_new_tokens=10"]
        }
        "smollm3" => &["--prompts", "--scorer", "collect.sampling.max_new_tokens=10", "--off-policy"],
        "on-policy" | "qrpo" | "dpo-mix-p" | "dpo-mix-r" | "delta-judged" | "semi-online" => &["--off-policy"],
        "delta" => &["--off-policy", "--scorer"],
        _ => &[],
    };
    let used = SMALL.chunks(2).filter(|words| !words.iter().any(|word| unused.contains(word)));
    used.flatten().copied().collect()
}

pub(crate) fn weights(dir: &Dir, output: &str) -> Vec<u8> {
    std::fs::read(dir.path(output).join("model/model.safetensors")).unwrap()
}

pub(crate) fn summary(dir: &Dir, output: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(dir.path(output).join("summary.json")).unwrap()).unwrap()
}

/// A stage of a summary.
pub(crate) fn stage<'a>(summary: &'a Value, name: &str) -> &'a Value {
    let stages = summary["stages"].as_array().unwrap();
    stages.iter().find(|found| found["stage"] == name).unwrap_or_else(|| panic!("{name}: {summary:#}"))
}

/// Names of the stages of a summary, in their order.
pub(crate) fn stage_names(summary: &Value) -> Vec<&str> {
    summary["stages"].as_array().unwrap().iter().map(|stage| stage["stage"].as_str().unwrap()).collect()
}

/// Folder of a stage, seen from the folder of the test.
pub(crate) fn stage_folder<'a>(summary: &'a Value, name: &str) -> &'a str {
    stage(summary, name)["folder"].as_str().unwrap()
}

pub(crate) fn report<'a>(summary: &'a Value, name: &str) -> &'a Value {
    &stage(summary, name)["report"]
}

#[test]
fn a_server_samples_in_place_of_this_process() {
    let dir = prepared();
    // A server whose chat template is another, and that has no text for some samples.
    let mock = Mock::start(|seen| match (seen.path.as_str(), seen.body["seed"].as_u64()) {
        (_, Some(seed)) if seed % 6 == 0 => {
            let choice = json!({ "message": { "content": null, "reasoning": "so" }, "finish_reason": "length" });
            Does::Sends(200, vec![], json!({ "choices": [choice] }).to_string())
        }
        ("/tokenize", _) => Does::Sends(200, vec![], json!({ "tokens": [1, 2, 3] }).to_string()),
        _ => echo(seen),
    });
    let url = mock.url();
    let server = ["--server", &url, "--server-model", "m"];
    run(&dir, &[&["--preset", "simplemix", "--output", "out"], &server[..]].concat());
    let found = summary(&dir, "out");
    let generated = report(&found, "generate");
    let without = generated["without_text"].as_u64().unwrap();
    assert!(generated["candidates"] == 48 && without > 0, "{generated:#}");
    assert_eq!(report(&found, "pair")["without_text"], without);
    assert_eq!(report(&found, "train")["updates"], 2);
    // The server's token ids are compared with those of the model to be trained; what was said is kept.
    let notices = generated["notices"].to_string();
    assert!(notices.contains("token 0 is id 1 there") && notices.contains("have no text"), "{notices}");
    let asked = mock.seen().len();
    assert_eq!(asked, 48 + 2, "every sample, one reply for its ids, and the ids themselves");
    run(&dir, &[&["--preset", "simplemix", "--output", "out"], &server[..]].concat());
    assert_eq!(mock.seen().len(), asked);
    let shown = run(&dir, &[&["--preset", "simplemix", "--show"], &server[..]].concat());
    assert!(shown.contains("[collect.server]") && shown.contains(&format!("url = \"{url}\"")), "{shown}");
    let rounds = dir.simplemix(&[&["run"], SMALL, &server[..], &["--set", "rounds=2", "--output", "two"]].concat());
    assert_eq!(rounds.status.code(), Some(2));
    assert!(
        stderr(&rounds)
            .contains("`collect.server` is given, with several rounds, expected `[collect.weights]` beside it"),
        "{}",
        stderr(&rounds)
    );
}

#[test]
fn a_changed_setting_does_again_only_what_follows_from_it() {
    let dir = prepared();
    let arm = ["--preset", "simplemix", "--eval-prompts", "held.jsonl", "--stages", "stages", "--output"];
    let said = run(&dir, &[&arm[..], &["first"]].concat());
    assert!(said.contains("[9/9] grade-after") && !said.contains("done before"), "{said}");
    let found = summary(&dir, "first");
    let mix = report(&found, "mix");
    assert_eq!(mix["pairs"], 8);
    for source in mix["sources"].as_array().unwrap() {
        assert_eq!(source["share"], 0.5);
    }
    assert_eq!(report(&found, "generate")["candidates"], 48);
    assert_eq!(report(&found, "train")["updates"], 2);
    let evaluation = found["evaluation"].as_array().unwrap();
    assert_eq!((evaluation.len(), &evaluation[1]["prompts"]), (2, &5.into()));
    assert!(evaluation[1]["p_value"].is_number());
    let page = std::fs::read_to_string(dir.path("first/report.html")).unwrap();
    assert!(page.contains("grade-after") && page.contains("learning_rate = 0.001"));
    let parts = [
        "Findings",
        "the mean score went from",
        "Response of before",
        "Response of after",
        "Response of rejected",
        "Trained on",
    ];
    for part in parts {
        assert!(page.contains(part), "{part}");
    }

    // The view of a run that is done; the comparison of two pipelines.
    let view = succeeds(&dir, &["watch", "first", "--once"]);
    for part in ["first: done", "✓ grade-after", "update 2 of 2", "rewards/margins@on"] {
        assert!(view.contains(part), "{part}: {view}");
    }
    let compared = succeeds(&dir, &["report", "first", "-o", "compared"]);
    assert!(compared.contains("1 runs in 1 arms"), "{compared}");
    let comparison = std::fs::read_to_string(dir.path("compared/report.html")).unwrap();
    assert!(comparison.contains("score, held-out prompts") && comparison.contains("Margins by source"));

    // Again: nothing is done.
    let said = run(&dir, &[&arm[..], &["first"]].concat());
    assert_eq!(said.matches("done before").count(), 9, "{said}");
    assert_eq!(summary(&dir, "first"), found);
    // Another strength of the pull to the reference: training and what comes after.
    let said = run(&dir, &[&arm[..], &["second", "--set", "train.loss.beta=0.5"]].concat());
    assert_eq!(said.matches("done before").count(), 6, "{said}");
    assert!(weights(&dir, "first") != weights(&dir, "second"));
    // Another arm on the same stages: on-policy pairs are those that are there.
    let arm = ["--preset", "on-policy", "--stages", "stages", "--output", "third"];
    let said = run(&dir, &arm);
    assert_eq!(said.matches("done before").count(), 3, "{said}");
    // Another file of off-policy pairs under the same name.
    dir.pairs("off.jsonl", "rewritten", 24);
    let said = run(&dir, &["--preset", "simplemix", "--stages", "stages", "--output", "fourth"]);
    assert_eq!(said.matches("done before").count(), 3, "{said}");
}

/// The end of a pipeline for a program that reads it.
#[test]
fn the_end_of_a_pipeline_is_told_as_json() {
    let dir = prepared();
    let arm = [&["run"], &small(&[])[..], &["--preset", "simplemix", "--eval-prompts", "held.jsonl"]].concat();
    let arm = [&arm[..], &["--output", "out", "--json"]].concat();
    let told = |output: std::process::Output| -> Value {
        assert!(output.status.success(), "{}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let first = dir.simplemix(&arm);
    assert!(stderr(&first).contains("[9/9] grade-after"), "{}", stderr(&first));
    let first = told(first);
    let names = |told: &Value| -> Vec<(String, String)> {
        let stages = told["stages"].as_array().unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        stages.iter().map(|stage| (text(&stage["stage"]), text(&stage["state"]))).collect()
    };
    let all =
        ["answer-before", "grade-before", "generate", "score", "pair", "mix", "train", "answer-after", "grade-after"];
    assert_eq!(names(&first), all.map(|name| (name.to_owned(), "done".to_owned())));
    let stage = |told: &Value, name: &str| {
        told["stages"].as_array().unwrap().iter().find(|stage| stage["stage"] == name).unwrap().clone()
    };
    let (generate, mix, train) = (stage(&first, "generate"), stage(&first, "mix"), stage(&first, "train"));
    assert_eq!(
        (&generate["counts"]["candidates"], &mix["counts"]["pairs"], &train["counts"]["updates"]),
        (&json!(48), &json!(8), &json!(2))
    );
    assert!(generate["seconds"].as_f64().unwrap() > 0.0 && generate["counts"].get("notices").is_none());
    for stage in [&generate, &mix, &train] {
        let outputs = stage["outputs"].as_array().unwrap();
        assert!(!outputs.is_empty() && outputs.iter().all(|path| exists(&dir.path(path.as_str().unwrap()))), "{stage}");
    }
    assert_eq!(train["outputs"][0], first["model"]);
    assert!(exists(&dir.path(first["report"].as_str().unwrap())));
    assert_eq!(first["evaluation"], summary(&dir, "out")["evaluation"]);

    // Again, with another training and a notice that the stage keeps.
    let larger = ["--set", "train.batch.batch_size=16", "--set", "train.optimizer.warmup_ratio=0"];
    let larger = [&arm[..], &larger].concat();
    let again = told(dir.simplemix(&larger));
    let reused: Vec<(String, String)> = names(&again).into_iter().filter(|(_, state)| state == "reused").collect();
    assert_eq!(reused.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), &all[..5]);
    let notice = "8 pairs are fewer than `batch.batch_size`, 16";
    assert!(stage(&again, "train")["notices"].to_string().contains(notice), "{again:#}");
    assert!(again["notices"].to_string().contains(notice), "{again:#}");
    let kept = told(dir.simplemix(&larger));
    assert!(names(&kept).iter().all(|(_, state)| state == "reused"));
    assert_eq!(stage(&kept, "train")["notices"], stage(&again, "train")["notices"]);
    assert_eq!(dir.simplemix(&[&arm[..], &["--dry-run"]].concat()).status.code(), Some(2));
}

/// Prompts of two tasks, each with a scorer of its own, in shares of tasks that a file below the arm's names.
#[test]
fn tasks_are_scored_mixed_and_evaluated_each_in_its_way() {
    let dir = prepared();
    let rows = |name: &str, count: usize| {
        let row = |i: usize| match i % 3 {
            0 => format!(r#"{{"prompt":[{{"role":"user","content":"{name}: a poem {i}?"}}],"task":"poems"}}"#),
            _ => format!(
                r#"{{"prompt":[{{"role":"user","content":"{name}: what is {i}?"}}],"task":"sums","answer":"{i}"}}"#
            ),
        };
        dir.write(&format!("{name}.jsonl"), (0..count).map(row).collect::<Vec<_>>().join("\n"));
    };
    rows("asked", 24);
    rows("held", 9);
    dir.write(
        "base.toml",
        r#"
        preset = "on-policy"
        [collect.sampling]
        temperature = 1.0
        top_p = 1.0
        [[collect.scorer]]
        kind = "digit-share"
        tasks = ["sums"]
        [[collect.scorer]]
        kind = "length"
        min = 12
        max = 100
        unit = "characters"
        tasks = ["poems"]
        [mix.routing]
        shares = { sums = 1, poems = 1 }
        [evaluate]
        prompts = { files = ["held.jsonl"] }
        kl_prompts = 2
        "#,
    );
    dir.write("arm.toml", "preset = \"base.toml\"\n[train.loss]\nbeta = 0.2\n");
    let small = [
        "--model",
        "model",
        "--size",
        "4",
        "--set",
        "train.batch.batch_size=2",
        "--set",
        "train.tokens.max_length=256",
    ];
    let more = ["--set", "train.optimizer.learning_rate=1e-3", "--set", "collect.sampling.max_new_tokens=10"];
    let arm = ["run", "arm.toml", "--prompts", "asked.jsonl", "--output", "out"];
    succeeds(&dir, &[&arm[..], &small, &more].concat());
    let found = summary(&dir, "out");
    assert_eq!(report(&found, "mix")["pairs"], 4);
    // In the file there are twice as many sums.
    let mixture = std::fs::read_dir(dir.path("out/stages")).unwrap().map(|entry| entry.unwrap().path());
    let mixture = mixture.into_iter().find(|path| path.display().to_string().contains("/mix-")).unwrap();
    let pairs = simplemix_data::read_pairs(mixture.join("mixture.parquet"), &Default::default()).unwrap();
    assert_eq!(pairs.iter().filter(|pair| pair.task.as_deref() == Some("poems")).count(), 2);
    let lines = found["evaluation"].as_array().unwrap();
    let names: Vec<_> = lines.iter().map(|line| (line["answers"].as_str(), line["task"].as_str())).collect();
    let both = |when| [(Some(when), None), (Some(when), Some("poems")), (Some(when), Some("sums"))];
    assert_eq!(names, [both("before"), both("after")].concat());
    assert_eq!([&lines[3]["prompts"], &lines[4]["prompts"], &lines[5]["prompts"]], [9, 3, 6]);
    assert!(lines[3]["mean_tokens"].as_f64().unwrap() <= 10.0);
    // Two answers to two prompts of either task.
    assert_eq!(report(&found, "divergence")["answers"], 8);
    assert_eq!(report(&found, "divergence")["tasks"]["sums"]["answers"], 4);
    for line in &lines[3..] {
        assert!(line["kl"].as_f64().unwrap() != 0.0 && line["kl_standard_error"].as_f64().unwrap() > 0.0);
    }
}

/// A pipeline that began on another day, as its output says.
#[test]
fn all_stages_of_a_pipeline_see_the_date_on_which_it_began() {
    let dir = prepared();
    let config = std::fs::read_to_string(dir.path("model/tokenizer_config.json")).unwrap();
    let config: Value = serde_json::from_str(&config).unwrap();
    let dated = "{{ strftime_now('%d %b %Y') }}".to_owned() + config["chat_template"].as_str().unwrap();
    dir.write("model/chat_template.jinja", dated);
    std::fs::create_dir(dir.path("out")).unwrap();
    dir.write("out/pipeline.toml", "template_date = '2024-02-29'\n");
    let without: Vec<&str> = SMALL.iter().filter(|flag| !["--scorer", "digit-share"].contains(flag)).copied().collect();
    let reward = ["--set", "reward.train=off.jsonl", "--set", "reward.optimizer.learning_rate=1e-3"];
    let evaluated = ["--preset", "simplemix", "--eval-prompts", "held.jsonl", "--set", "evaluate.kl_prompts=2"];
    let arm = [&["run"], &without[..], &reward, &evaluated, &["--output", "out"]].concat();
    let output = dir.simplemix(&arm);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("writes a date: 2024-02-29 in all stages"), "{}", stderr(&output));
    let found = summary(&dir, "out");
    let folder = |name: &str| {
        let stages = found["stages"].as_array().unwrap();
        dir.path(stages.iter().find(|stage| stage["stage"] == name).unwrap()["folder"].as_str().unwrap())
    };
    for file in ["generate/candidates", "score/scored", "answer-after/candidates", "grade-after/scored"] {
        let (stage, file) = file.split_once('/').unwrap();
        let metadata = simplemix_data::read_metadata(folder(stage).join(format!("{file}.parquet"))).unwrap();
        let date = metadata.get("simplemix.template_date").map(String::as_str);
        assert_eq!(date, Some("2024-02-29"), "{stage}");
    }
    for stage in ["reward", "train"] {
        let config = std::fs::read_to_string(folder(stage).join("run/config.toml")).unwrap();
        assert!(config.contains("template_date = \"2024-02-29\""), "{config}");
    }
    // Today is another day, and nothing is done again.
    let again = dir.simplemix(&arm);
    let said = String::from_utf8(again.stdout).unwrap();
    assert_eq!(said.matches("done before").count(), found["stages"].as_array().unwrap().len(), "{said}");
    // A date that the user sets wins; only mixing and pairing know none of their own.
    let output = dir.simplemix(&[&arm[..], &["--set", "template_date=2024-03-01"]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(!String::from_utf8(output.stdout).unwrap().contains("done before"));
    let wrong = dir.simplemix(&[&arm[..], &["--set", "template_date=yesterday"]].concat());
    assert_eq!(wrong.status.code(), Some(2));
    assert!(stderr(&wrong).contains("`template_date` is `yesterday`, expected a date such as"), "{}", stderr(&wrong));
    // A template that does not look at the date has no use for one.
    std::fs::remove_file(dir.path("model/chat_template.jinja")).unwrap();
    let output = dir.simplemix(&[&arm[..], &["--set", "template_date=2024-03-01", "--dry-run"]].concat());
    assert!(stderr(&output).contains("`template_date` 2024-03-01 has no effect"), "{}", stderr(&output));
}

/// Kills without warning at moments spread over the whole of it, and the same bits as without any.
#[test]
fn a_pipeline_that_is_killed_goes_on() {
    let dir = prepared();
    let arm = [
        "--preset",
        "simplemix",
        "--eval-prompts",
        "held.jsonl",
        "--set",
        "train.checkpoint.save_every_steps=1",
        "--output",
    ];
    let started = Instant::now();
    run(&dir, &[&arm[..], &["whole"]].concat());
    let duration = started.elapsed();
    let mut killed = 0;
    for kill in 0..8u32 {
        let mut child = dir.command(&[&["run"], SMALL, &arm[..], &["cut"]].concat());
        let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(duration.mul_f64((0.1 + f64::from(kill) * 0.618_033_988_75).fract()));
        child.kill().unwrap();
        killed += u32::from(!child.wait().unwrap().success());
    }
    let said = run(&dir, &[&arm[..], &["cut"]].concat());
    assert!(weights(&dir, "whole") == weights(&dir, "cut"), "{said}");
    assert!(killed > 0);
    assert_eq!(summary(&dir, "whole")["evaluation"], summary(&dir, "cut")["evaluation"]);
}

#[test]
fn what_would_be_done_is_said_and_nothing_is_written() {
    let dir = prepared();
    let before = dir.entries();
    let said = run(&dir, &["--preset", "simplemix", "--eval-prompts", "held.jsonl", "--output", "runs", "--dry-run"]);
    for stage in ["answer-before", "generate", "score", "pair", "mix", "train", "grade-after"] {
        assert!(said.lines().any(|line| line.starts_with(stage) && line.contains("to do")), "{said}");
    }
    assert!(said.contains("GB") && said.contains("Nothing was written"), "{said}");
    assert_eq!(dir.entries(), before);
}

#[test]
fn rounds_go_on_from_each_other_and_keep_the_first_reference() {
    let dir = prepared();
    let arm =
        ["--preset", "iterative", "--set", "rounds=2", "--set", "max_age=1", "--set", "collect.sampling.samples=3"];
    run(&dir, &[&arm[..], &["--output", "runs"]].concat());
    let found = summary(&dir, "runs");
    let sources: Vec<&Value> = report(&found, "mix-2")["sources"].as_array().unwrap().iter().collect();
    let share = |name: &str| sources.iter().find(|source| source["name"] == name).unwrap()["share"].clone();
    assert_eq!((share("off"), share("on"), share("on-1")), (0.5.into(), 0.25.into(), 0.25.into()));
    let second = found["stages"].as_array().unwrap().iter().find(|stage| stage["stage"] == "train-2").unwrap();
    let config = std::fs::read_to_string(dir.path(second["folder"].as_str().unwrap()).join("run/config.toml")).unwrap();
    let config: toml::Table = config.parse().unwrap();
    assert_eq!(config["reference"]["model"].as_str(), Some("model"));
    assert!(config["model"].as_str().unwrap().contains("train-1-"), "{config}");
}

#[test]
fn the_other_methods_of_the_paper_run() {
    let dir = prepared();
    let small = ["--set", "train.epochs=1", "--stages", "stages"];
    run(&dir, &[&["--preset", "off-policy", "--output", "off"][..], &small].concat());
    let hypo = ["--preset", "hypo", "--output", "hypo", "--set", "train.hypo.max_new_tokens=6"];
    run(&dir, &[&hypo[..], &small].concat());
    assert!(report(&summary(&dir, "hypo"), "train")["last"]["kl"].is_number());
    let mix_p =
        ["--preset", "dpo-mix-p", "--output", "mix-p", "--set", "collect.sampling.samples=4", "--set", "mix.size=4"];
    run(&dir, &[&mix_p[..], &small].concat());
    assert_eq!(report(&summary(&dir, "mix-p"), "generate-2")["candidates"], 48);
    assert!(exists(&dir.path("mix-p/model/config.json")));
    let mix_r =
        ["--preset", "dpo-mix-r", "--output", "mix-r", "--set", "collect.sampling.samples=4", "--set", "mix.size=4"];
    run(&dir, &[&mix_r[..], &small].concat());
    let found = summary(&dir, "mix-r");
    // One pair of each prompt that has any, drawn anew in each round.
    assert_eq!(report(&found, "pair-2")["pairs"], report(&found, "pair-2")["paired"]);
    assert!(exists(&dir.path("mix-r/model/config.json")));
}

#[test]
fn qrpo_ranks_rewards_among_those_of_the_samples() {
    let dir = prepared();
    run(&dir, &["--preset", "qrpo", "--output", "qrpo"]);
    let found = summary(&dir, "qrpo");
    let mixed = format!("{}/mixture.parquet", stage_folder(&found, "mix"));
    succeeds(&dir, &["convert", &mixed, "-o", "mixture.jsonl"]);
    let pairs = lines(&dir, "mixture.jsonl");
    assert!(pairs.iter().all(|pair| pair["ref_rewards"].as_array().unwrap().len() == 6), "{pairs:?}");
    // Where policy and reference are one, the loss is the mean square of what the quantiles are away from beta ln Z.
    let beta_log_z = 0.001 * 0.001f64.ln() + 1.0;
    let calibrated = |pair: &Value, side: &str| {
        let all = pair["ref_rewards"].as_array().unwrap();
        let reached = all.iter().filter(|reward| reward.as_f64() <= pair[side].as_f64()).count();
        (reached as f64 / all.len() as f64 - beta_log_z).powi(2)
    };
    // The first update takes the first four pairs.
    let losses = pairs[..4].iter().map(|pair| calibrated(pair, "score_chosen") + calibrated(pair, "score_rejected"));
    let want = losses.sum::<f64>() / 8.0;
    let first = &lines(&dir, &format!("{}/run/metrics.jsonl", stage_folder(&found, "train")))[0];
    assert!((first["loss"].as_f64().unwrap() - want).abs() < 1e-5, "{first} {want}");
    let shared = dir.simplemix(
        &[&["run", "--preset", "qrpo", "--output", "no"], &small(&["--preset", "qrpo"])[..], &["--set", "rounds=2"]]
            .concat(),
    );
    let said = stderr(&shared);
    assert_eq!(shared.status.code(), Some(2), "{said}");
    assert!(said.contains("`renew_reference` is false, expected true with the loss `qrpo`"), "{said}");
    // Off-policy pairs that lack what it learns from are refused before anything is sampled.
    let plain = ["--off-policy", "off.jsonl", "--set", "mix.off=1"];
    let lacking = dir.simplemix(
        &[&["run", "--preset", "qrpo", "--output", "no"], &small(&["--preset", "qrpo"])[..], &plain].concat(),
    );
    let said = stderr(&lacking);
    assert_eq!(lacking.status.code(), Some(2), "{said}");
    assert!(said.contains("off.jsonl, whose first pair has no `score_chosen` or `score_rejected`"), "{said}");
    assert!(!exists(&dir.path("no")));
}

#[test]
fn published_recipes_run_with_their_hyperparameters() {
    let dir = prepared();
    for (preset, rate) in
        [("tulu3", 5e-7), ("olmo2", 1e-6), ("olmo3-instruct", 1e-6), ("olmo3-think", 8e-8), ("small", 5e-7)]
    {
        let shown: toml::Table = succeeds(&dir, &["run", "--preset", preset, "--show"]).parse().unwrap();
        let train = &shown["train"];
        assert_eq!((&train["loss"]["name"], &train["loss"]["beta"]), (&"sigmoid_norm".into(), &5.0.into()));
        assert_eq!(train["optimizer"]["learning_rate"], rate.into(), "{preset}");
        run(&dir, &["--preset", preset, "--output", preset]);
        assert!(exists(&dir.path(preset).join("model/config.json")));
    }
    let mixed = ["--prompts", "prompts.jsonl", "--scorer", "digit-share", "--set", "mix.on=1", "--output", "mixed"];
    let sampled = ["--set", "collect.sampling.max_new_tokens=10"];
    run(&dir, &[&["--preset", "small"], &mixed[..], &sampled].concat());
    let found = summary(&dir, "mixed");
    assert_eq!(report(&found, "mix")["sources"].as_array().unwrap().len(), 2, "{found:#}");
}

/// A reward model that is trained first scores the answers.
#[test]
fn a_reward_model_may_be_one_of_the_stages() {
    let dir = prepared();
    let without: Vec<&str> = SMALL.iter().filter(|flag| !["--scorer", "digit-share"].contains(flag)).copied().collect();
    let arm =
        ["--preset", "simplemix", "--set", "reward.train=off.jsonl", "--set", "reward.optimizer.learning_rate=1e-3"];
    let said = succeeds(&dir, &[&["run"], &without[..], &arm, &["--output", "runs"]].concat());
    assert!(said.contains("] reward ("), "{said}");
    let found = summary(&dir, "runs");
    assert!(report(&found, "reward")["last"]["accuracy"].is_number());
    assert_eq!(report(&found, "score")["candidates"], 48);
}

#[test]
fn what_is_missing_or_wrong_is_named_before_anything_is_done() {
    let dir = prepared();
    let no_scorer: Vec<&str> =
        SMALL.iter().filter(|flag| !["--scorer", "digit-share"].contains(flag)).copied().collect();
    let without_off: Vec<&str> =
        SMALL.iter().filter(|flag| !["--off-policy", "off.jsonl"].contains(flag)).copied().collect();
    for (flags, expected) in [
        ([&["run"], SMALL, &["--preset", "simplemix"]].concat(), "`output` is not set"),
        (
            [&["run"], &no_scorer[..], &["--preset", "simplemix", "--output", "runs"]].concat(),
            "`collect.scorer` is not set",
        ),
        (
            [&["run"], SMALL, &["--preset", "simple", "--output", "runs"]].concat(),
            "--preset is `simple`, expected one of",
        ),
        (
            [&["run"], &without_off[..], &["--preset", "simplemix", "--output", "runs", "--off-policy", "none.jsonl"]]
                .concat(),
            "none.jsonl",
        ),
        (
            [&["run"], SMALL, &["--preset", "simplemix", "--output", "runs", "--off-policy", "b=none.jsonl"]].concat(),
            "--off-policy `off.jsonl` has no name",
        ),
        (
            [&["run"], SMALL, &["--preset", "simplemix", "--output", "runs", "--set", "train.learning_rat=1"]].concat(),
            "unknown key `train.learning_rat`; did you mean `train.optimizer.learning_rate`?",
        ),
        (
            [&["run"], SMALL, &["--preset", "simplemix", "--output", "runs", "--set", "train.lora_rank=4"]].concat(),
            "`train.lora_rank` is now `train.lora.rank`",
        ),
    ] {
        let output = dir.simplemix(&flags);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(expected), "{said}");
        assert!(!exists(&dir.path("runs")), "{flags:?}");
    }
    let said = succeeds(&dir, &["run", "--preset", "hypo", "--show"]);
    assert!(said.contains("# HyPO") && said.contains("[train.hypo]"), "{said}");
}
