//! Keys and passwords against servers that repeat them in every way: they are in no file and in no byte that is printed, also
//! with the most talkative logs, and go to no other place.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::{Dir, stderr, stdout};

const KEY: &str = "sk-Zq7-hostile/key+0123456789abcdef=";

/// Spellings of the key, from Python: `json.dumps` of each character, `urllib.parse.quote`, `base64.b64encode`.
const QUOTED: &str = "sk-Zq7-hostile%2Fkey%2B0123456789abcdef%3D";
const BASE64: &str = "c2stWnE3LWhvc3RpbGUva2V5KzAxMjM0NTY3ODlhYmNkZWY9";

/// A server that sends the bytes of `answer` to a request's first line, and keeps the heads of requests.
fn server(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let (kept, answer) = (seen.clone(), Arc::new(answer));
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let lines = reader.by_ref().lines().map_while(Result::ok);
            let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            let Some(first) = head.first() else { continue };
            let length =
                head.iter().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
            let _ = reader.read_exact(&mut vec![0; length.unwrap_or(0)]);
            kept.lock().unwrap().push(head.join("\n"));
            let _ = stream.write_all(&answer(first));
        }
    });
    (address, seen)
}

fn response(head: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head = format!("HTTP/1.1 {head}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// Every text below the folder, also of caches and hidden files, as far as bytes are text.
fn texts(folder: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(texts(&path)),
            false => {
                let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
                found.push((path.display().to_string(), text));
            }
        }
    }
    found
}

#[track_caller]
fn is_nowhere(dir: &Dir, said: &str, secrets: &[&str], mode: &str) {
    let said = ("what was printed".to_owned(), said.to_owned());
    for (place, text) in texts(&dir.path("")).into_iter().chain([said]) {
        for secret in secrets {
            assert!(!text.contains(secret), "{mode}: `{secret}` is in {place}: {text}");
        }
    }
}

fn escaped() -> String {
    KEY.chars().map(|c| format!("\\u{:04x}", u32::from(c))).collect()
}

