//! Files by URL: objects in S3, Google Cloud Storage, Azure and on web servers, copied once into a folder.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::TryStreamExt as _;
use glob::{MatchOptions, Pattern};
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt as _, ObjectStoreScheme};
use simplemix_files::secret::{RedactedError, Secret, first_in_the_open, is_secret_name, redacted_url};
use simplemix_files::{AtomicFile, cache_dir_for};
use url::Url;

use crate::error::{Error, Result};
use crate::folder::{has_ending, one_split};
use crate::read::with_rows;
use crate::remote_http::{Connector, Login};

/// Folder of local copies of remote objects. A copy is made again when the object has changed.
///
/// Readers seek in Parquet and Arrow files and read JSON twice, so an object is streamed to disk first; memory is bounded
/// by one network buffer. A copy is identified by URL, size and version of the object (ETag or date), so a second use
/// requests only those. An incomplete copy is not kept.
///
/// # Examples
/// ```no_run
/// use simplemix_data::{ObjectCache, ReadOptions, read_pairs};
///
/// for file in ObjectCache::from_env()?.inputs("s3://my-bucket/preferences/train-*.parquet")? {
///     println!("{}", read_pairs(&file, &ReadOptions::default())?.len());
/// }
/// # Ok::<(), simplemix_data::Error>(())
/// ```
#[derive(Clone)]
pub struct ObjectCache {
    folder: PathBuf,
    settings: Vec<(String, String)>,
}

/// Progress of copying one object.
#[derive(Debug, Clone, Copy)]
pub struct Transfer<'a> {
    /// The object's URL, without user and password.
    pub url: &'a str,
    /// Bytes on disk so far.
    pub done: u64,
    /// Size of the object in bytes.
    pub total: u64,
}

impl std::fmt::Debug for ObjectCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The settings may hold secrets.
        f.debug_struct("ObjectCache").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl ObjectCache {
    /// Uses `folder` for the copies, and no credentials.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), settings: Vec::new() }
    }

    /// Uses the folder `objects` of the user's cache folder (see [`simplemix_files::cache_dir`]). Stores take their
    /// settings from the environment variables of their own tools, such as `AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`,
    /// `GOOGLE_SERVICE_ACCOUNT` or `AZURE_STORAGE_ACCOUNT_NAME`.
    ///
    /// # Errors
    /// [`Error::Files`] if no variable says where the cache folder is.
    pub fn from_env() -> Result<Self> {
        let prefixes = ["AWS_", "AZURE_", "GOOGLE_"];
        let settings = std::env::vars_os()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(key, _)| prefixes.iter().any(|prefix| key.starts_with(prefix)))
            .map(|(key, value)| (key.to_lowercase(), value));
        Ok(settings.fold(Self::new(cache_dir_for("objects")?), |cache, (key, value)| cache.with_setting(key, value)))
    }

    /// Adds a setting of the `object_store` crate, such as `aws_endpoint` or `allow_http`.
    #[must_use]
    pub fn with_setting(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        let (key, value) = (key.into(), value.into());
        if is_secret_name(&key) || key.ends_with("_key_id") || key.contains("sas") || key.ends_with("_token") {
            // From now on the process takes it out of what it prints.
            drop(Secret::new(value.clone()));
        }
        self.settings.push((key, value));
        self
    }

    /// Copies the objects that `url` names and returns the copies, sorted by name: one object, all objects with pairs
    /// below a prefix that ends in `/`, or those that match a pattern such as `s3://bucket/data/train-*.parquet`. A
    /// `file://` URL is not copied; it follows the rules of [`inputs`](crate::inputs()).
    ///
    /// # Errors
    /// [`Error::Url`] if it is not a URL of a known store, [`Error::NoInput`] if nothing matches, [`Error::Remote`] if the
    /// store fails or refuses, [`Error::Files`] or [`Error::Io`] if the copy cannot be written.
    pub fn inputs(&self, url: &str) -> Result<Vec<PathBuf>> {
        self.inputs_with(url, &mut |_| ())
    }

    /// Like [`inputs`](ObjectCache::inputs), and calls `progress` for every piece that arrives.
    ///
    /// # Errors
    /// See [`inputs`](ObjectCache::inputs).
    pub fn inputs_with(&self, url: &str, progress: &mut (dyn FnMut(Transfer<'_>) + Send)) -> Result<Vec<PathBuf>> {
        let location = Location::parse(url, &self.settings)?;
        let store = match location {
            Location::Local(path) => return crate::inputs(path),
            Location::Store(store) => store,
        };
        let failed = |error: std::io::Error| store.failed("start", error);
        // Needs its own thread, since the caller may be inside another runtime.
        let work = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
            runtime.block_on(store.copy_all(&self.folder, progress))
        };
        let copies = std::thread::scope(|scope| scope.spawn(work).join())
            .unwrap_or_else(|_| Err(store.failed("copy", std::io::Error::other("the client panicked"))))?;
        Ok(with_rows(copies))
    }
}

