//! Results pushed to a hub that is a mock: real HTTP on this machine, never the hub itself.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::Output;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::{Dir, exists, stderr, stdout};

const TOKEN: &str = "hf_TheTokenOfThePushTests";

/// A request as it came in.
#[derive(Debug, Clone)]
struct Seen {
    /// `POST /api/...`
    line: String,
    /// Names in lower case.
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Seen {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// Behaviour of a mock.
#[derive(Clone, Default)]
struct Rules {
    /// Status of a request whose line contains this.
    fails: Option<(&'static str, u16)>,
    /// Bytes of a part, for files that are sent in parts.
    part_bytes: Option<usize>,
    /// Whether the repository is there.
    has_repository: bool,
}

/// The hub, and the place beside it where large files go: another port, and so another place for secrets.
struct Mock {
    hub: String,
    storage: String,
    at_hub: Arc<Mutex<Vec<Seen>>>,
    at_storage: Arc<Mutex<Vec<Seen>>>,
}

impl Mock {
    fn start(rules: Rules) -> Self {
        let (at_hub, at_storage) = (Arc::<Mutex<Vec<Seen>>>::default(), Arc::<Mutex<Vec<Seen>>>::default());
        let (kept, stored) = (at_storage.clone(), at_storage.clone());
        let failing = rules.clone();
        let storage = serve(move |seen| {
            let number = {
                let mut kept = kept.lock().unwrap();
                kept.push(seen.clone());
                kept.len()
            };
            match failing.fails {
                Some((part, status)) if seen.line.contains(part) => (status, String::new(), String::new()),
                _ => (200, format!("etag: \"part-{number}\"\r\n"), String::new()),
            }
        });
        let (kept, place) = (at_hub.clone(), storage.clone());
        let hub = serve(move |seen| {
            kept.lock().unwrap().push(seen.clone());
            if let Some((part, status)) = rules.fails.filter(|(part, _)| seen.line.contains(part)) {
                return (status, String::new(), json!({ "error": format!("no {part} today") }).to_string());
            }
            let (status, reply) = answer(seen, &rules, &place, &stored.lock().unwrap());
            (status, String::new(), reply.to_string())
        });
        Self { hub, storage, at_hub, at_storage }
    }

    /// Requests of the hub whose line contains `part`.
    fn asked(&self, part: &str) -> Vec<Seen> {
        self.at_hub.lock().unwrap().iter().filter(|seen| seen.line.contains(part)).cloned().collect()
    }

    fn stored(&self) -> Vec<Seen> {
        self.at_storage.lock().unwrap().clone()
    }

    fn simplemix(&self, dir: &Dir, args: &[&str]) -> Output {
        let mut command = dir.command(args);
        command.env("HF_ENDPOINT", &self.hub).env("HF_HOME", dir.path("hf")).env("HF_TOKEN", TOKEN);
        command.env_remove("HF_HUB_OFFLINE").env_remove("TRANSFORMERS_OFFLINE").output().unwrap()
    }
}

/// The hub's replies, in the shape of its documented interfaces.
fn answer(seen: &Seen, rules: &Rules, storage: &str, stored: &[Seen]) -> (u16, Value) {
    let line = seen.line.as_str();
    if line.starts_with("GET /api/whoami-v2") {
        return match seen.headers.get("authorization") {
            Some(token) if *token == format!("Bearer {TOKEN}") => (200, json!({ "name": "me", "orgs": [] })),
            _ => (401, json!({ "error": "Invalid credentials" })),
        };
    }
    match line {
        _ if line.starts_with("POST /api/repos/create") && rules.has_repository => (409, json!({ "error": "exists" })),
        _ if line.starts_with("POST /api/repos/create") || line.contains("/branch/") => (200, json!({})),
        _ if line.contains("/preupload/") => {
            let files = seen.json()["files"].as_array().unwrap().clone();
            let mode = |path: &Value| if path.as_str().unwrap().ends_with(".safetensors") { "lfs" } else { "regular" };
            let modes = files.iter().map(|file| json!({ "path": file["path"], "uploadMode": mode(&file["path"]) }));
            (200, json!({ "files": modes.collect::<Vec<_>>() }))
        }
        _ if line.contains("/info/lfs/objects/batch") => {
            let objects = seen.json()["objects"].as_array().unwrap().clone();
            (
                200,
                json!({ "objects": objects.iter().map(|object| actions(object, rules, storage, stored)).collect::<Vec<_>>() }),
            )
        }
        _ if line.contains("/verify") => (200, json!({})),
        _ if line.contains("/commit/") => {
            (200, json!({ "commitUrl": "https://hub.example/me/run/commit/c0ffee", "commitOid": "c0ffee" }))
        }
        _ => (404, json!({ "error": "no such place" })),
    }
}

/// An object as the batch interface answers it: nothing to do for one that came before.
fn actions(object: &Value, rules: &Rules, storage: &str, stored: &[Seen]) -> Value {
    let oid = object["oid"].as_str().unwrap();
    let (oid, size) = (oid, object["size"].as_u64().unwrap() as usize);
    if stored.iter().any(|seen| seen.line.contains(oid) && !seen.line.contains("broken")) {
        return json!({ "oid": oid, "size": size });
    }
    let mut header = serde_json::Map::new();
    match rules.part_bytes {
        Some(bytes) => {
            header.insert("chunk_size".to_owned(), bytes.to_string().into());
            for number in 1..=size.div_ceil(bytes) {
                header.insert(format!("{number:05}"), format!("{storage}/{oid}/{number}?sig=SecretSignature").into());
            }
        }
        None => {
            header.insert("x-amz-storage".to_owned(), "as asked".into());
        }
    }
    let href = format!("{storage}/{oid}?sig=SecretSignature");
    json!({ "oid": oid, "size": size, "actions": { "upload": { "href": href, "header": header } } })
}

/// Serves requests one after another; returns the address.
fn serve(mut reply: impl FnMut(&Seen) -> (u16, String, String) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                continue;
            }
            let mut headers = BTreeMap::new();
            loop {
                let mut text = String::new();
                reader.read_line(&mut text).unwrap();
                let Some((name, value)) = text.trim_end().split_once(": ") else { break };
                headers.insert(name.to_ascii_lowercase(), value.to_owned());
            }
            assert!(!headers.contains_key("transfer-encoding"), "stores want the length: {headers:?}");
            let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let (status, head, body) = reply(&Seen { line: line.trim_end().to_owned(), headers, body });
            let head =
                format!("HTTP/1.1 {status} x\r\n{head}content-length: {}\r\nconnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
        }
    });
    address
}

