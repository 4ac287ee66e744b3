//! Any bytes between Parquet's marks, or whole files damaged by the fuzzer: batches or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use simplemix_data::{PairReader, ReadOptions};

fuzz_target!(|bytes: &[u8]| {
    let mut file = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
    std::io::Write::write_all(&mut file, bytes).unwrap();
    if let Ok(reader) = PairReader::open(file.path(), &ReadOptions::default()) {
        for batch in reader.take(64) {
            if batch.is_err() {
                break;
            }
        }
    }
});
