//! Files of the Hugging Face hub, downloaded into the cache that all its programs share.
//!
//! The token goes to the hub's endpoint alone: redirections are followed here, and another host, port or scheme is asked without
//! it. Names that a server sends become parts of paths only if they are plain.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use simplemix_files::Lock;
use simplemix_files::secret::{Secret, first_in_the_open, is_same_origin, redacted};
use ureq::Agent;
use ureq::http::Response;
use url::Url;

use crate::hub::Listing;

/// Most redirections of a request.
const MOST: usize = 10;

/// Kind of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A model.
    Model,
    /// A data set.
    Dataset,
}

/// A repository of the hub at a revision.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Repo<'a> {
    pub(crate) kind: Kind,
    /// `owner/name`.
    pub(crate) id: &'a str,
    /// Branch, tag, reference such as `refs/pr/1`, or commit.
    pub(crate) revision: &'a str,
}

impl Repo<'_> {
    /// Folder in the cache.
    fn folder(&self) -> String {
        let kind = if self.kind == Kind::Model { "models" } else { "datasets" };
        format!("{kind}--{}", self.id.replace('/', "--"))
    }

    fn url(&self, endpoint: &str, name: &str) -> String {
        let kind = if self.kind == Kind::Model { "" } else { "datasets/" };
        let revision = self.revision.replace('/', "%2F");
        format!("{}/{kind}{}/resolve/{revision}/{}", endpoint.trim_end_matches('/'), self.id, in_url(name))
    }

    fn listing_url(&self, endpoint: &str) -> String {
        let kind = if self.kind == Kind::Model { "models" } else { "datasets" };
        let revision = self.revision.replace('/', "%2F");
        format!("{}/api/{kind}/{}/revision/{revision}", endpoint.trim_end_matches('/'), self.id)
    }

    /// Refuses a revision that is no plain path, since it becomes a part of one.
    fn check(&self) -> Result<(), String> {
        let is_plain = |part: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        };
        match self.revision.split('/').all(is_plain) {
            true => Ok(()),
            false => Err(format!("`{}` is no name of a revision: a branch, a tag or a commit", self.revision)),
        }
    }

    /// Whether the revision is a commit, which names its snapshot itself.
    fn is_commit(&self) -> bool {
        self.revision.len() == 40 && self.revision.bytes().all(|byte| byte.is_ascii_hexdigit())
    }
}

/// A file's path with the characters that end the path of a URL written in percent.
fn in_url(name: &str) -> String {
    name.replace('%', "%25").replace('#', "%23").replace('?', "%3F").replace(' ', "%20")
}

/// The hub, with its cache.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) endpoint: String,
    pub(crate) token: Option<Secret>,
    cache: PathBuf,
    /// Whether nothing may be asked for.
    pub(crate) is_offline: bool,
}

