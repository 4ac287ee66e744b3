//! Settings of one server, or of several that share the work.

use std::fmt;

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::settings::{Address, ServerSettings};
use crate::error::{Error, Result};

/// Servers that have one model: a table of [`ServerSettings`], whose `url` may be a list of addresses with the same settings, or a
/// list of tables. Each server has its own address, key, concurrency, time limits and retries; what responses depend on is the same
/// for all.
///
/// # Examples
/// ```
/// use simplemix_rollout::{ServerSettings, Servers};
/// let servers = Servers::from(vec![ServerSettings::new("http://fast:8000"), ServerSettings::new("http://slow:8000")]);
/// assert!(servers.check().is_ok());
/// let twice = Servers::from(vec![ServerSettings::new("http://fast:8000"), ServerSettings::new("http://fast:8000/v1")]);
/// assert!(twice.check().is_err());
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Servers(Vec<ServerSettings>);

impl From<ServerSettings> for Servers {
    fn from(settings: ServerSettings) -> Self {
        Self(vec![settings])
    }
}

impl From<Vec<ServerSettings>> for Servers {
    fn from(all: Vec<ServerSettings>) -> Self {
        Self(all)
    }
}

impl Servers {
    /// Settings of each server.
    pub fn all(&self) -> &[ServerSettings] {
        &self.0
    }

    /// The servers with `change` made to the settings of each.
    #[must_use]
    pub fn map(self, change: impl FnMut(ServerSettings) -> ServerSettings) -> Self {
        Self(self.0.into_iter().map(change).collect())
    }

    /// Checks that every setting is in range, and that the servers sample alike.
    ///
    /// # Errors
    /// [`Error::Setting`] with the first setting out of range or different.
    pub fn check(&self) -> Result<()> {
        let Some((first, others)) = self.0.split_first() else {
            return Err(setting("none".to_owned(), "at least one server"));
        };
        self.0.iter().try_for_each(ServerSettings::check)?;
        let mut addresses = Vec::new();
        for server in &self.0 {
            let address = Address::new(&server.url)?.of("");
            if addresses.contains(&address) {
                let shown = Address::new(&server.url)?.shown();
                return Err(setting(
                    format!("{shown}, twice"),
                    "each server once; `concurrency` sends it more requests",
                ));
            }
            addresses.push(address);
        }
        others.iter().try_for_each(|other| alike(first, other))
    }

    /// Everything in the settings that responses depend on: neither addresses nor what only decides how they are asked.
    pub fn identity(&self) -> Value {
        let named = self.0.iter().find_map(|server| server.model.as_ref());
        let Some(first) = self.0.first() else { return Value::Null };
        let stored = serde_json::to_value(first).unwrap_or_default();
        let mut identity = json!({ "model": named });
        for key in SHARED {
            identity[key] = stored[key].clone();
        }
        identity
    }
}

/// Settings that responses depend on beside the model, which are the same for all servers.
const SHARED: [&str; 5] = ["name", "endpoint", "on_refused", "logps", "extra"];

/// Refuses two servers whose responses differ by their settings.
fn alike(first: &ServerSettings, other: &ServerSettings) -> Result<()> {
    let differs = [
        ("model", first.model.is_some() && other.model.is_some() && first.model != other.model),
        ("name", first.name != other.name),
        ("endpoint", first.endpoint != other.endpoint),
        ("on_refused", first.on_refused != other.on_refused),
        ("logps", first.logps != other.logps),
        ("extra", first.extra != other.extra),
        ("tokenizer", first.tokenizer != other.tokenizer),
    ];
    let Some((key, _)) = differs.into_iter().find(|(_, differs)| *differs) else { return Ok(()) };
    let shown = |server: &ServerSettings| Address::new(&server.url).map(|address| address.shown());
    let found = format!("{} and {}, whose `{key}` differ", shown(first)?, shown(other)?);
    Err(setting(found, "servers that sample alike: addresses, keys, concurrency, time limits and retries may differ"))
}

/// The error about the servers.
pub(super) fn setting(found: String, expected: &'static str) -> Error {
    Error::Setting { key: "server", found, expected }
}

impl Serialize for Servers {
    /// A table for one server, else a list.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => one.serialize(serializer),
            several => several.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Servers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrSeveral)
    }
}

struct OneOrSeveral;

impl<'de> Visitor<'de> for OneOrSeveral {
    type Value = Servers;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table of a server's settings, or a list of such tables")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Servers, A::Error> {
        let mut table = Map::new();
        while let Some((key, value)) = map.next_entry::<String, Value>()? {
            table.insert(key, value);
        }
        let urls = match table.get("url") {
            Some(Value::Array(urls)) => urls.clone(),
            _ => return one(table).map(Servers::from),
        };
        let of = |url| one(table.clone().into_iter().chain([("url".to_owned(), url)]).collect());
        some(urls.into_iter().map(of).collect::<Result<_, _>>()?)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Servers, A::Error> {
        let mut all = Vec::new();
        while let Some(server) = list.next_element()? {
            all.push(server);
        }
        some(all)
    }
}

