//! Files of TRL, the alignment handbook and others, with models and data of a hub that is a mock.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Output;

use super::{Dir, stderr, stdout};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// Starts a hub that gives `files` by their path in the URL; returns its address.
fn hub(files: BTreeMap<String, Vec<u8>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let first = lines.next().unwrap_or_default();
            lines.take_while(|line| !line.is_empty()).for_each(drop);
            let path = first.split(' ').nth(1).unwrap_or_default();
            let (status, body) = files.get(path).map_or(("404 Not Found", &b""[..]), |body| ("200 OK", body));
            let etag = blob_name(path);
            let length = body.len();
            let head = format!(
                "HTTP/1.1 {status}\r\nx-repo-commit: {COMMIT}\r\netag: \"{etag}\"\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
            );
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
        }
    });
    address
}

/// A name of a blob for a path.
fn blob_name(path: &str) -> String {
    path.bytes().map(|byte| if byte.is_ascii_alphanumeric() { byte as char } else { '-' }).collect()
}

/// Files of a model `owner/tiny` at the revision `v1`, and of a data set `owner/prefs` with two splits.
fn files(dir: &Dir) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(dir.model()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        files.insert(format!("/owner/tiny/resolve/v1/{name}"), std::fs::read(&path).unwrap());
    }
    let card = "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train_prefs\n    path: data/train_prefs-*\n  - split: \
                test_prefs\n    path: data/test_prefs-*\n---\n";
    let mut names = vec!["README.md".to_owned()];
    let at = |name: &str| format!("/datasets/owner/prefs/resolve/{COMMIT}/{name}");
    files.insert(at("README.md"), card.into());
    for (shard, kind, count) in [
        ("data/train_prefs-0.jsonl", "first", 8),
        ("data/train_prefs-1.jsonl", "second", 6),
        ("data/test_prefs-0.jsonl", "held-out", 4),
    ] {
        files.insert(at(shard), std::fs::read(dir.pairs("shard.jsonl", kind, count)).unwrap());
        names.push(shard.to_owned());
    }
    let siblings: Vec<_> = names.iter().map(|name| serde_json::json!({ "rfilename": name })).collect();
    let listing = serde_json::json!({ "sha": COMMIT, "siblings": siblings });
    files.insert("/api/datasets/owner/prefs/revision/main".to_owned(), listing.to_string().into());
    files
}

fn with_hub(dir: &Dir, endpoint: &str, args: &[&str]) -> Output {
    let mut command = dir.command(args);
    command
        .env("HF_ENDPOINT", endpoint)
        .env("HF_HOME", dir.path("hf"))
        .env_remove("HF_TOKEN")
        .env_remove("HF_HUB_CACHE");
    command.env_remove("HF_HUB_OFFLINE").output().unwrap()
}

fn ended_well(output: &Output) -> String {
    assert!(output.status.success(), "{}{}", stdout(output), stderr(output));
    stdout(output)
}

fn refused(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(2), "{}{}", stdout(output), stderr(output));
    stderr(output)
}

/// The shape of the handbook's SmolLM3 recipe, on a CPU and few pairs.
const HANDBOOK: &str = "\
# Config for 2 nodes, with GBS 16
model_name_or_path: owner/tiny
model_revision: v1
torch_dtype: null
chat_template: \"{% for message in messages %}<{{ message.role }}>{{ message.content }}{{ eos_token }}{% endfor %}\"
dataset_mixture:
  datasets:
    - {id: owner/prefs, config: default, split: train_prefs, columns: [chosen, rejected], weight: 0.5}
    - {id: owner/prefs, config: default, split: test_prefs, columns: [chosen, rejected], weight: 1.0}
  test_split_size: 3
  seed: 0
bf16: true
eval_strategy: steps
eval_steps: 0.5
gradient_accumulation_steps: 2
learning_rate: 1.0e-06
lr_scheduler_type: cosine_with_min_lr
lr_scheduler_kwargs:
  min_lr_rate: 0.1
