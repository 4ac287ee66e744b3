//! Credentials inside URLs: user and password, values of the query, the fragment.

/// Text in place of a part of a URL.
const MASK: &str = "***";

/// Longest name of a part of a query that is known.
const MOST_NAME: usize = 32;

/// Names in a query whose values are no secrets.
const HARMLESS: [&str; 6] = ["api-version", "download", "raw", "revision", "version", "list-type"];

/// Names in a query, outside of a URL too, whose values are secrets.
const SECRET: [&str; 30] = [
    "access_key",
    "access_token",
    "accesskeyid",
    "api-key",
    "api_key",
    "apikey",
    "auth",
    "authorization",
    "awsaccesskeyid",
    "client_secret",
    "code",
    "credential",
    "googleaccessid",
    "key",
    "pass",
    "passwd",
    "password",
    "private_token",
    "pwd",
    "refresh_token",
    "secret",
    "sig",
    "signature",
    "token",
    "x-amz-credential",
    "x-amz-security-token",
    "x-amz-signature",
    "x-goog-credential",
    "x-goog-signature",
    "x-oss-signature",
];

/// `text` with the credentials of its URLs masked; `None` if there are none.
pub(super) fn masked(text: &str) -> Option<String> {
    let urls = each_url(text, &mut |url| Some(masked_url(url)).filter(|shown| shown != url));
    let parts = masked_parts(urls.as_deref().unwrap_or(text));
    parts.or(urls)
}

/// `text` with user and password taken out of its URLs, so that they can be stored and still name their place.
///
/// # Examples
/// ```
/// use simplemix_files::secret::without_user;
/// assert_eq!(without_user("path = \"https://me:pass@host/a.parquet\""), "path = \"https://host/a.parquet\"");
/// ```
pub fn without_user(text: &str) -> String {
    let changed = each_url(text, &mut |url| {
        let (scheme, rest) = url.split_once("://")?;
        let end = user_end(scheme, rest)?;
        Some(format!("{scheme}://{}", &rest[end + 1..]))
    });
    changed.unwrap_or_else(|| text.to_owned())
}

/// Replaces URLs of a text; `None` if nothing changes.
fn each_url(text: &str, replaced: &mut dyn FnMut(&str) -> Option<String>) -> Option<String> {
    let (mut changed, mut kept, mut from) = (String::new(), 0, 0);
    while let Some(at) = text[from..].find("://").map(|at| from + at) {
        let is_scheme = |c: char| c.is_ascii_alphanumeric() || "+.-".contains(c);
        let start = text[kept..at]
            .rfind(|c| !is_scheme(c))
            .map_or(kept, |before| kept + before + text[kept + before..].chars().next().map_or(1, char::len_utf8));
        let end = url_end(text, at + 3);
        from = end.max(at + 3);
        if start == at {
            continue;
        }
        if let Some(url) = replaced(&text[start..end]) {
            changed.push_str(&text[kept..start]);
            changed.push_str(&url);
            kept = end;
        }
    }
    (kept > 0).then(|| changed + &text[kept..])
}

/// End of the URL whose part after the scheme begins at `start`; punctuation behind it is the sentence's.
fn url_end(text: &str, start: usize) -> usize {
    let ends = |c: char| c.is_whitespace() || c.is_control() || "\"`<>|^{}".contains(c);
    let end = text[start..].find(ends).map_or(text.len(), |end| start + end);
    start + text[start..end].trim_end_matches([':', ',', '.', ';', ')', ']', '\'', '\\']).len()
}

/// Place of the `@` after user and password in the part of a URL after its scheme. A password may hold what ends a host.
fn user_end(scheme: &str, rest: &str) -> Option<usize> {
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    if let Some(at) = authority.rfind('@') {
        // Azure's containers stand where others have a user.
        let is_container = ["az", "abfs", "abfss", "adl", "azure"].contains(&scheme) && !authority.contains(':');
        return (!is_container).then_some(at);
    }
    let has_port = authority.rsplit_once(':').is_none_or(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    if has_port || authority.starts_with('[') { None } else { rest.rfind('@') }
}

fn masked_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (user, rest) = match user_end(scheme, rest) {
        Some(end) => ("***@", &rest[end + 1..]),
        None => ("", rest),
    };
    let (rest, fragment) = rest.split_once('#').map_or((rest, ""), |(rest, _)| (rest, "#***"));
    let (place, query) = rest.split_once('?').map_or((rest, None), |(place, query)| (place, Some(query)));
    let query = query.map_or(String::new(), |query| format!("?{}", masked_query(query)));
    format!("{scheme}://{user}{place}{query}{fragment}")
}

/// A query with the names of its parts, and their values masked.
fn masked_query(query: &str) -> String {
    let part = |part: &str| match part.split_once('=') {
        Some((name, _)) if HARMLESS.contains(&name.to_ascii_lowercase().as_str()) => part.to_owned(),
        Some((name, value)) if !value.trim_end_matches('=').is_empty() => format!("{name}={MASK}"),
        // A bare value, which may end in the fill of base64.
        _ if part.is_empty() => String::new(),
        _ => MASK.to_owned(),
    };
    query.split('&').map(part).collect::<Vec<_>>().join("&")
}