fn one<E: serde::de::Error>(table: Map<String, Value>) -> Result<ServerSettings, E> {
    ServerSettings::deserialize(Value::Object(table)).map_err(E::custom)
}

fn some<E: serde::de::Error>(all: Vec<ServerSettings>) -> Result<Servers, E> {
    if all.is_empty() { Err(E::custom("no server, expected at least one")) } else { Ok(Servers(all)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::Endpoint;

    fn read(text: &str) -> Result<Servers, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_table_is_one_server_and_a_list_several() {
        let one = read(r#"{"url": "http://a"}"#).unwrap();
        assert_eq!(one, ServerSettings::new("http://a").into());
        let several = read(r#"[{"url": "http://a", "concurrency": 4}, {"url": "http://b"}]"#).unwrap();
        assert_eq!((several.all()[0].concurrency, several.all()[1].url.as_str()), (4, "http://b"));
        let listed = read(r#"{"url": ["http://a", "http://b"], "concurrency": 4}"#).unwrap();
        let addresses: Vec<_> = listed.all().iter().map(|server| (server.url.as_str(), server.concurrency)).collect();
        assert_eq!(addresses, [("http://a", 4), ("http://b", 4)]);
        for servers in [one, several, listed] {
            assert_eq!(read(&serde_json::to_string(&servers).unwrap()).unwrap(), servers);
        }
        assert!(read(r#"{"url": []}"#).unwrap_err().contains("no server, expected at least one"));
        assert!(read(r#"{"url": [3]}"#).unwrap_err().contains("expected a string"));
        assert!(read("[]").unwrap_err().contains("no server, expected at least one"));
        assert!(read("3").unwrap_err().contains("a table of a server's settings, or a list of such tables"));
        assert!(read(r#"[{"url": "http://a", "api_key": "x"}]"#).unwrap_err().contains("api_key"));
    }

    #[test]
    fn servers_that_do_not_sample_alike_are_refused() {
        let of = |change: fn(&mut ServerSettings)| {
            let mut other = ServerSettings::new("http://b");
            change(&mut other);
            let mut first = ServerSettings::new("http://a");
            first.model = Some("m".to_owned());
            Servers::from(vec![first, other]).check().map_err(|error| error.to_string())
        };
        of(|other| {
            (other.concurrency, other.retries, other.timeout_secs, other.max_wait_secs) = (1, 2, 3.0, 4.0);
            (other.api_key_env, other.max_reply_bytes) = ("B_KEY".to_owned(), 5);
        })
        .unwrap();
        let found = of(|other| other.endpoint = Endpoint::Chat).unwrap_err();
        assert!(
            found
                .starts_with("`server` is http://a/v1 and http://b/v1, whose `endpoint` differ, expected servers that"),
            "{found}"
        );
        type Change = (&'static str, fn(&mut ServerSettings));
        let changes: [Change; 5] = [
            ("model", |other| other.model = Some("n".to_owned())),
            ("name", |other| other.name = Some("n".to_owned())),
            ("logps", |other| other.logps = false),
            ("extra", |other| drop(other.extra.insert("a".to_owned(), 1.into()))),
            ("tokenizer", |other| other.tokenizer = Some("t".into())),
        ];
        for (key, change) in changes {
            assert!(of(change).unwrap_err().contains(&format!("whose `{key}` differ")), "{key}");
        }
        assert!(of(|other| other.url = "http://a/v1/".to_owned()).unwrap_err().contains("http://a/v1, twice"));
        assert!(of(|other| other.concurrency = 0).unwrap_err().contains("`concurrency` is 0"));
    }

    #[test]
    fn what_responses_depend_on_is_no_address() {
        let identity = |change: fn(&mut ServerSettings)| {
            let mut server = ServerSettings::new("http://a");
            server.model = Some("m".to_owned());
            change(&mut server);
            Servers::from(server).identity()
        };
        let plain = identity(|_| {});
        assert_eq!(plain, identity(|server| (server.url, server.concurrency) = ("http://b:9/v1".to_owned(), 3)));
        for change in [
            (|server| server.model = None) as fn(&mut ServerSettings),
            |server| server.logps = false,
            |server| server.endpoint = Endpoint::Chat,
            |server| drop(server.extra.insert("a".to_owned(), 1.into())),
        ] {
            assert_ne!(plain, identity(change));
        }
    }
}