loss_type: apo_zero
max_prompt_length: 512
num_train_epochs: 1
output_dir: run
per_device_train_batch_size: 2
report_to: [wandb]
save_steps: 0.5
warmup_ratio: 0.1
";

#[test]
fn a_recipe_of_the_handbook_runs_on_the_hubs_model_and_data() {
    let dir = Dir::new();
    let endpoint = hub(files(&dir));
    dir.write("dpo.yaml", HANDBOOK);
    let output = ended_well(&with_hub(&dir, &endpoint, &["train", "--trl-config", "dpo.yaml"]));
    // Half of 14 pairs and all of 4, of which 3 are held out: 8 pairs, two batches of 4.
    for part in [
        "train: 8 pairs",
        "eval:  3 pairs",
        "2 updates of 4 pairs",
        "a global batch of 16, which is 4 devices",
        "report_to",
    ] {
        assert!(output.contains(part), "`{part}` is not in {output}");
    }
    let template = std::fs::read_to_string(dir.path("run/model/chat_template.jinja")).unwrap();
    assert!(template.starts_with("{% for message in messages %}<{{ message.role }}>"));
    let config = std::fs::read_to_string(dir.path("run/model/tokenizer_config.json")).unwrap();
    assert!(!config.contains("chat_template"), "{config}");
    // The cosine with a floor of 0.1 and a warm-up of one update: rates 0 and 1e-6.
    let metrics = std::fs::read_to_string(dir.path("run/metrics.jsonl")).unwrap();
    let updates: Vec<serde_json::Value> = metrics.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let rates: Vec<f64> = updates.iter().filter_map(|line| line["learning_rate"].as_f64()).collect();
    assert_eq!(rates, [0.0, 1e-6]);
    assert_eq!(updates.iter().filter(|line| line.get("eval_loss").is_some()).count(), 2);
    // All is in the cache but the listing, for which the hub is asked.
    let error =
        refused(&with_hub(&dir, "http://127.0.0.1:9", &["train", "--trl-config", "dpo.yaml", "--output", "again"]));
    assert!(error.contains("/api/datasets/owner/prefs/revision/main: the hub cannot be reached"), "{error}");
    assert!(error.trim_end().ends_with("without a network, name files on this machine"), "{error}");
}

#[test]
fn a_data_set_of_the_hub_is_named_by_its_split() {
    let dir = Dir::new();
    let endpoint = hub(files(&dir));
    let train = |data: &str| {
        with_hub(&dir, &endpoint, &["train", "--model", "model", "--train", data, "--output", "run", "--dry-run"])
    };
    let output = ended_well(&train("hf://datasets/owner/prefs?split=train_prefs"));
    assert!(output.contains("train: 14 pairs"), "{output}");
    let output = ended_well(&with_hub(&dir, &endpoint, &["inspect", "hf://datasets/owner/prefs?split=test_prefs"]));
    assert!(output.contains("4 pairs"), "{output}");
    let error = refused(&with_hub(&dir, &endpoint, &["inspect", "hf://datasets/owner/prefs?splt=x"]));
    assert!(error.contains("`splt=x` after the `?`, expected config=CONFIG or split=SPLIT"), "{error}");
    let error = refused(&train("hf://datasets/owner/prefs"));
    assert!(error.contains("no split `train`, expected one of train_prefs, test_prefs (split=NAME)"), "{error}");
    let error = refused(&train("hf://datasets/owner/gone?split=x"));
    assert!(error.contains("status 404: there is no such repository or revision"), "{error}");
}

#[test]
fn flags_take_the_place_of_a_recipes_data() {
    let dir = Dir::new();
    dir.model();
    dir.pairs("p.jsonl", "own", 8);
    let text = "model_name_or_path: ./model\ndataset_mixture:\n  datasets: [{id: owner/prefs, split: train_prefs}]\n  test_split_size: 3\n";
    dir.write("dpo.yaml", text);
    let output = ended_well(&dir.simplemix(&[
        "train",
        "--trl-config",
        "dpo.yaml",
        "--train",
        "p.jsonl",
        "--output",
        "run",
        "--dry-run",
    ]));
    assert!(output.contains("train: 8 pairs"), "{output}");
}

