//! Requests of object stores and to web servers. Redirections are followed here and not by the client, so that credentials go
//! only to the host that they are for: not to another host or port, and not from https to http.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use object_store::ClientConfigKey;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
};
use simplemix_files::secret::{Secret, is_same_origin};
use url::Url;

const USER_AGENT: &str = concat!("simplemix/", env!("CARGO_PKG_VERSION"));

/// Most redirections of a request.
const MOST: usize = 10;

/// Headers that may follow a redirection to another host: they say which bytes are wanted, and in which form.
const HARMLESS: [&str; 7] =
    ["accept", "accept-encoding", "if-match", "if-modified-since", "if-none-match", "range", "user-agent"];

/// User and password for a web server.
#[derive(Debug, Clone)]
pub(crate) struct Login {
    /// A URL of the server.
    pub(crate) server: String,
    /// Value of the `authorization` header.
    pub(crate) header: Secret,
}

impl Login {
    /// The login in a URL, which is taken out of it.
    pub(crate) fn take(url: &mut Url) -> Option<Self> {
        let (user, password) = (decoded(url.username()), decoded(url.password().unwrap_or_default()));
        if user.is_empty() && password.is_empty() {
            return None;
        }
        // URLs that cannot have a user have none.
        let _ = url.set_password(None);
        let _ = url.set_username("");
        Some(Self { server: url.to_string(), header: Secret::basic(&user, &password) })
    }
}

/// Text with the bytes that stand as `%XX` in a URL.
fn decoded(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Makes clients that keep credentials to their host.
#[derive(Debug, Default)]
pub(crate) struct Connector {
    /// Login for a web server, if its URL has one.
    pub(crate) login: Option<Login>,
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let failed = |error: reqwest::Error| object_store::Error::Generic { store: "HTTP", source: error.into() };
        let client = HttpClient::new(client(options).map_err(failed)?);
        Ok(HttpClient::new(Client { client, login: self.login.clone() }))
    }
}

/// The client that `object_store` would make, but without redirections.
fn client(options: &ClientOptions) -> reqwest::Result<reqwest::Client> {
    let value = |key| options.get_config_value(&key);
    let is = |key| value(key).is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let time = |key| value(key).and_then(|value| duration(&value));
    let mut builder = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(value(ClientConfigKey::UserAgent).unwrap_or_else(|| USER_AGENT.to_owned()))
        .https_only(!is(ClientConfigKey::AllowHttp))
        .danger_accept_invalid_certs(is(ClientConfigKey::AllowInvalidCertificates))
        // The sizes of objects are those of what is sent.
        .no_gzip()
        .no_brotli()
        .no_zstd()
        .no_deflate();
    if let Some(time) = time(ClientConfigKey::Timeout) {
        builder = builder.timeout(time);
    }
    if let Some(time) = time(ClientConfigKey::ConnectTimeout) {
        builder = builder.connect_timeout(time);
    }
    if let Some(time) = time(ClientConfigKey::ReadTimeout) {
        builder = builder.read_timeout(time);
    }
    if let Some(proxy) = value(ClientConfigKey::ProxyUrl) {
        let excludes = value(ClientConfigKey::ProxyExcludes);
        let excludes = excludes.and_then(|excludes| reqwest::NoProxy::from_string(&excludes));
        builder = builder.proxy(reqwest::Proxy::all(proxy)?.no_proxy(excludes));
    }
    if is(ClientConfigKey::Http1Only) {
        builder = builder.http1_only();
    }
    builder.build()
}

/// A client that follows redirections by itself.
#[derive(Debug)]
struct Client {
    /// Client that follows none.
    client: HttpClient,
    login: Option<Login>,
}

impl HttpService for Client {
    fn call<'client, 'call>(
        &'client self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'call>>
    where
        'client: 'call,
        Self: 'call,
    {
        Box::pin(self.follow(request))
    }
}

impl Client {
    async fn follow(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        for _ in 0..=MOST {
            self.log_in(&mut request)?;
            let sent = request.clone();
            let response = self.client.execute(request).await?;
            match redirected(sent, &response) {
                Some(next) => request = next,
                None => return Ok(response),
            }
        }
        Err(failed(format!("more than {MOST} redirections")))
    }

