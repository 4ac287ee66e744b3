//! `simplemix run` with several off-policy sources, and with pools of several models.

use serde_json::Value;

use crate::good_runs::succeeds;
use crate::pipeline::{prepared, report, run, stage_folder, stage_names, summary};
use crate::server::{Mock, echo};
use crate::{Dir, exists, stderr};

/// Further tiny models, `strong` and `weak`.
fn with_models() -> Dir {
    let dir = prepared();
    for (name, seed) in [("strong", 2), ("weak", 3)] {
        simplemix_model::tiny::write_folder(&dir.path(name), seed).unwrap();
    }
    dir
}

/// A file in the folder of a stage.
fn file(dir: &Dir, summary: &Value, stage: &str, name: &str) -> std::path::PathBuf {
    dir.path(stage_folder(summary, stage)).join(name)
}

fn share(summary: &Value, mix: &str, name: &str) -> f64 {
    let sources = report(summary, mix)["sources"].as_array().unwrap();
    let found = sources.iter().find(|source| source["name"] == name).unwrap_or_else(|| panic!("{name}: {sources:?}"));
    found["share"].as_f64().unwrap()
}

#[test]
fn off_policy_sources_share_their_weight_and_stand_in_the_receipt() {
    let dir = prepared();
    dir.pairs("chat.jsonl", "chat", 24);
    dir.pairs("math.jsonl", "math", 24);
    let sources = ["--off-policy", "chat=chat.jsonl:3", "--off-policy", "math=math.jsonl:1"];
    let small = ["--model", "model", "--set", "train.batch.batch_size=8", "--set", "train.tokens.max_length=256"];
    let off = ["run", "--preset", "off-policy", "--size", "16", "--output", "off"];
    succeeds(&dir, &[&off[..], &small, &sources].concat());
    let found = summary(&dir, "off");
    assert_eq!((share(&found, "mix", "chat"), share(&found, "mix", "math")), (0.75, 0.25));
    let receipt = std::fs::read_to_string(file(&dir, &found, "mix", "receipt.json")).unwrap();
    let receipt: Value = serde_json::from_str(&receipt).unwrap();
    let origins: Vec<(&str, &str)> = receipt["origins"]
        .as_array()
        .unwrap()
        .iter()
        .map(|origin| (origin["name"].as_str().unwrap(), origin["path"].as_str().unwrap()))
        .collect();
    assert_eq!(origins, [("chat", "chat.jsonl"), ("math", "math.jsonl")]);
    // As a file, with on-policy pairs: half of all, so that chat has three eighths. Nothing but the mixture changes.
    dir.write(
        "arm.toml",
        "preset = 'simplemix'\n[[off_policy]]\nname = 'chat'\npath = 'chat.jsonl'\nweight = 0.75\n\
         [[off_policy]]\nname = 'math'\npath = 'math.jsonl'\nweight = '1/4'\n",
    );
    let sampled =
        ["--prompts", "prompts.jsonl", "--scorer", "digit-share", "--set", "collect.sampling.max_new_tokens=10"];
    let arm = ["run", "arm.toml", "--size", "16", "--output", "arm"];
    succeeds(&dir, &[&arm[..], &small, &sampled].concat());
    let found = summary(&dir, "arm");
    let shares = ["chat", "math", "on"].map(|name| share(&found, "mix", name));
    assert_eq!(shares, [0.375, 0.125, 0.5]);
    let written = std::fs::read_to_string(dir.path("arm/pipeline.toml")).unwrap();
    assert!(written.contains("[[off_policy]]\nname = \"chat\""), "{written}");
    let wrong = dir.simplemix(&[&arm[..], &small, &sampled, &["--off-policy", "on=chat.jsonl"]].concat());
    assert_eq!(wrong.status.code(), Some(2));
    assert!(stderr(&wrong).contains("the name `on`, expected another name"), "{}", stderr(&wrong));
}

