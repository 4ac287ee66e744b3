//! Any bytes as the receipt of a mixture: a verification that ends. Its source is there under the name that the seeds have.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use simplemix_data::Unwatched;
use simplemix_pipeline::verify;
use tempfile::TempDir;

static FOLDER: OnceLock<TempDir> = OnceLock::new();

/// The working folder, with the source of the seeds in it. The cache is there too.
fn folder() -> &'static TempDir {
    FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        std::fs::write(folder.path().join("a.jsonl"), include_bytes!("../receipt.jsonl")).unwrap();
        std::env::set_current_dir(folder.path()).unwrap();
        folder
    })
}

fuzz_target!(|bytes: &[u8]| {
    let path = folder().path().join("receipt.json");
    std::fs::write(&path, bytes).unwrap();
    let _ = verify(&path, &mut Unwatched);
});
