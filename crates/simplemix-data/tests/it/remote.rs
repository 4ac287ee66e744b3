//! Files by URL, from a local web server and a local S3-like store.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use simplemix_data::{Error, ObjectCache, ReadOptions, inputs, read_pairs};

const ROW: &str = r#"{"prompt": "2 + 2?", "chosen": " 4", "rejected": " 5"}"#;

/// A server that serves objects by path, lists the bucket `bucket`, and records its requests.
struct Server {
    root: String,
    asked: Arc<Mutex<Vec<String>>>,
    objects: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
}

impl Server {
    fn with(objects: &[(&str, &str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let root = format!("http://{}", listener.local_addr().unwrap());
        let objects = objects.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec()));
        let server = Self { root, asked: Arc::default(), objects: Arc::new(Mutex::new(objects.collect())) };
        let (asked, objects) = (server.asked.clone(), server.objects.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                answer(stream.unwrap(), &asked, &objects.lock().unwrap());
            }
        });
        server
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.root)
    }

    fn downloads(&self) -> usize {
        self.asked.lock().unwrap().iter().filter(|line| line.starts_with("GET") && !line.contains('?')).count()
    }
}

fn answer(mut stream: TcpStream, asked: &Mutex<Vec<String>>, objects: &BTreeMap<String, Vec<u8>>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(request) = lines.next() else { return };
    lines.by_ref().take_while(|line| !line.is_empty()).for_each(drop);
    let mut words = request.split(' ');
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    asked.lock().unwrap().push(request.clone());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let cut = path.contains("cut");
    let listing = query.contains("list-type=2").then(|| listing(query, objects));
    let found = listing.as_ref().or_else(|| objects.get(path));
    let status = if found.is_some() { "200 OK" } else { "404 Not Found" };
    let body = found.map_or(&[][..], Vec::as_slice);
    let tag = blake3::hash(body).to_hex();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nETag: \"{tag}\"\r\nLast-Modified: Mon, 23 Nov 2026 10:00:00 GMT\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    if method == "GET" {
        stream.write_all(&body[..body.len() / if cut { 2 } else { 1 }]).unwrap();
    }
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let _ = stream.read(&mut [0; 1]);
}

/// S3's answer to ListObjectsV2.
fn listing(query: &str, objects: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let field =
        |name: &str| query.split('&').find_map(|part| part.strip_prefix(name)).unwrap_or("").replace("%2F", "/");
    let (prefix, delimiter) = (field("prefix="), field("delimiter="));
    let mut xml = String::from("<?xml version=\"1.0\"?><ListBucketResult><IsTruncated>false</IsTruncated>");
    for (path, body) in objects {
        let Some(key) = path.strip_prefix("/bucket/").filter(|key| key.starts_with(&prefix)) else { continue };
        if !delimiter.is_empty() && key[prefix.len()..].contains(&delimiter) {
            continue;
        }
        xml += &format!(
            "<Contents><Key>{key}</Key><Size>{}</Size><LastModified>2026-11-23T10:00:00.000Z</LastModified>\
             <ETag>\"{}\"</ETag></Contents>",
            body.len(),
            blake3::hash(body).to_hex()
        );
    }
    (xml + "</ListBucketResult>").into_bytes()
}

#[test]
fn a_web_file_is_copied_once_and_again_when_it_has_changed() {
    let server = Server::with(&[("/data/sums%20v1.jsonl", ROW)]);
    let dir = tempfile::tempdir().unwrap();
    let cache = ObjectCache::new(dir.path());
    let url = server.url("/data/sums%20v1.jsonl");
    let mut seen = Vec::new();
    let first = cache.inputs_with(&url, &mut |transfer| seen.push((transfer.done, transfer.total))).unwrap();
    assert_eq!(seen.last(), Some(&(ROW.len() as u64, ROW.len() as u64)));
    assert_eq!(first[0].file_name().unwrap(), "sums v1.jsonl");
    assert_eq!(read_pairs(&first[0], &ReadOptions::default()).unwrap()[0].source, "sums v1");
    assert_eq!(cache.inputs(&url).unwrap(), first);
    assert_eq!(server.downloads(), 1);

    let longer = format!("{ROW}\n{ROW}");
    server.objects.lock().unwrap().insert("/data/sums%20v1.jsonl".to_owned(), longer.into_bytes());
    let second = cache.inputs(&url).unwrap();
    assert_ne!(second, first);
    assert_eq!(read_pairs(&second[0], &ReadOptions::default()).unwrap().len(), 2);
    assert_eq!(server.downloads(), 2);
}

