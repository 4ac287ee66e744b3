//! Any bytes as tokenizer.json: a tokenizer that encodes and decodes, or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use simplemix_data::{PairTokenizer, Text, TokenizeOptions};

// Panics of the tokenizer are caught and become errors; only one that gets out counts, and ends the run.
fuzz_target!(init: std::panic::set_hook(Box::new(|_| ())), |bytes: &[u8]| {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    std::fs::write(folder.path().join("tokenizer.json"), bytes).unwrap();
    let options = TokenizeOptions::default();
    let Ok(tokenizer) = PairTokenizer::from_dir(folder.path(), options) else { return };
    for text in ["", "Two words, é ▁ 漢 \u{1f600}\n\t 12", "<s>a</s> <|im_end|>"] {
        if let Ok(ids) = tokenizer.encode_prompt(&Text::Plain(text.to_owned())) {
            let _ = tokenizer.decode(&ids);
        }
    }
});