fn chat(text: &str, finish: &str) -> String {
    format!(r#"{{"choices":[{{"message":{{"role":"assistant","content":"{text}"}},"finish_reason":"{finish}"}}]}}"#)
}

/// Ways to repeat the key.
fn modes() -> Vec<(&'static str, Vec<u8>)> {
    let half = KEY.len() / 2;
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    let chunked = |head: &str, body: &str| {
        let body: String = [&body[..body.len() / 2], &body[body.len() / 2..], ""].map(chunk).concat();
        format!("HTTP/1.1 {head}\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n{body}").into_bytes()
    };
    let gzip = |body: &str| {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(body.as_bytes()).unwrap();
        packer.finish().unwrap()
    };
    let event = |piece: &str| format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{piece}\"}}}}]}}\n\n");
    vec![
        ("error", response("401 No", format!(r#"{{"error": {{"message": "Incorrect key: {KEY}"}}}}"#))),
        ("error in plain text", response("403 No", KEY)),
        ("page", response("502 No", format!("<html><body><p>Bearer {KEY}</p></body></html>"))),
        ("escaped", response("400 No", format!(r#"{{"error": {{"message": "{}"}}}}"#, escaped()))),
        ("escaped twice", response("400 No", escaped())),
        ("quoted", response("400 No", format!("<{QUOTED}>"))),
        ("base64", response("400 No", format!("Basic {BASE64}"))),
        ("half", response("401 No", format!("bad key {}...", &KEY[..half]))),
        ("cut", response("401 No", format!("{} {KEY}", "x".repeat(280)))),
        ("status line", response(&format!("401 {KEY}"), "")),
        (
            "headers",
            response(&format!("429 No\r\nwww-authenticate: Bearer {KEY}\r\nretry-after: {KEY}\r\nx-{KEY}: 1"), ""),
        ),
        ("encoding", response(&format!("200 OK\r\ncontent-encoding: {KEY}"), "?")),
        ("chunked", chunked("401 No", &format!("the key {KEY} is bad"))),
        ("gzip", response("401 No\r\ncontent-encoding: gzip", gzip(&format!("the key {KEY} is bad")))),
        ("no reply", response("200 OK", format!("hello {KEY}"))),
        ("error in a reply", response("200 OK", format!(r#"{{"error": {{"message": "{KEY}", "code": "{KEY}"}}}}"#))),
        ("two responses", response("200 OK", format!(r#"{{"choices": [1, 2], "key": "{KEY}"}}"#))),
        ("text", response("200 OK", chat(&format!("I was sent {KEY}."), "stop"))),
        ("text, escaped", response("200 OK", chat(&escaped(), "stop"))),
        ("text, encoded", response("200 OK", chat(&format!("{QUOTED} {BASE64}"), "stop"))),
        ("finish", response("200 OK", chat("yes", KEY))),
        ("stream", response("200 OK", event(&KEY[..half]) + &event(&KEY[half..]) + "data: [DONE]\n\n")),
    ]
}

#[test]
fn a_key_that_a_server_repeats_is_neither_stored_nor_printed() {
    for (mode, bytes) in modes() {
        let dir = Dir::new();
        dir.write("p.jsonl", "{\"id\":\"a\",\"prompt\":[{\"role\":\"user\",\"content\":\"What?\"}]}\n");
        let (address, seen) = server(move |_| bytes.clone());
        let url = format!("http://{address}");
        let args =
            ["-vv", "generate", "--server", &url, "--server-model", "m", "--retries", "1", "--prompts", "p.jsonl"];
        let more = ["--samples", "1", "--max-new-tokens", "4", "-o", "c.jsonl"];
        let output =
            dir.command(&[&args[..], &more].concat()).env("OPENAI_API_KEY", KEY).env("RUST_LOG", "trace").output();
        let output = output.unwrap();
        let said = stderr(&output) + &stdout(&output);
        assert!(seen.lock().unwrap()[0].contains(&format!("Bearer {KEY}")), "{mode}: {said}");
        let is_text = mode.starts_with("text") || ["finish", "stream"].contains(&mode);
        assert_eq!(output.status.code(), Some(if is_text { 0 } else { 1 }), "{mode}: {said}");
        let half = &KEY[..KEY.len() / 2];
        is_nowhere(&dir, &said, &[KEY, half, &escaped(), QUOTED, BASE64], mode);
        if mode.starts_with("text") || mode == "stream" {
            let row = std::fs::read_to_string(dir.path("c.jsonl")).unwrap();
            assert!(row.contains("[key]"), "{mode}: {row}");
            assert!(said.contains("it is replaced by `[key]`"), "{mode}: {said}");
        }
    }
}

#[test]
fn a_key_follows_no_redirection_and_names_of_models_have_none() {
    let (other, at_other) = server(|_| response("200 OK", chat("from the other", "stop")));
    let same = format!("http://{other}/{KEY}");
    let locations = [same.clone(), format!("//{other}/v1"), format!("https://{other}/"), same.clone(), same];
    for (status, location) in ["301", "302", "303", "307", "308"].into_iter().zip(locations) {
        let head = format!("{status} Moved\r\nlocation: {location}");
        let (address, _) = server(move |_| response(&head, ""));
        let dir = Dir::new();
        dir.write("p.jsonl", "{\"id\":\"a\",\"prompt\":\"What?\"}\n");
        let url = format!("http://{address}");
        let args = ["generate", "--server", &url, "--server-model", "m", "--retries", "0", "--prompts", "p.jsonl"];
        let mut command = dir.command(&[&args[..], &["--samples", "1", "-o", "c.jsonl"]].concat());
        let output = command.env("OPENAI_API_KEY", KEY).env("RUST_LOG", "trace").output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        is_nowhere(&dir, &(stderr(&output) + &stdout(&output)), &[KEY], status);
    }
    assert!(at_other.lock().unwrap().is_empty(), "{at_other:?}");

    let dir = Dir::new();
    dir.write("p.jsonl", "{\"id\":\"a\",\"prompt\":\"What?\"}\n");
    let (address, _) = server(|request| match request.contains("/models") {
        true => response("200 OK", format!(r#"{{"data": [{{"id": "model-{KEY}"}}]}}"#)),
        false => response("200 OK", r#"{"choices":[{"text":"yes","finish_reason":"stop"}]}"#),
    });
    let url = format!("http://{address}");
    let args = ["generate", "--server", &url, "--prompts", "p.jsonl", "--samples", "1", "-o", "c.jsonl"];
    let output = dir.command(&args).env("OPENAI_API_KEY", KEY).output().unwrap();
    is_nowhere(&dir, &(stderr(&output) + &stdout(&output)), &[KEY], "name of the model");
}

#[test]
fn a_key_in_the_clear_to_another_machine_is_warned_of_once() {
    let dir = Dir::new();
    dir.write("p.jsonl", "{\"id\":\"a\",\"prompt\":\"What?\"}\n");
    let said = |url: &str, key: Option<&str>| {
        let args =
            ["generate", "--server", url, "--server-model", "m", "--retries", "0", "--timeout", "2", "--prompts"];
        let mut command = dir.command(&[&args[..], &["p.jsonl", "--samples", "2", "-o", "c.jsonl"]].concat());
        command.env_remove("OPENAI_API_KEY");
        key.map(|key| command.env("OPENAI_API_KEY", key));
        stderr(&command.output().unwrap())
    };
    let warning = "the key in `OPENAI_API_KEY` is sent to host.invalid over http";
    assert_eq!(said("http://host.invalid:8000", Some(KEY)).matches(warning).count(), 1);
    assert!(!said("http://host.invalid:8000", None).contains("over http"));
    assert!(!said("http://127.0.0.1:1", Some(KEY)).contains("over http"));
    // A key where the name of its variable belongs.
    let args =
        ["generate", "--server", "http://127.0.0.1:1", "--api-key-env", KEY, "--prompts", "p.jsonl", "-o", "c.jsonl"];
    let output = dir.simplemix(&args);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    is_nowhere(&dir, &stderr(&output), &[KEY], "name of the variable");
}

#[test]
fn a_password_in_a_url_of_data_is_used_and_kept_out_of_everything() {
    const PASSWORD: &str = "pass-Word-0123";
    let dir = Dir::new();
    dir.pairs("b.jsonl", "b", 4);
    let body = std::fs::read(dir.pairs("a.jsonl", "a", 4)).unwrap();
    let (address, seen) = server(move |request| {
        let head = format!(
            "HTTP/1.1 200 OK\r\nconnection: close\r\netag: \"1\"\r\nlast-modified: Mon, 23 Nov 2026 10:00:00 GMT\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        [head.as_bytes(), if request.starts_with("HEAD") { &[] } else { &body }].concat()
    });
    let url = format!("http://me:{PASSWORD}@{address}/a.jsonl");
    let source = format!("a={url}");
    let mix = ["-vv", "mix", "--source", &source, "--source", "b=b.jsonl", "--size", "4", "--seed", "1"];
    let mix = [&mix[..], &["--report", "receipt.json", "-o", "m.jsonl"]].concat();
    for args in [mix, vec!["-vv", "inspect", &url], vec!["convert", &url, "-o", "c.jsonl"]] {
        let output = dir.command(&args).env("RUST_LOG", "trace").output().unwrap();
        let said = stderr(&output) + &stdout(&output);
        assert!(output.status.success(), "{said}");
        is_nowhere(&dir, &said, &[PASSWORD, "me:pass"], args[1]);
    }
    // base64 of `me:pass-Word-0123`, from Python.
    assert!(seen.lock().unwrap().iter().all(|head| head.contains("Basic bWU6cGFzcy1Xb3JkLTAxMjM=")), "{seen:?}");
    let receipt = std::fs::read_to_string(dir.path("receipt.json")).unwrap();
    assert!(receipt.contains(&format!("http://{address}/a.jsonl")), "{receipt}");

    // Signed URLs are refused, and not shown.
    let output =
        dir.simplemix(&["inspect", "https://host/a.parquet?X-Amz-Signature=signed0123&X-Amz-Credential=cred0123"]);
    assert_eq!(output.status.code(), Some(2));
    is_nowhere(&dir, &stderr(&output), &["signed0123", "cred0123"], "signed");
}

#[test]
fn a_key_in_settings_is_not_shown_again() {
    let dir = Dir::new();
    let model = dir.model();
    let server = "collect.server = { url = \"http://127.0.0.1:1/v1?api-key=in-the-url-0123\", model = \"m\", extra = { api_key = \
                  \"in-a-field-0123\" } }";
    dir.write("run.toml", format!("preset = \"on-policy\"\nmodel = {model:?}\noutput = \"all\"\n{server}\n"));
    let output = dir.simplemix(&["run", "run.toml", "--show"]);
    let said = stderr(&output) + &stdout(&output);
    assert!(output.status.success() && said.contains("api-key=***") && said.contains("[key]"), "{said}");
    assert!(!said.contains("0123"), "{said}");
}