impl Hub {
    /// Endpoint, token and cache as `huggingface_hub` finds them: `HF_ENDPOINT`; `HF_TOKEN` or the token file; `HF_HUB_CACHE`,
    /// `HF_HOME` or the user's cache; `HF_HUB_OFFLINE` or `TRANSFORMERS_OFFLINE`.
    pub(crate) fn from_env() -> Self {
        let path = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let caches = || path("XDG_CACHE_HOME").or_else(|| Some(path("HOME")?.join(".cache")));
        let home = path("HF_HOME").or_else(|| Some(caches()?.join("huggingface"))).unwrap_or_default();
        let text = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        let token_file = path("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"));
        let token = text("HF_TOKEN").or_else(|| simplemix_files::read_to_string(token_file).ok());
        Self {
            endpoint: text("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned()),
            token: token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty()).map(Secret::new),
            cache: path("HF_HUB_CACHE").unwrap_or_else(|| home.join("hub")),
            is_offline: ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"].iter().any(|name| {
                text(name).is_some_and(|value| {
                    ["1", "ON", "YES", "TRUE"].contains(&value.trim().to_ascii_uppercase().as_str())
                })
            }),
        }
    }

    /// A file that is in the cache.
    pub(crate) fn cached(&self, repo: Repo<'_>, name: &str) -> Option<PathBuf> {
        let folder = self.cache.join(repo.folder());
        let commit = match repo.is_commit() {
            true => repo.revision.to_owned(),
            false => simplemix_files::read_to_string(folder.join("refs").join(repo.revision)).ok()?,
        };
        let path = folder.join("snapshots").join(commit.trim()).join(name);
        path.exists().then_some(path)
    }

    /// A file in the cache, downloaded if it is not there. An error is a text for the user.
    pub(crate) fn get(&self, repo: Repo<'_>, name: &str) -> Result<PathBuf, String> {
        if !Path::new(name).components().all(|part| matches!(part, Component::Normal(_))) || name.contains('\\') {
            return Err(format!("`{name}` is no name of a file in a repository"));
        }
        repo.check()?;
        if let Some(path) = self.cached(repo, name) {
            return Ok(path);
        }
        let url = repo.url(&self.endpoint, name);
        self.download(repo, name, &url).map_err(|error| redacted(&format!("{url}: {error}")).into_owned())
    }

    /// Files of a repository at its revision. It is always asked for, since the cache may hold a part of the files.
    pub(crate) fn listing(&self, repo: Repo<'_>) -> Result<Listing, String> {
        repo.check()?;
        let url = repo.listing_url(&self.endpoint);
        let failed = |error: String| redacted(&format!("{url}: {error}")).into_owned();
        let mut found = self.ask(&url, 0).map_err(failed)?;
        let text = found.response.body_mut().read_to_string().map_err(|error| failed(error.to_string()))?;
        let reply: serde_json::Value =
            serde_json::from_str(&text).map_err(|error| failed(format!("a reply that is no JSON: {error}")))?;
        let commit = plain(reply["sha"].as_str(), "sha").map_err(failed)?;
        let names = reply["siblings"].as_array().map(|files| files.iter().map(|file| file["rfilename"].as_str()));
        let files = names.and_then(|names| names.map(|name| name.map(str::to_owned)).collect::<Option<Vec<_>>>());
        let files = files.ok_or_else(|| failed("a reply without the names of the files, `siblings`".to_owned()))?;
        Ok(Listing { commit, files })
    }

    fn download(&self, repo: Repo<'_>, name: &str, url: &str) -> Result<PathBuf, String> {
        let folder = self.cache.join(repo.folder());
        let found = self.ask(url, 0)?;
        let (commit, etag) = (plain(found.commit.as_deref(), "x-repo-commit")?, plain(found.etag.as_deref(), "etag")?);
        let blobs = folder.join("blobs");
        simplemix_files::create_dir_all(&blobs).map_err(|error| error.to_string())?;
        let blob = blobs.join(&etag);
        let lock = Lock::wait(blobs.join(format!("{etag}.lock")), &mut |_| true).map_err(|error| error.to_string())?;
        if !blob.exists() {
            self.fill(&blob, url, found)?;
        }
        drop(lock);
        let path = folder.join("snapshots").join(&commit).join(name);
        link(&path, &blob, name).map_err(|error| format!("{}: cannot link: {error}", path.display()))?;
        if !repo.is_commit() {
            let reference = folder.join("refs").join(repo.revision);
            let within = reference.parent().unwrap_or(&folder);
            simplemix_files::create_dir_all(within).map_err(|error| error.to_string())?;
            simplemix_files::write(reference, commit).map_err(|error| error.to_string())?;
        }
        Ok(path)
    }

    /// Downloads a blob beside its place, from where an earlier download stopped.
    fn fill(&self, blob: &Path, url: &str, mut found: Found) -> Result<(), String> {
        let part = blob.with_file_name(format!("{}.part", blob.file_name().unwrap_or_default().to_string_lossy()));
        let failed = |error: io::Error| format!("{}: cannot write: {error}", part.display());
        let mut file = OpenOptions::new().append(true).create(true).open(&part).map_err(failed)?;
        let mut start = file.metadata().map_err(failed)?.len();
        if start > 0 {
            found = self.ask(url, start)?;
        }
        if found.response.status().as_u16() != 206 {
            start = 0;
            file.set_len(0).map_err(failed)?;
        }
        let expected = header(&found.response, "content-length").and_then(|length| length.parse::<u64>().ok());
        let mut reader = found.response.body_mut().as_reader();
        let read = io::copy(&mut reader, &mut file).map_err(|error| format!("broken off: {error}"))?;
        if let Some(expected) = expected.filter(|expected| *expected != read) {
            return Err(format!("{read} bytes after the first {start}, expected {expected}"));
        }
        file.sync_all().map_err(failed)?;
        fs::rename(&part, blob).map_err(failed)
    }

    /// Asks for a file from byte `start` on, and follows redirections.
    fn ask(&self, url: &str, start: u64) -> Result<Found, String> {
        if self.is_offline {
            return Err(
                "not in the cache, and HF_HUB_OFFLINE forbids to ask the hub; name files on this machine, or unset it"
                    .into(),
            );
        }
        if let Some(host) = self.token.as_ref().and_then(|_| first_in_the_open(&self.endpoint)) {
            tracing::warn!(
                "{host}: the hub's token is sent to it over http, readable for every machine between; use https"
            );
        }
        let agent = agent(Duration::from_secs(60));
        let (mut here, mut commit, mut etag) = (url.to_owned(), None, None);
        for _ in 0..=MOST {
            let is_hub = is_same_origin(&self.endpoint, &here);
            let mut request = agent.get(&here).header("accept-encoding", "identity");
            if let Some(token) = self.token.as_ref().filter(|_| is_hub) {
                request = request.header("authorization", format!("Bearer {}", token.expose()));
            }
            if start > 0 {
                request = request.header("range", format!("bytes={start}-"));
            }
            let response = request.call().map_err(|error| {
                format!("the hub cannot be reached: {error}; without a network, name files on this machine")
            })?;
            if is_hub {
                commit = commit.or_else(|| header(&response, "x-repo-commit"));
                etag = etag.or_else(|| header(&response, "x-linked-etag")).or_else(|| header(&response, "etag"));
            }
            match (response.status().as_u16(), header(&response, "location")) {
                (200 | 206, _) => return Ok(Found { response, commit, etag }),
                (301 | 302 | 303 | 307 | 308, Some(location)) => here = redirected(&here, &location)?,
                (401 | 403, _) => return Err("refused; a private or gated repository needs a token in HF_TOKEN".into()),
                (404, _) => {
                    return Err("status 404: there is no such repository or revision, or no such file in it".into());
                }
                (status, _) => return Err(format!("status {status}")),
            }
        }
        Err(format!("more than {MOST} redirections"))
    }
}