enum Location {
    Local(PathBuf),
    Store(Store),
}

impl Location {
    fn parse(text: &str, settings: &[(String, String)]) -> Result<Self> {
        let wrong = |found: String, expected| Error::Url { url: redacted_url(text), found, expected };
        let mut url = Url::parse(text).map_err(|e| wrong(e.to_string(), "a URL"))?;
        if url.scheme() == "file" {
            let path = url.to_file_path();
            return path.map(Self::Local).map_err(|()| wrong("not local".to_owned(), "file:///PATH"));
        }
        if url.query().is_some() {
            return Err(wrong(
                "with a query".to_owned(),
                "a URL without one; keys of stores are read from the environment",
            ));
        }
        let known = "file://, s3://, gs://, az://, http:// or https://";
        let (scheme, _) = ObjectStoreScheme::parse(&url).map_err(|_| wrong("of another kind".to_owned(), known))?;
        if matches!(scheme, ObjectStoreScheme::Local | ObjectStoreScheme::Memory) {
            return Err(wrong(url.scheme().to_owned(), known));
        }
        // In URLs of Azure the container stands where others have a user.
        let login = if scheme == ObjectStoreScheme::Http { Login::take(&mut url) } else { None };
        if scheme != ObjectStoreScheme::MicrosoftAzure && !(url.username().is_empty() && url.password().is_none()) {
            return Err(wrong("with a user or password".to_owned(), "keys of this store in the environment"));
        }
        url.set_fragment(None);
        let shown = redacted_url(url.as_str());
        warn_of_the_open(&url, login.is_some(), settings);
        let (store, path) = open(&scheme, &url, settings, login).map_err(remote(&shown, "open"))?;
        let lists = scheme != ObjectStoreScheme::Http;
        let folder = url.path().is_empty() || url.path().ends_with('/');
        Ok(Self::Store(Store { store, path, url: shown, folder, lists }))
    }
}

/// Opens a store. Redirections are followed by our own client, which keeps credentials to their host.
fn open(
    scheme: &ObjectStoreScheme,
    url: &Url,
    settings: &[(String, String)],
    login: Option<Login>,
) -> object_store::Result<(Arc<dyn ObjectStore>, ObjectPath)> {
    let (_, path) = ObjectStoreScheme::parse(url)?;
    let http = (url.scheme() == "http").then_some(("allow_http", "true"));
    let settings = || settings.iter().map(|(key, value)| (key.as_str(), value.as_str())).chain(http);
    let connector = Connector { login };
    // Each builder has its own type of keys, and passes over those of the others.
    macro_rules! store {
        ($builder:expr) => {{
            let set = settings().fold($builder, |builder, (key, value)| match key.to_ascii_lowercase().parse() {
                Ok(key) => builder.with_config(key, value),
                Err(_) => builder,
            });
            Arc::new(set.with_http_connector(connector).build()?)
        }};
    }
    let store: Arc<dyn ObjectStore> = match scheme {
        ObjectStoreScheme::AmazonS3 => store!(AmazonS3Builder::new().with_url(url.as_str())),
        ObjectStoreScheme::GoogleCloudStorage => store!(GoogleCloudStorageBuilder::new().with_url(url.as_str())),
        ObjectStoreScheme::MicrosoftAzure => store!(MicrosoftAzureBuilder::new().with_url(url.as_str())),
        _ => store!(HttpBuilder::new().with_url(&url[..url::Position::BeforePath])),
    };
    Ok((store, path))
}

/// Warns once of a login, or of requests signed with a key, that go unencrypted to another machine.
fn warn_of_the_open(url: &Url, has_login: bool, settings: &[(String, String)]) {
    let has_key = settings.iter().any(|(key, _)| key.starts_with("aws_") && is_secret_name(key));
    let endpoint =
        settings.iter().find(|(key, _)| has_key && key.contains("endpoint")).map(|(_, value)| value.as_str());
    let place = match url.scheme() {
        "s3" | "s3a" => endpoint,
        _ => has_login.then_some(url.as_str()),
    };
    if let Some(host) = place.and_then(first_in_the_open) {
        tracing::warn!("{host}: credentials are sent to it over http, readable for every machine between; use https");
    }
}

fn remote<E>(url: &str, action: &'static str) -> impl FnOnce(E) -> Error
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let url = url.to_owned();
    // Stores repeat URLs, and servers what they were sent.
    move |source| {
        let source: Box<dyn std::error::Error + Send + Sync> = source.into();
        Error::Remote { url, action, source: Box::new(RedactedError::new(source.as_ref())) }
    }
}

/// An object store, and the objects asked for.
struct Store {
    store: Arc<dyn ObjectStore>,
    path: ObjectPath,
    url: String,
    folder: bool,
    /// Whether the store can list objects; web servers cannot.
    lists: bool,
}

