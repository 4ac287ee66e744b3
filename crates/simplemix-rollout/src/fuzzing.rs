//! Parsers that are no public interface, for the targets in `fuzz/`.

use std::path::Path;

use crate::journal::{Work, WorkKey};

/// Parses the answer of a server.
#[cfg(feature = "server")]
pub fn reply(body: &[u8], chat: bool) {
    crate::server::parse_reply(body, chat);
}

/// Opens a journal with these bytes in `folder`, reads its results, and adds one.
///
/// # Panics
/// If the journal does not hold what was added.
pub fn journal(folder: &Path, bytes: &[u8]) {
    let output = folder.join("out.parquet");
    std::fs::write(folder.join(".out.parquet.partial"), bytes).expect("the folder can be written to");
    let key = WorkKey::new("fuzz", &[]);
    let begun = Work::<serde_json::Value, serde_json::Value>::begin(&output, &key, !bytes.is_empty());
    let Ok(Work::Open(mut journal)) = begun else { return };
    for number in 0..8 {
        let found = journal.get(number).is_ok_and(|found| found.is_some());
        assert!(!found || journal.has(number));
    }
    journal.append(&[(7, "added".into())]).expect("the folder can be written to");
    assert_eq!(journal.get(7).expect("it was added"), Some(&"added".into()));
}
