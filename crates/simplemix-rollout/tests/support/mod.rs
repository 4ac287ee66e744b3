//! Mock server with the OpenAI interface, which can also fail in many ways.

#![allow(dead_code, reason = "each test file uses a part")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

/// A request that the server received.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// Path with query.
    pub(crate) path: String,
    /// Value of the header `authorization`.
    pub(crate) authorization: Option<String>,
    /// Body; null if there is none.
    pub(crate) body: Value,
    /// Number of requests before this one.
    pub(crate) number: usize,
    /// Number of requests before this one with the same path and body.
    pub(crate) tries: usize,
}

impl Seen {
    /// Content of the last turn, or the text of the prompt.
    pub(crate) fn prompt(&self) -> String {
        let turns = self.body["messages"].as_array();
        let content = turns.and_then(|turns| turns.last()).map(|turn| &turn["content"]);
        content.unwrap_or(&self.body["prompt"]).as_str().unwrap_or_default().to_owned()
    }
}

/// Reaction of the server.
pub(crate) enum Does {
    /// Sends a reply with this text.
    Answers(String),
    /// Sends a status, further headers and a body.
    Sends(u16, Vec<(&'static str, String)>, String),
    /// Sends a status, further headers and a body that need not be text.
    SendsBytes(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// Closes the connection without a reply.
    HangsUp,
    /// Announces more bytes than it sends, then closes the connection.
    CutsOff,
    /// Waits before another reaction.
    Waits(Duration, Box<Does>),
    /// Sends this text under this id, and the whole reply once more after a wait, whatever was asked in between.
    Repeats(String, &'static str, Duration),
}

type Behaviour = dyn Fn(&Seen) -> Does + Send + Sync;

/// A running server, until the process ends.
pub(crate) struct Mock {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Mock {
    pub(crate) fn start(behaviour: impl Fn(&Seen) -> Does + Send + Sync + 'static) -> Self {
        Self::start_at(0, behaviour)
    }

    /// A server at this port of the machine; at a free one for 0.
    pub(crate) fn start_at(port: u16, behaviour: impl Fn(&Seen) -> Does + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (kept, behaviour): (_, Arc<Behaviour>) = (seen.clone(), Arc::new(behaviour));
        let tries: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (kept, behaviour, tries) = (kept.clone(), behaviour.clone(), tries.clone());
                std::thread::spawn(move || serve(stream, &kept, behaviour.as_ref(), &tries));
            }
        });
        Self { address, seen }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Every request so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

/// Reply that depends only on prompt and seed.
pub(crate) fn echo(seen: &Seen) -> Does {
    Does::Answers(format!("{} #{}", seen.prompt(), seen.body["seed"]))
}

/// Reasons under which a client counts the faults of [`faulty`], by their numbers.
pub(crate) const REASONS: [&str; 12] = [
    "status 500",
    "status 503",
    "connection",
    "connection",
    "unreadable reply",
    "unreadable reply",
    "wrong number of responses",
    "wrong number of responses",
    "status 429",
    "timeout",
    "error 503 in the reply",
    "reply too large",
];

/// A fault by its number, for a client that waits for half a second and reads a megabyte and a half; from 12 on, the right reply.
pub(crate) fn faulty(fault: usize, seen: &Seen) -> Does {
    let words = |status| Does::Sends(status, vec![], r#"{"error": {"message": "later"}}"#.to_owned());
    let body = |text: &str| Does::Sends(200, vec![], text.to_owned());
    match fault {
        0 => words(500),
        1 => words(503),
        2 => Does::HangsUp,
        3 => Does::CutsOff,
        4 => body("{\"choices\": [{\"message\""),
        5 => body("<html>busy</html>"),
        6 => body(r#"{"choices": []}"#),
        7 => body(r#"{"choices": [{"message": {"content": "a"}}, {"message": {"content": "b"}}]}"#),
        8 => Does::Sends(429, vec![("retry-after", "0".to_owned())], String::new()),
        9 => Does::Waits(Duration::from_millis(700), Box::new(echo(seen))),
        10 => body(r#"{"error": {"message": "overloaded", "code": 503}}"#),
        11 => body(&"[0]".repeat(1 << 19)),
        _ => echo(seen),
    }
}

fn serve(stream: TcpStream, kept: &Mutex<Vec<Seen>>, behaviour: &Behaviour, tries: &Mutex<HashMap<String, usize>>) {
    stream.set_nodelay(true).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    while let Some((path, authorization, body)) = request(&mut reader) {
        let before = {
            let mut tries = tries.lock().unwrap();
            let count = tries.entry(format!("{path} {body}")).or_default();
            *count += 1;
            *count - 1
        };
        let seen = {
            let mut kept = kept.lock().unwrap();
            let body = serde_json::from_str(&body).unwrap_or_default();
            let seen = Seen { path, authorization, body, number: kept.len(), tries: before };
            kept.push(seen.clone());
            seen
        };
        if !respond(&mut stream, &seen, behaviour(&seen)) {
            return;
        }
    }
}

fn request(reader: &mut impl BufRead) -> Option<(String, Option<String>, String)> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
    let path = line.split(' ').nth(1)?.to_owned();
    let (mut length, mut authorization) = (0, None);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().ok()?,
            "authorization" => authorization = Some(value.to_owned()),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((path, authorization, String::from_utf8(body).ok()?))
}

/// Sends the reply. Returns whether the connection stays open.
fn respond(stream: &mut TcpStream, seen: &Seen, does: Does) -> bool {
    match does {
        Does::HangsUp => false,
        Does::Waits(wait, then) => {
            std::thread::sleep(wait);
            respond(stream, seen, *then)
        }
        Does::Repeats(text, id, wait) => {
            let body = json!({ "id": id, "choices": [{ "index": 0, "message": { "role": "assistant", "content": text },
                "finish_reason": "stop" }] });
            let mut late = stream.try_clone().unwrap();
            let reply = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.to_string().len());
            let is_open = stream.write_all(reply.as_bytes()).is_ok();
            std::thread::spawn(move || {
                std::thread::sleep(wait);
                let _ = late.write_all(reply.as_bytes());
            });
            is_open
        }
        Does::CutsOff => {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 5000\r\n\r\n";
            let _ = stream.write_all(format!("{head}{{\"choices\": [{{\"mess").as_bytes());
            false
        }
        Does::Sends(status, headers, body) => {
            respond(stream, seen, Does::SendsBytes(status, headers, body.into_bytes()))
        }
        Does::SendsBytes(status, headers, body) => {
            let mut head = format!("HTTP/1.1 {status} Words\r\ncontent-length: {}\r\n", body.len());
            for (name, value) in headers {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
            stream.write_all(&[format!("{head}\r\n").as_bytes(), &body].concat()).is_ok()
        }
        Does::Answers(text) => {
            let body = if seen.path.ends_with("/models") {
                json!({ "data": [{ "id": text }] })
            } else if seen.path.contains("chat/") {
                let content = json!([{ "token": text, "logprob": -1.5, "top_logprobs": [] }]);
                json!({ "choices": [{ "index": 0, "message": { "role": "assistant", "content": text },
                    "finish_reason": "stop", "logprobs": { "content": content } }],
                    "usage": { "completion_tokens": 7 } })
            } else {
                json!({ "choices": [{ "index": 0, "text": text, "finish_reason": "length",
                    "logprobs": { "tokens": [text], "token_logprobs": [-2.5] } }] })
            };
            let headers = vec![("content-type", "application/json".to_owned())];
            respond(stream, seen, Does::Sends(200, headers, body.to_string()))
        }
    }
}
