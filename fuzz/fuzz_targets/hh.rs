//! Any two texts as transcripts of HH-RLHF: pairs whose texts are parts of them, or a counted refusal.
#![no_main]

use libfuzzer_sys::fuzz_target;
use simplemix_data::{Format, ReadOptions, Text, read_pairs};

fuzz_target!(|texts: (String, String)| {
    let (chosen, rejected) = texts;
    let row = serde_json::json!({ "chosen": chosen, "rejected": rejected });
    let mut file = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
    std::io::Write::write_all(&mut file, row.to_string().as_bytes()).unwrap();
    let options = ReadOptions::default().with_format(Format::HhTranscripts);
    for pair in read_pairs(file.path(), &options).unwrap_or_default() {
        for (side, whole) in [(&pair.chosen, &chosen), (&pair.rejected, &rejected)] {
            let Text::Messages(turns) = side else { continue };
            assert!(turns.iter().all(|turn| whole.contains(turn.content.trim())));
        }
    }
});
