//! The device that models run on, as commands are told it. No test here needs a GPU: one that is not there is as much a choice.

use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::good_runs::succeeds;
use crate::{Dir, exists, stderr, stdout};

/// Every command that runs models, on files of [`prepared`], and the output that it would write.
const COMMANDS: &[(&[&str], &str)] = &[
    (&["train", "--model", "model", "--train", "p.jsonl", "--output", "run"], "run"),
    (&["logps", "--model", "model", "--data", "p.jsonl", "-o", "l.jsonl"], "l.jsonl"),
    (&["generate", "--model", "model", "--prompts", "p.jsonl", "--max-new-tokens", "2", "-o", "c.jsonl"], "c.jsonl"),
    (&["collect", "--model", "model", "--prompts", "p.jsonl", "--scorer", "digit-share", "-o", "on.jsonl"], "on.jsonl"),
    (&["score", "--candidates", "given.jsonl", "--scorer", "reward-model:r/model", "-o", "s.jsonl"], "s.jsonl"),
    (&["compare", "model", "model", "--prompts", "p.jsonl", "--max-new-tokens", "2"], "nothing"),
    (&["eval", "preferences", "--model", "model", "--data", "p.jsonl"], "nothing"),
    (&["eval", "generate", "--model", "model", "--prompts", "p.jsonl", "-o", "o.json"], "o.json"),
    (
        &["eval", "judge", "--outputs", "a.json", "--baseline", "b.json", "--reward-model", "r/model", "-o", "v.json"],
        "v.json",
    ),
    (
        &[
            "run",
            "--preset",
            "off-policy",
            "--model",
            "model",
            "--off-policy",
            "p.jsonl",
            "--size",
            "8",
            "--set",
            "train.batch.batch_size=4",
            "--set",
            "train.tokens.max_length=256",
            "--output",
            "all",
        ],
        "all",
    ),
];