impl Store {
    fn failed(&self, action: &'static str, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        remote(&self.url, action)(error)
    }

    async fn copy_all(&self, folder: &Path, progress: &mut (dyn FnMut(Transfer<'_>) + Send)) -> Result<Vec<PathBuf>> {
        let objects = self.objects().await?;
        let mut copies = Vec::with_capacity(objects.len());
        for object in &objects {
            copies.push(self.copy(object, folder, progress).await?);
        }
        Ok(copies)
    }

    /// Finds the objects that the URL names.
    async fn objects(&self) -> Result<Vec<ObjectMeta>> {
        let pattern = self.path.as_ref().contains(['*', '[']).then(|| Pattern::new(self.path.as_ref()));
        let none = |expected| Err(Error::NoInput { path: self.url.clone().into(), expected });
        let mut found = match pattern {
            Some(Err(_)) => return none("a valid pattern"),
            Some(Ok(pattern)) => self.list(Some(&pattern)).await?,
            None if self.folder => self.list(None).await?,
            None => match self.store.head(&self.path).await {
                Ok(object) => return Ok(vec![object]),
                // A folder whose URL lacks the last slash.
                Err(object_store::Error::NotFound { .. }) if self.lists => {
                    let inside = self.list(None).await?;
                    if inside.is_empty() {
                        return none("an object of this name, or objects below it");
                    }
                    inside
                }
                Err(error) => return Err(self.failed("look up", error)),
            },
        };
        found.sort_by(|a, b| a.location.cmp(&b.location));
        if found.is_empty() { none("Parquet, Arrow IPC or JSON objects") } else { Ok(found) }
    }

    /// Lists the objects that match the pattern, or all with pairs in the folder.
    async fn list(&self, pattern: Option<&Pattern>) -> Result<Vec<ObjectMeta>> {
        if !self.lists {
            return Err(self.failed("list", "a web server cannot list files; name each file"));
        }
        let Some(pattern) = pattern else {
            let found = self.store.list_with_delimiter(Some(&self.path)).await;
            let mut objects = found.map_err(|e| self.failed("list", e))?.objects;
            objects.retain(|object| object.location.filename().is_some_and(has_ending));
            let names: Vec<String> =
                objects.iter().filter_map(|object| object.location.filename()).map(str::to_owned).collect();
            one_split(Path::new(&self.url), &names)?;
            return Ok(objects);
        };
        let fixed = self.path.parts().take_while(|part| !part.as_ref().contains(['*', '[']));
        let prefix: ObjectPath = fixed.collect();
        let options = MatchOptions { require_literal_separator: true, ..MatchOptions::new() };
        let all: Vec<ObjectMeta> =
            self.store.list(Some(&prefix)).try_collect().await.map_err(|e| self.failed("list", e))?;
        Ok(all.into_iter().filter(|object| pattern.matches_with(object.location.as_ref(), options)).collect())
    }

    /// Returns the copy of an object, made if there is none.
    async fn copy(
        &self,
        object: &ObjectMeta,
        folder: &Path,
        progress: &mut (dyn FnMut(Transfer<'_>) + Send),
    ) -> Result<PathBuf> {
        let url = self.url_of(object);
        let name = object.location.filename().unwrap_or("object");
        let version = object.e_tag.clone().unwrap_or_else(|| object.last_modified.to_rfc3339());
        let key = blake3::hash(format!("{url}\n{}\n{version}", object.size).as_bytes());
        let folder = folder.join(&key.to_hex()[..16]);
        let path = folder.join(name);
        if path.metadata().is_ok_and(|file| file.len() == object.size) {
            return Ok(path);
        }
        tracing::info!(url, bytes = object.size, "copying");
        simplemix_files::open_dir(&folder)?;
        let mut file = AtomicFile::create(&path)?;
        let found = self.store.get(&object.location).await.map_err(remote(&url, "read"))?;
        let mut pieces = found.into_stream();
        let mut done = 0;
        while let Some(piece) = pieces.try_next().await.map_err(remote(&url, "read"))? {
            file.write_all(&piece).map_err(Error::io(&path, "write"))?;
            done += piece.len() as u64;
            progress(Transfer { url: &url, done, total: object.size });
        }
        if done != object.size {
            let cut = format!("received {done} bytes, expected {}", object.size);
            return Err(remote(&url, "read")(cut));
        }
        file.commit()?;
        Ok(path)
    }

    /// URL of an object of the store.
    fn url_of(&self, object: &ObjectMeta) -> String {
        if object.location == self.path {
            return self.url.clone();
        }
        let Ok(mut url) = Url::parse(&self.url) else { return object.location.to_string() };
        // If the first part of the path names the bucket, keep it.
        let lead = url.path().trim_matches('/').trim_end_matches(self.path.as_ref()).trim_end_matches('/').to_owned();
        url.set_path(&format!("{lead}/{}", object.location));
        url.into()
    }
}
