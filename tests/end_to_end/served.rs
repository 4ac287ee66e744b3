//! Rounds of `simplemix run` with servers that get the weights of each round.

#![expect(clippy::disallowed_methods, reason = "kills come at moments")]

use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::served_models::{FIRST, Fault, ModelServer, Speaks};
use crate::{Dir, exists, pipeline, stderr};

const ROUNDS: &[&str] = &[
    "run",
    "--preset",
    "simplemix",
    "--model",
    "model",
    "--prompts",
    "prompts.jsonl",
    "--off-policy",
    "off.jsonl",
    "--scorer",
    "digit-share",
    "--size",
    "4",
    "--set",
    "train.batch.batch_size=2",
    "--set",
    "train.tokens.max_length=256",
    "--set",
    "train.optimizer.learning_rate=2e-2",
    "--set",
    "collect.sampling.max_new_tokens=10",
    "--set",
    "collect.sampling.samples=8",
    "--output",
    "out",
];

const LORA: &[&str] = &["--set", "train.lora.rank=4", "--set", "collect.weights.by=lora"];

fn prepared() -> Dir {
    let dir = Dir::new();
    simplemix_model::tiny::write_folder(&dir.path("model"), 3).unwrap();
    dir.pairs("off.jsonl", "written", 16);
    let row = |i: usize| format!(r#"{{"prompt":[{{"role":"user","content":"What is {i} + {i}?"}}]}}"#);
    dir.write("prompts.jsonl", (0..8).map(row).collect::<Vec<_>>().join("\n"));
    dir
}

fn run(dir: &Dir, more: &[&str]) -> Output {
    dir.simplemix(&[ROUNDS, more].concat())
}

fn report(dir: &Dir, stage: &str) -> Value {
    pipeline::report(&pipeline::summary(dir, "out"), stage).clone()
}

/// The folder of a stage in the output.
fn folder(dir: &Dir, stage: &str) -> PathBuf {
    let entries = std::fs::read_dir(dir.path("out/stages")).unwrap().map(|entry| entry.unwrap().path());
    let is_it = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with(&format!("{stage}-"));
    entries.into_iter().find(is_it).unwrap()
}

/// Three rounds: the adapter of each goes to the server under a name of its own, shows by its responses that it is there, and goes when
/// the last request is back. The third is that of both trainings. The server breaks in the third round, and another one goes on.
#[test]
fn adapters_of_each_round_go_to_a_server_and_a_killed_pipeline_goes_on_with_them() {
    let dir = prepared();
    let server = ModelServer::start(&dir.path("model"), Speaks::Vllm, Fault::None);
    let url = server.mock.url();
    let two = run(&dir, &[LORA, &["--server", &url, "--set", "rounds=2"]].concat());
    assert!(two.status.success(), "{}", stderr(&two));
    let second = folder(&dir, "train-1").file_name().unwrap().to_string_lossy().into_owned();
    let loads = [("/v1/load_lora_adapter", &second), ("/v1/unload_lora_adapter", &second)];
    assert_eq!(server.about_weights(), loads.map(|(path, name)| (path.to_owned(), name.clone())));
    // Samples are the round's model's alone.
    let seen = server.mock.seen();
    let asked: Vec<&str> = seen
        .iter()
        .filter(|seen| seen.body["seed"].is_u64())
        .map(|seen| seen.body["model"].as_str().unwrap())
        .collect();
    assert_eq!(asked, [vec![FIRST; 64], vec![&second; 64]].concat());
    let first = report(&dir, "generate-1")["served"].clone();
    assert_eq!((&first["evidence"], &first["model"]), (&"same".into(), &FIRST.into()), "{first:#}");
    let served = report(&dir, "generate-2")["served"].clone();
    assert_eq!((&served["evidence"], &served["by"]), (&"log-probabilities".into(), &"lora".into()), "{served:#}");
    assert!((served["share"].as_f64().unwrap() - 1.0).abs() < 0.05, "{served:#}");
    assert!(served["difference"].as_f64().unwrap() < 1e-3, "{served:#}");
    assert!(report(&dir, "yardstick-2")["difference_to_before"].as_f64().unwrap() > 1e-3);
    let page = std::fs::read_to_string(dir.path("out/report.html")).unwrap();
    assert!(page.contains("weights verified, not those of the round before"), "the report tells");

    // A third round, whose server is another one; what is done needs none.
    drop(server);
    let third = ModelServer::start(&dir.path("model"), Speaks::Vllm, Fault::None);
    let url = third.mock.url();
    let three = [ROUNDS, LORA, &["--server", &url, "--set", "rounds=3"]].concat();
    let mut child = dir.command(&three).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let sampled = || third.mock.seen().iter().filter(|seen| seen.body["seed"].is_u64()).count();
    let until = Instant::now() + Duration::from_secs(120);
    while sampled() < 5 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let before = third.about_weights();
    let last = folder(&dir, "train-2").file_name().unwrap().to_string_lossy().into_owned();
    assert_eq!(before.last(), Some(&("/v1/load_lora_adapter".to_owned(), last.clone())), "{before:?}");
    let again = dir.simplemix(&three);
    assert!(again.status.success(), "{}", stderr(&again));
    let loaded = third.about_weights();
    assert_eq!(loaded[before.len()], ("/v1/load_lora_adapter".to_owned(), last.clone()), "it is loaded again");
    assert_eq!(third.adapters(), Vec::<String>::new());
    let served = report(&dir, "generate-3")["served"].clone();
    assert_eq!(served["evidence"], "log-probabilities", "{served:#}");
    assert!(exists(&folder(&dir, "generate-3").join("adapter/adapter_model.safetensors")));
    assert!(third.mock.seen().iter().all(|seen| seen.body["model"] != FIRST && seen.body["model"] != *second));
}

/// Two servers get the adapter of each round and share its requests, while the round before trains; the bytes are those of one server
/// and one stage after the other. A server that is away has no part in the round.
#[test]
fn rounds_are_collected_from_two_servers_while_the_one_before_trains() {
    let dir = prepared();
    let server = || ModelServer::start(&dir.path("model"), Speaks::Vllm, Fault::None);
    let (first, second) = (server(), server());
    // Texts of a tiny model, half of which hold digits.
    let rounds = "run --preset on-policy --model model --prompts prompts.jsonl --scorer digit-share --size 4 --set \
        train.batch.batch_size=2 --set train.tokens.max_length=256 --set train.optimizer.learning_rate=2e-2 --set \
        collect.sampling.max_new_tokens=10 --set collect.sampling.samples=8";
    let run = |more: &[&str]| {
        let words: Vec<&str> = rounds.split_whitespace().collect();
        dir.command(&[&words[..], more].concat())
    };
    let lag =
        ["--set", "rounds=3", "--set", "collect.lag=1", "--set", "max_age=1", "--set", "collect.server.retries=0"];
    let (one, two) = (first.mock.url(), second.mock.url());
    let both = [LORA, &lag, &["--server", &one, "--server", &two, "--output", "out"]].concat();
    // Training of the second round cannot begin, since its lock is held here; the third round is collected all the same.
    let plan = run(&[&both[..], &["--dry-run"]].concat()).output().unwrap();
    let said = crate::stdout(&plan);
    assert!(said.contains("beside training") && said.contains("generate-3, score-3, pair-3"), "{said}");
    let name = said.lines().find(|line| line.starts_with("train-2")).unwrap().split_whitespace().last().unwrap();
    let train = dir.path("out/stages").join(name.trim_end_matches("/run"));
    std::fs::create_dir_all(&train).unwrap();
    let lock = simplemix_files::Lock::acquire(train.join(".lock")).unwrap();
    let mut child = run(&both).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(120);
    let collected = || {
        dir.path("out/stages").read_dir().unwrap().any(|entry| {
            let entry = entry.unwrap().path();
            entry.file_name().unwrap().to_string_lossy().starts_with("pair-3-") && exists(&entry.join("stage.json"))
        })
    };
    while !collected() {
        if child.try_wait().unwrap().is_some() || Instant::now() >= until {
            child.kill().unwrap();
            panic!("the third round is not collected: {}", stderr(&child.wait_with_output().unwrap()));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    drop(lock);
    assert!(child.wait().unwrap().success());
    let shares = report(&dir, "generate-3")["servers"].clone();
    let [of_one, of_two] = [&one, &two].map(|url| shares[url].as_u64().unwrap_or_default());
    assert!(of_one > 0 && of_two > 0 && of_one + of_two == 64, "{shares:#}");
    assert_eq!(report(&dir, "generate-3")["served"]["evidence"], "log-probabilities");
    let model = |output: &str| std::fs::read(dir.path(output).join("model/model.safetensors")).unwrap();
    let whole = model("out");
    // One server, another one that is away, nothing beside training.
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let dead = format!("http://{dead}/v1");
    let after = ["--server", &dead, "--server", &one, "--set", "collect.beside=none", "--output", "after"];
    let after = run(&[LORA, &lag, &after].concat()).output().unwrap();
    assert!(after.status.success(), "{}", stderr(&after));
    assert!(stderr(&after).contains("it has no part in this round"), "{}", stderr(&after));
    assert!(model("after") == whole);
}

/// A server that says that it has the new weights and goes on with the old ones ends the run, and does not unseen.
#[test]
fn a_server_that_goes_on_with_old_weights_is_an_error_unless_nobody_looks() {
    let dir = prepared();
    let server = ModelServer::start(&dir.path("model"), Speaks::Sglang, Fault::KeepsOldWeights);
    let url = server.mock.url();
    let flags = ["--server", &url, "--set", "rounds=2"];
    let seen = run(&dir, &[LORA, &flags].concat());
    assert_eq!(seen.status.code(), Some(1), "{}", stderr(&seen));
    let said = stderr(&seen);
    assert!(said.contains("responds by old weights: ") && said.contains("mean log-probability -"), "{said}");
    let unseen = run(&dir, &[LORA, &flags, &["--set", "collect.weights.verify=false"]].concat());
    assert!(unseen.status.success(), "{}", stderr(&unseen));
    assert!(stderr(&unseen).contains("the weights of the server are not verified"), "{}", stderr(&unseen));
    assert_eq!(report(&dir, "generate-2")["served"]["evidence"], "not-verified");
    assert!(report(&dir, "generate-2")["notices"].to_string().contains("not verified"));
    // Whole models, which SGLang alone takes.
    let vllm = ModelServer::start(&dir.path("model"), Speaks::Vllm, Fault::None);
    let url = vllm.mock.url();
    let disk = run(&dir, &["--server", &url, "--set", "rounds=2", "--set", "collect.weights.by=disk"]);
    assert_eq!(disk.status.code(), Some(2), "{}", stderr(&disk));
    assert!(stderr(&disk).contains("the server is vLLM, which has no request that reads a model"), "{}", stderr(&disk));
}

#[test]
fn settings_that_do_not_fit_a_server_are_refused_by_name() {
    let dir = prepared();
    let server = ["--server", "http://localhost:1"];
    let refused = |more: &[&str], expected: &str| {
        let output = run(&dir, more);
        assert_eq!(output.status.code(), Some(2), "{more:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(expected), "{more:?}: {}", stderr(&output));
    };
    let lora = ["--set", "collect.weights.by=lora"];
    refused(&[&server[..], &lora].concat(), "`train.lora.rank` is 0, expected a rank above 0");
    let with = |more: &[&'static str]| [&server[..], LORA, more].concat();
    refused(&with(&["--set", "train.lora.dora=true"]), "`train.lora.dora` is true");
    refused(&with(&["--set", "train.lora.bias=all"]), "`train.lora.bias` is `all`");
    refused(&with(&["--set", "train.lora.modules_to_save=['lm_head']"]), "`train.lora.modules_to_save` is");
    refused(&with(&["--set", "collect.weights.devices=[0]"]), "`collect.weights.devices` is given");
    refused(&with(&["--set", "collect.weights.tolerence=1"]), "tolerence");
    refused(LORA, "`collect.weights` is given, expected `[collect.server]` with it");
    let serve = ["--set", "collect.weights={by='serve',command='x {model} {port}'}"];
    refused(&[&server[..], &serve].concat(), "`collect.server.url` is given");
    refused(&["--set", "collect.weights={by='serve',command='x {model}'}"], "a command with `{port}`");
    let shown = run(&dir, &[&server[..], LORA, &["--show"]].concat());
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(
        shown.contains("[collect.weights]") && shown.contains("verify = true") && shown.contains("# command ="),
        "{shown}"
    );
}

/// The process of a server that a pipeline of another test starts; it does nothing in the tests' own run.
#[test]
fn a_server_process() {
    let variable = |name: &str| std::env::var(format!("SIMPLEMIX_{name}")).ok();
    let (Some(model), Some(port)) = (variable("MODEL"), variable("PORT")) else { return };
    std::fs::write("server.pid", std::process::id().to_string()).unwrap();
    let _server = ModelServer::start_at(port.parse().unwrap(), &PathBuf::from(model), Speaks::Vllm, Fault::None);
    loop {
        std::thread::park();
    }
}

fn is_alive(process: &str) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    state.rsplit(')').next().is_some_and(|rest| !rest.trim().is_empty() && !rest.trim().starts_with('Z'))
}

/// Waits until a process has ended.
fn has_ended(process: &str) -> bool {
    let until = Instant::now() + Duration::from_secs(20);
    while is_alive(process) && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(20));
    }
    !is_alive(process)
}

/// The pipeline starts a server for each collection; it ends before training, and with the pipeline, also if that is killed.
#[test]
fn servers_are_started_for_each_round_and_end_with_it() {
    let dir = prepared();
    let program = std::env::current_exe().unwrap();
    let command = format!("'{}' served::a_server_process --exact --nocapture # {{model}} {{port}}", program.display());
    let serve = format!("collect.weights={{by='serve',timeout_secs=100,command=\"{command}\"}}");
    let flags = [ROUNDS, &["--set", &serve, "--set", "rounds=2"]].concat();
    // Killed while the first server is there.
    let mut child = dir.command(&flags).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(100);
    let process = loop {
        let process = std::fs::read_to_string(dir.path("server.pid")).unwrap_or_default();
        if !process.is_empty() {
            break process;
        }
        assert!(Instant::now() < until, "no server");
        std::thread::sleep(Duration::from_millis(5));
    };
    assert!(is_alive(&process));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(has_ended(&process), "the server lives on without its pipeline");
    let whole = dir.simplemix(&flags);
    assert!(whole.status.success(), "{}", stderr(&whole));
    let process = std::fs::read_to_string(dir.path("server.pid")).unwrap();
    assert!(!is_alive(&process));
    for (stage, evidence) in [("generate-1", "same"), ("generate-2", "log-probabilities")] {
        let served = report(&dir, stage)["served"].clone();
        assert_eq!((&served["evidence"], &served["by"]), (&evidence.into(), &"serve".into()), "{served:#}");
        let log = std::fs::read_to_string(folder(&dir, stage).join("server.log")).unwrap();
        assert!(log.contains("running 1 test"), "{log}");
    }
    // A server that ends at once.
    let broken = "collect.weights={by='serve',command='echo no such device; exit 4 # {model} {port}'}";
    let output = run(&dir, &["--set", broken]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("has ended with exit code 4") && stderr(&output).contains("no such device"),
        "{}",
        stderr(&output)
    );
}