const TRAIN: [&str; 8] = ["train", "--model", "model", "--train", "pairs.jsonl", "--max-steps", "2", "--batch-size"];

fn prepared() -> Dir {
    let dir = Dir::new();
    dir.model();
    dir.pairs("pairs.jsonl", "some", 8);
    dir
}

fn train(dir: &Dir, mock: &Mock, more: &[&str]) -> Output {
    mock.simplemix(dir, &[&TRAIN[..], &["4", "--set", "optimizer.learning_rate=1e-3"], more].concat())
}

/// Lines of a commit by their keys, with the paths.
fn committed(mock: &Mock) -> Vec<(String, String)> {
    let commits = mock.asked("/commit/");
    let body = String::from_utf8(commits.last().unwrap().body.clone()).unwrap();
    let line = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        (line["key"].as_str().unwrap().to_owned(), line["value"]["path"].as_str().unwrap_or_default().to_owned())
    };
    body.lines().map(line).collect()
}

#[test]
fn a_run_is_pushed_and_the_token_goes_to_the_hub_alone() {
    let dir = prepared();
    let mock = Mock::start(Rules::default());
    let output = train(&dir, &mock, &["--output", "run", "--set", "push.to=run", "--set", "push.private=true"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).contains("pushed: https://hub.example/me/run/commit/c0ffee"), "{}", stdout(&output));
    let made = mock.asked("/api/repos/create");
    assert_eq!(made[0].json(), json!({ "name": "run", "type": "model", "private": true }));
    // Login and repository come before training; the rest once its model is there.
    let first: Vec<String> = mock.at_hub.lock().unwrap().iter().map(|seen| seen.line.clone()).collect();
    assert!(
        first[0].contains("whoami")
            && first[1].contains("create")
            && first[2].contains("/api/models/me/run/preupload/main")
    );
    let weights = std::fs::read(dir.path("run/model/model.safetensors")).unwrap();
    let stored = mock.stored();
    assert_eq!((stored.len(), &stored[0].body), (1, &weights));
    assert_eq!(stored[0].headers["x-amz-storage"], "as asked");
    assert!(!stored[0].headers.contains_key("authorization"), "{:?}", stored[0].headers);
    assert!(mock.asked("").iter().all(|seen| seen.headers["authorization"] == format!("Bearer {TOKEN}")));
    let lines = committed(&mock);
    let entry = |key: &str, path: &str| lines.contains(&(key.to_owned(), path.to_owned()));
    assert!(lines[0].0 == "header" && entry("lfsFile", "model.safetensors") && entry("file", "config.json"));
    assert!(entry("file", "README.md") && entry("file", "tokenizer.json"), "{lines:?}");
    assert!(!std::fs::read_to_string(dir.path("run/config.toml")).unwrap().contains("hf_"));

    // Again by the command: the large file is there, and only the commit is new. Another branch is made first.
    let again = mock.simplemix(&dir, &["push", "run", "team/other", "--revision", "v2"]);
    assert!(again.status.success(), "{}", stderr(&again));
    assert_eq!(mock.stored().len(), 1);
    assert_eq!(mock.asked("/api/repos/create")[1].json()["organization"], "team");
    assert_eq!(mock.asked("/api/models/team/other/branch/v2").len(), 1);
    assert_eq!(mock.asked("/api/models/team/other/commit/v2").len(), 1);
    // A model folder is pushed too, in a repository that is there.
    let there = Mock::start(Rules { has_repository: true, part_bytes: Some(20_000), ..Rules::default() });
    let whole = there.simplemix(&dir, &["push", "run/model", "me/whole"]);
    assert!(whole.status.success(), "{}", stderr(&whole));
    let stored = there.stored();
    let (parts, last) = stored.split_at(stored.len() - 1);
    assert!(parts.len() > 1 && parts.iter().all(|part| part.line.starts_with("PUT ")));
    assert_eq!(parts.iter().flat_map(|part| part.body.clone()).collect::<Vec<u8>>(), weights);
    let told = last[0].json();
    assert_eq!(told["parts"].as_array().unwrap().len(), parts.len());
    assert_eq!(told["parts"][1], json!({ "partNumber": 2, "etag": "\"part-2\"" }));
}