#[test]
fn a_bucket_is_read_by_key_folder_and_pattern() {
    let keys =
        ["/bucket/set/train-0.jsonl", "/bucket/set/train-1.jsonl", "/bucket/set/readme.md", "/bucket/set/a/b.jsonl"];
    let server = Server::with(&keys.map(|key| (key, ROW)));
    let dir = tempfile::tempdir().unwrap();
    let cache = ObjectCache::new(dir.path())
        .with_setting("aws_endpoint", server.root.clone())
        .with_setting("aws_region", "us-east-1")
        .with_setting("aws_access_key_id", "id")
        .with_setting("aws_secret_access_key", "secret")
        .with_setting("allow_http", "true");
    let names = |url: &str| {
        let files = cache.inputs(url).unwrap();
        files.iter().map(|file| file.file_name().unwrap().to_string_lossy().into_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names("s3://bucket/set/train-1.jsonl"), ["train-1.jsonl"]);
    for folder in ["s3://bucket/set/", "s3://bucket/set"] {
        assert_eq!(names(folder), ["train-0.jsonl", "train-1.jsonl"], "{folder}");
    }
    assert_eq!(names("s3://bucket/set/train-*.jsonl"), ["train-0.jsonl", "train-1.jsonl"]);
    assert_eq!(names("s3://bucket/*/*/b.jsonl"), ["b.jsonl"]);
    let error = cache.inputs("s3://bucket/none/").unwrap_err().to_string();
    assert_eq!(error, "s3://bucket/none/: nothing to read, expected Parquet, Arrow IPC or JSON objects");
    assert!(!format!("{cache:?}").contains("secret"), "{cache:?}");
}

#[test]
fn what_cannot_be_read_is_one_error_with_its_url_and_leaves_nothing() {
    let server = Server::with(&[]);
    let dir = tempfile::tempdir().unwrap();
    let cache = ObjectCache::new(dir.path());
    let missing = server.url("/none.jsonl");
    let error = cache.inputs(&missing).unwrap_err();
    assert!(matches!(&error, Error::Remote { url, action: "look up", .. } if *url == missing), "{error}");
    assert!(matches!(cache.inputs(&server.url("/folder/")), Err(Error::Remote { action: "list", .. })));
    let wrong = |url: &str| cache.inputs(url).unwrap_err().to_string();
    assert_eq!(
        wrong("https://user:hidden@host/a.parquet?sig=1"),
        "https://***@host/a.parquet?sig=***: with a query, expected a URL without one; keys of stores are read from the \
         environment"
    );
    assert!(wrong("ftp://host/a.parquet").ends_with("expected file://, s3://, gs://, az://, http:// or https://"));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_copy_that_is_cut_off_is_not_kept() {
    let server = Server::with(&[("/cut.jsonl", ROW)]);
    let dir = tempfile::tempdir().unwrap();
    let error = ObjectCache::new(dir.path()).inputs(&server.url("/cut.jsonl")).unwrap_err();
    assert!(matches!(error, Error::Remote { action: "read", .. }), "{error}");
    let left =
        std::fs::read_dir(dir.path()).unwrap().flat_map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap());
    assert_eq!(left.count(), 0);
}

#[test]
fn local_urls_are_read_where_they_lie() {
    let (_dir, path) = crate::common::file("a b.jsonl", ROW);
    let url = format!("file://{}", path.display()).replace(' ', "%20");
    assert_eq!(inputs(url).unwrap(), [path]);
}

/// A server that answers with `status`, `headers` and `body`, and keeps what it was sent.
fn recording(answer: impl Fn(&str) -> String + Send + 'static) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let kept = seen.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            let Some(first) = head.first() else { continue };
            let _ = stream.write_all(answer(first).as_bytes());
            kept.lock().unwrap().push(head.join("\n").to_ascii_lowercase());
        }
    });
    (address, seen)
}

