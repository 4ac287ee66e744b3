//! Any bytes as a GGUF file: a model folder, or an error and no folder.
#![no_main]

use libfuzzer_sys::fuzz_target;
use simplemix_model::gguf::import_gguf;

fuzz_target!(|bytes: &[u8]| {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let (input, output) = (folder.path().join("model.gguf"), folder.path().join("model"));
    std::fs::write(&input, bytes).unwrap();
    let imported = import_gguf(&input, &output, &mut |_, _| ());
    assert_eq!(imported.is_ok(), output.exists());
});
