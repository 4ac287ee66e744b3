//! Uploads of folders to the Hugging Face hub: one commit of a model repository, large files by the LFS protocol.
//!
//! The endpoints are those that `huggingface_hub` asks: `whoami-v2`, `repos/create`, `branch`, `preupload`, the batch interface of Git LFS
//! with its transfers `basic` and `multipart`, and `commit`. The token goes to the hub's endpoint alone; places for large files are
//! asked without it, with the headers that the hub names for them. Files that the hub has already are not sent again, so that
//! an upload that was broken off goes on when it is repeated.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use simplemix_files::secret::{first_in_the_open, is_same_origin, redacted};
use ureq::http::{Method, Request, Response};
use ureq::{AsSendBody, SendBody};

use crate::hub_files::{Hub, agent, header, redirected};

/// Bytes of a file's beginning by which the hub tells text from other files.
const SAMPLE: usize = 512;
/// Bytes of all small files in one commit, which are in memory together.
const MOST_SMALL_BYTES: u64 = 256 << 20;
/// Tries of a request that may be repeated.
const TRIES: u32 = 4;
/// Longest wait for a response, as a commit of many files may take.
const PATIENCE: Duration = Duration::from_secs(600);
/// Most redirections of a request.
const MOST: usize = 10;
const LFS: &str = "application/vnd.git-lfs+json";

/// A model repository of the hub that a folder can be pushed to: it exists, and the login may write to it.
#[derive(Debug)]
pub(crate) struct Target {
    hub: Hub,
    /// `owner/name`.
    repository: String,
    revision: String,
}

/// A file to be pushed.
struct Upload {
    /// Path in the repository.
    name: String,
    path: PathBuf,
    size: u64,
    sample: Vec<u8>,
    sha256: String,
}

impl Target {
    /// Logs in, and makes the repository and its branch if they are not there. A name without an owner is one of the user's own.
    pub(crate) fn open(hub: Hub, repository: &str, revision: &str, private: bool) -> Result<Self, String> {
        if hub.is_offline {
            return Err("HF_HUB_OFFLINE forbids to ask the hub; unset it to push".to_owned());
        }
        if hub.token.is_none() {
            return Err(
                "there is no token; set HF_TOKEN to one that may write, or log in with `hf auth login`".to_owned()
            );
        }
        if let Some(host) = first_in_the_open(&hub.endpoint) {
            tracing::warn!(
                "{host}: the hub's token is sent to it over http, readable for every machine between; use https"
            );
        }
        let answer = hub.call(Method::GET, "/api/whoami-v2", ("application/json", Vec::new()));
        let user = told(answer.map_err(|error| format!("the login: {error}"))?, "the login")?;
        let user = user["name"].as_str().ok_or("the login: a reply without the user's name, `name`")?;
        let (owner, name) = repository.split_once('/').unwrap_or((user, repository));
        if [owner, name].iter().any(|part| !is_plain(part)) || !revision.split('/').all(is_plain) {
            return Err(format!(
                "`{repository}` at `{revision}` is no name of a repository, expected OWNER/NAME and a branch"
            ));
        }
        let mut asked = json!({ "name": name, "type": "model", "private": private });
        if owner != user {
            asked["organization"] = owner.into();
        }
        hub.make("/api/repos/create", &asked, &format!("making the repository {owner}/{name}"))?;
        let target = Self { hub, repository: format!("{owner}/{name}"), revision: revision.to_owned() };
        if revision != "main" {
            target.hub.make(&target.api("branch"), &json!({}), &format!("making the branch {revision}"))?;
        }
        // A repository that was there may be another's to write to; the hub answers this to those who may.
        let probe = json!({ "files": [{ "path": "config.json", "size": 2, "sample": STANDARD.encode("{}") }] });
        target.hub.reply(&target.api("preupload"), &probe, &format!("the right to write to {}", target.repository))?;
        Ok(target)
    }

    /// `owner/name`.
    pub(crate) fn repository(&self) -> &str {
        &self.repository
    }

    fn api(&self, what: &str) -> String {
        format!("/api/models/{}/{what}/{}", self.repository, self.revision.replace('/', "%2F"))
    }

