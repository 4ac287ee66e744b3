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
        "https://user@host/a.parquet?sig=1: with the query `sig=1`, expected a URL without a query"
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
