//! Any bytes as JSON lines, a JSON array, or either under gzip or zstd: pairs, counted refusals or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use simplemix_data::{ReadOptions, read_pairs_with_report};

fuzz_target!(|bytes: &[u8]| {
    let mut file = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
    std::io::Write::write_all(&mut file, bytes).unwrap();
    if let Ok((pairs, report)) = read_pairs_with_report(file.path(), &ReadOptions::default()) {
        assert_eq!(pairs.len() as u64, report.pairs);
    }
});
