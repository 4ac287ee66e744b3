//! Places to which a secret goes unencrypted.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use super::urls::origin;

/// Host of an `http://` URL on another machine, to which a secret would go readable for everyone between; `None` for `https` and
/// for this machine.
///
/// # Examples
/// ```
/// use simplemix_files::secret::sent_in_the_open;
/// assert_eq!(sent_in_the_open("http://host:8000/v1").as_deref(), Some("host"));
/// assert!(sent_in_the_open("https://host/").is_none() && sent_in_the_open("http://localhost:1/").is_none());
/// ```
pub fn sent_in_the_open(url: &str) -> Option<String> {
    let (scheme, host, _) = origin(url)?;
    (scheme == "http" && !is_this_machine(&host)).then_some(host)
}

/// [`sent_in_the_open`], once for each host in the life of the process: for a warning.
pub fn first_in_the_open(url: &str) -> Option<String> {
    static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let host = sent_in_the_open(url)?;
    TOLD.lock().unwrap_or_else(PoisonError::into_inner).insert(host.clone()).then_some(host)
}

/// Whether a host is this machine: a loopback address, or a name that stands for one.
pub fn is_this_machine(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_ascii_lowercase();
    let is_loopback = |address: IpAddr| match address {
        IpAddr::V6(address) => address.to_ipv4_mapped().map_or(address.is_loopback(), |address| address.is_loopback()),
        IpAddr::V4(address) => address.is_loopback(),
    };
    host == "localhost" || host.ends_with(".localhost") || host.parse().is_ok_and(is_loopback)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_this_machine() {
        for host in ["localhost", "LocalHost.", "a.localhost", "127.0.0.1", "127.9.9.9", "[::1]", "::ffff:127.0.0.1"] {
            assert!(is_this_machine(host), "{host}");
        }
        for host in ["localhost.com", "127.0.0.1.nip.io", "10.0.0.1", "0.0.0.0", "[::2]", "host"] {
            assert!(!is_this_machine(host), "{host}");
        }
        let told =
            ["http://once.example/a", "http://once.example:8000/b", "https://once.example/"].map(first_in_the_open);
        assert_eq!(told, [Some("once.example".to_owned()), None, None]);
    }
}