#[test]
fn what_hinders_a_push_is_told_before_training_begins() {
    let dir = prepared();
    let refused = |mock: &Mock, env: &[(&str, &str)], status: i32| {
        let args = [&TRAIN[..], &["4", "--output", "run", "--set", "push.to=me/run"]].concat();
        let mut command = dir.command(&args);
        command.env("HF_ENDPOINT", &mock.hub).env("HF_HOME", dir.path("hf")).env_remove("HF_TOKEN");
        command.env_remove("HF_HUB_OFFLINE").env_remove("TRANSFORMERS_OFFLINE").envs(env.iter().copied());
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(status), "{}{}", stdout(&output), stderr(&output));
        assert!(!exists(&dir.path("run/metrics.jsonl")));
        assert!(!stderr(&output).contains("hf_"), "{}", stderr(&output));
        stderr(&output)
    };
    let mock = Mock::start(Rules::default());
    let said = refused(&mock, &[], 2);
    assert!(
        said.contains("me/run: cannot be pushed to the Hugging Face hub: there is no token; set HF_TOKEN"),
        "{said}"
    );
    let said = refused(&mock, &[("HF_TOKEN", TOKEN), ("HF_HUB_OFFLINE", "1")], 2);
    assert!(said.contains("HF_HUB_OFFLINE forbids to ask the hub; unset it to push"), "{said}");
    let said = refused(&mock, &[("HF_TOKEN", "hf_AnotherTokenThatIsNotKnown")], 2);
    assert!(said.contains("the login: the hub does not know the token: Invalid credentials"), "{said}");
    let forbidding = Mock::start(Rules { fails: Some(("/repos/create", 403)), ..Rules::default() });
    let said = refused(&forbidding, &[("HF_TOKEN", TOKEN)], 2);
    assert!(said.contains("making the repository me/run: the token may not do it: no /repos/create today"), "{said}");
    // One that is there, and another's.
    let others = Mock::start(Rules { fails: Some(("/preupload/", 403)), has_repository: true, ..Rules::default() });
    let said = refused(&others, &[("HF_TOKEN", TOKEN)], 2);
    assert!(said.contains("the right to write to me/run: the token may not do it"), "{said}");
    let said = stderr(&mock.simplemix(&dir, &["push", "model", "me/../run"]));
    assert!(said.contains("is no name of a repository, expected OWNER/NAME"), "{said}");
    let said = stderr(&mock.simplemix(&dir, &["push", "pairs.jsonl", "me/run"]));
    assert!(said.contains("pairs.jsonl: no model to push, expected a run with model/config.json"), "{said}");
}

