//! The paper's comparison under `examples/reproduction`: its arms, and all of it on a tiny model.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::good_runs::succeeds;
use crate::{Dir, example, exists, stderr, stdout};

/// The arms' files, and the grids'.
fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/reproduction");
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|end| end == "toml")).collect()
}

#[test]
fn arms_differ_in_what_they_are_about_and_in_nothing_else() {
    let dir = Dir::new();
    let others = ["base", "cpu", "gpu", "paper", "reward"];
    let arms: Vec<PathBuf> =
        files().into_iter().filter(|path| !others.contains(&path.file_stem().unwrap().to_str().unwrap())).collect();
    assert_eq!(arms.len(), 13);
    for arm in arms {
        let shown = succeeds(&dir, &["run", arm.to_str().unwrap(), "--output", "out", "--show"]);
        let settings: toml::Table = shown.parse().unwrap();
        let (train, mix) = (&settings["train"], &settings["mix"]);
        let rounds = settings["rounds"].as_integer().unwrap();
        assert_eq!(rounds * mix["size"].as_integer().unwrap(), 64, "{}", arm.display());
        assert_eq!(train["loss"]["beta"].as_float(), Some(0.1));
        assert_eq!(train["optimizer"]["learning_rate"].as_float(), Some(1e-5));
        let (batch_size, epochs) = (&train["batch"]["batch_size"], &train["epochs"]);
        assert_eq!((batch_size.as_integer(), epochs.as_float()), (Some(4), Some(1.0)));
        assert_eq!(settings["collect"]["sampling"]["samples"].as_integer(), Some(4));
    }
}

const GRID: &str = r#"
root = "runs/reproduction"
set = [
    "mix.size=6", "train.batch.batch_size=2", "train.tokens.max_length=160", "train.optimizer.learning_rate=1e-3",
    "collect.sampling.max_new_tokens=6", "evaluate.max_new_tokens=6", "evaluate.kl_prompts=1",
]
reward_set = ["epochs=1", "tokens.max_length=160"]

[data]
seed = 1
problems = 8
held_out_problems = 6
gsm8k = 0
held_out_gsm8k = 0
open_ended = 8
held_out_open_ended = 6
reward_test = 12
prompt_tokens = 160
seen_tokens = 160

[tuning]
seed = 1
learning_rate = [1e-3]
beta = [0.1, 0.5]

[[arm]]
name = "simplemix"
seeds = [1, 2]

[[arm]]
name = "off-policy"
seeds = [1, 2]

[[arm]]
name = "on-policy"
seeds = [1]
like = "simplemix"

[[arm]]
name = "off-then-on"
seeds = [1]
like = "simplemix"
"#;

#[test]
fn the_comparison_runs_and_is_told() {
    let Some(example) = example("reproduction") else { return };
    let dir = Dir::new();
    dir.model();
    let turn = |from: &str, value: String| serde_json::json!({ "from": from, "value": value });
    let pair = |i: usize| {
        serde_json::json!({
            "conversations": [turn("human", format!("What is the best of the {i} seasons?"))],
            "chosen": turn("gpt", format!("Spring, since {i} flowers bloom.")),
            "rejected": turn("gpt", "No.".to_owned()),
        })
    };
    dir.write("pairs.json", serde_json::to_string(&(0..60).map(pair).collect::<Vec<_>>()).unwrap());
    std::fs::create_dir(dir.path("arms")).unwrap();
    for file in files() {
        std::fs::copy(&file, dir.path("arms").join(file.file_name().unwrap())).unwrap();
    }
    dir.write("arms/grid.toml", GRID);
    let call = |args: &[&str]| {
        let mut command = Command::new(&example);
        command.current_dir(dir.path("")).env("SIMPLEMIX_CACHE", dir.path("cache")).args(args);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        stdout(&output)
    };
    let said = call(&["prepare", "arms/grid.toml", "--model", "model", "--pairs", "pairs.json"]);
    assert!(said.contains(r#""held_out":{"reasoning":6,"open-ended":6}"#), "{said}");
    let run = ["run", "arms/grid.toml"];
    let said = call(&run);
    assert!(said.contains("--- on-policy seed 1"), "{said}");
    // Again: all stages are there.
    let said = call(&[&run[..], &["--only", "off-then-on"]].concat());
    assert!(!said.lines().any(|line| line.starts_with('[') && !line.contains("done before")), "{said}");
    let said = call(&["report", "arms/grid.toml", "-o", "told"]);
    assert!(said.contains("| simplemix | 2 |") && said.contains("on-policy - off-policy"), "{said}");
    for name in ["tables.md", "runs.csv", "answers.csv", "ratios.svg", "divergence.svg", "learning.svg"] {
        assert!(exists(&dir.path("told").join(name)), "{name}");
    }
    // The start, and six runs of 12 prompts.
    let answers = std::fs::read_to_string(dir.path("told/answers.csv")).unwrap();
    assert_eq!(answers.lines().count(), 1 + 7 * 12);
}