/// The last response to a request, and what the hub said of the file.
struct Found {
    response: Response<ureq::Body>,
    commit: Option<String>,
    etag: Option<String>,
}

/// A client that follows no redirection, and waits `patience` for the head of a response.
pub(crate) fn agent(patience: Duration) -> Agent {
    Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_connect(Some(Duration::from_secs(30)))
        .timeout_recv_response(Some(patience))
        .user_agent(concat!("simplemix/", env!("CARGO_PKG_VERSION")))
        .build()
        .new_agent()
}

/// A header of a response.
pub(crate) fn header(response: &Response<ureq::Body>, name: &str) -> Option<String> {
    Some(response.headers().get(name)?.to_str().ok()?.to_owned())
}

/// A value of a header that becomes a part of a path.
fn plain(value: Option<&str>, header: &str) -> Result<String, String> {
    let value = value.ok_or_else(|| format!("a reply without the header {header}, which the hub sends"))?;
    let value = value.trim_start_matches("W/").trim_matches('"');
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    match !value.is_empty() && value.len() <= 128 && !value.starts_with('.') && value.bytes().all(is_plain) {
        true => Ok(value.to_owned()),
        false => Err(format!("the header {header} is no plain name")),
    }
}

/// The place that a redirection from `here` names.
pub(crate) fn redirected(here: &str, location: &str) -> Result<String, String> {
    let no_url = |error: url::ParseError| format!("redirected to a place that is no URL: {error}");
    let here = Url::parse(here).map_err(no_url)?;
    let next = here.join(location).map_err(no_url)?;
    match (here.scheme(), next.scheme()) {
        (_, "https") | ("http", "http") => Ok(next.into()),
        (from, to) => Err(format!("redirected from {from} to {to}")),
    }
}

