//! Any bytes as the journal of unfinished work: the results in it, or an error. What it gives can be added to.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    simplemix_rollout::fuzzing::journal(folder.path(), bytes);
});