#[test]
fn smollm3_runs_on_two_sources() {
    let dir = prepared();
    dir.pairs("plain.jsonl", "plain", 24);
    dir.pairs("think.jsonl", "think", 24);
    let sources = ["--off-policy", "no_think=plain.jsonl:0.75", "--off-policy", "think=think.jsonl:0.25"];
    run(&dir, &[&["--preset", "smollm3", "--output", "out"], &sources[..]].concat());
    let found = summary(&dir, "out");
    assert_eq!(share(&found, "mix", "think"), 0.25);
    assert!(report(&found, "train")["last"]["loss"].is_number());
    let shown: toml::Table = succeeds(&dir, &["run", "--preset", "smollm3", "--show"]).parse().unwrap();
    let train = &shown["train"];
    assert_eq!((&train["loss"]["name"], &train["loss"]["beta"]), (&"apo_zero".into(), &0.05.into()));
    assert_eq!(train["optimizer"]["min_rate_ratio"], 0.1.into());
    let weights: Vec<&str> =
        shown["off_policy"].as_array().unwrap().iter().map(|source| source["weight"].as_str().unwrap()).collect();
    assert_eq!(weights, ["115250", "54096"]);
}

#[test]
fn delta_learning_needs_two_models_and_no_score() {
    let dir = with_models();
    // The likeliest response of an untrained model is blank.
    let plain = ["--set", "collect.sampling.temperature=1"];
    let pool = ["--pool", "strong=strong", "--pool", "weak=weak"];
    run(&dir, &[&["--preset", "delta", "--output", "out"], &pool[..], &plain].concat());
    let found = summary(&dir, "out");
    assert_eq!(stage_names(&found), ["sample-strong", "sample-weak", "pool", "pair", "mix", "train"]);
    let kept = report(&found, "pool")["kept"].as_u64().unwrap();
    assert!(kept >= 8);
    assert_eq!(report(&found, "pool")["by_generator"], serde_json::json!({"strong": kept, "weak": kept}));
    assert_eq!(share(&found, "mix", "pool"), 1.0);
    let texts = |stage: &str| -> Vec<String> {
        let groups =
            simplemix_rollout::CandidateReader::open(&file(&dir, &found, stage, "candidates.parquet")).unwrap();
        groups.flat_map(|group| group.unwrap().rows).filter_map(|row| row.response).collect()
    };
    let pairs = simplemix_data::read_pairs(file(&dir, &found, "pair", "pairs.parquet"), &Default::default()).unwrap();
    let (strong, weak) = (texts("sample-strong"), texts("sample-weak"));
    for pair in &pairs {
        assert_eq!(pair.policy, simplemix_data::Policy::Off);
        let last = |text: &simplemix_data::Text| match text {
            simplemix_data::Text::Plain(text) => text.clone(),
            simplemix_data::Text::Messages(turns) => turns.last().unwrap().content.clone(),
        };
        assert!(strong.contains(&last(&pair.chosen)) && weak.contains(&last(&pair.rejected)), "{pair:?}");
    }
    // A response that is in a file need not be sampled.
    let ready = file(&dir, &found, "sample-weak", "candidates.parquet");
    let ready = format!("weak={}", ready.display());
    let pool = ["--pool", "strong=strong", "--pool", &ready];
    run(&dir, &[&["--preset", "delta", "--output", "file"], &pool[..], &plain].concat());
    let again = summary(&dir, "file");
    assert_eq!(stage_names(&again), ["sample-strong", "pool", "pair", "mix", "train"]);
    let of_file = simplemix_data::read_pairs(file(&dir, &again, "pair", "pairs.parquet"), &Default::default()).unwrap();
    assert_eq!(of_file.len(), pairs.len());
    // Models that are near each other, here one twice, sample by seeds of their own: by one seed no pair would differ.
    let twice = ["--pool", "strong=strong", "--pool", "weak=strong"];
    run(&dir, &[&["--preset", "delta", "--output", "twice"], &twice[..], &plain].concat());
    assert!(report(&summary(&dir, "twice"), "pair")["pairs"].as_u64().unwrap() >= 8);
}