    /// Pushes the files of `folder` as one commit, and returns its address. `progress` hears of bytes done, and of all.
    pub(crate) fn push(
        &self,
        folder: &Path,
        message: &str,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<String, String> {
        let uploads = uploads(folder)?;
        let (total, mut done) = (uploads.iter().map(|file| file.size).sum::<u64>(), 0);
        progress(done, total);
        let large = self.large(&uploads)?;
        let (large, small): (Vec<&Upload>, Vec<&Upload>) = uploads.iter().partition(|file| large.contains(&file.name));
        let small_bytes: u64 = small.iter().map(|file| file.size).sum();
        if small_bytes > MOST_SMALL_BYTES {
            return Err(format!(
                "the hub takes {small_bytes} bytes for small files, expected at most {MOST_SMALL_BYTES}"
            ));
        }
        let mut actions = self.lfs_actions(&large)?;
        for file in &large {
            // Two files may be the same.
            let is_its = |action: &&mut Value| action["oid"] == file.sha256.as_str() && action["actions"].is_object();
            if let Some(action) = actions.iter_mut().find(is_its) {
                let action = std::mem::take(&mut action["actions"]);
                self.send_large(file, &action).map_err(|error| format!("{}: {error}", file.name))?;
            }
            done += file.size;
            progress(done, total);
        }
        let commit = self.commit(&small, &large, message)?;
        progress(total, total);
        Ok(commit)
    }

    /// Names of the files that are sent by LFS, as the hub decides.
    fn large(&self, uploads: &[Upload]) -> Result<Vec<String>, String> {
        let files: Vec<Value> = uploads
            .iter()
            .map(|file| json!({ "path": file.name, "size": file.size, "sample": STANDARD.encode(&file.sample) }))
            .collect();
        let reply = self.hub.reply(&self.api("preupload"), &json!({ "files": files }), "the upload")?;
        let modes = reply["files"].as_array().ok_or("the upload: a reply without `files`")?;
        let is_large = |mode: &&Value| mode["uploadMode"] == "lfs";
        Ok(modes.iter().filter(is_large).filter_map(|mode| mode["path"].as_str().map(str::to_owned)).collect())
    }

    /// Actions for the large files that the hub does not have.
    fn lfs_actions(&self, large: &[&Upload]) -> Result<Vec<Value>, String> {
        if large.is_empty() {
            return Ok(Vec::new());
        }
        let objects: Vec<Value> = large.iter().map(|file| json!({ "oid": file.sha256, "size": file.size })).collect();
        let asked = json!({
            "operation": "upload",
            "transfers": ["basic", "multipart"],
            "objects": objects,
            "hash_algo": "sha256",
            "ref": { "name": self.revision },
        });
        let path = format!("/{}.git/info/lfs/objects/batch", self.repository);
        let mut reply = self.hub.reply(&path, &asked, "large files")?;
        if let Some(error) =
            reply["objects"].as_array().into_iter().flatten().find(|object| object["error"].is_object())
        {
            return Err(format!("large files: the hub refuses {}: {}", error["oid"], error["error"]["message"]));
        }
        match reply["objects"].take() {
            Value::Array(objects) => Ok(objects.into_iter().filter(|object| object["actions"].is_object()).collect()),
            _ => Err("large files: a reply without `objects`".to_owned()),
        }
    }

    /// Sends a file to the place that the hub names, whole or in parts, and has the hub verify it.
    fn send_large(&self, file: &Upload, actions: &Value) -> Result<(), String> {
        let upload = &actions["upload"];
        let place = upload["href"].as_str().ok_or("a reply without the place to send it to, `upload.href`")?;
        let headers = upload["header"].as_object();
        let field = |name: &str| headers.and_then(|headers| headers.get(name));
        let part_bytes = field("chunk_size").and_then(|size| size.as_u64().or_else(|| size.as_str()?.parse().ok()));
        match part_bytes {
            None => {
                let headers = headers.into_iter().flatten();
                let given: Vec<(&str, &str)> =
                    headers.filter_map(|(name, value)| Some((name.as_str(), value.as_str()?))).collect();
                put(place, &given, file, 0..file.size).map(drop)?;
            }
            Some(part_bytes) => self.send_parts(file, place, part_bytes.max(1), &field)?,
        }
        if let Some(verify) = actions["verify"]["href"].as_str() {
            let asked = json!({ "oid": file.sha256, "size": file.size });
            self.hub.reply(verify, &asked, "verifying what was sent")?;
        }
        Ok(())
    }

    /// Sends the parts of a file, each to a place of its own, and tells the last place what they are.
    fn send_parts<'a>(
        &self,
        file: &Upload,
        completion: &str,
        part_bytes: u64,
        field: &dyn Fn(&str) -> Option<&'a Value>,
    ) -> Result<(), String> {
        let mut parts = Vec::new();
        for number in 1..=file.size.div_ceil(part_bytes) {
            // Parts are named by their numbers, with zeros before them.
            let place = [format!("{number:05}"), format!("{number}")].iter().find_map(|name| field(name)?.as_str());
            let place = place.ok_or_else(|| format!("a reply without the place of part {number}"))?;
            let start = (number - 1) * part_bytes;
            let answer = put(place, &[], file, start..(start + part_bytes).min(file.size))?;
            let etag =
                header(&answer, "etag").ok_or_else(|| format!("part {number}: a reply without the header etag"))?;
            parts.push(json!({ "partNumber": number, "etag": etag }));
        }
        let told = json!({ "oid": file.sha256, "parts": parts }).to_string();
        let request = || {
            Request::post(completion).header("accept", LFS).header("content-type", LFS).body(told.as_bytes().to_vec())
        };
        let answer = tried(|| send(request().map_err(|error| error.to_string())?))?;
        expect_success(&answer, completion)
    }

