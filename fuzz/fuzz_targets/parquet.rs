//! Any bytes between Parquet's marks, or whole files damaged by the fuzzer: batches or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use simplemix_data::{PairReader, ReadOptions};

// Panics of the Parquet reader are caught and become errors; only one that gets out counts, and ends the run.
fuzz_target!(init: std::panic::set_hook(Box::new(|_| ())), |bytes: &[u8]| {
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