#[test]
fn settings_of_other_programs_become_settings_for_train() {
    let dir = Dir::new();
    dir.model();
    dir.pairs("p.jsonl", "own", 12);
    let axolotl = "base_model: ./model\nrl: dpo\nload_in_8bit: true\ndatasets:\n- {path: p.jsonl, type: chat_template.default}\nval_set_size: 0.25\n\
                   micro_batch_size: 1\ngradient_accumulation_steps: 3\nnum_epochs: 1\nlearning_rate: 2e-6\nwarmup_steps: 1\noutput_dir: run\n";
    dir.write("axolotl.yml", axolotl);
    let error = refused(&dir.simplemix(&["train", "--trl-config", "axolotl.yml"]));
    assert!(
        error.contains("a file of axolotl, expected one of TRL; `simplemix import-config axolotl.yml -o run.toml`"),
        "{error}"
    );
    let output = ended_well(&dir.simplemix(&["import-config", "axolotl.yml", "--devices", "2", "-o", "run.toml"]));
    for part in [
        "run.toml: settings of axolotl",
        "`load_in_8bit` is true, expected false",
        "a batch is 6 pairs: 1 a device x 3 accumulated x 2 devices",
    ] {
        assert!(output.contains(part), "`{part}` is not in {output}");
    }
    let written = std::fs::read_to_string(dir.path("run.toml")).unwrap();
    assert!(written.contains("#   `load_in_8bit` is true") && written.contains("batch_size = 6"), "{written}");
    let output = ended_well(&dir.simplemix(&["train", "--config", "run.toml", "--dry-run"]));
    assert!(output.contains("train: 9 pairs") && output.contains("eval:  3 pairs"), "{output}");
    let error = refused(&dir.simplemix(&["import-config", "axolotl.yml", "-o", "run.toml"]));
    assert!(error.contains("run.toml: exists"), "{error}");
}

#[test]
fn an_end_of_sequence_token_goes_into_the_result() {
    let dir = Dir::new();
    let model = dir.model();
    dir.pairs("p.jsonl", "own", 4);
    let token = another_token(&model);
    let set = format!("tokens.eos_token={}", serde_json::json!(token));
    let args = ["train", "--model", "model", "--train", "p.jsonl", "--output", "run", "--set", set.as_str()];
    ended_well(&dir.simplemix(&args));
    let json = |name: &str| -> serde_json::Value {
        serde_json::from_str(&std::fs::read_to_string(dir.path("run/model").join(name)).unwrap()).unwrap()
    };
    assert_eq!(json("tokenizer_config.json")["eos_token"], token);
    let tokenizer: serde_json::Value = json("tokenizer.json");
    let added = tokenizer["added_tokens"].as_array().unwrap().iter().find(|added| added["content"] == token).unwrap();
    assert_eq!(json("config.json")["eos_token_id"], added["id"]);
    let args =
        ["train", "--model", "model", "--train", "p.jsonl", "--output", "none", "--set", "tokens.eos_token=\"<gone>\""];
    let error = refused(&dir.simplemix(&args));
    assert!(error.contains("`tokens.eos_token` is `<gone>`, expected a token of the model's tokenizer"), "{error}");
}

/// A special token of a model that is not its end of a sequence.
fn another_token(model: &Path) -> String {
    let read = |name: &str| -> serde_json::Value {
        serde_json::from_str(&std::fs::read_to_string(model.join(name)).unwrap()).unwrap()
    };
    let eos = read("tokenizer_config.json")["eos_token"].clone();
    let tokenizer = read("tokenizer.json");
    let mut added = tokenizer["added_tokens"].as_array().unwrap().iter().map(|added| &added["content"]);
    added.find(|token| **token != eos).unwrap().as_str().unwrap().to_owned()
}