/// Makes `path`, the file `name` of a snapshot, a link to its blob.
fn link(path: &Path, blob: &Path, name: &str) -> io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    #[cfg(unix)]
    {
        let up = "../".repeat(Path::new(name).components().count() + 1);
        let target = format!("{up}blobs/{}", blob.file_name().unwrap_or_default().to_string_lossy());
        // A link to a blob that is gone.
        let _ = fs::remove_file(path);
        if std::os::unix::fs::symlink(target, path).is_ok() {
            return Ok(());
        }
    }
    let _ = name;
    fs::copy(blob, path).map(|_| ())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::sync::{Arc, Mutex};

    use super::*;

    const TOKEN: &str = "hf_ThisIsTheTokenOfTheTests1";

    /// A server that answers every request by `answer`, and keeps the requests' lines.
    fn server(answer: impl Fn(&str) -> String + Send + 'static) -> (String, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let kept = seen.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
                let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
                let Some(first) = head.first().cloned() else { continue };
                kept.lock().unwrap().push(head.join("\n").to_ascii_lowercase());
                let _ = stream.write_all(answer(&first).as_bytes());
            }
        });
        (url, seen)
    }

    fn hub(endpoint: &str, cache: &Path) -> Hub {
        let (token, cache) = (Some(Secret::new(TOKEN)), cache.to_owned());
        Hub { endpoint: endpoint.to_owned(), token, cache, is_offline: false }
    }

    fn sends(headers: &str, body: &str) -> String {
        format!("HTTP/1.1 {headers}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
    }

    const MODEL: Repo<'_> = Repo { kind: Kind::Model, id: "owner/name", revision: "main" };

    #[test]
    fn a_revision_has_a_reference_and_snapshot_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let (endpoint, seen) = server(|_| sends("200 OK\r\netag: abc\r\nx-repo-commit: c1", "x"));
        let hub = hub(&endpoint, dir.path());
        let folder = dir.path().join("models--owner--name");
        for (revision, in_url) in [("it-SFT", "it-SFT"), ("refs/pr/3", "refs%2Fpr%2F3")] {
            let path = hub.get(Repo { revision, ..MODEL }, "config.json").unwrap();
            assert_eq!(path, folder.join("snapshots/c1/config.json"));
            assert_eq!(fs::read_to_string(folder.join("refs").join(revision)).unwrap(), "c1");
            let asked = seen.lock().unwrap().last().unwrap().clone();
            let line = format!("get /owner/name/resolve/{in_url}/config.json ").to_ascii_lowercase();
            assert!(asked.starts_with(&line), "{asked}");
        }
        // A commit names its snapshot; nothing is asked for.
        let commit = "0123456789abcdef0123456789abcdef01234567";
        fs::create_dir_all(folder.join("snapshots").join(commit)).unwrap();
        fs::write(folder.join("snapshots").join(commit).join("config.json"), "y").unwrap();
        let asked = seen.lock().unwrap().len();
        assert!(hub.get(Repo { revision: commit, ..MODEL }, "config.json").is_ok());
        assert_eq!(seen.lock().unwrap().len(), asked);
        for revision in ["../main", "", "a//b", ".git", "a b"] {
            let error = hub.get(Repo { revision, ..MODEL }, "config.json").unwrap_err();
            assert_eq!(error, format!("`{revision}` is no name of a revision: a branch, a tag or a commit"));
        }
    }

    #[test]
    fn files_of_a_data_set_are_listed_and_offline_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let reply =
            r#"{"sha": "c0ffee", "siblings": [{"rfilename": "README.md"}, {"rfilename": "data/train.parquet"}]}"#;
        let (endpoint, seen) = server(move |_| sends("200 OK", reply));
        let repo = Repo { kind: Kind::Dataset, id: "owner/set", revision: "main" };
        let listing = hub(&endpoint, dir.path()).listing(repo).unwrap();
        let files = vec!["README.md".to_owned(), "data/train.parquet".to_owned()];
        assert_eq!(listing, Listing { commit: "c0ffee".to_owned(), files });
        assert!(seen.lock().unwrap()[0].starts_with("get /api/datasets/owner/set/revision/main "));
        let offline = Hub { is_offline: true, ..hub(&endpoint, dir.path()) };
        let error = offline.listing(repo).unwrap_err();
        assert!(
            error.ends_with(
                "not in the cache, and HF_HUB_OFFLINE forbids to ask the hub; name files on this machine, or unset it"
            ),
            "{error}"
        );
        let error = hub("http://127.0.0.1:1", dir.path()).listing(repo).unwrap_err();
        assert!(
            error.contains("the hub cannot be reached") && error.ends_with("name files on this machine"),
            "{error}"
        );
        let (endpoint, _) = server(|_| sends("200 OK", r#"{"sha": "../x", "siblings": []}"#));
        assert!(hub(&endpoint, dir.path()).listing(repo).unwrap_err().ends_with("is no plain name"));
    }

    #[test]
    fn the_token_goes_to_the_hub_alone_and_files_lie_as_huggingface_hub_puts_them() {
        let dir = tempfile::tempdir().unwrap();
        let (other, at_other) = server(|_| sends("200 OK\r\netag: \"of-the-other\"", "weights"));
        let (endpoint, at_hub) = server(move |request| match request.contains("/moved/") {
            true => sends(&format!("302 Found\r\nlocation: {other}/x?sig=1\r\nx-linked-etag: \"abc\""), ""),
            false => sends("307 Moved\r\nlocation: /moved/a\r\nx-repo-commit: c0ffee", ""),
        });
        let path = hub(&endpoint, dir.path()).get(MODEL, "model.safetensors").unwrap();
        // The layout of huggingface_hub 1.2: models--owner--name/{blobs,refs,snapshots}.
        let folder = dir.path().join("models--owner--name");
        assert_eq!(path, folder.join("snapshots/c0ffee/model.safetensors"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "weights");
        assert_eq!(fs::read_link(&path).unwrap(), Path::new("../../blobs/abc"));
        assert_eq!(fs::read_to_string(folder.join("refs/main")).unwrap(), "c0ffee");
        let token = format!("authorization: bearer {}", TOKEN.to_ascii_lowercase());
        assert!(at_hub.lock().unwrap().iter().all(|head| head.contains(&token)), "{at_hub:?}");
        assert_eq!(at_hub.lock().unwrap().len(), 2);
        assert!(at_other.lock().unwrap().iter().all(|head| !head.contains("authorization") && !head.contains("hf_")));
        // From the cache, without a request.
        assert_eq!(hub("http://127.0.0.1:1", dir.path()).get(MODEL, "model.safetensors").unwrap(), path);
    }

    #[test]
    fn names_of_a_server_do_not_leave_the_cache() {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("cache");
        for (etag, commit) in [("../../../evil", "c"), ("a", "../../../evil"), ("", "c"), (".", "c"), ("a/b", "c")] {
            let head = format!("200 OK\r\netag: \"{etag}\"\r\nx-repo-commit: {commit}");
            let (endpoint, _) = server(move |_| sends(&head, "x"));
            let error = hub(&endpoint, &cache).get(MODEL, "config.json").unwrap_err();
            assert!(error.ends_with("is no plain name"), "{error}");
        }
        for name in ["../config.json", "/etc/passwd", "a/../../b", "..\\b"] {
            let error = hub("http://127.0.0.1:1", &cache).get(MODEL, name).unwrap_err();
            assert!(error.contains("is no name of a file in a repository"), "{error}");
        }
        assert!(!dir.path().join("evil").exists());
    }

    #[test]
    fn a_download_goes_on_where_it_stopped_and_errors_have_no_token() {
        let dir = tempfile::tempdir().unwrap();
        let head = "etag: abc\r\nx-repo-commit: c";
        let (endpoint, seen) = server(move |_| sends(&format!("206 Part\r\n{head}"), "-end"));
        let blobs = dir.path().join("models--owner--name/blobs");
        fs::create_dir_all(&blobs).unwrap();
        fs::write(blobs.join("abc.part"), "start").unwrap();
        let path = hub(&endpoint, dir.path()).get(MODEL, "a.bin").unwrap();
        assert_eq!(fs::read_to_string(path).unwrap(), "start-end");
        assert!(seen.lock().unwrap()[1].contains("range: bytes=5-"));

        let (endpoint, _) = server(|_| sends(&format!("302 Found\r\nlocation: ftp://h/{TOKEN}"), ""));
        let error = hub(&endpoint, dir.path()).get(MODEL, "b.bin").unwrap_err();
        assert_eq!(error, format!("{endpoint}/owner/name/resolve/main/b.bin: redirected from http to ftp"));
    }

    #[test]
    fn places_of_redirections() {
        let here = "https://h/a/b?c";
        for (location, expected) in [
            ("/x", "https://h/x"),
            ("x?y", "https://h/a/x?y"),
            ("//other/x", "https://other/x"),
            ("https://other/x", "https://other/x"),
            ("../x/./y", "https://h/x/y"),
            ("?y", "https://h/a/b?y"),
            ("HTTPS:\\\\other\\@h/x", "https://other/@h/x"),
            ("a b\u{e9}", "https://h/a/a%20b%C3%A9"),
        ] {
            assert_eq!(redirected(here, location).unwrap(), expected);
        }
        assert!(redirected(here, "https://").unwrap_err().contains("no URL"));
        assert!(redirected(here, "http://h/a").is_err() && redirected(here, "file:///etc").is_err());
    }
}