    /// Adds the login where the request goes to its server.
    fn log_in(&self, request: &mut HttpRequest) -> Result<(), HttpError> {
        let Some(login) = &self.login else { return Ok(()) };
        if is_same_origin(&request.uri().to_string(), &login.server) {
            let header = login.header.expose().parse().map_err(|_| failed("a login that no header can hold"))?;
            request.headers_mut().insert("authorization", header);
        }
        Ok(())
    }
}

fn failed(text: impl Into<String>) -> HttpError {
    HttpError::new(HttpErrorKind::Unknown, std::io::Error::other(text.into()))
}

/// The request to the place that a response names; `None` if it names none, or only a request without a body may be sent again.
fn redirected(mut request: HttpRequest, response: &HttpResponse) -> Option<HttpRequest> {
    let is_redirection = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    if !is_redirection || !["GET", "HEAD"].contains(&request.method().as_str()) {
        return None;
    }
    let location = response.headers().get("location")?.to_str().ok()?;
    let here = request.uri().to_string();
    let mut next = Url::parse(&here).ok()?.join(location).ok()?;
    // A server has no say in the login.
    Login::take(&mut next);
    next.set_fragment(None);
    if !["http", "https"].contains(&next.scheme()) {
        return None;
    }
    if !is_same_origin(&here, next.as_str()) {
        let strange: Vec<_> =
            request.headers().keys().filter(|name| !HARMLESS.contains(&name.as_str())).cloned().collect();
        for name in strange {
            request.headers_mut().remove(name);
        }
    }
    *request.uri_mut() = next.as_str().parse().ok()?;
    Some(request)
}

/// A duration as `object_store` reads and writes it, such as `30s`, `1m 500ms` or `5 minutes`; `None` if it is none.
fn duration(text: &str) -> Option<Duration> {
    let (mut sum, mut rest) = (Duration::ZERO, text.trim());
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u32 = rest[..digits].parse().ok()?;
        rest = rest[digits..].trim_start();
        let letters = rest.find(|c: char| !c.is_alphabetic()).unwrap_or(rest.len());
        sum = sum.checked_add(unit(&rest[..letters])?.checked_mul(number)?)?;
        rest = rest[letters..].trim_start();
    }
    (!sum.is_zero()).then_some(sum)
}

fn unit(name: &str) -> Option<Duration> {
    Some(match name {
        "ns" | "nsec" | "nanos" => Duration::from_nanos(1),
        "us" | "µs" | "usec" | "micros" => Duration::from_micros(1),
        "ms" | "msec" | "millis" => Duration::from_millis(1),
        "s" | "sec" | "secs" | "second" | "seconds" => Duration::from_secs(1),
        "m" | "min" | "mins" | "minute" | "minutes" => Duration::from_secs(60),
        "h" | "hr" | "hrs" | "hour" | "hours" => Duration::from_secs(3600),
        "d" | "day" | "days" => Duration::from_secs(86_400),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_taken_out_of_its_url() {
        let mut url = Url::parse("https://Aladdin:open%20sesame@host/a").unwrap();
        let login = Login::take(&mut url).unwrap();
        assert_eq!(url.as_str(), "https://host/a");
        assert_eq!(login.header.expose(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert!(Login::take(&mut url).is_none());
        assert_eq!(decoded("%C3%A4%2"), "ä%2");
    }

    #[test]
    fn times_are_those_of_the_options() {
        let options = ClientOptions::new().with_timeout(Duration::from_millis(90_500));
        let text = options.get_config_value(&ClientConfigKey::Timeout).unwrap();
        assert_eq!(duration(&text), Some(Duration::from_millis(90_500)), "{text}");
        assert_eq!(duration("1 minute 5sec"), Some(Duration::from_secs(65)));
        assert_eq!([duration(""), duration("fast"), duration("3 parsecs"), duration("3")], [None; 4]);
    }
}