    /// Makes the commit, with the small files in it.
    fn commit(&self, small: &[&Upload], large: &[&Upload], message: &str) -> Result<String, String> {
        let header = json!({ "key": "header", "value": { "summary": message, "description": "" } });
        let mut body = format!("{header}\n").into_bytes();
        for file in small {
            let content = std::fs::read(&file.path).map_err(|error| format!("{}: {error}", file.path.display()))?;
            let value = json!({ "content": STANDARD.encode(content), "path": file.name, "encoding": "base64" });
            body.extend(format!("{}\n", json!({ "key": "file", "value": value })).into_bytes());
        }
        for file in large {
            let value = json!({ "path": file.name, "algo": "sha256", "oid": file.sha256, "size": file.size });
            body.extend(format!("{}\n", json!({ "key": "lfsFile", "value": value })).into_bytes());
        }
        let reply = self.hub.call(Method::POST, &self.api("commit"), ("application/x-ndjson", body))?;
        let reply = told(reply, "the commit")?;
        let commit = reply["commitUrl"].as_str().or_else(|| reply["commitOid"].as_str());
        commit.map(str::to_owned).ok_or_else(|| "the commit: a reply without its address, `commitUrl`".to_owned())
    }
}

impl Hub {
    /// The JSON that the hub answers.
    fn reply(&self, place: &str, body: &Value, doing: &str) -> Result<Value, String> {
        let kind = if place.contains("/lfs/") { LFS } else { "application/json" };
        let answer = tried(|| self.call(Method::POST, place, (kind, body.to_string().into_bytes())))
            .map_err(|error| format!("{doing}: {error}"))?;
        told(answer, doing)
    }

    /// Makes something that may be there already.
    fn make(&self, place: &str, body: &Value, doing: &str) -> Result<(), String> {
        let answer = tried(|| self.call(Method::POST, place, ("application/json", body.to_string().into_bytes())))
            .map_err(|error| format!("{doing}: {error}"))?;
        match answer.status().as_u16() {
            409 => Ok(()),
            _ => told(answer, doing).map(drop),
        }
    }

    /// Asks the hub itself, with the token; `place` is a path, or an address that the hub has named.
    fn call(&self, method: Method, place: &str, (kind, body): (&str, Vec<u8>)) -> Result<Response<ureq::Body>, String> {
        let mut here = match place.starts_with('/') {
            true => format!("{}{place}", self.endpoint.trim_end_matches('/')),
            false => place.to_owned(),
        };
        for _ in 0..=MOST {
            let mut request = Request::builder().method(method.clone()).uri(&here).header("accept", kind);
            if is_same_origin(&self.endpoint, &here)
                && let Some(token) = &self.token
            {
                request = request.header("authorization", format!("Bearer {}", token.expose()));
            }
            let bad = |error: ureq::http::Error| error.to_string();
            let answer = match method {
                Method::GET => send(request.body(()).map_err(bad)?)?,
                _ => send(request.header("content-type", kind).body(body.clone()).map_err(bad)?)?,
            };
            match (answer.status().as_u16(), header(&answer, "location")) {
                // A repository that was renamed; what was to be sent is for the hub alone.
                (307 | 308, Some(location)) => here = redirected(&here, &location)?,
                _ => return Ok(answer),
            }
            if !is_same_origin(&self.endpoint, &here) {
                return Err(redacted(&format!("redirected to {here}, another place than the hub")).into_owned());
            }
        }
        Err(format!("more than {MOST} redirections"))
    }
}

fn send(request: Request<impl AsSendBody>) -> Result<Response<ureq::Body>, String> {
    agent(PATIENCE).run(request).map_err(|error| format!("the hub cannot be reached: {error}"))
}