fn prepared() -> Dir {
    let dir = Dir::new();
    dir.model();
    dir.pairs("p.jsonl", "a", 8);
    let train = ["train", "--model", "model", "--train", "p.jsonl", "--objective", "reward", "--max-steps", "1"];
    succeeds(&dir, &[&train[..], &["--device", "cpu", "--output", "r"]].concat());
    dir.write("given.jsonl", "{\"prompt\":\"a\",\"response\":\"b\"}\n{\"prompt\":\"a\",\"response\":\"c\"}\n");
    for name in ["a", "b"] {
        let text = format!(r#"[{{"instruction":"q","output":"{name}","generator":"{name}"}}]"#);
        dir.write(&format!("{name}.json"), text);
    }
    dir
}

/// The program on a machine whose libraries have a GPU's driver, if `has_driver`, and no GPU that libtorch can use.
fn on_machine(dir: &Dir, args: &[&str], has_driver: bool) -> Output {
    let mut command = dir.command(args);
    command.env_remove("CUDA_VISIBLE_DEVICES");
    if has_driver {
        dir.write("libcuda.so.1", "");
        let own = std::env::var("LD_LIBRARY_PATH").unwrap_or_default();
        command.env("LD_LIBRARY_PATH", format!("{}:{own}", dir.path("").display()));
    }
    command.output().unwrap()
}

fn refuses(dir: &Dir, args: &[&str], has_driver: bool, parts: &[&str]) {
    let output = on_machine(dir, args, has_driver);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
    assert!(parts.iter().all(|part| said.contains(part)), "{args:?}: {said}");
}

fn has_no_gpu() -> bool {
    simplemix_model::DeviceChoice::Cuda(0).open().is_err()
}

#[test]
fn every_command_that_runs_models_refuses_a_gpu_that_is_not_there() {
    if !has_no_gpu() {
        return;
    }
    let dir = prepared();
    for (command, output) in COMMANDS {
        refuses(
            &dir,
            &[*command, &["--device", "cuda:7"]].concat(),
            false,
            &["`device` is `cuda:7`", "can use no GPU"],
        );
        assert!(!exists(&dir.path(output)) || Path::new(output) == Path::new("all"), "{command:?} left {output}");
    }
    for at in [0, 1] {
        let command = [COMMANDS[at].0, &["--device", "gpu"]].concat();
        refuses(&dir, &command, false, &["gpu", "`auto`, `cpu`, `cuda` or `cuda:N`"]);
    }
}

#[test]
fn a_gpu_that_libtorch_cannot_use_is_refused_unless_the_cpu_is_asked_for() {
    if !has_no_gpu() {
        return;
    }
    let dir = prepared();
    for at in [0, 1, 2, 9] {
        let command = COMMANDS[at].0;
        let parts = ["has an NVIDIA GPU that libtorch cannot use", "`--device cpu`"];
        refuses(&dir, command, true, &parts);
    }
    for at in [0, 4] {
        let output = on_machine(&dir, &[COMMANDS[at].0, &["--device", "cpu"]].concat(), true);
        assert!(output.status.success(), "{:?}: {}", COMMANDS[at].0, stderr(&output));
    }
    let kept = std::fs::read_to_string(dir.path("run/environment.json")).unwrap();
    let kept: Value = serde_json::from_str(&kept).unwrap();
    assert_eq!(kept["device"], "cpu");
    let settings = std::fs::read_to_string(dir.path("run/config.toml")).unwrap();
    assert!(settings.contains("device = \"cpu\"") && settings.contains("dtype = \"float32\""), "{settings}");
    for key in ["micro_batch_tokens = 1024", "logits_bytes = 268435456"] {
        assert!(settings.contains(key), "{key} in {settings}");
    }
}

#[test]
fn a_flag_wins_over_a_file_and_a_pipeline_has_one_device() {
    let dir = prepared();
    dir.write("run.toml", "device = \"cuda:63\"\n");
    let train = [COMMANDS[0].0, &["--config", "run.toml"]].concat();
    refuses(&dir, &train, false, &["`device` is `cuda:63`"]);
    let said = succeeds(&dir, &[&train[..], &["--device", "cpu", "--dry-run"]].concat());
    let line = "on cpu in float32, passes of at most 1024 tokens, at most 256 MiB of logits";
    assert!(said.contains(line), "{said}");
    let run = COMMANDS[9].0;
    let said = succeeds(&dir, &[run, &["--device", "cpu", "--dry-run"]].concat());
    assert!(said.starts_with("device: cpu\n"), "{said}");
    refuses(
        &dir,
        &[run, &["--set", "train.device=cpu"]].concat(),
        false,
        &["`train.device` is given", "pipeline sets it"],
    );
    let shown = succeeds(&dir, &[run, &["--set", "device=cpu", "--show"]].concat());
    assert!(shown.contains("\ndevice = \"cpu\"\n"), "{shown}");
    // The stages have the device, and their results do not depend on it.
    succeeds(&dir, &[run, &["--device", "cpu"]].concat());
    let kept = std::fs::read_to_string(dir.path("all/pipeline.toml")).unwrap();
    assert_eq!(kept.matches("device = ").count(), 1, "{kept}");
    let said = succeeds(&dir, &[run, &["--device", "auto"]].concat());
    assert!(said.contains("train (done before)"), "{said}");
}

#[test]
fn a_device_without_a_model_for_it_is_refused() {
    let dir = prepared();
    let server = ["--server", "http://localhost:1", "--device", "cpu"];
    for command in [
        &["generate", "--prompts", "p.jsonl", "-o", "c.jsonl"][..],
        &["eval", "generate", "--prompts", "p.jsonl", "-o", "o.json"],
        &["eval", "judge", "--outputs", "a.json", "--baseline", "b.json", "-o", "v.json"],
        &["collect", "--prompts", "p.jsonl", "--scorer", "digit-share", "-o", "on.jsonl"],
    ] {
        refuses(&dir, &[command, &server].concat(), false, &["--device cpu has no use"]);
    }
    let score = ["score", "--candidates", "given.jsonl", "--scorer", "digit-share", "-o", "s.jsonl", "--device", "cpu"];
    refuses(&dir, &score, false, &["--device cpu has no use"]);
}

/// A run that began elsewhere goes on here, and says so.
#[test]
fn a_run_goes_on_on_another_device() {
    let dir = prepared();
    let train = [COMMANDS[0].0, &["--device", "cpu", "--max-steps", "1"]].concat();
    succeeds(&dir, &train);
    let path = dir.path("run/environment.json");
    let kept = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, kept.replace("\"cpu\"", "\"cuda:0\"")).unwrap();
    let output = dir.simplemix(&["train", "--resume", "run", "--max-steps", "2"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let notices = std::fs::read_to_string(dir.path("run/notices.json")).unwrap();
    assert!(notices.contains("goes on on `cpu`; before it was on `cuda:0`"), "{notices}");
    // On a GPU, `auto` would have been another element type, which is no longer the same run.
    let other = dir.simplemix(&["train", "--resume", "run", "--max-steps", "3", "--dtype", "bfloat16"]);
    assert_eq!(other.status.code(), Some(2));
    assert!(stderr(&other).contains("`dtype` was \"float32\" and is \"bfloat16\""), "{}", stderr(&other));
    assert!(stdout(&output).contains("on cpu in float32"));
}