#[test]
fn a_push_that_fails_leaves_the_run_whole_and_says_how_to_repeat_it() {
    let dir = prepared();
    let mock = Mock::start(Rules { fails: Some(("/commit/", 413)), ..Rules::default() });
    let output = train(&dir, &mock, &["--output", "run", "--set", "push.to=me/run", "--set", "push.revision=v2"]);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("the commit: status 413: no /commit/ today; the run is whole"), "{said}");
    assert!(said.contains("`simplemix push run me/run --revision v2` pushes it again"), "{said}");
    assert!(exists(&dir.path("run/finished.json")) && exists(&dir.path("run/model/model.safetensors")));
    // A store that refuses: the place is named without its signature.
    let storing = Mock::start(Rules { fails: Some(("PUT ", 403)), ..Rules::default() });
    let output = storing.simplemix(&dir, &["push", "run", "me/run"]);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("model.safetensors: ") && said.contains(&storing.storage) && said.contains("status 403"),
        "{said}"
    );
    assert!(!said.contains("SecretSignature") && !said.contains(TOKEN), "{said}");
    assert!(storing.asked("/commit/").is_empty());
}

#[test]
fn a_file_of_trl_pushes_its_adapter() {
    let dir = prepared();
    let mock = Mock::start(Rules::default());
    let recipe = "model_name_or_path: model\ndataset_name: pairs.jsonl\noutput_dir: lora\nmax_steps: 2\nuse_peft: true\nlora_r: 2\n\
                  lora_target_modules: [q_proj, v_proj]\nlearning_rate: 1.0e-3\nper_device_train_batch_size: 4\npush_to_hub: true\n";
    let with = |more: &str| {
        dir.write("dpo.yaml", format!("{recipe}{more}"));
        mock.simplemix(&dir, &["train", "--trl-config", "dpo.yaml"])
    };
    let refused = with("hub_token: hf_WrittenInAFile\n");
    assert_eq!(refused.status.code(), Some(2));
    let said = stderr(&refused);
    assert!(
        said.contains("`hub_token` is set") && said.contains("set HF_TOKEN") && !said.contains("WrittenInAFile"),
        "{said}"
    );
    let output =
        with("hub_model_id: team/lora\nhub_private_repo: true\nhub_revision: tried\nhub_strategy: every_save\n");
    assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));
    assert!(stdout(&output).contains("`hub_strategy`: the result is pushed at the end"), "{}", stdout(&output));
    assert_eq!(
        mock.asked("/api/repos/create")[0].json(),
        json!({ "name": "lora", "organization": "team", "private": true, "type": "model" })
    );
    assert_eq!(mock.asked("/api/models/team/lora/commit/tried").len(), 1);
    let paths: Vec<String> = committed(&mock).into_iter().map(|(_, path)| path).collect();
    assert!(
        paths.contains(&"adapter_model.safetensors".to_owned()) && !paths.contains(&"config.json".to_owned()),
        "{paths:?}"
    );
}