/// Sends bytes of a file to a place that the hub has named. The token stays here.
fn put(
    place: &str,
    headers: &[(&str, &str)],
    file: &Upload,
    bytes: std::ops::Range<u64>,
) -> Result<Response<ureq::Body>, String> {
    let answer = tried(|| {
        let failed = |error: std::io::Error| format!("{}: {error}", file.path.display());
        let mut opened = File::open(&file.path).map_err(failed)?;
        opened.seek(SeekFrom::Start(bytes.start)).map_err(failed)?;
        let length = bytes.end - bytes.start;
        let mut request = agent(PATIENCE).put(place).header("content-length", length.to_string());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = SendBody::from_owned_reader(opened.take(length));
        request.send(body).map_err(|error| redacted(&format!("{place} cannot be reached: {error}")).into_owned())
    })?;
    expect_success(&answer, place)?;
    Ok(answer)
}

fn expect_success(answer: &Response<ureq::Body>, place: &str) -> Result<(), String> {
    match answer.status().is_success() {
        true => Ok(()),
        false => Err(redacted(&format!("{place}: status {}", answer.status().as_u16())).into_owned()),
    }
}

/// Repeats a request that nobody answered, or whose answer says that it may be repeated, after 1, 2 and 4 seconds.
fn tried(mut request: impl FnMut() -> Result<Response<ureq::Body>, String>) -> Result<Response<ureq::Body>, String> {
    let mut tries = 1;
    loop {
        let answer = request();
        let again = match &answer {
            Ok(answer) => matches!(answer.status().as_u16(), 408 | 429 | 500 | 502 | 503 | 504),
            Err(_) => true,
        };
        if !again || tries == TRIES {
            return answer;
        }
        std::thread::sleep(Duration::from_secs(1 << (tries - 1)));
        tries += 1;
    }
}

/// The JSON of an answer, or what its status means.
fn told(mut answer: Response<ureq::Body>, doing: &str) -> Result<Value, String> {
    let status = answer.status().as_u16();
    let text = answer.body_mut().read_to_string().unwrap_or_default();
    let reply: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
    let said = reply["error"].as_str().or_else(|| reply["message"].as_str());
    let said = said.map(|said| format!(": {}", redacted(said))).unwrap_or_default();
    match status {
        200..300 => Ok(reply),
        401 => Err(format!("{doing}: the hub does not know the token{said}; set HF_TOKEN to one that may write")),
        403 => Err(format!("{doing}: the token may not do it{said}; it needs the right to write there")),
        404 => Err(format!("{doing}: status 404, no such repository or branch, or none that the token may see{said}")),
        status => Err(format!("{doing}: status {status}{said}")),
    }
}

/// Files of a folder and of the folders in it, by name. Hidden ones, locks and links to folders stay.
fn uploads(folder: &Path) -> Result<Vec<Upload>, String> {
    let mut found = Vec::new();
    gather(folder, "", &mut found).map_err(|(path, error)| format!("{}: {error}", path.display()))?;
    match found.is_empty() {
        true => Err(format!("{}: no file to push", folder.display())),
        false => Ok(found),
    }
}

fn gather(folder: &Path, before: &str, found: &mut Vec<Upload>) -> Result<(), (PathBuf, std::io::Error)> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |error| (path, error)
    };
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder)
        .map_err(at(folder))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()
        .map_err(at(folder))?;
    entries.sort();
    for path in entries {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            return Err((path, std::io::Error::other("a name that is no text")));
        };
        if name.starts_with('.') || name.ends_with(".lock") {
            continue;
        }
        let name = format!("{before}{name}");
        let metadata = std::fs::metadata(&path).map_err(at(&path))?;
        if metadata.is_dir() && !path.is_symlink() {
            gather(&path, &format!("{name}/"), found)?;
        } else if metadata.is_file() {
            found.push(Upload::read(name, path.clone()).map_err(at(&path))?);
        }
    }
    Ok(())
}

impl Upload {
    /// Size, beginning and hash of a file, read once.
    fn read(name: String, path: PathBuf) -> std::io::Result<Self> {
        let mut file = File::open(&path)?;
        let (mut sample, mut hasher, mut size) = (Vec::new(), Sha256::new(), 0);
        let mut buffer = vec![0; 1 << 20];
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            let rest = SAMPLE.saturating_sub(sample.len()).min(read);
            sample.extend_from_slice(&buffer[..rest]);
            hasher.update(&buffer[..read]);
            size += read as u64;
        }
        let sha256 = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { name, path, size, sample, sha256 })
    }
}

/// Whether a text can be a part of a repository's or branch's name.
fn is_plain(part: &str) -> bool {
    !part.is_empty()
        && !part.starts_with('.')
        && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}