/// Masks values of secret names in what is left of a URL: `?sig=...`, `&token=...`.
pub(super) fn masked_parts(text: &str) -> Option<String> {
    let (mut changed, mut kept) = (String::new(), 0);
    for (at, _) in text.match_indices(['?', '&']) {
        // Names are short; a text of nothing but such signs must not be read again and again.
        let name = text.as_bytes()[at + 1..].iter().take(MOST_NAME).position(|byte| *byte == b'=');
        let Some(length) = name.filter(|_| at >= kept) else { continue };
        let (name, rest) = (&text[at + 1..at + 1 + length], &text[at + 2 + length..]);
        if !SECRET.contains(&name.to_ascii_lowercase().as_str()) {
            continue;
        }
        let start = text.len() - rest.len();
        let ends = |c: char| c.is_whitespace() || c.is_control() || "&\"'`<>,)#".contains(c);
        let end = rest.find(ends).map_or(text.len(), |end| start + end);
        if &text[start..end] != MASK && start < end {
            changed.push_str(&text[kept..start]);
            changed.push_str(MASK);
            kept = end;
        }
    }
    (kept > 0).then(|| changed + &text[kept..])
}

/// Whether two URLs have the same scheme, host and port, so that credentials for one may go to the other.
///
/// # Examples
/// ```
/// use simplemix_files::secret::is_same_origin;
/// assert!(is_same_origin("https://Host/a", "https://host:443/b?c"));
/// assert!(!is_same_origin("https://host/", "http://host/") && !is_same_origin("http://host/", "http://host:8080/"));
/// ```
pub fn is_same_origin(one: &str, other: &str) -> bool {
    matches!((origin(one), origin(other)), (Some(one), Some(other)) if one == other)
}

/// A text that is meant as one URL, whatever is in it, without its credentials.
pub fn redacted_url(text: &str) -> String {
    super::redacted(&masked_url(text)).into_owned()
}

/// Remembers the credentials of every URL in a text: the password, and what [`remember_query`] remembers.
pub(super) fn remember_urls(text: &str) {
    each_url(text, &mut |url| {
        remember_query(url);
        let (scheme, rest) = url.split_once("://")?;
        let user = &rest[..user_end(scheme, rest)?];
        let password = user.split_once(':').map_or(user, |(_, password)| password);
        if password.len() >= 8 {
            super::remember(password);
            super::remember(user);
        }
        None
    });
}

/// Remembers the values of a URL's query as secrets, except short ones and those of harmless names.
pub fn remember_query(url: &str) {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    for part in query.split('&') {
        match part.split_once('=') {
            Some((name, _)) if HARMLESS.contains(&name.to_ascii_lowercase().as_str()) => {}
            Some((_, value)) if value.len() >= 8 => super::remember(value),
            Some(_) => {}
            None if part.len() >= 8 => super::remember(part),
            None => {}
        }
    }
}

/// Scheme, host and port.
pub(super) fn origin(url: &str) -> Option<(String, String, u16)> {
    let (scheme, rest) = url.split_once("://")?;
    // A backslash ends a host as a slash does, says the URL standard.
    let authority = rest.split(['/', '?', '#', '\\']).next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host).to_ascii_lowercase();
    let scheme = scheme.to_ascii_lowercase();
    let default = match scheme.as_str() {
        "https" => 443,
        "http" => 80,
        _ => 0,
    };
    match host.rsplit_once(':').filter(|(_, port)| !port.contains(']')) {
        Some((host, "")) => Some((scheme, host.to_owned(), default)),
        Some((host, port)) => Some((scheme, host.to_owned(), port.parse().ok()?)),
        None => Some((scheme, host, default)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_in_urls_are_masked_and_places_stay() {
        for (text, expected) in [
            ("see https://host/a/b.parquet, please", None),
            ("https://me:pa@ss@host:8080/a: failed", Some("https://***@host:8080/a: failed")),
            ("https://hf_token@host/a", Some("https://***@host/a")),
            ("http://me:pa/ss@host/a", Some("http://***@host/a")),
            ("az://container@account/a.parquet", None),
            ("[::1] http://[::1]:80/a http://h:80/a@b", None),
            ("https://h/a?sig=A%2Bb%3D&se=2026&download=true", Some("https://h/a?sig=***&se=***&download=true")),
            ("(https://h/a?X-Amz-Signature=00ff)", Some("(https://h/a?X-Amz-Signature=***)")),
            ("'https://h/a?bare'", Some("'https://h/a?***'")),
            ("https://h/a?YWJjZA==", Some("https://h/a?***")),
            ("https://h/a#access_token=1 b", Some("https://h/a#*** b")),
            ("GET /a?token=abc&x=1 400", Some("GET /a?token=***&x=1 400")),
            ("a=1&b=2 ? key = 3, what?no=4", None),
            ("two: s3://a:b@c/d s3://e/f?g=h", Some("two: s3://***@c/d s3://e/f?g=***")),
            ("://x ä://u:p@h/", None),
            ("Ähttp://u:p@h/", Some("Ähttp://***@h/")),
        ] {
            assert_eq!(masked(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn a_stored_url_still_names_its_place() {
        let text = "train = [\"https://a:b@h/x.parquet?v=1\", \"s3://bucket/y\"]";
        assert_eq!(without_user(text), "train = [\"https://h/x.parquet?v=1\", \"s3://bucket/y\"]");
    }

    #[test]
    fn origins_are_compared_as_browsers_do() {
        for (one, other, same) in [
            ("http://h/a", "http://h:80/b", true),
            ("http://u:p@h/a", "http://h/b", true),
            ("http://h/a", "http://h.evil/b", false),
            ("http://h/a", "http://h\\@evil/b", true),
            ("http://h/a", "http://h:pass@evil/", false),
            ("http://h/a", "ftp://h/", false),
            ("http://h/a", "/b", false),
            ("http://[::1]:1/", "http://[::1]:2/", false),
        ] {
            assert_eq!(is_same_origin(one, other), same, "{one} {other}");
        }
    }
}