#[test]
fn delta_judged_takes_two_weak_and_two_strong_responses() {
    let dir = with_models();
    simplemix_model::tiny::write_folder(&dir.path("tiny"), 4).unwrap();
    let mock = Mock::start(echo);
    let gpt = format!("strong:gpt={}", mock.url());
    let pool =
        ["--pool", "weak:small=weak", "--pool", "weak:tiny=tiny", "--pool", "strong:large=strong", "--pool", &gpt];
    run(
        &dir,
        &[&["--preset", "delta-judged", "--output", "out", "--set", "train.batch.batch_size=2"], &pool[..]].concat(),
    );
    let found = summary(&dir, "out");
    let pooled = report(&found, "pool");
    let kept = pooled["kept"].as_u64().unwrap();
    assert!(kept >= 8 && pooled["responses"] == 4 * kept, "{pooled:#}");
    // Two of two models each: one response of every model to every prompt.
    for stage in ["sample-small", "sample-tiny", "sample-large", "sample-gpt"] {
        assert_eq!(report(&found, stage)["candidates"], 12, "{stage}");
    }
    assert!(exists(&dir.path("out/model/config.json")));
}

/// The policy among others, with quotas: each samples what the pool keeps, in rounds the policy alone anew.
#[test]
fn a_pool_samples_nothing_in_vain() {
    let dir = with_models();
    let pool = [
        "--pool",
        "others:strong=strong",
        "--pool",
        "others:weak=weak",
        "--set",
        "collect.pool.take=['2:policy', '1:others']",
    ];
    let arm = ["--preset", "on-policy", "--set", "rounds=2", "--size", "4", "--set", "train.batch.batch_size=2"];
    let said = run(&dir, &[&arm[..], &pool, &["--output", "out"]].concat());
    assert!(said.contains("sample-strong") && !said.contains("done before"), "{said}");
    let found = summary(&dir, "out");
    assert_eq!(stage_names(&found)[..5], ["generate-1", "sample-strong", "sample-weak", "pool-1", "score-1"]);
    let sampled = |stage: &str| report(&found, stage)["candidates"].as_u64().unwrap();
    let (strong, weak) = (sampled("sample-strong"), sampled("sample-weak"));
    assert_eq!((sampled("generate-1"), sampled("generate-2"), strong + weak), (24, 24, 12));
    assert!(strong > 0 && weak > 0, "{strong} and {weak}");
    for round in ["pool-1", "pool-2"] {
        let pooled = report(&found, round);
        assert_eq!((&pooled["kept"], &pooled["responses"], &pooled["not_drawn"]), (&12.into(), &36.into(), &0.into()));
        assert_eq!(pooled["by_generator"]["policy"], 24);
    }
    // A pair of the policy's own responses is on-policy, any other one is not.
    let path = file(&dir, &found, "pair-1", "pairs.parquet");
    let pairs = simplemix_data::read_pairs(&path, &Default::default()).unwrap();
    for pair in &pairs {
        let is_own = pair.generator.as_deref() == Some("policy");
        assert_eq!(pair.policy == simplemix_data::Policy::On, is_own, "{pair:?}");
    }
    // Again nothing is done; with another number the policy and the pool are done anew, and what follows.
    let said = run(&dir, &[&arm[..], &pool, &["--output", "out"]].concat());
    assert_eq!(said.matches("done before").count(), stage_names(&found).len(), "{said}");
    let wrong = |more: &[&str], expected: &str| {
        let flags =
            ["run", "--preset", "on-policy", "--model", "model", "--prompts", "prompts.jsonl", "--output", "no"];
        let output = dir.simplemix(&[&flags[..], &["--scorer", "digit-share"], more].concat());
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains(expected), "{expected}: {}", stderr(&output));
        assert!(!exists(&dir.path("no")));
    };
    let one = ["--pool", "weak=weak"];
    wrong(&[&one[..], &["--set", "collect.pool.take=['1:huge', '1:weak']"]].concat(), "a list with `huge`");
    wrong(&[&one[..], &["--set", "collect.pool.take=['2:weak']", "--set", "rounds=2"]].concat(), "`rounds` is 2");
    wrong(&[&one[..], &["--set", "collect.sampler=mix-p"]].concat(), "none with the sampler `mix-p`");
    wrong(
        &[&one[..], &["--set", "collect.pool.take=['1:policy', '1:weak']", "--set", "collect.sampling.samples=3"]]
            .concat(),
        "collect.sampling.samples=3 has no use",
    );
    wrong(&["--pool", "weak.parquet"], "expected NAME=MODEL");
}