fn response(head: &str, body: &str) -> String {
    format!("HTTP/1.1 {head}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// base64 of `me:long-password-1`, from Python.
const LOGIN: &str = "bWU6bG9uZy1wYXNzd29yZC0x";

#[test]
fn a_login_in_a_url_goes_to_its_own_server_alone() {
    let file = |request: &str| response("200 OK\r\netag: \"1\"", if request.starts_with("HEAD") { "" } else { ROW });
    let with_length = move |request: &str| match request.starts_with("HEAD") {
        true => format!(
            "HTTP/1.1 200 OK\r\nconnection: close\r\nlast-modified: Mon, 23 Nov 2026 10:00:00 GMT\r\ncontent-length: {}\r\n\r\n",
            ROW.len()
        ),
        false => file(request).replace("etag: \"1\"", "last-modified: Mon, 23 Nov 2026 10:00:00 GMT"),
    };
    let (other, at_other) = recording(with_length);
    for (status, location) in [
        ("301", format!("http://{other}/x.jsonl")),
        ("302", format!("//{other}/x.jsonl")),
        ("307", format!("http://me:long-password-1@{other}/x.jsonl")),
        ("308", format!("http://{other}/x.jsonl?again")),
    ] {
        let (first, at_first) = recording(move |request| match request.contains("/next/") {
            false => response(&format!("{status} Moved\r\nlocation: /next/y"), ""),
            true => response(&format!("{status} Moved\r\nlocation: {location}"), ""),
        });
        let dir = tempfile::tempdir().unwrap();
        let url = format!("http://me:long%2Dpassword-1@{first}/x.jsonl");
        let copies = ObjectCache::new(dir.path()).inputs(&url).unwrap();
        assert_eq!(std::fs::read_to_string(&copies[0]).unwrap(), ROW);
        let login = format!("authorization: basic {}", LOGIN.to_ascii_lowercase());
        let heads = at_first.lock().unwrap();
        assert!(heads.len() == 4 && heads.iter().all(|head| head.contains(&login)), "{heads:?}");
    }
    let heads = at_other.lock().unwrap();
    assert!(heads.len() == 8 && heads.iter().all(|head| !head.contains("authorization")), "{heads:?}");
}

#[test]
fn keys_of_a_store_do_not_follow_a_redirection() {
    let (other, at_other) = recording(|_| response("404 Not Found", ""));
    let (first, at_first) = recording(move |request| {
        let place = request.split(' ').nth(1).unwrap().to_owned();
        response(&format!("307 Moved\r\nlocation: http://{other}{place}"), "")
    });
    let dir = tempfile::tempdir().unwrap();
    let cache = ObjectCache::new(dir.path())
        .with_setting("aws_endpoint", format!("http://{first}"))
        .with_setting("aws_region", "us-east-1")
        .with_setting("aws_access_key_id", "AKIA0000000000000TST")
        .with_setting("aws_secret_access_key", "the-secret-access-key-1")
        .with_setting("aws_session_token", "the-session-token-1")
        .with_setting("allow_http", "true");
    cache.inputs("s3://bucket/a.jsonl").unwrap_err();
    let is_signed = |head: &String| head.contains("authorization: aws4") && head.contains("x-amz-security-token");
    assert!(at_first.lock().unwrap().iter().all(is_signed));
    let heads = at_other.lock().unwrap();
    assert!(
        !heads.is_empty() && heads.iter().all(|head| !head.contains("amz") && !head.contains("authorization")),
        "{heads:?}"
    );
}

#[test]
fn what_a_store_repeats_of_a_key_is_in_no_error() {
    let echo = |head: &str| {
        response(
            &format!("403 Forbidden {head}"),
            "<Error>the-echoed-access-key-1, long-password-2, http://h/?sig=abc</Error>",
        )
    };
    let (server, _) = recording(move |_| echo(""));
    let dir = tempfile::tempdir().unwrap();
    let cache = ObjectCache::new(dir.path())
        .with_setting("aws_endpoint", format!("http://{server}"))
        .with_setting("aws_region", "us-east-1")
        .with_setting("aws_access_key_id", "id")
        .with_setting("aws_secret_access_key", "the-echoed-access-key-1")
        .with_setting("allow_http", "true");
    let texts = ["s3://bucket/a/".to_owned(), format!("http://me:long-password-2@{server}/a.jsonl")].map(|url| {
        let error = cache.inputs(&url).unwrap_err();
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        format!("{error} {error:?} {cause:?}")
    });
    for text in texts {
        assert!(text.contains("403"), "{text}");
        for secret in ["the-echoed-access-key-1", "long-password-2", "sig=abc", "me:"] {
            assert!(!text.contains(secret), "{secret}: {text}");
        }
    }
}

#[test]
fn credentials_in_urls_that_cannot_be_read_are_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    let cache = ObjectCache::new(dir.path());
    for url in [
        "https://user:hid-den-1@host/a.parquet?X-Amz-Signature=hid-den-2",
        "https://host/a.parquet?hid-den-1",
        "https://us er:hid-den-1@host/a.parquet",
        "https://user:hid/den-1@host:port/a",
        "s3://hid-den-1:hid-den-2@bucket/a",
        "ftp://user:hid-den-1@host/a",
        "https://user:hid-den-1@[::1/a",
    ] {
        let error = cache.inputs(url).unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(!text.contains("den-1") && !text.contains("den-2"), "{text}");
    }
}
